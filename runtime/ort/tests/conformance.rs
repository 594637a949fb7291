//! ONNX Runtime keeps the suite that every backend keeps. Alone in its process: a case reads the process' size.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "models/onnx.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod onnx;

use std::sync::Arc;

use gannet_conformance::{Model, Subject, Tensor};
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::backend::Backend;

struct OnnxRuntime(OrtBackend);

impl Subject for OnnxRuntime {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.0)
    }

    fn model(&self, model: &Model) -> Option<Vec<u8>> {
        let value = |tensor: &Tensor| {
            let axis = |&axis: &i64| if axis < 0 { String::new() } else { axis.to_string() };
            let axes: Vec<String> = tensor.axes.iter().map(axis).collect();
            let axes: Vec<&str> = axes.iter().map(String::as_str).collect();
            onnx::value(&tensor.name, &onnx::tensor(onnx::element(tensor.dtype), &axes))
        };
        let (mut nodes, mut weights) = (Vec::new(), vec![onnx::weights("number", &[], &[model.adds as f32])]);
        for (input, output) in model.inputs.iter().zip(&model.outputs) {
            let (input, output) = (input.name.as_str(), output.name.as_str());
            if model.adds == 0 {
                nodes.push(onnx::node("Identity", &[input], &[output], &[]));
            } else if model.refuses.is_none() {
                nodes.push(onnx::node("Add", &[input, "number"], &[output], &[]));
            } else {
                // looked up in a table, so that what is not in it is refused
                let table: Vec<f32> = (0..10).map(|i| (i + model.adds) as f32).collect();
                weights.push(onnx::weights("table", &[10], &table));
                nodes.push(onnx::node("Gather", &["table", input], &["found"], &[]));
                nodes.push(onnx::node("Cast", &["found"], &[output], &[onnx::attribute_int("to", 6)]));
            }
        }
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            (model.inputs.iter().map(value).collect(), model.outputs.iter().map(value).collect());
        Some(onnx::model(&nodes, &weights, &inputs, &outputs))
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

#[test]
fn it_conforms() {
    let backend = OrtBackend::start(&OrtOptions { pool_threads: 2, ..OrtOptions::default() }).unwrap();
    let faults = |faults: String| panic!("{faults}");
    println!("{}", gannet_conformance::run(&OnnxRuntime(backend)).unwrap_or_else(faults));
}
