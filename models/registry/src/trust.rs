//! Whose signatures are wanted on which models. Must not know how signatures are made.

use std::path::Path;

use gannet_models::{ModelName, Version};

use crate::{
    sign::{self, PublicKey},
    uri::fits,
};

/// What happens to a package without a valid signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustMode {
    /// Nothing is looked at.
    Off,
    /// It is served, and the log says so.
    Warn,
    /// It is refused.
    Require,
}

/// One rule of the operator's.
#[derive(Debug, Clone)]
pub struct TrustRule {
    /// Names of models, `*` for anything.
    pub models: String,
    /// Never from a package.
    pub keys: Vec<PublicKey>,
    /// What they are for.
    pub mode: TrustMode,
}

/// All rules; the first that fits a model decides.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    rules: Vec<TrustRule>,
}

impl Trust {
    /// Of rules in their order.
    #[must_use]
    pub fn new(rules: Vec<TrustRule>) -> Self {
        Self { rules }
    }

    /// Whether the files below `dir` may be served as this version.
    ///
    /// # Errors
    /// A text for people.
    pub fn check(&self, dir: &Path, model: &ModelName, version: &Version) -> Result<(), String> {
        let Some(rule) = self.rule(model) else {
            return Ok(());
        };
        if rule.mode == TrustMode::Off {
            return Ok(());
        }
        match (rule.mode, verify(rule, dir, model, version)) {
            (_, Ok(())) => Ok(()),
            (TrustMode::Require, Err(why)) => Err(format!("the signature: {why}; it is refused")),
            (_, Err(why)) => {
                tracing::warn!(%model, %version, "the signature: {why}; it is served all the same (mode = \"warn\")");
                Ok(())
            }
        }
    }

    /// Whether somebody who is trusted signed the files below `dir` as this version; without a rule nobody is.
    #[must_use]
    pub fn is_signed(&self, dir: &Path, model: &ModelName, version: &Version) -> bool {
        self.rule(model).is_some_and(|rule| verify(rule, dir, model, version).is_ok())
    }

    /// Whether no package of this model passes without a valid signature.
    pub(crate) fn is_required_of(&self, model: &ModelName) -> bool {
        self.rule(model).is_some_and(|rule| rule.mode == TrustMode::Require)
    }

    /// Whether any package is looked at.
    #[must_use]
    pub fn is_asked_of(&self, model: &ModelName) -> bool {
        self.rule(model).is_some_and(|rule| rule.mode != TrustMode::Off)
    }

    fn rule(&self, model: &ModelName) -> Option<&TrustRule> {
        self.rules.iter().find(|rule| fits(&rule.models, model.as_str()))
    }
}

fn verify(rule: &TrustRule, dir: &Path, model: &ModelName, version: &Version) -> Result<(), String> {
    let (expected, signed) = (sign::subject(model, version), sign::verify(dir, &rule.keys)?);
    match signed == expected {
        true => Ok(()),
        false => Err(format!("expected a signature of '{expected}', got one of '{signed}'")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.onnx"), "hi\n").unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/w.bin"), "x\n").unwrap();
        fs::write(dir.path().join("model.sig"), include_str!("sign/foreign.sig")).unwrap();
        let key = || PublicKey::from_pem(include_str!("sign/key.pub")).unwrap();
        let rule = |models: &str, mode| TrustRule { models: models.into(), keys: vec![key()], mode };
        let check = |rules: Vec<TrustRule>, model: &str, version: &str| {
            let (model, version) = (ModelName::new(model).unwrap(), Version::new(version).unwrap());
            Trust::new(rules).check(dir.path(), &model, &version)
        };
        use TrustMode::{Off, Require, Warn};
        let signed = |rules: Vec<TrustRule>, version: &str| {
            let (model, version) = (ModelName::new("iris").unwrap(), Version::new(version).unwrap());
            Trust::new(rules).is_signed(dir.path(), &model, &version)
        };
        assert!(
            signed(vec![rule("*", Warn)], "3") && !signed(vec![rule("*", Warn)], "9") && !signed(vec![], "3")
        );
        assert!(check(vec![], "iris", "9").is_ok());
        assert!(check(vec![rule("i*", Require)], "iris", "3").is_ok());
        let message = check(vec![rule("i*", Require)], "iris", "9").unwrap_err();
        assert!(message.contains("expected a signature of 'iris@9', got one of 'iris@3'"), "{message}");
        assert!(check(vec![rule("*", Require)], "other", "3").is_err());
        assert!(check(vec![rule("iris", Warn), rule("*", Require)], "iris", "9").is_ok());
        assert!(check(vec![rule("iris", Off), rule("*", Require)], "iris", "9").is_ok());
        assert!(check(vec![rule("other", Require)], "iris", "9").is_ok());
    }
}
