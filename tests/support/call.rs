//! One HTTP request over a socket of its own, blocking, and clients that keep asking. Must not know what is tested.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};

use super::{server::Server, wait};

/// Time for one answer, on a slow machine in a debug build.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The message of a refusal, checked to be one of that status.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

/// Sends one request; `headers` are whole lines without their ends.
pub(crate) fn try_call(
    address: impl ToSocketAddrs,
    start: &str,
    headers: &[&str],
    body: &[u8],
) -> io::Result<Answer> {
    exchange(&mut connect(address)?, start, headers, body)
}

/// A connection on which nobody waits for ever.
pub(crate) fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    Ok(stream)
}

/// One request and its answer, on a connection that ends with it.
pub(crate) fn exchange(
    stream: &mut (impl io::Read + io::Write),
    start: &str,
    headers: &[&str],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{start} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        head.push_str("host: localhost\r\n");
    }
    headers.iter().for_each(|line| head.extend([line, "\r\n"]));
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // a server that refuses early may close before it has read all: its answer counts
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    parse(&bytes).ok_or_else(|| {
        let why = read.err().map_or_else(|| "the answer broke off".to_owned(), |error| error.to_string());
        io::Error::other(format!("{start}: {why} after {} bytes", bytes.len()))
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().filter_map(|line| line.split_once(": "));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body = &bytes[end + 4..];
    let whole = length.map(|(_, value)| value.parse::<usize>()).all(|length| length == Ok(body.len()));
    whole.then(|| Answer { status, head, text: String::from_utf8_lossy(body).into_owned() })
}

/// As [`try_call`], for requests that must be answered.
#[track_caller]
pub(crate) fn call(address: impl ToSocketAddrs, start: &str, headers: &[&str], body: &[u8]) -> Answer {
    try_call(address, start, headers, body).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn get(address: impl ToSocketAddrs, path: &str) -> Answer {
    call(address, &format!("GET {path}"), &[], b"")
}

#[track_caller]
pub(crate) fn post(address: impl ToSocketAddrs, path: &str, body: &Value) -> Answer {
    call(address, &format!("POST {path}"), &[], body.to_string().as_bytes())
}

/// Asks an `add_one` or `add_two` (or a model by its `model/versions/label`) what it makes of 1.
pub(crate) fn try_add(address: impl ToSocketAddrs, model: &str) -> io::Result<Answer> {
    let body = json!({ "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }] });
    try_call(address, &format!("POST /v2/models/{model}/infer"), &[], body.to_string().as_bytes())
}

/// As [`try_add`]: 2 from `add_one`, 3 from `add_two`; the status when there is no answer.
#[track_caller]
pub(crate) fn add(address: impl ToSocketAddrs, model: &str) -> Result<f64, u16> {
    let answer = try_add(address, model).unwrap_or_else(|error| panic!("{error}"));
    let value = || answer.json()["outputs"][0]["data"][0].as_f64();
    if answer.status == 200 { Ok(value().expect("a number")) } else { Err(answer.status) }
}

/// The index's lines of one model: version, state, reason.
#[track_caller]
pub(crate) fn index(address: impl ToSocketAddrs, model: &str) -> Vec<(String, String, String)> {
    let lines = post(address, "/v2/repository/index", &json!({})).ok();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = lines.as_array().expect("a list").iter().filter(|line| line["name"] == model);
    lines.map(|line| (text(&line["version"]), text(&line["state"]), text(&line["reason"]))).collect()
}

/// Waits until a version is refused, and gives the reason.
#[track_caller]
pub(crate) fn refusal(server: &Server, model: &str, version: &str) -> String {
    let mut found = String::new();
    wait::until(&format!("{model} {version} is refused"), || {
        let lines = index(server.http(), model);
        let line = lines.into_iter().find(|line| line.0 == version && line.1 == "UNAVAILABLE");
        found = line.map(|line| line.2).unwrap_or_default();
        // what is known and not loaded yet is called so too
        !found.is_empty() && found != "unloaded"
    });
    found
}

/// One sample of the metrics page, by its name with labels as it is written there.
pub(crate) fn sample(server: &Server, series: &str) -> Option<f64> {
    let page = get(server.metrics(), "/metrics").text;
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// How many loads of a version ended well, and how many did not.
pub(crate) fn loads(server: &Server, model: &str, version: &str) -> (f64, f64) {
    let count = |outcome| {
        let labels = format!("model=\"{model}\",version=\"{version}\",outcome=\"{outcome}\"");
        sample(server, &format!("gannet_loads_total{{{labels}}}")).unwrap_or(0.0)
    };
    (count("ok"), count("failed"))
}

/// Clients that ask one model over and over. Anything but an answer of 2 or 3 is a fault.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Traffic {
    pub(crate) fn start(server: &Server, model: &str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number| {
            let (address, model) = (server.http(), model.to_owned());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let ask = move || {
                let mut faults = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = try_add(address, &model);
                    let value = answer.as_ref().ok().filter(|answer| answer.status == 200);
                    let value = value.and_then(|answer| answer.json()["outputs"][0]["data"][0].as_f64());
                    match value {
                        Some(2.0 | 3.0) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        _ => faults.push(format!("{answer:?}")),
                    }
                }
                faults
            };
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            thread.spawn(ask).expect("a thread")
        };
        let clients = (0..2).map(client).collect();
        let traffic = Self { stop, answered, clients };
        traffic.go_on();
        traffic
    }

    /// Waits for some more answers.
    #[track_caller]
    pub(crate) fn go_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        wait::until("requests go on", || self.answered.load(Ordering::Relaxed) >= before + 4);
    }

    /// Ends it; panics when any request failed.
    #[track_caller]
    pub(crate) fn end(self) {
        self.go_on();
        self.stop.store(true, Ordering::Relaxed);
        let faults = self.clients.into_iter().flat_map(|client| client.join().expect("a client"));
        let faults: Vec<String> = faults.collect();
        assert!(faults.is_empty(), "{} requests failed, such as {}", faults.len(), faults[0]);
    }
}
