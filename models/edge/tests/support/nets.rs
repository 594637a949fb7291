//! The nets of the proof, written as ONNX from fixed seeds: the shapes of MLPerf Tiny's (keyword spotting, visual wake
//! words, image classification, anomaly detection) and a one-dimensional keyword spotter. Their weights are random, so
//! they say nothing about accuracy; the trained one is the zoo's. Must not know the compiler, but for its messages.
//!
//! Random numbers are sums of uniform ones: no function of the system's library is called, so that every machine
//! writes the same bytes.

use std::{fs, path::Path};

use gannet_edge::onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use prost::Message as _;

/// A repeatable source of numbers (the 64-bit generator of Steele, Lea and Flood, 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1, nearly normal: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        ((0..12).map(|_| self.uniform()).sum::<f64>() - 6.0) as f32
    }

    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

/// A graph being written.
pub struct Net {
    pub graph: GraphProto,
    pub random: Random,
    /// The current value and its shape.
    pub at: String,
    pub shape: Vec<usize>,
    /// The version of the operator set.
    pub opset: i64,
}

pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|value| *value as i64).collect();
    AttributeProto { name: name.into(), ints, r#type: 7, ..AttributeProto::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: value, r#type: 2, ..AttributeProto::default() }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: value, r#type: 1, ..AttributeProto::default() }
}

fn info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = |value: &usize| DimensionProto { dim_value: Some(*value as i64), dim_param: None };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: 1, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

impl Net {
    pub fn new(name: &str, shape: &[usize], seed: u64) -> Self {
        let input = vec![info("input", shape)];
        let graph = GraphProto { name: name.into(), input, ..GraphProto::default() };
        Self { graph, random: Random::new(seed), at: "input".into(), shape: shape.to_vec(), opset: 13 }
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = shape.iter().map(|len| *len as i64).collect();
        let tensor =
            TensorProto { name: name.into(), dims, data_type: 1, raw_data, ..TensorProto::default() };
        self.graph.initializer.push(tensor);
        name.into()
    }

    pub fn int_tensor(&mut self, name: &str, values: &[i64]) -> String {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = vec![values.len() as i64];
        let tensor =
            TensorProto { name: name.into(), dims, data_type: 7, raw_data, ..TensorProto::default() };
        self.graph.initializer.push(tensor);
        name.into()
    }

    /// A node on the current value and further inputs; its output becomes the current value.
    pub fn node(&mut self, operator: &str, more: &[String], attribute: Vec<AttributeProto>) {
        let name = format!("{}_{}", operator.to_lowercase(), self.graph.node.len());
        let output = format!("{name}_out");
        let input = [self.at.clone()].into_iter().chain(more.iter().cloned()).collect();
        let output_list = vec![output.clone()];
        let op_type = operator.into();
        self.graph.node.push(NodeProto {
            input,
            output: output_list,
            name,
            op_type,
            attribute,
            domain: String::new(),
        });
        self.at = output;
    }

