//! Checks of the conventions that a program can check, over the repository's own files. Must not know what the
//! code does.
//!
//! Where a limit is broken already, the ratchet tables say by how much: such a file or function may only shrink,
//! and its number with it.

mod manifests;
mod source;

use self::source::{Source, root, sources};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the limit, with their lines.
const LONG_FILES: [(&str, usize); 0] = [];

/// Functions over the limit (`file function`), with their lines.
const LONG_FUNCTIONS: [(&str, usize); 0] = [];

/// Files that may say `unsafe_code`: the exception, or the module that holds it.
const UNSAFE: [&str; 3] =
    ["runtime/ort/src/lib.rs", "runtime/ort/tests/allocations.rs", "runtime/tch/src/lib.rs"];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 4] = ["utils", "common", "helpers", "misc"];

#[expect(clippy::needless_pass_by_value, reason = "callers build the list in the call")]
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Rust files; this module is left out of the searches for words that it holds itself.
fn rust() -> impl Iterator<Item = Source> {
    sources().into_iter().filter(|source| source.path.ends_with(".rs"))
}

/// Lines of `words` in Rust files, but not in these checks.
fn found(words: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in rust().filter(|source| !source.path.starts_with("tests/tidy")) {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: '{word}'", source.path, index + 1));
            }
        }
    }
    faults
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = rust().filter(|source| !source.text.starts_with("//!"));
    none(silent.map(|source| format!("{}: begin with '//!' and a sentence", source.path)).collect());
}

#[test]
fn files_are_short() {
    let long = rust().filter(|source| !source.is_test());
    let measured = long.map(|source| (source.path.clone(), source.lines_without_tests()));
    none(ratchet(&measured.collect::<Vec<_>>(), FILE_LINES_MAX, &LONG_FILES));
}

#[test]
fn functions_are_short() {
    let mut measured = Vec::new();
    for source in rust().filter(|source| !source.is_test()) {
        for (name, lines) in source.functions() {
            measured.push((format!("{} {name}", source.path), lines));
        }
    }
    none(ratchet(&measured, FUNCTION_LINES_MAX, &LONG_FUNCTIONS));
}

/// What is over `limit` and not in the table, or not as the table says.
fn ratchet(measured: &[(String, usize)], limit: usize, table: &[(&str, usize)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, lines) in measured {
        let listed = table.iter().find(|(listed, _)| listed == name).map(|(_, lines)| *lines);
        match listed {
            None if *lines > limit => {
                faults.push(format!("{name}: {lines} lines, at most {limit}: split it"))
            }
            Some(was) if *lines > was => faults.push(format!("{name}: grew from {was} to {lines} lines")),
            Some(was) if *lines <= limit && was > 0 => {
                faults.push(format!("{name}: is short now ({lines}); take it off the table"));
            }
            Some(was) if *lines < was => {
                faults.push(format!("{name}: shrank to {lines}; write that in place of {was}"));
            }
            _ => {}
        }
    }
    let gone = table.iter().filter(|(listed, _)| measured.iter().all(|(name, _)| name != listed));
    faults.extend(gone.map(|(listed, _)| format!("{listed}: is gone; take it off the table")));
    faults
}

#[test]
fn the_ratchet_turns_one_way() {
    let check = |lines: usize, expected: &str| {
        let faults = ratchet(&[("a".into(), lines), ("b".into(), 10)], 50, &[("a", 60)]);
        assert!(faults.concat().contains(expected) && faults.is_empty() == expected.is_empty(), "{faults:?}");
    };
    check(60, "");
    check(61, "grew");
    check(59, "shrank");
    check(50, "short now");
    assert_eq!(ratchet(&[("b".into(), 51)], 50, &[]).len(), 1);
    assert_eq!(ratchet(&[], 50, &[("a", 60)]).len(), 1);
}

#[test]
fn modules_have_names() {
    let mut faults = Vec::new();
    for source in rust() {
        let segments: Vec<&str> = source.path.trim_end_matches(".rs").split('/').collect();
        if let Some(name) = segments.iter().find(|segment| EMPTY_NAMES.contains(segment)) {
            faults.push(format!("{}: '{name}' says nothing; name what it holds", source.path));
        }
        if segments.last() == Some(&"mod") {
            faults.push(format!("{}: foo.rs beside foo/, never mod.rs", source.path));
        }
        let inline = EMPTY_NAMES.iter().find(|name| source.text.contains(&format!("mod {name} {{")));
        faults.extend(inline.map(|name| format!("{}: mod {name} says nothing", source.path)));
    }
    none(faults);
}

#[test]
fn nothing_is_left_to_do() {
    none(found(&["TODO", "FIXME", "XXX", "todo!", "unimplemented!", "#[ignore"]));
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let word = "unsafe_code";
    let mut faults: Vec<String> = found(&[word]);
    for listed in UNSAFE {
        let before = faults.len();
        faults.retain(|fault| !fault.starts_with(&format!("{listed}:")));
        if faults.len() == before {
            faults.push(format!("{listed}: has no {word}; take it off the list"));
        }
    }
    none(faults);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let mut faults = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let foreign = ["work", "root"].iter().any(|folder| {
                let path = format!("/{folder}/");
                // part of a longer path, such as a URL's, is none of ours
                line.match_indices(&path)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}".contains(c)))
            });
            if foreign {
                faults.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    none(faults);
}

#[test]
fn paths_in_the_architecture_exist() {
    let Ok(text) = std::fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let missing = source::paths_in(&text).into_iter().filter(|path| !root().join(path).exists());
    none(missing.map(|path| format!("ARCHITECTURE.md names '{path}', which does not exist")).collect());
}
