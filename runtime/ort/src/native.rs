//! The library's C interface: the only unsafe code of this crate. A [`Runner`] owns a session and everything that
//! a run of it reuses. Must not know what a model means.

mod read;
mod value;

use std::ffi::{CStr, CString, c_char};

use gannet_runtime::{
    TensorView,
    backend::{BackendError, Sink},
};
use ort::{AsPointer as _, session::Session, sys};

use self::{
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

/// A session with names, input values and output pointers kept between runs. Used by one thread at a time.
pub(crate) struct Runner {
    api: &'static sys::OrtApi,
    inputs: Vec<InputSlot>,
    input_values: Vec<*const sys::OrtValue>,
    input_names: Names,
    outputs: Outputs,
    output_names: Names,
    memory: MemoryInfo,
    reader: Reader,
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

/// Where a run leaves its outputs: null, or a value to be released.
struct Outputs {
    api: &'static sys::OrtApi,
    pointers: Vec<*mut sys::OrtValue>,
}

impl Outputs {
    /// Releases what is left, after an error or a sink that panicked; null asks the library to allocate.
    fn clear(&mut self) {
        for pointer in &mut self.pointers {
            drop(Value::take(self.api, pointer));
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Runner {
    pub(crate) fn new(session: Session) -> Result<Self, Refusal> {
        let api = ort::api();
        Ok(Self {
            api,
            inputs: session.inputs().iter().map(|_| InputSlot::default()).collect(),
            input_values: vec![std::ptr::null(); session.inputs().len()],
            input_names: Names::new(session.inputs().iter().map(|outlet| outlet.name()))?,
            outputs: Outputs { api, pointers: vec![std::ptr::null_mut(); session.outputs().len()] },
            output_names: Names::new(session.outputs().iter().map(|outlet| outlet.name()))?,
            memory: MemoryInfo::cpu(api)?,
            reader: Reader::new(api, session.outputs().len())?,
            session,
        })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The names of the classes of output `index`, once a run has shown them.
    pub(crate) fn classes(&self, index: usize) -> Option<Vec<String>> {
        self.reader.classes(index)
    }

    /// Whether output `index` is a sparse tensor.
    pub(crate) fn is_sparse_output(&self, index: usize) -> Result<bool, Refusal> {
        let mut info = std::ptr::null_mut();
        let mut kind = 0i32;
        // SAFETY: the session is alive; `info` is released on every path and not used after; `kind` has the
        // size of the C enum and, unlike a Rust enum, takes any number.
        unsafe {
            check(self.api, (self.api.SessionGetOutputTypeInfo)(self.session.ptr(), index, &mut info))?;
            let status = (self.api.GetOnnxTypeFromTypeInfo)(info, (&raw mut kind).cast());
            (self.api.ReleaseTypeInfo)(info);
            check(self.api, status)?;
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
        self.outputs.clear();
        for ((slot, pointer), view) in self.inputs.iter_mut().zip(&mut self.input_values).zip(views) {
            *pointer = slot.prepare(self.api, &self.memory, view)?;
        }
        // SAFETY: names and values are arrays of the stated lengths, alive and unmoved during the call. The input
        // values point to the views' data or to the slots' buffers, both borrowed for the call and only read.
        // `&mut self` keeps other runs of this session away.
        let status = unsafe {
            (self.api.Run)(
                self.session.ptr().cast_mut(),
                std::ptr::null(),
                self.input_names.pointers.as_ptr(),
                self.input_values.as_ptr(),
                self.input_values.len(),
                self.output_names.pointers.as_ptr(),
                self.outputs.pointers.len(),
                self.outputs.pointers.as_mut_ptr(),
            )
        };
        check(self.api, status).map_err(Refusal::of_run)?;
        for (index, (pointer, kind)) in self.outputs.pointers.iter_mut().zip(kinds).enumerate() {
            let value = Value::take(self.api, pointer)
                .ok_or_else(|| BackendError::Execution(format!("the run left output {index} empty")))?;
            self.reader.read(&value, index, *kind, sink)?;
        }
        Ok(())
    }
}
