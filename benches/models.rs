//! The models that the benchmarks serve: generated with fixed seeds, so that every machine measures the same nets, or
//! from the zoo. Must not know how they are served.

mod encoder;
mod mlp;
mod resnet;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::onnx::{self, Message};

/// A net of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Four features, 16 hidden units, three classes: as small as a model gets.
    Mlp,
    /// 30 features, 64 and 32 hidden units, two classes: a table's row.
    Mlp30,
    /// The zoo's convolutional net for 8 x 8 digits.
    Digits,
    /// The zoo's gradient-boosted trees over 30 features.
    Trees,
    /// A text encoder of MiniLM's size over 64 tokens: six layers of 384, 23 M parameters.
    Encoder,
    /// ResNet-50 over 224 x 224 images, 25.6 M parameters, its normalisation folded into the convolutions.
    Resnet50,
    /// One value out of a row of 602 KB.
    Wide,
}

/// One input of a net, without the batch axis.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Its name.
    pub name: &'static str,
    /// `FP32` or `INT64`.
    pub datatype: &'static str,
    /// Axes behind the batch axis.
    pub shape: &'static [usize],
    /// Values are drawn from zero up to this.
    pub below: f32,
}

impl Input {
    /// Values in one row.
    #[must_use]
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Net {
    /// The name that it is served under.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Mlp30 => "mlp30",
            Self::Digits => "digits",
            Self::Trees => "trees",
            Self::Encoder => "encoder",
            Self::Resnet50 => "resnet50",
            Self::Wide => "wide",
        }
    }

    /// What it takes.
    #[must_use]
    pub fn inputs(self) -> Vec<Input> {
        let floats = |name, shape| Input { name, datatype: "FP32", shape, below: 1.0 };
        match self {
            Self::Mlp => vec![floats("x", &[4])],
            Self::Mlp30 => vec![floats("x", &[30])],
            Self::Digits => vec![floats("image", &[1, 8, 8])],
            Self::Trees => vec![floats("features", &[30])],
            Self::Encoder => vec![
                Input { name: "input_ids", datatype: "INT64", shape: &[64], below: 30_522.0 },
                Input { name: "attention_mask", datatype: "INT64", shape: &[64], below: 2.0 },
            ],
            Self::Resnet50 => vec![floats("image", &[3, 224, 224])],
            Self::Wide => vec![floats("x", &[150_528])],
        }
    }

    /// Writes it into a model repository.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn put(self, repository: &Path) -> io::Result<()> {
        self.put_as(repository, self.name(), "1")
    }

    /// Writes it under another name and version.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn put_as(self, repository: &Path, name: &str, version: &str) -> io::Result<()> {
        let folder = repository.join(name).join(version);
        fs::create_dir_all(&folder)?;
        let file = folder.join("model.onnx");
        match self {
            Self::Mlp => fs::write(file, onnx::mlp()),
            Self::Mlp30 => fs::write(file, mlp::mlp30()),
            Self::Digits => fs::copy(zoo("digits/2/model.onnx"), file).map(drop),
            Self::Trees => fs::copy(zoo("breast_cancer/1/model.onnx"), file).map(drop),
            Self::Encoder => fs::write(file, encoder::encoder()),
            Self::Resnet50 => fs::write(file, resnet::resnet50()),
            Self::Wide => fs::write(file, mlp::wide()),
        }
    }

    /// A request of `rows` rows of random values, in the protocol's JSON.
    #[must_use]
    pub fn request(self, rows: usize, seed: u64) -> String {
        let mut random = Random::new(seed);
        let inputs: Vec<String> =
            self.inputs().iter().map(|input| json_input(input, rows, &mut random)).collect();
        format!("{{\"inputs\":[{}]}}", inputs.join(","))
    }
}

fn json_input(input: &Input, rows: usize, random: &mut Random) -> String {
    let value = |unit: f32| match input.datatype {
        "INT64" => format!("{}", (unit * input.below).floor()),
        _ => format!("{:.3}", unit * input.below),
    };
    let data: Vec<String> = (0..rows * input.values()).map(|_| value(random.unit())).collect();
    let shape: Vec<String> =
        std::iter::once(rows).chain(input.shape.iter().copied()).map(|axis| axis.to_string()).collect();
    format!(
        "{{\"name\":\"{}\",\"shape\":[{}],\"datatype\":\"{}\",\"data\":[{}]}}",
        input.name,
        shape.join(","),
        input.datatype,
        data.join(",")
    )
}

fn zoo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(path)
}

/// A seeded generator (splitmix64): the same values on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A graph while it is written.
#[derive(Debug)]
struct Graph {
    nodes: Vec<Message>,
    weights: Vec<Message>,
    random: Random,
    names: usize,
}

impl Graph {
    fn new(seed: u64) -> Self {
        Self { nodes: Vec::new(), weights: Vec::new(), random: Random::new(seed), names: 0 }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    /// A node of one output, which it names.
    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Message]) -> String {
        let output = self.name();
        self.nodes.push(onnx::node(op, inputs, &[&output], attributes));
        output
    }

    /// Random weights, uniform within `scale` of zero.
    fn weights(&mut self, shape: &[i64], scale: f32) -> String {
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let values: Vec<f32> = (0..count).map(|_| (self.random.unit() * 2.0 - 1.0) * scale).collect();
        self.constant(shape, &values)
    }

    fn constant(&mut self, shape: &[i64], values: &[f32]) -> String {
        let name = self.name();
        self.weights.push(onnx::weights(&name, shape, values));
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.weights.push(onnx::integers(&name, values));
        name
    }

    /// `x * W + b`, W of `from` rows and `to` columns.
    fn dense(&mut self, x: &str, from: i64, to: i64) -> String {
        let scale = (3.0 / from as f32).sqrt();
        let (w, b) = (self.weights(&[from, to], scale), self.weights(&[to], 0.02));
        let product = self.node("MatMul", &[x, &w], &[]);
        self.node("Add", &[&product, &b], &[])
    }

    /// The model whose output is `last`, called `output`.
    fn finish(mut self, last: &str, inputs: &[(&str, i64, &[&str])], output: &[&str]) -> Vec<u8> {
        self.nodes.push(onnx::node("Identity", &[last], &["output"], &[]));
        let inputs: Vec<Message> = inputs
            .iter()
            .map(|(name, element, shape)| onnx::value(name, &onnx::tensor(*element, shape)))
            .collect();
        onnx::model(&self.nodes, &self.weights, &inputs, &[onnx::value("output", &onnx::tensor(1, output))])
    }
}
