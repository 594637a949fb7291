//! Copies of some requests and their answers, for whoever keeps them. A request that is not chosen costs a look; one
//! that is costs clones of counted bytes, and none ever waits: what does not fit is dropped and counted. Must not know
//! where copies are kept, nor what of them may be.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam::channel::{Receiver, Sender, bounded};
use gannet_models::{ModelName, Version};
use gannet_stats::random::Random;

use crate::{
    InferError, InferResponse, Tensor, Time, clock,
    request::{Checked, Tensors, Timing},
    servable::Servable,
};

/// Copies that wait; more are dropped.
const COPIES_MAX: usize = 65_536;
/// Mixed into the hash of an id, so that who is captured has nothing to do with who is routed where.
const ID_SEED: u64 = 0x6361_7074_7572_6564;

/// Which requests are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChosenBy {
    /// The hash of the request's id: the same id is chosen everywhere, or nowhere.
    #[default]
    Id,
    /// Chance.
    Chance,
}

/// What is chosen, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TapConfig {
    /// Share of a model's requests, unless its settings say otherwise.
    pub rate: f64,
    /// Which of them.
    pub by: ChosenBy,
    /// Bytes of tensors that wait together.
    pub bytes_max: usize,
}

/// Where copies come from.
#[derive(Debug)]
pub struct Tap {
    config: TapConfig,
    copies: Sender<Copied>,
    held: AtomicUsize,
    bytes: AtomicUsize,
    streams: Mutex<HashMap<ModelName, Arc<Stream>>>,
}

/// What is counted of one model, over all of its versions.
#[derive(Debug, Default)]
pub struct Stream {
    /// The number of the next copy; what is dropped leaves a gap.
    next: AtomicU64,
    dropped: AtomicU64,
}

/// A version's end of the tap.
#[derive(Debug)]
pub struct Attached {
    tap: Arc<Tap>,
    stream: Arc<Stream>,
    probability: f64,
}

/// A chosen request before it is answered.
#[derive(Debug)]
pub struct Chosen {
    inputs: Tensors,
    rows: usize,
    probability: f64,
}

/// A request with its answer.
#[derive(Debug)]
pub struct Copied {
    /// Who answered.
    pub servable: Arc<Servable>,
    /// The request's id.
    pub id: String,
    /// The version that it was assigned to, if its model has a route.
    pub arm: Option<Version>,
    /// When it had arrived.
    pub arrived: Time,
    /// When it was answered.
    pub ended: Time,
    /// In the signature's order.
    pub inputs: Tensors,
    /// In the signature's order.
    pub outputs: Tensors,
    /// Length of the batch axis.
    pub rows: usize,
    /// Where the time went.
    pub timing: Timing,
    /// With which probability a request like this one is chosen.
    pub probability: f64,
    /// Its number among the model's.
    pub sequence: u64,
    bytes: usize,
}

impl Tap {
    /// A tap, and what comes out of it.
    #[must_use]
    pub fn new(config: TapConfig) -> (Arc<Self>, Receiver<Copied>) {
        // one more, so that the queue itself is never full: its sender would wait for a thread that takes from it
        let (copies, receiver) = bounded(COPIES_MAX + 1);
        let (held, bytes) = Default::default();
        (Arc::new(Self { config, copies, held, bytes, streams: Mutex::default() }), receiver)
    }

    /// What is counted of a model.
    #[must_use]
    pub fn stream(&self, model: &ModelName) -> Arc<Stream> {
        Arc::clone(self.lock().entry(model.clone()).or_default())
    }

