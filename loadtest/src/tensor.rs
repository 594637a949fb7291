//! Tensors as the protocol has them: data types, values as little-endian bytes, values as JSON.
//!
//! Must not know where values come from or where they go.

use serde_json::{Value, json};

use crate::random::Random;

/// Random integers lie below this, so that they are valid indices into small vocabularies.
const RANDOM_INTEGER_LIMIT: u64 = 100;
/// Letters of a random BYTES element.
const RANDOM_BYTES_LENGTH: usize = 8;

/// Data types of the protocol, BF16 included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub(crate) enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

const DATA_TYPES: [(&str, DataType); 14] = [
    ("BOOL", DataType::Bool),
    ("UINT8", DataType::Uint8),
    ("UINT16", DataType::Uint16),
    ("UINT32", DataType::Uint32),
    ("UINT64", DataType::Uint64),
    ("INT8", DataType::Int8),
    ("INT16", DataType::Int16),
    ("INT32", DataType::Int32),
    ("INT64", DataType::Int64),
    ("FP16", DataType::Fp16),
    ("BF16", DataType::Bf16),
    ("FP32", DataType::Fp32),
    ("FP64", DataType::Fp64),
    ("BYTES", DataType::Bytes),
];

impl DataType {
    /// The type of a wire name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        DATA_TYPES.iter().find(|(known, _)| *known == name).map(|(_, datatype)| *datatype)
    }

    /// Its wire name.
    pub(crate) fn name(self) -> &'static str {
        DATA_TYPES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Bytes of an element; `None` for BYTES.
    pub(crate) fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Appends a number as an element; false when the type cannot hold it.
    pub(crate) fn put_number(self, output: &mut Vec<u8>, number: Number) -> bool {
        macro_rules! integer {
            ($type:ty) => {
                match <$type>::try_from(number.integer) {
                    Ok(value) if number.is_integer => output.extend_from_slice(&value.to_le_bytes()),
                    _ => return false,
                }
            };
        }
        match self {
            Self::Bool => output.push(u8::from(number.real != 0.0)),
            Self::Uint8 => integer!(u8),
            Self::Uint16 => integer!(u16),
            Self::Uint32 => integer!(u32),
            Self::Uint64 => integer!(u64),
            Self::Int8 => integer!(i8),
            Self::Int16 => integer!(i16),
            Self::Int32 => integer!(i32),
            Self::Int64 => integer!(i64),
            Self::Fp32 => output.extend_from_slice(&(number.real as f32).to_le_bytes()),
            Self::Fp64 => output.extend_from_slice(&number.real.to_le_bytes()),
            Self::Fp16 => output.extend_from_slice(&half_bits(number.real as f32).to_le_bytes()),
            // Truncation of an FP32: good enough for load.
            Self::Bf16 => {
                output.extend_from_slice(&((number.real as f32).to_bits() >> 16).to_le_bytes()[..2])
            }
            Self::Bytes => return false,
        }
        true
    }

    fn put_random(self, output: &mut Vec<u8>, random: &mut Random) {
        match self {
            Self::Bytes => {
                put_bytes(output, &[0; RANDOM_BYTES_LENGTH]);
                let start = output.len() - RANDOM_BYTES_LENGTH;
                output[start..].fill_with(|| b'a' + random.next_below(26) as u8);
            }
            Self::Bool => output.push(random.next_below(2) as u8),
            Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64 => {
                self.put_number(output, Number::real(random.next_unit()));
            }
            _ => {
                let integer = random.next_below(RANDOM_INTEGER_LIMIT);
                self.put_number(output, Number::integer(i128::from(integer)));
            }
        }
    }
}

/// A number on its way into a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number {
    real: f64,
    integer: i128,
    is_integer: bool,
}

impl Number {
    pub(crate) fn integer(integer: i128) -> Self {
        Self { real: integer as f64, integer, is_integer: true }
    }

    /// A real; one without a fraction is an integer too.
    pub(crate) fn real(real: f64) -> Self {
        Self { real, integer: real as i128, is_integer: real.fract() == 0.0 }
    }

    /// Reads decimal text, `true` and `false`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "True" => return Some(Self::integer(1)),
            "false" | "False" => return Some(Self::integer(0)),
            _ => {}
        }
        text.parse().map(Self::integer).or_else(|_| text.parse().map(Self::real)).ok()
    }
}

/// Appends an element of BYTES: its length, then its bytes.
pub(crate) fn put_bytes(output: &mut Vec<u8>, bytes: &[u8]) {
    output.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    output.extend_from_slice(bytes);
}

/// FP16 of an FP32, rounded to nearest; too small becomes 0, too large infinity.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 112;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        _ if value.is_nan() => sign | 0x7e00,
        31.. => sign | 0x7c00,
        ..=0 => sign,
        _ => sign | ((((exponent as u32) << 10 | mantissa >> 13) + (mantissa >> 12 & 1)) as u16),
    }
}

