//! Who may call, and how nobody listens: TLS with clients that other people wrote, certificates that change while the
//! server runs, clients that must show one, tokens, and who does not speak it. Must not know how it is spoken.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    process::Command,
    time::Duration,
};

use gannet_server::config::{Config, Port};

use crate::support::{
    call,
    certificates::{Authority, Signed, der},
    environment::{Environment, bounded},
    folder::Folder,
    prometheus::Prometheus,
    proof::scaled,
    random::Random,
    server::{Server, command, root, zoo},
    wait,
};

/// Time for a script of a few requests.
const SCRIPT_BOUND: Duration = Duration::from_secs(120);

fn secure(config: &mut Config, signed: &Signed) {
    config.tls.certificate = Some(signed.certificate.clone());
    config.tls.key = Some(signed.key.clone());
}

/// `localhost` and the port, as certificates name this machine.
fn named(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

/// Triton's clients, over HTTP and gRPC; what they said.
#[track_caller]
fn triton(server: &Server, options: &[&str]) -> String {
    let mut command = Command::new(Environment::Triton.python());
    command.arg(root().join("tests/peers/triton_secured.py"));
    command.args(["--http", &named(server.http()), "--grpc", &named(server.grpc())]).args(options);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let (passed, output) = bounded(command, SCRIPT_BOUND);
    assert!(passed && output.contains("2 passed, 0 failed"), "{options:?}: {output}");
    output
}

/// How Triton's clients are told of certificates.
fn shown(authority: &Authority, own: Option<&Signed>) -> Vec<String> {
    let mut options = vec!["--ca".to_owned(), authority.certificate().display().to_string()];
    if let Some(own) = own {
        options.extend(["--certificate".into(), own.certificate.display().to_string()]);
        options.extend(["--key".into(), own.key.display().to_string()]);
    }
    options
}

/// What `gannet models` says of a server, with this authority as the one that is trusted.
fn models(server: &Server, trusted: &Authority) -> Result<String, String> {
    let mut command = command();
    command.args(["models", "--admin", &format!("https://{}", named(server.admin()))]);
    let output = command.env("SSL_CERT_FILE", trusted.certificate()).output().expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn what_people_call_with_speaks_tls() {
    let authority = Authority::new("the authority");
    let signed = authority.sign("server");
    let server = Server::start(&zoo(), |config| secure(config, &signed));
    let trusting = shown(&authority, None);
    triton(&server, &[&trusting[0], &trusting[1]]);
    let (page, _) = authority.ask(server.metrics(), None, "GET /metrics", b"").expect("an answer");
    assert!(page.text.contains("gannet_"), "{page:?}");
    let said = models(&server, &authority).expect("the admin API answers");
    assert!(said.contains("iris"), "{said}");
    let other = Authority::new("another authority");
    let why = models(&server, &other).expect_err("nobody it trusts signed that");
    assert!(why.contains("no TLS was agreed on") && why.contains("SSL_CERT_FILE"), "{why}");
    assert!(other.ask(server.http(), None, "GET /v2", b"").is_err());
    drop(server);
    // an authority's own certificate, as openssl makes one where nothing else is said, and what to do about it
    let own = authority.own();
    let server = Server::start(Folder::with_add_one().path().as_path(), |config| secure(config, &own));
    let why = models(&server, &authority).expect_err("an authority is no server");
    assert!(why.contains("it shows an authority's own certificate"), "{why}");
}

#[test]
fn who_speaks_in_clear_is_told() {
    let authority = Authority::new("the authority");
    let signed = authority.sign("server");
    let server = Server::start(Folder::with_add_one().path().as_path(), |config| {
        secure(config, &signed);
        config.tls.listeners.retain(|port| *port != Port::Metrics);
    });
    for address in [server.http(), server.grpc(), server.admin()] {
        let why = call::get(address, "/v2").refused(400);
        assert!(why.contains("this port speaks TLS: expected https://"), "{why}");
    }
    // what is not listed stays as it was
    assert!(call::get(server.metrics(), "/metrics").text.contains("gannet_refused_total{reason=\"tls\"}"));
}

#[test]
fn certificates_change_while_the_server_runs() {
    let authority = Authority::new("the authority");
    let signed = authority.sign("server");
    let server = Server::start(Folder::with_add_one().path().as_path(), |config| secure(config, &signed));
    let shown = |address| {
        let (answer, shown) = authority.ask(address, None, "GET /v2", b"").expect("an answer");
        assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
        shown
    };
    let first = der(&signed.certificate);
    assert_eq!(shown(server.http()), first);
    // half of a change: a key that is not the certificate's
    let renewed = authority.sign("renewed");
    fs::copy(&renewed.key, &signed.key).expect("a file");
    assert_eq!(shown(server.http()), first, "the last good one stays");
    fs::copy(&renewed.certificate, &signed.certificate).expect("a file");
    let second = der(&renewed.certificate);
    for address in [server.http(), server.admin(), server.metrics()] {
        wait::until("the new one is shown", || shown(address) == second);
    }
    fs::write(&signed.certificate, "-----BEGIN CERTIFICATE-----\nrubbish").expect("a file");
    fs::remove_file(&signed.key).expect("it was there");
    for _ in 0..20 {
        assert_eq!(shown(server.http()), second);
    }
}

#[test]
fn clients_show_certificates_where_they_must() {
    let (authority, of_clients) = (Authority::new("of servers"), Authority::new("of clients"));
    let (signed, client) = (authority.sign("server"), of_clients.sign("client"));
    let server = Server::start(&zoo(), |config| {
        secure(config, &signed);
        config.tls.client_ca = Some(of_clients.certificate());
    });
    let ask = |own: Option<&Signed>, more: &[&str]| {
        let options = shown(&authority, own);
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        options.extend(more);
        triton(&server, &options);
    };
    ask(Some(&client), &[]);
    ask(None, &["--refused"]);
    // signed by somebody else
    ask(Some(&authority.sign("stranger")), &["--refused"]);
    assert!(authority.ask(server.metrics(), Some(&client), "GET /metrics", b"").is_ok());
    assert!(authority.ask(server.metrics(), None, "GET /metrics", b"").is_err());
    // who may administer has a token
    assert!(models(&server, &authority).is_ok());
}

#[test]
fn the_data_ports_want_a_token_where_they_are_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let (tokens, scraper) = (folder.path().join("tokens"), folder.path().join("scraper"));
    fs::write(&tokens, "# of the shop\nfirst\nsecond\n").expect("a file");
    fs::write(&scraper, "scraper\n").expect("a file");
    let server = Server::start(&zoo(), |config| {
        config.inference_token_file = Some(tokens.clone());
        config.metrics_token_file = Some(scraper);
    });
    triton(&server, &["--token", "first", "--healthy"]);
    triton(&server, &["--token", "second"]);
    let said = triton(&server, &["--refused", "--healthy"]);
    assert!(said.matches("send the header 'Authorization: Bearer <token>'").count() == 2, "{said}");
    triton(&server, &["--token", "third", "--refused", "--healthy"]);
    let get = |address, path: &str, token: &str| {
        let header = format!("authorization: Bearer {token}");
        call::call(address, &format!("GET {path}"), &[&header], b"")
    };
    // nothing but the health of the whole is told to everybody
    for path in ["/v2", "/v2/models/iris", "/v2/models/iris/ready", "/v2/models/stats"] {
        let refused = get(server.http(), path, "third");
        assert!(refused.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{refused:?}");
        assert!(refused.refused(401).contains("not one that this server knows"), "{refused:?}");
        assert_eq!(get(server.http(), path, "first").status, 200);
    }
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(call::get(server.http(), path).status, 200);
    }
    assert_eq!(call::get(server.metrics(), "/metrics").status, 401);
    let page = get(server.metrics(), "/metrics", "scraper").text;
    assert!(page.contains("gannet_refused_total{reason=\"token\"}"), "{page}");
    // another file in its place, and none
    let beside = folder.path().join("beside");
    fs::write(&beside, "third\n").expect("a file");
    fs::rename(&beside, &tokens).expect("it moves");
    wait::until("the new one counts", || get(server.http(), "/v2", "third").status == 200);
    assert_eq!(get(server.http(), "/v2", "first").status, 401);
    fs::remove_file(&tokens).expect("it was there");
    wait::until("nothing counts", || get(server.http(), "/v2", "third").status == 401);
    assert!(get(server.http(), "/v2", "third").refused(401).contains("cannot read its token file"));
}

#[test]
fn a_real_prometheus_scrapes_over_tls() {
    let authority = Authority::new("the authority");
    let signed = authority.sign("server");
    let server = Server::start(Folder::with_add_one().path().as_path(), |config| secure(config, &signed));
    let prometheus = Prometheus::start_secured(server.metrics(), &authority.certificate());
    wait::until("the server is up", || {
        prometheus.query("up")["data"]["result"][0]["value"][1].as_str() == Some("1")
    });
}

#[test]
fn whoever_does_not_agree_is_let_go_and_harms_nobody() {
    let authority = Authority::new("the authority");
    let signed = authority.sign("server");
    let folder = Folder::with_add_one();
    let server = Server::start(&folder.path(), |config| {
        secure(config, &signed);
        config.limits.head_time_max = Duration::from_millis(300);
    });
    // nothing, a part of a greeting, and noise
    let mut random = Random::new(7);
    for round in 0..scaled(20, 2000) {
        let noise: Vec<u8> = (0..random.below(600)).map(|_| random.below(256) as u8).collect();
        let start: &[u8] = match round % 3 {
            0 => &[],
            1 => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            _ => &noise,
        };
        let address = if round % 2 == 0 { server.http() } else { server.grpc() };
        let mut stream = call::connect(address).expect("it is accepted");
        let _ = stream.write_all(start);
        if round % 3 != 2 {
            // it is the server that ends it
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
    }
    let body = br#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,1,1]}]}"#;
    let (answer, _) =
        authority.ask(server.http(), None, "POST /v2/models/m/infer", body).expect("it still answers");
    assert_eq!(answer.ok()["outputs"][0]["data"][0], 2.0);
}

#[test]
fn what_cannot_secure_anything_is_told_at_the_start() {
    let (authority, state) = (Authority::new("the authority"), tempfile::tempdir().expect("a folder"));
    let (signed, other) = (authority.sign("server"), authority.sign("other"));
    let empty = state.path().join("empty.pem");
    fs::write(&empty, "").expect("a file");
    let start = |settings: &[String]| {
        let mut command = command();
        command.args(["--http", "127.0.0.1:0", "--grpc", "off", "--metrics", "off", "--admin", "off"]);
        command.arg("--state").arg(state.path());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let output = command.output().expect("the command runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let set = |key: &str, path: &std::path::Path| format!("tls.{key}={}", path.display());
    let certificate = set("certificate", &signed.certificate);
    let cases = [
        (vec![certificate.clone()], "tls.key"),
        (vec![certificate.clone(), set("key", &other.key)], "expected a certificate and its own key"),
        (vec![certificate, set("key", &empty)], "expected a private key in PEM without a password"),
        (vec![set("certificate", &empty), set("key", &signed.key)], "got none"),
        (vec![set("certificate", state.path()), set("key", &signed.key)], "tls.certificate ("),
        (vec![set("client_ca", &signed.certificate)], "nothing without a tls.certificate"),
        (vec!["tls.listeners=http,door".to_owned()], "any of http, grpc, metrics, admin, webhook, ota"),
    ];
    for (settings, part) in cases {
        let why = start(&settings);
        assert!(why.contains(part), "{settings:?}: {why}");
    }
}
