//! Where each computed value lies in the arena: lifetimes, the lower bound that no plan can beat, the plan that
//! TFLite-micro would make by itself, and a better one. Must not know what operators compute.
//!
//! The greedy order is that of TFLite-micro's own planner (largest first), so that its result can be told without
//! running it; the search over other orders is first fit over permutations (Pisarchyk and Lee, 2020, give the greedy
//! family).

use crate::{
    graph::{Graph, TensorId},
    lite::Model,
};

/// TFLite-micro aligns every buffer to this many bytes.
pub const ALIGNMENT: usize = 16;
/// Orders that are tried beyond the greedy ones.
const ORDERS_MAX: usize = 400;
/// A plan in the file costs four bytes of flash for each tensor: it has to save more memory than this.
const SAVING_MIN: usize = 256;

/// One computed value: its bytes, and from which step to which it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The tensor, or none for scratch memory of an operator.
    pub tensor: Option<TensorId>,
    /// Bytes, aligned.
    pub bytes: usize,
    /// The step that makes it; inputs are there at step 0, node `i` runs at step `i + 1`.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

/// A plan: an offset for each lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The lifetimes.
    pub lifetimes: Vec<Lifetime>,
    /// Their offsets, in the same order.
    pub offsets: Vec<usize>,
    /// The end of the last one.
    pub bytes: usize,
    /// What no plan can go below.
    pub lower_bound: usize,
    /// What TFLite-micro's planner would need.
    pub greedy_bytes: usize,
}

/// Rounds up to the alignment.
#[must_use]
pub fn aligned(bytes: usize) -> usize {
    bytes.div_ceil(ALIGNMENT) * ALIGNMENT
}

/// The lifetimes of a graph's computed values.
#[must_use]
pub fn lifetimes(graph: &Graph, element_bytes: usize) -> Vec<Lifetime> {
    let steps = graph.nodes.iter().map(|node| (node.inputs.clone(), node.output)).collect::<Vec<_>>();
    let inputs: Vec<TensorId> = graph.inputs.iter().map(|port| port.tensor).collect();
    let outputs: Vec<TensorId> = graph.outputs.iter().map(|port| port.tensor).collect();
    of_steps(&steps, &inputs, &outputs, |tensor| {
        let tensor = &graph.tensors[tensor];
        if tensor.is_constant() { 0 } else { tensor.len() * element_bytes }
    })
}

/// The lifetimes of the values of steps; `bytes` is zero for constants.
pub(crate) fn of_steps(
    steps: &[(Vec<TensorId>, TensorId)],
    inputs: &[TensorId],
    outputs: &[TensorId],
    bytes: impl Fn(TensorId) -> usize,
) -> Vec<Lifetime> {
    let mut all: Vec<Lifetime> = Vec::new();
    let mut touch = |tensor: TensorId, step: usize| {
        let size = bytes(tensor);
        match all.iter_mut().find(|lifetime| lifetime.tensor == Some(tensor)) {
            Some(lifetime) => lifetime.last = lifetime.last.max(step),
            None if size > 0 => {
                all.push(Lifetime { tensor: Some(tensor), bytes: aligned(size), first: step, last: step });
            }
            None => {}
        }
    };
    inputs.iter().for_each(|tensor| touch(*tensor, 0));
    for (index, (read, made)) in steps.iter().enumerate() {
        touch(*made, index + 1);
        read.iter().for_each(|tensor| touch(*tensor, index + 1));
    }
    outputs.iter().for_each(|tensor| touch(*tensor, steps.len()));
    all
}

/// The most bytes that are needed in any one step.
#[must_use]
pub fn lower_bound(lifetimes: &[Lifetime]) -> usize {
    let last = lifetimes.iter().map(|lifetime| lifetime.last).max().unwrap_or(0);
    let at = |step: usize| {
        lifetimes.iter().filter(|l| l.first <= step && step <= l.last).map(|lifetime| lifetime.bytes).sum()
    };
    (0..=last).map(at).max().unwrap_or(0)
}

/// The best plan that is found.
#[must_use]
pub fn plan(lifetimes: Vec<Lifetime>) -> Plan {
    let bound = lower_bound(&lifetimes);
    let greedy = as_the_device_does(&lifetimes, &vec![None; lifetimes.len()]);
    let greedy_bytes = end(&lifetimes, &greedy);
    let mut best = (greedy_bytes, greedy);
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    let consider = |order: &[usize], best: &mut (usize, Vec<usize>)| {
        let offsets = first_fit(&lifetimes, order);
        let bytes = end(&lifetimes, &offsets);
        if bytes < best.0 {
            *best = (bytes, offsets);
        }
    };
    order.sort_by_key(|place| std::cmp::Reverse(lifetimes[*place].bytes));
    consider(&order, &mut best);
    order.sort_by_key(|place| {
        std::cmp::Reverse(lifetimes[*place].bytes * (lifetimes[*place].last - lifetimes[*place].first + 1))
    });
    consider(&order, &mut best);
    order.sort_by_key(|place| lifetimes[*place].first);
    consider(&order, &mut best);
    // a fixed sequence of swaps: the same plan every time
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..ORDERS_MAX {
        if best.0 == bound || lifetimes.len() < 2 {
            break;
        }
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("31 bits") % lifetimes.len()
        };
        let (a, b) = (draw(), draw());
        order.swap(a, b);
        consider(&order, &mut best);
    }
    Plan { offsets: best.1, bytes: best.0, lower_bound: bound, greedy_bytes, lifetimes }
}

