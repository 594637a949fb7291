//! What happens to a package once all of its files are here: archives are unpacked, the signature is checked, files get
//! the names that engines look for, and the store takes it over. Blocks. Must not know how the files came.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gannet_models::{Artifact, IngestLimits, ModelError, Store, fault};

use super::{Wanted, create};
use crate::{
    RemoteError,
    mlflow::torch_script,
    model_car,
    package::{Plan, Unpack},
    trust::Trust,
};

/// Golden requests of the operator's own, at most.
const PINNED_MAX: usize = 1000;

pub(super) struct Finish {
    pub(super) files: PathBuf,
    pub(super) unpacked: PathBuf,
    pub(super) plan: Plan,
    pub(super) wanted: Wanted,
    pub(super) trust: Arc<Trust>,
    pub(super) store: Arc<Store>,
    pub(super) limits: IngestLimits,
}

impl Finish {
    pub(super) fn run(self) -> Result<Artifact, RemoteError> {
        let package = match self.plan.unpack {
            Unpack::Nothing => &self.files,
            Unpack::ModelCar => {
                let _ = fs::remove_dir_all(&self.unpacked);
                create(&self.unpacked)?;
                for layer in &self.plan.files {
                    model_car::unpack(&self.files.join(&layer.path), &self.unpacked, &self.limits)?;
                }
                &self.unpacked
            }
        };
        fault::point("unpacked");
        self.trust.check(package, &self.wanted.model, &self.wanted.version).map_err(RemoteError::Unusable)?;
        fault::point("trusted");
        if let Some(script) = &self.plan.torch_script {
            torch_script::check(&package.join(script))?;
        }
        for (from, to) in &self.plan.renames {
            rename(package, from, to)?;
        }
        if let Some(golden) = &self.wanted.golden {
            pin(golden, &package.join("golden"))?;
        }
        fault::point("shaped");
        Ok(self.store.admit(package, &self.limits)?)
    }
}

fn rename(package: &Path, from: &str, to: &str) -> Result<(), RemoteError> {
    let (from, to) = (package.join(from), package.join(to));
    if !from.exists() && to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        create(parent)?;
    }
    fs::rename(&from, &to).map_err(ModelError::io(&from, "rename"))?;
    Ok(())
}

/// Copies the operator's golden requests into the package, beside its own.
fn pin(from: &Path, into: &Path) -> Result<(), RemoteError> {
    let items = fs::read_dir(from).map_err(ModelError::io(from, "list the pinned golden requests"))?;
    let mut files: Vec<PathBuf> = items.flatten().map(|item| item.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() || files.len() > PINNED_MAX {
        return Err(RemoteError::Local(format!(
            "{}: expected 1 to {PINNED_MAX} golden requests (*.json), got {}",
            from.display(),
            files.len()
        )));
    }
    create(into)?;
    for file in files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let target = into.join(format!("pinned-{name}"));
        fs::copy(&file, &target).map_err(ModelError::io(&file, "copy"))?;
    }
    Ok(())
}
