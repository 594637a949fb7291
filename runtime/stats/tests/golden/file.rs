//! Reads the golden files beside it. Must not know what they hold.

use serde_json::Value;

/// A part of a golden file.
pub(super) struct Golden(Value);

impl Golden {
    pub(super) fn read(file: &str) -> Self {
        let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    pub(super) fn at(&self, name: &str) -> Self {
        Self(self.0.get(name).unwrap_or_else(|| panic!("no '{name}' in {}", self.0)).clone())
    }

    pub(super) fn items(&self) -> Vec<Self> {
        self.0.as_array().unwrap().iter().cloned().map(Self).collect()
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.at(name).0.as_f64().unwrap_or_else(|| panic!("'{name}' is no number"))
    }

    pub(super) fn numbers(&self) -> Vec<f64> {
        self.0.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    pub(super) fn counts(&self) -> Vec<u64> {
        self.numbers().into_iter().map(|x| x as u64).collect()
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.at(name).0.as_str().unwrap_or_else(|| panic!("'{name}' is no text")).to_owned()
    }
}

/// 1e-9 relative, or 1e-12 beside zero.
#[track_caller]
pub(super) fn close(got: f64, expected: f64, what: &str) {
    let bound = (1e-9 * expected.abs()).max(1e-12);
    assert!((got - expected).abs() <= bound, "{what}: expected {expected}, got {got}");
}
