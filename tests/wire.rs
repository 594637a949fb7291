//! What comes over the wire, good and bad: exact statuses, messages that name the field, and a server that stands
//! unharmed behind each. Must not know how models are batched.

mod calls;
mod faults;
mod forms;
mod limits;

use crate::support::{
    http::get,
    repository::Repository,
    server::{Server, zoo},
    wait,
};

/// The models that the cases speak of.
fn repository() -> Repository {
    let fixtures =
        ["add_sub", "identity_fp32", "identity_int64", "identity_uint8", "identity_string", "seq_len"];
    let repository = Repository::of(&fixtures);
    repository.add("iris", "1", &zoo().join("iris/1"));
    repository.set("identity_int64", "[labels]\nstable = \"1\"\n");
    repository
}

/// The server lives, wants requests, and holds nothing of what came before.
#[track_caller]
fn is_unharmed(server: &Server, after: &str) {
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(server.http(), path).status, 200, "{path} after {after}");
    }
    let state = server.app().state();
    wait::until(&format!("no bytes are held after {after}"), || state.admission.bytes() == 0);
    let snapshot = state.table().snapshot();
    let versions = snapshot.models().into_values().flat_map(|entry| &entry.versions);
    for servable in versions.filter_map(|version| version.servable.as_ref()) {
        let idle = || servable.waiting() == 0 && servable.inflight() == 0;
        wait::until(&format!("'{}' holds no request after {after}", servable.model), idle);
    }
}

/// Every one of `words` is in the message.
#[track_caller]
fn names(message: &str, words: &[&str], case: &str) {
    for word in words {
        assert!(message.contains(word), "{case}: expected {word:?} in {message:?}");
    }
}
