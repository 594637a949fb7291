//! Tests of the store. Must not reach into anything but its files.

use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("models/iris/1/golden")).unwrap();
        fs::write(dir.path().join("models/iris/1/model.onnx"), "model").unwrap();
        fs::write(dir.path().join("models/iris/1/golden/b.json"), "{}").unwrap();
        fs::write(dir.path().join("models/iris/1/golden/a.json"), "{}").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn version(&self) -> PathBuf {
        self.root().join("iris/1")
    }

    fn location(&self) -> VersionLocation {
        VersionLocation { path: self.version(), root: self.root(), stored_as: None }
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("store")).unwrap()
    }

    fn ingest(&self, store: &Store) -> Artifact {
        store.ingest(&self.location(), &IngestLimits::default()).unwrap()
    }
}

#[test]
fn a_version_is_copied_protected_and_found_again() {
    let fixture = Fixture::new();
    let store = fixture.store();
    fs::write(fixture.version().join(".model.onnx.swp"), "editor").unwrap();
    let artifact = fixture.ingest(&store);
    let names: Vec<&str> = artifact.files().iter().map(|f| f.path.as_str()).collect();
    assert_eq!(names, ["golden/a.json", "golden/b.json", "model.onnx"]);
    assert_eq!(artifact.size_bytes(), 9);
    let golden: Vec<PathBuf> = artifact.golden_files();
    assert!(golden[0].ends_with("golden/a.json") && golden.len() == 2);
    let model = artifact.file("model.onnx").unwrap();
    assert_eq!(fs::read(&model).unwrap(), b"model");
    assert_eq!(fs::metadata(&model).unwrap().permissions().mode() & 0o777, FILE_MODE);
    assert_eq!(artifact.file("nothing"), None);

    fs::remove_dir_all(fixture.root()).unwrap();
    let again = store.get(&artifact.digest()).unwrap().unwrap();
    assert_eq!(again.files(), artifact.files());
    assert!(store.get(&Digest::of(b"other")).unwrap().is_none());
}

#[test]
fn the_same_content_has_one_copy_and_other_content_another() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let first = fixture.ingest(&store);
    assert_eq!(fixture.ingest(&store).digest(), first.digest());
    fs::write(fixture.version().join("model.onnx"), "MODEL").unwrap();
    let second = fixture.ingest(&store);
    assert_ne!(second.digest(), first.digest());
    assert_eq!(fs::read(first.file("model.onnx").unwrap()).unwrap(), b"model");
    assert_eq!(fs::read_dir(&store.staging).unwrap().count(), 0);
}

#[test]
fn a_damaged_copy_is_told_and_replaced() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let digest = fixture.ingest(&store).digest();
    let model = store.tree(&digest).join("model.onnx");
    fs::remove_file(&model).unwrap();
    fs::write(&model, "m0del").unwrap();
    let error = store.get(&digest).unwrap_err();
    assert!(matches!(error, ModelError::Corrupt { .. }), "{error}");
    let artifact = fixture.ingest(&store);
    assert_eq!(fs::read(artifact.file("model.onnx").unwrap()).unwrap(), b"model");
}

#[test]
fn links_are_followed_within_the_root_only() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let data = fixture.root().join("..2026_01/");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("weights"), "w").unwrap();
    symlink("..2026_01", fixture.root().join("..data")).unwrap();
    symlink("../../..data/weights", fixture.version().join("weights")).unwrap();
    let artifact = fixture.ingest(&store);
    let weights = artifact.file("weights").unwrap();
    assert!(fs::symlink_metadata(weights).unwrap().is_file());

    symlink("/etc/hostname", fixture.version().join("leak")).unwrap();
    let error = store.ingest(&fixture.location(), &IngestLimits::default()).unwrap_err();
    assert!(matches!(error, ModelError::Outside { .. }), "{error}");
}

