//! try
use gannet_edge::{calibrate::calibrate, data::Samples, integer::*, lite, onnx::Source, passes, quantise::*};
use std::path::Path;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (folder, name) = (Path::new(&args[1]), &args[2]);
    let opts = args[3..].join(" ");
    let source = Source::read(&std::fs::read(folder.join(format!("{name}.onnx")))?)?;
    let mut graph = passes::optimise(gannet_edge::lower(&source)?, 1).graph;
    if opts.contains("show") { println!("{graph}"); }
    let row = graph.inputs[0].source_shape.iter().product();
    let cal = Samples::read(&folder.join(format!("{name}.calibrate.f32")), row)?;
    if !opts.contains("nocle") { println!("pairs {}", equalise(&mut graph)); }
    let t = std::time::SystemTime::now();
    let c = calibrate(&graph, &[cal], |_, _| {})?;
    println!("calibrate {:?}", t.elapsed()?);
    let options = QuantiseOptions {
        range: if opts.contains("minmax") { RangeChoice::MinMax } else { RangeChoice::MeanSquaredError },
        dense_per_channel: opts.contains("fcpc"), bias_correction: !opts.contains("nobc"), ..Default::default() };
    let mut model = quantise(&graph, &c, &options)?;
    let plan = gannet_edge::plan::plan_model(&mut model);
    println!("plan {} bound {} greedy {} used {} host {:?} cortex {:?}", plan.bytes, plan.lower_bound, plan.greedy_bytes, model.offline_plan.is_some(), gannet_edge::arena::arena(&model, gannet_edge::arena::Target::Host64), gannet_edge::arena::arena(&model, gannet_edge::arena::Target::CortexM));
    println!("quantise {:?}", t.elapsed()?);
    let bytes = lite::write(&model);
    assert_eq!(lite::read(&bytes)?.tensors, model.tensors);
    std::fs::write(folder.join(format!("{name}.tflite")), &bytes)?;
    std::fs::write(folder.join(format!("{name}.float.tflite")), lite::write(&lite::Model::of_graph(&graph)?))?;
    let ex = IntegerExecutor::new(&model)?;
    let score = Samples::read(&folder.join(format!("{name}.score.f32")), row)?;
    let fl = gannet_edge::float::FloatExecutor::new(&graph);
    let (mut s, mut n) = (0f64, 0f64);
    let (isc, iz) = model.tensors[model.inputs[0]].scale();
    let (osc, oz) = model.tensors[model.outputs[0]].scale();
    let mut ins = vec![]; let mut outs = vec![]; let mut fouts: Vec<u8> = vec![];
    let t = std::time::SystemTime::now();
    for i in 0..score.len() {
        let x = gannet_edge::data::stored(&graph.inputs[0], score.row(i));
        let f = fl.run(&[&x])?[graph.outputs[0].tensor].clone();
        let codes: Vec<i8> = x.iter().map(|v| quantised(*v, isc, iz)).collect();
        let Values::Int8(out) = ex.run(&[Values::Int8(codes.clone())])?.remove(0) else { panic!() };
        for (f, o) in f.iter().zip(&out) {
            let o = (i32::from(*o) - oz) as f32 * osc;
            s += f64::from(*f).powi(2); n += f64::from(f - o).powi(2);
        }
        ins.extend(codes.iter().map(|c| c.cast_unsigned())); outs.extend(out.iter().map(|c| c.cast_unsigned()));
        fouts.extend(f.iter().flat_map(|v| v.to_le_bytes()));
    }
    println!("{name} sqnr {:.2} dB, {} samples {:?}", 10.0 * (s / n).log10(), score.len(), t.elapsed()?);
    std::fs::write(folder.join(format!("{name}.in.i8")), ins)?;
    std::fs::write(folder.join(format!("{name}.out.i8")), outs)?;
    std::fs::write(folder.join(format!("{name}.fout.f32")), fouts)?;
    Ok(())
}
