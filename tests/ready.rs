//! When the server says that it is ready. Must not know what models answer.

use std::time::Duration;

use crate::support::{
    http::get,
    repository::Repository,
    server::{Server, fixture},
    wait,
};

#[test]
fn models_that_were_copied_right_before_the_start_are_waited_for() {
    let repository = Repository::of(&["add_one"]);
    let server = Server::start(repository.path(), |config| {
        config.repository.settle = Duration::from_millis(300);
    });
    assert_eq!(get(server.http(), "/v2/models/add_one/ready").status, 200);
}

#[test]
fn a_model_that_comes_later_does_not_take_readiness_away() {
    let repository = Repository::of(&["add_one"]);
    let server = Server::start(repository.path(), |_| {});
    repository.add("slow", "1", &fixture("slow"));
    wait::until("the new model serves", || {
        assert!(server.app().state().is_ready(), "a load took readiness away");
        get(server.http(), "/v2/models/slow/ready").status == 200
    });
}
