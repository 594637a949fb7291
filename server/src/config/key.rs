//! The table of keys: one entry for each thing that can be set, with how it is read and shown. Must not know where
//! values come from, nor how keys depend on each other.

macro_rules! key {
    ($name:literal, $help:literal, $expected:expr, |$config:ident, $given:ident| $set:expr, $show:expr) => {
        Key {
            name: $name,
            help: $help,
            expected: $expected,
            set: |$config, $given| {
                $set;
                Some(())
            },
            show: |$config| json!($show),
        }
    };
}

mod secured;
mod watched;

use std::{path::PathBuf, sync::LazyLock};

use serde_json::{Value, json};

use super::{Config, Credentials, Given, LogFormat, RepositoryApi, address::Address, text::Choice};
use crate::repository::ControlMode;
use gannet_runtime::control::transition::SwapPolicy;

/// More than any machine has cores, and a bound on what a slip of the finger starts.
const THREADS_MAX: u64 = 1024;
/// A day: no wait of a server is meant to be longer.
const MS_MAX: u64 = 86_400_000;

/// One thing that can be set.
#[derive(Clone, Copy)]
pub struct Key {
    /// Such as `listen.http`: section and key of the file.
    pub name: &'static str,
    /// What it is, for help and messages.
    pub help: &'static str,
    /// What may stand there.
    pub expected: &'static str,
    /// Takes a value; `None` when it is not `expected`.
    pub(super) set: fn(&mut Config, &Given) -> Option<()>,
    /// The value in force.
    pub(super) show: fn(&Config) -> Value,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    /// The environment variable, such as `GANNET_LISTEN_HTTP`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("GANNET_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// Every key, section by section.
#[must_use]
pub fn keys() -> &'static [Key] {
    static ALL: LazyLock<Vec<Key>> = LazyLock::new(|| [KEYS, secured::KEYS, watched::KEYS].concat());
    &ALL
}

const ADDRESS: &str = "HOST:PORT, such as \"127.0.0.1:8000\", or \"off\"";
const COUNT: &str = "a whole number of 1 or more";
const BYTES: &str = "bytes of 1 or more, such as 1048576 or \"64MiB\"";
const MS: &str = "milliseconds from 0 to 86400000";
const MS_POSITIVE: &str = "milliseconds from 1 to 86400000";
const THREADS: &str = "a whole number from 1 to 1024";
const PATH: &str = "a path";

