//! The program itself: exit statuses, messages, files.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use crate::server::{EchoThread, file};

fn program(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gannet-loadtest")).args(line.split_whitespace()).output().unwrap()
}

fn check(line: &str, status: i32, message: &str) {
    let output = program(line);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(status), "{line}: {text}");
    assert!(text.contains(message), "{line}: {text}");
}

#[test]
fn exit_statuses() {
    let echo = EchoThread::start();
    let run = format!("--url {} -m m -n 2 --requests 200 --warmup 0s", echo.http);
    check(&run, 0, "200 succeeded");
    check(&format!("{run} --slo p50=10s,errors=0%"), 0, "held");
    check(&format!("{run} --slo p50=1ns"), 1, "MISSED");
    check(&format!("{run} --check-versions 9"), 1, "model_version");
    check("--url http://127.0.0.1:1 -m m", 3, "start it, or correct --url");
    check("-m m --url http://192.0.2.1:80", 2, "--allow-remote");
    check("-m m --rows 0 --wire x", 2, "--rows");
    check("--no-such-flag", 2, "--no-such-flag");
    check("--help", 0, "Examples:");
    check("echo --seconds 0", 2, "--http PORT");
    check("-m m --pin 99999", 2, "--pin");
}

#[test]
fn reports_are_written() {
    let echo = EchoThread::start();
    let (json, html) = (file("report.json", b""), file("report.html", b""));
    let scenario = format!(
        "url = '{}'\nmodel = 'm'\nin-flight = 4\nduration = '300ms'\nwarmup = '0s'\n\
         slo = ['p99=10s']\njson = '{json}'\nhtml = '{html}'\n",
        echo.grpc
    );
    let scenario = file("scenario.toml", scenario.as_bytes());
    check(&format!("--scenario {scenario} --requests 100000000"), 0, "p99");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(report["schema"], "gannet-loadtest/1");
    assert_eq!(report["held"], true);
    assert!(report["run"]["latency"]["p99_us"].as_f64().unwrap() > 0.0);
    assert!(report["run"]["timeline"].as_array().unwrap().len() >= 5);
    let page = std::fs::read_to_string(html).unwrap();
    assert_eq!(page.matches("<svg").count(), 3, "percentiles, latency, throughput");
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
}

#[test]
fn echo_says_its_addresses_and_ends_by_itself() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gannet-loadtest"))
        .args(["echo", "--http", "0", "--grpc", "0", "--seconds", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    assert!(lines[0].starts_with("http://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].starts_with("grpc://127.0.0.1:"), "{lines:?}");
    check(&format!("--url {} -m m --requests 10 --warmup 0s", lines[1]), 0, "10 succeeded");
    assert!(child.wait().unwrap().success());
}
