//! What the wrapper crate does not offer, through `native/inference.cpp`: the only unsafe code of this crate. Must not
//! know models or tensors.

use std::{
    ffi::{CStr, c_char, c_void},
    marker::PhantomData,
    ptr::NonNull,
    slice,
};

/// Bytes of a reason.
const REASON_BYTES: usize = 4096;

unsafe extern "C" {
    fn gannet_tch_inference_begin() -> *mut c_void;
    fn gannet_tch_inference_end(mode: *mut c_void);
    fn gannet_tch_freeze(
        archive: *const u8,
        length: usize,
        why: *mut c_char,
        why_length: usize,
    ) -> *mut c_void;
    fn gannet_tch_bytes(text: *const c_void) -> *const u8;
    fn gannet_tch_length(text: *const c_void) -> usize;
    fn gannet_tch_drop(text: *mut c_void);
}

/// While it lives, this thread records nothing that gradients or versions of tensors would need.
pub(crate) struct InferenceMode {
    mode: NonNull<c_void>,
    /// It must end on the thread that began it.
    _thread: PhantomData<*const ()>,
}

impl InferenceMode {
    /// `None` where the library refuses, which it has no reason to.
    pub(crate) fn begin() -> Option<Self> {
        // SAFETY: no arguments; what comes back is owned here, or null.
        let mode = NonNull::new(unsafe { gannet_tch_inference_begin() })?;
        Some(Self { mode, _thread: PhantomData })
    }
}

impl Drop for InferenceMode {
    fn drop(&mut self) {
        // SAFETY: it came from `begin`, on this thread, and is ended once.
        unsafe { gannet_tch_inference_end(self.mode.as_ptr()) };
    }
}

/// A frozen module, as an archive of its own.
pub(crate) struct Frozen(NonNull<c_void>);

impl Frozen {
    /// Freezes the module in an archive of TorchScript.
    ///
    /// # Errors
    /// A text of the library's: what it does not freeze.
    pub(crate) fn of(archive: &[u8]) -> Result<Self, String> {
        let mut why = [0_u8; REASON_BYTES];
        let (bytes, length) = (archive.as_ptr(), archive.len());
        // SAFETY: both ranges are valid for the call, and only the second is written to.
        let text = unsafe { gannet_tch_freeze(bytes, length, why.as_mut_ptr().cast(), why.len()) };
        NonNull::new(text).map(Self).ok_or_else(|| {
            CStr::from_bytes_until_nul(&why)
                .map_or_else(|_| String::new(), |why| why.to_string_lossy().into_owned())
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the text lives as long as this value, and nobody changes it.
        unsafe {
            slice::from_raw_parts(gannet_tch_bytes(self.0.as_ptr()), gannet_tch_length(self.0.as_ptr()))
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: it came from `of`, and is dropped once.
        unsafe { gannet_tch_drop(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tch::{CModule, Tensor};

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        std::fs::read(path).unwrap()
    }

    #[test]
    fn tensors_of_inference_mode_record_nothing() {
        assert!(!Tensor::from_slice(&[1.0_f32]).is_inference());
        {
            let _inference = InferenceMode::begin().unwrap();
            assert!(Tensor::from_slice(&[1.0_f32]).is_inference());
        }
        assert!(!Tensor::from_slice(&[1.0_f32]).is_inference());
    }

    #[test]
    fn a_frozen_module_has_its_parameters_in_its_graph() {
        let archive = fixture("linear.pt");
        let frozen = Frozen::of(&archive).unwrap();
        let before = CModule::load_data(&mut Cursor::new(archive)).unwrap();
        let after = CModule::load_data(&mut Cursor::new(frozen.bytes())).unwrap();
        assert!(!before.named_parameters().unwrap().is_empty());
        assert!(after.named_parameters().unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_frozen_says_why() {
        assert!(Frozen::of(b"no archive").is_err_and(|why| !why.is_empty()));
        assert!(Frozen::of(&fixture("state_dict.pt")).is_err_and(|why| !why.is_empty()));
    }
}
