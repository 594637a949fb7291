//! Which values of a model's inputs and outputs must not leave the server as they are, and what leaves in their place.
//! Everything that goes out (captured rows, worst cases of shadows, names of newcomers, webhooks, samples for
//! calibration) asks here first. Pure. Must not know where anything goes.
//!
//! ```toml
//! [redaction.inputs]           # likewise [redaction.outputs]; "*" is for those that are not named
//! age = "drop"                 # nothing of it is kept
//! income = "mask"              # its shape is kept, its values are not
//! customer = "hash"            # HMAC-SHA256 of each value's text with the deployment's key, in hexadecimal
//! ```

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::Signature;

/// Stands for every input or output that is not named.
pub const ANY: &str = "*";
/// What a masked text reads.
pub const MASK: &str = "***";
/// The fewest bytes of a key: what is hashed with less can be guessed.
pub const KEY_BYTES_MIN: usize = 16;

/// What is done to values before they go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Nothing is kept.
    Drop,
    /// That there was a value is kept.
    Mask,
    /// The same value gives the same text, which tells nothing without the key.
    Hash,
}

/// Inputs or outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// What requests bring.
    Input,
    /// What the model answers.
    Output,
}

/// What a model's settings say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redaction {
    /// By input.
    pub inputs: BTreeMap<String, Method>,
    /// By output.
    pub outputs: BTreeMap<String, Method>,
}

/// The deployment's key. It is never shown.
#[derive(Clone)]
pub struct RedactionKey(Arc<Hmac<Sha256>>);

/// What a model's settings say, with the key: asked for each value that goes out.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    redaction: Redaction,
    key: Option<RedactionKey>,
}

/// Why a key is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a key of {KEY_BYTES_MIN} bytes or more, got {0}; make one with `openssl rand -hex 32`")]
pub struct KeyError(usize);

impl Method {
    /// Reads `drop`, `mask` or `hash`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "drop" => Some(Self::Drop),
            "mask" => Some(Self::Mask),
            "hash" => Some(Self::Hash),
            _ => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Mask => "mask",
            Self::Hash => "hash",
        }
    }
}

impl Redaction {
    /// What is done to an input or output; `None`: it goes out as it is.
    #[must_use]
    pub fn method(&self, side: Side, name: &str) -> Option<Method> {
        let methods = match side {
            Side::Input => &self.inputs,
            Side::Output => &self.outputs,
        };
        methods.get(name).or_else(|| methods.get(ANY)).copied()
    }

    /// Whether anything is done to any input: texts that an engine wrote may quote values then.
    #[must_use]
    pub fn hides_inputs(&self) -> bool {
        !self.inputs.is_empty()
    }

    /// Whether anything is done at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }

    /// A fault for each name that the model does not have: a slip of the finger would let its values out.
    #[must_use]
    pub fn faults(&self, signature: &Signature) -> Vec<String> {
        let sides =
            [("input", &self.inputs, &signature.inputs), ("output", &self.outputs, &signature.outputs)];
        let mut faults = Vec::new();
        for (side, methods, specs) in sides {
            for name in methods.keys().filter(|name| *name != ANY) {
                if specs.iter().all(|spec| spec.name != *name) {
                    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                    let names = names.join(", ");
                    faults.push(format!("the redaction names {side} '{name}', the model has: {names}"));
                }
            }
        }
        faults
    }
}

impl RedactionKey {
    /// Takes a key.
    ///
    /// # Errors
    /// When it is too short.
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < KEY_BYTES_MIN {
            return Err(KeyError(secret.len()));
        }
        Hmac::new_from_slice(secret).map(|mac| Self(Arc::new(mac))).map_err(|_| KeyError(secret.len()))
    }

    /// HMAC-SHA256 of a value's text, in hexadecimal.
    #[must_use]
    pub fn hash(&self, text: &[u8]) -> String {
        let mut mac = (*self.0).clone();
        mac.update(text);
        let mut hash = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            for half in [byte >> 4, byte & 0xf] {
                hash.push(char::from(b"0123456789abcdef"[usize::from(half)]));
            }
        }
        hash
    }
}

impl fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactionKey(..)")
    }
}

impl Redactor {
    /// Without a key, what is to be hashed is masked: nothing goes out that should not.
    #[must_use]
    pub fn new(redaction: Redaction, key: Option<RedactionKey>) -> Self {
        Self { redaction, key }
    }