const KEYS: &[Key] = &[
    key!(
        "listen.http",
        "inference over HTTP",
        ADDRESS,
        |c, g| c.listen.http = address(g)?,
        shown(&c.listen.http)
    ),
    key!(
        "listen.grpc",
        "inference over gRPC",
        ADDRESS,
        |c, g| c.listen.grpc = address(g)?,
        shown(&c.listen.grpc)
    ),
    key!(
        "listen.metrics",
        "metrics for Prometheus",
        ADDRESS,
        |c, g| c.listen.metrics = address(g)?,
        shown(&c.listen.metrics)
    ),
    key!(
        "listen.admin",
        "the admin API",
        ADDRESS,
        |c, g| c.listen.admin = address(g)?,
        shown(&c.listen.admin)
    ),
    key!(
        "repository.paths",
        "model repositories, model folders or model files",
        "paths: a list, or a text with commas",
        |c, g| c.repository.paths = g.list()?.into_iter().map(PathBuf::from).collect(),
        c.repository.paths
    ),
    key!(
        "repository.model_control",
        "who decides what is served: the folders, the load calls, or the first look",
        "poll, explicit or none",
        |c, g| c.repository.mode = ControlMode::parse(g.text()?)?,
        c.repository.mode.name()
    ),
    key!(
        "repository.load_models",
        "models to load at the start in explicit mode; none: all",
        "model names: a list, or a text with commas",
        |c, g| c.repository.load_models = g.list()?,
        c.repository.load_models
    ),
    key!(
        "repository.api",
        "what the data ports may do to the repository; auto: full on loopback",
        "index, full or auto",
        |c, g| c.repository.api = RepositoryApi::parse(g.text()?)?,
        c.repository.api.name()
    ),
    key!(
        "repository.scan_ms",
        "time between two looks",
        MS_POSITIVE,
        |c, g| c.repository.scan = positive_ms(g)?,
        ms(c.repository.scan)
    ),
    key!(
        "repository.settle_ms",
        "time that files must have been at rest",
        MS,
        |c, g| c.repository.settle = any_ms(g)?,
        ms(c.repository.settle)
    ),
    key!(
        "repository.allow_torchscript",
        "load TorchScript, which is code, whatever a model's own settings say",
        "true or false",
        |c, g| c.repository.allow_torchscript = g.boolean()?,
        c.repository.allow_torchscript
    ),
    key!(
        "repository.rehearsal_ms",
        "time for the first load of a file that is code, in a process of its own",
        MS_POSITIVE,
        |c, g| c.repository.rehearsal = positive_ms(g)?,
        ms(c.repository.rehearsal)
    ),
    key!(
        "repository.bytes_max",
        "bytes of one version",
        BYTES,
        |c, g| c.repository.ingest.bytes_max = positive(g.bytes())?,
        c.repository.ingest.bytes_max
    ),
    key!(
        "repository.files_max",
        "files of one version",
        COUNT,
        |c, g| c.repository.ingest.files_max = count(g)?,
        c.repository.ingest.files_max
    ),
    key!(
        "registry.allow",
        "URIs that sources added by the admin API may have, * for anything",
        "patterns: a list, or a text with commas",
        |c, g| c.registry.allow = g.list()?,
        c.registry.allow
    ),
    key!(
        "registry.max_package_bytes",
        "bytes of one package of a registry",
        BYTES,
        |c, g| c.registry.limits.package.bytes_max = positive(g.bytes())?,
        c.registry.limits.package.bytes_max
    ),
    key!(
        "registry.max_files",
        "files of one package of a registry",
        COUNT,
        |c, g| c.registry.limits.package.files_max = count(g)?,
        c.registry.limits.package.files_max
    ),
    key!(
        "registry.disk_budget_bytes",
        "bytes of all copies together; versions that served before go first",
        BYTES,
        |c, g| c.registry.limits.disk_budget_bytes = Some(positive(g.bytes())?),
        c.registry.limits.disk_budget_bytes
    ),
    key!(
        "registry.require_digest",
        "refuse packages without a digest, a seal or a required signature",
        "true or false",
        |c, g| c.registry.limits.require_digest = g.boolean()?,
        c.registry.limits.require_digest
    ),
    key!(
        "registry.bytes_per_s_max",
        "bytes a second of all downloads together",
        BYTES,
        |c, g| c.registry.limits.bytes_per_s_max = Some(positive(g.bytes())?),
        c.registry.limits.bytes_per_s_max
    ),
    key!(
        "registry.downloads_max",
        "downloads side by side",
        THREADS,
        |c, g| c.registry.limits.downloads_max = threads(g)?,
        c.registry.limits.downloads_max
    ),
    key!(
        "registry.server_name",
        "what this server is called in registries' tags [default: the host's name]",
        "a text of letters, digits and any of _ - .",
        |c, g| c.registry.server_name = server_name(g)?,
        c.registry.server_name
    ),
    key!(
        "webhook.listen",
        "where MLflow's webhooks come to",
        ADDRESS,
        |c, g| c.webhook.listen = address(g)?,
        shown(&c.webhook.listen)
    ),
    key!(
        "webhook.secret",
        "what MLflow signs its webhooks with",
        "env:NAME or file:PATH",
        |c, g| c.webhook.secret = Some(Credentials::parse(g.text()?)?),
        c.webhook.secret.as_ref().map(ToString::to_string)
    ),
    key!(
        "ota.listen",
        "where devices come to",
        ADDRESS,
        |c, g| c.ota.listen = address(g)?,
        shown(&c.ota.listen)
    ),
    key!(
        "ota.devices_file",
        "devices, a line each, with the digest of a token (gannet ota token)",
        PATH,
        |c, g| c.ota.devices_file = Some(path(g)?),
        c.ota.devices_file
    ),
    key!(
        "ota.keys",
        "public keys of who releases, one of which must have signed what is delivered",
        "paths: a list, or a text with commas",
        |c, g| c.ota.keys = g.list()?.into_iter().map(PathBuf::from).collect(),
        c.ota.keys
    ),
    key!(
        "state.dir",
        "the folder for everything that is written",
        PATH,
        |c, g| c.state_dir = path(g)?,
        c.state_dir
    ),
    key!(
        "limits.body_bytes_max",
        "bytes of one request's body",
        BYTES,
        |c, g| c.limits.body_bytes_max = size(g)?,
        c.limits.body_bytes_max
    ),
    key!(
        "limits.inflight_bytes_max",
        "bytes of all bodies and answers in flight",
        BYTES,
        |c, g| c.inflight_bytes_max = size(g)?,
        c.inflight_bytes_max
    ),
    key!(
        "limits.body_ms_max",
        "time for a body to arrive",
        MS_POSITIVE,
        |c, g| c.limits.body_time_max = positive_ms(g)?,
        ms(c.limits.body_time_max)
    ),
    key!(
        "limits.head_ms_max",
        "time for a request's head to arrive",
        MS_POSITIVE,
        |c, g| c.limits.head_time_max = positive_ms(g)?,
        ms(c.limits.head_time_max)
    ),
    key!(
        "limits.connections_max",
        "connections of one listener",
        COUNT,
        |c, g| c.limits.connections_max = count(g)?,
        c.limits.connections_max
    ),
    key!(
        "limits.memory_bytes_max",
        "memory of all loaded models, as estimated",
        BYTES,
        |c, g| c.memory_bytes_max = Some(positive(g.bytes())?),
        c.memory_bytes_max
    ),
    key!(
        "runtime.io_threads",
        "event loops of the data ports",
        THREADS,
        |c, g| c.runtime.io_threads = threads(g)?,
        c.runtime.io_threads
    ),
    key!(
        "runtime.pool_threads",
        "threads that models with more than one thread share",
        THREADS,
        |c, g| c.runtime.pool_threads = threads(g)?,
        c.runtime.pool_threads
    ),
    key!(
        "runtime.loader_threads",
        "loads that run side by side",
        THREADS,
        |c, g| c.runtime.loader_threads = threads(g)?,
        c.runtime.loader_threads
    ),
    key!(
        "runtime.loader_nice",
        "how far the threads that copy, load and free models step back",
        "a whole number from 0 (not at all) to 19",
        |c, g| c.runtime.loader_nice = g.number().filter(|n| *n <= 19).and_then(|n| i32::try_from(n).ok())?,
        c.runtime.loader_nice
    ),
    key!(
        "runtime.swap_policy",
        "what is kept when a version is replaced",
        "availability or resources",
        |c, g| c.runtime.swap_policy = SwapPolicy::parse(g.text()?)?,
        c.runtime.swap_policy.name()
    ),
    key!(
        "shutdown.lame_duck_ms",
        "time between 'not ready' and the end of accepting",
        MS,
        |c, g| c.shutdown.lame_duck = any_ms(g)?,
        ms(c.shutdown.lame_duck)
    ),
    key!(
        "shutdown.grace_ms",
        "time for what is in flight then",
        MS,
        |c, g| c.shutdown.grace = any_ms(g)?,
        ms(c.shutdown.grace)
    ),
    key!(
        "log.level",
        "what is logged",
        "a level (error, warn, info, debug, trace) or directives such as \"info,gannet_runtime=debug\"",
        |c, g| c.log.level = level(g)?,
        c.log.level
    ),
    key!(
        "log.format",
        "how a line looks",
        "text or json",
        |c, g| c.log.format = LogFormat::parse(g.text()?)?,
        c.log.format.name()
    ),
];

