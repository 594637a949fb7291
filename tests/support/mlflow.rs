//! A real tracking server of MLflow on loopback, started from a state that was made once: migrated, with models logged
//! by `tests/peers/mlflow_models.py`. Must not know what is tested.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    call::{self, Answer},
    environment::{Environment, bounded, cache},
    server::root,
    torch, wait,
};

/// Time for a first start, imports and migrations included, on a busy machine.
const START_BOUND: Duration = Duration::from_secs(300);
/// Time for the models to be logged.
const LOG_BOUND: Duration = Duration::from_secs(600);
/// 32 bytes, for the secrets that the server keeps of webhooks.
const WEBHOOK_KEY: &str = "Z2FubmV0LXRlc3RzLWdhbm5ldC10ZXN0cy0xMjM0NTY=";
/// The user that may do everything, where users are asked for.
pub(crate) const ADMIN: &str = "admin:gannet-admin-password";

/// A tracking server. It ends with the value.
pub(crate) struct Mlflow {
    child: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
    with_users: bool,
    /// What the script said of the models.
    pub(crate) told: Value,
}

impl Mlflow {
    /// Starts one over a copy of the state.
    pub(crate) fn start(with_users: bool) -> Self {
        let state = state();
        let folder = tempfile::tempdir().expect("a folder for the state");
        copy(&state, folder.path());
        let told = fs::read(state.join("told.json")).expect("what the script said");
        let told = serde_json::from_slice(&told).expect("JSON");
        let mut server = Self { child: None, port: free_port(), folder, with_users, told };
        server.run();
        server
    }

    /// Starts it (again) on its port.
    pub(crate) fn run(&mut self) {
        self.child = Some(spawn(self.folder.path(), self.port, self.with_users));
        let port = self.port;
        assert!(is_up(port), "MLflow did not start:\n{}", log(self.folder.path()));
    }

