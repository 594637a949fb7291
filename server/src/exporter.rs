//! The metrics listener: what the runtime and the recorder have counted, as Prometheus reads it. Must not know how
//! anything is counted, nor any name of a metric.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, sync::OnceLock};

use bytes::Bytes;
use gannet_runtime::{
    control::{manager, rollout::View},
    metrics::{
        LoadCounts, OtaSample, VersionSample, render, render_capture, render_drift, render_loads, render_ota,
        render_rollouts, render_routes,
    },
    table::RouteEntry,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::{
    admin::listener::{Endpoint, refuse},
    guard,
    ota::{Ota, Rollout, Status},
    respond::{Kind, Refusal},
    state::{SERVER_VERSION, State},
    token::TokenFile,
    traffic::Shown,
};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The process's recorder, installed at the first call. `runtime` describes the engine's build.
pub fn recorder(runtime: &str) -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!(
                "another metrics recorder is installed in this process; process-wide counters are not shown"
            );
        }
        manager::describe_metrics(SERVER_VERSION, runtime);
        handle
    })
}

/// The whole page. `native` leaves Triton's names out.
#[must_use]
pub fn page(state: &State, recorder: &PrometheusHandle, native: bool) -> String {
    let table = state.table().snapshot();
    let models = table.models();
    let mut samples = Vec::new();
    let mut loads: Vec<(&str, &str, &LoadCounts)> = Vec::new();
    let mut routes: Vec<(&str, &RouteEntry)> = Vec::new();
    for (name, entry) in &models {
        for servable in entry.versions.iter().filter_map(|version| version.servable.as_ref()) {
            samples.push(VersionSample {
                model: name.to_string(),
                version: servable.version.to_string(),
                stats: servable.stats.snapshot(),
                queue_depth: servable.waiting(),
                inflight: servable.inflight(),
            });
        }
        loads.extend(entry.loads.iter().map(|(version, counts)| (name.as_str(), version.as_str(), counts)));
        routes.extend(entry.route.as_ref().map(|route| (name.as_str(), route)));
    }
    let mut page = render(&samples, native);
    page.push_str(&render_loads(&loads));
    page.push_str(&render_routes(&routes));
    page.push_str(&rollouts(&state.traffic.rollouts()));
    if let Some(ota) = &state.ota {
        page.push_str(&deliveries(ota));
    }
    page.push_str(&render_drift(&state.drift));
    if let Some(capture) = &state.capture {
        page.push_str(&render_capture(&capture.counted(), capture.tap().waiting_bytes()));
    }
    page.push_str(&recorder.render());
    page
}

/// The newest delivery of each model.
fn deliveries(ota: &Ota) -> String {
    let shown = ota.shown();
    let mut newest: BTreeMap<&str, &Rollout> = BTreeMap::new();
    for rollout in &shown.rollouts {
        newest.insert(&rollout.model, rollout);
    }
    let sample = |rollout: &&Rollout| {
        let counts = shown.counts.get(&rollout.id).copied().unwrap_or_default();
        OtaSample {
            model: rollout.model.clone(),
            sequence: rollout.sequence,
            status: rollout.status.name(),
            share: if rollout.status == Status::Halted { 0.0 } else { rollout.plan.share(rollout.stage) },
            devices: vec![
                ("known", counts.devices),
                ("reached", counts.reached),
                ("took", counts.took),
                ("voted", counts.voted),
                ("bad", counts.bad),
            ],
        }
    };
    let samples: Vec<OtaSample> = newest.values().map(sample).collect();
    render_ota(&samples, &ota.counted().collect::<Vec<_>>())
}

/// The newest rollout of each model.
fn rollouts(shown: &Shown) -> String {
    let mut newest: BTreeMap<&str, &View> = BTreeMap::new();
    for rollout in &shown.rollouts {
        newest.entry(&rollout.view.model).or_insert(&rollout.view);
    }
    let decisions =
        shown.decisions.iter().map(|((model, decision), count)| (model.as_str(), *decision, *count));
    render_rollouts(&newest.into_values().collect::<Vec<_>>(), &decisions.collect::<Vec<_>>())
}

/// Answers scrapes.
#[derive(Debug)]
pub struct Exporter {
    /// What is served.
    pub state: Arc<State>,
    /// Who may scrape; `None`: anyone who can reach it.
    pub tokens: Option<TokenFile>,
    /// Process-wide counters.
    pub recorder: &'static PrometheusHandle,
    /// The listener's address.
    pub local: SocketAddr,
    /// The name it was configured with.
    pub bind_host: Option<String>,
}

impl Endpoint for Exporter {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.scrape(&request).unwrap_or_else(|refusal| refuse(&refusal))
    }
}

impl Exporter {
    fn scrape(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        let local = guard::Local { address: self.local, bind_host: self.bind_host.as_deref() };
        guard::check(text(header::HOST), text(header::ORIGIN), local)?;
        if let Some(tokens) = &self.tokens {
            tokens.check(text(header::AUTHORIZATION))?;
        }
        let native = match request.uri().path() {
            "/metrics" => false,
            "/metrics/native" => true,
            path => {
                let message = format!("there is no {path:?}; this listener has /metrics and /metrics/native");
                return Err(Refusal::new(Kind::NotFound, message));
            }
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(Refusal::new(
                Kind::MethodNotAllowed,
                format!("{} is not allowed; use GET", request.method()),
            ));
        }
        let mut response = Response::new(Full::from(page(&self.state, self.recorder, native)));
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        Ok(response)
    }
}
