//! The C of a bundle that needs no TensorFlow: the model as an aligned array, the golden vectors, and what turns values
//! into codes and back. C99, freestanding, no warnings. Must not know how the interpreter is called.

use std::fmt::Write as _;

use super::BundleInfo;
use crate::{compile::Compiled, lite::Tensor};

/// What all generators need.
pub(super) struct Context<'a> {
    pub(super) name: &'a str,
    pub(super) compiled: &'a Compiled,
    pub(super) info: &'a BundleInfo,
}

/// Bytes in a line of an array.
const BYTES_PER_LINE: usize = 20;

impl Context<'_> {
    pub(super) fn upper(&self) -> String {
        self.name.to_uppercase()
    }

    pub(super) fn input(&self) -> &Tensor {
        &self.compiled.model.tensors[self.compiled.model.inputs[0]]
    }

    pub(super) fn output(&self) -> &Tensor {
        &self.compiled.model.tensors[self.compiled.model.outputs[0]]
    }
}

pub(super) fn files(context: &Context<'_>) -> Vec<(String, String)> {
    let name = context.name;
    vec![
        (format!("include/{name}_model.h"), model_header(context)),
        (format!("src/{name}_model.c"), model_array(context)),
        (format!("include/{name}_prepost.h"), prepost_header(context)),
        (format!("src/{name}_prepost.c"), prepost(context)),
        (format!("include/{name}_golden.h"), golden_header(context)),
        (format!("src/{name}_golden.c"), golden(context)),
    ]
}

fn guard(file: &str, body: &str) -> String {
    let symbol: String =
        file.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!(
        "/* Made by gannet edge compile. Do not edit. */\n#ifndef {symbol}\n#define {symbol}\n\n{body}\n#endif /* {symbol} */\n"
    )
}

/// A header that C and C++ include alike.
fn for_both(body: &str) -> String {
    format!("#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n{body}\n#ifdef __cplusplus\n}}\n#endif\n")
}

/// A text as C writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            // no trigraph and no control character gets through
            b' '..=b'~' if byte != b'?' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\{other:03o}");
            }
        }
    }
    out.push('"');
    out
}

/// A float that reads back as the same float.
fn float(value: f32) -> String {
    format!("{value:e}f")
}

fn model_header(context: &Context<'_>) -> String {
    let Context { name, compiled, info } = context;
    let upper = context.upper();
    let mut body = String::from("#include <stddef.h>\n#include <stdint.h>\n\n");
    let mut define = |key: &str, value: String| {
        let _ = writeln!(body, "#define {upper}_{key} {value}");
    };
    define("MODEL_NAME", quoted(&info.model));
    define("MODEL_VERSION", quoted(&info.version));
    define("SEQUENCE", format!("{}u", info.sequence));
    define("MODEL_BYTES", format!("{}u", compiled.tflite.len()));
    define("ARENA_BYTES_CORTEX_M", format!("{}u", compiled.cortex_m.required));
    define("ARENA_BYTES_HOST64", format!("{}u", compiled.host64.required));
    for (key, tensor) in [("INPUT", context.input()), ("OUTPUT", context.output())] {
        let (scale, zero) = tensor.scale();
        let dims: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        define(&format!("{key}_ELEMENTS"), format!("{}u", tensor.len()));
        define(&format!("{key}_SHAPE"), format!("{{ {} }}", dims.join(", ")));
        define(&format!("{key}_SCALE"), float(scale));
        define(&format!("{key}_ZERO_POINT"), format!("({zero})"));
    }
    body.push_str(
        "\n/* Where pointers are wider than 32 bits, structures are larger. */\n#if UINTPTR_MAX > 0xffffffffu\n",
    );
    let _ = write!(
        body,
        "#define {upper}_ARENA_BYTES {upper}_ARENA_BYTES_HOST64\n#else\n#define {upper}_ARENA_BYTES \
         {upper}_ARENA_BYTES_CORTEX_M\n#endif\n\n"
    );
    let externs = format!(
        "/* Aligned to 16 bytes, as the interpreter wants it. */\nextern const uint8_t {name}_model[{upper}_MODEL_BYTES];\n"
    );
    body.push_str(&for_both(&externs));
    guard(&format!("{name}_model.h"), &body)
}

fn model_array(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    let mut out = format!(
        "/* Made by gannet edge compile. Do not edit. */\n#include \"../include/{name}_model.h\"\n\n"
    );
    out.push_str("#if defined(__GNUC__) || defined(__clang__)\n#define ALIGNED_16 __attribute__((aligned(16)))\n#else\n");
    let _ = write!(
        out,
        "#define ALIGNED_16\n#endif\n\nALIGNED_16 const uint8_t {name}_model[{upper}_MODEL_BYTES] = {{\n"
    );
    for line in context.compiled.tflite.chunks(BYTES_PER_LINE) {
        let bytes: Vec<String> = line.iter().map(u8::to_string).collect();
        let _ = writeln!(out, "{},", bytes.join(","));
    }
    out.push_str("};\n");
    out
}

