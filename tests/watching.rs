//! A repository that is watched: what comes, changes, breaks and goes in its folders, seen through HTTP.

use std::{fs, io::Write as _, time::Duration};

use gannet_runtime::clock;

use crate::support::{
    call::{Traffic, add, get, index, loads, refusal},
    folder::{Folder, model_bytes},
    random::Random,
    server::Server,
    wait,
};

const ALL_VERSIONS: &str = "versions = \"all\"\n";

fn serve(folder: &Folder) -> Server {
    Server::start(&folder.path(), |_| {})
}

/// Waits until `model` answers with the sum of `add_one` (2) or `add_two` (3).
#[track_caller]
fn wait_for_answer(server: &Server, model: &str, expected: f64) {
    wait::until(&format!("{model} answers {expected}"), || add(server.http(), model) == Ok(expected));
}

/// Waits until everything that lies in the folders now was looked at and has settled: a model that comes after it
/// serves.
#[track_caller]
fn settle(server: &Server, folder: &Folder, marker: &str) {
    folder.put(&format!("{marker}/1"), "add_one");
    wait_for_answer(server, marker, 2.0);
}

fn stale(server: &Server) -> Option<String> {
    get(server.admin(), "/admin/v1/models").ok()["stale"].as_str().map(str::to_owned)
}

fn problems(server: &Server, model: &str) -> String {
    let model = get(server.admin(), &format!("/admin/v1/models/{model}"));
    if model.status == 200 { model.json()["problems"].to_string() } else { String::new() }
}

fn versions(server: &Server, model: &str) -> Vec<String> {
    let ready = index(server.http(), model).into_iter().filter(|line| line.1 == "READY");
    ready.map(|line| line.0).collect()
}

#[test]
fn a_new_version_takes_over_and_no_request_fails() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    let traffic = Traffic::start(&server, "m");
    folder.put("m/2", "add_two");
    wait::until("version 2 alone is left", || {
        let lines = index(server.http(), "m");
        assert!(lines.iter().any(|line| line.1 == "READY"), "some version is ready at any time: {lines:?}");
        lines.len() == 1 && lines[0].0 == "2"
    });
    assert_eq!(add(server.http(), "m"), Ok(3.0));
    assert_eq!(add(server.http(), "m/versions/1"), Err(404));
    traffic.end();
}

#[test]
fn new_content_of_the_same_version_swaps() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    let traffic = Traffic::start(&server, "m");
    for (name, expected, loads_ok) in [("add_two", 3.0, 2.0), ("add_one", 2.0, 3.0)] {
        folder.put("m/1", name);
        wait_for_answer(&server, "m", expected);
        assert_eq!(loads(&server, "m", "1"), (loads_ok, 0.0));
    }
    traffic.end();
}

#[test]
fn a_file_is_left_alone_while_it_is_written() {
    let folder = Folder::with_add_one();
    let settle = Duration::from_millis(1500);
    let server = Server::start(&folder.path(), |config| config.repository.settle = settle);
    let bytes = model_bytes("add_two");
    fs::create_dir(folder.path().join("m/2")).unwrap();
    let mut file = fs::File::create(folder.path().join("m/2/model.onnx")).unwrap();
    for piece in bytes.chunks(bytes.len().div_ceil(10)) {
        file.write_all(piece).unwrap();
        let next = clock::now() + Duration::from_millis(100);
        wait::until("the next piece", || {
            assert_eq!(add(server.http(), "m"), Ok(2.0));
            clock::now() >= next
        });
    }
    drop(file);
    wait_for_answer(&server, "m", 3.0);
    assert_eq!(loads(&server, "m", "2"), (1.0, 0.0), "no half of it was tried");
}

#[test]
fn a_copy_that_pauses_for_long_is_refused_and_loaded_once_it_is_whole() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    let bytes = model_bytes("add_two");
    folder.write("m/2/model.onnx", &bytes[..bytes.len() / 2]);
    let reason = refusal(&server, "m", "2");
    assert!(reason.contains("m/2"), "{reason}");
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    folder.write("m/2/model.onnx", &bytes);
    wait_for_answer(&server, "m", 3.0);
}

