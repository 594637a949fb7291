//! What a route must fit: the versions that there are, and what its writer knows. Must not know files or threads.

use std::sync::Arc;

use gannet_models::{ModelName, Signature, Version};
use gannet_runtime::{
    route::{Route, RouteFile, StickyKey},
    servable::Servable,
    table::{ModelEntry, TableReader},
};

use super::{Condition, SavedRoute};
use crate::{
    ask::Parameters,
    respond::{Kind, Refusal},
};

/// Whether the route that is there is the one that the writer knows.
pub(super) fn condition(
    model: &ModelName,
    before: Option<&SavedRoute>,
    condition: &Condition,
) -> Result<(), Refusal> {
    let holds = match condition {
        Condition::Always => true,
        Condition::Revision(known) => before.is_some_and(|kept| known.contains(&kept.revision)),
        Condition::Present => before.is_some(),
        Condition::Absent => before.is_none(),
    };
    if holds {
        return Ok(());
    }
    let now = match before {
        Some(kept) => format!("has the ETag \"{}\"", kept.revision),
        None => "does not exist".to_owned(),
    };
    Err(Refusal::new(
        Kind::Precondition,
        format!(
            "the route of '{model}' {now}, which the request's condition does not allow: somebody else changed it; \
                 GET it and decide anew"
        ),
    ))
}

/// What there is to say of a model without a route.
#[must_use]
pub fn no_route(model: &ModelName) -> Refusal {
    Refusal::new(
        Kind::NotFound,
        format!("'{model}' has no route: its highest version that is ready answers; PUT one to change that"),
    )
}

/// The route, checked against the versions that serve now.
pub(super) fn route(model: &ModelName, file: &RouteFile, table: &TableReader) -> Result<Route, Refusal> {
    let route = Route::new(model.as_str(), file).map_err(|faults| Refusal::invalid(faults.to_string()))?;
    sticky(&route)?;
    let table = table.snapshot();
    let Some(entry) = table.model(model.as_str()) else {
        return Err(Refusal::new(Kind::NotFound, format!("'{model}' is not served; load it first")));
    };
    let mut faults = Faults::default();
    let first = route.split().first().and_then(|weight| entry.version_entry(&weight.version));
    let first = first.and_then(|first| first.servable.as_ref());
    for (index, weight) in route.split().iter().enumerate() {
        faults.look(&format!("split[{index}]"), &weight.version, entry, first);
    }
    for (index, shadow) in route.shadows().iter().enumerate() {
        faults.look(&format!("shadow[{index}]"), &shadow.version, entry, first);
    }
    faults.into_result().map(|()| route)
}

/// Names that no request can carry a key in.
fn sticky(route: &Route) -> Result<(), Refusal> {
    match &route.sticky().key {
        StickyKey::Header(name) if http::HeaderName::from_bytes(name.as_bytes()).is_err() => {
            Err(Refusal::invalid(format!("sticky.header: expected the name of a header, got {name:?}")))
        }
        StickyKey::Parameter(name) if Parameters::NAMES.contains(&name.as_str()) => {
            Err(Refusal::invalid(format!(
                "sticky.parameter: '{name}' has a meaning of its own in the protocol; name one of your own"
            )))
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Faults {
    unknown: Vec<String>,
    conflicts: Vec<String>,
}

impl Faults {
    /// Whether a version serves, and can be asked as the first one is.
    fn look(&mut self, path: &str, version: &Version, entry: &ModelEntry, first: Option<&Arc<Servable>>) {
        let Some(found) = entry.version_entry(version) else {
            return self.unknown(&format!("{path}.version"), version.as_str(), entry);
        };
        let Some(servable) = &found.servable else {
            let why = found.status.describe();
            self.conflicts.push(format!("{path}.version: '{version}' is not ready: {why}"));
            return;
        };
        let Some(first) = first else { return };
        if let Some(why) = differs(&first.signature, &servable.signature) {
            self.conflicts.push(format!(
                "{path}.version: '{version}' {why} '{}', so a request could not be answered by either of them",
                first.version
            ));
        }
    }

    fn unknown(&mut self, path: &str, version: &str, entry: &ModelEntry) {
        let advice = match entry.labels.get(version) {
            Some(labelled) => format!("it is a label, which may move; name the version, '{labelled}'"),
            None => {
                let known: Vec<&str> = entry.versions.iter().map(|v| v.status.version.as_str()).collect();
                format!("known: {}", known.join(", "))
            }
        };
        self.unknown.push(format!("{path}: there is no version '{version}'; {advice}"));
    }

    fn into_result(self) -> Result<(), Refusal> {
        let kind = match (self.unknown.is_empty(), self.conflicts.is_empty()) {
            (true, true) => return Ok(()),
            (false, _) => Kind::NotFound,
            (true, false) => Kind::Conflict,
        };
        Err(Refusal::new(kind, [self.unknown, self.conflicts].concat().join("; ")))
    }
}

/// How `other` is not to be asked as `first` is: by its inputs, or by outputs that it lacks.
fn differs(first: &Signature, other: &Signature) -> Option<&'static str> {
    let inputs = |signature: &Signature| {
        let mut inputs: Vec<_> =
            signature.inputs.iter().map(|spec| (spec.name.clone(), spec.dtype)).collect();
        inputs.sort();
        inputs
    };
    if inputs(first) != inputs(other) {
        return Some("takes other inputs than");
    }
    let lacks = first.outputs.iter().any(|spec| other.output(&spec.name).is_none());
    lacks.then_some("lacks outputs of")
}
