//! From the bytes of any TFLite file to a model. Operators that are not computed here keep their number. Must not
//! trust the bytes.

use super::{
    Model, Node, Quantisation, Tensor, Type,
    flatbuffer::{Table, root},
    schema::{self, field},
};
use crate::{
    error::{EdgeError, Result},
    graph::{Activation, Op, Padding, Pool, Window},
    onnx_elements,
};

/// Reads the first subgraph of a file.
///
/// # Errors
/// [`EdgeError::Malformed`] for what is no TFLite file, or leads outside of itself.
pub fn read(bytes: &[u8]) -> Result<Model> {
    let root = root(bytes, schema::IDENTIFIER)?;
    let buffers = root.children(field::model::BUFFERS)?;
    let codes = root.children(field::model::OPERATOR_CODES)?;
    let codes = codes.iter().map(operator_code).collect::<Result<Vec<_>>>()?;
    let graphs = root.children(field::model::SUBGRAPHS)?;
    let graph = graphs.first().ok_or_else(|| malformed("expected a subgraph, got none"))?;
    let tensors = graph.children(field::subgraph::TENSORS)?;
    let tensors = tensors.iter().map(|table| tensor(table, &buffers)).collect::<Result<Vec<_>>>()?;
    let index = |value: i32| usize::try_from(value).ok().filter(|id| *id < tensors.len());
    let indices = |list: Vec<i32>| -> Result<Vec<usize>> {
        let all: Option<Vec<usize>> = list.into_iter().map(index).collect();
        all.ok_or_else(|| malformed("a tensor index leads outside of the list"))
    };
    let mut nodes = Vec::new();
    for operator in graph.children(field::subgraph::OPERATORS)? {
        let code = usize::try_from(operator.int(field::operator::OPCODE, 0)?)
            .ok()
            .and_then(|place| codes.get(place));
        let code = *code.ok_or_else(|| malformed("an operator code leads outside of the list"))?;
        let list = operator.ints(field::operator::INPUTS)?;
        let missing = |value: &i32| *value != -1 && index(*value).is_none();
        if list.iter().any(missing) {
            return Err(malformed("a tensor index leads outside of the list"));
        }
        let inputs: Vec<Option<usize>> = list.into_iter().map(index).collect();
        let outputs = indices(operator.ints(field::operator::OUTPUTS)?)?;
        let options = operator.child(field::operator::OPTIONS)?;
        let op = op(code, options.as_ref())?;
        nodes.push(Node { op, inputs, outputs, name: String::new() });
    }
    let (inputs, outputs) = (graph.ints(field::subgraph::INPUTS)?, graph.ints(field::subgraph::OUTPUTS)?);
    let (inputs, outputs) = (indices(inputs)?, indices(outputs)?);
    let offline_plan = plan(&root, &buffers)?;
    let description = root.text(field::model::DESCRIPTION)?;
    let mut model = Model { description, tensors, nodes, inputs, outputs, offline_plan };
    name_nodes(&mut model);
    Ok(model)
}

fn malformed(fault: impl Into<String>) -> EdgeError {
    EdgeError::malformed("TFLite file", fault)
}

fn name_nodes(model: &mut Model) {
    for (index, node) in model.nodes.iter_mut().enumerate() {
        node.name = format!("{index}:{}", node.op.name());
    }
}

fn operator_code(table: &Table<'_>) -> Result<i32> {
    let old = i32::from(table.byte(field::operator_code::DEPRECATED)?.cast_signed());
    let new = table.int(field::operator_code::BUILTIN, 0)?;
    let _ = table.values(field::operator_code::CUSTOM, 1)?;
    // the rule of the schema: old readers see the placeholder
    Ok(old.max(new))
}

fn tensor(table: &Table<'_>, buffers: &[Table<'_>]) -> Result<Tensor> {
    let name = table.text(field::tensor::NAME)?;
    let what = format!("tensor '{name}'");
    let shape: Option<Vec<usize>> =
        table.ints(field::tensor::SHAPE)?.into_iter().map(|len| usize::try_from(len).ok()).collect();
    let shape = shape.ok_or_else(|| malformed(format!("{what} has a negative length")))?;
    onnx_elements(&shape, &what)?;
    let kind = Type::of_code(table.byte(field::tensor::TYPE)?.cast_signed());
    let buffer =
        usize::try_from(table.int(field::tensor::BUFFER, 0)?).ok().and_then(|place| buffers.get(place));
    let buffer = buffer.ok_or_else(|| malformed(format!("{what} has a buffer outside of the list")))?;
    let data = buffer.values(field::buffer::DATA, 1)?.to_vec();
    let tensor = Tensor { name, shape, kind, quantisation: quantisation(table)?, data };
    let plain = matches!(kind, Type::Float32 | Type::Int32 | Type::Int64 | Type::Int8);
    if plain && !tensor.data.is_empty() && tensor.data.len() != tensor.bytes() {
        return Err(malformed(format!(
            "{what}: expected {} bytes, got {}",
            tensor.bytes(),
            tensor.data.len()
        )));
    }
    Ok(tensor)
}

