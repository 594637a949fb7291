//! ONNX files: bytes in, a checked list of nodes and constants out. Must not know TFLite or layouts.

pub mod proto;
mod read;
mod tensor;

pub(crate) use self::tensor::elements_of;
pub use self::{
    read::{Attributes, Input, Node, Source, SourceValue},
    tensor::{Constant, Elements},
};
