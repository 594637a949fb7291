//! What people log to MLflow as TorchScript is served from there, with the signature that MLflow keeps. Must not know how
//! it is fetched.

use gannet_server::config::SourceConfig;
use serde_json::{Value, json};

use crate::support::{
    call,
    mlflow::Mlflow,
    registries::{follow, ready, source},
    server::command,
};

#[test]
fn torch_script_of_mlflow_is_served() {
    let mlflow = Mlflow::start(false);
    let scripted: SourceConfig = source("scripted", &format!("mlflow+{}/scripted@champion", mlflow.base()));
    let server = follow(vec![scripted], |config| {
        config.runtime.loader_nice = 0;
        config.repository.rehearsal_program = Some(command().get_program().into());
        config.repository.allow_torchscript = true;
    });
    ready(&server, "scripted", "1");
    let metadata = call::get(server.http(), "/v2/models/scripted").ok();
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 4]), "{metadata}");
    let input = &metadata["inputs"][0]["name"];
    let body = json!({ "inputs": [
        { "name": input, "shape": [2, 4], "datatype": "FP32", "data": mlflow.told["iris"][0]["input"] },
    ] });
    let answer = call::post(server.http(), "/v2/models/scripted/infer", &body).ok();
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let (got, wanted) = (numbers(&answer["outputs"][0]["data"]), numbers(&mlflow.told["scores"]));
    assert_eq!(got.len(), wanted.len());
    assert!(got.iter().zip(&wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-5), "{got:?} {wanted:?}");
}
