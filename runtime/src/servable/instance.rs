//! One instance at work: takes a batch, gathers it, runs it, scatters it, answers. Must not know queues' locks or
//! threads: whoever holds the worker runs it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

use super::{Apart, Pending, Servable, expired};
use crate::{
    InferError, InferResponse, Tensor, TensorView, Time,
    backend::{BackendError, Instance},
    batch::{
        assemble::{Collected, Gather, Layout, Part},
        cost::Costs,
        policy::too_late,
        queue::{Entry, Queue},
    },
    clock,
    metrics::BatchSample,
    request::{Checked, Tensors, Timing},
    tensor::Shape,
};

/// Gather buffers above this are given back after the batch.
const GATHER_BYTES_KEPT: usize = 16 * 1024 * 1024;

/// One loaded copy of the model with its buffers.
pub struct Worker {
    instance: Box<dyn Instance>,
    gather: Gather,
    entries: Vec<Entry<Pending>>,
    dropped: Vec<Entry<Pending>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Who runs a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// An I/O thread, between two turns: nobody else wants its core.
    EventLoop,
    /// The instance's own thread, which shares the cores with the event loops.
    Instance,
}

/// A batch being taken.
pub(super) struct Batch<'a> {
    servable: &'a Servable,
    now: Time,
    entries: &'a mut Vec<Entry<Pending>>,
    dropped: &'a mut Vec<Entry<Pending>>,
}

impl Batch<'_> {
    /// Takes the next batch out of `queue`, leaving out those whose caller left or whose deadline cannot be met.
    pub(super) fn fill(&mut self, queue: &mut Queue<Pending>, rows_max: usize) {
        let Some(head) = queue.head() else { return };
        let (servable, now) = (self.servable, self.now);
        let mut gone = |entry: &Entry<Pending>| {
            let cost = || servable.costs.table(&entry.group).median_ns(head.rows.min(rows_max)).unwrap_or(0);
            entry.payload.reply.is_closed()
                || (entry.deadline.is_some() && too_late(entry.deadline, now, cost()))
        };
        queue.take(rows_max, &mut gone, self.entries, self.dropped);
    }
}

impl Worker {
    /// Wraps a freshly opened instance.
    #[must_use]
    pub fn new(instance: Box<dyn Instance>) -> Self {
        Self { instance, gather: Gather::default(), entries: Vec::new(), dropped: Vec::new() }
    }

    /// The model's own signature.
    #[must_use]
    pub fn signature(&self) -> &gannet_models::Signature {
        self.instance.signature()
    }