    /// Weights as an initialiser draws them (He et al., 2015).
    pub fn weights(&mut self, shape: &[usize], fan_in: usize) -> String {
        let deviation = (2.0 / fan_in as f64).sqrt() as f32;
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| self.random.normal() * deviation).collect();
        let name = format!("w{}", self.graph.initializer.len());
        self.tensor(&name, shape, &values)
    }

    pub fn bias(&mut self, count: usize) -> String {
        let values: Vec<f32> = (0..count).map(|_| self.random.normal() * 0.05).collect();
        let name = format!("b{}", self.graph.initializer.len());
        self.tensor(&name, &[count], &values)
    }

    /// A convolution over all spatial axes, of PyTorch's kind of padding.
    pub fn conv(
        &mut self,
        out: usize,
        kernel: &[usize],
        stride: usize,
        pads: &[usize],
        group: usize,
        with_bias: bool,
    ) {
        let inner = self.shape[1] / group;
        let mut shape = vec![out, inner];
        shape.extend(kernel);
        let fan_in = inner * kernel.iter().product::<usize>();
        let mut inputs = vec![self.weights(&shape, fan_in)];
        if with_bias {
            inputs.push(self.bias(out));
        }
        let strides = vec![stride; kernel.len()];
        let attributes = vec![
            ints("kernel_shape", kernel),
            ints("strides", &strides),
            ints("pads", pads),
            int("group", group as i64),
        ];
        self.node("Conv", &inputs, attributes);
        self.shape[1] = out;
        for (axis, length) in kernel.iter().enumerate() {
            let padded = self.shape[axis + 2] + pads[axis] + pads[axis + kernel.len()];
            self.shape[axis + 2] = (padded - length) / stride + 1;
        }
    }

    pub fn batch_norm(&mut self) {
        let channels = self.shape[1];
        let mut draw = |mean: f32, spread: f32| -> Vec<f32> {
            (0..channels).map(|_| mean + spread * (self.random.uniform() as f32 * 2.0 - 1.0)).collect()
        };
        let parts = [draw(1.0, 0.3), draw(0.1, 0.2), draw(0.0, 0.2), draw(1.0, 0.3)];
        let names = ["scale", "offset", "mean", "variance"];
        let count = self.graph.initializer.len();
        let inputs: Vec<String> = names
            .iter()
            .zip(&parts)
            .map(|(name, values)| self.tensor(&format!("{name}{count}"), &[channels], values))
            .collect();
        self.node("BatchNormalization", &inputs, vec![float("epsilon", 1e-3)]);
    }

    pub fn relu(&mut self) {
        self.node("Relu", &[], Vec::new());
    }

    pub fn conv_bn_relu(
        &mut self,
        out: usize,
        kernel: &[usize],
        stride: usize,
        pads: &[usize],
        group: usize,
    ) {
        self.conv(out, kernel, stride, pads, group, false);
        self.batch_norm();
        self.relu();
    }

    pub fn flatten(&mut self) {
        self.node("Flatten", &[], vec![int("axis", 1)]);
        self.shape = vec![1, self.shape.iter().product()];
    }

    pub fn gemm(&mut self, out: usize) {
        let inner = self.shape[1];
        let inputs = [self.weights(&[out, inner], inner), self.bias(out)];
        self.node("Gemm", &inputs, vec![int("transB", 1)]);
        self.shape = vec![1, out];
    }

    pub fn global_average(&mut self) {
        self.node("GlobalAveragePool", &[], Vec::new());
        self.shape.iter_mut().skip(2).for_each(|len| *len = 1);
    }

    pub fn softmax(&mut self) {
        self.node("Softmax", &[], vec![int("axis", 1)]);
    }

    pub fn finish(mut self) -> Vec<u8> {
        let name = self.at.clone();
        self.graph.output.push(info(&name, &self.shape));
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: self.opset }];
        let producer_name = "gannet".into();
        ModelProto { ir_version: 8, producer_name, graph: Some(self.graph), opset_import }.encode_to_vec()
    }
}

/// The names of the nets that are drawn here.
pub const NAMES: [&str; 5] = ["dscnn", "mobilenet", "resnet8", "autoencoder", "kws1d"];
/// The zoo's trained nets.
pub const TRAINED: [&str; 2] = ["digits", "digits2"];

fn zoo(version: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/digits").join(version).join("model.onnx");
    fs::read(path).expect("the zoo lies in the repository")
}

/// The bytes of a net.
pub fn onnx(name: &str) -> Vec<u8> {
    match name {
        "dscnn" => dscnn(),
        "mobilenet" => mobilenet(),
        "resnet8" => resnet8(),
        "autoencoder" => autoencoder(),
        "kws1d" => kws1d(),
        "digits" => zoo("1"),
        "digits2" => zoo("2"),
        _ => panic!("no net is called {name}"),
    }
}

