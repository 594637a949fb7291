//! The edge compiler: an ONNX model and samples in, a TFLite-micro bundle with its proof out. Must not know servers,
//! networks or how a model is run elsewhere.
//!
//! The stages are types, and each can be printed: bytes → [`onnx::Source`] → [`graph::Graph`] (channels last) → the same,
//! optimised → [`lite::Model`] (float or int8) → bytes, with [`plan::Plan`] and [`arena::Arena`] beside it.

pub mod arena;
pub mod bundle;
pub mod calibrate;
mod canonical;
pub mod cli;
pub mod compile;
pub mod data;
pub mod device;
mod error;
pub mod float;
pub mod graph;
pub mod integer;
mod kernels;
pub mod lite;
mod lower;
pub mod manifest;
pub mod mcuboot;
pub mod onnx;
pub mod package;
pub mod parity;
pub mod passes;
pub mod plan;
pub mod quantise;
pub mod sign;

pub use self::{
    canonical::canonical,
    error::{EdgeError, Result},
    lower::lower,
};

/// The number of elements of a shape, within the limits.
pub(crate) fn onnx_elements(shape: &[usize], what: &str) -> Result<usize> {
    let count = onnx::elements_of(shape, what)?;
    if count == 0 {
        return Err(EdgeError::malformed(what, format!("expected elements, got none in shape {shape:?}")));
    }
    Ok(count)
}