fn prepost_header(context: &Context<'_>) -> String {
    let name = context.name;
    let upper = context.upper();
    let functions = format!(
        "/* Values to codes: to the nearest, limited to what a code can hold. */\n\
         void {name}_quantize(const float *values, int8_t *codes, size_t count);\n\n\
         /* Codes of the output to values. */\n\
         void {name}_dequantize(const int8_t *codes, float *values, size_t count);\n\n\
         /* The place of the largest code, the first of equal ones. */\n\
         size_t {name}_largest(const int8_t *codes, size_t count);\n\n\
         /* The name of a class, or an empty text. */\n\
         const char *{name}_class_name(size_t class_index);\n"
    );
    let body = format!(
        "#include \"{name}_model.h\"\n\n#define {upper}_CLASSES {}u\n\n{}",
        context.info.class_names.len(),
        for_both(&functions)
    );
    guard(&format!("{name}_prepost.h"), &body)
}

fn prepost(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    let names: Vec<String> = context.info.class_names.iter().map(|class| quoted(class)).collect();
    let classes = if names.is_empty() {
        format!(
            "const char *{name}_class_name(size_t class_index)\n{{\n  (void)class_index;\n  return \"\";\n}}\n"
        )
    } else {
        format!(
            "static const char *const class_names[{upper}_CLASSES] = {{ {} }};\n\n\
             const char *{name}_class_name(size_t class_index)\n{{\n  \
             return class_index < {upper}_CLASSES ? class_names[class_index] : \"\";\n}}\n",
            names.join(", ")
        )
    };
    format!(
        "/* Made by gannet edge compile. Do not edit. */\n#include \"../include/{name}_prepost.h\"\n\n\
         void {name}_quantize(const float *values, int8_t *codes, size_t count)\n{{\n  \
         for (size_t i = 0; i < count; ++i) {{\n    \
         const float scaled = values[i] / {upper}_INPUT_SCALE;\n    \
         /* far values first: a cast of what does not fit is undefined */\n    \
         int32_t code;\n    \
         if (scaled >= 512.0f) {{\n      code = 127;\n    }} else if (scaled <= -512.0f) {{\n      code = -128;\n    }} else {{\n      \
         code = (int32_t)(scaled < 0.0f ? scaled - 0.5f : scaled + 0.5f) + {upper}_INPUT_ZERO_POINT;\n    }}\n    \
         if (code > 127) {{\n      code = 127;\n    }}\n    if (code < -128) {{\n      code = -128;\n    }}\n    \
         codes[i] = (int8_t)code;\n  }}\n}}\n\n\
         void {name}_dequantize(const int8_t *codes, float *values, size_t count)\n{{\n  \
         for (size_t i = 0; i < count; ++i) {{\n    \
         values[i] = (float)((int32_t)codes[i] - {upper}_OUTPUT_ZERO_POINT) * {upper}_OUTPUT_SCALE;\n  }}\n}}\n\n\
         size_t {name}_largest(const int8_t *codes, size_t count)\n{{\n  size_t best = 0;\n  \
         for (size_t i = 1; i < count; ++i) {{\n    if (codes[i] > codes[best]) {{\n      best = i;\n    }}\n  }}\n  \
         return best;\n}}\n\n{classes}"
    )
}

/// Golden rows that go into the device's flash: fewer where a row is large.
fn golden_rows(context: &Context<'_>) -> usize {
    const BYTES_MAX: usize = 4096;
    let row = context.input().len() + context.output().len();
    (BYTES_MAX / row.max(1)).clamp(1, 8).min(context.compiled.golden.len())
}

fn golden_header(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    let externs = format!(
        "extern const int8_t {name}_golden_inputs[{upper}_GOLDEN_ROWS][{upper}_INPUT_ELEMENTS];\n\
         extern const int8_t {name}_golden_outputs[{upper}_GOLDEN_ROWS][{upper}_OUTPUT_ELEMENTS];\n"
    );
    let body = format!(
        "#include \"{name}_model.h\"\n\n/* Rows for which the device must compute exactly these codes. */\n#define \
         {upper}_GOLDEN_ROWS {}u\n\n{}",
        golden_rows(context),
        for_both(&externs)
    );
    guard(&format!("{name}_golden.h"), &body)
}

fn golden(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    let mut out =
        format!("/* Made by gannet edge compile. Do not edit. */\n#include \"../include/{name}_golden.h\"\n");
    let rows = &context.compiled.golden[..golden_rows(context)];
    for (kind, side) in [("inputs", "INPUT"), ("outputs", "OUTPUT")] {
        let _ = write!(
            out,
            "\nconst int8_t {name}_golden_{kind}[{upper}_GOLDEN_ROWS][{upper}_{side}_ELEMENTS] = {{\n"
        );
        for row in rows {
            let codes = if kind == "inputs" { &row.inputs[0] } else { &row.outputs[0] };
            out.push_str("{\n");
            for line in codes.chunks(BYTES_PER_LINE) {
                let codes: Vec<String> = line.iter().map(i8::to_string).collect();
                let _ = writeln!(out, "{},", codes.join(","));
            }
            out.push_str("},\n");
        }
        out.push_str("};\n");
    }
    out
}
