//! What can be computed before anything runs: shapes, and weights that the exporter left under transpositions or
//! quantisation. Must not know computed values.

use super::{Lowering, Value, refuse, view};
use crate::{
    error::Result,
    onnx::{Constant, Elements, Node},
};

impl Lowering<'_> {
    /// Whether everything that the node reads is known.
    pub(super) fn all_constant(&self, node: &Node) -> bool {
        let mut read = node.inputs.iter().filter(|name| !name.is_empty()).peekable();
        read.peek().is_some() && read.all(|name| matches!(self.values.get(name), Some(Value::Constant(_))))
    }

    /// The shape of a computed value.
    pub(super) fn shape_of(&mut self, node: &Node) -> Result<()> {
        let shape = self.input(node, 0)?.shape;
        let values: Vec<i64> =
            shape.iter().map(|len| i64::try_from(*len).expect("below the limit")).collect();
        let end = i64::try_from(values.len()).expect("few axes");
        let place = |value: i64| usize::try_from(if value < 0 { value + end } else { value }).unwrap_or(0);
        let (from, to) = (place(node.attributes.int("start", 0)), place(node.attributes.int("end", end)));
        let part = values.get(from..to.min(values.len())).unwrap_or_default().to_vec();
        self.bind_constant(node, Constant::ints(vec![part.len()], part))
    }

    fn bind_constant(&mut self, node: &Node, constant: Constant) -> Result<()> {
        crate::onnx_elements(&constant.shape, &format!("output of node '{}'", node.name))?;
        if let Some(name) = node.outputs.first() {
            self.values.insert(name.clone(), Value::Constant(constant));
        }
        Ok(())
    }

    /// Computes a node whose inputs are all known.
    pub(super) fn constant_node(&mut self, node: &Node) -> Result<()> {
        let value = self.constant_value(node)?;
        self.bind_constant(node, value)
    }

    fn constant_value(&self, node: &Node) -> Result<Constant> {
        let cannot =
            |reason: &str| refuse(node, reason.to_owned(), "fold constants before exporting (onnxsim)");
        if node.operator == "Constant" {
            return constant_of(node)?.ok_or_else(|| cannot("expected a tensor or numbers as its value"));
        }
        let first = self.required(node, 0)?;
        Ok(match node.operator.as_str() {
            "Identity" | "Dropout" => first,
            "Cast" => cast(first, node.attributes.int("to", 1)),
            "Shape" => {
                let values: Vec<i64> =
                    first.shape.iter().map(|len| i64::try_from(*len).unwrap_or(0)).collect();
                Constant::ints(vec![values.len()], values)
            }
            "Gather" => gather(&first, &self.required(node, 1)?, node.attributes.int("axis", 0))
                .ok_or_else(|| cannot("expected places within the first axis"))?,
            "Slice" => {
                self.slice(node, &first)?.ok_or_else(|| cannot("expected a slice of one axis, step 1"))?
            }
            "Concat" => {
                let parts = (0..node.inputs.len()).map(|index| self.required(node, index));
                concat(&parts.collect::<Result<Vec<_>>>()?).ok_or_else(|| cannot("expected lists"))?
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let shape = self.target_shape(node, &first.shape)?;
                Constant { shape, ..first }
            }
            "Transpose" => transpose(node, &first).ok_or_else(|| cannot("expected a permutation"))?,
            "Add" | "Sub" | "Mul" | "Div" => arithmetic(&node.operator, &first, &self.required(node, 1)?)
                .ok_or_else(|| cannot("expected equal shapes, or one value"))?,
            "DequantizeLinear" => return self.dequantised(node, &first),
            _ => return Err(cannot("cannot be computed beforehand")),
        })
    }

    fn slice(&self, node: &Node, values: &Constant) -> Result<Option<Constant>> {
        let list = |constant: Option<Constant>| constant.and_then(|c| c.to_ints().map(<[i64]>::to_vec));
        let (from, to) = (list(self.optional(node, 1)?), list(self.optional(node, 2)?));
        let steps = list(self.optional(node, 4)?).unwrap_or_else(|| vec![1]);
        let (Some(&[from]), Some(&[to]), [1], 1) =
            (from.as_deref(), to.as_deref(), steps.as_slice(), values.shape.len())
        else {
            return Ok(None);
        };
        let end = i64::try_from(values.len()).unwrap_or(0);
        let place = |value: i64| {
            usize::try_from((if value < 0 { value + end } else { value }).clamp(0, end)).unwrap_or(0)
        };
        let (from, to) = (place(from), place(to).max(place(from)));
        Ok(Some(pick(values, vec![to - from], from..to)))
    }
}

