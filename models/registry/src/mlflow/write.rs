//! What tracking servers are told: how versions fare on this server, as tags of the versions, and values of a
//! monitoring run beside the training run. Batched, bounded, never waited for; a server that does not allow it is asked
//! no more. Must not know how versions are served.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gannet_models::{Digest, ModelName, Version};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use super::{
    SEAL_TAG,
    api::Metric,
    subject::{Described, Subject},
};
use crate::{RemoteError, backoff, board::wall_ms, chance};

/// Tags that wait, of all models together.
const TAGS_MAX: usize = 10_000;
/// Values that wait.
const METRICS_MAX: usize = 10_000;
/// Values of one call, as the server bounds it.
const METRICS_A_CALL: usize = 1000;
/// Bytes of a tag's value.
const VALUE_BYTES_MAX: usize = 500;
/// Time between two rounds of writing.
const ROUND: Duration = Duration::from_millis(500);
/// Time for which a server that forbids writing is left alone.
const FORBIDDEN_TIME: Duration = Duration::from_secs(3600);

/// How one version fares here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionReport {
    /// The model, by its name here.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// One word, such as `ready`, `refused` or `rolled_back`.
    pub state: String,
    /// Why, for people.
    pub reason: String,
}

/// Something to tell.
pub(crate) enum Tell {
    Versions(Vec<VersionReport>),
    /// What the files of a version are, for whoever fetches them later.
    Seal {
        model: ModelName,
        version: Version,
        digest: Digest,
    },
    Metrics {
        model: ModelName,
        version: Version,
        values: Vec<(String, f64)>,
        at_ms: u64,
    },
}

/// Name, value, and when it was so in milliseconds since 1970.
type Sample = (String, f64, u64);

#[derive(Default)]
struct Waiting {
    /// (source, version, key) -> value; the last one counts.
    tags: BTreeMap<(String, Version, String), String>,
    /// Tags as they were written.
    written: HashMap<(String, Version, String), String>,
    metrics: BTreeMap<(String, Version), Vec<Sample>>,
    subjects: HashMap<String, Subject>,
}

/// Collects what is to be told.
pub(crate) struct Writer {
    server: String,
    waiting: Arc<Mutex<Waiting>>,
    wake: Arc<Notify>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Writer {
    /// `server` is what this server is called in tags.
    pub(crate) fn new(server: &str) -> Self {
        // what MLflow allows in a key
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c);
        let server = server.chars().map(|c| if allowed(c) { c } else { '-' }).take(100).collect();
        Self { server, waiting: Arc::default(), wake: Arc::default() }
    }

    /// Tells of a source's models from now on.
    pub(crate) fn follow(&self, source: &str, subject: Subject) {
        lock(&self.waiting).subjects.insert(source.to_owned(), subject);
    }

    pub(crate) fn forget(&self, source: &str) {
        lock(&self.waiting).subjects.remove(source);
    }

