//! The C++ that calls TFLite-micro: a resolver with exactly the operators that are used, and three functions. Must not
//! know what the operators compute.

use std::fmt::Write as _;

use super::code::Context;
use crate::graph::{Activation, Op};

/// The resolver's function for an operator, and whether TFLite-micro has a kernel of int8 alone for it.
pub(super) fn registration(op: &Op) -> Option<(&'static str, Option<&'static str>)> {
    Some(match op {
        Op::Add(_) => ("AddAdd", Some("ADD")),
        Op::AveragePool2d(_) => ("AddAveragePool2D", Some("AVERAGE_POOL_2D")),
        Op::Concat(_) => ("AddConcatenation", None),
        Op::Conv2d(_) => ("AddConv2D", Some("CONV_2D")),
        Op::DepthwiseConv2d(..) => ("AddDepthwiseConv2D", Some("DEPTHWISE_CONV_2D")),
        Op::Dequantize => ("AddDequantize", None),
        Op::FullyConnected(_) => ("AddFullyConnected", Some("FULLY_CONNECTED")),
        Op::Logistic => ("AddLogistic", None),
        Op::MaxPool2d(_) => ("AddMaxPool2D", Some("MAX_POOL_2D")),
        Op::Mul(_) => ("AddMul", Some("MUL")),
        Op::Clamp(Activation::Relu6) => ("AddRelu6", None),
        Op::Clamp(_) => ("AddRelu", None),
        Op::Reshape => ("AddReshape", None),
        Op::Softmax(_) => ("AddSoftmax", Some("SOFTMAX")),
        Op::Tanh => ("AddTanh", None),
        Op::Pad => ("AddPad", Some("PAD")),
        Op::Transpose => ("AddTranspose", Some("TRANSPOSE")),
        Op::Mean { .. } => ("AddMean", None),
        Op::Sub(_) => ("AddSub", None),
        Op::LeakyRelu(_) => ("AddLeakyRelu", None),
        Op::Quantize => ("AddQuantize", None),
        Op::HardSwish => ("AddHardSwish", None),
        Op::Other(_) => return None,
    })
}

pub(super) fn files(context: &Context<'_>) -> Vec<(String, String)> {
    let name = context.name;
    vec![
        (format!("include/{name}.h"), header(context)),
        (format!("src/{name}.cpp"), source(context)),
        // Arduino looks for the header that a sketch includes in src alone
        (
            format!("src/{name}_inferencing.h"),
            format!("/* Made by gannet edge compile. Do not edit. */\n#include \"../include/{name}.h\"\n"),
        ),
    ]
}

fn header(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    format!(
        "/* Made by gannet edge compile. Do not edit. */\n#ifndef {upper}_H\n#define {upper}_H\n\n\
         #include \"{name}_golden.h\"\n#include \"{name}_model.h\"\n#include \"{name}_prepost.h\"\n\n\
         /* Makes the interpreter ready, once. False: the arena is too small or the model is damaged. */\n\
         bool {name}_setup();\n\n\
         /* Computes one row, channels last: {upper}_INPUT_ELEMENTS values in, {upper}_OUTPUT_ELEMENTS values out. */\n\
         bool {name}_run(const float *input, float *output);\n\n\
         /* Whether the device computes the golden rows code by code. */\n\
         bool {name}_self_test();\n\n#endif /* {upper}_H */\n"
    )
}