    /// Takes one batch with `take` and answers it. How long that took, in nanoseconds.
    pub(super) fn run_next(
        &mut self,
        servable: &Servable,
        index: usize,
        by: By,
        take: impl FnOnce(&mut Batch<'_>),
    ) -> u64 {
        let mut entries = std::mem::take(&mut self.entries);
        let mut dropped = std::mem::take(&mut self.dropped);
        let now = clock::now();
        take(&mut Batch { servable, now, entries: &mut entries, dropped: &mut dropped });
        let left = entries.len() + dropped.len();
        servable.waiting.fetch_sub(left, Ordering::Relaxed);
        let rows: usize = entries.iter().chain(&dropped).map(|entry| entry.rows).sum();
        servable.waiting_rows.fetch_sub(rows, Ordering::Relaxed);
        for entry in dropped.drain(..) {
            let arrived = entry.payload.arrived;
            let error = expired(arrived, entry.deadline.unwrap_or(arrived));
            // nobody listens when the caller left
            let _ = entry.payload.reply.send(Err(error));
        }
        if !entries.is_empty() {
            let rows: usize = entries.iter().map(|entry| entry.rows).sum();
            let cost_ns = servable.costs.table(&entries[0].group).upper_ns(rows).unwrap_or(1);
            servable.busy_until_ns[index].store(now.plus_ns(cost_ns).as_ns(), Ordering::Relaxed);
            self.answer(servable, by, &mut entries);
            servable.busy_until_ns[index].store(0, Ordering::Relaxed);
        }
        self.entries = entries;
        self.dropped = dropped;
        clock::now().ns_since(now)
    }

    /// Runs the entries together; if that fails, each alone, so that one bad value harms nobody else.
    fn answer(&mut self, servable: &Servable, by: By, entries: &mut Vec<Entry<Pending>>) {
        let started = clock::now();
        let worked_ns = (by == By::Instance).then(clock::thread_ns);
        let result = {
            let parts: Vec<Part<'_>> =
                entries.iter().map(|e| Part { inputs: &e.payload.inputs, rows: e.rows }).collect();
            self.run(servable, &parts)
        };
        match result {
            Ok((answers, mut timing)) => {
                let group = &entries[0].group;
                let own_ns = worked_ns.map_or(timing.compute_ns, |before| {
                    // the thread also gathered and scattered: that is little, and part of what an event loop would do
                    (clock::thread_ns() - before).min(timing.compute_ns)
                });
                servable.costs.table(group).record(timing.batch_rows, timing.compute_ns, own_ns);
                servable.stats.batch(&BatchSample {
                    requests: entries.len() as u64,
                    rows: timing.batch_rows,
                    assemble_ns: timing.assemble_ns,
                    compute_ns: timing.compute_ns,
                    scatter_ns: timing.scatter_ns,
                });
                for (entry, outputs) in entries.drain(..).zip(answers) {
                    timing.queue_ns = started.ns_since(entry.payload.arrived);
                    servable.stats.queued(timing.queue_ns);
                    let _ = entry.payload.reply.send(Ok(InferResponse { outputs, timing }));
                }
            }
            Err(_) if entries.len() > 1 => {
                for entry in std::mem::take(entries) {
                    self.answer(servable, by, &mut vec![entry]);
                }
            }
            Err(error) => {
                for entry in entries.drain(..) {
                    let _ = entry.payload.reply.send(Err(self.explain(servable, &error)));
                }
            }
        }
    }

    /// Runs one request by itself.
    pub(super) fn run_apart(&mut self, servable: &Servable, request: &Checked) -> Result<Apart, InferError> {
        let Checked { inputs, rows } = request;
        let before = clock::thread_ns();
        let result = self.run(servable, &[Part { inputs, rows: *rows }]);
        let (answers, timing) = result.map_err(|error| self.explain(servable, &error))?;
        let own_ns = (clock::thread_ns() - before).min(timing.compute_ns);
        let outputs = answers.into_iter().next().unwrap_or_default();
        Ok(Apart { outputs, rows: *rows, own_ns })
    }

    fn explain(&self, servable: &Servable, error: &BackendError) -> InferError {
        match error {
            BackendError::Input(message) => {
                InferError::Invalid(format!("'{}' version '{}': {message}", servable.model, servable.version))
            }
            error => InferError::Backend {
                model: servable.model.clone(),
                version: servable.version.clone(),
                message: error.to_string(),
            },
        }
    }

    fn run(
        &mut self,
        servable: &Servable,
        parts: &[Part<'_>],
    ) -> Result<(Vec<Tensors>, Timing), BackendError> {
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        let calls = if servable.layout.batched {
            let group = servable.layout.group(parts[0].inputs);
            servable.costs.table(&group).call_rows(rows).min(servable.policy.rows_max.max(1))
        } else {
            rows
        };
        self.run_parts(&servable.layout, servable.signature.outputs.len(), parts, calls)
    }

    /// Gathers, runs in calls of `call_rows` rows at most, and scatters. A panic on the way, of the engine or over
    /// the shapes that it gave, is an error of this batch.
    fn run_parts(
        &mut self,
        layout: &Layout,
        outputs: usize,
        parts: &[Part<'_>],
        call_rows: usize,
    ) -> Result<(Vec<Tensors>, Timing), BackendError> {
        let run = || self.run_unguarded(layout, outputs, parts, call_rows);
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            Err(BackendError::Execution(format!("the engine panicked: {}", panic_text(&*panic))))
        })
    }

    fn run_unguarded(
        &mut self,
        layout: &Layout,
        outputs: usize,
        parts: &[Part<'_>],
        call_rows: usize,
    ) -> Result<(Vec<Tensors>, Timing), BackendError> {
        let started = clock::now();
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        let views = self.gather.assemble(layout, parts);
        let assembled = clock::now();
        let mut collected = Collected::new(outputs);
        let mut scatter_ns = 0;
        if !layout.batched || rows <= call_rows {
            call(&mut *self.instance, &views, &mut collected, layout.batched, rows, &mut scatter_ns)?;
        } else {
            for from in (0..rows).step_by(call_rows.max(1)) {
                let to = (from + call_rows).min(rows);
                let shapes: Vec<Shape> = views.iter().map(|view| with_rows(view.shape, to - from)).collect();
                let mut slices: Vec<TensorView<'_>> = Vec::with_capacity(views.len());
                for (view, shape) in views.iter().zip(&shapes) {
                    slices.push(TensorView { dtype: view.dtype, shape, data: view.row_bytes(from, to) });
                }
                call(&mut *self.instance, &slices, &mut collected, true, to - from, &mut scatter_ns)?;
            }
        }
        let computed = clock::now();
        let answers = collected.scatter(layout, parts).map_err(BackendError::Execution)?;
        let timing = Timing {
            queue_ns: 0,
            assemble_ns: assembled.ns_since(started),
            compute_ns: computed.ns_since(assembled).saturating_sub(scatter_ns),
            scatter_ns: scatter_ns + clock::now().ns_since(computed),
            batch_rows: if layout.batched { rows } else { 1 },
        };
        self.gather.shrink(GATHER_BYTES_KEPT);
        Ok((answers, timing))
    }

    /// Runs one request outside any servable: warm-up and golden requests.
    ///
    /// # Errors
    /// As [`Instance::run`], and when the outputs do not fit the layout.
    pub fn run_alone(
        &mut self,
        layout: &Layout,
        inputs: &[Tensor],
        rows: usize,
        call_rows: usize,
    ) -> Result<(Tensors, Timing), BackendError> {
        let inputs: Tensors = inputs.iter().cloned().collect();
        let parts = [Part { inputs: &inputs, rows }];
        let outputs = self.instance.signature().outputs.len();
        let (mut answers, timing) = self.run_parts(layout, outputs, &parts, call_rows)?;
        Ok((answers.pop().unwrap_or_default(), timing))
    }
}

fn with_rows(shape: &[usize], rows: usize) -> Shape {
    let mut shape = Shape::from_slice(shape);
    shape[0] = rows;
    shape
}

/// One run.
fn call(
    instance: &mut dyn Instance,
    inputs: &[TensorView<'_>],
    collected: &mut Collected,
    batched: bool,
    rows: usize,
    scatter_ns: &mut u64,
) -> Result<(), BackendError> {
    let mut misfit = None;
    let mut sink = |index: usize, value: TensorView<'_>| {
        let started = clock::now();
        if let Err(message) = collected.add(index, value, batched, rows) {
            misfit.get_or_insert(message);
        }
        *scatter_ns += clock::now().ns_since(started);
    };
    instance.run(inputs, &mut sink)?;
    misfit.map_or(Ok(()), |message| Err(BackendError::Execution(message)))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
