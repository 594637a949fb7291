//! Requests as spans, and spans as bytes: OTLP 1.x, of which this is as much as is sent. One span a request, and one within
//! it for each of its parts. Must not know how bytes are sent.

use gannet_runtime::{Time, clock};
use gannet_stats::random::Random;
use prost::Message;

use super::{
    context::{own_number, random},
    record::{Outcome, Record},
};
use crate::state::SERVER_VERSION;

const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes, tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes, tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes, tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::Text(value.into())) });
    KeyValue { key: key.to_owned(), value }
}

fn number(key: &str, value: usize) -> KeyValue {
    let value = Value::Number(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// Who sends: the service's name, and this server's.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) service: String,
    pub(super) server: String,
}

/// These requests as the body of one call, and how many spans they are.
pub(super) fn encode(records: Vec<Record>, sender: &Sender) -> (Vec<u8>, usize) {
    let spans: Vec<Span> = records.into_iter().flat_map(spans).collect();
    let count = spans.len();
    let attributes = vec![
        text("service.name", &sender.service),
        text("service.version", SERVER_VERSION),
        text("service.instance.id", &sender.server),
    ];
    let scope = Scope { name: "gannet".to_owned(), version: SERVER_VERSION.to_owned() };
    let spans = ResourceSpans {
        resource: Some(Resource { attributes }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
    };
    (ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec(), count)
}

/// A request as a span, and its parts as spans within.
fn spans(record: Record) -> Vec<Span> {
    let Record { context, span, protocol, model, id, arrived, ended, outcome } = record;
    let mut whole = Span {
        trace_id: context.trace.to_vec(),
        span_id: span.to_vec(),
        trace_state: context.state,
        parent_span_id: context.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: format!("infer {model}"),
        kind: SERVER,
        start_time_unix_nano: clock::wall_ns(arrived),
        end_time_unix_nano: clock::wall_ns(ended),
        attributes: vec![
            text("gannet.model", model),
            text("gannet.request.id", id),
            text("network.protocol.name", protocol.name()),
        ],
        status: None,
    };
    let mut parts = Vec::new();
    match outcome {
        Outcome::Answered { version, arm, rows, timing } => {
            whole.attributes.extend([
                text("gannet.version", version.as_str()),
                number("gannet.rows", rows),
                number("gannet.batch.rows", timing.batch_rows),
            ]);
            whole.attributes.extend(arm.map(|arm| text("gannet.arm", arm.as_str())));
            let mut from = arrived;
            for (name, ns) in [
                ("queue", timing.queue_ns),
                ("assemble", timing.assemble_ns),
                ("compute", timing.compute_ns),
                ("scatter", timing.scatter_ns),
            ] {
                // a clock is read between any two parts: they follow each other, and none ends after the whole
                let to = from.plus_ns(ns).min(ended);
                parts.push(part(&whole, name, from, to));
                from = to;
            }
        }
        Outcome::Failed { version, kind, message } => {
            whole.attributes.extend(version.map(|version| text("gannet.version", version.as_str())));
            whole.attributes.push(text("error.type", kind));
            whole.status = Some(Status { message, code: ERROR });
        }
    }
    parts.insert(0, whole);
    parts
}

fn part(whole: &Span, name: &str, from: Time, to: Time) -> Span {
    Span {
        trace_id: whole.trace_id.clone(),
        span_id: random(|random: &mut Random| own_number(random)).to_vec(),
        trace_state: whole.trace_state.clone(),
        parent_span_id: whole.span_id.clone(),
        name: name.to_owned(),
        kind: INTERNAL,
        start_time_unix_nano: clock::wall_ns(from),
        end_time_unix_nano: clock::wall_ns(to),
        ..Span::default()
    }
}
