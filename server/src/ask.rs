//! An inference request as all protocols understand it, and the straight line that answers it. The codecs of
//! HTTP and gRPC read into [`Ask`] and write from [`Answer`]. Must not know bytes on any wire.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gannet_models::DType;
use gannet_runtime::{
    InferError, InferRequest, InferResponse, Tensor, Time,
    capture::Chosen,
    clock,
    drift::Sampled,
    route::{Arm, Sticky, StickyKey},
    servable::{Answering, Servable},
    shadow::Watched,
    table::{Routed, TableReader},
    tensor::{Shape, push_byte_element, values},
};
use http::HeaderMap;
use smallvec::SmallVec;

use crate::{
    protocol::Protocol,
    respond::Refusal,
    trace::{Traced, Tracer},
};

/// Parameters that nobody knows and that are kept, because a route may go by one of them; further ones are not.
const OTHER_PARAMETERS_MAX: usize = 64;

/// Where a request goes, and what came beside it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The model.
    pub model: &'a str,
    /// A version or label, if one is named.
    pub version: Option<&'a str>,
    /// Headers, or metadata over gRPC.
    pub headers: &'a HeaderMap,
    /// How it came.
    pub protocol: Protocol,
    /// Who traces some requests.
    pub tracer: Option<&'a Tracer>,
}

/// A parsed request.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Echoed; generated when empty.
    pub id: String,
    /// Name and value, in the request's order.
    pub inputs: Vec<(String, Tensor)>,
    /// Outputs asked for, in the request's order; empty: all.
    pub outputs: Vec<OutputAsk>,
    /// Whole-request parameters.
    pub parameters: Parameters,
    /// Parameters that are none of those.
    pub others: Vec<(Box<str>, Parameter)>,
    /// When the request had arrived whole.
    pub arrived: Time,
    /// The protocol's own deadline, if it has one (gRPC).
    pub deadline: Option<Time>,
}

/// One output asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputAsk {
    /// Its name.
    pub name: String,
    /// Whether it is to be answered as bytes behind the JSON; `None`: as the request says.
    pub binary: Option<bool>,
    /// The best so many classes instead of the values; 0: the values.
    pub classes: usize,
}

/// Parameters of the whole request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// 1 is first; 0: the model's default.
    pub priority: u32,
    /// Time allowed, in microseconds; 0: none stated.
    pub timeout_us: u64,
    /// Outputs as bytes behind the JSON where not said otherwise.
    pub binary_outputs: bool,
}

/// A parameter's value on any wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// A text.
    Text(String),
}

impl Ask {
    /// Takes one parameter of the request in.
    ///
    /// # Errors
    /// As [`Parameters::set`].
    pub fn set_parameter(&mut self, name: &str, value: Parameter) -> Result<(), Refusal> {
        if !self.parameters.set(name, &value)? && self.others.len() < OTHER_PARAMETERS_MAX {
            self.others.push((name.into(), value));
        }
        Ok(())
    }
}

