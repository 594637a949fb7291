//! The cases as they are written down. Must not know how they are carried out.

use gannet_models::{DType, settings::TensorDeclaration};
use gannet_runtime::tensor;
use serde::Deserialize;

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// What every backend must have in its format.
    pub models: Vec<Model>,
    dtypes: Vec<Elements>,
    /// In the order in which they are run.
    pub cases: Vec<Case>,
}

/// A model: output i is input i plus a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Such as `add_one`.
    pub name: String,
    /// In order.
    pub inputs: Vec<Tensor>,
    /// In order.
    pub outputs: Vec<Tensor>,
    /// What is added.
    pub adds: i32,
    /// An element that a run must refuse.
    pub refuses: Option<i32>,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// All axes, -1 for a variable one.
    pub axes: Vec<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elements {
    dtype: String,
    elements: Vec<Element>,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// The model it is tried with.
    pub model: String,
    /// What is done with it.
    #[serde(flatten)]
    pub check: Check,
}

/// What is done with a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "check", rename_all = "snake_case")]
pub enum Check {
    Runs { runs: Vec<Run> },
    Metadata,
    Unaligned,
    Deterministic { rounds: usize },
    SideBySide { threads: usize, rounds: usize },
    ReceiverPanics,
    RefusedFile { content: Content },
    MissingDevice,
    Served { requests: usize, dropped: usize },
    Unloads { rounds: usize, growth_kib_max: u64 },
}

/// What stands where a model should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    Empty,
    Text,
    Half,
    Zeros,
    Missing,
    Folder,
}

/// One run of an instance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// In the model's order.
    pub inputs: Vec<Value>,
    /// In the model's order.
    #[serde(default)]
    pub outputs: Vec<Value>,
    /// The class of the error that it must end with.
    pub fails: Option<Fault>,
}

/// Classes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The request's.
    Input,
    /// The engine's, or its caller's.
    Execution,
}

/// A tensor's value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// Lengths of its axes.
    pub shape: Vec<usize>,
    /// Row by row.
    pub elements: Vec<Element>,
    /// Another type than the model's.
    pub dtype: Option<String>,
}

/// One element.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Element {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Suite {
    /// Reads the data that this crate carries; the cases of the element types are made of their table.
    ///
    /// # Errors
    /// A text naming the line.
    pub fn read() -> Result<Self, String> {
        let mut suite: Self =
            toml::from_str(include_str!("../suite.toml")).map_err(|error| error.to_string())?;
        let mut cases = Vec::new();
        for Elements { dtype, elements } in std::mem::take(&mut suite.dtypes) {
            let model = format!("identity_{}", dtype.to_lowercase());
            let tensor = |name: &str| Tensor::try_from(format!("{name} {dtype} -1 2"));
            let (inputs, outputs) = (vec![tensor("x")?], vec![tensor("y")?]);
            suite.models.push(Model { name: model.clone(), inputs, outputs, adds: 0, refuses: None });
            let value = vec![Value { shape: vec![2, 2], elements, dtype: None }];
            let run = Run { inputs: value.clone(), outputs: value, fails: None };
            let name = format!("elements of {dtype}");
            cases.push(Case { name, model, check: Check::Runs { runs: vec![run.clone(), run] } });
        }
        suite.cases.splice(0..0, cases);
        Ok(suite)
    }

    /// A model of the table.
    ///
    /// # Errors
    /// A text when there is none of that name.
    pub fn model(&self, name: &str) -> Result<&Model, String> {
        self.models
            .iter()
            .find(|model| model.name == name)
            .ok_or_else(|| format!("there is no model '{name}'"))
    }
}

impl Model {
    /// Whether every tensor has a variable first axis, which then is the batch axis.
    #[must_use]
    pub fn batched(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(|tensor| tensor.axes.first() == Some(&-1))
    }

    /// Inputs and outputs as a configuration states them.
    #[must_use]
    pub fn declared(&self) -> (Vec<TensorDeclaration>, Vec<TensorDeclaration>) {
        let without = usize::from(self.batched());
        let declaration = |tensor: &Tensor| TensorDeclaration {
            name: tensor.name.clone(),
            dtype: Some(tensor.dtype),
            dims: Some(tensor.axes[without..].to_vec()),
            labels: None,
        };
        (self.inputs.iter().map(declaration).collect(), self.outputs.iter().map(declaration).collect())
    }
}

impl TryFrom<String> for Tensor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or("a tensor has no name")?.to_owned();
        let dtype =
            words.next().and_then(DType::parse).ok_or_else(|| format!("'{text}': no element type"))?;
        let axes = words.map(|word| word.parse().map_err(|_| format!("'{text}': no axis: {word}")));
        Ok(Self { name, dtype, axes: axes.collect::<Result<_, _>>()? })
    }
}

impl Value {
    /// The elements as bytes of `dtype`.
    ///
    /// # Errors
    /// A text when an element is none of that type.
    pub fn bytes(&self, dtype: DType) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for element in &self.elements {
            element.push(dtype, &mut bytes).ok_or_else(|| format!("{element:?} is no {dtype}"))?;
        }
        Ok(bytes)
    }
}

impl Element {
    fn push(&self, dtype: DType, out: &mut Vec<u8>) -> Option<()> {
        let integer = || match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        };
        let number = || match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        };
        match (dtype, self) {
            (DType::Bytes, Self::Text(text)) => tensor::push_byte_element(out, text.as_bytes()),
            (DType::Bool, Self::Bool(flag)) => out.push(u8::from(*flag)),
            (DType::Uint8, _) => out.extend(u8::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Uint16, _) => out.extend(u16::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Uint32, _) => out.extend(u32::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Uint64, _) => out.extend(u64::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Int8, _) => out.extend(i8::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Int16, _) => out.extend(i16::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Int32, _) => out.extend(i32::try_from(integer()?).ok()?.to_le_bytes()),
            (DType::Int64, _) => out.extend(integer()?.to_le_bytes()),
            (DType::Fp16, _) => out.extend(half::f16::from_f64(number()?).to_le_bytes()),
            (DType::Bf16, _) => out.extend(half::bf16::from_f64(number()?).to_le_bytes()),
            (DType::Fp32, _) => out.extend((number()? as f32).to_le_bytes()),
            (DType::Fp64, _) => out.extend(number()?.to_le_bytes()),
            _ => return None,
        }
        Some(())
    }
}
