//! Element types of tensors, with the names each protocol gives them. Must not know tensors themselves.

use std::fmt;

/// Element type, as the Open Inference Protocol lists them, plus `BF16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are the protocol's own names")]
pub enum DType {
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
    /// Byte strings of any length; on the wire each has a 4-byte little-endian length before it.
    Bytes,
}

/// (type, name on the wire, name in Triton's configuration, bytes an element)
const TABLE: [(DType, &str, &str, usize); 14] = [
    (DType::Bool, "BOOL", "TYPE_BOOL", 1),
    (DType::Uint8, "UINT8", "TYPE_UINT8", 1),
    (DType::Uint16, "UINT16", "TYPE_UINT16", 2),
    (DType::Uint32, "UINT32", "TYPE_UINT32", 4),
    (DType::Uint64, "UINT64", "TYPE_UINT64", 8),
    (DType::Int8, "INT8", "TYPE_INT8", 1),
    (DType::Int16, "INT16", "TYPE_INT16", 2),
    (DType::Int32, "INT32", "TYPE_INT32", 4),
    (DType::Int64, "INT64", "TYPE_INT64", 8),
    (DType::Fp16, "FP16", "TYPE_FP16", 2),
    (DType::Bf16, "BF16", "TYPE_BF16", 2),
    (DType::Fp32, "FP32", "TYPE_FP32", 4),
    (DType::Fp64, "FP64", "TYPE_FP64", 8),
    (DType::Bytes, "BYTES", "TYPE_STRING", 0),
];

impl DType {
    /// Every type, in the order of the protocol's list.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (DType, &'static str, &'static str, usize) {
        &TABLE[self as usize]
    }

    /// The name on the wire, such as `FP32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The name in a model configuration, such as `TYPE_FP32`.
    #[must_use]
    pub fn config_name(self) -> &'static str {
        self.row().2
    }

    /// Bytes an element, or `None` for [`DType::Bytes`], whose elements vary.
    #[must_use]
    pub fn size_bytes(self) -> Option<usize> {
        Some(self.row().3).filter(|&size| size > 0)
    }

    /// The type of that wire name (`FP32`) or configuration name (`TYPE_FP32`).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name || row.2 == name).map(|row| row.0)
    }

    /// Whether the type is an integer, signed or not.
    #[must_use]
    pub fn is_integer(self) -> bool {
        (Self::Uint8..=Self::Int64).contains(&self)
    }

    /// Whether the type is floating-point.
    #[must_use]
    pub fn is_float(self) -> bool {
        (Self::Fp16..=Self::Fp64).contains(&self)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_indexed_by_the_type_itself() {
        for dtype in DType::all() {
            assert_eq!(dtype.row().0, dtype);
            assert_eq!(DType::parse(dtype.name()), Some(dtype));
            assert_eq!(DType::parse(dtype.config_name()), Some(dtype));
        }
        assert_eq!(DType::parse("float"), None);
    }
}
