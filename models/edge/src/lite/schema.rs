//! The numbers of the public TFLite schema (schema.fbs): operators, types, options, and the places of fields in their
//! tables. Must not know how tables are written.

use crate::graph::{Activation, Op, Padding};

/// The four bytes that mark a TFLite file.
pub(crate) const IDENTIFIER: &[u8; 4] = b"TFL3";
/// The version of the schema.
pub(crate) const VERSION: u32 = 3;
/// The name of the metadata that hold a plan for TFLite-micro.
pub(crate) const PLAN_NAME: &str = "OfflineMemoryAllocation";
/// In the deprecated field of one byte: look at the other one.
pub(crate) const PLACEHOLDER: i32 = 127;

/// Places of fields.
pub(crate) mod field {
    pub(crate) mod model {
        pub(crate) const VERSION: u16 = 0;
        pub(crate) const OPERATOR_CODES: u16 = 1;
        pub(crate) const SUBGRAPHS: u16 = 2;
        pub(crate) const DESCRIPTION: u16 = 3;
        pub(crate) const BUFFERS: u16 = 4;
        pub(crate) const METADATA: u16 = 6;
    }
    pub(crate) mod operator_code {
        pub(crate) const DEPRECATED: u16 = 0;
        pub(crate) const CUSTOM: u16 = 1;
        pub(crate) const VERSION: u16 = 2;
        pub(crate) const BUILTIN: u16 = 3;
    }
    pub(crate) mod subgraph {
        pub(crate) const TENSORS: u16 = 0;
        pub(crate) const INPUTS: u16 = 1;
        pub(crate) const OUTPUTS: u16 = 2;
        pub(crate) const OPERATORS: u16 = 3;
    }
    pub(crate) mod tensor {
        pub(crate) const SHAPE: u16 = 0;
        pub(crate) const TYPE: u16 = 1;
        pub(crate) const BUFFER: u16 = 2;
        pub(crate) const NAME: u16 = 3;
        pub(crate) const QUANTIZATION: u16 = 4;
    }
    pub(crate) mod quantization {
        pub(crate) const SCALE: u16 = 2;
        pub(crate) const ZERO_POINT: u16 = 3;
        pub(crate) const DIMENSION: u16 = 6;
    }
    pub(crate) mod operator {
        pub(crate) const OPCODE: u16 = 0;
        pub(crate) const INPUTS: u16 = 1;
        pub(crate) const OUTPUTS: u16 = 2;
        pub(crate) const OPTIONS_TYPE: u16 = 3;
        pub(crate) const OPTIONS: u16 = 4;
    }
    pub(crate) mod metadata {
        pub(crate) const NAME: u16 = 0;
        pub(crate) const BUFFER: u16 = 1;
    }
    pub(crate) mod buffer {
        pub(crate) const DATA: u16 = 0;
    }
}

/// The types of tensors that are computed with here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// 32-bit floats.
    Float32,
    /// 32-bit integers.
    Int32,
    /// 64-bit integers.
    Int64,
    /// 8-bit codes.
    Int8,
    /// Any other, by its number.
    Other(i8),
}

impl Type {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Float32 => 0,
            Self::Int32 => 2,
            Self::Int64 => 4,
            Self::Int8 => 9,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn of_code(code: i8) -> Self {
        match code {
            0 => Self::Float32,
            2 => Self::Int32,
            4 => Self::Int64,
            9 => Self::Int8,
            other => Self::Other(other),
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 | Self::Int32 => 4,
            Self::Int64 => 8,
            Self::Int8 => 1,
            Self::Other(code) => match code {
                1 | 7 | 16 | 18 => 2,
                15 => 4,
                8 | 10 | 12 => 8,
                11 => 16,
                _ => 1,
            },
        }
    }

    /// The name in the schema.
    #[must_use]
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 19] = [
            "FLOAT32",
            "FLOAT16",
            "INT32",
            "UINT8",
            "INT64",
            "STRING",
            "BOOL",
            "INT16",
            "COMPLEX64",
            "INT8",
            "FLOAT64",
            "COMPLEX128",
            "UINT64",
            "RESOURCE",
            "VARIANT",
            "UINT32",
            "UINT16",
            "INT4",
            "BFLOAT16",
        ];
        usize::try_from(self.code()).ok().and_then(|code| NAMES.get(code).copied()).unwrap_or("UNKNOWN")
    }
}

