//! Benchmarks of Gannet's parts, one file per question: `cargo bench -p gannet-benches`. The whole is measured with
//! `gannet-loadtest`.