#[test]
fn files_of_editors_and_of_copies_have_no_effect() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    for name in [
        "m/1/.model.onnx.swp",
        "m/1/model.onnx~",
        "m/1/4913",
        "m/1/model.onnx.part",
        "m/1/model.onnx.tmp",
        "m/1/.nfs0001",
        "m/.git/HEAD",
        "m/.2/model.onnx",
        "m/2.tmp/model.onnx",
        "m/3.part/model.onnx",
        ".hidden/1/model.onnx",
        "notes.txt",
        "README.md",
    ] {
        folder.write(name, model_bytes("add_two"));
    }
    settle(&server, &folder, "marker");
    assert_eq!(loads(&server, "m", "1"), (1.0, 0.0));
    assert_eq!(index(server.http(), "m").len(), 1);
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    folder.remove("m/1/.model.onnx.swp");
    folder.remove("m/1/model.onnx~");
    settle(&server, &folder, "marker_2");
    assert_eq!(loads(&server, "m", "1"), (1.0, 0.0));
    assert_eq!(problems(&server, "m"), "[]");
}

#[test]
fn bad_model_files_are_refused_with_path_and_reason_while_the_version_before_serves() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    let traffic = Traffic::start(&server, "m");
    let good = model_bytes("add_two");
    let mut random = Random::new(1);
    let noise: Vec<u8> = (0..4096).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    let mut corrupt = good.clone();
    corrupt.iter_mut().skip(20).step_by(3).for_each(|byte| *byte ^= 0xff);
    let bad: [(&str, Vec<u8>); 10] = [
        ("empty", Vec::new()),
        ("text", b"this is no model\n".to_vec()),
        ("page", b"<!doctype html><html><body>404 Not Found</body></html>".to_vec()),
        ("zeros", vec![0; 4096]),
        ("noise", noise),
        ("corrupt", corrupt),
        ("cut in the middle", good[..good.len() / 2].to_vec()),
        ("without its end", good[..good.len() - 1].to_vec()),
        // field 7 (the graph) of two to the power of 62 bytes
        ("a length beyond all bounds", vec![0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 1]),
        // a thousand groups in one another
        ("deep", vec![0x3b; 1000]),
    ];
    for (version, (what, bytes)) in (2..).zip(bad) {
        folder.write(&format!("m/{version}/model.onnx"), bytes);
        let reason = refusal(&server, "m", &version.to_string());
        assert!(reason.contains(&format!("m/{version}")), "{what}: no path in {reason:?}");
        assert!(reason.contains("model.onnx"), "{what}: no file in {reason:?}");
        assert_eq!(versions(&server, "m"), ["1"], "{what}");
        folder.remove(&format!("m/{version}"));
    }
    folder.put("m/99", "add_two");
    wait_for_answer(&server, "m", 3.0);
    traffic.end();
}

#[test]
fn what_is_removed_is_unloaded() {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.write("m/model.toml", ALL_VERSIONS);
    folder.put("other/1", "add_two");
    let server = serve(&folder);
    wait::until("both versions serve", || versions(&server, "m") == ["1", "2"]);
    folder.remove("m/2");
    wait::until("version 2 is gone", || add(server.http(), "m/versions/2") == Err(404));
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    folder.remove("m");
    wait::until("the model is gone", || add(server.http(), "m") == Err(404));
    wait::until("nothing is left of it", || index(server.http(), "m").is_empty());
    assert_eq!(add(server.http(), "other"), Ok(3.0));
}

#[test]
fn a_root_that_vanishes_unloads_nothing() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    let traffic = Traffic::start(&server, "m");
    let away = folder.beside("away");
    for empty_folder_instead in [false, true] {
        fs::rename(folder.path(), &away).unwrap();
        if empty_folder_instead {
            fs::create_dir(folder.path()).unwrap();
        }
        wait::until("the state says so", || stale(&server).is_some());
        let why = stale(&server).unwrap();
        assert!(why.contains(&folder.path().display().to_string()), "{why}");
        traffic.go_on();
        assert_eq!(versions(&server, "m"), ["1"]);
        assert_eq!(get(server.http(), "/v2/health/ready").status, 200);
        if empty_folder_instead {
            fs::remove_dir(folder.path()).unwrap();
        }
        fs::rename(&away, folder.path()).unwrap();
        wait::until("the state says that it is back", || stale(&server).is_none());
    }
    assert_eq!(loads(&server, "m", "1"), (1.0, 0.0), "nothing was loaded again");
    folder.put("m/2", "add_two");
    wait_for_answer(&server, "m", 3.0);
    traffic.end();
}

