//! Cases of how flags, file and environment compose.

use std::{path::Path, time::Duration};

use super::*;
use crate::config::{LogFormat, RepositoryApi};

fn sources(
    flags: &[(&'static str, &'static str, &str)],
    file: &str,
    environment: &[(&str, &str)],
) -> Sources {
    let file = (!file.is_empty()).then(|| FileText { path: "gannet.toml".into(), text: file.into() });
    let mut environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    environment.push(("HOME".into(), "/home/a".into()));
    let flags = flags.iter().map(|(flag, key, value)| (*flag, *key, Given::Text((*value).into()))).collect();
    Sources { flags, settings: Vec::new(), file, environment }
}

#[test]
fn without_sources_everything_is_on_loopback() {
    let config = compose(&sources(&[], "", &[])).unwrap();
    assert_eq!(config.listen.http, Address::parse("127.0.0.1:8000"));
    assert_eq!(config.listen.admin, Address::parse("127.0.0.1:8003"));
    assert_eq!(config.state_dir, Path::new("/home/a/.local/state/gannet"));
    assert_eq!(config.limits.body_bytes_max, 64 << 20);
    assert!(config.effective().all(|entry| entry.source == "default"));
    assert_eq!(config.effective().count(), keys().len());
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_environment() {
    let file = "[listen]\nhttp = \"127.0.0.1:2\"\ngrpc = \"127.0.0.1:22\"\n[state]\ndir = \"/b\"\n";
    let variables = [
        ("GANNET_LISTEN_HTTP", "127.0.0.1:3"),
        ("GANNET_LISTEN_GRPC", "127.0.0.1:33"),
        ("GANNET_LISTEN_METRICS", "off"),
    ];
    let config = compose(&sources(&[("--http", "listen.http", "127.0.0.1:1")], file, &variables)).unwrap();
    let check = |key: &str, value: &str, source: &str| {
        let entry = config.effective().find(|entry| entry.key == key).unwrap();
        assert_eq!((entry.value.as_str(), entry.source), (Some(value), source), "{key}");
    };
    check("listen.http", "127.0.0.1:1", "--http");
    check("listen.grpc", "127.0.0.1:22", "gannet.toml:3");
    check("listen.metrics", "off", "GANNET_LISTEN_METRICS");
    check("listen.admin", "127.0.0.1:8003", "default");
    assert_eq!(config.listen.metrics, None);
}

#[test]
fn every_key_can_be_set_from_everywhere() {
    for key in keys() {
        let value = (key.show)(&Config::new("/state".into()));
        let text = match &value {
            serde_json::Value::Array(items) => {
                items.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(",")
            }
            // not without the other keys of their sections
            serde_json::Value::String(_) if ["webhook.listen", "ota.listen"].contains(&key.name) => {
                "off".into()
            }
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null if key.name.contains("bytes") => "1GiB".into(),
            serde_json::Value::Null
                if ["secret", "credentials", ".key"].iter().any(|end| key.name.ends_with(end)) =>
            {
                "env:SECRET".into()
            }
            serde_json::Value::Null if ["url", "endpoint"].iter().any(|end| key.name.ends_with(end)) => {
                "https://example.org/".into()
            }
            serde_json::Value::Null => "/tokens".into(),
            other => other.to_string(),
        };
        let name = key.name;
        let mut all = sources(&[("--flag", name, &text)], &format!("{name} = {text:?}\n"), &[]);
        all.environment.push((key.variable(), text.clone()));
        all.settings.push(format!("{name}={text}"));
        // which must be named with it
        if name == "drift.webhook_url" {
            all.settings.push("drift.webhook_secret=env:SECRET".into());
        }
        if name == "capture.events_url" {
            all.settings.push("capture.events_secret=env:SECRET".into());
            all.settings.push("capture.root=/capture".into());
        }
        if name.starts_with("tls.") {
            let others = ["tls.certificate", "tls.key"].into_iter().filter(|other| *other != name);
            all.settings.extend(others.map(|other| format!("{other}=/file.pem")));
        }
        let config = compose(&all).unwrap_or_else(|faults| panic!("{name}: {faults}"));
        assert_eq!(config.source(name), "--flag");
        all.flags.clear();
        assert_eq!(compose(&all).unwrap().source(name), format!("--set {name}"));
    }
}

#[test]
fn nothing_leaves_the_machine_in_clear_unless_it_may() {
    let check = |text: &str, part: &str| match compose(&sources(&[], text, &[])) {
        Ok(config) if part.is_empty() => assert_eq!(config.warnings, [""; 0], "{text}"),
        Ok(config) => assert!(config.warnings.concat().contains(part), "{text}: {:?}", config.warnings),
        Err(faults) => assert!(!part.is_empty() && faults.to_string().contains(part), "{text}: {faults}"),
    };
    check("[trace]\nurl = \"http://127.0.0.1:4318\"\n", "");
    check("[trace]\nurl = \"http://[::1]:4318\"\n", "");
    check("[trace]\nurl = \"https://collector:4318\"\n", "");
    check("[trace]\nurl = \"http://collector:4318\"\n", "expected https://, or http:// to this machine");
    check("[trace]\nurl = \"http://collector:4318\"\nplain_http = true\n", "");
    // tokens that come in clear are told of
    let tokens = "[listen]\nhttp = \"0.0.0.0:1\"\n[inference]\ntoken_file = \"/tokens\"\n";
    check(tokens, "tokens come to 0.0.0.0:1 (http), which is not loopback, in clear");
    let secured = "[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n";
    check(&format!("{tokens}{secured}"), "");
    let devices = "[ota]\nlisten = \"0.0.0.0:1\"\ndevices_file = \"/d\"\nkeys = [\"/k\"]\n";
    check(devices, "devices come to 0.0.0.0:1");
    check(&format!("{devices}{secured}"), "");
    check(&format!("{secured}client_ca = \"/a\"\n"), "");
    check("[tls]\nclient_ca = \"/a\"\n", "nothing without a tls.certificate");
    check("[tls]\ncertificate = \"/a\"\n", "nothing without a tls.key");
}

#[test]
fn values_arrive_typed() {
    let file = "[limits]\nbody_bytes_max = \"1MiB\"\nmemory_bytes_max = 5\n[repository]\npaths = [\"a,b\", \"c\"]\n\
                model_control = \"explicit\"\napi = \"full\"\nload_models = [\"m\"]\n[shutdown]\nlame_duck_ms = 0\n\
                [log]\nformat = \"json\"\nlevel = \"info,gannet_runtime=debug\"\n";
    let config = compose(&sources(&[], file, &[])).unwrap();
    assert_eq!(config.limits.body_bytes_max, 1 << 20);
    assert_eq!(config.memory_bytes_max, Some(5));
    assert_eq!(config.repository.paths, [Path::new("a,b"), Path::new("c")]);
    assert_eq!(config.repository.mode, ControlMode::Explicit);
    assert_eq!(config.repository.api, RepositoryApi::Full);
    assert_eq!(config.shutdown.lame_duck, Duration::ZERO);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn all_faults_are_reported_at_once() {
    let file = "port = 1\n[listen]\nhttp = 8000\nhtpp = \"x\"\n[runtime]\nio_threads = 0\nloader_nice = 20\n\
                [log]\nlevel = \"loud\"\n";
    let variables = [
        ("GANNET_LISTEN_HTPP", "127.0.0.1:1"),
        ("GANNET_SERVICE_HOST", "10.0.0.1"),
        ("GANNET_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("GANNET_CONFIG", "x"),
        ("GANNET_LIMITS_BODY_BYTES_MAX", "64 parsecs"),
    ];
    let mut all = sources(
        &[
            ("--http", "listen.http", "nowhere"),
            ("--admin", "listen.admin", "0.0.0.0:1"),
            ("--load-model", "repository.load_models", "m"),
        ],
        file,
        &variables,
    );
    all.settings = vec!["nonsense".into(), "a.b=c".into(), "repository.scan_ms=-1".into()];
    let faults = compose(&all).unwrap_err();
    let text = faults.to_string();
    println!("{text}");
    for part in [
        "GANNET_LISTEN_HTPP: expected one of the keys GANNET_LISTEN_HTTP, ",
        "got the unknown key 'listen.htpp'",
        "GANNET_LIMITS_BODY_BYTES_MAX: limits.body_bytes_max: expected bytes of 1 or more, such as 1048576 or \"64MiB\", got \"64 parsecs\"",
        "gannet.toml:1: expected one of the keys listen.http, ",
        "gannet.toml:3: listen.http: expected HOST:PORT, such as \"127.0.0.1:8000\", or \"off\", got 8000",
        "gannet.toml:4: expected one of the keys listen.http, ",
        "gannet.toml:6: runtime.io_threads: expected a whole number from 1 to 1024, got 0",
        "gannet.toml:7: runtime.loader_nice: ",
        "gannet.toml:9: log.level: ",
        "--set: expected key=value, such as listen.http=127.0.0.1:9000, got \"nonsense\"",
        "--set: expected one of the keys listen.http, ",
        "--set repository.scan_ms: repository.scan_ms: expected milliseconds from 1 to 86400000, got \"-1\"",
        "--http: listen.http: ",
        "--admin: listen.admin: expected a loopback address while there is no admin.token_file, got 0.0.0.0:1; ",
        "--load-model: repository.load_models: ",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(faults.0.len(), 14, "{text}");
}

#[test]
fn keys_depend_on_each_other() {
    let check = |flags: &[(&'static str, &'static str, &str)], part: &str| {
        let text = compose(&sources(flags, "", &[])).unwrap_err().to_string();
        assert!(text.contains(part), "{part} is missing in\n{text}");
    };
    check(&[("--grpc", "listen.grpc", "127.0.0.1:8000")], "another address than listen.http");
    check(&[("--set", "repository.paths", "")], "at least one path");
    check(&[("--set", "ota.listen", "127.0.0.1:9000")], "no listener without ota.keys and ota.devices_file");
    check(&[("--set", "ota.listen", "127.0.0.1:8003")], "another address than listen.admin");
    let free = [("--http", "listen.http", "127.0.0.1:0"), ("--grpc", "listen.grpc", "127.0.0.1:0")];
    assert!(compose(&sources(&free, "", &[])).is_ok());
    let token = [("--admin", "listen.admin", "0.0.0.0:1"), ("--admin-token-file", "admin.token_file", "/t")];
    assert!(compose(&sources(&token, "", &[])).is_ok());
    let homeless = Sources::default();
    assert!(compose(&homeless).unwrap_err().to_string().contains("--state DIR"));
    let relative = Sources { environment: vec![("XDG_STATE_HOME".into(), "x".into())], ..Sources::default() };
    assert!(compose(&relative).is_err());
}

#[test]
fn unknown_variables_are_told_apart() {
    let variables = [
        ("GANNET_HTTP", "x"),
        ("GANNET_CANARY_SERVICE_HOST", "x"),
        ("GANNET_PORT", "x"),
        ("GANNET_CONFIG", "x"),
    ];
    let config = compose(&sources(&[], "", &variables)).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("GANNET_HTTP "));
}

#[test]
fn events_of_captured_requests_want_a_place_and_a_secret() {
    let url = ("--set", "capture.events_url", "http://127.0.0.1:9/");
    let text = compose(&sources(&[url], "", &[])).unwrap_err().to_string();
    for part in ["capture.events_url", "without a capture.root", "without a capture.events_secret"] {
        assert!(text.contains(part), "{text}");
    }
    let away = ("--set", "capture.events_url", "http://example.org/");
    let text = compose(&sources(&[away], "", &[])).unwrap_err().to_string();
    assert!(text.contains("https://..., or http:// to this machine"), "{text}");
}
