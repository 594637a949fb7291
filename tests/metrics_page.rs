//! The metrics page after some traffic: what is there, whether it adds up, and whether Prometheus takes it.

use serde_json::json;

use crate::support::{
    call::{add, call, get, index, post, sample},
    folder::Folder,
    promtool,
    server::Server,
    wait,
};

/// Every family that the product names, and its kind.
const FAMILIES: [(&str, &str); 13] = [
    ("gannet_requests_total", "counter"),
    ("gannet_request_seconds", "histogram"),
    ("gannet_queue_seconds", "histogram"),
    ("gannet_assemble_seconds", "histogram"),
    ("gannet_compute_seconds", "histogram"),
    ("gannet_scatter_seconds", "histogram"),
    ("gannet_batch_rows", "histogram"),
    ("gannet_queue_depth", "gauge"),
    ("gannet_inflight", "gauge"),
    ("gannet_loads_total", "counter"),
    ("gannet_swaps_total", "counter"),
    ("gannet_unloads_total", "counter"),
    ("gannet_build_info", "gauge"),
];

/// Triton's families.
const TRITON: [&str; 9] = [
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
];

const ANSWERED: u32 = 7;
const INVALID: u32 = 3;

/// A server over `m` that answered and refused some requests.
fn after_traffic(folder: &Folder) -> Server {
    let server = Server::start(&folder.path(), |_| {});
    for _ in 0..ANSWERED {
        assert_eq!(add(server.http(), "m"), Ok(2.0));
    }
    for _ in 0..INVALID {
        let body =
            json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1] }] });
        post(server.http(), "/v2/models/m/infer", &body).refused(400);
    }
    server
}

fn page(server: &Server, path: &str) -> String {
    let answer = get(server.metrics(), path);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    answer.text
}

#[test]
fn every_family_is_there_with_its_kind_and_a_help_text() {
    let folder = Folder::with_add_one();
    let server = after_traffic(&folder);
    let page = page(&server, "/metrics");
    for (family, kind) in FAMILIES {
        assert!(page.contains(&format!("# TYPE {family} {kind}\n")), "{family} is missing in\n{page}");
        assert!(page.contains(&format!("# HELP {family} ")), "{family} has no help in\n{page}");
    }
    for family in TRITON {
        assert!(page.contains(&format!("\n{family}{{")), "{family} is missing in\n{page}");
    }
    let mut series: Vec<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect();
    let count = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), count, "every series is there once");
}

#[test]
fn counts_agree_with_what_was_sent() {
    let folder = Folder::with_add_one();
    let server = after_traffic(&folder);
    let labels = "model=\"m\",version=\"1\"";
    let check = |series: &str, expected: u32| {
        // an answer is sent before the last of its counters moves
        wait::until(&format!("{series} is {expected}"), || {
            sample(&server, series) == Some(f64::from(expected))
        });
    };
    check(&format!("gannet_requests_total{{{labels},outcome=\"ok\"}}"), ANSWERED);
    check(&format!("gannet_requests_total{{{labels},outcome=\"invalid\"}}"), INVALID);
    for name in ["queue", "assemble", "compute", "scatter"] {
        check(&format!("gannet_{name}_seconds_count{{{labels}}}"), ANSWERED);
    }
    check(&format!("gannet_batch_rows_sum{{{labels}}}"), ANSWERED);
    check(&format!("gannet_inflight{{{labels}}}"), 0);
    check(&format!("gannet_queue_depth{{{labels}}}"), 0);
    check(&format!("gannet_loads_total{{{labels},outcome=\"ok\"}}"), 1);
    check(&format!("nv_inference_request_success{{{labels}}}"), ANSWERED);
    check(&format!("nv_inference_count{{{labels}}}"), ANSWERED);
    folder.put("m/1", "add_two");
    wait::until("the new content serves", || add(server.http(), "m") == Ok(3.0));
    check(&format!("gannet_loads_total{{{labels},outcome=\"ok\"}}"), 2);
    check(&format!("gannet_swaps_total{{{labels}}}"), 1);
}

#[test]
fn histograms_are_cumulative_and_end_with_all() {
    let server = after_traffic(&Folder::with_add_one());
    let page = page(&server, "/metrics/native");
    let mut histograms = 0;
    for (family, _) in FAMILIES.iter().filter(|(_, kind)| *kind == "histogram") {
        let values = |suffix: &str| -> Vec<(String, f64)> {
            let start = format!("{family}_{suffix}{{model=\"m\",");
            let lines = page.lines().filter(|line| line.starts_with(&start));
            lines
                .map(|line| line.rsplit_once(' ').unwrap())
                .map(|(s, v)| (s.into(), v.parse().unwrap()))
                .collect()
        };
        let (buckets, count) = (values("bucket"), values("count"));
        assert!(buckets.len() > 2, "{family}");
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
        let bound = |series: &str| -> f64 {
            let text = series.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
            if text == "+Inf" { f64::INFINITY } else { text.parse().unwrap() }
        };
        assert!(buckets.windows(2).all(|pair| bound(&pair[0].0) < bound(&pair[1].0)), "{buckets:?}");
        let last = buckets.last().unwrap();
        assert_eq!((bound(&last.0), last.1), (f64::INFINITY, count[0].1), "{family}");
        assert!(last.1 > 0.0, "{family}");
        histograms += 1;
    }
    assert_eq!(histograms, 6);
}

#[test]
fn the_series_of_a_model_go_with_it() {
    let folder = Folder::with_add_one();
    folder.put("n/1", "add_two");
    let server = after_traffic(&folder);
    assert!(page(&server, "/metrics").contains("model=\"m\""));
    folder.remove("m");
    wait::until("the model is gone", || index(server.http(), "m").is_empty());
    let page = page(&server, "/metrics");
    assert!(!page.contains("model=\"m\""), "{page}");
    assert!(page.contains("model=\"n\""));
}

#[test]
fn the_native_page_holds_no_names_of_triton() {
    let server = after_traffic(&Folder::with_add_one());
    let page = page(&server, "/metrics/native");
    assert!(!page.contains("nv_"), "{page}");
    assert!(page.contains("gannet_requests_total{"));
    call(server.metrics(), "POST /metrics", &[], b"").refused(405);
    get(server.metrics(), "/other").refused(404);
}

#[test]
fn prometheus_accepts_the_native_page() {
    let server = after_traffic(&Folder::with_add_one());
    promtool::check(&page(&server, "/metrics/native"));
}
