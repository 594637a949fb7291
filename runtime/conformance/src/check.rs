//! Carries one case out. Must not know which cases there are.

mod served;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use gannet_models::{DType, Dim, settings::Device};
use gannet_runtime::{
    TensorView,
    backend::{Backend, BackendError, Declared, Instance, OpenOptions},
};

use crate::{
    Model, Subject, Suite, Tensor, put,
    suite::{Case, Check, Content, Element, Fault, Run, Value},
};

/// An output as a run gave it.
type Given = (DType, Vec<usize>, Vec<u8>);

/// Whether the backend does what the case asks.
pub(crate) fn check(subject: &dyn Subject, suite: &Suite, case: &Case) -> Result<(), String> {
    let model = suite.model(&case.model)?;
    let bytes =
        subject.model(model).ok_or_else(|| format!("there is no model '{}' in its format", model.name))?;
    let backend = subject.backend();
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = put(&*backend, &bytes, folder.path()).map_err(|error| error.to_string())?;
    let trial = Trial { backend, model, bytes, path };
    match &case.check {
        Check::Runs { runs } => trial.runs(runs),
        Check::Metadata => trial.metadata(),
        Check::Unaligned => trial.unaligned(),
        Check::Deterministic { rounds } => trial.deterministic(*rounds),
        Check::SideBySide { threads, rounds } => trial.side_by_side(*threads, *rounds),
        Check::ReceiverPanics => trial.receiver_panics(),
        Check::RefusedFile { content } => trial.refused_file(*content),
        Check::MissingDevice => trial.missing_device(),
        Check::Served { requests, dropped } => served::served(&trial, *requests, *dropped),
        Check::Unloads { rounds, growth_kib_max } => trial.unloads(*rounds, *growth_kib_max),
    }
}

/// A model in a backend's hands.
struct Trial<'a> {
    backend: Arc<dyn Backend>,
    model: &'a Model,
    bytes: Vec<u8>,
    path: PathBuf,
}

