//! One inference as the runtime sees it: validated, protocol-free. Must not know how it was written on the wire.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{Tensor, Time};

/// Tensors of one request, in the signature's order.
pub type Tensors = SmallVec<[Tensor; 2]>;

/// A request that fits its servable's signature: every input present once, in the signature's order.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// One tensor for each input of the signature.
    pub inputs: Tensors,
    /// Length of the batch axis; 1 for a model without one.
    pub rows: usize,
    /// 1 is first; 0 takes the model's default.
    pub priority: u32,
    /// After this the answer is worthless.
    pub deadline: Option<Time>,
    /// When the request had arrived whole.
    pub arrived: Time,
}

/// The answer: every output of the signature, in its order.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// One tensor for each output of the signature.
    pub outputs: Tensors,
    /// Where the time went.
    pub timing: Timing,
}

/// Where the time of one request went, in nanoseconds. The parts of a batch are those of the whole batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From arrival to the start of assembly.
    pub queue_ns: u64,
    /// Gathering the batch.
    pub assemble_ns: u64,
    /// The backend's run.
    pub compute_ns: u64,
    /// Handing the outputs to the requests.
    pub scatter_ns: u64,
    /// Rows that ran together.
    pub batch_rows: usize,
}

/// A request with its expected answer, for refusing a version that does not give it.
#[derive(Debug, Clone)]
pub struct GoldenCase {
    /// Where it was read from, for messages.
    pub name: Arc<str>,
    /// The request.
    pub request: InferRequest,
    /// (output index, expected tensor)
    pub expected: Vec<(usize, Tensor)>,
    /// Allowed relative difference of floating-point values.
    pub rtol: f64,
    /// Allowed absolute difference of floating-point values.
    pub atol: f64,
}
