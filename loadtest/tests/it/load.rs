//! Load generation and measurement against the echo server.

use crate::server::{EchoThread, file, run, try_run};

#[test]
fn every_wire_carries_a_counted_closed_loop() {
    let echo = EchoThread::start();
    for (url, options) in [
        (&echo.http, "-n 8"),
        (&echo.http, "-n 8 --wire binary --rows 3"),
        (&echo.http, "-n 32 -c 2 --pipeline 16"),
        (&echo.grpc, "-n 8"),
        (&echo.grpc, "-n 64 -c 2 --rows 5"),
    ] {
        let run = run(url, &format!("{options} --requests 2000 --sample-versions 1"));
        assert_eq!((run.sent, run.succeeded, run.failed), (2000, 2000, 0), "{options}: {run:?}");
        assert_eq!(run.latency.count, 2000);
        assert_eq!(run.versions["1"], 2000);
        assert_eq!(run.statuses.values().sum::<u64>(), 2000);
        assert!(run.latency.min_us > 0.0 && run.rate > 0.0);
    }
}

#[test]
fn every_measured_request_is_accounted_for() {
    let echo = EchoThread::start();
    for (url, load) in [(&echo.http, "-n 16"), (&echo.grpc, "-n 16"), (&echo.http, "--rate 3000")] {
        let line = format!("--url {url} -m m --warmup 50ms --duration 150ms --idle sleep {load}");
        let run = try_run(&line).unwrap().run.unwrap();
        assert!(run.sent > 0);
        assert_eq!(run.sent, run.succeeded + run.failed, "{load}");
        assert_eq!(run.failed, 0, "{:?}", run.failures);
        assert!(run.timeline.len() >= 3);
    }
}

#[test]
fn open_loops_send_what_is_due() {
    let echo = EchoThread::start();
    for options in [
        "--rate 5000",
        "--rate 5000 --arrivals constant",
        "--rate 5000 --arrivals bursts --burst-size 50",
        "--rate 500 --arrivals ramp --ramp-to 20000 --duration 5s",
    ] {
        for url in [&echo.http, &echo.grpc] {
            let run = run(url, &format!("{options} --requests 1000"));
            assert_eq!((run.sent, run.succeeded, run.failed), (1000, 1000, 0), "{options}");
        }
    }
}

#[test]
fn recorded_arrivals_end_with_the_file() {
    let echo = EchoThread::start();
    let times: String = (0..200).map(|i| format!("{}\n", f64::from(i) * 0.0005)).collect();
    let path = file("arrivals.txt", times.as_bytes());
    let run = run(&echo.http, &format!("--arrivals-file {path}"));
    assert_eq!(run.succeeded, 200);
    assert!(run.seconds >= 0.0995 && run.seconds < 9.0, "{}", run.seconds);
}

#[test]
fn data_sets_and_bodies_are_sent() {
    let echo = EchoThread::start();
    let csv = file("rows.csv", b"1,2,3,4\n5,6,7,8\n9,10,11,12\n");
    let body = br#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    let json = file("body.json", body);
    for url in [&echo.http, &echo.grpc] {
        for options in
            [format!("--data {csv} --rows 2 --order shuffled"), format!("--body {json} --timeout-us 5000")]
        {
            assert_eq!(run(url, &format!("{options} --requests 50")).succeeded, 50, "{options}");
        }
    }
    let wrong = try_run(&format!("--url {} -m m --data {csv} --shape y:1", echo.http));
    assert!(wrong.unwrap_err().to_string().contains("inputs [\"x\"]"));
}

#[test]
fn wrong_answers_are_found() {
    let echo = EchoThread::start();
    let other = file("other.json", b"{}");
    for (options, kind) in
        [(format!("--expect {other}"), "body differs"), ("--check-versions 2,3".into(), "model_version")]
    {
        for url in [&echo.http, &echo.grpc] {
            let line = format!("--url {url} -m m --warmup 0s --requests 20 {options}");
            let report = try_run(&line).unwrap();
            assert!(!report.held);
            let run = report.run.unwrap();
            assert_eq!((run.succeeded, run.failed), (0, 20));
            assert!(run.failures.keys().all(|name| name.contains(kind)), "{:?}", run.failures);
            assert!(!run.quotes.is_empty() && run.quotes.len() <= 5);
        }
    }
    let held = try_run(&format!("--url {} -m m --requests 9 --check-versions 1", echo.http));
    assert!(held.unwrap().held);
}

#[test]
fn a_search_ends_and_reports_its_steps() {
    let echo = EchoThread::start();
    let line = format!(
        "--url {} -m m --find-max --rate 200 --slo p50=10s --find-steps 3 --duration 50ms \
         --warmup 0s --idle sleep -c 16",
        echo.http
    );
    let report = try_run(&line).unwrap();
    let rates: Vec<f64> = report.steps.iter().map(|step| step.offered_rate).collect();
    assert_eq!(rates, [200.0, 400.0, 800.0]);
    assert_eq!(report.found_rate, Some(800.0));
    let impossible = try_run(&line.replace("p50=10s", "p50=1ns")).unwrap();
    assert_eq!(impossible.found_rate, None);
    assert!(!impossible.held);
}

#[test]
fn a_comparison_alternates() {
    let (a, b) = (EchoThread::start(), EchoThread::start());
    let line = format!(
        "--url {} --vs {} -m m -n 4 --rounds 3 --requests 300 --warmup 0s --server-pid {pid} \
         --vs-server-pid {pid}",
        a.http,
        b.grpc,
        pid = std::process::id()
    );
    let report = try_run(&line).unwrap();
    let comparison = report.comparison.as_ref().unwrap();
    assert_eq!(comparison.rounds.len(), 3);
    for (first, second) in &comparison.rounds {
        assert_eq!((first.succeeded, second.succeeded), (300, 300));
        assert_eq!((first.wire, second.wire), ("json", "grpc"));
    }
    let names: Vec<&str> = comparison.ratios.iter().map(|ratio| ratio.name).collect();
    assert!(names.contains(&"requests/s") && names.contains(&"p99 us"), "{names:?}");
    assert!(report.text().contains("B/A") && report.html().contains("<svg"));
}