/// The outer `None`: not an address; the inner: no listener.
fn address(given: &Given) -> Option<Option<Address>> {
    match given.text()? {
        "" | "off" => Some(None),
        text => Address::parse(text).map(Some),
    }
}

fn shown(address: &Option<Address>) -> String {
    address.as_ref().map_or_else(|| "off".into(), Address::to_string)
}

fn server_name(given: &Given) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    given.text().filter(|text| text.len() <= 100 && text.chars().all(allowed)).map(str::to_owned)
}

fn path(given: &Given) -> Option<PathBuf> {
    given.text().filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn positive(number: Option<u64>) -> Option<u64> {
    number.filter(|number| *number > 0)
}

fn size(given: &Given) -> Option<usize> {
    usize::try_from(positive(given.bytes())?).ok()
}

fn count(given: &Given) -> Option<usize> {
    usize::try_from(positive(given.number())?).ok()
}

fn threads(given: &Given) -> Option<usize> {
    positive(given.number()).filter(|n| *n <= THREADS_MAX).and_then(|n| usize::try_from(n).ok())
}

fn any_ms(given: &Given) -> Option<std::time::Duration> {
    given.number().filter(|n| *n <= MS_MAX).map(std::time::Duration::from_millis)
}

fn positive_ms(given: &Given) -> Option<std::time::Duration> {
    any_ms(given).filter(|duration| !duration.is_zero())
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn level(given: &Given) -> Option<String> {
    let text = given.text().filter(|text| !text.is_empty())?;
    tracing_subscriber::EnvFilter::try_new(text).ok()?;
    // a lone word that is no level would be taken for the name of a crate, and silence everything else
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    text.split(',').all(|word| word.contains('=') || is_level(word)).then(|| text.to_owned())
}
