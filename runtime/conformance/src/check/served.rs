//! Many requests at once through a servable: batching, splitting, and callers that leave. Must not know the engine.

use std::sync::Arc;

use bytes::Bytes;
use gannet_models::{
    Artifact, DType, IngestLimits, ModelName, ModelSettings, Signature, Store, Version, VersionLocation,
    settings::Batching,
};
use gannet_runtime::{
    InferError, InferRequest, Tensor, clock,
    control::loader::{self, LoadSpec, Qualify},
    request::GoldenCase,
    servable::{Servable, turn},
};
use smallvec::smallvec;

use super::Trial;

/// No artifact has golden requests, and every program is loaded in this process.
struct Bare;

impl Qualify for Bare {
    fn golden_cases(&self, _: &Artifact, _: &str, _: &Signature) -> Result<Vec<GoldenCase>, String> {
        Ok(Vec::new())
    }

    fn rehearse(&self, _: &LoadSpec) -> Result<(), String> {
        Ok(())
    }
}

/// Every request that stays gets its own answer; of those that the model refuses each gets the refusal.
pub(super) fn served(trial: &Trial<'_>, requests: usize, dropped: usize) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let store = Store::open(folder.path()).map_err(|error| error.to_string())?;
    let path = trial.path.parent().ok_or("the model has no folder")?.to_owned();
    let location = VersionLocation { root: path.clone(), path, stored_as: None };
    let (inputs, outputs) = trial.model.declared();
    let batching = if trial.model.batched() { Batching::Inferred } else { Batching::Off };
    let settings = ModelSettings { inputs, outputs, batching, ..ModelSettings::default() };
    let artifact = store.ingest(&location, &IngestLimits::default()).map_err(|error| error.to_string())?;
    let spec = LoadSpec {
        version: Version::new("1").map_err(|error| error.to_string())?,
        artifact,
        settings: Arc::new(settings),
        class_labels: None,
        backend: Arc::clone(&trial.backend),
        may_run_code: true,
        origin: Arc::from("a case"),
        event_loops: 2,
    };
    let name = ModelName::new(&trial.model.name).map_err(|error| error.to_string())?;
    let loaded = loader::load(&name, 1, &spec, &Bare)?;
    if loaded.signature.batched != trial.model.batched() {
        return Err(format!("expected a batch axis: {}, got the opposite", trial.model.batched()));
    }
    let servable = Arc::new(Servable::new(loaded));
    let threads = servable.start().map_err(|error| error.to_string())?;
    let result = ask(trial, &servable, requests, dropped);
    servable.stop();
    for thread in threads {
        thread.join().map_err(|_| "an instance's thread panicked".to_owned())?;
    }
    result
}

fn ask(trial: &Trial<'_>, servable: &Arc<Servable>, requests: usize, dropped: usize) -> Result<(), String> {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = built.map_err(|error| error.to_string())?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::task::spawn_local(turn::flusher());
        tokio::task::yield_now().await;
        let refused = |number: usize| trial.model.refuses.is_some() && number % 8 == 7;
        let mut waiting = Vec::new();
        for number in 0..requests {
            let number_sent = if refused(number) { 99 } else { number % 8 };
            let answering =
                servable.submit(request(trial, number_sent)).map_err(|error| error.to_string())?;
            // spread over the batch, not at its end
            let leaves = number * dropped / requests != (number + 1) * dropped / requests;
            waiting.push((number, (!leaves).then_some(answering)));
        }
        for (number, answering) in waiting {
            let Some(answering) = answering else { continue };
            let answer = answering.await;
            let right = match &answer {
                Ok(answer) => !refused(number) && first(&answer.outputs[0]) == Some((number % 8 + 1) as f64),
                Err(InferError::Invalid(_)) => refused(number),
                Err(_) => false,
            };
            if !right {
                return Err(format!("request {number}: {answer:?}"));
            }
        }
        Ok(())
    })
}

/// A request whose elements are all `number`.
fn request(trial: &Trial<'_>, number: usize) -> InferRequest {
    let input = &trial.model.inputs[0];
    let shape =
        input.axes.iter().map(|&axis| usize::try_from(axis).unwrap_or(1)).collect::<smallvec::SmallVec<_>>();
    let elements: usize = shape.iter().product();
    let data = match input.dtype {
        DType::Int32 => (number as i32).to_le_bytes(),
        _ => (number as f32).to_le_bytes(),
    };
    let tensor = Tensor { dtype: input.dtype, shape, data: Bytes::from(data.repeat(elements)) };
    InferRequest { inputs: smallvec![tensor], rows: 1, priority: 0, deadline: None, arrived: clock::now() }
}

fn first(tensor: &Tensor) -> Option<f64> {
    gannet_runtime::tensor::values(tensor)?.first().copied()
}
