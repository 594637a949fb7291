//! The repository's text files, and how long their functions are. Must not judge.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that are made, not written.
const MADE: [&str; 4] = ["target", "__pycache__", "node_modules", "venv"];

/// Hidden folders that are written.
const WRITTEN: [&str; 3] = [".ci", ".cargo", ".github"];

/// First segments of the repository's paths.
const TOP: [&str; 8] = ["server", "runtime", "models", "loadtest", "benches", "tests", ".ci", ".cargo"];

pub(super) struct Source {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// The workspace's folder.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace").to_owned()
}

/// Every text file.
pub(super) fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    walk(&root(), "", &mut all);
    assert!(all.len() > 50, "only {} files were found in {}", all.len(), root().display());
    all
}

fn walk(folder: &Path, prefix: &str, all: &mut Vec<Source>) {
    let mut items: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    items.sort_by_key(fs::DirEntry::file_name);
    for item in items {
        let name = item.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        let hidden = name.starts_with('.') && !WRITTEN.contains(&name.as_str());
        let kind = item.file_type().unwrap();
        if kind.is_dir() && !hidden && !MADE.contains(&name.as_str()) {
            walk(&item.path(), &format!("{path}/"), all);
        } else if kind.is_file() && name != ".git" {
            // what is not text has no lines to check
            all.extend(fs::read_to_string(item.path()).ok().map(|text| Source { path, text }));
        }
    }
}

impl Source {
    /// Whether the file holds tests alone.
    pub(super) fn is_test(&self) -> bool {
        self.path.split('/').any(|segment| segment == "tests" || segment == "tests.rs")
    }

    fn without_tests(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or("")
    }

    pub(super) fn lines_without_tests(&self) -> usize {
        self.without_tests().lines().count()
    }

    /// Name and lines of every function outside the tests, from `fn` to the closing brace.
    pub(super) fn functions(&self) -> Vec<(String, usize)> {
        functions(self.without_tests())
    }
}

/// Relies on rustfmt: a function's last brace stands under its first word.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let ends = |line: &&str| {
            let here = line.strip_prefix(indent).unwrap_or("");
            here == "}" || (here.starts_with(')') && here.ends_with(';'))
        };
        if let Some(length) = lines[start + 1..].iter().position(ends) {
            all.push((name.to_owned(), length + 2));
        }
    }
    all
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let before = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    let word = words.find(|word| !before.contains(word))?;
    if word != "fn" {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

/// Words in backticks that are paths of this repository: they have a slash, and begin at its top or end in a file.
pub(super) fn paths_in(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let plain = word.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
        let top = word.split('/').next().is_some_and(|first| TOP.contains(&first));
        let file = [".rs", ".toml", ".md", ".py", ".sh", ".proto"].iter().any(|end| word.ends_with(end));
        plain && word.contains('/') && !word.starts_with('/') && (top || file)
    };
    quoted.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn functions_are_measured() {
    let text = "pub fn a(x: u8) -> u8 {\n    if x > 1 {\n    }\n    x\n}\n\nimpl B {\n    async fn b(\n        &self,\n    ) \
                where\n        T: C,\n    {\n    }\n    fn short() {}\n}\n\ntrait D {\n    fn d(\n        x: u8,\n    );\n}\n";
    let found = functions(text);
    let expected = [("a", 5), ("b", 6), ("d", 3)].map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(found, expected);
}

#[test]
fn paths_are_told_from_other_words() {
    let text =
        "`runtime/src/serve.rs` and `text/plain`, `Arc<T>`, `/v2/health`, `tests/` and `src/gone.rs`, `a::b`";
    assert_eq!(paths_in(text), ["runtime/src/serve.rs", "tests/", "src/gone.rs"]);
}