    /// Notes down something to tell. A source that names one model gives it its own name.
    pub(crate) fn tell(&self, tell: Tell) {
        let mut waiting = lock(&self.waiting);
        match tell {
            Tell::Versions(reports) => {
                for VersionReport { model, version, state, reason } in reports {
                    if !waiting.subjects.contains_key(model.as_str()) {
                        continue;
                    }
                    for (what, value) in [("state", state), ("reason", reason)] {
                        let key =
                            (model.to_string(), version.clone(), format!("serving.{}.{what}", self.server));
                        let mut value = value;
                        if value.len() > VALUE_BYTES_MAX {
                            let end = (0..=VALUE_BYTES_MAX).rev().find(|&end| value.is_char_boundary(end));
                            value.truncate(end.unwrap_or(0));
                        }
                        // an empty reason is written only over another
                        let was = waiting.written.get(&key).map_or("", String::as_str);
                        if was != value && waiting.tags.len() < TAGS_MAX {
                            waiting.tags.insert(key, value);
                        } else {
                            waiting.tags.remove(&key);
                        }
                    }
                }
            }
            Tell::Seal { model, version, digest } => {
                let is_known = waiting.subjects.contains_key(model.as_str());
                if is_known && waiting.tags.len() < TAGS_MAX {
                    let key = (model.to_string(), version, SEAL_TAG.to_owned());
                    waiting.tags.insert(key, digest.to_string());
                }
            }
            Tell::Metrics { model, version, values, at_ms } => {
                if !waiting.subjects.contains_key(model.as_str()) {
                    return;
                }
                let held: usize = waiting.metrics.values().map(Vec::len).sum();
                let room = METRICS_MAX.saturating_sub(held);
                let list = waiting.metrics.entry((model.to_string(), version)).or_default();
                list.extend(values.into_iter().take(room).map(|(key, value)| (key, value, at_ms)));
            }
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Starts writing, for as long as the event loop runs.
    pub(crate) fn start(&self) -> JoinHandle<()> {
        let (waiting, wake, server) =
            (Arc::clone(&self.waiting), Arc::clone(&self.wake), self.server.clone());
        tokio::spawn(async move {
            let mut round = Round { server, waiting, runs: HashMap::new(), forbidden: HashMap::new() };
            let mut failures = 0;
            loop {
                wake.notified().await;
                // what comes together is written together
                tokio::time::sleep(ROUND).await;
                while let Err(error) = round.write().await {
                    failures += 1;
                    tracing::debug!(%error, "a tracking server was not told yet");
                    tokio::time::sleep(backoff::after_failure(failures, error.retry_after(), chance())).await;
                }
                failures = 0;
            }
        })
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what waits.
struct Round {
    server: String,
    waiting: Arc<Mutex<Waiting>>,
    /// The monitoring run of each version, with the model's id.
    runs: HashMap<(String, Version), (String, Option<String>, u64)>,
    /// Sources whose server said no, and when.
    forbidden: HashMap<String, Instant>,
}

impl Round {
    async fn write(&mut self) -> Result<(), RemoteError> {
        loop {
            let next = {
                let waiting = lock(&self.waiting);
                let first = waiting.tags.iter().next().map(|(key, value)| (key.clone(), value.clone()));
                first.map(|(key, value)| (waiting.subjects.get(&key.0).cloned(), key, value))
            };
            let Some((subject, key, value)) = next else { break };
            let (source, version, tag) = &key;
            let result = match subject {
                Some(subject) if !self.is_forbidden(source) => {
                    subject.set_tag(version.as_str(), tag, &value).await
                }
                _ => Ok(()),
            };
            self.judge(source, result)?;
            let mut waiting = lock(&self.waiting);
            // a newer value may have come meanwhile
            if waiting.tags.get(&key) == Some(&value) {
                waiting.tags.remove(&key);
            }
            waiting.written.insert(key, value);
        }
        self.write_metrics().await
    }

    async fn write_metrics(&mut self) -> Result<(), RemoteError> {
        loop {
            let next = {
                let mut waiting = lock(&self.waiting);
                let key = waiting.metrics.keys().next().cloned();
                key.and_then(|key| {
                    let mut values = waiting.metrics.remove(&key)?;
                    let later = values.split_off(values.len().min(METRICS_A_CALL));
                    if !later.is_empty() {
                        waiting.metrics.insert(key.clone(), later);
                    }
                    Some((waiting.subjects.get(&key.0).cloned()?, key, values))
                })
            };
            let Some((subject, key, values)) = next else { return Ok(()) };
            if self.is_forbidden(&key.0) {
                continue;
            }
            let result = self.log(&subject, &key, &values).await;
            if result
                .as_ref()
                .is_err_and(|error| !matches!(error, RemoteError::Denied(_) | RemoteError::Missing(_)))
            {
                let mut waiting = lock(&self.waiting);
                let list = waiting.metrics.entry(key.clone()).or_default();
                list.splice(0..0, values);
                list.truncate(METRICS_MAX);
            }
            if matches!(result, Err(RemoteError::Missing(_))) {
                // the run was deleted: the next values begin another
                self.runs.remove(&key);
            }
            self.judge(&key.0, result)?;
        }
    }

    /// What can never be told is dropped; what may be told later is an error.
    fn judge(&mut self, source: &str, result: Result<(), RemoteError>) -> Result<(), RemoteError> {
        match result {
            Err(error @ RemoteError::Denied(_)) => {
                tracing::warn!(source, %error, "the tracking server does not allow to write; it is told nothing for an hour");
                self.forbidden.insert(source.to_owned(), Instant::now());
                Ok(())
            }
            Err(error @ (RemoteError::Missing(_) | RemoteError::Unusable(_))) => {
                tracing::warn!(source, %error, "the tracking server was not told");
                Ok(())
            }
            other => other,
        }
    }

    fn is_forbidden(&self, source: &str) -> bool {
        self.forbidden.get(source).is_some_and(|at| at.elapsed() < FORBIDDEN_TIME)
    }

    async fn log(
        &mut self,
        subject: &Subject,
        key: &(String, Version),
        values: &[Sample],
    ) -> Result<(), RemoteError> {
        let (run, model_id, step) = match self.runs.get(key) {
            Some((run, id, step)) => (run.clone(), id.clone(), step + 1),
            None => {
                let (run, id) = self.begin_run(subject, &key.1).await?;
                (run, id, 0)
            }
        };
        let metric = |(key, value, at): &Sample| Metric {
            key: key.clone(),
            value: *value,
            timestamp: *at,
            step,
            model_id: model_id.clone(),
        };
        // JSON has no word for what is not finite
        let metrics: Vec<Metric> =
            values.iter().filter(|(_, value, _)| value.is_finite()).map(metric).collect();
        subject.api.log_metrics(&run, &metrics).await?;
        self.runs.insert(key.clone(), (run, model_id, step));
        Ok(())
    }

    /// A run of our own in the experiment of the version's logged model; never the training run.
    async fn begin_run(
        &self,
        subject: &Subject,
        version: &Version,
    ) -> Result<(String, Option<String>), RemoteError> {
        let Described { model, model_id, run, experiment } = subject.describe(version.as_str()).await?;
        let experiment = if experiment.is_empty() { "0" } else { &experiment };
        let name = format!("serving {model}/{version} on {}", self.server);
        let mut tags = vec![
            json!({ "key": "serving.model", "value": model }),
            json!({ "key": "serving.version", "value": version.as_str() }),
            json!({ "key": "serving.server", "value": self.server }),
        ];
        if !run.is_empty() {
            tags.push(json!({ "key": "serving.training_run", "value": run }));
        }
        let body =
            json!({ "experiment_id": experiment, "run_name": name, "start_time": wall_ms(), "tags": tags });
        let answer: Value = subject.api.post("mlflow/runs/create", &body).await?;
        let run = answer["run"]["info"]["run_id"].as_str();
        let run = run.ok_or_else(|| RemoteError::Down("the tracking server began no run".to_owned()))?;
        Ok((run.to_owned(), model_id))
    }
}
