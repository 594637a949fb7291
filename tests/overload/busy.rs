//! A server whose one slow model can be kept busy, and requests to it that are not waited for. Must not know what is
//! expected of them.

use std::sync::Arc;

use gannet_runtime::servable::Servable;
use serde_json::json;

use crate::support::{
    grpc::{Client, ModelInferRequest, Tensor},
    http::{Connection, request, statistics},
    repository::Repository,
    server::Server,
    wait,
};

/// Rows of the request that holds the model, which take about 30 ms each and run as one.
const HELD_ROWS: usize = 20;

pub(crate) struct Busy {
    pub(crate) server: Server,
    servable: Arc<Servable>,
    _repository: Repository,
}

impl Busy {
    /// A server with `add_one` and with `slow`, whose requests run one by one, whatever their rows; `settings` are
    /// tables of its `model.toml`.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_with(&format!("max_batch_size = 0\n{settings}"))
    }

    /// The same with these settings alone.
    pub(crate) fn start_with(settings: &str) -> Self {
        let repository = Repository::of(&["slow", "add_one"]);
        repository.set("slow", settings);
        let server = Server::start(repository.path(), |_| {});
        let servable = server.app().state().table().resolve("slow", None).expect("it is ready");
        Self { server, servable, _repository: repository }
    }

    pub(crate) fn grpc(&self) -> Client {
        Client::open(self.server.grpc())
    }

    /// Sends a request for one row of `value` and does not wait for its answer. `parameters` are fields of JSON.
    pub(crate) fn ask(&self, value: f64, parameters: &str) -> Connection {
        self.ask_rows(1, value, parameters)
    }

    pub(crate) fn ask_rows(&self, rows: usize, value: f64, parameters: &str) -> Connection {
        let data = vec![value; rows];
        let inputs = json!([{"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": data}]);
        let body = format!(r#"{{"inputs":{inputs},"parameters":{{{parameters}}}}}"#);
        let mut connection = Connection::open(self.server.http());
        connection.send(&request("POST", "/v2/models/slow/infer", "", body.as_bytes()));
        connection
    }

    /// Sends a long request and waits until the model runs it. The answer's value is 1.
    pub(crate) fn hold(&self) -> Connection {
        let connection = self.ask_rows(HELD_ROWS, 1.0, "");
        wait::until("the model runs", || self.inflight() == 1 && self.waiting() == 0);
        connection
    }

    pub(crate) fn waiting(&self) -> usize {
        self.servable.waiting()
    }

    pub(crate) fn inflight(&self) -> usize {
        self.servable.inflight()
    }

    #[track_caller]
    pub(crate) fn until_waiting(&self, count: usize) {
        wait::until(&format!("{count} requests wait"), || self.waiting() == count);
    }

    /// Nothing is left over.
    #[track_caller]
    pub(crate) fn is_idle(&self) {
        let state = self.server.app().state();
        wait::until("the model is idle", || self.waiting() == 0 && self.inflight() == 0);
        wait::until("no bytes are held", || state.admission.bytes() == 0);
    }

    /// How often the model was run since it was loaded.
    pub(crate) fn runs(&self) -> u64 {
        statistics(self.server.http(), "slow")["execution_count"].as_u64().expect("a count")
    }
}

/// One row of `value`, as a message.
pub(crate) fn message(value: f32) -> ModelInferRequest {
    message_of(1, value)
}

pub(crate) fn message_of(rows: i64, value: f32) -> ModelInferRequest {
    let values: Vec<f32> = (0..rows).map(|_| value).collect();
    ModelInferRequest {
        model_name: "slow".into(),
        inputs: vec![Tensor::typed("x", &[rows, 1], &values)],
        ..ModelInferRequest::default()
    }
}

/// The connection's answer is `value`, in every row.
#[track_caller]
pub(crate) fn answered(mut connection: Connection, value: f64) {
    let (_, values) = connection.read().expect("an answer").output("y");
    assert!(values.iter().all(|got| (got - value).abs() < 1e-3), "expected {value}, got {values:?}");
}
