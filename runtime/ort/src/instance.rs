//! One loaded copy of a model. Must not know the library's C interface.

use std::sync::Arc;

use gannet_models::{DType, Dim, Signature, TensorSpec, settings::Device};
use gannet_runtime::{
    TensorView,
    backend::{BackendError, Instance, OpenOptions, Sink},
    tensor,
};

use crate::{
    bound::BoundRunner,
    environment::Engine,
    native::Runner,
    outlet::{self, OutputKind},
    session,
};

/// Elements of one input that a probe may have: it is a look at the outputs, not work.
const PROBE_ELEMENTS_MAX: usize = 1 << 24;

/// A session and what it takes and gives.
pub(crate) struct OrtInstance {
    runs: Runs,
    signature: Signature,
    kinds: Vec<OutputKind>,
}

/// Where it is run.
enum Runs {
    /// On the processor.
    Here(Runner),
    /// On a device, whose memory outputs stay in until they are handed out.
    There(BoundRunner),
}

impl OrtInstance {
    pub(crate) fn open(engine: &Engine, options: &OpenOptions<'_>) -> Result<Self, BackendError> {
        let fault = |what: String| BackendError::Model(format!("{}: {what}", options.model_path.display()));
        let runner = Runner::new(session::open(engine, options)?).map_err(|e| fault(e.to_string()))?;
        let (signature, kinds) = describe(&runner).map_err(fault)?;
        let runs = match options.device {
            Device::Cpu => Runs::Here(runner),
            Device::Cuda(index) => {
                let memory = session::memory_of(index)?;
                Runs::There(BoundRunner::new(runner.into_session(), &kinds, memory).map_err(fault)?)
            }
        };
        let mut instance = Self { runs, signature, kinds };
        instance.learn_classes();
        Ok(instance)
    }

    /// Runs once on zeros to see the classes of outputs that are maps. A model that refuses zeros keeps its
    /// columns unnamed.
    fn learn_classes(&mut self) {
        let is_map = |kind: &OutputKind| matches!(kind, OutputKind::Classes { .. });
        if !self.kinds.iter().any(is_map) {
            return;
        }
        let Some(zeros) = self.signature.inputs.iter().map(zeros).collect::<Option<Vec<_>>>() else { return };
        let views: Vec<TensorView<'_>> =
            zeros.iter().map(|(dtype, shape, data)| TensorView { dtype: *dtype, shape, data }).collect();
        let Runs::Here(runner) = &mut self.runs else { return };
        if let Err(error) = runner.run(&views, &self.kinds, &mut |_, _| {}) {
            tracing::debug!(%error, "the model refused the probe for its classes");
        }
        for (index, spec) in self.signature.outputs.iter_mut().enumerate() {
            if is_map(&self.kinds[index])
                && let Some(classes) = runner.classes(index)
            {
                spec.shape[1] = Dim::Fixed(classes.len());
                spec.labels = Some(Arc::from(classes));
            }
        }
    }
}

impl Instance for OrtInstance {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[TensorView<'_>], sink: &mut Sink<'_>) -> Result<(), BackendError> {
        for (spec, view) in self.signature.inputs.iter().zip(inputs) {
            if spec.dtype != view.dtype {
                return Err(BackendError::Input(format!(
                    "input '{}' has the type {}, expected {}",
                    spec.name, view.dtype, spec.dtype
                )));
            }
        }
        match &mut self.runs {
            Runs::Here(runner) => runner.run(inputs, &self.kinds, sink),
            Runs::There(runner) => runner.run(inputs, sink),
        }
    }
}

fn describe(runner: &Runner) -> Result<(Signature, Vec<OutputKind>), String> {
    let session = runner.session();
    let inputs = session.inputs().iter().map(outlet::input).collect::<Result<Vec<_>, _>>()?;
    let batch = inputs.first().and_then(|spec| spec.shape.first());
    let mut outputs = Vec::new();
    let mut kinds = Vec::new();
    for (index, outlet) in session.outputs().iter().enumerate() {
        if runner.is_sparse_output(index).map_err(|e| e.to_string())? {
            return Err(outlet::sparse(outlet.name()));
        }
        let (spec, kind) = outlet::output(outlet, batch)?;
        outputs.push(spec);
        kinds.push(kind);
    }
    Ok((Signature { inputs, outputs, batched: false }, kinds))
}

/// A tensor of zeros or empty texts that fits the input, one element along variable axes.
fn zeros(spec: &TensorSpec) -> Option<(DType, Vec<usize>, Vec<u8>)> {
    let length = |dim: &Dim| match dim {
        Dim::Fixed(length) => *length,
        Dim::Dynamic(_) => 1,
    };
    let shape: Vec<usize> = spec.shape.iter().map(length).collect();
    let elements = tensor::elements(&shape).filter(|&elements| elements <= PROBE_ELEMENTS_MAX)?;
    // An empty byte string is its length alone: four zeros.
    Some((spec.dtype, shape, vec![0; elements * spec.dtype.size_bytes().unwrap_or(4)]))
}
