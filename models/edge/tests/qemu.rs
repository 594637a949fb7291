//! What a bundle brings and needs no interpreter, run on a Cortex-M4 that QEMU emulates: bytes, codes and values are those
//! of the host. Must not judge numbers of nets.

use std::process::Command;

use gannet_edge::bundle::{Bundle, BundleInfo};

use crate::{
    bundles::compiled,
    support::{
        cross,
        environment::{run, scripts},
    },
};

fn sum(model: &[u8]) -> u32 {
    model.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

#[test]
fn a_bundle_runs_on_an_emulated_cortex_m4_as_on_the_host() {
    let (name, upper) = ("kws1d", "KWS1D");
    let compiled = compiled(name);
    let class_names = vec!["yes".to_owned(), "no".to_owned(), "other".to_owned()];
    let info = BundleInfo { model: name.into(), version: "2".into(), sequence: 7, class_names };
    let folder = tempfile::tempdir().unwrap();
    Bundle::new(&compiled, &info).write(folder.path()).unwrap();
    let image = |model_sum: u32| {
        let program = folder.path().join(format!("{model_sum}.elf"));
        let stubs = scripts().with_file_name("stubs");
        let mut gcc = Command::new(cross::compiler());
        gcc.args(["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-O2", "-std=c99"]);
        gcc.args(["-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-nostdlib", "-I"]);
        gcc.arg(folder.path().join("include")).arg("-T").arg(stubs.join("qemu.ld"));
        gcc.arg(format!("-DNAME={name}")).arg(format!("-DUPPER={upper}"));
        gcc.arg(format!("-DGOLDEN_HEADER=\"{name}_golden.h\""))
            .arg(format!("-DPREPOST_HEADER=\"{name}_prepost.h\""));
        gcc.arg(format!("-DMODEL_SUM={model_sum}u")).arg("-DFIRST_CLASS=\"yes\"");
        gcc.arg(stubs.join("qemu.c"));
        for part in ["model", "prepost", "golden"] {
            gcc.arg(folder.path().join(format!("src/{name}_{part}.c")));
        }
        run(gcc.arg("-lgcc").arg("-o").arg(&program), "a program for the emulator");
        let mut qemu = Command::new(cross::emulator());
        qemu.args(["-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "null"]);
        qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&program);
        // an emulator that hangs ends with the test's patience
        let mut bounded = Command::new("timeout");
        bounded.arg("60").arg(qemu.get_program()).args(qemu.get_args());
        bounded.output().expect("the emulator starts")
    };
    let good = image(sum(&compiled.tflite));
    let said = String::from_utf8_lossy(&[good.stdout, good.stderr].concat()).into_owned();
    assert!(good.status.success() && said.contains("all as on the host"), "{:?} {said}", good.status);
    let bad = image(sum(&compiled.tflite) ^ 1);
    assert!(!bad.status.success(), "it tells a difference: {:?}", bad.status);
}
