//! The library's C interface: the only unsafe code of this crate. A [`Runner`] owns a session and everything that
//! a run of it reuses. Must not know what a model means.

mod kept;
mod read;
mod value;

use std::ffi::{CStr, CString, c_char};

use gannet_runtime::{
    TensorView,
    backend::{BackendError, Sink},
};
use ort::{AsPointer as _, session::Session, sys};

use self::{
    kept::KeptOutputs,
    read::Reader,
    value::{InputSlot, MemoryInfo, Value},
};
use crate::{outlet::OutputKind, refusal::Refusal};

/// Gives freed memory of libc's heap, which the library allocates from, back to the system.
pub(crate) fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: glibc's function; it takes its own locks and may be called at any time.
        unsafe { malloc_trim(0) };
    }
}

/// Turns a status into a result and frees it.
fn check(api: &sys::OrtApi, status: sys::OrtStatusPtr) -> Result<(), Refusal> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not null is valid and ours to release, once; its text lives as long as it does.
    unsafe {
        let code = (api.GetErrorCode)(status.0) as i32;
        let text = (api.GetErrorMessage)(status.0);
        let message = if text.is_null() {
            String::from("no reason was given")
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        };
        (api.ReleaseStatus)(status.0);
        Err(Refusal { code, message })
    }
}

/// A session with all that is kept between runs. Used by one thread at a time.
pub(crate) struct Runner {
    inputs: Vec<InputSlot>,
    outputs: Outputs,
    kept: KeptOutputs,
    memory: MemoryInfo,
    reader: Reader,
    prepared: Prepared,
}

/// What a run is called with.
struct Prepared {
    api: &'static sys::OrtApi,
    /// The slots' values for the run at hand; stale between runs.
    input_values: Vec<*const sys::OrtValue>,
    input_names: Names,
    output_names: Names,
    session: Session,
}

// SAFETY: the raw pointers are the runner's own (values, memory description) or point into its own strings; the
// library binds none of them to a thread, and a session may be run from any thread, one at a time.
unsafe impl Send for Runner {}

/// Names as the library takes them.
struct Names {
    pointers: Vec<*const c_char>,
    /// What the pointers point into.
    _owned: Vec<CString>,
}

impl Names {
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, Refusal> {
        let owned: Vec<CString> = names
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| Refusal { code: 0, message: "a name contains a NUL character".into() })?;
        Ok(Self { pointers: owned.iter().map(|name| name.as_ptr()).collect(), _owned: owned })
    }
}

/// Where a run leaves its outputs.
struct Outputs {
    api: &'static sys::OrtApi,
    /// All null between runs, which asks the library to allocate.
    pointers: Vec<*mut sys::OrtValue>,
    values: Vec<Value>,
}

impl Outputs {
    /// Takes over what a run left, and says whether that is all of them.
    fn collect(&mut self) -> bool {
        self.values.clear();
        self.values.extend(self.pointers.iter_mut().filter_map(|pointer| Value::take(self.api, pointer)));
        self.values.len() == self.pointers.len()
    }
}

impl Runner {
    pub(crate) fn new(session: Session) -> Result<Self, Refusal> {
        let api = ort::api();
        let (inputs, outputs) = (session.inputs(), session.outputs());
        Ok(Self {
            inputs: inputs.iter().map(|_| InputSlot::default()).collect(),
            outputs: Outputs {
                api,
                pointers: vec![std::ptr::null_mut(); outputs.len()],
                values: Vec::with_capacity(outputs.len()),
            },
            kept: KeptOutputs::new(outputs.iter().map(|outlet| outlet.dtype())),
            memory: MemoryInfo::cpu(api)?,
            reader: Reader::new(api, outputs.len())?,
            prepared: Prepared {
                api,
                input_values: vec![std::ptr::null(); inputs.len()],
                input_names: Names::new(inputs.iter().map(|outlet| outlet.name()))?,
                output_names: Names::new(outputs.iter().map(|outlet| outlet.name()))?,
                session,
            },
        })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.prepared.session
    }

    /// The session alone.
    pub(crate) fn into_session(self) -> Session {
        self.prepared.session
    }

    /// The names of the classes of output `index`, once a run has shown them.
    pub(crate) fn classes(&self, index: usize) -> Option<Vec<String>> {
        self.reader.classes(index)
    }