/// The number of an operator.
pub(crate) fn operator_code(op: &Op) -> i32 {
    match op {
        Op::Add(_) => 0,
        Op::AveragePool2d(_) => 1,
        Op::Concat(_) => 2,
        Op::Conv2d(_) => 3,
        Op::DepthwiseConv2d(..) => 4,
        Op::Dequantize => 6,
        Op::FullyConnected(_) => 9,
        Op::Logistic => 14,
        Op::MaxPool2d(_) => 17,
        Op::Mul(_) => 18,
        Op::Clamp(Activation::ReluN1To1) => 20,
        Op::Clamp(Activation::Relu6) => 21,
        Op::Clamp(_) => 19,
        Op::Reshape => 22,
        Op::Softmax(_) => 25,
        Op::Tanh => 28,
        Op::Pad => 34,
        Op::Transpose => 39,
        Op::Mean { .. } => 40,
        Op::Sub(_) => 41,
        Op::LeakyRelu(_) => 98,
        Op::Quantize => 114,
        Op::HardSwish => 117,
        Op::Other(code) => *code,
    }
}

/// The kind of an operator's options; 0 where it has none that matter.
pub(crate) fn options_type(op: &Op) -> u8 {
    match op {
        Op::Conv2d(_) => 1,
        Op::DepthwiseConv2d(..) => 2,
        Op::MaxPool2d(_) | Op::AveragePool2d(_) => 5,
        Op::FullyConnected(_) => 8,
        Op::Softmax(_) => 9,
        Op::Concat(_) => 10,
        Op::Add(_) => 11,
        Op::Mul(_) => 21,
        Op::Mean { .. } => 27,
        Op::Sub(_) => 28,
        Op::LeakyRelu(_) => 75,
        _ => 0,
    }
}

/// The version of an operator that an interpreter must have, by what it is asked to compute.
pub(crate) fn operator_version(op: &Op, int8: bool, per_channel: bool) -> i32 {
    match op {
        Op::FullyConnected(_) if int8 && per_channel => 12,
        Op::FullyConnected(_) if int8 => 4,
        Op::Conv2d(_) | Op::DepthwiseConv2d(..) if int8 => 3,
        Op::Reshape | Op::HardSwish | Op::Quantize | Op::Other(_) => 1,
        Op::Dequantize => 2,
        _ if int8 => 2,
        _ => 1,
    }
}

pub(crate) fn activation_code(activation: Activation) -> u8 {
    match activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::ReluN1To1 => 2,
        Activation::Relu6 => 3,
    }
}

pub(crate) fn activation_of(code: u8) -> Option<Activation> {
    [Activation::None, Activation::Relu, Activation::ReluN1To1, Activation::Relu6]
        .get(usize::from(code))
        .copied()
}

/// SAME is 0; what is explicit must have been chosen before.
pub(crate) fn padding_code(padding: Padding) -> u8 {
    u8::from(padding != Padding::Same)
}

/// The name of an operator.
#[must_use]
pub fn operator_name(code: i32) -> String {
    let known = usize::try_from(code).ok().and_then(|code| NAMES.get(code)).filter(|name| !name.is_empty());
    known.map_or_else(|| format!("OPERATOR_{code}"), |name| (*name).to_owned())
}

#[rustfmt::skip]
const NAMES: [&str; 162] = [
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE",
    "DEQUANTIZE", "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP", "L2_NORMALIZATION",
    "L2_POOL_2D", "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION", "LSTM", "MAX_POOL_2D",
    "MUL", "RELU", "RELU_N1_TO_1", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RNN", "SOFTMAX",
    "SPACE_TO_DEPTH", "SVDF", "TANH", "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL", "CUSTOM",
    "EMBEDDING_LOOKUP_SPARSE", "PAD", "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND",
    "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN", "SUB", "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN", "EXP", "TOPK_V2", "SPLIT", "LOG_SOFTMAX", "DELEGATE",
    "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU", "MAXIMUM", "ARG_MAX", "MINIMUM", "LESS", "NEG",
    "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL", "SELECT", "SLICE", "SIN", "TRANSPOSE_CONV",
    "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL", "LOG", "SUM", "SQRT", "RSQRT", "SHAPE",
    "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX", "PACK", "LOGICAL_OR", "ONE_HOT",
    "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV", "REDUCE_ANY", "SQUARE",
    "ZEROS_LIKE", "FILL", "FLOOR_MOD", "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU",
    "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS", "SPLIT_V", "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N",
    "GATHER_ND", "COS", "WHERE", "RANK", "ELU", "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE",
    "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF", "WHILE", "NON_MAX_SUPPRESSION_V4",
    "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2", "DENSIFY", "SEGMENT_SUM", "BATCH_MATMUL",
    "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM", "CALL_ONCE", "BROADCAST_TO", "RFFT2D", "CONV_3D", "", "",
    "", "HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "REDUCE_ALL",
    "CONV_3D_TRANSPOSE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "BROADCAST_ARGS",
    "RANDOM_STANDARD_NORMAL", "BUCKETIZE", "RANDOM_UNIFORM", "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE",
    "RELU_0_TO_1", "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2",
    "UNSORTED_SEGMENT_MIN", "SIGN", "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT",
];
