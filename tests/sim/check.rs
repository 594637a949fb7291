//! The invariants. Each message begins with the letter that it has here.
//!
//! a. A version has one serving copy at most, and what the lifecycle says serves is loaded and not retired.
//! b. With `PreserveAvailability`: a model that served at the last publication serves at this one, unless its source
//!    wants nothing of it now.
//! c. A copy is retired once and only after it was loaded; it is destroyed once, after that, when no request holds it.
//! d. No request joins, runs or ends on a destroyed copy; every request has one answer, every one that joined leaves
//!    its copy once, and an answer that came of a run came of one run on the copy it was resolved to.
//! e. A request whose caller left or whose deadline passed does not start to run.
//! f. A batch has one group, and `rows_max` rows at most unless it is a single request.
//! g. What is loading, serving or retired stays within the memory budget, and the lifecycle's count is that sum.
//! h. Loads in flight stay within `loads_max`.
//! i. A content whose load failed is not loaded again before its source changed it or somebody asked (retry, reload);
//!    a failed load takes nothing away; only what is wanted is loaded or begins to serve.
//! j. A batch begins with the first by priority, then age, of all that wait and were not dropped; it goes on with
//!    the next of its group in that order, leaving none out that would fit. Only those who left or are too late
//!    are dropped.
//! k. At rest every wanted version serves with the wanted content, unless its load failed or it does not fit the
//!    memory that is left; nothing else is held but, with `PreserveAvailability`, what serves in its place. A model
//!    said to be settled gets no load because something finished draining.
//! l. At rest nothing waits or runs: whoever had no deadline was answered, was refused at the door, or left.

use gannet_models::{ModelName, Version};
use gannet_runtime::{
    control::{
        lifecycle::{Action, Wanted},
        transition::SwapPolicy,
    },
    servable::Incarnation,
};

use super::{
    spec::Spec,
    traffic::Answer,
    world::{Copy, CopyState, Verdict, World},
};

