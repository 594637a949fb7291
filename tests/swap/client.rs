//! Threads that ask as the server's I/O threads do: some with a flusher of their own turns, some without; some of
//! their requests are dropped in flight.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use gannet_models::DType;
use gannet_runtime::{
    InferError, InferRequest, Tensor, clock,
    request::Tensors,
    servable::{Servable, turn},
    table::TableReader,
};
use smallvec::smallvec;
use tokio::{runtime::Runtime, task::JoinSet};

use super::bench::MODEL;
use crate::support::random::Random;

/// Requests that a client has in flight at once.
const FLIGHTS: usize = 8;

type Answer = Result<Vec<f32>, InferError>;

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) faults: Mutex<Vec<String>>,
    pub(crate) servables: Mutex<BTreeMap<u64, Weak<Servable>>>,
    stop: AtomicBool,
}

impl Seen {
    fn saw(&self, servable: &Arc<Servable>) {
        let mut servables = self.servables.lock().unwrap();
        servables.entry(servable.incarnation).or_insert_with(|| Arc::downgrade(servable));
    }
}

pub(crate) struct Clients {
    pub(crate) seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Every second thread runs its own batches where it can.
    pub(crate) fn start(table: &TableReader, count: u64) -> Self {
        let seen = Arc::new(Seen::default());
        let start = |index: u64| {
            let (table, seen) = (table.clone(), Arc::clone(&seen));
            let run = move || client(index, &table, &seen);
            std::thread::Builder::new().name(format!("client-{index}")).spawn(run).unwrap()
        };
        let threads = (0..count).map(start).collect();
        Self { seen, threads }
    }

    pub(crate) fn stop(self) -> Arc<Seen> {
        self.seen.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.seen
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn client(index: u64, table: &TableReader, seen: &Arc<Seen>) {
    let mut random = Random::new(index);
    runtime().block_on(async {
        if index.is_multiple_of(2) {
            tokio::spawn(turn::flusher());
        }
        while !seen.stop.load(Ordering::Relaxed) {
            let mut flights = JoinSet::new();
            for _ in 0..FLIGHTS {
                let values: Vec<f32> = (0..random.between(1, 3)).map(|_| random.below(1000) as f32).collect();
                let handle = flights.spawn(flight(table.clone(), Arc::clone(seen), values));
                if random.percent(10) {
                    if random.percent(50) {
                        tokio::task::yield_now().await;
                    }
                    handle.abort();
                }
            }
            while let Some(ended) = flights.join_next().await {
                let counter = if ended.is_ok() { &seen.answered } else { &seen.dropped };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

/// One request; its answer must be that of the version it was given to.
async fn flight(table: TableReader, seen: Arc<Seen>, values: Vec<f32>) {
    let fault = match table.resolve(MODEL, None) {
        Err(error) => Some(error.to_string()),
        Ok(servable) => {
            seen.saw(&servable);
            let version: f32 = servable.version.as_str().parse().unwrap();
            let expected: Vec<f32> = values.iter().map(|value| value + version).collect();
            match infer(&servable, &values).await {
                Ok(got) if got == expected => None,
                Ok(got) => Some(format!("version {version} answered {got:?} to {values:?}")),
                Err(error) => Some(error.to_string()),
            }
        }
    };
    seen.faults.lock().unwrap().extend(fault);
}

async fn infer(servable: &Arc<Servable>, values: &[f32]) -> Answer {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor { dtype: DType::Fp32, shape: smallvec![values.len(), 1], data: Bytes::from(data) };
    let inputs: Tensors = smallvec![tensor];
    let request =
        InferRequest { inputs, rows: values.len(), priority: 0, deadline: None, arrived: clock::now() };
    let response = servable.infer(request).await?;
    let chunks = response.outputs[0].data.as_chunks::<4>().0;
    Ok(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}

/// Asks all at once, on a thread with a flusher; answers in the order of the questions.
pub(crate) fn ask(table: &TableReader, questions: &[&[f32]]) -> Vec<Answer> {
    let servable = table.resolve(MODEL, None).unwrap();
    runtime().block_on(async {
        let flusher = tokio::spawn(turn::flusher());
        tokio::task::yield_now().await;
        let mut flights = JoinSet::new();
        for (index, question) in questions.iter().enumerate() {
            let (servable, question) = (Arc::clone(&servable), question.to_vec());
            let waited = std::time::Duration::from_secs(10);
            let answer = async move { (index, infer(&servable, &question).await) };
            flights.spawn(async move {
                tokio::time::timeout(waited, answer).await.expect("it is answered in time")
            });
        }
        let mut answers = flights.join_all().await;
        flusher.abort();
        answers.sort_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    })
}

/// Asks on a thread without a flusher, or after it ended.
pub(crate) fn ask_without_flusher(table: &TableReader, question: &[f32]) -> Answer {
    let servable = table.resolve(MODEL, None).unwrap();
    let waited = std::time::Duration::from_secs(10);
    runtime().block_on(async {
        tokio::time::timeout(waited, infer(&servable, question)).await.expect("it is answered in time")
    })
}
