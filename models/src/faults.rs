//! Collects the faults of one settings file, so that all of them are reported at once.
//! Must not know which format is being read.

use std::{collections::HashMap, path::Path};

use crate::{
    ModelSettings,
    error::{Fault, ModelError, SettingsError},
    settings::{Batching, INSTANCES_MAX},
};

/// The most rows a batch may be said to hold.
pub(crate) const BATCH_ROWS_MAX: usize = 1 << 20;
/// The most threads inside one run.
pub(crate) const THREADS_MAX: usize = 1024;
/// The most priority levels.
pub(crate) const PRIORITY_LEVELS_MAX: u32 = 1024;
/// The most requests a queue may be said to hold.
pub(crate) const QUEUE_REQUESTS_LIMIT: usize = 1 << 24;
/// The longest delay or deadline, in microseconds: a day.
pub(crate) const DURATION_US_MAX: u64 = 86_400_000_000;

/// Faults found so far, and the lines of the fields read so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    lines: HashMap<String, usize>,
}

impl Faults {
    /// Remembers where a field stands.
    pub(crate) fn place(&mut self, field: &str, line: usize) {
        self.lines.entry(field.to_owned()).or_insert(line);
    }

    /// Notes a fault of a field.
    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) {
        self.advise(field, expected, got, "");
    }

    /// Notes a fault of a field, with what to do.
    pub(crate) fn advise(
        &mut self,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push(Fault {
            line: None,
            field: field.into(),
            expected: expected.into(),
            got: got.into(),
            advice: advice.into(),
        });
    }

    /// Notes a fault.
    pub(crate) fn push(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    /// Finds the lines of the faults that have none yet.
    pub(crate) fn locate(&mut self, line: impl Fn(&str) -> Option<usize>) {
        for fault in &mut self.list {
            fault.line = fault.line.or_else(|| line(&fault.field));
        }
    }

    /// The settings, or every fault in the order of the lines.
    pub(crate) fn finish<T>(mut self, path: &Path, settings: T) -> Result<T, ModelError> {
        if self.list.is_empty() {
            return Ok(settings);
        }
        for fault in &mut self.list {
            fault.line = fault.line.or_else(|| self.lines.get(&fault.field).copied());
        }
        self.list.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        Err(SettingsError { path: path.to_owned(), faults: self.list }.into())
    }
}

/// What one format calls the fields that are checked against each other.
#[derive(Debug)]
pub(crate) struct FieldNames {
    pub(crate) max_batch_size: &'static str,
    pub(crate) preferred_batch_sizes: &'static str,
    pub(crate) queue_delay: &'static str,
    pub(crate) priority_levels: &'static str,
    pub(crate) priority_default: &'static str,
    pub(crate) queue_requests_max: &'static str,
    pub(crate) timeout: &'static str,
    pub(crate) instances: &'static str,
    pub(crate) threads: &'static str,
    pub(crate) inputs: &'static str,
    pub(crate) outputs: &'static str,
}

/// The checks that every format shares: limits, and fields that must agree with each other.
pub(crate) fn check(settings: &mut ModelSettings, names: &FieldNames, faults: &mut Faults) {
    let mut within = |field: &str, value: u64, min: u64, max: u64| {
        if !(min..=max).contains(&value) {
            faults.add(field, format!("a number from {min} to {max}"), value.to_string());
        }
    };
    if let Batching::Stated(rows) = settings.batching {
        within(names.max_batch_size, rows as u64, 1, BATCH_ROWS_MAX as u64);
    }
    within(names.queue_delay, settings.queue_delay_us_max, 0, DURATION_US_MAX);
    within(names.timeout, settings.timeout_us_default, 0, DURATION_US_MAX);
    within(names.priority_levels, settings.priority_levels.into(), 0, PRIORITY_LEVELS_MAX.into());
    within(names.queue_requests_max, settings.queue_requests_max as u64, 1, QUEUE_REQUESTS_LIMIT as u64);
    within(names.instances, settings.instances.unwrap_or(1) as u64, 1, INSTANCES_MAX as u64);
    within(names.threads, settings.threads as u64, 1, THREADS_MAX as u64);
    check_priorities(settings, names, faults);
    check_preferred(settings, names, faults);
    for (group, tensors) in [(names.inputs, &settings.inputs), (names.outputs, &settings.outputs)] {
        let mut seen = Vec::new();
        for tensor in tensors.iter() {
            if seen.contains(&&tensor.name) {
                faults.add(group, "each name once", format!("'{}' twice", tensor.name));
            }
            seen.push(&tensor.name);
        }
    }
}

fn check_priorities(settings: &ModelSettings, names: &FieldNames, faults: &mut Faults) {
    let (levels, default) = (settings.priority_levels, settings.priority_default);
    if levels == 0 && default != 0 {
        let expected = format!("0, or {} above 0", names.priority_levels);
        faults.add(names.priority_default, expected, default.to_string());
    } else if levels > 0 && !(1..=levels).contains(&default) {
        let expected = format!("a level from 1 to {levels} ({})", names.priority_levels);
        faults.add(names.priority_default, expected, default.to_string());
    }
}

/// Sorts the preferred sizes, which have no order of their own, and checks each against the largest batch.
fn check_preferred(settings: &mut ModelSettings, names: &FieldNames, faults: &mut Faults) {
    settings.preferred_batch_rows.sort_unstable();
    settings.preferred_batch_rows.dedup();
    let max = match settings.batching {
        Batching::Inferred => BATCH_ROWS_MAX,
        Batching::Stated(rows) => rows,
        Batching::Off => 0,
    };
    for &rows in &settings.preferred_batch_rows {
        if rows == 0 || rows > max {
            let expected = match settings.batching {
                Batching::Off => format!("no sizes, as {} is 0", names.max_batch_size),
                _ => format!("sizes from 1 to {max} ({})", names.max_batch_size),
            };
            faults.add(names.preferred_batch_sizes, expected, rows.to_string());
        }
    }
}

/// Calls `parse` with some thousand seeded mutations of a valid text.
#[cfg(test)]
pub(crate) fn mutations(valid: &str, mut parse: impl FnMut(&str)) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let alphabet: Vec<char> = "[]{}\"':=,.#-\\\n\0e9éinf<>_ ".chars().collect();
    for _ in 0..3000 {
        let mut chars: Vec<char> = valid.chars().collect();
        for _ in 0..=random(4) {
            let at = random(chars.len());
            match random(4) {
                0 => chars.truncate(at),
                1 => chars.insert(at.min(chars.len()), alphabet[random(alphabet.len())]),
                2 if at < chars.len() => {
                    chars.remove(at);
                }
                _ if at < chars.len() => chars[at] = alphabet[random(alphabet.len())],
                _ => {}
            }
        }
        parse(&chars.into_iter().collect::<String>());
    }
}