    /// Whether output `index` is a sparse tensor.
    pub(crate) fn is_sparse_output(&self, index: usize) -> Result<bool, Refusal> {
        let Prepared { api, session, .. } = &self.prepared;
        let mut info = std::ptr::null_mut();
        let mut kind = 0i32;
        // SAFETY: the session is alive; `info` is released on every path and not used after; `kind` has the
        // size of the C enum and, unlike a Rust enum, takes any number.
        unsafe {
            check(api, (api.SessionGetOutputTypeInfo)(session.ptr(), index, &mut info))?;
            let status = (api.GetOnnxTypeFromTypeInfo)(info, (&raw mut kind).cast());
            (api.ReleaseTypeInfo)(info);
            check(api, status)?;
        }
        Ok(kind == sys::ONNXType::ONNX_TYPE_SPARSETENSOR as i32)
    }

    /// Runs once and hands each output to `sink`. `kinds` says how to present the outputs.
    pub(crate) fn run(
        &mut self,
        views: &[TensorView<'_>],
        kinds: &[OutputKind],
        sink: &mut Sink<'_>,
    ) -> Result<(), BackendError> {
        if views.len() != self.inputs.len() || kinds.len() != self.outputs.pointers.len() {
            return Err(BackendError::Execution(format!(
                "the model has {} inputs, {} were given",
                self.inputs.len(),
                views.len(),
            )));
        }
        let Prepared { api, input_values, .. } = &mut self.prepared;
        for ((slot, pointer), view) in self.inputs.iter_mut().zip(input_values).zip(views) {
            *pointer = slot.prepare(api, &self.memory, view)?;
        }
        let mut doubt = None;
        if let Some(outputs) = self.kept.announce(views) {
            // SAFETY: the inputs were just prepared from views that are borrowed until the end of this function;
            // the outputs are as many as the model has, all owned by `kept`.
            let outcome = unsafe { self.prepared.call(outputs) };
            if outcome.is_ok() && self.kept.trusted() {
                for (index, (value, kind)) in self.kept.values().iter().zip(kinds).enumerate() {
                    self.reader.read(value, index, *kind, sink)?;
                }
                return Ok(());
            }
            // The request or the kept outputs are to blame, or they were left unwritten: a plain run tells.
            doubt = Some(outcome);
        }
        // SAFETY: as above; the outputs are all null.
        let outcome = unsafe { self.prepared.call(&mut self.outputs.pointers) };
        let complete = self.outputs.collect();
        self.settle(doubt.as_ref(), outcome.is_ok() && complete, kinds)?;
        outcome.map_err(Refusal::of_run)?;
        if !complete {
            return Err(BackendError::Execution("the run left an output empty".into()));
        }
        for (index, (value, kind)) in self.outputs.values.iter().zip(kinds).enumerate() {
            self.reader.read(value, index, *kind, sink)?;
            self.kept.offer(self.prepared.api, *kind, self.reader.shape());
        }
        self.outputs.values.clear();
        Ok(())
    }

    /// What a plain run says about the kept outputs of the same run just before it.
    fn settle(
        &mut self,
        doubt: Option<&Result<(), Refusal>>,
        plain_succeeded: bool,
        kinds: &[OutputKind],
    ) -> Result<(), BackendError> {
        match doubt {
            None => {}
            Some(Err(_)) if plain_succeeded => self.kept.forbid(),
            Some(Ok(())) if plain_succeeded => {
                let mut same = true;
                for ((kept, plain), kind) in self.kept.values().iter().zip(&self.outputs.values).zip(kinds) {
                    same &= self.reader.same(kept, plain, *kind)?;
                }
                if same { self.kept.trust() } else { self.kept.forbid() }
            }
            Some(_) => self.kept.clear(),
        }
        Ok(())
    }
}

impl Prepared {
    /// One run.
    ///
    /// # Safety
    /// `input_values` are alive, and so is the data that they point to. `outputs` are as many as the model has:
    /// null, or a tensor to fill. No other run of this session is under way.
    unsafe fn call(&self, outputs: &mut [*mut sys::OrtValue]) -> Result<(), Refusal> {
        // SAFETY: the caller's promise; names and values are arrays of the stated lengths, unmoved during the call.
        let status = unsafe {
            (self.api.Run)(
                self.session.ptr().cast_mut(),
                std::ptr::null(),
                self.input_names.pointers.as_ptr(),
                self.input_values.as_ptr(),
                self.input_values.len(),
                self.output_names.pointers.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr(),
            )
        };
        check(self.api, status)
    }
}