fn source(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    let mut used: Vec<(&str, Option<&str>)> =
        context.compiled.model.nodes.iter().filter_map(|node| registration(&node.op)).collect();
    used.sort_unstable();
    used.dedup();
    // float operators beside int8 ones need the kernels that have both
    let floats = context.compiled.model.nodes.iter().any(|node| node.op == Op::Dequantize);
    let mut resolver = String::new();
    for (add, int8) in &used {
        match int8.filter(|_| !floats) {
            Some(kernel) => {
                let _ = write!(
                    resolver,
                    "#if defined(CMSIS_NN)\n  ok = ok && resolver.{add}(tflite::Register_{kernel}_INT8()) == kTfLiteOk;\n#else\n  \
                     ok = ok && resolver.{add}() == kTfLiteOk;\n#endif\n"
                );
            }
            None => {
                let _ = writeln!(resolver, "  ok = ok && resolver.{add}() == kTfLiteOk;");
            }
        }
    }
    let count = used.len();
    format!(
        "/* Made by gannet edge compile. Do not edit. */\n#include \"../include/{name}.h\"\n\n\
         #include \"tensorflow/lite/micro/kernels/add.h\"\n\
         #include \"tensorflow/lite/micro/kernels/conv.h\"\n\
         #include \"tensorflow/lite/micro/kernels/depthwise_conv.h\"\n\
         #include \"tensorflow/lite/micro/kernels/fully_connected.h\"\n\
         #include \"tensorflow/lite/micro/kernels/mul.h\"\n\
         #include \"tensorflow/lite/micro/kernels/pad.h\"\n\
         #include \"tensorflow/lite/micro/kernels/pooling.h\"\n\
         #include \"tensorflow/lite/micro/kernels/softmax.h\"\n\
         #include \"tensorflow/lite/micro/kernels/transpose.h\"\n\
         #include \"tensorflow/lite/micro/micro_interpreter.h\"\n\
         #include \"tensorflow/lite/micro/micro_mutable_op_resolver.h\"\n\
         #include \"tensorflow/lite/schema/schema_generated.h\"\n\n\
         namespace {{\n\n\
         constexpr int kOperators = {count};\n\
         alignas(16) uint8_t arena[{upper}_ARENA_BYTES];\n\
         tflite::MicroInterpreter *interpreter = nullptr;\n\n\
         /* Exactly the operators that the model uses. */\n\
         bool add_operators(tflite::MicroMutableOpResolver<kOperators> &resolver)\n{{\n  bool ok = true;\n{resolver}  return ok;\n}}\n\n\
         bool run_codes(const int8_t *input, int8_t *output)\n{{\n  if (interpreter == nullptr) {{\n    return false;\n  }}\n  \
         int8_t *const in = interpreter->input(0)->data.int8;\n  \
         for (size_t i = 0; i < {upper}_INPUT_ELEMENTS; ++i) {{\n    in[i] = input[i];\n  }}\n  \
         if (interpreter->Invoke() != kTfLiteOk) {{\n    return false;\n  }}\n  \
         const int8_t *const out = interpreter->output(0)->data.int8;\n  \
         for (size_t i = 0; i < {upper}_OUTPUT_ELEMENTS; ++i) {{\n    output[i] = out[i];\n  }}\n  return true;\n}}\n\n\
         }}  // namespace\n\n\
         bool {name}_setup()\n{{\n  if (interpreter != nullptr) {{\n    return true;\n  }}\n  \
         const tflite::Model *const model = tflite::GetModel({name}_model);\n  \
         if (model->version() != 3) {{\n    return false;\n  }}\n  \
         static tflite::MicroMutableOpResolver<kOperators> resolver;\n  \
         if (!add_operators(resolver)) {{\n    return false;\n  }}\n  \
         static tflite::MicroInterpreter instance(model, resolver, arena, sizeof(arena));\n  \
         if (instance.AllocateTensors() != kTfLiteOk) {{\n    return false;\n  }}\n  \
         interpreter = &instance;\n  return true;\n}}\n\n\
         bool {name}_run(const float *input, float *output)\n{{\n  if (interpreter == nullptr) {{\n    return false;\n  }}\n  \
         {name}_quantize(input, interpreter->input(0)->data.int8, {upper}_INPUT_ELEMENTS);\n  \
         if (interpreter->Invoke() != kTfLiteOk) {{\n    return false;\n  }}\n  \
         {name}_dequantize(interpreter->output(0)->data.int8, output, {upper}_OUTPUT_ELEMENTS);\n  return true;\n}}\n\n\
         bool {name}_self_test()\n{{\n  static int8_t output[{upper}_OUTPUT_ELEMENTS];\n  \
         for (size_t row = 0; row < {upper}_GOLDEN_ROWS; ++row) {{\n    \
         if (!run_codes({name}_golden_inputs[row], output)) {{\n      return false;\n    }}\n    \
         for (size_t i = 0; i < {upper}_OUTPUT_ELEMENTS; ++i) {{\n      \
         if (output[i] != {name}_golden_outputs[row][i]) {{\n        return false;\n      }}\n    }}\n  }}\n  return true;\n}}\n"
    )
}
