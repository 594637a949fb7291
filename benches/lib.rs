//! Benchmarks of Gannet, one file per question. `cargo bench -p gannet-benches --bench NAME`; `end_to_end` measures
//! the whole server against its floors, the others measure parts.

pub mod models;
pub mod plane;
pub mod rig;

#[path = "../runtime/ort/tests/models/onnx.rs"]
#[expect(dead_code, reason = "shared with the tests of runtime/ort")]
mod onnx;
