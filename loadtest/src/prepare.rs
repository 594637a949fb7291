//! From a plan to a target: asks the server for the signature when values are needed, and builds
//! every request before the run.
//!
//! Must not know about time or measurement.

use crate::control::{ControlError, Server, model_path};
use crate::data::{self, Column, csv, npy};
use crate::engine::Target;
use crate::grpc;
use crate::http;
use crate::http2::call::CallHead;
use crate::link::Calls;
use crate::payload::{self, Body, RequestFacts, Wire};
use crate::plan::{DataFile, LoadPlan, Plan, RequestPlan, Side, Source};
use crate::random::Random;
use crate::signature::Signature;
use crate::tensor::Tensor;

/// All prebuilt requests together; more would be memory for no insight.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Connections of an open loop that states none.
const OPEN_CONNECTIONS_HTTP: usize = 256;
/// Connections of a gRPC run that states none.
const CONNECTIONS_GRPC: usize = 8;
/// Streams on a connection of an open loop that states none.
const OPEN_STREAMS: usize = 128;

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    Requests(String),
}

/// Connections of a run and requests on each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub connections: usize,
    pub depth: usize,
}

impl Shape {
    /// What the plan says, completed with defaults that suit wire and load.
    pub(crate) fn new(plan: &Plan, wire: Wire) -> Self {
        let grpc = wire == Wire::Grpc;
        let (connections, depth) = match (&plan.load, plan.connections, plan.pipeline) {
            (_, Some(connections), Some(depth)) => (connections, depth),
            (LoadPlan::Closed { in_flight }, None, depth) => {
                let connections = match depth {
                    Some(depth) => in_flight.div_ceil(depth),
                    None if grpc => (*in_flight).min(CONNECTIONS_GRPC),
                    None => *in_flight,
                };
                (connections, depth.unwrap_or(if grpc { in_flight.div_ceil(connections) } else { 1 }))
            }
            (LoadPlan::Closed { in_flight }, Some(connections), None) => {
                // Stated connections carry all of it: over HTTP by pipelining only on request.
                (connections, if grpc { in_flight.div_ceil(connections) } else { 1 })
            }
            (LoadPlan::Open { .. }, connections, depth) => {
                let default = if grpc { CONNECTIONS_GRPC } else { OPEN_CONNECTIONS_HTTP };
                let streams = if grpc { OPEN_STREAMS } else { 1 };
                (connections.unwrap_or(default), depth.unwrap_or(streams))
            }
        };
        Self { connections, depth }
    }
}

/// The server of a side, for questions.
pub(crate) fn server(side: &Side, requests: &RequestPlan) -> Server {
    Server { url: side.url.clone(), address: side.address, headers: requests.headers.clone() }
}

/// Builds the target of one side.
pub(crate) fn target(plan: &Plan, side: &Side) -> Result<Target, PrepareError> {
    let requests = &plan.requests;
    let facts = RequestFacts {
        model: side.model.clone(),
        version: requests.version.clone(),
        timeout_us: requests.timeout_us,
    };
    let bodies = match &requests.source {
        Source::Bodies(files) => from_files(side.wire, &facts, requests, files)?,
        source => {
            let server = server(side, requests);
            let signature = server.signature(&side.model, &requests.version)?;
            let tensors = tensors(source, &signature, requests, plan.seed).map_err(PrepareError::Requests)?;
            let bodies = tensors.iter().map(|t| payload::encode(side.wire, &facts, t));
            bodies.collect::<Result<_, _>>().map_err(PrepareError::Requests)?
        }
    };
    let total: usize = bodies.iter().map(|body: &Body| body.bytes.len()).sum();
    if total > PAYLOAD_BYTES_MAX {
        return Err(PrepareError::Requests(format!(
            "requests: expected {PAYLOAD_BYTES_MAX} bytes together at most, got {total}; use fewer \
             --variants, a smaller data set or fewer --rows"
        )));
    }
    let shape = Shape::new(plan, side.wire);
    Ok(Target {
        address: side.address,
        order: (0..bodies.len() as u32).collect(),
        calls: calls(side, requests, &bodies, shape.depth),
    })
}

fn calls(side: &Side, requests: &RequestPlan, bodies: &[Body], depth: usize) -> Calls {
    if side.wire == Wire::Grpc {
        let path = format!("{}ModelInfer", grpc::SERVICE);
        let path = requests.path.as_deref().unwrap_or(&path);
        return Calls::Grpc {
            head: CallHead::new(&side.url.authority, path, &requests.headers),
            messages: bodies.iter().map(|body| grpc::frame(&body.bytes)).collect(),
            streams: depth,
        };
    }
    let path = match &requests.path {
        Some(path) => path.clone(),
        None => format!("{}/infer", model_path(&side.model, &requests.version)),
    };
    let request = |body: &Body| {
        let mut headers = requests.headers.clone();
        let stated = |name: &str| requests.headers.iter().any(|(known, _)| known == name);
        let json_bytes = body.json_bytes.or(requests.json_bytes);
        if let Some(json_bytes) = json_bytes {
            headers.push(("inference-header-content-length".into(), json_bytes.to_string()));
        }
        if !stated("content-type") {
            let content_type = match json_bytes {
                Some(_) => "application/octet-stream",
                None => "application/json",
            };
            headers.push(("content-type".into(), content_type.into()));
        }
        let head =
            http::RequestHead { method: "POST", path: &path, host: &side.url.authority, headers: &headers };
        http::request(&head, &body.bytes)
    };
    Calls::Http { requests: bodies.iter().map(request).collect(), depth }
}

