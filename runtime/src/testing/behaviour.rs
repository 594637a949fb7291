//! How a fake model behaves, as its file says. Must not know how it is run.
//!
//! ```text
//! # name, type (FP32, FP64 or INT32; any when nothing is added), axes: a length, -1, or a symbol; a line for each tensor
//! input = x FP32 -1 seq
//! output = y FP32 -1 seq
//! add = 3            # output i is input i plus this
//! cost_us = 50       # a run keeps its thread that long
//! row_cost_us = 2    # and so much longer for each row
//! open_us = 1000     # opening keeps its thread that long
//! fail_every = 10    # every tenth run of an instance is an error; runs of warm-up count
//! panic_every = 10   # or a panic
//! fail_value = 13    # a run whose first input holds this value is an error
//! panic_value = 14   # or a panic
//! refuse_value = 12  # or is refused
//! fail_open = true   # the file is refused
//! spin_value = 16    # a run whose first input holds this value keeps its thread at work for 20 ms
//! hang_value = 17    # or waiting for three seconds
//! wrong_rows = true  # outputs have a row more than they should
//! wrong_rank_value = 15 # outputs have only their first axis when the first input holds this value
//! ```

use std::sync::Arc;

use gannet_models::{DType, Dim, Signature, TensorSpec};

/// What the file said. Everything may be left out: then `x` FP32 `[-1,1]` becomes `y`.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the keys of the file, described above")]
pub struct Behaviour {
    pub signature: Signature,
    pub add: f64,
    pub cost_us: u64,
    pub row_cost_us: u64,
    pub open_us: u64,
    pub fail_every: u64,
    pub panic_every: u64,
    pub fail_value: Option<f64>,
    pub panic_value: Option<f64>,
    pub refuse_value: Option<f64>,
    pub spin_value: Option<f64>,
    pub hang_value: Option<f64>,
    pub fail_open: bool,
    pub wrong_rows: bool,
    pub wrong_rank_value: Option<f64>,
}

impl Behaviour {
    /// Reads the file's text.
    ///
    /// # Errors
    /// A text naming the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut behaviour = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let pair = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            if pair.and_then(|(key, value)| behaviour.set(key, value)).is_none() {
                return Err(format!("line {}: expected a known 'key = value', got '{line}'", index + 1));
            }
        }
        let signature = &mut behaviour.signature;
        if signature.inputs.is_empty() {
            signature.inputs.extend(tensor("x FP32 -1 1"));
        }
        if signature.outputs.is_empty() {
            let first = signature.inputs[0].clone();
            signature.outputs.push(TensorSpec { name: "y".into(), ..first });
        }
        let plain = |spec: &&TensorSpec| matches!(spec.dtype, DType::Fp32 | DType::Fp64 | DType::Int32);
        if let Some(other) = signature.inputs.iter().find(|spec| behaviour.add != 0.0 && !plain(spec)) {
            return Err(format!("nothing can be added to input '{}', which is {}", other.name, other.dtype));
        }
        for (index, output) in signature.outputs.iter().enumerate() {
            let input = &signature.inputs[index.min(signature.inputs.len() - 1)];
            if output.dtype != input.dtype {
                return Err(format!("output '{}' must have the type of input '{}'", output.name, input.name));
            }
        }
        Ok(behaviour)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "input" => self.signature.inputs.push(tensor(value)?),
            "output" => self.signature.outputs.push(tensor(value)?),
            "add" => self.add = value.parse().ok()?,
            "cost_us" => self.cost_us = value.parse().ok()?,
            "row_cost_us" => self.row_cost_us = value.parse().ok()?,
            "open_us" => self.open_us = value.parse().ok()?,
            "fail_every" => self.fail_every = value.parse().ok()?,
            "panic_every" => self.panic_every = value.parse().ok()?,
            "fail_value" => self.fail_value = Some(value.parse().ok()?),
            "panic_value" => self.panic_value = Some(value.parse().ok()?),
            "spin_value" => self.spin_value = Some(value.parse().ok()?),
            "hang_value" => self.hang_value = Some(value.parse().ok()?),
            "refuse_value" => self.refuse_value = Some(value.parse().ok()?),
            "fail_open" => self.fail_open = value.parse().ok()?,
            "wrong_rows" => self.wrong_rows = value.parse().ok()?,
            "wrong_rank_value" => self.wrong_rank_value = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// `name TYPE axis axis ...`
fn tensor(text: &str) -> Option<TensorSpec> {
    let mut words = text.split_whitespace();
    let name = words.next()?.to_owned();
    let dtype = DType::parse(words.next()?)?;
    let dim = |word: &str| match word.parse::<usize>() {
        Ok(length) => Dim::Fixed(length),
        Err(_) if word == "-1" => Dim::Dynamic(None),
        Err(_) => Dim::Dynamic(Some(Arc::from(word))),
    };
    Some(TensorSpec { name, dtype, shape: words.map(dim).collect(), labels: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_its_faults_are_named() {
        let read = Behaviour::parse("input = a INT32 -1 seq\nadd = 3 # three\n\nfail_open = true").unwrap();
        assert_eq!(read.signature.inputs[0].shape_text(), "[-1,-1]");
        assert_eq!(read.signature.outputs[0].name, "y");
        assert_eq!((read.add, read.fail_open), (3.0, true));
        for (text, expected) in [("\nad = 3", "line 2"), ("add = x", "line 1"), ("input = a INT4", "line 1")]
        {
            let message = Behaviour::parse(text).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(Behaviour::parse("input = a INT32\noutput = y FP32").is_err());
        assert!(Behaviour::parse("input = a BYTES").is_ok());
        assert!(Behaviour::parse("input = a BYTES\nadd = 1").is_err());
    }
}
