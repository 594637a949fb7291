//! `gannet edge inspect`: what a file holds. Must not change anything.

use std::fs;

use serde_json::json;

use super::{
    InspectArgs,
    print::{say, table},
};
use crate::{
    arena::{Target, arena},
    compile::graph_of,
    error::{EdgeError, Result},
    lite::{self, Model, Tensor, schema},
    passes,
};

pub(super) fn run(args: &InspectArgs) -> Result<()> {
    let path = if args.path.is_dir() { args.path.join("model.tflite") } else { args.path.clone() };
    let bytes = fs::read(&path).map_err(EdgeError::io(&path, "read"))?;
    let (model, kind) = if bytes.get(4..8) == Some(schema::IDENTIFIER.as_slice()) {
        (lite::read(&bytes)?, "TFLite")
    } else {
        let graph = passes::optimise(graph_of(&bytes)?, 1).graph;
        (Model::of_graph(&graph)?, "ONNX, as it would be compiled in floats")
    };
    let (host, device) = (arena(&model, Target::Host64), arena(&model, Target::CortexM));
    if args.json {
        let node = |node: &lite::Node| {
            let shape = |id: &usize| model.tensors[*id].shape.clone();
            json!({ "name": node.name, "operator": node.op.name(), "flash_bytes": flash(&model, node),
                "outputs": node.outputs.iter().map(shape).collect::<Vec<_>>() })
        };
        let nodes: Vec<_> = model.nodes.iter().map(node).collect();
        let report = json!({ "bytes": bytes.len(), "kind": kind, "nodes": nodes, "host64": host, "cortex_m": device,
            "planned": model.offline_plan.is_some() });
        say(format_args!("{report:#}"));
        return Ok(());
    }
    let port = |tensor: &Tensor| {
        let (scale, zero) = tensor.scale();
        let codes = if scale > 0.0 { format!(", value = {scale} x (code - {zero})") } else { String::new() };
        format!("'{}' {:?} {}{codes}", tensor.name, tensor.shape, tensor.kind.name())
    };
    say(format_args!("{}: {kind}, {} bytes, {} operators", path.display(), bytes.len(), model.nodes.len()));
    model.inputs.iter().for_each(|id| say(format_args!("in   {}", port(&model.tensors[*id]))));
    model.outputs.iter().for_each(|id| say(format_args!("out  {}", port(&model.tensors[*id]))));
    let mut rows = vec![["layer", "operator", "output", "flash"].map(str::to_owned).to_vec()];
    for node in &model.nodes {
        let output =
            node.outputs.first().map_or_else(String::new, |id| format!("{:?}", model.tensors[*id].shape));
        rows.push(vec![node.name.clone(), node.op.name(), output, flash(&model, node).to_string()]);
    }
    say(table(&rows));
    let unknown = model.nodes.iter().any(|node| matches!(node.op, crate::graph::Op::Other(_)));
    let note = if unknown { " (operators that are not known here keep more)" } else { "" };
    let planned =
        if model.offline_plan.is_some() { "with a plan in the file" } else { "planned by the device" };
    say(format_args!(
        "arena: {} bytes on a Cortex-M with CMSIS-NN, {} on a 64-bit host, {planned}{note}",
        device.required, host.required
    ));
    Ok(())
}

/// Bytes of a node's constants.
fn flash(model: &Model, node: &lite::Node) -> usize {
    node.inputs.iter().flatten().map(|id| model.tensors[*id].data.len()).sum()
}
