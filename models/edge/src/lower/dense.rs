//! Products with a matrix of weights. Columns are permuted to the order in which the input is stored, so that a
//! flattened image needs no transposition. Must not know images.

use super::{Lowering, Value, View, refuse, view};
use crate::{
    error::{EdgeError, Result},
    graph::{Activation, Axis, Op},
    onnx::{Constant, Node},
};

impl Lowering<'_> {
    pub(super) fn dense(&mut self, node: &Node) -> Result<()> {
        let attributes = &node.attributes;
        let gemm = node.operator == "Gemm";
        let mut x = self.input(node, 0)?;
        if gemm && attributes.int("transA", 0) != 0 {
            let turned = view::transposed(&x.axes, &x.shape, &[1, 0]).filter(|_| x.shape.len() == 2);
            let axes = turned
                .ok_or_else(|| refuse(node, "expected a matrix to transpose", "export without transA"))?;
            x = View { tensor: x.tensor, shape: vec![x.shape[1], x.shape[0]], axes };
        }
        if !matches!(node.inputs.get(1).and_then(|name| self.values.get(name)), Some(Value::Constant(_))) {
            let way = "products of two computed values are not covered; compute them on the device, or leave them out";
            return Err(refuse(node, "expected constant weights, got a computed value", way));
        }
        let weights = self.required(node, 1)?;
        let [rows, columns] = weights.shape[..] else {
            let reason = format!("expected a matrix of weights, got {:?}", weights.shape);
            return Err(refuse(node, reason, "use weights of two axes"));
        };
        let transposed = gemm && attributes.int("transB", 0) != 0;
        let (inner, out) = if transposed { (columns, rows) } else { (rows, columns) };
        if x.shape.last() != Some(&inner) || weights.is_empty() {
            let fault = format!("expected weights for {:?} values, got {:?}", x.shape.last(), weights.shape);
            return Err(EdgeError::malformed(format!("node '{}' ({})", node.name, node.operator), fault));
        }
        let (input, columns) = self.dense_input(node, &x, inner)?;
        let alpha = if gemm { attributes.float("alpha", 1.0) } else { 1.0 };
        let values = weights.to_floats();
        let mut stored = Vec::with_capacity(values.len());
        for o in 0..out {
            let at = |k: usize| if transposed { o * inner + k } else { k * out + o };
            stored.extend(columns.iter().map(|k| values[at(*k)] * alpha));
        }
        let name = node.inputs[1].clone();
        let fixed = self.fixed_of(&name);
        let filter = self.graph.constant(name, vec![out, inner], stored);
        self.graph.tensors[filter].fixed = fixed;
        let beta = if gemm { attributes.float("beta", 1.0) } else { 0.0 };
        let bias = bias(node, if gemm { self.optional(node, 2)? } else { None }, out, beta)?;
        let bias = self.graph.constant(format!("{}.bias", node.name), vec![out], bias);
        let mut shape = x.shape.clone();
        shape.pop();
        let outer: usize = shape.iter().product();
        shape.push(out);
        let tensor = self.emit(
            node,
            Op::FullyConnected(Activation::None),
            vec![input, filter, bias],
            vec![outer, out],
        );
        let axes = view::row_major(&[outer, out]);
        self.bind(node, View { tensor, shape, axes })
    }

    /// The stored input and, for each stored position of a row, the source's column.
    fn dense_input(&mut self, node: &Node, x: &View, inner: usize) -> Result<(usize, Vec<usize>)> {
        let outer: usize = x.shape[..x.shape.len() - 1].iter().product();
        let is_row = |axis: &&Axis| axis.len > 1 && axis.stride >= inner;
        let rows: Vec<Axis> = x.axes.iter().filter(is_row).copied().collect();
        let rest: Vec<Axis> =
            x.axes.iter().filter(|axis| axis.len > 1 && axis.stride < inner).copied().collect();
        let crosses = rest.iter().any(|axis| axis.stride * axis.len > inner);
        let leading =
            x.axes.iter().filter(|axis| axis.len > 1).take(rows.len()).all(|axis| axis.stride >= inner);
        let in_order = view::same_memory(&rows, &[Axis { len: outer, stride: inner }]) || outer == 1;
        if crosses || !leading || !in_order {
            let tensor = self.materialise(node, x, &view::row_major(&[outer, inner]))?;
            return Ok((tensor, (0..inner).collect()));
        }
        let stored = &self.graph.tensors[x.tensor].shape;
        // TFLite reads rows of as many values as the weights have columns, whatever the shape; only the batch must show
        let tensor = if outer == 1 || stored.last() == Some(&inner) {
            x.tensor
        } else {
            self.reshaped(node, x.tensor, vec![outer, inner])
        };
        Ok((tensor, view::source_order(&rest)))
    }
}

fn bias(node: &Node, bias: Option<Constant>, out: usize, beta: f32) -> Result<Vec<f32>> {
    let Some(bias) = bias else { return Ok(vec![0.0; out]) };
    let values = bias.to_floats();
    match values.len() {
        1 => Ok(vec![values[0] * beta; out]),
        len if len == out => Ok(values.iter().map(|value| value * beta).collect()),
        _ => {
            let reason = format!("expected a bias of 1 or {out} values, got shape {:?}", bias.shape);
            Err(refuse(node, reason, "add what differs from row to row with an Add"))
        }
    }
}
