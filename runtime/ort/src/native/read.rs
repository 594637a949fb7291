//! Outputs of a run as views: tensors in place, strings and maps gathered into reused buffers. Must not know where
//! values come from.

use gannet_models::DType;
use gannet_runtime::{
    TensorView,
    backend::{BackendError, Sink},
    tensor,
};
use ort::sys;

use super::{
    check,
    value::{Value, default_allocator, element},
};
use crate::{outlet::OutputKind, refusal::Refusal};

/// Buffers for outputs that cannot be shown in place, and the classes seen so far.
pub(super) struct Reader {
    api: &'static sys::OrtApi,
    allocator: *mut sys::OrtAllocator,
    shape: Vec<usize>,
    strings: Strings,
    encoded: Vec<u8>,
    /// Class names by output, fixed by the first row seen.
    classes: Vec<Option<Classes>>,
}

/// The elements of a string tensor, one after the other.
#[derive(Default, Clone, PartialEq, Eq)]
struct Strings {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Strings {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.offsets.iter().skip(1).copied().chain([self.bytes.len()]);
        self.offsets.iter().zip(ends).map(|(&start, end)| &self.bytes[start..end])
    }
}

#[derive(PartialEq, Eq)]
enum Classes {
    Numbers(Vec<i64>),
    Names(Strings),
}

impl Reader {
    pub(super) fn new(api: &'static sys::OrtApi, outputs: usize) -> Result<Self, Refusal> {
        Ok(Self {
            api,
            allocator: default_allocator(api)?,
            shape: Vec::new(),
            strings: Strings::default(),
            encoded: Vec::new(),
            classes: std::iter::repeat_with(|| None).take(outputs).collect(),
        })
    }

