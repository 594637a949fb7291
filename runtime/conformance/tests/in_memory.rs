//! The in-memory backend of the other tests keeps the suite: what passes with it may be expected of an engine.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{fmt::Write as _, sync::Arc};

use gannet_conformance::{Model, Subject, Tensor};
use gannet_runtime::{backend::Backend, testing::FakeBackend};

struct InMemory(FakeBackend);

impl Subject for InMemory {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.0.clone())
    }

    fn model(&self, model: &Model) -> Option<Vec<u8>> {
        let mut text = String::new();
        let mut tensors = |side: &str, tensors: &[Tensor]| {
            for Tensor { name, dtype, axes } in tensors {
                let axes: Vec<String> = axes.iter().map(i64::to_string).collect();
                writeln!(text, "{side} = {name} {dtype} {}", axes.join(" ")).unwrap();
            }
        };
        tensors("input", &model.inputs);
        tensors("output", &model.outputs);
        if let Some(number) = model.refuses {
            writeln!(text, "refuse_value = {number}").unwrap();
        }
        writeln!(text, "add = {}", model.adds).unwrap();
        Some(text.into_bytes())
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        &[("an empty file", "a file that says nothing is the default model")]
    }
}

#[test]
fn it_conforms() {
    let subject = InMemory(FakeBackend::default());
    println!("{}", gannet_conformance::run(&subject).unwrap_or_else(|faults| panic!("{faults}")));
    assert_eq!(subject.0.live(), 0, "an instance is left");
}