impl Trial<'_> {
    fn try_open(&self, threads: usize, device: Device) -> Result<Box<dyn Instance>, BackendError> {
        let (inputs, outputs) = self.model.declared();
        let declared = Declared { inputs: &inputs, outputs: &outputs, batch_axis: self.model.batched() };
        self.backend.open(&OpenOptions { model_path: &self.path, threads, device, declared })
    }

    fn open(&self) -> Result<Box<dyn Instance>, String> {
        self.try_open(1, Device::Cpu).map_err(|error| format!("it does not open: {error}"))
    }

    /// Each run gives the stated outputs, or fails with an error of the stated class; all on one instance.
    fn runs(&self, runs: &[Run]) -> Result<(), String> {
        let mut instance = self.open()?;
        for (index, run) in runs.iter().enumerate() {
            let outcome = self.play(&mut *instance, &run.inputs)?;
            let fits = match (&outcome, run.fails) {
                (Err(BackendError::Input(_)), Some(Fault::Input))
                | (Err(BackendError::Execution(_)), Some(Fault::Execution)) => true,
                (Ok(given), None) => *given == self.expected(&run.outputs)?,
                _ => false,
            };
            if !fits {
                let expected =
                    run.fails.map_or(format!("{:?}", run.outputs), |class| format!("{class:?} fault"));
                return Err(format!("run {}: expected {expected}, got {outcome:?}", index + 1));
            }
        }
        Ok(())
    }

    fn play(
        &self,
        instance: &mut dyn Instance,
        values: &[Value],
    ) -> Result<Result<Vec<Given>, BackendError>, String> {
        let mut inputs = Vec::new();
        for (value, tensor) in values.iter().zip(&self.model.inputs) {
            let dtype = value.dtype.as_deref().map_or(Some(tensor.dtype), DType::parse).ok_or("no type")?;
            inputs.push((dtype, &value.shape, value.bytes(dtype)?));
        }
        let views: Vec<TensorView<'_>> =
            inputs.iter().map(|(dtype, shape, data)| TensorView { dtype: *dtype, shape, data }).collect();
        Ok(run(instance, &views))
    }

    fn expected(&self, values: &[Value]) -> Result<Vec<Given>, String> {
        let given = |(value, tensor): (&Value, &Tensor)| {
            Ok((tensor.dtype, value.shape.clone(), value.bytes(tensor.dtype)?))
        };
        values.iter().zip(&self.model.outputs).map(given).collect()
    }

    /// Names, types and axes are the model's, in its order, with no batch axis decided.
    fn metadata(&self) -> Result<(), String> {
        let instance = self.open()?;
        let signature = instance.signature();
        for (found, stated) in
            [(&signature.inputs, &self.model.inputs), (&signature.outputs, &self.model.outputs)]
        {
            let shown = |spec: &gannet_models::TensorSpec| {
                let axes = spec.shape.iter().map(Dim::wire).collect();
                Tensor { name: spec.name.clone(), dtype: spec.dtype, axes }
            };
            let found: Vec<Tensor> = found.iter().map(shown).collect();
            if found != *stated {
                return Err(format!("expected {stated:?}, got {found:?}"));
            }
        }
        if signature.batched { Err("it decided on a batch axis itself".to_owned()) } else { Ok(()) }
    }

    /// Element data may lie anywhere.
    fn unaligned(&self) -> Result<(), String> {
        let mut instance = self.open()?;
        let numbers: Vec<f32> = (0..6000u16).map(f32::from).collect();
        let expected: Vec<u8> = numbers.iter().flat_map(|number| (number + 1.0).to_le_bytes()).collect();
        for offset in 0..5 {
            let mut data = vec![0; offset];
            data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            let view = TensorView { dtype: DType::Fp32, shape: &[2, 3000], data: &data[offset..] };
            let given = run(&mut *instance, &[view]).map_err(|error| error.to_string())?;
            if given[0].2 != expected {
                return Err(format!("wrong values from data that begin {offset} bytes into a buffer"));
            }
        }
        Ok(())
    }

    /// Two instances, many runs: bit for bit the same.
    fn deterministic(&self, rounds: usize) -> Result<(), String> {
        let mut instances = [self.open()?, self.open()?];
        let data: Vec<u8> = (0..64u16).flat_map(|i| (f32::from(i) / 7.0).to_le_bytes()).collect();
        let view = TensorView { dtype: DType::Fp32, shape: &[8, 8], data: &data };
        let first = run(&mut *instances[0], &[view]).map_err(|error| error.to_string())?;
        for round in 0..rounds {
            let given = run(&mut *instances[round % 2], &[view]).map_err(|error| error.to_string())?;
            if given != first {
                return Err(format!("run {round} gave something else than the first"));
            }
        }
        Ok(())
    }

    /// An instance for each thread, all at once; every second one with two threads inside a run.
    fn side_by_side(&self, threads: usize, rounds: usize) -> Result<(), String> {
        let work = |index: usize| {
            let opened = self.try_open(1 + index % 2, Device::Cpu);
            let mut instance = opened.map_err(|error| error.to_string())?;
            for round in 0..rounds {
                let number = (index * rounds + round) as f32;
                let data = number.to_le_bytes();
                let view = TensorView { dtype: DType::Fp32, shape: &[1, 1], data: &data };
                let given = run(&mut *instance, &[view]).map_err(|error| error.to_string())?;
                if given[0].2 != (number + 1.0).to_le_bytes() {
                    return Err(format!("thread {index}: a wrong answer to {number}: {given:?}"));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..threads).map(|index| scope.spawn(move || work(index))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), String>>| {
                thread.join().unwrap_or_else(|_| Err("a panic".to_owned()))
            };
            threads.into_iter().try_for_each(join)
        })
    }

    /// The instance works after the receiver of its outputs panicked.
    fn receiver_panics(&self) -> Result<(), String> {
        let mut instance = self.open()?;
        let data = 1.0f32.to_le_bytes();
        let view = TensorView { dtype: DType::Fp32, shape: &[1, 1], data: &data };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _ = instance.run(&[view], &mut |_, _| panic!("the receiver panics, as this case wants"));
        }));
        if panicked.is_ok() {
            return Err("the receiver was not called, or its panic was swallowed".to_owned());
        }
        let given = run(&mut *instance, &[view]).map_err(|error| error.to_string())?;
        if given[0].2 == 2.0f32.to_le_bytes() { Ok(()) } else { Err(format!("then it gave {given:?}")) }
    }

    /// What is no model is refused as such, with its path, and the backend goes on.
    fn refused_file(&self, content: Content) -> Result<(), String> {
        let io = |error: std::io::Error| error.to_string();
        fs::remove_file(&self.path).map_err(io)?;
        match content {
            Content::Empty => fs::write(&self.path, ""),
            Content::Text => fs::write(&self.path, "this is = no model\n"),
            Content::Half => fs::write(&self.path, &self.bytes[..self.bytes.len() / 2]),
            Content::Zeros => fs::write(&self.path, [0; 4096]),
            Content::Missing => Ok(()),
            Content::Folder => fs::create_dir(&self.path),
        }
        .map_err(io)?;
        match self.try_open(1, Device::Cpu) {
            Err(BackendError::Model(why)) if why.contains(&*self.path.to_string_lossy()) => {}
            Err(error) => {
                return Err(format!("expected a fault of the model that names its path, got {error:?}"));
            }
            Ok(_) => return Err("it opens".to_owned()),
        }
        if content == Content::Folder {
            fs::remove_dir(&self.path).map_err(io)?;
        }
        fs::write(&self.path, &self.bytes).map_err(io)?;
        self.open().map(drop)
    }

    /// A device that this machine lacks is an error, and never the processor.
    fn missing_device(&self) -> Result<(), String> {
        match self.try_open(1, Device::Cuda(63)) {
            Err(BackendError::Unavailable(why)) if why.contains("CUDA device 63") => Ok(()),
            Err(error) => Err(format!("expected that the device is unavailable, got {error:?}")),
            Ok(_) => Err("it opens".to_owned()),
        }
    }

    /// Opened, run and closed over and over, the process does not grow.
    fn unloads(&self, rounds: usize, growth_kib_max: u64) -> Result<(), String> {
        let numbers = vec![Element::Float(1.0); 4096];
        let value = [Value { shape: vec![64, 64], elements: numbers, dtype: None }];
        let cycle = || {
            let mut instance = self.open()?;
            self.play(&mut *instance, &value)?.map(drop).map_err(|error| error.to_string())
        };
        (0..rounds / 2).try_for_each(|_| cycle())?;
        self.backend.release_memory();
        let before = resident_kib();
        (0..rounds).try_for_each(|_| cycle())?;
        self.backend.release_memory();
        let growth = resident_kib().saturating_sub(before);
        if growth <= growth_kib_max {
            Ok(())
        } else {
            Err(format!("{growth} KiB more after {rounds} rounds"))
        }
    }
}

/// One run; the outputs by index.
fn run(instance: &mut dyn Instance, views: &[TensorView<'_>]) -> Result<Vec<Given>, BackendError> {
    let mut given: Vec<(usize, Given)> = Vec::new();
    instance.run(views, &mut |index, view| {
        given.push((index, (view.dtype, view.shape.to_vec(), view.data.to_vec())));
    })?;
    given.sort_by_key(|(index, _)| *index);
    Ok(given.into_iter().map(|(_, given)| given).collect())
}

/// What the process holds; 0 where the system does not say.
fn resident_kib() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4)
}