    /// Kills it with everything that it started.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls the REST API.
    #[track_caller]
    pub(crate) fn ask(&self, verb: &str, path: &str, body: &Value, user: Option<&str>) -> Answer {
        use std::fmt::Write as _;
        let mut headers = vec!["content-type: application/json".to_owned()];
        if let Some(user) = user {
            let mut line = "authorization: Basic ".to_owned();
            let _ = write!(line, "{}", base64(user.as_bytes()));
            headers.push(line);
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let start = format!("{verb} /api/2.0/mlflow/{path}");
        call::try_call(("127.0.0.1", self.port), &start, &headers, body.to_string().as_bytes())
            .expect("an answer")
    }

    /// Moves an alias.
    #[track_caller]
    pub(crate) fn point(&self, model: &str, alias: &str, version: &str) {
        let body = json!({ "name": model, "alias": alias, "version": version });
        let user = self.with_users.then_some(ADMIN);
        assert_eq!(self.ask("POST", "registered-models/alias", &body, user).status, 200);
    }

    /// Changes one byte in the middle of the file of this name that was written last, of those whose path holds `part`.
    pub(crate) fn flip(&self, part: &str, name: &str) {
        fn newest(folder: &Path, part: &str, name: &str) -> Option<(SystemTime, PathBuf)> {
            let items = fs::read_dir(folder).expect("a folder").flatten().map(|item| item.path());
            let found = items.filter_map(|path| match path.is_dir() {
                true => newest(&path, part, name),
                false if path.ends_with(name) && path.to_string_lossy().contains(part) => {
                    Some((fs::metadata(&path).ok()?.modified().ok()?, path))
                }
                false => None,
            });
            found.max()
        }
        let (_, path) = newest(&self.folder.path().join("artifacts"), part, name).expect("such a file");
        let mut bytes = fs::read(&path).expect("the artifact");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("the artifact");
    }

    /// The tags of a version.
    pub(crate) fn tags(&self, model: &str, version: &str) -> Vec<(String, String)> {
        let path = format!("model-versions/get?name={model}&version={version}");
        let answer = self.ask("GET", &path, &Value::Null, self.with_users.then_some(ADMIN)).ok();
        tags_of(&answer["model_version"])
    }

    /// The tags of a logged model.
    pub(crate) fn logged_tags(&self, id: &str) -> Vec<(String, String)> {
        tags_of(&self.ask("GET", &format!("logged-models/{id}"), &Value::Null, None).ok()["model"]["info"])
    }

    /// The logged models of a run, by name.
    pub(crate) fn logged_by(&self, run: &str, name: &str) -> Vec<String> {
        let answer = self.ask("GET", &format!("runs/get?run_id={run}"), &Value::Null, None).ok();
        let outputs = answer["run"]["outputs"]["model_outputs"].as_array().cloned().unwrap_or_default();
        let ids = outputs.iter().filter_map(|output| output["model_id"].as_str().map(str::to_owned));
        let named = |id: &String| {
            let logged = self.ask("GET", &format!("logged-models/{id}"), &Value::Null, None).ok();
            logged["model"]["info"]["name"] == name
        };
        ids.filter(named).collect()
    }

    /// The folder in which the files of a logged model lie.
    pub(crate) fn folder_of(&self, id: &str) -> PathBuf {
        self.folder.path().join("artifacts/1/models").join(id).join("artifacts")
    }

    /// Copies the files of a logged model among those of a run, where MLflow put them before it had logged models.
    pub(crate) fn log_as_before(&self, id: &str, run: &str, path: &str) {
        let to = self.folder.path().join("artifacts/1").join(run).join("artifacts").join(path);
        fs::create_dir_all(&to).expect("a folder");
        copy(&self.folder_of(id), &to);
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tags_of(described: &Value) -> Vec<(String, String)> {
    let tags = described["tags"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    tags.iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The state with the models, made by the first who needs it.
fn state() -> PathBuf {
    let python = Environment::Mlflow.python();
    let script = root().join("tests/peers/mlflow_models.py");
    let digest =
        Sha256::digest([fs::read(&script).expect("a script"), python.display().to_string().into()].concat());
    let digest: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = cache().join(format!("mlflow-state-{digest}"));
    let turn = fs::File::create(cache().join("mlflow-state.turn")).expect("a file to lock");
    turn.lock().expect("a lock");
    if folder.exists() {
        return folder;
    }
    let making =
        tempfile::Builder::new().prefix(".making-").tempdir_in(cache()).expect("a folder in the cache");
    fs::create_dir(making.path().join("artifacts")).expect("a folder");
    let port = free_port();
    let mut child = spawn(making.path(), port, false);
    let up = is_up(port);
    let mut command = Command::new(python);
    command.arg(script).arg(format!("http://127.0.0.1:{port}")).current_dir(making.path());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1");
    torch::offer(&mut command);
    let (passed, output) = if up { bounded(command, LOG_BOUND) } else { (false, String::new()) };
    end(&mut child);
    assert!(passed, "no models were logged:\n{output}\n{}", log(making.path()));
    let told = output.lines().rev().find(|line| line.starts_with('{')).expect("a line of JSON");
    fs::write(making.path().join("told.json"), told).expect("a file");
    fs::rename(making.keep(), &folder).expect("the state moves into its place");
    folder
}

fn spawn(folder: &Path, port: u16, with_users: bool) -> Child {
    let output = fs::File::create(folder.join("server.log")).expect("a log");
    let mut command = Command::new(Environment::Mlflow.python());
    command.args(["-m", "mlflow", "server", "--serve-artifacts", "--workers", "1", "--host", "127.0.0.1"]);
    command.args(["--port", &port.to_string()]);
    command.arg("--backend-store-uri").arg(format!("sqlite:///{}", folder.join("mlflow.db").display()));
    command.arg("--artifacts-destination").arg(folder.join("artifacts"));
    if with_users {
        let config = folder.join("auth.ini");
        let database = folder.join("auth.db");
        let text = format!(
            "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{}\nadmin_username = admin\n\
             authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
            database.display()
        );
        fs::write(&config, text).expect("a file");
        command.args(["--app-name", "basic-auth"]).env("MLFLOW_AUTH_CONFIG_PATH", config);
        let (_, password) = ADMIN.split_once(':').expect("a password");
        command.env("MLFLOW_AUTH_ADMIN_PASSWORD", password).env("MLFLOW_FLASK_SERVER_SECRET_KEY", "gannet");
    }
    command.env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false").env("PYTHONDONTWRITEBYTECODE", "1");
    command
        .env("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
        .env("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true");
    command.env("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", WEBHOOK_KEY).env("MLFLOW_WEBHOOK_CACHE_TTL", "1");
    command.env("MLFLOW_DISABLE_TELEMETRY", "true").current_dir(folder);
    // a group of its own: it starts processes that outlive it
    command.process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone().expect("a log")).stderr(output);
    command.spawn().expect("MLflow starts")
}

fn is_up(port: u16) -> bool {
    wait::holds_within(START_BOUND, || {
        call::try_call(("127.0.0.1", port), "GET /health", &[], b"").is_ok_and(|answer| answer.status == 200)
    })
}

fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("server.log")).unwrap_or_default()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder to copy") {
        let entry = entry.expect("its entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&to).expect("a folder");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file to copy");
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