    /// Every model that was ever attached.
    #[must_use]
    pub fn streams(&self) -> Vec<(ModelName, Arc<Stream>)> {
        let mut all: Vec<_> =
            self.lock().iter().map(|(model, stream)| (model.clone(), Arc::clone(stream))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// A version's end; `None` when nothing of it is wanted.
    #[must_use]
    pub fn attach(self: &Arc<Self>, servable: &Servable) -> Option<Attached> {
        let probability = servable.settings.capture_rate.unwrap_or(self.config.rate).clamp(0.0, 1.0);
        let stream = self.stream(&servable.model);
        (probability > 0.0).then(|| Attached { tap: Arc::clone(self), stream, probability })
    }

    /// To be called once a copy was taken: its bytes wait no more.
    pub fn taken(&self, copy: &Copied) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(copy.bytes, Ordering::Relaxed);
    }

    /// Bytes of tensors that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelName, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The number of the next copy.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Goes on from a number, if that is further.
    pub fn begin_at(&self, sequence: u64) {
        self.next.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Copies that did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Chosen {
    /// Keeps what a copy takes, if the request is chosen: no bytes are copied. A request that goes by its id and has
    /// none is given one.
    #[must_use]
    #[inline]
    pub fn new(
        servable: &Servable,
        request: &Checked,
        id: &mut String,
        new_id: fn() -> String,
    ) -> Option<Box<Self>> {
        let attached = servable.tap.as_ref()?;
        attached.choose(request, id, new_id)
    }

    /// Hands it over with what was answered; a request that was not answered is not kept.
    pub fn answered(
        self,
        servable: &Arc<Servable>,
        (id, arm): (&str, Option<&Version>),
        arrived: Time,
        answer: &Result<InferResponse, InferError>,
    ) {
        let (Some(attached), Ok(response)) = (&servable.tap, answer) else { return };
        let size = |tensors: &Tensors| tensors.iter().map(|tensor| tensor.data.len()).sum::<usize>();
        // an output may be a slice of its whole batch's buffer, which it keeps alive
        let whole =
            |tensor: &Tensor| tensor.data.len() * response.timing.batch_rows.max(1) / self.rows.max(1);
        let bytes = size(&self.inputs) + response.outputs.iter().map(whole).sum::<usize>();
        attached.offer(Copied {
            servable: Arc::clone(servable),
            id: id.to_owned(),
            arm: arm.cloned(),
            arrived,
            ended: clock::now(),
            inputs: self.inputs,
            outputs: response.outputs.clone(),
            rows: self.rows,
            timing: response.timing,
            probability: self.probability,
            sequence: attached.stream.next.fetch_add(1, Ordering::Relaxed),
            bytes,
        });
    }
}

impl Attached {
    fn choose(&self, request: &Checked, id: &mut String, new_id: fn() -> String) -> Option<Box<Chosen>> {
        let is_chosen = self.probability >= 1.0
            || match self.tap.config.by {
                ChosenBy::Id => {
                    if id.is_empty() {
                        *id = new_id();
                    }
                    is_id_chosen(id, self.probability)
                }
                ChosenBy::Chance => chance() < self.probability,
            };
        is_chosen.then(|| {
            Box::new(Chosen {
                inputs: request.inputs.clone(),
                rows: request.rows,
                probability: self.probability,
            })
        })
    }

    fn offer(&self, copy: Copied) {
        let (tap, bytes) = (&self.tap, copy.bytes);
        let held = tap.held.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = tap.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = held <= COPIES_MAX && waiting <= tap.config.bytes_max;
        if !fits || tap.copies.try_send(copy).is_err() {
            tap.held.fetch_sub(1, Ordering::Relaxed);
            tap.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.stream.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a request with this id is chosen, of which `rate` are.
#[must_use]
pub fn is_id_chosen(id: &str, rate: f64) -> bool {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(id.as_bytes(), ID_SEED);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are plenty")]
    let place = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    place < rate
}

/// An even number from 0 to 1.
fn chance() -> f64 {
    use std::{
        cell::Cell,
        hash::{BuildHasher as _, Hasher as _},
    };
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    let state = STATE.get();
    let seed = || std::hash::RandomState::new().build_hasher().finish() | 1;
    let mut random = Random::new(if state == 0 { seed() } else { state });
    let even = random.uniform();
    STATE.set(random.bits() | 1);
    even
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_chosen_everywhere_or_nowhere_and_as_often_as_said() {
        let chosen = |rate: f64| (0..20_000).filter(|n| is_id_chosen(&format!("id-{n}"), rate)).count();
        assert!((1_850..2_150).contains(&chosen(0.1)), "{}", chosen(0.1));
        assert_eq!((chosen(0.0), chosen(1.0)), (0, 20_000));
        // whoever is chosen at a low rate is at a higher one
        assert!(
            (0..2_000).map(|n| format!("id-{n}")).all(|id| !is_id_chosen(&id, 0.1) || is_id_chosen(&id, 0.2))
        );
        let by_chance = (0..20_000).filter(|_| chance() < 0.1).count();
        assert!((1_700..2_300).contains(&by_chance), "{by_chance}");
    }
}
