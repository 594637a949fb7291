//! Values of the library: owned pointers, and inputs made of borrowed data. Must not know sessions.

use std::ptr::NonNull;

use gannet_models::DType;
use gannet_runtime::{TensorView, backend::BackendError, tensor};
use ort::sys::{self, ONNXTensorElementDataType as Element};

use super::check;
use crate::refusal::Refusal;

/// A value that is released when dropped.
pub(super) struct Value {
    api: &'static sys::OrtApi,
    pointer: NonNull<sys::OrtValue>,
}

impl Value {
    /// Takes over the value in `pointer`, leaving null.
    pub(super) fn take(api: &'static sys::OrtApi, pointer: &mut *mut sys::OrtValue) -> Option<Self> {
        let taken = std::mem::replace(pointer, std::ptr::null_mut());
        NonNull::new(taken).map(|pointer| Self { api, pointer })
    }

    pub(super) fn pointer(&self) -> *mut sys::OrtValue {
        self.pointer.as_ptr()
    }

    /// Where the elements of a tensor of numbers are.
    pub(super) fn data(&self) -> Result<*mut u8, Refusal> {
        let mut data = std::ptr::null_mut();
        // SAFETY: the value is alive; one pointer out.
        check(self.api, unsafe { (self.api.GetTensorMutableData)(self.pointer(), &mut data) })?;
        Ok(data.cast())
    }

    /// Sets every byte of a tensor of numbers.
    ///
    /// # Safety
    /// The tensor was made by the library, is `bytes` long and nobody else's.
    pub(super) unsafe fn fill(&self, bytes: usize, byte: u8) -> Result<(), Refusal> {
        let data = self.data()?;
        // SAFETY: the caller's promise.
        unsafe { data.write_bytes(byte, bytes) };
        Ok(())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the library, is owned by this value alone and is released once.
        unsafe { (self.api.ReleaseValue)(self.pointer.as_ptr()) };
    }
}

/// "Memory of the processor", as the library wants it described.
pub(super) struct MemoryInfo {
    api: &'static sys::OrtApi,
    pointer: *mut sys::OrtMemoryInfo,
}

impl MemoryInfo {
    pub(super) fn cpu(api: &'static sys::OrtApi) -> Result<Self, Refusal> {
        let mut pointer = std::ptr::null_mut();
        // SAFETY: plain constants in, one pointer out, owned by the new value.
        let status = unsafe {
            (api.CreateCpuMemoryInfo)(
                sys::OrtAllocatorType::OrtDeviceAllocator,
                sys::OrtMemType::OrtMemTypeDefault,
                &mut pointer,
            )
        };
        check(api, status)?;
        Ok(Self { api, pointer })
    }
}

impl Drop for MemoryInfo {
    fn drop(&mut self) {
        // SAFETY: created by `cpu`, released once; values made with it hold a copy.
        unsafe { (self.api.ReleaseMemoryInfo)(self.pointer) };
    }
}

/// The library's allocator for values that it hands out; it lives as long as the library.
pub(super) fn default_allocator(api: &sys::OrtApi) -> Result<*mut sys::OrtAllocator, Refusal> {
    let mut allocator = std::ptr::null_mut();
    // SAFETY: one pointer out, which stays the library's.
    check(api, unsafe { (api.GetAllocatorWithDefaultOptions)(&mut allocator) })?;
    Ok(allocator)
}

/// Up to here copying costs less than the 0.16 us (measured) of making a value for another address.
const COPY_BYTES_MAX: usize = 4096;

/// One input's value, kept for as long as requests bring the same address and shape: callers gather into reused
/// buffers.
#[derive(Default)]
pub(super) struct InputSlot {
    value: Option<Value>,
    /// What `value` describes; only compared, never read through.
    address: usize,
    dtype: Option<DType>,
    shape: Vec<i64>,
    /// A copy of data that the library could not read in place. `u64`: as aligned as any element.
    buffer: Vec<u64>,
}

impl InputSlot {
    /// A value over the view's data, valid for as long as both the view and the slot are borrowed.
    pub(super) fn prepare(
        &mut self,
        api: &'static sys::OrtApi,
        memory: &MemoryInfo,
        view: &TensorView<'_>,
    ) -> Result<*const sys::OrtValue, BackendError> {
        if view.dtype == DType::Bytes {
            return self.prepare_strings(api, view);
        }
        let bytes = view.data.len();
        if tensor::size_bytes(view.dtype, view.shape) != Some(bytes) {
            return Err(BackendError::Input(format!(
                "{bytes} bytes are no tensor of type {} and shape {:?}",
                view.dtype, view.shape
            )));
        }
        let data = if readable_in_place(view) { view.data.as_ptr() } else { self.copy(view) };
        if let Some(value) = &self.value
            && self.address == data.addr()
            && self.dtype == Some(view.dtype)
            && same_shape(&self.shape, view.shape)
        {
            return Ok(value.pointer());
        }
        self.set_shape(view);
        let mut pointer = std::ptr::null_mut();
        // SAFETY: `data` is aligned and holds `bytes` bytes, which is what type and shape need; the library only
        // reads through values given as inputs. The value outlives this borrow of the data, but is handed out
        // again only for a view at the same address with the same type and shape, so the memory is alive then;
        // releasing it does not touch the data.
        let status = unsafe {
            (api.CreateTensorWithDataAsOrtValue)(
                memory.pointer,
                data.cast_mut().cast(),
                bytes,
                self.shape.as_ptr(),
                self.shape.len(),
                element(view.dtype),
                &mut pointer,
            )
        };
        self.install(api, status, pointer, view.dtype, data.addr())
    }