/// A tensor with its values: row major, little endian, BYTES with length prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    /// The input's name.
    pub name: String,
    /// Its type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub data: Vec<u8>,
}

impl Tensor {
    /// Seeded random values: reals in [0, 1), integers below 100, 8 letters for BYTES.
    pub(crate) fn random(name: &str, datatype: DataType, shape: &[usize], random: &mut Random) -> Self {
        let elements = shape.iter().product();
        let mut data = Vec::new();
        (0..elements).for_each(|_| datatype.put_random(&mut data, random));
        Self { name: name.to_string(), datatype, shape: shape.to_vec(), data }
    }

    /// The values as a flat JSON array; `None` for FP16 and BF16, which JSON cannot carry, and for
    /// BYTES that are not UTF-8.
    pub(crate) fn json_values(&self) -> Option<Vec<Value>> {
        macro_rules! values {
            ($type:ty) => {
                self.data.as_chunks().0.iter().map(|bytes| json!(<$type>::from_le_bytes(*bytes))).collect()
            };
        }
        Some(match self.datatype {
            DataType::Bool => self.data.iter().map(|byte| json!(*byte != 0)).collect(),
            DataType::Uint8 => self.data.iter().map(|byte| json!(*byte)).collect(),
            DataType::Int8 => values!(i8),
            DataType::Uint16 => values!(u16),
            DataType::Uint32 => values!(u32),
            DataType::Uint64 => values!(u64),
            DataType::Int16 => values!(i16),
            DataType::Int32 => values!(i32),
            DataType::Int64 => values!(i64),
            DataType::Fp32 => {
                self.data.as_chunks().0.iter().map(|bytes| short_real(f32::from_le_bytes(*bytes))).collect()
            }
            DataType::Fp64 => values!(f64),
            DataType::Fp16 | DataType::Bf16 => return None,
            DataType::Bytes => {
                let mut values = Vec::new();
                let mut rest = &self.data[..];
                while let Some((length, tail)) = rest.split_first_chunk() {
                    let length = u32::from_le_bytes(*length) as usize;
                    let (bytes, tail) = tail.split_at_checked(length)?;
                    values.push(json!(str::from_utf8(bytes).ok()?));
                    rest = tail;
                }
                values
            }
        })
    }
}

/// The shortest decimal that reads back as the same FP32, not the FP64 it widens to.
fn short_real(value: f32) -> Value {
    let real: f64 = value.to_string().parse().unwrap_or(f64::from(value));
    json!(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(datatype: DataType, text: &str, expected: Option<&[u8]>) {
        let mut output = Vec::new();
        let number = Number::parse(text).unwrap();
        let fits = datatype.put_number(&mut output, number);
        assert_eq!(fits.then_some(&output[..]), expected, "{datatype:?} {text}");
    }

    #[test]
    fn numbers_become_elements() {
        check(DataType::Uint8, "255", Some(&[255]));
        check(DataType::Uint8, "256", None);
        check(DataType::Int8, "-1", Some(&[255]));
        check(DataType::Int32, "3.0", Some(&[3, 0, 0, 0]));
        check(DataType::Int32, "3.5", None);
        check(DataType::Uint64, "18446744073709551615", Some(&[255; 8]));
        check(DataType::Bool, "true", Some(&[1]));
        check(DataType::Fp32, "1", Some(&1f32.to_le_bytes()));
        check(DataType::Fp16, "1", Some(&0x3c00u16.to_le_bytes()));
        check(DataType::Fp16, "65504", Some(&0x7bffu16.to_le_bytes()));
        check(DataType::Fp16, "-0.333251953125", Some(&0xb555u16.to_le_bytes()));
        check(DataType::Fp16, "1e9", Some(&0x7c00u16.to_le_bytes()));
        check(DataType::Bf16, "1", Some(&[0x80, 0x3f]));
        check(DataType::Bytes, "1", None);
    }

    #[test]
    fn random_tensors_repeat_and_fill_their_shape() {
        for (name, datatype) in DATA_TYPES {
            assert_eq!(DataType::parse(name), Some(datatype));
            assert_eq!(datatype.name(), name);
            let draw = || Tensor::random("x", datatype, &[3, 2], &mut Random::new(1));
            assert_eq!(draw(), draw());
            assert_eq!(draw().data.len(), 6 * datatype.element_bytes().unwrap_or(12));
            let values = draw().json_values().map(|values| values.len());
            let in_json = !matches!(datatype, DataType::Fp16 | DataType::Bf16);
            assert_eq!(values, in_json.then_some(6));
        }
    }

    #[test]
    fn json_keeps_the_shortest_form() {
        assert_eq!(short_real(0.1).to_string(), "0.1");
        let tensor = Tensor {
            name: "x".into(),
            datatype: DataType::Bytes,
            shape: vec![1],
            data: b"\x02\0\0\0hi".to_vec(),
        };
        assert_eq!(tensor.json_values(), Some(vec![json!("hi")]));
    }
}
