//! A real OCI registry (Debian's docker-registry): artifacts as ORAS pushes them and as we do, images with /models, and
//! tags that move. Must not know manifests beyond what is pushed by hand.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use gannet_registry::OnAliasMove;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{
    call::{self, Traffic},
    debian,
    environment::Environment,
    flips::{every_flip_is_refused, files_below},
    folder::model_bytes,
    mlflow::free_port,
    registries::{faults, follow, pull, ready, source, state, until},
    server::{command, fixture},
    wait,
};

/// The registry. It ends with the value.
struct Registry {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let program = debian::program(include_str!("../support/docker_registry.lock"), "docker-registry");
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \
             '127.0.0.1:{port}'}}\n",
            folder.path().join("data").display()
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new(program);
        command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the registry starts");
        let registry = Self { child, port, folder };
        wait::until("the registry answers", || {
            call::try_call(("127.0.0.1", port), "GET /v2/", &[], b"").is_ok_and(|answer| answer.status == 200)
        });
        registry
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes a blob by hand; its digest.
    fn blob(&self, repository: &str, content: &[u8]) -> String {
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let at = ("127.0.0.1", self.port);
        let begun = call::try_call(at, &format!("POST /v2/{repository}/blobs/uploads/"), &[], b"")
            .expect("an answer");
        let place = begun.head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place");
        let path = place.trim_start_matches(&format!("http://localhost:{}", self.port));
        let path = path.find("/v2/").map_or(path, |start| &path[start..]);
        let mark = if path.contains('?') { '&' } else { '?' };
        let put = call::try_call(at, &format!("PUT {path}{mark}digest=sha256:{hex}"), &[], content)
            .expect("an answer");
        assert_eq!(put.status, 201, "{put:?}");
        format!("sha256:{hex}")
    }

    /// Pushes an image of one archive under a tag.
    fn image(&self, repository: &str, tag: &str, archive: &[u8]) {
        let layer = self.blob(repository, archive);
        let config =
            b"{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
        let config_digest = self.blob(repository, config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": archive.len() }],
        });
        let headers = ["content-type: application/vnd.oci.image.manifest.v1+json"];
        let start = format!("PUT /v2/{repository}/manifests/{tag}");
        let put = call::try_call(("127.0.0.1", self.port), &start, &headers, manifest.to_string().as_bytes());
        assert_eq!(put.expect("an answer").status, 201);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_bit_that_turned_over_is_seen_anywhere() {
    let registry = Registry::start();
    let work = tempfile::tempdir().expect("a folder");
    fs::write(work.path().join("model.onnx"), model_bytes("add_one")).expect("a file");
    fs::write(work.path().join("notes.txt"), "a file beside").expect("a file");
    let artifact = format!("oci://{}/models/ours:live", registry.host());
    let output = command().arg("push").arg(work.path()).arg(&artifact).output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // the manifest and the layers; nobody reads an empty configuration
    let blobs = || files_below(&registry.folder.path().join("data/docker/registry/v2/blobs"));
    let is_read = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| !bytes.starts_with(b"{}"));
    let ours: Vec<PathBuf> = blobs().into_iter().filter(is_read).collect();
    assert_eq!(ours.len(), 3, "{ours:?}");
    every_flip_is_refused(&ours, || pull(&artifact, &[]));

    registry.image("cars/one", "v1", &archive(&[("models/model.onnx", &model_bytes("add_one"))]));
    let car: Vec<PathBuf> = blobs()
        .into_iter()
        .filter(|path| !ours.contains(path) && is_read(path))
        .filter(|path| fs::read(path).is_ok_and(|bytes| !bytes.starts_with(b"{\"architecture")))
        .collect();
    assert_eq!(car.len(), 2, "{car:?}");
    every_flip_is_refused(&car, || pull(&format!("oci://{}/cars/one:v1", registry.host()), &[]));
}

/// A gzipped archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for (path, content) in files {
        let mut header = [0_u8; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[263..265].copy_from_slice(b"00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        gzip.write_all(&header).expect("memory");
        gzip.write_all(content).expect("memory");
        gzip.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).expect("memory");
    }
    gzip.write_all(&[0; 1024]).expect("memory");
    gzip.finish().expect("memory")
}

