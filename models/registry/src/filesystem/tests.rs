//! The rules of the filesystem source, each on real folders and with time as a number.
//! Must not reach into anything but files and answers.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use gannet_models::settings::Batching;

use super::*;

const SETTLE_MS: u64 = 500;

struct Fixture {
    dir: tempfile::TempDir,
    now_ms: u64,
    source: Option<FilesystemSource>,
}

impl Fixture {
    /// A repository with these files, all of them old enough to count at the first look.
    fn new(files: &[&str]) -> Self {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 + 60_000;
        let fixture = Self { dir: tempfile::tempdir().unwrap(), now_ms, source: None };
        fs::create_dir_all(fixture.path("")).unwrap();
        files.iter().for_each(|file| fixture.write(file, "model"));
        fixture
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join("root").join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, relative: &str) {
        let path = self.path(relative);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn watch(&mut self, roots: &[&str]) {
        let roots = roots.iter().map(|root| self.path(root)).collect();
        self.source = Some(FilesystemSource::new(roots, FilesystemOptions::default()).unwrap());
    }

    /// One look, `later_ms` after the one before.
    fn poll(&mut self, later_ms: u64) -> Poll {
        if self.source.is_none() {
            self.watch(&[""]);
        }
        self.now_ms += later_ms;
        self.source.as_mut().unwrap().poll(self.now_ms)
    }

    /// A look, and another once what it saw has settled.
    fn settle(&mut self) -> Poll {
        self.poll(1);
        self.poll(SETTLE_MS)
    }
}

/// Such as `iris:1,2 wine:1`.
fn shown(poll: &Poll) -> String {
    let model = |model: &AspiredModel| {
        let versions: Vec<&str> = model.versions.iter().map(|v| v.version.as_str()).collect();
        format!("{}:{}", model.name, versions.join(","))
    };
    poll.models.iter().map(model).collect::<Vec<_>>().join(" ")
}

fn problems(poll: &Poll) -> String {
    poll.models.iter().flat_map(|model| model.problems.clone()).collect::<Vec<_>>().join("\n")
}

fn fingerprint(poll: &Poll) -> u64 {
    poll.models[0].versions[0].fingerprint
}

#[test]
fn the_first_look_takes_what_rests_and_waits_for_what_does_not() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "wine/1/model.onnx", "wine/1/golden/a.json"]);
    let poll = fixture.poll(0);
    assert_eq!((shown(&poll).as_str(), poll.changed), ("iris:1 wine:1", true));
    assert!(!poll.settling && !fixture.poll(1000).changed);

    let mut fixture = Fixture::new(&["iris/1/model.onnx"]);
    fixture.now_ms -= 60_000;
    for (later_ms, expected) in [(0, ""), (SETTLE_MS - 1, ""), (1, "iris:1")] {
        let poll = fixture.poll(later_ms);
        assert_eq!((shown(&poll).as_str(), poll.settling), (expected, expected.is_empty()));
    }
}

#[test]
fn a_new_version_counts_once_it_has_settled() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx"]);
    fixture.poll(0);
    fixture.write("iris/2/model.onnx", "half");
    assert_eq!(shown(&fixture.poll(1)), "iris:1");
    fixture.write("iris/2/model.onnx", "half and more");
    assert_eq!(shown(&fixture.poll(SETTLE_MS)), "iris:1");
    assert_eq!(shown(&fixture.poll(SETTLE_MS - 1)), "iris:1");
    let poll = fixture.poll(1);
    assert_eq!((shown(&poll).as_str(), poll.changed), ("iris:2", true));
}

#[test]
fn new_content_of_a_version_is_a_new_fingerprint_once_it_has_settled() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx"]);
    let before = fingerprint(&fixture.poll(0));
    fixture.write("iris/1/model.onnx", "other model");
    assert_eq!(fingerprint(&fixture.poll(1)), before);
    let poll = fixture.poll(SETTLE_MS);
    assert!(poll.changed && fingerprint(&poll) != before);
}