fn quantisation(table: &Table<'_>) -> Result<Option<Quantisation>> {
    let Some(table) = table.child(field::tensor::QUANTIZATION)? else { return Ok(None) };
    let scales = table.values(field::quantization::SCALE, 4)?;
    let scales: Vec<f32> = scales.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let zeros = table.values(field::quantization::ZERO_POINT, 8)?;
    let zero_points: Vec<i64> = zeros.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let axis = usize::try_from(table.int(field::quantization::DIMENSION, 0)?).unwrap_or(0);
    Ok((!scales.is_empty()).then_some(Quantisation { scales, zero_points, axis }))
}

fn plan(root: &Table<'_>, buffers: &[Table<'_>]) -> Result<Option<Vec<i32>>> {
    for metadata in root.children(field::model::METADATA)? {
        if metadata.text(field::metadata::NAME)? != schema::PLAN_NAME {
            continue;
        }
        let buffer =
            usize::try_from(metadata.int(field::metadata::BUFFER, 0)?).ok().and_then(|b| buffers.get(b));
        let buffer = buffer.ok_or_else(|| malformed("the plan has a buffer outside of the list"))?;
        let values = buffer.values(field::buffer::DATA, 1)?;
        let values: Vec<i32> = values.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
        return Ok(values.get(3..).map(<[i32]>::to_vec));
    }
    Ok(None)
}

/// An operator with its options; those that are missing are zero, as the schema says.
fn op(code: i32, options: Option<&Table<'_>>) -> Result<Op> {
    let int = |slot: u16, default: i32| options.map_or(Ok(default), |table| table.int(slot, default));
    let byte = |slot: u16| options.map_or(Ok(0), |table| table.byte(slot));
    let size = |slot: u16, default: i32| -> Result<usize> {
        usize::try_from(int(slot, default)?).map_err(|_| malformed("an option is negative"))
    };
    let activation = |slot: u16| -> Result<Option<Activation>> { Ok(schema::activation_of(byte(slot)?)) };
    let padding = || -> Result<Padding> { Ok(if byte(0)? == 0 { Padding::Same } else { Padding::Valid }) };
    let window = |act: u16, dilation: u16| -> Result<Option<Window>> {
        let (stride, dilation) = ([size(2, 0)?, size(1, 0)?], [size(dilation + 1, 1)?, size(dilation, 1)?]);
        let padding = padding()?;
        Ok(activation(act)?.map(|activation| Window { stride, dilation, padding, activation }))
    };
    let pool = || -> Result<Option<Pool>> {
        let (stride, filter) = ([size(2, 0)?, size(1, 0)?], [size(4, 0)?, size(3, 0)?]);
        let padding = padding()?;
        Ok(activation(5)?.map(|activation| Pool { filter, stride, padding, activation }))
    };
    let float = || options.map_or(Ok(0.0), |table| table.float(0));
    let known = match code {
        0 => activation(0)?.map(Op::Add),
        1 => pool()?.map(Op::AveragePool2d),
        2 if activation(1)? == Some(Activation::None) => Some(Op::Concat(size(0, 0)?)),
        3 => window(3, 4)?.map(Op::Conv2d),
        4 => {
            let multiplier = size(3, 0)?;
            window(4, 5)?.map(|window| Op::DepthwiseConv2d(window, multiplier))
        }
        6 => Some(Op::Dequantize),
        9 if byte(1)? == 0 => activation(0)?.map(Op::FullyConnected),
        14 => Some(Op::Logistic),
        17 => pool()?.map(Op::MaxPool2d),
        18 => activation(0)?.map(Op::Mul),
        19 => Some(Op::Clamp(Activation::Relu)),
        20 => Some(Op::Clamp(Activation::ReluN1To1)),
        21 => Some(Op::Clamp(Activation::Relu6)),
        22 => Some(Op::Reshape),
        25 => Some(Op::Softmax(float()?)),
        28 => Some(Op::Tanh),
        34 => Some(Op::Pad),
        39 => Some(Op::Transpose),
        40 => Some(Op::Mean { keep_dims: byte(0)? != 0 }),
        41 => activation(0)?.map(Op::Sub),
        98 => Some(Op::LeakyRelu(float()?)),
        114 => Some(Op::Quantize),
        117 => Some(Op::HardSwish),
        _ => None,
    };
    Ok(known.unwrap_or(Op::Other(code)))
}