impl Parameters {
    /// The names that [`Parameters::set`] knows.
    pub const NAMES: [&'static str; 4] = ["priority", "timeout", "binary_data_output", "sequence_id"];

    /// Takes one parameter of the request in; false for names that nobody knows, which are left to the model, as the
    /// protocol wants.
    ///
    /// # Errors
    /// When a known name has a value of the wrong type, or belongs to an extension that is not offered.
    pub fn set(&mut self, name: &str, value: &Parameter) -> Result<bool, Refusal> {
        let expected = |what: &str| {
            Err(Refusal::invalid(format!("parameter '{name}' must be {what}, got {}", value.describe())))
        };
        match (name, value) {
            ("priority", value) => match value.as_u64().and_then(|v| u32::try_from(v).ok()) {
                Some(priority) => self.priority = priority,
                None => return expected("a whole number from 0 to 4294967295"),
            },
            ("timeout", value) => match value.as_u64() {
                Some(timeout_us) => self.timeout_us = timeout_us,
                None => return expected("a whole number of microseconds, 0 or more"),
            },
            ("binary_data_output", Parameter::Bool(binary)) => self.binary_outputs = *binary,
            ("binary_data_output", _) => return expected("true or false"),
            ("sequence_id", value) if value.is_set() => {
                return Err(Refusal::invalid(
                    "parameter 'sequence_id': the sequence extension is not offered; send each request on its own",
                ));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Parameter {
    /// Its value as a routing key.
    fn key(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Text(value) => Cow::Borrowed(value.as_bytes()),
            Self::Bool(value) => Cow::Owned(value.to_string().into_bytes()),
            Self::Int(value) => Cow::Owned(value.to_string().into_bytes()),
            Self::Double(value) => Cow::Owned(value.to_string().into_bytes()),
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Neither zero nor empty, which clients send for "not set".
    fn is_set(&self) -> bool {
        !matches!(self, Self::Int(0) | Self::Bool(false)) && *self != Self::Text(String::new())
    }

    fn describe(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Text(value) => format!("{value:?}"),
        }
    }
}

/// The answer, in the order it was asked for.
#[derive(Debug)]
pub struct Answer {
    /// Who computed it.
    pub servable: Arc<Servable>,
    /// The arm that the request was in, if the model has a route and no version was named.
    pub arm: Option<Arm>,
    /// The request's id.
    pub id: String,
    /// The outputs.
    pub outputs: SmallVec<[AnsweredOutput; 2]>,
    /// What the runtime gave, its timing included.
    pub response: InferResponse,
}

/// One output of an answer.
#[derive(Debug)]
pub struct AnsweredOutput {
    /// Index in the signature.
    pub index: usize,
    /// Class texts, when they were asked for instead of the values.
    pub classes: Option<Box<Tensor>>,
    /// Whether it was asked for as bytes behind the JSON.
    pub binary: bool,
}

impl Answer {
    /// The value of one of its outputs: the model's, or class texts.
    #[must_use]
    pub fn tensor<'a>(&'a self, output: &'a AnsweredOutput) -> &'a Tensor {
        output.classes.as_deref().unwrap_or(&self.response.outputs[output.index])
    }
}

/// A request that was taken in, and what of its answer is wanted.
#[derive(Debug)]
pub struct Asked {
    answering: Answering,
    arm: Option<Arm>,
    /// What its shadows are to see.
    watched: Option<Box<Watched>>,
    /// What is looked at for drift, of a few.
    sampled: Option<Box<Sampled>>,
    /// What is captured, of a few.
    chosen: Option<Box<Chosen>>,
    /// What is told of its trace, of a few.
    traced: Option<Box<Traced>>,
    id: String,
    wanted: SmallVec<[Wanted; 2]>,
    rows: usize,
}

/// One output that is wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    index: usize,
    binary: bool,
    classes: usize,
}

/// Takes one request in: route, check, submit. Answering it is [`Asked::answer`].
///
/// # Errors
/// A [`Refusal`] from any of these.
pub fn begin(table: &TableReader, target: Target<'_>, mut ask: Ask) -> Result<Asked, Refusal> {
    let traced =
        target.tracer.and_then(|tracer| tracer.begin((target.headers, target.protocol), ask.arrived));
    let mut taken = take_in(table, target, &mut ask);
    if let Some(traced) = traced {
        match &mut taken {
            Ok(asked) => asked.traced = Some(traced),
            Err(refusal) => (*traced).refused(target.model, &ask.id, refusal),
        }
    }
    taken
}

#[inline]
fn take_in(table: &TableReader, target: Target<'_>, ask: &mut Ask) -> Result<Asked, Refusal> {
    let Target { model, version, headers, .. } = target;
    let routed =
        table.route(model, version, |sticky| routing_key(sticky, headers, &ask.others, &mut ask.id))?;
    let Routed { servable, arm, shadows } = routed;
    let wanted = wanted(&servable, ask)?;
    let checked = servable
        .contract()
        .check(std::mem::take(&mut ask.inputs))
        .inspect_err(|_| servable.refused(ask.arrived))?;
    let timeout_us = ask.parameters.timeout_us;
    let stated = (timeout_us > 0).then(|| ask.arrived + Duration::from_micros(timeout_us));
    let rows = checked.rows;
    let watched = Watched::new(shadows, &checked);
    let sampled = Sampled::new(&servable, &checked);
    let chosen = Chosen::new(&servable, &checked, &mut ask.id, generate_id);
    let submitted = servable.submit(InferRequest {
        inputs: checked.inputs,
        rows,
        priority: ask.parameters.priority,
        deadline: stated.into_iter().chain(ask.deadline).min(),
        arrived: ask.arrived,
    });
    let answering = submitted.inspect_err(|error| {
        if let Some(arm) = &arm {
            arm.ended(&servable, &ask.id, ask.arrived, Err(error));
        }
    })?;
    let id = std::mem::take(&mut ask.id);
    Ok(Asked { answering, arm, watched, sampled, chosen, traced: None, id, wanted, rows })
}

/// What keeps the request's user with a version. A request that has no id and goes by it gets one.
fn routing_key<'a>(
    sticky: &Sticky,
    headers: &'a HeaderMap,
    parameters: &'a [(Box<str>, Parameter)],
    id: &'a mut String,
) -> Result<Cow<'a, [u8]>, InferError> {
    let key = match &sticky.key {
        StickyKey::RequestId => None,
        StickyKey::Header(name) => headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
        StickyKey::Parameter(name) => {
            parameters.iter().find(|(other, _)| **other == **name).map(|(_, value)| value.key())
        }
    };
    match key.filter(|key| !key.is_empty()) {
        Some(key) => Ok(key),
        None if sticky.required => Err(InferError::Invalid(format!(
            "the model's route goes by {sticky}, which the request lacks; send it, name a version, or let the route \
             say \"required\": false"
        ))),
        None => {
            if id.is_empty() {
                *id = generate_id();
            }
            Ok(Cow::Borrowed(id.as_bytes()))
        }
    }
}

impl Asked {
    /// Waits for the answer and picks the outputs.
    ///
    /// # Errors
    /// A [`Refusal`] when the model fails, the deadline passes, or classes of texts are asked for.
    pub async fn answer(mut self) -> Result<Answer, Refusal> {
        let response = (&mut self.answering).await;
        let servable = Arc::clone(self.answering.servable());
        let id = if self.id.is_empty() { generate_id() } else { self.id };
        if let Some(watched) = self.watched {
            (*watched).answered(&servable, &id, &response);
        }
        if let Some(sampled) = self.sampled {
            (*sampled).answered(&servable, &id, &response);
        }
        if let Some(chosen) = self.chosen {
            let arm = self.arm.as_ref().map(Arm::version);
            (*chosen).answered(&servable, (&id, arm), self.answering.arrived(), &response);
        }
        if let Some(traced) = self.traced {
            let arm = self.arm.as_ref().map(Arm::version);
            (*traced).answered(&servable, (&id, self.rows, arm), response.as_ref());
        }
        if let Some(arm) = &self.arm {
            arm.ended(&servable, &id, self.answering.arrived(), response.as_ref());
        }
        let response = response?;
        let pick = |wanted: &Wanted| {
            let &Wanted { index, binary, classes } = wanted;
            let tensor = &response.outputs[index];
            let classes =
                (classes > 0).then(|| classify(&servable, index, tensor, self.rows, classes)).transpose()?;
            Ok(AnsweredOutput { index, classes: classes.map(Box::new), binary })
        };
        let outputs = self.wanted.iter().map(pick).collect::<Result<_, Refusal>>()?;
        Ok(Answer { servable, arm: self.arm, id, outputs, response })
    }
}

/// The outputs to answer: those asked for, or all.
fn wanted(servable: &Servable, ask: &Ask) -> Result<SmallVec<[Wanted; 2]>, Refusal> {
    let specs = &servable.signature.outputs;
    let default = ask.parameters.binary_outputs;
    if ask.outputs.is_empty() {
        return Ok((0..specs.len()).map(|index| Wanted { index, binary: default, classes: 0 }).collect());
    }
    let mut wanted: SmallVec<[Wanted; 2]> = SmallVec::with_capacity(ask.outputs.len());
    for OutputAsk { name, binary, classes } in &ask.outputs {
        let Some(index) = servable.signature.output(name) else {
            let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
            return Err(Refusal::invalid(format!(
                "unexpected inference output '{name}' for model '{}'; it gives: {}",
                servable.model,
                names.join(", ")
            )));
        };
        if wanted.iter().any(|other| other.index == index) {
            return Err(Refusal::invalid(format!(
                "output '{name}' already exists in request; ask for each once"
            )));
        }
        wanted.push(Wanted { index, binary: binary.unwrap_or(default), classes: *classes });
    }
    Ok(wanted)
}

/// The best `classes` of each row as `score:index[:name]` texts, best first: Triton's classification extension.
fn classify(
    servable: &Servable,
    index: usize,
    tensor: &Tensor,
    rows: usize,
    classes: usize,
) -> Result<Tensor, Refusal> {
    let spec = &servable.signature.outputs[index];
    let scores = values(tensor).ok_or_else(|| {
        Refusal::invalid(format!(
            "output '{}' is {}; classification takes a floating-point or integer output",
            spec.name, spec.dtype
        ))
    })?;
    let rows = if servable.signature.batched { rows } else { 1 };
    let width = scores.len().checked_div(rows).unwrap_or(0);
    let count = classes.min(width);
    let mut data = Vec::new();
    for row in scores.chunks(width.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        for &class in order.iter().take(count) {
            let name = spec.labels.as_ref().and_then(|labels| labels.get(class));
            let text = match name {
                Some(name) => format!("{:.6}:{class}:{name}", row[class]),
                None => format!("{:.6}:{class}", row[class]),
            };
            push_byte_element(&mut data, text.as_bytes());
        }
    }
    let shape = if servable.signature.batched {
        Shape::from_slice(&[rows, count])
    } else {
        Shape::from_slice(&[count])
    };
    Ok(Tensor { dtype: DType::Bytes, shape, data: Bytes::from(data) })
}

/// An id for a request that has none: the process' start and a count, so that ids of several servers differ.
fn generate_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = String::with_capacity(24);
    push_hex(&mut id, u64::from(prefix()));
    id.push('-');
    push_hex(&mut id, count);
    id
}

fn push_hex(text: &mut String, value: u64) {
    let digits = (u64::BITS - value.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (value >> (place * 4)) & 0xf;
        text.push(char::from(b"0123456789abcdef"[usize::try_from(digit).unwrap_or(0)]));
    }
}

fn prefix() -> u32 {
    static PREFIX: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *PREFIX.get_or_init(|| {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u64(clock::wall_ms(clock::now()));
        u32::try_from(hasher.finish() >> 32).unwrap_or(0)
    })
}
