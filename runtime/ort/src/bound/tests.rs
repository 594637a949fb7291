//! The bound way against the plain one, with the processor's memory in the device's place: what differs on a device
//! is where outputs stay and that they are fetched. Must not need a device.

#[path = "../../tests/models/onnx.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod onnx;

use gannet_runtime::backend::OpenOptions;
use ort::memory::{AllocatorType, MemoryType};

use super::*;
use crate::{OrtBackend, OrtOptions, session};

fn bound(model: &[u8], kinds: &[OutputKind]) -> Result<BoundRunner, String> {
    let backend = OrtBackend::start(&OrtOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model).unwrap();
    let session = session::open(backend.engine, &OpenOptions::new(&path)).unwrap();
    let memory =
        MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default).unwrap();
    BoundRunner::new(session, kinds, memory)
}

#[test]
fn every_type_of_numbers_comes_back_as_it_went() {
    for dtype in DType::all().filter(|dtype| *dtype != DType::Bytes) {
        let mut runner = bound(&onnx::identity(dtype, &["n"]), &[OutputKind::Tensor(dtype)]).unwrap();
        let size = dtype.size_bytes().unwrap();
        for rows in [3, 1, 0] {
            // no bit pattern that is an odd truth value or a NaN
            let data: Vec<u8> = (0..rows * size).map(|i| (i % 2) as u8).collect();
            let mut got = None;
            let view = TensorView { dtype, shape: &[rows], data: &data };
            runner
                .run(&[view], &mut |_, view| got = Some((view.shape.to_vec(), view.data.to_vec())))
                .unwrap();
            assert_eq!(got, Some((vec![rows], data)), "{dtype}");
        }
    }
}

#[test]
fn errors_are_classed_and_leave_it_usable() {
    let mut runner = bound(&onnx::mlp(), &[OutputKind::Tensor(DType::Fp32)]).unwrap();
    let data = [0; 20];
    let mut run = |shape: &[usize], bytes: usize| {
        let mut elements = 0;
        let view = TensorView { dtype: DType::Fp32, shape, data: &data[..bytes] };
        runner.run(&[view], &mut |_, view| elements = view.data.len() / 4).map(|()| elements)
    };
    assert!(matches!(run(&[1, 5], 20), Err(BackendError::Input(_))));
    assert!(matches!(run(&[1, 4], 20), Err(BackendError::Input(_))));
    assert_eq!(run(&[1, 4], 16), Ok(3));
    assert!(matches!(runner.run(&[], &mut |_, _| {}), Err(BackendError::Execution(_))));
}

#[test]
fn what_no_device_gives_is_refused() {
    let why = bound(&onnx::identity(DType::Bytes, &["n"]), &[OutputKind::Tensor(DType::Bytes)]).err();
    assert!(why.is_some_and(|why| why.contains("output 'y' is no tensor of numbers")));
}