#[test]
fn editors_and_copies_under_way_have_no_effect() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "iris/model.toml"]);
    fixture.write("iris/model.toml", "max_batch_size = 4");
    let before = fixture.poll(0).models;
    for name in
        [".model.toml.swp", "model.toml~", "4913", "1/.model.onnx.Xy12", "1/a.part", "2.tmp/model.onnx"]
    {
        fixture.write(&format!("iris/{name}"), "x");
    }
    fixture.write(".cache/1/model.onnx", "x");
    assert_eq!(fixture.settle().models, before);
    fixture.write("iris/README.md", "x");
    fixture.write("train.py", "x");
    assert_eq!(fixture.settle().models, before);
}

#[test]
fn removals_from_a_sound_root_are_obeyed_down_to_the_last_model() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "iris/2/model.onnx", "wine/1/model.onnx"]);
    assert_eq!(shown(&fixture.poll(0)), "iris:2 wine:1");
    fixture.remove("iris/2");
    assert_eq!(shown(&fixture.poll(1)), "iris:2 wine:1");
    assert_eq!(shown(&fixture.poll(SETTLE_MS)), "iris:1 wine:1");
    fixture.remove("iris");
    assert_eq!(shown(&fixture.settle()), "wine:1");
    fixture.remove("wine");
    let poll = fixture.settle();
    assert_eq!((shown(&poll).as_str(), poll.health), ("", SourceHealth::Healthy));
}

#[test]
fn a_folder_that_is_replaced_in_between_is_not_missed() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx"]);
    let before = fingerprint(&fixture.poll(0));
    fixture.remove("iris/1");
    assert_eq!(shown(&fixture.poll(100)), "iris:1");
    fixture.write("iris/1/model.onnx", "new");
    assert_eq!(shown(&fixture.poll(100)), "iris:1");
    let poll = fixture.poll(SETTLE_MS);
    assert_eq!(shown(&poll), "iris:1");
    assert_ne!(fingerprint(&poll), before);
}

#[test]
fn a_root_that_vanishes_keeps_its_models() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx"]);
    let before = fixture.poll(0).models;
    let aside = fixture.dir.path().join("aside");
    fs::rename(fixture.path(""), &aside).unwrap();
    let poll = fixture.settle();
    let SourceHealth::Stale { reason, since_ms } = &poll.health else { panic!("{poll:?}") };
    assert!(reason.contains("cannot be read") && *since_ms == fixture.now_ms - SETTLE_MS, "{reason}");
    assert_eq!((&poll.models, poll.changed), (&before, false));

    fs::create_dir(fixture.path("")).unwrap();
    let poll = fixture.settle();
    let SourceHealth::Stale { reason, .. } = &poll.health else { panic!("{poll:?}") };
    assert!(reason.contains("without models"), "{reason}");
    assert_eq!(poll.models, before);

    fs::remove_dir(fixture.path("")).unwrap();
    fs::rename(&aside, fixture.path("")).unwrap();
    let poll = fixture.poll(1);
    assert_eq!((poll.models, poll.health), (before, SourceHealth::Healthy));
    fixture.remove("iris");
    assert_eq!(shown(&fixture.settle()), "");
}

#[test]
fn another_root_with_models_takes_over() {
    let mut fixture = Fixture::new(&["a/iris/1/model.onnx", "b/wine/1/model.onnx"]);
    symlink("a", fixture.path("current")).unwrap();
    fixture.watch(&["current"]);
    assert_eq!(shown(&fixture.poll(0)), "iris:1");
    fs::remove_file(fixture.path("current")).unwrap();
    symlink("b", fixture.path("current")).unwrap();
    let poll = fixture.settle();
    assert_eq!((shown(&poll).as_str(), poll.health), ("wine:1", SourceHealth::Healthy));
}