fn from_files(
    wire: Wire,
    facts: &RequestFacts,
    requests: &RequestPlan,
    files: &[(String, Vec<u8>)],
) -> Result<Vec<Body>, PrepareError> {
    let body = |(name, bytes): &(String, Vec<u8>)| {
        if requests.json_bytes.is_some() || requests.path.is_some() {
            return Ok(Body { bytes: bytes.clone(), json_bytes: requests.json_bytes });
        }
        payload::from_file(wire, facts, bytes.clone())
            .map_err(|fault| PrepareError::Requests(format!("--body {name}: {fault}")))
    };
    files.iter().map(body).collect()
}

fn tensors(
    source: &Source,
    signature: &Signature,
    requests: &RequestPlan,
    seed: u64,
) -> Result<Vec<Vec<Tensor>>, String> {
    let rows = requests.rows;
    match source {
        Source::Random { variants } => {
            let shapes = signature.shapes(rows, &requests.shapes)?;
            let mut random = Random::new(seed);
            let mut request = |_| {
                let inputs = signature.inputs.iter().zip(&shapes);
                inputs
                    .map(|(input, shape)| Tensor::random(&input.name, input.datatype, shape, &mut random))
                    .collect()
            };
            Ok((0..*variants).map(&mut request).collect())
        }
        Source::Data { files, shuffled } => {
            let columns = columns(files, signature, requests)?;
            data::requests(&columns, rows, shuffled.then_some(seed))
        }
        Source::Bodies(_) => Ok(Vec::new()),
    }
}

fn columns(files: &[DataFile], signature: &Signature, requests: &RequestPlan) -> Result<Vec<Column>, String> {
    let mut columns = Vec::new();
    for file in files {
        let named = |fault: String| format!("--data {}: {fault}", file.name());
        match file {
            DataFile::Csv { text, .. } => {
                let shapes = signature.shapes(requests.rows, &requests.shapes)?;
                let row_shapes: Vec<Vec<usize>> = signature
                    .inputs
                    .iter()
                    .zip(shapes)
                    .map(|(input, shape)| shape[usize::from(signature.batched(input))..].to_vec())
                    .collect();
                columns = csv::parse(text, &signature.inputs, &row_shapes).map_err(named)?;
            }
            DataFile::Npy { bytes, .. } => {
                let input = file.input_of(&signature.inputs).map_err(named)?;
                columns.push(npy::parse(bytes, input).map_err(named)?);
            }
        }
    }
    if let Some(input) =
        signature.inputs.iter().find(|input| !columns.iter().any(|column| column.input.name == input.name))
    {
        return Err(format!(
            "--data: expected values for every input, got none for {}; add --data {}=FILE.npy",
            input.name, input.name
        ));
    }
    let unbatched = columns.iter().find(|column| !signature.batched(&column.input));
    if let (Some(column), true) = (unbatched, requests.rows > 1) {
        return Err(format!(
            "--rows {}: input {} has no batch dimension; leave --rows out",
            requests.rows, column.input.name
        ));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::CommandLine;
    use clap::Parser as _;

    fn check(line: &str, connections: usize, depth: usize) {
        let words = ["gannet-loadtest", "-m", "x"].into_iter().chain(line.split_whitespace());
        let plan = Plan::new(&CommandLine::try_parse_from(words).unwrap().flags).unwrap();
        let shape = Shape::new(&plan, plan.sides[0].wire);
        assert_eq!(shape, Shape { connections, depth }, "{line}");
    }

    #[test]
    fn connections_and_depth() {
        check("", 1, 1);
        check("-n 64", 64, 1);
        check("-n 64 --pipeline 16", 4, 16);
        check("-n 8 -c 8", 8, 1);
        check("-n 64 -c 8 --pipeline 8", 8, 8);
        check("--rate 10", 256, 1);
        check("--rate 10 -c 4", 4, 1);
        check("-n 64 --url grpc://127.0.0.1:1", 8, 8);
        check("-n 4 --url grpc://127.0.0.1:1", 4, 1);
        check("-n 64 -c 2 --url grpc://127.0.0.1:1", 2, 32);
        check("--rate 10 --url grpc://127.0.0.1:1", 8, 128);
    }
}
