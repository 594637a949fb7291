//! One suite for every backend: the cases are data (`suite.toml`), a backend's test brings the models in its own
//! format and lists what it cannot do, with reasons. An exception that is none any more is a fault too. For tests
//! alone. Must not know any backend.

mod check;
mod suite;

use std::{path::Path, sync::Arc};

use gannet_runtime::backend::Backend;

pub use self::suite::{Model, Suite, Tensor};

/// A backend under test.
pub trait Subject {
    /// The backend, started.
    fn backend(&self) -> Arc<dyn Backend>;

    /// A model in the backend's format; `None` when it cannot say that, which an exception must explain.
    fn model(&self, model: &Model) -> Option<Vec<u8>>;

    /// What it cannot do: (name of the case, reason).
    fn exceptions(&self) -> &'static [(&'static str, &'static str)];
}

/// Runs every case. The text says how each went.
///
/// # Errors
/// A text with every case that failed, and every exception that is none.
pub fn run(subject: &dyn Subject) -> Result<String, String> {
    let suite = Suite::read()?;
    let exceptions = subject.exceptions();
    let (mut report, mut faults) = (Vec::new(), Vec::new());
    for case in &suite.cases {
        let reason = exceptions.iter().find(|(name, _)| *name == case.name).map(|(_, reason)| *reason);
        match (check::check(subject, &suite, case), reason) {
            (Ok(()), None) => report.push(format!("ok         {}", case.name)),
            (Err(why), Some(reason)) => report.push(format!("excepted   {} ({reason}): {why}", case.name)),
            (Err(why), None) => faults.push(format!("{}: {why}", case.name)),
            (Ok(()), Some(_)) => faults.push(format!("{}: is listed as an exception, and works", case.name)),
        }
    }
    let unknown = exceptions.iter().filter(|(name, _)| suite.cases.iter().all(|case| case.name != *name));
    faults.extend(unknown.map(|(name, _)| format!("{name}: is listed as an exception, and is no case")));
    if faults.is_empty() { Ok(report.join("\n")) } else { Err(faults.join("\n")) }
}

/// Writes a model where `folder` is a version's, and says where.
pub(crate) fn put(backend: &dyn Backend, bytes: &[u8], folder: &Path) -> std::io::Result<std::path::PathBuf> {
    let path = folder.join(backend.model_files()[0]);
    std::fs::write(&path, bytes)?;
    Ok(path)
}