/// The shape of one sample.
pub fn input_shape(name: &str) -> Vec<usize> {
    match name {
        "digits" | "digits2" => vec![1, 8, 8],
        "dscnn" => vec![1, 49, 10],
        "mobilenet" => vec![3, 96, 96],
        "resnet8" => vec![3, 32, 32],
        "autoencoder" => vec![640],
        "kws1d" => vec![10, 49],
        _ => panic!("no net is called {name}"),
    }
}

/// Samples as the nets are calibrated and scored with them: nearly normal, another seed for each purpose.
pub fn samples(name: &str, count: usize, seed: u64) -> Vec<f32> {
    Random::new(seed).normals(count * input_shape(name).iter().product::<usize>())
}

fn dscnn() -> Vec<u8> {
    let mut net = Net::new("dscnn", &[1, 1, 49, 10], 11);
    net.conv_bn_relu(64, &[10, 4], 2, &[4, 1, 5, 1], 1);
    for _ in 0..4 {
        net.conv_bn_relu(64, &[3, 3], 1, &[1, 1, 1, 1], 64);
        net.conv_bn_relu(64, &[1, 1], 1, &[0, 0, 0, 0], 1);
    }
    net.global_average();
    net.flatten();
    net.gemm(12);
    net.softmax();
    net.finish()
}

fn mobilenet() -> Vec<u8> {
    let mut net = Net::new("mobilenet", &[1, 3, 96, 96], 12);
    net.conv_bn_relu(8, &[3, 3], 2, &[1, 1, 1, 1], 1);
    let blocks = [
        (16, 1),
        (32, 2),
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        (128, 1),
        (128, 1),
        (128, 1),
        (128, 1),
        (128, 1),
        (256, 2),
        (256, 1),
    ];
    for (out, stride) in blocks {
        let channels = net.shape[1];
        net.conv_bn_relu(channels, &[3, 3], stride, &[1, 1, 1, 1], channels);
        net.conv_bn_relu(out, &[1, 1], 1, &[0, 0, 0, 0], 1);
    }
    net.global_average();
    net.flatten();
    net.gemm(2);
    net.softmax();
    net.finish()
}

fn resnet8() -> Vec<u8> {
    let mut net = Net::new("resnet8", &[1, 3, 32, 32], 13);
    net.conv_bn_relu(16, &[3, 3], 1, &[1, 1, 1, 1], 1);
    for (out, stride) in [(16, 1), (32, 2), (64, 2)] {
        let (start, shape) = (net.at.clone(), net.shape.clone());
        net.conv_bn_relu(out, &[3, 3], stride, &[1, 1, 1, 1], 1);
        net.conv(out, &[3, 3], 1, &[1, 1, 1, 1], 1, false);
        net.batch_norm();
        let (main, end) = (net.at.clone(), net.shape.clone());
        (net.at, net.shape) = (start, shape);
        if stride != 1 {
            net.conv(out, &[1, 1], stride, &[0, 0, 0, 0], 1, true);
        }
        net.shape = end;
        net.node("Add", &[main], Vec::new());
        net.relu();
    }
    net.global_average();
    net.flatten();
    net.gemm(10);
    net.softmax();
    net.finish()
}

fn autoencoder() -> Vec<u8> {
    let mut net = Net::new("autoencoder", &[1, 640], 14);
    for out in [128, 128, 128, 128, 8, 128, 128, 128, 128] {
        net.gemm(out);
        net.batch_norm();
        net.relu();
    }
    net.gemm(640);
    net.finish()
}

fn kws1d() -> Vec<u8> {
    let mut net = Net::new("kws1d", &[1, 10, 49], 15);
    net.conv_bn_relu(48, &[5], 2, &[2, 2], 1);
    for _ in 0..2 {
        net.conv_bn_relu(48, &[3], 1, &[1, 1], 48);
        net.conv_bn_relu(48, &[1], 1, &[0, 0], 1);
    }
    net.global_average();
    net.flatten();
    net.gemm(12);
    net.softmax();
    net.finish()
}
