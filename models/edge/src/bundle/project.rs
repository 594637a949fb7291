//! What makes a bundle an Arduino library (specification 2.2), a CMake project and an ESP-IDF component. Must not know
//! the model.

use super::code::Context;

pub(super) fn files(context: &Context<'_>) -> Vec<(String, String)> {
    let name = context.name;
    vec![
        ("library.properties".into(), arduino(context)),
        (format!("examples/{name}_demo/{name}_demo.ino"), sketch(context)),
        ("CMakeLists.txt".into(), cmake(context)),
        ("idf_component.yml".into(), idf(context)),
        ("zephyr/module.yml".into(), format!("name: {name}\nbuild:\n  cmake: .\n")),
    ]
}

/// One line of plain text.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Three numbers, as package managers want a version.
fn semantic(version: &str, sequence: u64) -> String {
    let numbers: Vec<&str> = version.split('.').collect();
    let plain =
        numbers.len() <= 3 && numbers.iter().all(|part| !part.is_empty() && part.parse::<u32>().is_ok());
    if !plain {
        return format!("0.0.{sequence}");
    }
    let part = |place: usize| numbers.get(place).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    format!("{}.{}.{}", part(0), part(1), part(2))
}

fn arduino(context: &Context<'_>) -> String {
    let (name, info) = (context.name, context.info);
    let (model, version) = (line(&info.model), line(&info.version));
    format!(
        "name={name}_inferencing\nversion={}\nauthor=Gannet\nmaintainer=Gannet\n\
         sentence={model}, version {version}, compiled for TensorFlow Lite Micro.\n\
         paragraph=An int8 model of {} bytes with an arena of {} bytes, with golden vectors and a self-test.\n\
         category=Data Processing\nurl=https://github.com/tensorflow/tflite-micro\narchitectures=*\n\
         includes={name}_inferencing.h\n",
        semantic(&info.version, info.sequence),
        context.compiled.tflite.len(),
        context.compiled.cortex_m.required,
    )
}

fn sketch(context: &Context<'_>) -> String {
    let (name, upper) = (context.name, context.upper());
    format!(
        "// Made by gannet edge compile. Needs a TensorFlow Lite Micro library for the board.\n\
         #include <{name}_inferencing.h>\n\n\
         static float input[{upper}_INPUT_ELEMENTS];\nstatic float output[{upper}_OUTPUT_ELEMENTS];\n\n\
         void setup() {{\n  Serial.begin(115200);\n  if (!{name}_setup()) {{\n    Serial.println(\"setup failed: arena or model\");\n    \
         return;\n  }}\n  Serial.println({name}_self_test() ? \"self-test passed\" : \"self-test FAILED\");\n}}\n\n\
         void loop() {{\n  // fill input with one row, channels last\n  if ({name}_run(input, output)) {{\n    \
         Serial.println(output[0]);\n  }}\n  delay(1000);\n}}\n"
    )
}

fn cmake(context: &Context<'_>) -> String {
    let name = context.name;
    let sources = format!("src/{name}.cpp src/{name}_model.c src/{name}_prepost.c src/{name}_golden.c");
    format!(
        "# Made by gannet edge compile. Do not edit.\n\
         # As an ESP-IDF component it finds the interpreter by itself; elsewhere give a target:\n\
         #   add_subdirectory(this-folder)  with  -DTFLM_TARGET=<the target of your TensorFlow Lite Micro>\n\
         if(ESP_PLATFORM)\n  idf_component_register(SRCS {sources}\n    INCLUDE_DIRS include src\n    REQUIRES esp-tflite-micro)\n  \
         return()\nendif()\n\n\
         cmake_minimum_required(VERSION 3.16)\nproject({name} LANGUAGES C CXX)\n\n\
         # what needs no interpreter\nadd_library({name}_data STATIC src/{name}_model.c src/{name}_prepost.c src/{name}_golden.c)\n\
         target_include_directories({name}_data PUBLIC include)\nset_target_properties({name}_data PROPERTIES C_STANDARD 99)\n\n\
         if(TFLM_TARGET)\n  add_library({name} STATIC src/{name}.cpp)\n  target_compile_features({name} PUBLIC cxx_std_17)\n  \
         target_include_directories({name} PUBLIC include src)\n  target_link_libraries({name} PUBLIC {name}_data ${{TFLM_TARGET}})\nendif()\n"
    )
}

fn idf(context: &Context<'_>) -> String {
    let info = context.info;
    let description = line(&info.model).replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "version: \"{}\"\ndescription: \"{description}, compiled for TensorFlow Lite Micro\"\ndependencies:\n  \
         espressif/esp-tflite-micro: \"^1.3.4\"\n  idf: \">=5.0\"\n",
        semantic(&info.version, info.sequence)
    )
}