fn constant_of(node: &Node) -> Result<Option<Constant>> {
    let attributes = &node.attributes;
    if let Some(tensor) = attributes.tensor("value")? {
        return Ok(Some(tensor));
    }
    if attributes.has("value_int") {
        return Ok(Some(Constant::ints(Vec::new(), vec![attributes.int("value_int", 0)])));
    }
    if attributes.has("value_float") {
        return Ok(Some(Constant::floats(Vec::new(), vec![attributes.float("value_float", 0.0)])));
    }
    if let Some(values) = attributes.ints("value_ints") {
        return Ok(Some(Constant::ints(vec![values.len()], values.to_vec())));
    }
    Ok(attributes.floats("value_floats").map(|values| Constant::floats(vec![values.len()], values.to_vec())))
}

#[expect(clippy::cast_possible_truncation, reason = "what a cast to an integer does")]
fn cast(value: Constant, to: i64) -> Constant {
    let is_float = matches!(to, 1 | 10 | 11 | 16);
    let elements = match value.elements {
        Elements::Int(_) if is_float => Elements::Float(value.to_floats()),
        Elements::Float(values) if !is_float => {
            Elements::Int(values.iter().map(|value| *value as i64).collect())
        }
        other => other,
    };
    Constant { shape: value.shape, elements }
}

fn pick(values: &Constant, shape: Vec<usize>, places: impl Iterator<Item = usize>) -> Constant {
    let elements = match &values.elements {
        Elements::Float(all) => Elements::Float(places.map(|place| all[place]).collect()),
        Elements::Int(all) => Elements::Int(places.map(|place| all[place]).collect()),
    };
    Constant { shape, elements }
}

fn gather(values: &Constant, places: &Constant, axis: i64) -> Option<Constant> {
    if axis != 0 || values.shape.is_empty() {
        return None;
    }
    let (len, inner) = (values.shape[0], values.shape[1..].iter().product::<usize>());
    let mut all = Vec::new();
    for place in places.to_ints()? {
        let place = if *place < 0 { place + i64::try_from(len).ok()? } else { *place };
        let place = usize::try_from(place).ok().filter(|place| *place < len)?;
        all.extend(place * inner..(place + 1) * inner);
    }
    let shape = places.shape.iter().chain(&values.shape[1..]).copied().collect();
    Some(pick(values, shape, all.into_iter()))
}

fn concat(parts: &[Constant]) -> Option<Constant> {
    let ints: Option<Vec<&[i64]>> = parts.iter().map(Constant::to_ints).collect();
    let values = ints?.concat();
    Some(Constant::ints(vec![values.len()], values))
}

fn transpose(node: &Node, value: &Constant) -> Option<Constant> {
    let rank = value.shape.len();
    let permutation = node.attributes.lengths("perm").unwrap_or_else(|| (0..rank).rev().collect());
    let mut sorted = permutation.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return None;
    }
    let order: Vec<Option<usize>> = permutation.iter().copied().map(Some).collect();
    let axes = view::ordered(&value.shape, &order);
    let shape = axes.iter().map(|axis| axis.len).collect();
    Some(pick(value, shape, view::source_order(&axes).into_iter()))
}

fn arithmetic(operator: &str, a: &Constant, b: &Constant) -> Option<Constant> {
    let count = a.len().max(b.len());
    let shape = if a.len() >= b.len() { a.shape.clone() } else { b.shape.clone() };
    let fits = |other: &Constant| other.len() == 1 || other.shape == shape;
    if !fits(a) || !fits(b) || count == 0 {
        return None;
    }
    if let (Some(a), Some(b)) = (a.to_ints(), b.to_ints()) {
        let compute = |index: usize| {
            let (a, b) = (a[index % a.len()], b[index % b.len()]);
            match operator {
                "Add" => a.checked_add(b),
                "Sub" => a.checked_sub(b),
                "Mul" => a.checked_mul(b),
                _ => a.checked_div(b),
            }
        };
        return Some(Constant::ints(shape, (0..count).map(compute).collect::<Option<_>>()?));
    }
    let (a, b) = (a.to_floats(), b.to_floats());
    let compute = |index: usize| {
        let (a, b) = (a[index % a.len()], b[index % b.len()]);
        match operator {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            _ => a / b,
        }
    };
    Some(Constant::floats(shape, (0..count).map(compute).collect()))
}
