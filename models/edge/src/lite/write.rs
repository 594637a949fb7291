//! From a model to the bytes of a TFLite file. Must not decide anything about the model.

use std::collections::HashMap;

use super::{
    Model, Node, Quantisation, Tensor, Type,
    flatbuffer::{Builder, Field, ObjectId},
    schema::{self, field},
};
use crate::graph::{Op, Padding, Pool, Window};

/// Buffers are aligned to this, as the schema asks.
const BUFFER_ALIGNMENT: usize = 16;

/// The bytes of a TFLite file.
#[must_use]
pub fn write(model: &Model) -> Vec<u8> {
    let mut builder = Builder::default();
    let mut buffers = Buffers::new(&mut builder);
    let tensors: Vec<ObjectId> =
        model.tensors.iter().map(|tensor| write_tensor(tensor, &mut builder, &mut buffers)).collect();
    let mut codes: Vec<(i32, i32)> = Vec::new();
    let mut operators = Vec::new();
    for node in &model.nodes {
        let code = (schema::operator_code(&node.op), version(model, node));
        let place = codes.iter().position(|other| *other == code).unwrap_or_else(|| {
            codes.push(code);
            codes.len() - 1
        });
        operators.push(write_operator(node, place, &mut builder));
    }
    let plan = model.offline_plan.as_ref().map(|offsets| {
        let header = [1, 0, to_i32(offsets.len())];
        let bytes = header.iter().chain(offsets).flat_map(|value| value.to_le_bytes()).collect();
        let buffer = buffers.place(bytes, &mut builder);
        let name = builder.text(schema::PLAN_NAME);
        let fields =
            vec![(field::metadata::NAME, Field::To(name)), (field::metadata::BUFFER, Field::Int(buffer))];
        let entry = builder.table(fields);
        builder.offsets(vec![entry])
    });
    let indices = |list: &[usize], builder: &mut Builder| {
        builder.values(list.iter().flat_map(|id| to_i32(*id).to_le_bytes()).collect(), list.len(), 4)
    };
    let subgraph = vec![
        (field::subgraph::TENSORS, Field::To(builder.offsets(tensors))),
        (field::subgraph::INPUTS, Field::To(indices(&model.inputs, &mut builder))),
        (field::subgraph::OUTPUTS, Field::To(indices(&model.outputs, &mut builder))),
        (field::subgraph::OPERATORS, Field::To(builder.offsets(operators))),
    ];
    let subgraph = builder.table(subgraph);
    let codes: Vec<ObjectId> = codes.into_iter().map(|code| write_code(code, &mut builder)).collect();
    let mut root = vec![
        (field::model::VERSION, Field::Int(schema::VERSION.cast_signed())),
        (field::model::OPERATOR_CODES, Field::To(builder.offsets(codes))),
        (field::model::SUBGRAPHS, Field::To(builder.offsets(vec![subgraph]))),
        (field::model::BUFFERS, Field::To(builder.offsets(buffers.list))),
    ];
    if !model.description.is_empty() {
        root.push((field::model::DESCRIPTION, Field::To(builder.text(&model.description))));
    }
    root.extend(plan.map(|plan| (field::model::METADATA, Field::To(plan))));
    let root = builder.table(root);
    builder.finish(root, schema::IDENTIFIER)
}

fn to_i32(value: usize) -> i32 {
    i32::try_from(value).expect("below the limit of elements")
}

/// Buffers by content; the first is empty, for everything that is computed.
struct Buffers {
    list: Vec<ObjectId>,
    known: HashMap<Vec<u8>, i32>,
}

impl Buffers {
    fn new(builder: &mut Builder) -> Self {
        Self { list: vec![builder.table(Vec::new())], known: HashMap::new() }
    }

    fn place(&mut self, bytes: Vec<u8>, builder: &mut Builder) -> i32 {
        if bytes.is_empty() {
            return 0;
        }
        if let Some(place) = self.known.get(&bytes) {
            return *place;
        }
        let data = builder.values(bytes.clone(), bytes.len(), BUFFER_ALIGNMENT);
        self.list.push(builder.table(vec![(field::buffer::DATA, Field::To(data))]));
        let place = to_i32(self.list.len() - 1);
        self.known.insert(bytes, place);
        place
    }
}

fn write_tensor(tensor: &Tensor, builder: &mut Builder, buffers: &mut Buffers) -> ObjectId {
    let shape = tensor.shape.iter().flat_map(|len| to_i32(*len).to_le_bytes()).collect();
    let mut fields = vec![(field::tensor::SHAPE, Field::To(builder.values(shape, tensor.shape.len(), 4)))];
    if tensor.kind != Type::Float32 {
        fields.push((field::tensor::TYPE, Field::Byte(tensor.kind.code().cast_unsigned())));
    }
    let buffer = buffers.place(tensor.data.clone(), builder);
    if buffer != 0 {
        fields.push((field::tensor::BUFFER, Field::Int(buffer)));
    }
    if !tensor.name.is_empty() {
        fields.push((field::tensor::NAME, Field::To(builder.text(&tensor.name))));
    }
    if let Some(quantisation) = &tensor.quantisation {
        fields.push((field::tensor::QUANTIZATION, Field::To(write_quantisation(quantisation, builder))));
    }
    builder.table(fields)
}