#[test]
fn a_broken_settings_file_keeps_what_serves() {
    let folder = Folder::with_add_one();
    folder.write("m/model.toml", "max_batch_size = 8\n");
    let server = serve(&folder);
    folder.write(
        "m/model.toml",
        "max_batch_size = 8\n\nversionz = \"all\"\n[limits]\nqueue_requests_max = \"many\"\n",
    );
    wait::until("the faults are told", || problems(&server, "m").contains("versionz"));
    let told = problems(&server, "m");
    for part in ["m/model.toml", "3", "versionz", "queue_requests_max"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    assert_eq!(loads(&server, "m", "1"), (1.0, 0.0));
    folder.write("m/model.toml", "max_batch_size = 4\n");
    wait::until("the settings are in force", || {
        get(server.http(), "/v2/models/m/config").ok()["max_batch_size"] == 4
    });
    assert_eq!(problems(&server, "m"), "[]");
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}

#[test]
fn the_version_policy_chooses() {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.put("m/10", "add_one");
    let server = serve(&folder);
    assert_eq!(versions(&server, "m"), ["10"], "the latest of them is the default");
    let check = |settings: &str, expected: &[&str]| {
        folder.write("m/model.toml", settings);
        wait::until(settings, || versions(&server, "m") == expected);
    };
    check("versions = \"all\"", &["1", "2", "10"]);
    check("versions = [\"1\"]", &["1"]);
    check("versions = \"latest:2\"", &["2", "10"]);
    assert_eq!(loads(&server, "m", "10"), (2.0, 0.0));
    folder.remove("m/10");
    wait::until("the next one moves up", || versions(&server, "m") == ["1", "2"]);
    assert_eq!(add(server.http(), "m"), Ok(3.0));
}

#[test]
fn labels_of_the_settings_name_versions() {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.write("m/model.toml", "versions = \"all\"\n[labels]\nstable = \"1\"\n");
    let server = serve(&folder);
    wait::until("both serve", || versions(&server, "m") == ["1", "2"]);
    assert_eq!(add(server.http(), "m/versions/stable"), Ok(2.0));
    assert_eq!(add(server.http(), "m"), Ok(3.0));
    folder.write("m/model.toml", "versions = \"all\"\n[labels]\nstable = \"2\"\n");
    wait_for_answer(&server, "m/versions/stable", 3.0);
    assert_eq!(loads(&server, "m", "1"), (1.0, 0.0), "a label is no reason to load again");
}

#[test]
fn a_configuration_of_triton_is_read() {
    let folder = Folder::with_add_one();
    folder.put("m/3", "add_two");
    folder.write(
        "m/config.pbtxt",
        "name: \"m\"\nbackend: \"onnxruntime\"\nmax_batch_size: 16\n\
         input [{ name: \"x\" data_type: TYPE_FP32 dims: [ 3 ] }]\n\
         output [{ name: \"y\" data_type: TYPE_FP32 dims: [ 3 ] }]\n\
         version_policy: { specific { versions: [ 1 ] } }\n",
    );
    let server = serve(&folder);
    assert_eq!(versions(&server, "m"), ["1"]);
    assert_eq!(get(server.http(), "/v2/models/m/config").ok()["max_batch_size"], 16);
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}

#[test]
fn a_backend_that_this_build_lacks_is_told() {
    let folder = Folder::with_add_one();
    folder.put("n/1", "add_one");
    folder.write("n/config.pbtxt", "name: \"n\"\nbackend: \"tensorrt\"\nmax_batch_size: 16\n");
    let server = serve(&folder);
    let lines = index(server.http(), "n");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (_, state, reason) = &lines[0];
    assert_eq!(state, "UNAVAILABLE");
    assert!(reason.contains("tensorrt") && reason.contains("onnxruntime"), "{reason}");
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}

#[test]
fn several_roots_are_one_repository_and_the_first_of_two_names_wins() {
    let (first, second) = (Folder::with_add_one(), Folder::new());
    second.put("m/1", "add_two");
    second.put("n/1", "add_two");
    let server = Server::start(&first.path(), |config| config.repository.paths.push(second.path()));
    // files may come to rest only after the first look, and are then loaded in any order
    wait_for_answer(&server, "n", 3.0);
    wait::until("the other answers", || add(server.http(), "m").is_ok());
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    let told = problems(&server, "m");
    assert!(told.contains(&second.path().display().to_string()), "{told}");
    fs::rename(second.path(), second.beside("away")).unwrap();
    wait::until("one root is stale", || stale(&server).is_some());
    first.put("m/2", "add_two");
    wait_for_answer(&server, "m", 3.0);
    assert_eq!(add(server.http(), "n"), Ok(3.0));
}

#[test]
fn a_lone_file_and_the_folder_of_one_model_are_served_and_watched() {
    let folder = Folder::new();
    folder.write("sum.onnx", model_bytes("add_one"));
    folder.put("plus/7", "add_one");
    let server = Server::start(&folder.path().join("sum.onnx"), |config| {
        config.repository.paths.push(folder.path().join("plus"));
    });
    assert_eq!((versions(&server, "sum"), versions(&server, "plus")), (vec!["1".into()], vec!["7".into()]));
    assert_eq!((add(server.http(), "sum"), add(server.http(), "plus")), (Ok(2.0), Ok(2.0)));
    folder.write("sum.onnx", model_bytes("add_two"));
    folder.put("plus/8", "add_two");
    wait_for_answer(&server, "sum", 3.0);
    wait_for_answer(&server, "plus", 3.0);
    fs::remove_file(folder.path().join("sum.onnx")).unwrap();
    wait::until("the file is missed", || stale(&server).is_some());
    assert_eq!(add(server.http(), "sum"), Ok(3.0));
}

fn golden(expected: f64) -> String {
    format!(
        "{{\"request\": {{\"inputs\": [{{\"name\": \"x\", \"shape\": [1, 3], \"datatype\": \"FP32\", \"data\": [1, 2, 3]}}]}}, \
         \"response\": {{\"outputs\": [{{\"name\": \"y\", \"shape\": [1, 3], \"datatype\": \"FP32\", \"data\": [3, 4, {expected}]}}]}}}}"
    )
}

#[test]
fn a_golden_request_with_another_answer_refuses_the_version() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    folder.write("m/2/golden/sums.json", golden(6.5));
    folder.put("m/2", "add_two");
    let reason = refusal(&server, "m", "2");
    for part in ["m/2", "golden/sums.json", "y", "6.5", "5"] {
        assert!(reason.contains(part), "{part} is missing in {reason:?}");
    }
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    folder.write("m/2/golden/sums.json", "{\"request\": 1}");
    wait::until("the reason is another", || refusal(&server, "m", "2") != reason);
    assert!(refusal(&server, "m", "2").contains("golden/sums.json"), "{}", refusal(&server, "m", "2"));
    folder.write("m/2/golden/sums.json", golden(5.0));
    wait_for_answer(&server, "m", 3.0);
}

