//! One captured request, as it goes into a table and as it comes back. Must not know files.

use bytes::Bytes;
use smallvec::SmallVec;

/// The values of one input or output: little-endian and row-major, as the runtime has them; texts have a 4-byte length
/// before each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// Lengths of the axes.
    pub shape: SmallVec<[usize; 4]>,
    /// The elements.
    pub data: Bytes,
}

/// Where the time of a request went, in nanoseconds; the parts of a batch are those of the whole batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// From arrival to the start of assembly.
    pub queue_ns: u64,
    /// Gathering the batch.
    pub assemble_ns: u64,
    /// The engine's run.
    pub compute_ns: u64,
    /// Handing the outputs out.
    pub scatter_ns: u64,
    /// From arrival to the answer.
    pub total_ns: u64,
    /// Rows that ran together.
    pub batch_rows: u64,
}

/// A request and its answer, not redacted yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The request's id.
    pub id: String,
    /// When it had arrived, in microseconds since 1970.
    pub time_us: i64,
    /// The version that answered.
    pub version: String,
    /// The version that the request was assigned to, if the model had a route.
    pub arm: Option<String>,
    /// The place of this row among those that this server captured of the model; what was lost leaves a gap.
    pub sequence: u64,
    /// With which probability a request like this one is captured.
    pub probability: f64,
    /// Length of the batch axis.
    pub rows: u64,
    /// Where the time went.
    pub latency: Latency,
    /// In the signature's order.
    pub inputs: SmallVec<[Values; 2]>,
    /// In the signature's order.
    pub outputs: SmallVec<[Values; 2]>,
}

/// A row that was read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    /// The request's id.
    pub id: String,
    /// When it had arrived, in microseconds since 1970.
    pub time_us: i64,
    /// The version that answered.
    pub version: String,
    /// The version that the request was assigned to.
    pub arm: Option<String>,
    /// The server that captured it.
    pub instance: String,
    /// Its place among that server's rows.
    pub sequence: u64,
    /// With which probability it was captured.
    pub probability: f64,
    /// Length of the batch axis.
    pub rows: u64,
    /// Where the time went.
    pub latency: Latency,
    /// By column of the layout; `None` where nothing that could be had back is kept.
    pub values: Vec<Option<Values>>,
}

/// The texts of a tensor of texts, each behind its length.
pub(crate) fn elements(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (element, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(element)
    })
}

/// The elements of a tensor, of `N` bytes each.
pub(crate) fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks::<N>().0.iter().copied()
}