    /// What the settings say.
    #[must_use]
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// What is really done: a hash without a key is a mask.
    #[must_use]
    pub fn method(&self, side: Side, name: &str) -> Option<Method> {
        match self.redaction.method(side, name) {
            Some(Method::Hash) if self.key.is_none() => Some(Method::Mask),
            other => other,
        }
    }

    /// Whether something is to be hashed and there is no key.
    #[must_use]
    pub fn lacks_key(&self) -> bool {
        let methods = self.redaction.inputs.values().chain(self.redaction.outputs.values());
        self.key.is_none() && methods.into_iter().any(|method| *method == Method::Hash)
    }

    /// The text of a value as it may go out; `None`: not at all. For categories, newcomers and whatever names a value.
    #[must_use]
    pub fn text<'a>(&self, side: Side, name: &str, value: &'a str) -> Option<Cow<'a, str>> {
        match self.method(side, name) {
            None => Some(Cow::Borrowed(value)),
            Some(Method::Drop) => None,
            Some(Method::Mask) => Some(Cow::Borrowed(MASK)),
            Some(Method::Hash) => Some(Cow::Owned(self.hash(value.as_bytes()))),
        }
    }

    /// A number as it may go out; `None` where it may not as a number: it is dropped, masked or a hash then.
    #[must_use]
    pub fn number(&self, side: Side, name: &str, value: f64) -> Option<f64> {
        self.method(side, name).is_none().then_some(value)
    }

    /// The hash of a value's text; a mask without a key.
    #[must_use]
    pub fn hash(&self, text: &[u8]) -> String {
        self.key.as_ref().map_or_else(|| MASK.to_owned(), |key| key.hash(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Dim, TensorSpec};

    fn redaction() -> Redaction {
        let inputs = [("age", Method::Drop), ("income", Method::Mask), ("customer", Method::Hash)];
        let inputs = inputs.map(|(name, method)| (name.to_owned(), method)).into();
        Redaction { inputs, outputs: [(ANY.to_owned(), Method::Mask)].into() }
    }

    #[test]
    fn values_go_out_as_the_settings_say() {
        let key = RedactionKey::new(b"0123456789abcdef").unwrap();
        let redactor = Redactor::new(redaction(), Some(key));
        let check = |side, name: &str, expected: Option<&str>| {
            assert_eq!(redactor.text(side, name, "42").as_deref(), expected, "{side:?} {name}");
        };
        check(Side::Input, "age", None);
        check(Side::Input, "income", Some(MASK));
        check(Side::Input, "height", Some("42"));
        check(Side::Output, "whatever", Some(MASK));
        // printf 42 | openssl dgst -sha256 -hmac 0123456789abcdef
        let hash = "8d24a2a526d5f556469db8b6280e3a7b877a41155ca536be3a1f2a9d2be0eacd";
        check(Side::Input, "customer", Some(hash));
        assert_eq!(redactor.number(Side::Input, "height", 1.5), Some(1.5));
        assert_eq!(redactor.number(Side::Input, "customer", 1.5), None);
    }

    #[test]
    fn hashes_are_those_of_rfc_4231() {
        let key = RedactionKey::new(&[0x0b; 20]).unwrap();
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(key.hash(b"Hi There"), expected);
        assert_eq!(format!("{key:?}"), "RedactionKey(..)");
        assert!(RedactionKey::new(b"short").unwrap_err().to_string().contains("16 bytes or more, got 5"));
    }

    #[test]
    fn without_a_key_nothing_is_let_out() {
        let redactor = Redactor::new(redaction(), None);
        assert!(redactor.lacks_key());
        assert_eq!(redactor.text(Side::Input, "customer", "42").as_deref(), Some(MASK));
        assert_eq!(redactor.method(Side::Input, "customer"), Some(Method::Mask));
        assert!(!Redactor::default().lacks_key());
    }

    #[test]
    fn names_that_the_model_does_not_have_are_faults() {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            dtype: DType::Fp32,
            shape: vec![Dim::Dynamic(None)],
            labels: None,
        };
        let signature =
            Signature { inputs: vec![spec("age"), spec("income")], outputs: vec![spec("y")], batched: true };
        let faults = redaction().faults(&signature);
        assert_eq!(faults, ["the redaction names input 'customer', the model has: age, income"]);
    }
}