fn overlaps(a: &Lifetime, b: &Lifetime) -> bool {
    a.first <= b.last && b.first <= a.last
}

/// Each value, in the order given, at the lowest offset at which nothing that lives at the same time is in its way.
fn first_fit(lifetimes: &[Lifetime], order: &[usize]) -> Vec<usize> {
    fit(lifetimes, order, &vec![None; lifetimes.len()])
}

/// The same around what has its offset already.
fn fit(lifetimes: &[Lifetime], order: &[usize], fixed: &[Option<usize>]) -> Vec<usize> {
    let mut offsets: Vec<usize> = fixed.iter().map(|offset| offset.unwrap_or(usize::MAX)).collect();
    let mut placed: Vec<usize> = (0..fixed.len()).filter(|place| fixed[*place].is_some()).collect();
    for place in order {
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|other| overlaps(&lifetimes[*place], &lifetimes[**other]))
            .map(|other| (offsets[*other], offsets[*other] + lifetimes[*other].bytes))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (from, to) in taken {
            if offset + lifetimes[*place].bytes <= from {
                break;
            }
            offset = offset.max(to);
        }
        offsets[*place] = offset;
        placed.push(*place);
    }
    offsets
}

/// What TFLite-micro's planner does: what has an offset keeps it; the rest goes largest first, among equals the last
/// first (scratch memory comes after all tensors), at the first gap that fits.
pub(crate) fn as_the_device_does(lifetimes: &[Lifetime], fixed: &[Option<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lifetimes.len()).filter(|place| fixed[*place].is_none()).collect();
    let number = |place: usize| (lifetimes[place].tensor.unwrap_or(usize::MAX), place);
    order
        .sort_by_key(|place| (std::cmp::Reverse(lifetimes[*place].bytes), std::cmp::Reverse(number(*place))));
    fit(lifetimes, &order, fixed)
}

/// The end of the last buffer.
pub(crate) fn end(lifetimes: &[Lifetime], offsets: &[usize]) -> usize {
    lifetimes.iter().zip(offsets).map(|(lifetime, offset)| offset + lifetime.bytes).max().unwrap_or(0)
}

/// The lifetimes of a model's computed values.
pub(crate) fn of_model(model: &Model) -> Vec<Lifetime> {
    let step = |node: &crate::lite::Node| {
        let inputs =
            node.inputs.iter().flatten().copied().chain(node.outputs.iter().skip(1).copied()).collect();
        (inputs, node.outputs.first().copied().unwrap_or_default())
    };
    let steps: Vec<(Vec<TensorId>, TensorId)> =
        model.nodes.iter().filter(|node| !node.outputs.is_empty()).map(step).collect();
    of_steps(&steps, &model.inputs, &model.outputs, |id| {
        let tensor = &model.tensors[id];
        if tensor.data.is_empty() { tensor.bytes() } else { 0 }
    })
}

/// Puts a plan into a model if it saves more memory than it costs; scratch memory is that of a Cortex-M.
#[must_use]
pub fn plan_model(model: &mut Model) -> Plan {
    let mut all = of_model(model);
    for (step, requests) in crate::arena::scratch(model, crate::arena::Target::CortexM).iter().enumerate() {
        let one = |bytes: &usize| Lifetime {
            tensor: None,
            bytes: aligned(*bytes),
            first: step + 1,
            last: step + 1,
        };
        all.extend(requests.iter().map(one));
    }
    let plan = plan(all);
    if plan.bytes + SAVING_MIN <= plan.greedy_bytes {
        let mut offsets = vec![-1; model.tensors.len()];
        for (lifetime, offset) in plan.lifetimes.iter().zip(&plan.offsets) {
            if let Some(tensor) = lifetime.tensor {
                offsets[tensor] = i32::try_from(*offset).expect("below the limit of elements");
            }
        }
        model.offline_plan = Some(offsets);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_never_overlap_and_never_beat_the_bound() {
        let mut state = 1u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        for _ in 0..200 {
            let lifetimes: Vec<Lifetime> = (0..draw(12) + 1)
                .map(|tensor| {
                    let first = draw(10);
                    Lifetime {
                        tensor: Some(tensor),
                        bytes: aligned(draw(500) + 1),
                        first,
                        last: first + draw(4),
                    }
                })
                .collect();
            let plan = plan(lifetimes.clone());
            assert!(plan.lower_bound <= plan.bytes && plan.bytes <= plan.greedy_bytes);
            for (a, left) in lifetimes.iter().enumerate() {
                for (b, right) in lifetimes.iter().enumerate().skip(a + 1) {
                    let apart = plan.offsets[a] + left.bytes <= plan.offsets[b]
                        || plan.offsets[b] + right.bytes <= plan.offsets[a];
                    assert!(apart || !overlaps(left, right), "{left:?} and {right:?} share memory");
                }
            }
        }
    }
}
