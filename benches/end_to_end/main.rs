//! What does the server add to the runtime and to the network? Each cell starts the server on one core and the loader
//! on the other, beside a fixed-answer server and bare echo servers on the same libraries; all sides alternate within
//! one run, so that a machine whose speed drifts does not decide. Figures are medians over rounds, with their spread.
//!
//! `cargo bench -p gannet-benches --bench end_to_end -- [CELL ...] [--rounds N] [--seconds S]`

mod isolation;
mod observers;
mod overload;
mod report;
mod shadow;
mod small;
mod throughput;

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Times that the sides alternate.
    rounds: usize,
    /// Measured time of one side in one round.
    seconds: f64,
}

type Cell = (&'static str, &'static str, fn(Effort));

const CELLS: [Cell; 12] = [
    (
        "small",
        "a small model at 64 in flight, over each wire, against fixed answers and bare echoes",
        small::busy,
    ),
    ("lone", "a small model, one request at a time, against fixed answers and a bare echo", small::lone),
    ("open", "a small model in open loop at 70 % of its maximum", small::open),
    ("large", "a binary tensor of 600 KB against a bare echo that reads it", small::large),
    ("dense", "a text encoder and ResNet-50, single rows, against bare runs", throughput::dense),
    ("digits", "a small CNN, 32 rows a request, against bare runs", throughput::digits),
    ("trees", "boosted trees, 64 rows a request, against bare runs", throughput::trees),
    ("tabular", "a 30-feature net on both cores, the loader included", throughput::tabular),
    ("overload", "three times the capacity, every request with a deadline", overload::overload),
    ("shadow", "a model with and without a shadow that sees every request", shadow::shadow),
    (
        "observers",
        "a small model, one request in a hundred looked at and one captured, against none",
        observers::observers,
    ),
    ("reload", "the tail of one model while another of 100 MB is swapped", isolation::reload),
];

fn main() {
    gannet_benches::rig::play();
    let (cells, effort) = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(fault) => {
            eprintln!("{fault}");
            std::process::exit(2);
        }
    };
    println!(
        "{} rounds of {} s a side; figures are medians over rounds (least .. greatest)",
        effort.rounds, effort.seconds
    );
    for (name, question, run) in cells {
        println!("\n{name}: {question}");
        run(effort);
    }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<(Vec<Cell>, Effort), String> {
    let mut effort = Effort { rounds: 5, seconds: 2.0 };
    let mut cells = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut number = |name: &str| {
            let text = arguments.next().unwrap_or_default();
            text.parse::<f64>().map_err(|_| format!("{name}: expected a number, got '{text}'"))
        };
        match argument.as_str() {
            // cargo says so to every benchmark
            "--bench" => {}
            "--rounds" => effort.rounds = (number("--rounds")? as usize).max(1),
            "--seconds" => effort.seconds = number("--seconds")?.max(0.1),
            name => match CELLS.iter().find(|(cell, ..)| *cell == name) {
                Some(cell) => cells.push(*cell),
                None => {
                    let known: Vec<&str> = CELLS.iter().map(|(cell, ..)| *cell).collect();
                    return Err(format!("unknown cell '{name}'; expected some of: {}", known.join(", ")));
                }
            },
        }
    }
    if cells.is_empty() {
        cells = CELLS.to_vec();
    }
    Ok((cells, effort))
}
