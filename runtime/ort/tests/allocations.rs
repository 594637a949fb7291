//! Counts what a run allocates on this side of the library: nothing, once the buffers have their size.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]
#![expect(unsafe_code, reason = "an allocator that counts")]

#[path = "models/onnx.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod onnx;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use gannet_models::DType;
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::{
    TensorView,
    backend::{Backend, OpenOptions},
    tensor,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is the system allocator's own; counting touches a plain cell of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn check(name: &str, model: &[u8], dtype: DType, row: &[u8], width: &[usize]) {
    let backend = OrtBackend::start(&OrtOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model).unwrap();
    let mut instance = backend.open(&OpenOptions::new(&path)).unwrap();
    let data = row.repeat(8);
    let mut run = |rows: usize| {
        let mut shape = vec![rows];
        shape.extend_from_slice(width);
        let view = TensorView { dtype, shape: &shape, data: &data[..row.len() * rows] };
        let before = ALLOCATIONS.get();
        instance.run(&[view], &mut |_, output| assert!(!output.data.is_empty())).unwrap();
        ALLOCATIONS.get() - before
    };
    for rows in [8, 1] {
        run(rows);
    }
    for rows in [1, 8, 8, 3, 1] {
        assert_eq!(run(rows), 0, "{name}, {rows} rows");
    }
}

#[test]
fn a_run_allocates_nothing() {
    check("numbers", &onnx::mlp(), DType::Fp32, &[0; 16], &[4]);
    check("truth values that are copied", &onnx::identity(DType::Bool, &["n"]), DType::Bool, &[2], &[]);
    let mut text = Vec::new();
    tensor::push_byte_element(&mut text, b"some text");
    check("strings", &onnx::identity(DType::Bytes, &["n"]), DType::Bytes, &text, &[]);
}
