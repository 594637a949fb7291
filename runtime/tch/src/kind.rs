//! Element types, here and there. Must not know values.

use gannet_models::DType;
use tch::Kind;

/// The library's type; `None` where its wrapper has none (unsigned integers beyond 8 bits) or the library itself has
/// none (texts).
pub(crate) fn kind_of(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::Bool => Kind::Bool,
        DType::Uint8 => Kind::Uint8,
        DType::Int8 => Kind::Int8,
        DType::Int16 => Kind::Int16,
        DType::Int32 => Kind::Int,
        DType::Int64 => Kind::Int64,
        DType::Fp16 => Kind::Half,
        DType::Bf16 => Kind::BFloat16,
        DType::Fp32 => Kind::Float,
        DType::Fp64 => Kind::Double,
        DType::Uint16 | DType::Uint32 | DType::Uint64 | DType::Bytes => return None,
    })
}

/// The protocol's type of a kind.
pub(crate) fn dtype_of(kind: Kind) -> Option<DType> {
    DType::all().find(|dtype| kind_of(*dtype) == Some(kind))
}