/// What one look into a queue gave.
pub(super) struct Taken {
    pub(super) rows_max: usize,
    pub(super) batch: Vec<usize>,
    pub(super) dropped: Vec<usize>,
    pub(super) dropped_rightly: bool,
}

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl World {
    fn held(&self) -> impl Iterator<Item = &Copy> {
        self.copies.values().filter(|copy| copy.state != CopyState::Destroyed)
    }

    fn loading(&self) -> usize {
        self.held().filter(|copy| copy.state == CopyState::Loading).count()
    }

    fn used(&self) -> u64 {
        self.held().map(|copy| copy.spec.memory_bytes()).sum()
    }

    /// Before an action is carried out.
    pub(super) fn check_action(&self, action: &Action<Spec>, drained: bool) -> Verdict {
        match action {
            Action::Load { model, incarnation, wanted } => {
                let key = (model.clone(), wanted.version.clone());
                ensure(self.tried.get(&key) != Some(&wanted.content), || {
                    format!("(i) {model} {wanted:?} failed and is tried again")
                })?;
                let asked = self.wants.get(model).is_some_and(|wants| wants.contains(wanted));
                ensure(asked, || format!("(i) {model} {wanted:?} is loaded and not wanted"))?;
                ensure(!self.copies.contains_key(incarnation), || format!("(a) {incarnation} comes twice"))?;
                ensure(self.loading() < self.limits.loads_max, || {
                    format!("(h) {} loads run already", self.loading())
                })?;
                let surprise = drained && self.settled.contains(model);
                ensure(!surprise, || format!("(k) {model} was said to be settled, and loads {wanted:?}"))
            }
            Action::Retire(incarnation) => {
                let state = self.copies.get(incarnation).map(|copy| copy.state);
                ensure(state == Some(CopyState::Serving), || {
                    format!("(c) {incarnation} is retired as {state:?}")
                })
            }
        }
    }

    /// Before a copy is destroyed.
    pub(super) fn check_destroyed(&self, incarnation: Incarnation) -> Verdict {
        let copy = &self.copies[&incarnation];
        ensure(copy.state == CopyState::Retired, || {
            format!("(c) {incarnation} is destroyed as {:?}", copy.state)
        })?;
        ensure(copy.holders == 0, || format!("(c) {incarnation} is destroyed, {} hold it", copy.holders))?;
        let lost = copy.order.iter().find(|&&request| self.requests[request].answer.is_none());
        ensure(lost.is_none(), || format!("(d) request {lost:?} waits for a destroyed copy"))
    }

    pub(super) fn check_usable(&self, incarnation: Incarnation) -> Verdict {
        let state = self.copies[&incarnation].state;
        let usable = matches!(state, CopyState::Serving | CopyState::Retired);
        ensure(usable, || format!("(d) {incarnation} is used as {state:?}"))
    }

    /// Before a batch is run.
    pub(super) fn check_taken(&self, incarnation: Incarnation, taken: &Taken) -> Verdict {
        self.check_usable(incarnation)?;
        let copy = &self.copies[&incarnation];
        let request = |&index: &usize| &self.requests[index];
        for index in &taken.batch {
            let one = request(index);
            ensure(one.copy == incarnation, || format!("(d) request {index} runs on {incarnation}"))?;
            let alive = one.answer.is_none() && one.deadline.is_none_or(|deadline| self.now <= deadline);
            ensure(alive, || {
                format!("(e) request {index} runs after {:?}, due {:?}", one.answer, one.deadline)
            })?;
            ensure(one.group == request(&taken.batch[0]).group, || {
                format!("(f) {:?} mixes groups", taken.batch)
            })?;
        }
        let rows: usize = taken.batch.iter().map(|index| request(index).rows).sum();
        let bound = taken.rows_max.min(copy.policy.rows_max);
        ensure(rows <= bound || taken.batch.len() == 1, || format!("(f) {rows} rows run, {bound} may"))?;
        ensure(taken.dropped_rightly, || format!("(j) {:?} are dropped without a reason", taken.dropped))?;
        self.check_order(copy, taken, bound.saturating_sub(rows))
    }

    fn check_order(&self, copy: &Copy, taken: &Taken, room: usize) -> Verdict {
        let mut waiting: Vec<usize> =
            copy.order.iter().copied().filter(|r| !taken.dropped.contains(r)).collect();
        // stable: by age within a priority
        waiting.sort_by_key(|&request| self.requests[request].priority);
        let Some(&first) = waiting.first() else {
            return ensure(taken.batch.is_empty(), || format!("(j) {:?} never joined", taken.batch));
        };
        ensure(taken.batch.first() == Some(&first), || {
            format!("(j) request {first} is first, {:?} run", taken.batch)
        })?;
        waiting.retain(|&request| self.requests[request].group == self.requests[first].group);
        let next = waiting.get(taken.batch.len());
        ensure(waiting.starts_with(&taken.batch), || {
            format!("(j) {:?} run, the order is {waiting:?}", taken.batch)
        })?;
        let fits = next.is_some_and(|&next| room > 0 && self.requests[next].rows <= room);
        ensure(!fits, || format!("(j) {next:?} would fit into {:?} and is left out", taken.batch))
    }

    /// After every event.
    pub(super) fn check(&mut self) -> Verdict {
        let mut serving: Vec<Incarnation> = Vec::new();
        for (model, versions) in &self.published {
            for (version, incarnation) in versions {
                let copy = self.copies.get(incarnation);
                let sound = copy.is_some_and(|copy| {
                    copy.state == CopyState::Serving && copy.model == *model && copy.spec.version == *version
                });
                let state = copy.map(|copy| copy.state);
                ensure(sound, || format!("(a) {model} {version} is served by {incarnation}, {state:?}"))?;
                serving.push(*incarnation);
            }
        }
        let copies = self.copies.values().filter(|copy| copy.state == CopyState::Serving).count();
        ensure(copies == serving.len(), || {
            format!("(a) {copies} copies serve, {} are known", serving.len())
        })?;
        for (model, wants) in &self.wants {
            let ready = self.published.get(model).is_some_and(|versions| !versions.is_empty());
            let before = self.ready.insert(model.clone(), ready).unwrap_or(false);
            let kept = self.limits.policy != SwapPolicy::PreserveAvailability || wants.is_empty() || !before;
            ensure(kept || ready, || format!("(b) {model} serves no more, and {wants:?} are wanted"))?;
        }
        let (used, counted) = (self.used(), self.lifecycle.memory_bytes());
        ensure(used == counted, || format!("(g) {used} bytes are held, {counted} counted"))?;
        let limit = self.limits.memory_bytes_max.unwrap_or(u64::MAX);
        ensure(used <= limit, || format!("(g) {used} bytes are held, {limit} may be"))?;
        ensure(self.loading() <= self.limits.loads_max, || format!("(h) {} loads run", self.loading()))?;
        self.settled = self.wants.keys().filter(|model| self.lifecycle.settled(model)).cloned().collect();
        Ok(())
    }

    /// When nothing is left to happen.
    pub(super) fn check_quiet(&self) -> Verdict {
        for (model, wants) in &self.wants {
            ensure(self.settled.contains(model), || format!("(k) {model} never settles"))?;
            let served = self.published.get(model).map_or(&[][..], Vec::as_slice);
            self.check_settled(model, wants, served)?;
        }
        let busy = self.held().find(|copy| copy.state != CopyState::Serving);
        ensure(busy.is_none(), || "(k) a copy is still loading or retired".into())?;
        for copy in self.copies.values() {
            let empty = copy.queue.is_empty() && copy.turn.is_empty() && copy.order.is_empty();
            let idle = copy.instances.iter().all(Option::is_none);
            ensure(empty && idle && copy.holders == 0, || "(l) a copy has work left".into())?;
        }
        for (index, request) in self.requests.iter().enumerate() {
            ensure(request.answer.is_some(), || format!("(l) request {index} was never answered"))?;
            let ran = matches!(request.answer, Some(Answer::Ok | Answer::Failed));
            let once = request.deliveries == u64::from(request.joined) && request.runs <= 1;
            ensure(once && (!ran || request.runs == 1), || format!("(d) request {index}: {request:?}"))?;
            let starved = request.answer == Some(Answer::Expired) && request.deadline.is_none();
            ensure(!starved, || format!("(l) request {index} has no deadline and expired"))?;
        }
        Ok(())
    }

    fn check_settled(&self, model: &ModelName, wants: &[Spec], served: &[(Version, Incarnation)]) -> Verdict {
        let content = |version: &Version| {
            let (_, incarnation) = served.iter().find(|(served, _)| served == version)?;
            Some(self.copies[incarnation].spec.content)
        };
        for want in wants {
            let failed = self.tried.get(&(model.clone(), want.version.clone())) == Some(&want.content);
            let limit = self.limits.memory_bytes_max.unwrap_or(u64::MAX);
            let fits = self.used() + want.memory_bytes() <= limit;
            let serves = content(&want.version) == Some(want.content);
            ensure(serves || failed || !fits, || format!("(k) {model} {want:?} does not serve, and could"))?;
        }
        let wanted = |version: &Version| wants.iter().any(|want| want.version == *version);
        let replaced = wants.is_empty() || served.iter().any(|(version, _)| wanted(version));
        let preserve = self.limits.policy == SwapPolicy::PreserveAvailability;
        let excess = served.iter().find(|(version, _)| !wanted(version) && (replaced || !preserve));
        ensure(excess.is_none(), || format!("(k) {model} {excess:?} serves, and {wants:?} are wanted"))
    }
}