fn write_quantisation(quantisation: &Quantisation, builder: &mut Builder) -> ObjectId {
    let Quantisation { scales, zero_points, axis } = quantisation;
    let scale =
        builder.values(scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(), scales.len(), 4);
    let zeros = zero_points.iter().flat_map(|zero| zero.to_le_bytes()).collect();
    let zero = builder.values(zeros, zero_points.len(), 8);
    let mut fields = vec![
        (field::quantization::SCALE, Field::To(scale)),
        (field::quantization::ZERO_POINT, Field::To(zero)),
    ];
    if *axis != 0 {
        fields.push((field::quantization::DIMENSION, Field::Int(to_i32(*axis))));
    }
    builder.table(fields)
}

fn version(model: &Model, node: &Node) -> i32 {
    let first = |index: usize| node.inputs.get(index).copied().flatten().map(|id| &model.tensors[id]);
    let int8 = first(0).is_some_and(|tensor| tensor.kind == Type::Int8);
    let slices = first(1).and_then(|tensor| tensor.quantisation.as_ref()).map_or(0, |q| q.scales.len());
    schema::operator_version(&node.op, int8, slices > 1)
}

fn write_code((code, version): (i32, i32), builder: &mut Builder) -> ObjectId {
    let old = u8::try_from(code.min(schema::PLACEHOLDER)).unwrap_or(0);
    let mut fields = Vec::new();
    if old != 0 {
        fields.push((field::operator_code::DEPRECATED, Field::Byte(old)));
    }
    if version != 1 {
        fields.push((field::operator_code::VERSION, Field::Int(version)));
    }
    if code != 0 {
        fields.push((field::operator_code::BUILTIN, Field::Int(code)));
    }
    builder.table(fields)
}

fn write_operator(node: &Node, code: usize, builder: &mut Builder) -> ObjectId {
    let index = |id: &Option<usize>| id.map_or(-1, to_i32).to_le_bytes();
    let inputs = builder.values(node.inputs.iter().flat_map(index).collect(), node.inputs.len(), 4);
    let outputs = builder.values(
        node.outputs.iter().flat_map(|id| to_i32(*id).to_le_bytes()).collect(),
        node.outputs.len(),
        4,
    );
    let mut fields =
        vec![(field::operator::INPUTS, Field::To(inputs)), (field::operator::OUTPUTS, Field::To(outputs))];
    if code != 0 {
        fields.push((field::operator::OPCODE, Field::Int(to_i32(code))));
    }
    let kind = schema::options_type(&node.op);
    if kind != 0 {
        fields.push((field::operator::OPTIONS_TYPE, Field::Byte(kind)));
        let options = options(&node.op);
        fields.push((field::operator::OPTIONS, Field::To(builder.table(options))));
    }
    builder.table(fields)
}

/// The fields of an operator's options; those that are zero are left out, as zero is what is read then.
fn options(op: &Op) -> Vec<(u16, Field)> {
    let int = |value: usize| Field::Int(to_i32(value));
    let padding = |padding: Padding| Field::Byte(schema::padding_code(padding));
    let act = Field::Byte(schema::activation_code(op.activation()));
    let dilated = |window: &Window, from: u16| {
        [(from, window.dilation[1]), (from + 1, window.dilation[0])].into_iter().filter(|(_, by)| *by != 1)
    };
    let mut fields = match op {
        Op::Conv2d(window) => {
            let Window { stride, padding: pad, .. } = window;
            let mut fields = vec![(0, padding(*pad)), (1, int(stride[1])), (2, int(stride[0])), (3, act)];
            fields.extend(dilated(window, 4).map(|(slot, by)| (slot, int(by))));
            fields
        }
        Op::DepthwiseConv2d(window, multiplier) => {
            let Window { stride, padding: pad, .. } = window;
            let mut fields = vec![(0, padding(*pad)), (1, int(stride[1])), (2, int(stride[0])), (4, act)];
            fields.push((3, int(*multiplier)));
            fields.extend(dilated(window, 5).map(|(slot, by)| (slot, int(by))));
            fields
        }
        Op::MaxPool2d(pool) | Op::AveragePool2d(pool) => {
            let Pool { filter, stride, padding: pad, .. } = pool;
            let sizes = [(1, int(stride[1])), (2, int(stride[0])), (3, int(filter[1])), (4, int(filter[0]))];
            [(0, padding(*pad))].into_iter().chain(sizes).chain([(5, act)]).collect()
        }
        Op::Softmax(beta) => vec![(0, Field::Float(*beta))],
        Op::LeakyRelu(alpha) => vec![(0, Field::Float(*alpha))],
        Op::Concat(axis) => vec![(0, int(*axis)), (1, act)],
        Op::Mean { keep_dims } => vec![(0, Field::Byte(u8::from(*keep_dims)))],
        Op::FullyConnected(_) | Op::Add(_) | Op::Sub(_) | Op::Mul(_) => vec![(0, act)],
        _ => Vec::new(),
    };
    fields.retain(|(_, field)| !matches!(field, Field::Byte(0) | Field::Int(0)));
    fields
}