#[test]
fn both_shapes_are_served_and_a_tag_that_moves_swaps() {
    let registry = Registry::start();
    let host = registry.host();
    let push = |name: &str, tag: &str| {
        let mut command = command();
        let output =
            command.arg("push").arg(fixture(name)).arg(format!("oci://{host}/models/ours:{tag}")).output();
        let output = output.expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    push("add_one", "live");
    let python = "import oras.client, sys; c = oras.client.OrasClient(hostname=sys.argv[1], insecure=True); \
                  c.push(target=sys.argv[1] + '/models/theirs:v1', files=['model.onnx'], disable_path_validation=True)";
    let pushed = Command::new(Environment::Registries.python())
        .args(["-c", python, &host])
        .current_dir(fixture("add_two"))
        .output()
        .expect("it runs");
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    registry.image(
        "cars/one",
        "v1",
        &archive(&[("models/model.onnx", &model_bytes("add_one")), ("etc/x", b"x")]),
    );
    registry.image(
        "cars/evil",
        "v1",
        &archive(&[("models/../../../evil", b"x"), ("models/model.onnx", b"x")]),
    );
    let mut rolled = source("rolled", &format!("oci://{host}/models/ours:live"));
    rolled.on_alias_move = OnAliasMove::Rollout;
    let server = follow(
        vec![
            rolled,
            source("ours", &format!("oci://{host}/models/ours:live")),
            source("theirs", &format!("oci://{host}/models/theirs:v1")),
            source("car", &format!("oci://{host}/cars/one:v1")),
            source("evil", &format!("oci://{host}/cars/evil:v1")),
        ],
        |_| {},
    );
    for (model, value) in [("ours", 2.0), ("rolled", 2.0), ("theirs", 3.0), ("car", 2.0)] {
        wait::until(&format!("{model} answers"), || call::add(server.http(), model) == Ok(value));
    }
    let evil = until(&server, "evil", "it is refused", |state| !faults(state).is_empty());
    assert!(faults(&evil).contains("steps through"), "{evil}");
    let traffic = Traffic::start(&server, "ours");
    push("add_two", "live");
    wait::until("the new content answers", || call::add(server.http(), "ours") == Ok(3.0));
    traffic.end();
    let versions = state(&server, "ours")["aspired"][0]["versions"].clone();
    let version = versions[0].as_str().expect("a version").to_owned();
    ready(&server, "ours", &version);

    // it is rolled out, by hand to the end; and back, which the tag does not undo
    let rollouts = "/admin/v1/models/rolled/rollouts";
    let newest = || call::get(server.admin(), rollouts).ok()["rollouts"][0].clone();
    wait::until("the rollout begins", || newest()["state"] == "shadow");
    assert_eq!(call::add(server.http(), "rolled"), Ok(2.0), "the tag moved, the traffic did not");
    for _ in 0..6 {
        call::call(server.admin(), &format!("POST {rollouts}/{}/promote", newest()["id"]), &[], b"").ok();
    }
    wait::until("the new content answers", || call::add(server.http(), "rolled") == Ok(3.0));
    let before = until(&server, "rolled", "the old content is kept", |state| {
        state["aspired"][0]["kept"][0].is_string()
    });
    let old = before["aspired"][0]["kept"][0].as_str().expect("a version").to_owned();
    let registry = server.app().state().repository.registry().expect("it follows").clone();
    registry.settle(&"rolled".parse().expect("a name"), &old.parse().expect("a version"), "worse on purpose");
    wait::until("the old content answers", || call::add(server.http(), "rolled") == Ok(2.0));
    let looks = |state: &serde_json::Value| state["requests"].as_u64().unwrap_or(0);
    let seen = looks(&state(&server, "rolled"));
    let after = until(&server, "rolled", "it is looked at again", |state| looks(state) > seen + 1);
    assert_eq!(after["aspired"][0]["versions"], json!([old]), "{after}");
    assert_eq!(after["aspired"][0]["points_to"], json!(version), "{after}");
    assert_eq!(after["aspired"][0]["rolled_back"], json!({ version: "worse on purpose" }), "{after}");
    assert_eq!(call::add(server.http(), "rolled"), Ok(2.0));
}