#[test]
fn a_load_beyond_the_memory_budget_is_refused_until_it_fits() {
    let folder = Folder::with_add_one();
    let limits = "[limits]\nmemory_bytes = 600\n";
    folder.write("m/model.toml", limits);
    let server = Server::start(&folder.path(), |config| config.memory_bytes_max = Some(1000));
    folder.write("n/model.toml", limits);
    folder.put("n/1", "add_two");
    let reason = refusal(&server, "n", "1");
    for part in ["600", "1000"] {
        assert!(reason.contains(part), "{part} is missing in {reason:?}");
    }
    assert_eq!((add(server.http(), "m"), add(server.http(), "n")), (Ok(2.0), Err(503)));
    folder.remove("m");
    wait_for_answer(&server, "n", 3.0);
}

#[test]
fn a_restart_uses_the_same_store() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = Folder::with_add_one();
    let state = tempfile::tempdir().unwrap();
    let copies = || -> Vec<(String, u64)> {
        let items = fs::read_dir(state.path().join("store/sha256")).unwrap().map(Result::unwrap);
        items.map(|item| (item.file_name().into_string().unwrap(), item.metadata().unwrap().ino())).collect()
    };
    let start = || Server::start(&folder.path(), |config| config.state_dir = state.path().to_owned());
    let server = start();
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    assert!(server.drain(Duration::from_secs(30)));
    let before = copies();
    assert_eq!(before.len(), 1);
    let server = start();
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    assert_eq!(copies(), before, "the copy of before serves");
    folder.put("m/1", "add_two");
    wait_for_answer(&server, "m", 3.0);
    wait::until("the old copy is collected", || copies().len() == 1);
    assert_ne!(copies(), before);
}

#[test]
fn a_version_that_cannot_be_had_is_listed_beside_the_one_that_serves() {
    let folder = Folder::with_add_one();
    let server = serve(&folder);
    folder.put("m/2", "add_two");
    std::fs::write(folder.path().join("m/2/labels.txt"), [0xff, 0xfe]).unwrap();
    let line = || index(server.http(), "m").into_iter().find(|(version, ..)| version == "2");
    wait::until("version 2 is listed", || line().is_some());
    let (_, state, reason) = line().unwrap();
    assert_eq!(state, "UNAVAILABLE");
    assert!(reason.contains("labels.txt"), "{reason}");
    assert_eq!(versions(&server, "m"), ["1"]);
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}
