//! What the simulation found, each as its shortest story. The whole is checked in `tests/sim.rs`.

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec(Version, u64);

impl Wanted for Spec {
    fn version(&self) -> &Version {
        &self.0
    }
    fn same(&self, other: &Self) -> bool {
        self == other
    }
    fn memory_bytes(&self) -> u64 {
        self.1
    }
}

fn model(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

struct Story(Lifecycle<Spec>);

impl Story {
    fn new(policy: SwapPolicy, memory_bytes_max: u64, loads_max: usize) -> Self {
        let memory_bytes_max = Some(memory_bytes_max);
        Self(Lifecycle::new(LifecycleLimits { policy, memory_bytes_max, loads_max }))
    }

    /// States what is wanted, as (version, bytes), and gives all actions.
    fn aspire(&mut self, name: &str, aspired: &[(&str, u64)]) -> Vec<String> {
        let specs = aspired.iter().map(|(text, bytes)| Spec(version(text), *bytes)).collect();
        self.0.aspire(&model(name), specs, BTreeMap::new());
        self.actions()
    }

    fn actions(&mut self) -> Vec<String> {
        let text = |action: Action<Spec>| match action {
            Action::Load { model, incarnation, wanted } => {
                format!("load {model} {} as {incarnation}", wanted.0)
            }
            Action::Retire(incarnation) => format!("retire {incarnation}"),
        };
        std::iter::from_fn(|| self.0.next_action()).map(text).collect()
    }
}

#[test]
fn what_did_not_fit_is_loaded_once_it_fits() {
    let mut story = Story::new(SwapPolicy::PreserveAvailability, 100, 1);
    assert_eq!(story.aspire("a", &[("1", 60)]), ["load a 1 as 1"]);
    assert_eq!(story.0.loaded(&model("a"), 1), None);
    assert_eq!(story.aspire("b", &[("1", 60)]), [""; 0]);
    assert!(story.0.status(&model("b"))[0].reason.contains("budget of 100"));
    assert_eq!(story.aspire("a", &[]), ["retire 1"]);
    assert!(!story.0.settled(&model("b")), "it will fit when the copy that drains is gone");
    story.0.destroyed(1);
    assert_eq!(story.actions(), ["load b 1 as 2"]);
}

#[test]
fn a_reload_waits_for_its_turn_and_its_memory() {
    let mut story = Story::new(SwapPolicy::PreserveAvailability, 100, 1);
    assert_eq!(story.aspire("a", &[("1", 30)]), ["load a 1 as 1"]);
    story.0.loaded(&model("a"), 1);
    assert_eq!(story.aspire("b", &[("1", 30)]), ["load b 1 as 2"]);
    assert!(story.0.reload(&model("a"), &version("1")));
    assert_eq!(story.actions(), [""; 0], "one load at a time");
    assert!(!story.0.settled(&model("a")));
    story.0.loaded(&model("b"), 2);
    assert_eq!(story.actions(), ["load a 1 as 3"]);
    assert_eq!(story.0.loaded(&model("a"), 3), Some(Action::Retire(1)));
    story.0.destroyed(1);
    assert_eq!(story.aspire("c", &[("1", 20)]), ["load c 1 as 4"]);
    story.0.loaded(&model("c"), 4);
    assert!(story.0.reload(&model("a"), &version("1")));
    assert_eq!(story.actions(), [""; 0], "80 of 100 are in use");
    let status = &story.0.status(&model("a"))[0];
    assert_eq!((status.state, status.serving), (State::Ready, Some(3)));
    assert!(status.reason.contains("budget of 100"), "{}", status.reason);
    assert!(!story.0.reload(&model("a"), &version("2")));
}

#[test]
fn a_model_that_waits_for_a_drain_is_not_settled() {
    let mut story = Story::new(SwapPolicy::PreserveResources, 100, 1);
    story.aspire("a", &[("1", 60)]);
    story.0.loaded(&model("a"), 1);
    assert_eq!(story.aspire("a", &[("2", 60)]), ["retire 1"]);
    assert!(!story.0.settled(&model("a")));
    story.0.destroyed(1);
    assert_eq!(story.actions(), ["load a 2 as 2"]);
    story.0.loaded(&model("a"), 2);
    assert!(story.0.settled(&model("a")));
}

#[test]
fn labels_set_by_hand_outlast_what_the_source_says() {
    let mut story = Story::new(SwapPolicy::PreserveAvailability, 100, 1);
    let name = model("a");
    let labels = || BTreeMap::from([("stable".to_owned(), version("1")), ("old".to_owned(), version("1"))]);
    let specs = |texts: &[&str]| texts.iter().map(|text| Spec(version(text), 1)).collect::<Vec<_>>();
    story.0.aspire(&name, specs(&["1", "2"]), labels());
    while let Some(Action::Load { model, incarnation, .. }) = story.0.next_action() {
        assert_eq!(story.0.loaded(&model, incarnation), None);
    }
    story.0.set_label(&name, "stable", Some(&version("2"))).unwrap();
    story.0.set_label(&name, "old", None).unwrap();
    assert!(story.0.set_label(&name, "old", None).is_err(), "it is gone already");
    story.0.aspire(&name, specs(&["1", "2"]), labels());
    assert_eq!(story.0.labels(&name), BTreeMap::from([("stable".to_owned(), version("2"))]));
    let set = BTreeMap::from([("next".to_owned(), Some(version("9"))), ("old".to_owned(), None)]);
    story.0.restore_labels(&name, set);
    let restored = [("next".to_owned(), version("9")), ("stable".to_owned(), version("1"))];
    assert_eq!(story.0.labels(&name), BTreeMap::from(restored), "they hold before their versions serve");
    story.0.aspire(&name, Vec::new(), BTreeMap::new());
    assert_eq!(story.0.labels(&name).len(), 1, "what was set stays while the model is gone");
}