#[test]
fn broken_settings_keep_the_last_good_ones() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "wine/1/model.onnx"]);
    fixture.write("iris/model.toml", "max_batch_size = 4");
    let before = fixture.poll(0).models;
    assert_eq!(before[0].settings.batching, Batching::Stated(4));
    fixture.write("iris/model.toml", "max_batch_size = oops");
    fixture.write("iris/2/model.onnx", "new");
    let poll = fixture.settle();
    assert_eq!(shown(&poll), "iris:1 wine:1");
    assert_eq!((&poll.models[0].settings, &poll.models[1]), (&before[0].settings, &before[1]));
    assert!(problems(&poll).contains("model.toml:1"), "{}", problems(&poll));
    fixture.write("iris/model.toml", "max_batch_size = 8");
    let poll = fixture.settle();
    assert_eq!((shown(&poll).as_str(), problems(&poll).as_str()), ("iris:2 wine:1", ""));
    assert_eq!(poll.models[0].settings.batching, Batching::Stated(8));
    fixture.remove("iris/model.toml");
    assert_eq!(fixture.settle().models[0].settings.batching, Batching::Inferred);
}

#[test]
fn a_new_model_with_broken_settings_is_named_and_not_served() {
    let mut fixture = Fixture::new(&["wine/1/model.onnx"]);
    fixture.poll(0);
    fixture.write("iris/1/model.onnx", "x");
    fixture.write("iris/config.pbtxt", "max_batch_size: many");
    let poll = fixture.settle();
    assert_eq!(shown(&poll), "iris: wine:1");
    assert!(problems(&poll).contains("config.pbtxt:1"), "{}", problems(&poll));
}

#[test]
fn of_two_models_with_one_name_the_first_root_wins() {
    let mut fixture = Fixture::new(&["a/iris/1/model.onnx", "b/iris/2/model.onnx", "b/wine/1/model.onnx"]);
    fixture.watch(&["a", "b"]);
    let poll = fixture.poll(0);
    assert_eq!(shown(&poll), "iris:1 wine:1");
    assert!(problems(&poll).contains("'iris' again"), "{}", problems(&poll));
}

#[test]
fn versions_without_a_model_file_are_named_unless_empty() {
    let mut fixture =
        Fixture::new(&["iris/1/model.onnx", "iris/2/weights.bin", "wine/model.onnx", "docs/a.md"]);
    fs::create_dir_all(fixture.path("iris/3")).unwrap();
    fixture.poll(0);
    let poll = fixture.settle();
    assert_eq!(shown(&poll), "iris:1 wine:");
    assert_eq!(poll.models[0].problems.len(), 1);
    assert!(problems(&poll).contains("iris/2: expected model.onnx"), "{}", problems(&poll));
    assert!(problems(&poll).contains("wine: expected a version such as 1/model.onnx"), "{}", problems(&poll));
    fixture.remove("iris/1/model.onnx");
    fixture.write("iris/1/other", "x");
    assert_eq!(shown(&fixture.settle()), "iris:1 wine:", "a version that lost its file stays");
}

#[test]
fn the_version_policy_and_its_changes_are_applied() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "iris/2/model.onnx", "iris/10/model.onnx"]);
    assert_eq!(shown(&fixture.poll(0)), "iris:10");
    fixture.write("iris/model.toml", "versions = \"latest:2\"");
    assert_eq!(shown(&fixture.settle()), "iris:2,10");
    fixture.write("iris/model.toml", "versions = \"all\"");
    assert_eq!(shown(&fixture.settle()), "iris:1,2,10");
    fixture.write("iris/model.toml", "versions = [\"7\"]");
    let poll = fixture.settle();
    assert!(problems(&poll).contains("got 1, 2, 10"), "{}", problems(&poll));
}

#[test]
fn one_bad_model_or_link_touches_no_other() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "wine/1/model.onnx"]);
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(fixture.path("wine/2")).unwrap();
    symlink(outside.path(), fixture.path("wine/2/leak")).unwrap();
    symlink(outside.path(), fixture.path("leak")).unwrap();
    fs::create_dir(fixture.path("bad:name")).unwrap();
    let poll = fixture.poll(0);
    assert_eq!(shown(&poll), "iris:1 wine:1");
    assert!(problems(&poll).contains("expected a link to a file under"), "{}", problems(&poll));
    assert_eq!(poll.problems.len(), 2, "{:?}", poll.problems);
}