#[test]
fn a_file_alone_is_stored_under_the_backends_name_with_its_companion() {
    let fixture = Fixture::new();
    let path = fixture.root().join("iris.onnx");
    fs::write(&path, "model").unwrap();
    fs::write(fixture.root().join("iris.onnx.data"), "weights").unwrap();
    fs::write(fixture.root().join("other.onnx"), "no").unwrap();
    let location = VersionLocation { path, root: fixture.root(), stored_as: Some("model.onnx".into()) };
    let artifact = fixture.store().ingest(&location, &IngestLimits::default()).unwrap();
    let names: Vec<&str> = artifact.files().iter().map(|f| f.path.as_str()).collect();
    assert_eq!(names, ["iris.onnx.data", "model.onnx"]);
}

#[test]
fn a_file_that_changed_is_refused_for_now() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let before = scan(&fixture.location(), &IngestLimits::default()).unwrap();
    let path = fixture.version().join("model.onnx");
    fs::write(&path, "longer than before").unwrap();
    let staged = Staged::create(&store).unwrap();
    let model = before.iter().find(|file| file.name == "model.onnx").unwrap();
    assert!(matches!(copy(model, &staged.path), Err(ModelError::Changing { .. })));
    let after = scan(&fixture.location(), &IngestLimits::default()).unwrap();
    assert!(unchanged(&fixture.location(), &before, &after).is_err());

    fs::remove_dir_all(fixture.version()).unwrap();
    fs::create_dir_all(fixture.version()).unwrap();
    let error = store.ingest(&fixture.location(), &IngestLimits::default()).unwrap_err();
    assert!(matches!(error, ModelError::Missing { .. }), "{error}");
}

#[test]
fn garbage_is_what_is_neither_kept_nor_held() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let held = fixture.ingest(&store);
    fs::write(fixture.version().join("model.onnx"), "2").unwrap();
    let kept = fixture.ingest(&store).digest();
    fs::write(fixture.version().join("model.onnx"), "3").unwrap();
    let garbage = fixture.ingest(&store).digest();
    let keep = HashSet::from([kept]);
    assert_eq!(store.collect(&keep).unwrap(), Collected::Removed(vec![garbage]));
    assert!(store.get(&garbage).unwrap().is_none());
    let digest = held.digest();
    drop(held);
    assert_eq!(store.collect(&keep).unwrap(), Collected::Removed(vec![digest]));
    assert!(store.get(&kept).unwrap().is_some());
}

#[test]
fn two_users_of_one_store_do_not_harm_each_other() {
    let fixture = Fixture::new();
    let first = fixture.store();
    let digest = fixture.ingest(&first).digest();
    let staged = Staged::create(&first).unwrap();
    let second = fixture.store();
    assert!(staged.path.is_dir(), "the staging folder of a living user was swept");
    for store in [&first, &second] {
        assert_eq!(store.collect(&HashSet::new()).unwrap(), Collected::Shared);
    }
    assert!(second.get(&digest).unwrap().is_some());
    drop(second);
    assert_eq!(first.collect(&HashSet::new()).unwrap(), Collected::Removed(vec![digest]));
}

#[test]
fn what_a_crash_left_is_swept() {
    let fixture = Fixture::new();
    let left = fixture.dir.path().join("store/staging/0123456789abcdef");
    fs::create_dir_all(left.join("0")).unwrap();
    fs::write(left.join("0/model.onnx"), "half").unwrap();
    fs::write(left.with_extension("lock"), "").unwrap();
    let _store = fixture.store();
    assert!(!left.exists() && !left.with_extension("lock").exists());
}