    /// The shape of the output just read.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn classes(&self, output: usize) -> Option<Vec<String>> {
        Some(match self.classes.get(output)?.as_ref()? {
            Classes::Numbers(keys) => keys.iter().map(i64::to_string).collect(),
            Classes::Names(keys) => {
                keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
            }
        })
    }

    pub(super) fn read(
        &mut self,
        value: &Value,
        output: usize,
        kind: OutputKind,
        sink: &mut Sink<'_>,
    ) -> Result<(), BackendError> {
        match kind {
            OutputKind::Tensor(dtype) => {
                self.read_shape(value, dtype)?;
                if dtype == DType::Bytes {
                    self.read_strings(value)?;
                    self.encoded.clear();
                    self.strings.iter().for_each(|text| tensor::push_byte_element(&mut self.encoded, text));
                    sink(output, TensorView { dtype, shape: &self.shape, data: &self.encoded });
                    return Ok(());
                }
                let data = self.data(value, dtype)?;
                sink(output, TensorView { dtype, shape: &self.shape, data });
            }
            OutputKind::Classes { rows, key } => {
                self.read_classes(value, output, rows, key)?;
                let data = &self.encoded;
                sink(output, TensorView { dtype: DType::Fp32, shape: &self.shape, data });
            }
        }
        Ok(())
    }

    /// Reads the shape into `self.shape` and checks the element type.
    fn read_shape(&mut self, value: &Value, dtype: DType) -> Result<(), BackendError> {
        let (mut found, mut lengths, mut axes) = (0i32, std::ptr::null(), 0usize);
        // SAFETY: the value is alive; `found` has the size of the C enum and takes any number. The lengths belong
        // to the value and are copied before anything else happens to it; they may be null when there are none.
        unsafe {
            let status = (self.api.GetTensorElementTypeAndShapeDataReference)(
                value.pointer(),
                (&raw mut found).cast(),
                &mut lengths,
                &mut axes,
            );
            check(self.api, status).map_err(Refusal::of_run)?;
            self.shape.clear();
            if axes > 0 {
                let lengths = std::slice::from_raw_parts(lengths, axes);
                self.shape.extend(lengths.iter().map(|&length| usize::try_from(length).unwrap_or(0)));
            }
        }
        if found != element(dtype) as i32 {
            return Err(BackendError::Execution(format!(
                "an output declared as {dtype} came as element type {found}"
            )));
        }
        Ok(())
    }

    /// The elements of a tensor of numbers, whose shape was just read.
    fn data<'a>(&self, value: &'a Value, dtype: DType) -> Result<&'a [u8], BackendError> {
        let bytes = tensor::size_bytes(dtype, &self.shape)
            .ok_or_else(|| BackendError::Execution(format!("an output has the shape {:?}", self.shape)))?;
        if bytes == 0 {
            return Ok(&[]);
        }
        let data = value.data().map_err(Refusal::of_run)?;
        // SAFETY: the value is alive and a tensor of numbers, in the processor's memory as all outputs of a plain
        // run are; its data is as large as type and shape say and is not written while the value is borrowed.
        Ok(unsafe { std::slice::from_raw_parts(data.cast_const(), bytes) })
    }

    /// Whether two tensors of numbers have the same bytes.
    pub(super) fn same(
        &mut self,
        one: &Value,
        other: &Value,
        kind: OutputKind,
    ) -> Result<bool, BackendError> {
        let OutputKind::Tensor(dtype) = kind else { return Ok(false) };
        self.read_shape(one, dtype)?;
        let data = self.data(one, dtype)?;
        self.read_shape(other, dtype)?;
        Ok(data == self.data(other, dtype)?)
    }

    /// Reads the elements of a string tensor, whose shape was just read, into `self.strings`.
    fn read_strings(&mut self, value: &Value) -> Result<(), BackendError> {
        let Strings { bytes, offsets } = &mut self.strings;
        bytes.clear();
        offsets.clear();
        let elements = tensor::elements(&self.shape).unwrap_or(0);
        if elements == 0 {
            return Ok(());
        }
        let mut length = 0;
        // SAFETY: the value is alive and a string tensor of `elements` elements; both buffers have the lengths
        // that are passed with them.
        unsafe {
            let status = (self.api.GetStringTensorDataLength)(value.pointer(), &mut length);
            check(self.api, status).map_err(Refusal::of_run)?;
            bytes.resize(length, 0);
            offsets.resize(elements, 0);
            let (text, starts) = (bytes.as_mut_ptr().cast(), offsets.as_mut_ptr());
            let status = (self.api.GetStringTensorContent)(value.pointer(), text, length, starts, elements);
            check(self.api, status).map_err(Refusal::of_run)
        }
    }

    /// Reads maps from class to score into `self.encoded`, a row each, and the shape of that.
    fn read_classes(
        &mut self,
        value: &Value,
        output: usize,
        rows: bool,
        key: DType,
    ) -> Result<(), BackendError> {
        self.encoded.clear();
        let mut count = 1;
        if rows {
            // SAFETY: the value is alive.
            let status = unsafe { (self.api.GetValueCount)(value.pointer(), &mut count) };
            check(self.api, status).map_err(Refusal::of_run)?;
        }
        for row in 0..count {
            let of_row = if rows { Some(self.part(value, row)?) } else { None };
            let map = of_row.as_ref().unwrap_or(value);
            let keys = self.part(map, 0)?;
            self.read_keys(&keys, output, key)?;
            let width = self.shape.first().copied().unwrap_or(0);
            let scores = self.part(map, 1)?;
            self.read_shape(&scores, DType::Fp32)?;
            if self.shape.first() != Some(&width) {
                return Err(BackendError::Execution(format!(
                    "an output has {width} classes and scores of shape {:?}",
                    self.shape
                )));
            }
            let data = self.data(&scores, DType::Fp32)?;
            self.encoded.extend_from_slice(data);
        }
        let width = match &self.classes[output] {
            Some(Classes::Numbers(keys)) => keys.len(),
            Some(Classes::Names(keys)) => keys.offsets.len(),
            None => 0,
        };
        self.shape.clear();
        self.shape.extend([count, width]);
        Ok(())
    }

    /// Checks that the keys are the columns of this output, and makes them so when there are none yet. The
    /// library's maps are ordered by key, ascending: numbers by value, texts by their bytes.
    fn read_keys(&mut self, keys: &Value, output: usize, key: DType) -> Result<(), BackendError> {
        self.read_shape(keys, key)?;
        let same = if key == DType::Bytes {
            self.read_strings(keys)?;
            match &self.classes[output] {
                Some(Classes::Names(known)) => *known == self.strings,
                Some(Classes::Numbers(_)) => false,
                None => {
                    self.classes[output] = Some(Classes::Names(self.strings.clone()));
                    true
                }
            }
        } else {
            let data = self.data(keys, key)?;
            let numbers = data.as_chunks::<8>().0.iter().map(|bytes| i64::from_ne_bytes(*bytes));
            match &self.classes[output] {
                Some(Classes::Numbers(known)) => numbers.eq(known.iter().copied()),
                Some(Classes::Names(_)) => false,
                None => {
                    self.classes[output] = Some(Classes::Numbers(numbers.collect()));
                    true
                }
            }
        };
        if same {
            return Ok(());
        }
        Err(BackendError::Execution(
            "the classes of an output differ from row to row, so they cannot be the columns of a tensor"
                .into(),
        ))
    }

    /// Part `index` of a sequence (an element) or of a map (0: keys, 1: values).
    fn part(&self, value: &Value, index: usize) -> Result<Value, BackendError> {
        let index = i32::try_from(index)
            .map_err(|_| BackendError::Execution("an output has too many rows".to_owned()))?;
        let mut part = std::ptr::null_mut();
        // SAFETY: the value is alive; the part is a value of its own, owned by the caller.
        let status = unsafe { (self.api.GetValue)(value.pointer(), index, self.allocator, &mut part) };
        check(self.api, status).map_err(Refusal::of_run)?;
        Value::take(self.api, &mut part)
            .ok_or_else(|| BackendError::Execution("an output has an empty part".to_owned()))
    }
}