#[test]
fn mounted_volumes_swap_by_link() {
    let mut fixture = Fixture::new(&["..1/model.onnx"]);
    symlink("..1", fixture.path("..data")).unwrap();
    fs::create_dir_all(fixture.path("iris/1")).unwrap();
    symlink("../../..data/model.onnx", fixture.path("iris/1/model.onnx")).unwrap();
    let before = fingerprint(&fixture.poll(0));
    fixture.write("..2/model.onnx", "new");
    fs::remove_file(fixture.path("..data")).unwrap();
    symlink("..2", fixture.path("..data")).unwrap();
    assert_ne!(fingerprint(&fixture.settle()), before);
}

#[test]
fn one_model_or_one_file_can_be_watched() {
    let mut fixture = Fixture::new(&["iris/1/model.onnx", "wine.onnx"]);
    fixture.watch(&["iris", "wine.onnx"]);
    let poll = fixture.poll(0);
    assert_eq!(shown(&poll), "iris:1 wine:1");
    assert_eq!(poll.models[1].versions[0].location.stored_as.as_deref(), Some("model.onnx"));
    let before = poll.models;
    fixture.remove("wine.onnx");
    fixture.remove("iris");
    let poll = fixture.settle();
    assert_eq!(poll.models, before);
    let SourceHealth::Stale { reason, .. } = poll.health else { panic!() };
    assert_eq!(reason.lines().count(), 2, "{reason}");
    fixture.write("wine.onnx", "new");
    fixture.write("iris/1/model.onnx", "new");
    let poll = fixture.settle();
    assert!(poll.health == SourceHealth::Healthy && poll.models[1].versions != before[1].versions);
}

#[test]
fn every_unusable_path_is_named_at_start() {
    let fixture = Fixture::new(&["iris/1/model.onnx", "notes.txt"]);
    let paths = ["iris/1", "notes.txt", "missing"].map(|path| fixture.path(path));
    let error = FilesystemSource::new(paths.into(), FilesystemOptions::default()).unwrap_err();
    let RegistryError::Roots(faults) = error else { panic!("{error}") };
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn the_number_of_models_is_bounded() {
    let fixture = Fixture::new(&["a/1/model.onnx", "b/1/model.onnx", "c/1/model.onnx"]);
    let options = FilesystemOptions { models_max: 2, ..FilesystemOptions::default() };
    let mut source = FilesystemSource::new(vec![fixture.path("")], options).unwrap();
    let poll = source.poll(fixture.now_ms);
    assert_eq!(shown(&poll), "a:1 b:1");
    assert!(poll.problems[0].contains("at most 2 models, got 3"), "{:?}", poll.problems);
}

/// Prints how long a warm look takes; the bound is generous, for loaded machines.
#[test]
fn a_thousand_models_are_looked_at_quickly() {
    let mut fixture = Fixture::new(&[]);
    for model in 0..1000 {
        for version in 1..=3 {
            fixture.write(&format!("model-{model}/{version}/model.onnx"), "model");
        }
        fixture.write(&format!("model-{model}/model.toml"), "versions = \"all\"");
    }
    assert_eq!(fixture.poll(0).models.len(), 1000);
    let mut times_ms = Vec::new();
    for _ in 0..10 {
        let start = SystemTime::now();
        let poll = fixture.poll(1000);
        times_ms.push(start.elapsed().unwrap_or_default().as_secs_f64() * 1000.0);
        assert!(!poll.changed && Path::new(&poll.models[0].versions[0].location.path).is_dir());
    }
    times_ms.sort_by(f64::total_cmp);
    println!("1,000 models of 3 versions: {:.1} ms (median), {:.1} ms (fastest)", times_ms[5], times_ms[0]);
    assert!(times_ms[0] < 1000.0, "{times_ms:?}");
}