#[test]
fn a_folder_that_was_put_together_is_taken_whole() {
    let fixture = Fixture::new();
    let store = Store::open(&fixture.dir.path().join("state")).unwrap();
    let made = fixture.dir.path().join("made");
    fs::create_dir_all(made.join("golden")).unwrap();
    fs::write(made.join("model.onnx"), "model").unwrap();
    fs::write(made.join("golden/a.json"), "{}").unwrap();
    let artifact = store.admit(&made, &IngestLimits::default()).unwrap();
    assert!(!made.exists());
    assert_eq!(artifact.files().len(), 2);
    assert_eq!(store.size_bytes(), 7);
    assert_eq!(store.get(&artifact.digest()).unwrap().unwrap().digest(), artifact.digest());
    // a link could lead anywhere once the folder has moved
    fs::create_dir_all(&made).unwrap();
    fs::write(made.join("model.onnx"), "model").unwrap();
    symlink("model.onnx", made.join("again.onnx")).unwrap();
    assert!(store.admit(&made, &IngestLimits::default()).is_err());
    assert_eq!(store.size_bytes(), 7);
}

#[test]
fn what_came_from_elsewhere_is_kept_once_it_has_proved_itself() {
    let fixture = Fixture::new();
    let store = Store::open(&fixture.dir.path().join("state")).unwrap();
    let made = fixture.dir.path().join("made");
    let admit = |content: &str| {
        fs::create_dir_all(made.join("golden")).unwrap();
        fs::write(made.join("model.onnx"), content).unwrap();
        fs::write(made.join("golden/a.json"), "{}").unwrap();
        store.admit(&made, &IngestLimits::default()).unwrap()
    };
    let good = admit("model");
    let digest = good.digest();
    let (kept, waiting) = (store.tree(&digest), store.unproven.join(digest.to_string()));
    assert!(waiting.is_dir() && !kept.exists());
    assert!(good.dir().starts_with(&store.unproven));

    assert!(store.prove(&digest).unwrap());
    assert!(!store.prove(&digest).unwrap(), "it is known");
    assert!(!store.prove(&Digest::of(b"nothing")).unwrap());
    // whoever reads under the old name reads on, and nothing is there twice
    assert_eq!(fs::read(good.file("model.onnx").unwrap()).unwrap(), b"model");
    assert_eq!(store.size_bytes(), 7);
    assert!(store.get(&digest).unwrap().unwrap().dir().starts_with(&store.trees));
    assert!(admit("model").dir().starts_with(&store.trees), "the same content is there already");
    assert_eq!(fs::read_dir(&store.staging).unwrap().count(), 0);

    let refused = admit("rubbish").digest();
    assert_eq!(store.size_bytes(), 16);
    assert!(store.holds_more_than(&HashSet::from([digest])));
    assert_eq!(store.collect(&HashSet::from([digest])).unwrap(), Collected::Removed(vec![refused]));
    assert!(store.get(&refused).unwrap().is_none() && waiting.is_dir());
    drop(good);
    assert_eq!(store.collect(&HashSet::from([digest])).unwrap(), Collected::Removed(vec![]));
    assert!(!waiting.exists() && kept.join("golden/a.json").exists());
    assert!(store.discard(&digest).unwrap());
    assert!(!kept.exists());
}

#[test]
fn a_damaged_copy_gives_way_to_what_is_fetched_again() {
    let fixture = Fixture::new();
    let store = Store::open(&fixture.dir.path().join("state")).unwrap();
    let made = fixture.dir.path().join("made");
    let admit = || {
        fs::create_dir_all(&made).unwrap();
        fs::write(made.join("model.onnx"), "model").unwrap();
        store.admit(&made, &IngestLimits::default()).unwrap()
    };
    let digest = admit().digest();
    store.prove(&digest).unwrap();
    let model = store.tree(&digest).join("model.onnx");
    fs::remove_file(&model).unwrap();
    fs::write(&model, "mod3l").unwrap();
    assert!(matches!(store.get(&digest), Err(ModelError::Corrupt { .. })));
    assert_eq!(admit().digest(), digest);
    assert_eq!(fs::read(store.get(&digest).unwrap().unwrap().file("model.onnx").unwrap()).unwrap(), b"model");
}
