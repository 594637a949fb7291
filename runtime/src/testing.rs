//! A backend without an engine, for tests of batching, swaps and the server: a model is a text file that says how
//! it behaves, and its answer is its input plus a number, so that an answer tells which version computed it.
//! Must not be compiled into the product.

mod behaviour;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use gannet_models::{Artifact, DType, Signature, settings::Device};

pub use self::behaviour::Behaviour;
use crate::{
    TensorView,
    backend::{Backend, BackendError, Instance, OpenOptions, Sink},
    clock,
    control::loader::Qualify,
    request::GoldenCase,
    servable::lock,
    tensor::{Shape, size_bytes},
};

/// How long a run works that is asked to.
const SPIN_US: u64 = 20_000;
/// How long a run waits that is asked to.
const HANG: std::time::Duration = std::time::Duration::from_secs(3);

/// The backend. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct FakeBackend(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    live: AtomicUsize,
    opened: AtomicU64,
    runs: AtomicU64,
    released: AtomicU64,
    /// By name of the thread.
    dropped_on: Mutex<BTreeMap<String, u64>>,
}

impl FakeBackend {
    /// The name of the model file.
    pub const MODEL_FILE: &str = "model.fake";

    /// Instances that exist now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.live.load(Ordering::SeqCst)
    }

    /// Instances that were ever opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.0.opened.load(Ordering::SeqCst)
    }

    /// Runs of all instances, those of warm-up included.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// Times the runtime asked to give memory back.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.0.released.load(Ordering::SeqCst)
    }

    /// Instances destroyed, by the name of the thread that did it.
    #[must_use]
    pub fn dropped_on(&self) -> BTreeMap<String, u64> {
        lock(&self.0.dropped_on).clone()
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn platform(&self) -> &'static str {
        "fake_text"
    }

    fn model_files(&self) -> &'static [&'static str] {
        &[Self::MODEL_FILE]
    }

    fn open(&self, options: &OpenOptions<'_>) -> Result<Box<dyn Instance>, BackendError> {
        if let Device::Cuda(index) = options.device {
            let why = format!("CUDA device {index} cannot be used: this backend has none");
            return Err(BackendError::Unavailable(why));
        }
        let behaviour = read(options.model_path)?;
        busy(behaviour.open_us);
        if behaviour.fail_open {
            return Err(BackendError::Model("the model asks to be refused: fail_open = true".into()));
        }
        self.0.live.fetch_add(1, Ordering::SeqCst);
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        let signature = behaviour.signature.clone();
        Ok(Box::new(FakeInstance { counts: Arc::clone(&self.0), signature, behaviour, runs: 0 }))
    }

    fn release_memory(&self) {
        self.0.released.fetch_add(1, Ordering::SeqCst);
    }
}

fn read(path: &Path) -> Result<Behaviour, BackendError> {
    let fault = |why: String| BackendError::Model(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    Behaviour::parse(&text).map_err(fault)
}

/// Keeps the thread for that long, as an engine does.
fn busy(us: u64) {
    let until = clock::now().plus_ns(us * 1000);
    while us > 0 && clock::now() < until {
        std::hint::spin_loop();
    }
}

/// No artifact has golden requests.
#[derive(Debug, Clone, Copy)]
pub struct NoGolden;

impl Qualify for NoGolden {
    fn golden_cases(&self, _: &Artifact, _: &str, _: &Signature) -> Result<Vec<GoldenCase>, String> {
        Ok(Vec::new())
    }
}

struct FakeInstance {
    counts: Arc<Counts>,
    signature: Signature,
    behaviour: Behaviour,
    runs: u64,
}

impl Instance for FakeInstance {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[TensorView<'_>], sink: &mut Sink<'_>) -> Result<(), BackendError> {
        fits(&self.signature, inputs)?;
        self.runs += 1;
        self.counts.runs.fetch_add(1, Ordering::SeqCst);
        let behaviour = &self.behaviour;
        let rows = inputs[0].shape.first().copied().unwrap_or(1) as u64;
        busy(behaviour.cost_us + behaviour.row_cost_us * rows);
        let every = |n: u64| n > 0 && self.runs.is_multiple_of(n);
        let holds = |value: Option<f64>| value.is_some_and(|v| elements_of(&inputs[0]).contains(&v));
        if holds(behaviour.spin_value) {
            busy(SPIN_US);
        }
        if holds(behaviour.hang_value) {
            let _ = crossbeam::channel::after(HANG).recv();
        }
        assert!(
            !every(behaviour.panic_every) && !holds(behaviour.panic_value),
            "the model asks for a panic at run {}",
            self.runs
        );
        if holds(behaviour.refuse_value) {
            return Err(BackendError::Input("the model asks to refuse this value".to_owned()));
        }
        if every(behaviour.fail_every) || holds(behaviour.fail_value) {
            return Err(BackendError::Execution(format!("the model asks to fail at run {}", self.runs)));
        }
        for index in 0..self.signature.outputs.len() {
            let input = &inputs[index.min(inputs.len() - 1)];
            let data = add(input, behaviour.add);
            let mut shape = Shape::from_slice(input.shape);
            if behaviour.wrong_rows && !shape.is_empty() {
                shape[0] += 1;
            }
            if holds(behaviour.wrong_rank_value) {
                shape.truncate(1);
            }
            sink(index, TensorView { dtype: input.dtype, shape: &shape, data: &data });
        }
        Ok(())
    }
}

impl Drop for FakeInstance {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
        *lock(&self.counts.dropped_on).entry(name).or_default() += 1;
        self.counts.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether these are inputs for the signature.
fn fits(signature: &Signature, inputs: &[TensorView<'_>]) -> Result<(), BackendError> {
    if inputs.len() != signature.inputs.len() {
        return Err(BackendError::Execution(format!("{} inputs were given", inputs.len())));
    }
    for (spec, view) in signature.inputs.iter().zip(inputs) {
        let bytes = size_bytes(view.dtype, view.shape).unwrap_or(view.data.len());
        if spec.dtype != view.dtype || bytes != view.data.len() {
            return Err(BackendError::Input(format!("input '{}' is no tensor of {}", spec.name, spec.dtype)));
        }
    }
    Ok(())
}

/// The elements of a number type that [`Behaviour`] allows.
fn elements_of(view: &TensorView<'_>) -> Vec<f64> {
    match view.dtype {
        DType::Fp32 => view.data.as_chunks().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect(),
        DType::Int32 => view.data.as_chunks().0.iter().map(|c| f64::from(i32::from_le_bytes(*c))).collect(),
        _ => view.data.as_chunks().0.iter().map(|c| f64::from_le_bytes(*c)).collect(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
fn add(view: &TensorView<'_>, number: f64) -> Vec<u8> {
    if number == 0.0 {
        return view.data.to_vec();
    }
    let values = elements_of(view).into_iter().map(|value| value + number);
    match view.dtype {
        DType::Fp32 => values.flat_map(|v| (v as f32).to_le_bytes()).collect(),
        DType::Int32 => values.flat_map(|v| (v as i32).to_le_bytes()).collect(),
        _ => values.flat_map(f64::to_le_bytes).collect(),
    }
}
