//! Outputs that the library is given instead of making them anew: 0.3 us less a run. Used for a run whose inputs
//! have the shapes of the two before it, if those made small outputs. The library checks that an output given to it
//! has the shape that it computes; a model whose output shapes depend on values then loses this for good. It does
//! *not* write an output that is an input passed through, so a model's first such run is compared with a plain one.
//! Must not know what is in the outputs.

use gannet_models::DType;
use gannet_runtime::{TensorView, tensor};
use ort::{sys, value::ValueType};

use super::{
    check,
    value::{Value, default_allocator, element},
};
use crate::{outlet::OutputKind, refusal::Refusal};

/// Outputs beyond this together are not kept: what is saved is fixed, and the memory stays taken.
const BYTES_MAX: usize = 64 * 1024;

/// What kept outputs hold before they are trusted: values that no model leaves by chance.
const UNWRITTEN: u8 = 0xa5;

/// Room made for a shape at the start.
const RANK_EXPECTED: usize = 8;

/// Values for all outputs of runs with one set of input shapes.
pub(super) struct KeptOutputs {
    state: State,
    /// Whether a run was seen to write them all.
    trusted: bool,
    values: Vec<Value>,
    /// The pointers of `values`, as a run takes them.
    pointers: Vec<*mut sys::OrtValue>,
    /// Rank and lengths of each input of the latest run.
    shapes: Vec<usize>,
    bytes: usize,
    /// How many outputs the model has.
    outputs: usize,
    /// A shape on its way to the library.
    lengths: Vec<i64>,
}

/// Idle -> Repeated -> Filled, back to Idle with other shapes or after an error; Forbidden is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The latest run had other shapes than the one before, or its outputs are too large.
    Idle,
    /// The coming run repeats the shapes of the latest: its outputs are worth keeping.
    Repeated,
    /// `values` fit these shapes.
    Filled,
    /// An output's shape depends on more than the inputs' shapes.
    Forbidden,
}

impl KeptOutputs {
    /// Outputs whose axes vary beyond the first depend on more than the number of rows, most likely.
    pub(super) fn new<'a>(outputs: impl ExactSizeIterator<Item = &'a ValueType>) -> Self {
        let count = outputs.len();
        let mut steady = outputs.map(|kind| match kind {
            ValueType::Tensor { shape, .. } => shape.iter().skip(1).all(|&length| length >= 0),
            _ => false,
        });
        Self {
            state: if steady.all(|steady| steady) { State::Idle } else { State::Forbidden },
            trusted: false,
            values: Vec::with_capacity(count),
            pointers: Vec::with_capacity(count),
            shapes: Vec::new(),
            bytes: 0,
            outputs: count,
            lengths: Vec::with_capacity(RANK_EXPECTED),
        }
    }

    /// Takes note of the coming run's shapes. The outputs to run with, if they are kept.
    pub(super) fn announce(&mut self, views: &[TensorView<'_>]) -> Option<&mut [*mut sys::OrtValue]> {
        if self.state == State::Forbidden {
            return None;
        }
        let same = {
            let mut kept = self.shapes.iter();
            let mut given = views
                .iter()
                .flat_map(|view| std::iter::once(view.shape.len()).chain(view.shape.iter().copied()));
            given.by_ref().all(|length| kept.next() == Some(&length)) && kept.next().is_none()
        };
        match (same, self.state) {
            (true, State::Filled) => return Some(&mut self.pointers),
            (true, _) => {
                // A run whose outputs could not be delivered may have left some behind.
                self.clear();
                self.state = State::Repeated;
            }
            (false, _) => {
                self.clear();
                self.shapes.clear();
                for view in views {
                    self.shapes.push(view.shape.len());
                    self.shapes.extend_from_slice(view.shape);
                }
            }
        }
        None
    }

    pub(super) fn trusted(&self) -> bool {
        self.trusted
    }

    /// A run with these outputs did what one without them does.
    pub(super) fn trust(&mut self) {
        self.trusted = true;
    }

    /// The values of the run just made with what `announce` returned.
    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    /// The run with kept outputs failed.
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.pointers.clear();
        self.bytes = 0;
        if self.state != State::Forbidden {
            self.state = State::Idle;
        }
    }

    /// The same run without kept outputs succeeded or gave other values: never again.
    pub(super) fn forbid(&mut self) {
        self.clear();
        self.state = State::Forbidden;
    }

    /// The next output of the run just made, in order. Once all have come, they are kept.
    pub(super) fn offer(&mut self, api: &'static sys::OrtApi, kind: OutputKind, shape: &[usize]) {
        if self.state != State::Repeated {
            return;
        }
        let OutputKind::Tensor(dtype) = kind else { return self.forbid() };
        let Some(bytes) = tensor::size_bytes(dtype, shape) else { return self.forbid() };
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES_MAX || bytes == 0 {
            return self.clear();
        }
        let Ok(value) = self.make(api, dtype, shape) else { return self.forbid() };
        // SAFETY: just made for this shape, and not given to anybody yet.
        if !self.trusted && unsafe { value.fill(bytes, UNWRITTEN) }.is_err() {
            return self.forbid();
        }
        self.pointers.push(value.pointer());
        self.values.push(value);
        if self.values.len() == self.outputs {
            self.state = State::Filled;
        }
    }

    /// A tensor of numbers in the library's own memory, its content undefined.
    fn make(&mut self, api: &'static sys::OrtApi, dtype: DType, shape: &[usize]) -> Result<Value, Refusal> {
        self.lengths.clear();
        self.lengths.extend(shape.iter().map(|&length| i64::try_from(length).unwrap_or(i64::MAX)));
        let allocator = default_allocator(api)?;
        let mut pointer = std::ptr::null_mut();
        // SAFETY: the shape is alive during the call; the new value is owned by the caller.
        let status = unsafe {
            (api.CreateTensorAsOrtValue)(
                allocator,
                self.lengths.as_ptr(),
                self.lengths.len(),
                element(dtype),
                &mut pointer,
            )
        };
        check(api, status)?;
        Value::take(api, &mut pointer)
            .ok_or_else(|| Refusal { code: 0, message: "no output value was made".to_owned() })
    }
}