    /// The library keeps strings in its own memory; they may hold any bytes, NUL included.
    fn prepare_strings(
        &mut self,
        api: &'static sys::OrtApi,
        view: &TensorView<'_>,
    ) -> Result<*const sys::OrtValue, BackendError> {
        let expected = tensor::elements(view.shape).unwrap_or(usize::MAX);
        let elements = tensor::byte_elements(view.data).try_fold(0usize, |n, element| element.map(|_| n + 1));
        match elements {
            Ok(elements) if elements == expected => {}
            Ok(elements) => {
                return Err(BackendError::Input(format!(
                    "{elements} byte strings are no tensor of shape {:?}",
                    view.shape
                )));
            }
            Err(reason) => return Err(BackendError::Input(reason)),
        }
        self.set_shape(view);
        let allocator = default_allocator(api).map_err(Refusal::of_run)?;
        let mut pointer = std::ptr::null_mut();
        // SAFETY: the shape is alive during the call; the new value is owned by the slot.
        let status = unsafe {
            (api.CreateTensorAsOrtValue)(
                allocator,
                self.shape.as_ptr(),
                self.shape.len(),
                element(view.dtype),
                &mut pointer,
            )
        };
        self.install(api, status, pointer, view.dtype, 0)?;
        for (index, bytes) in tensor::byte_elements(view.data).enumerate() {
            let bytes = bytes.map_err(BackendError::Input)?;
            let mut buffer = std::ptr::null_mut();
            // SAFETY: `index` is below the number of elements (counted above); the library gives a buffer of the
            // asked length, which nobody else knows.
            unsafe {
                let status =
                    (api.GetResizedStringTensorElementBuffer)(pointer, index, bytes.len(), &mut buffer);
                check(api, status).map_err(Refusal::of_run)?;
                buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }
        Ok(pointer)
    }

    fn install(
        &mut self,
        api: &'static sys::OrtApi,
        status: sys::OrtStatusPtr,
        mut pointer: *mut sys::OrtValue,
        dtype: DType,
        address: usize,
    ) -> Result<*const sys::OrtValue, BackendError> {
        self.value = None;
        check(api, status).map_err(Refusal::of_run)?;
        self.value = Value::take(api, &mut pointer);
        self.address = address;
        self.dtype = Some(dtype);
        let value = self.value.as_ref();
        value.map(|value| value.pointer().cast_const()).ok_or_else(|| {
            BackendError::Execution("the library made no input value and gave no reason".to_owned())
        })
    }

    fn set_shape(&mut self, view: &TensorView<'_>) {
        self.shape.clear();
        // A length that does not fit was refused before: its bytes could not be counted.
        self.shape.extend(view.shape.iter().map(|&length| i64::try_from(length).unwrap_or(i64::MAX)));
    }

    /// Copies into the slot's aligned buffer; truth values become 0 or 1.
    fn copy(&mut self, view: &TensorView<'_>) -> *const u8 {
        let bytes = view.data.len();
        // At least one element, so that the address is one of memory.
        let words = bytes.div_ceil(size_of::<u64>()).max(1);
        if self.buffer.len() < words {
            self.buffer.resize(words, 0);
        }
        let target = self.buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: the buffer has at least `bytes` bytes, is the slot's own, and any byte is a valid `u8`.
        let target = unsafe { std::slice::from_raw_parts_mut(target, bytes) };
        target.copy_from_slice(view.data);
        if view.dtype == DType::Bool {
            target.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        self.buffer.as_ptr().cast()
    }
}

/// Whether the library reads the data where it is: it must be aligned, large enough to be worth a new value, and truth values 0 or 1 (others
/// are undefined in C++).
fn readable_in_place(view: &TensorView<'_>) -> bool {
    let size = view.dtype.size_bytes().unwrap_or(1);
    view.data.len() > COPY_BYTES_MAX
        && view.data.as_ptr().addr().is_multiple_of(size)
        && (view.dtype != DType::Bool || view.data.iter().all(|&byte| byte <= 1))
}

fn same_shape(kept: &[i64], given: &[usize]) -> bool {
    kept.len() == given.len()
        && kept.iter().zip(given).all(|(&kept, &given)| usize::try_from(kept) == Ok(given))
}

pub(super) fn element(dtype: DType) -> Element {
    match dtype {
        DType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}
