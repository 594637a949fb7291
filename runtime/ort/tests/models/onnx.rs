//! Writes small ONNX files: the few fields of the format that the tests need, field numbers from onnx.proto3.
//! Must not know the crate under test.

use gannet_models::DType;

/// A message in the protocol-buffer encoding.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub(crate) fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    pub(crate) fn all<T: AsRef<[u8]>>(self, field: u64, values: impl IntoIterator<Item = T>) -> Self {
        values.into_iter().fold(self, |message, value| message.bytes(field, value))
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The format's number of an element type.
pub(crate) fn element(dtype: DType) -> i64 {
    match dtype {
        DType::Fp32 => 1,
        DType::Uint8 => 2,
        DType::Int8 => 3,
        DType::Uint16 => 4,
        DType::Int16 => 5,
        DType::Int32 => 6,
        DType::Int64 => 7,
        DType::Bytes => 8,
        DType::Bool => 9,
        DType::Fp16 => 10,
        DType::Fp64 => 11,
        DType::Uint32 => 12,
        DType::Uint64 => 13,
        DType::Bf16 => 16,
    }
}

/// A tensor's type; an axis that is no number is a symbol, an empty one is unknown.
pub(crate) fn tensor(element: i64, shape: &[&str]) -> Message {
    let axes = shape.iter().map(|axis| match axis.parse::<i64>() {
        Ok(length) => Message::default().int(1, length),
        Err(_) if axis.is_empty() => Message::default(),
        Err(_) => Message::default().bytes(2, axis),
    });
    Message::default().bytes(1, Message::default().int(1, element).bytes(2, Message::default().all(1, axes)))
}

pub(crate) fn sequence(of: &Message) -> Message {
    Message::default().bytes(4, Message::default().bytes(1, of))
}

pub(crate) fn map(key: i64, value: &Message) -> Message {
    Message::default().bytes(5, Message::default().int(1, key).bytes(2, value))
}

pub(crate) fn optional(of: &Message) -> Message {
    Message::default().bytes(9, Message::default().bytes(1, of))
}

/// An input or output.
pub(crate) fn value(name: &str, kind: &Message) -> Message {
    Message::default().bytes(1, name).bytes(2, kind)
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    let domain = if op == "ZipMap" { "ai.onnx.ml" } else { "" };
    Message::default().all(1, inputs).all(2, outputs).bytes(4, op).bytes(7, domain).all(5, attributes)
}

pub(crate) fn attribute_int(name: &str, value: i64) -> Message {
    Message::default().bytes(1, name).int(3, value).int(20, 2)
}

pub(crate) fn attribute_float(name: &str, value: f32) -> Message {
    Message::default().bytes(1, name).float(2, value).int(20, 1)
}

pub(crate) fn attribute_ints(name: &str, values: &[i64]) -> Message {
    let message = Message::default().bytes(1, name).int(20, 7);
    values.iter().fold(message, |message, &value| message.int(8, value))
}

pub(crate) fn attribute_strings(name: &str, values: &[&str]) -> Message {
    Message::default().bytes(1, name).int(20, 8).all(9, values)
}

/// Constant FP32 values.
pub(crate) fn weights(name: &str, shape: &[i64], values: &[f32]) -> Message {
    let message = shape.iter().fold(Message::default(), |message, &length| message.int(1, length));
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    message.int(2, 1).bytes(8, name).bytes(9, raw)
}

/// Constant INT64 values along one axis.
pub(crate) fn integers(name: &str, values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Message::default().int(1, values.len() as i64).int(2, 7).bytes(8, name).bytes(9, raw)
}

/// Constant FP32 values in a file beside the model.
pub(crate) fn external_weights(name: &str, shape: &[i64], file: &str) -> Message {
    let message = shape.iter().fold(Message::default(), |message, &length| message.int(1, length));
    let location = Message::default().bytes(1, "location").bytes(2, file);
    message.int(2, 1).bytes(8, name).bytes(13, location).int(14, 1)
}

/// A whole model.
pub(crate) fn model(
    nodes: &[Message],
    weights: &[Message],
    inputs: &[Message],
    outputs: &[Message],
) -> Vec<u8> {
    let graph =
        Message::default().all(1, nodes).bytes(2, "graph").all(5, weights).all(11, inputs).all(12, outputs);
    let opset = |domain: &str, version| Message::default().bytes(1, domain).int(2, version);
    Message::default().int(1, 8).bytes(7, graph).all(8, [opset("", 17), opset("ai.onnx.ml", 3)]).0
}

/// `y = x`.
pub(crate) fn identity(dtype: DType, shape: &[&str]) -> Vec<u8> {
    let kind = tensor(element(dtype), shape);
    model(&[node("Identity", &["x"], &["y"], &[])], &[], &[value("x", &kind)], &[value("y", &kind)])
}

/// Class probabilities of four features: 4-16-3, weights from a fixed formula.
pub(crate) fn mlp() -> Vec<u8> {
    let formula =
        |count: usize| -> Vec<f32> { (0..count).map(|i| ((i * 7 % 13) as f32 - 6.0) / 10.0).collect() };
    let nodes = [
        node("Gemm", &["x", "w1", "b1"], &["h"], &[]),
        node("Relu", &["h"], &["r"], &[]),
        node("Gemm", &["r", "w2", "b2"], &["z"], &[]),
        node("Softmax", &["z"], &["probabilities"], &[]),
    ];
    let constants = [
        weights("w1", &[4, 16], &formula(64)),
        weights("b1", &[16], &formula(16)),
        weights("w2", &[16, 3], &formula(48)),
        weights("b2", &[3], &formula(3)),
    ];
    let (x, y) = (tensor(1, &["batch", "4"]), tensor(1, &["batch", "3"]));
    model(&nodes, &constants, &[value("x", &x)], &[value("probabilities", &y)])
}
