//! The running server: puts its parts together at the start, and takes them apart in the order that loses no
//! request. Must not know any protocol, flag or signal.

mod listeners;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

pub use self::listeners::{Addresses, Listeners};

use anyhow::Context as _;
use crossbeam::channel::{after, bounded};
use gannet_runtime::{
    Time, clock,
    control::{
        lifecycle::LifecycleLimits,
        manager::{Control, ControlConfig},
    },
    drift::{Drift, DriftConfig},
};

use crate::{
    admin::{self, listener::Served},
    admission::Admission,
    backends,
    capture::{self, Capture},
    cloud_event::WebhookOut,
    config::{Config, RegistryConfig, RepositoryApi, address::Address},
    drift::Outlet,
    edge::EdgeJobs,
    exporter::{self, Exporter},
    net,
    ota::{Ota, endpoint::Door},
    rehearsal::Rehearsal,
    repository::{AliasHook, ControlMode, FollowOptions, Repository, RepositoryOptions},
    sources,
    state::{RepositoryAccess, State},
    tls::{Secured, Tls},
    token::TokenFile,
    trace::Tracer,
    traffic::Traffic,
    webhook::Webhook,
};

/// Time between two looks at the tokens of the data ports.
const TOKENS_PAUSE: Duration = Duration::from_secs(1);

/// The running server. Dropping it stops everything without waiting; [`App::drain`] is the polite way.
pub struct App {
    state: Arc<State>,
    config: Arc<Config>,
    addresses: Addresses,
    data: Option<net::Handle>,
    admin: Option<admin::Handle>,
    ota: Option<admin::Handle>,
    outlet: Outlet,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl App {
    /// Starts everything; models are loaded in the background, and [`State::is_ready`] tells when they are.
    ///
    /// # Errors
    /// A [`gannet_runtime::backend::BackendError`] when an engine is missing; other errors say what failed.
    pub fn start(config: Config, listeners: Listeners) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let addresses = listeners.addresses().context("a listener has no address")?;
        // the configuration was judged by its text; this is what the name stood for
        if let Some(admin) = addresses.admin.filter(|admin| !admin.ip().is_loopback())
            && config.admin_token_file.is_none()
        {
            anyhow::bail!(
                "the admin API would listen on {admin}, which is not loopback, without tokens; name a file of them with \
                 --admin-token-file, or use 127.0.0.1"
            );
        }
        let secured = Secured::load(&config.tls).map_err(anyhow::Error::msg)?;
        // before any loader thread exists: the engine's pool inherits the priority of this thread
        let backends = backends::start(&config.runtime)?;
        let recorder = exporter::recorder(&backends.build);
        let limits = LifecycleLimits {
            policy: config.runtime.swap_policy,
            memory_bytes_max: config.memory_bytes_max,
            loads_max: config.runtime.loader_threads,
        };
        let watch = DriftConfig { nice: config.runtime.loader_nice, ..config.drift.watch };
        let (drift, looking) = Drift::start(watch).context("the drift monitor did not start")?;
        let captured = start_capture(&config).inspect_err(|_| drift.stop())?;
        let tap = captured.as_ref().map(|(capture, _)| Arc::clone(capture.tap()));
        let (capture, keeping) = captured.unzip();
        let started = Control::start(ControlConfig {
            limits,
            backends: backends.all.clone(),
            qualify: Arc::new(Rehearsal::new(&config.repository)),
            loader_nice: config.runtime.loader_nice,
            drift: Some(Arc::clone(&drift)),
            tap,
        });
        let started = started.inspect_err(|_| drift.stop());
        let (control, manager) = started.context("the control plane did not start")?;
        let tracing = start_tracer(&config).inspect_err(|_| drift.stop())?;
        let (tracer, telling_traces) = tracing.unzip();
        let planes = (control.clone(), Arc::clone(&drift), capture, tracer);
        let started = start_rest(&config, (listeners, addresses, secured), &backends, planes, recorder);
        let stop = || {
            control.stop();
            drift.stop();
        };
        let Rest { state, data, admin, ota, mut threads } = started.inspect_err(|_| stop())?;
        threads.extend([manager, looking]);
        threads.extend(keeping.into_iter().flatten().chain(telling_traces));
        let (outlet, telling) = start_outlet(&config, &state).inspect_err(|_| stop())?;
        threads.push(telling);
        Ok(Self { state, config, addresses, data: Some(data), admin: Some(admin), ota, outlet, threads })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What endpoints share.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// As it was started.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    fn stop_planes(&self) {
        self.outlet.stop();
        self.state.stop();
    }

    /// Ends everything: not ready at once; after `lame_duck` no new connections; `grace` for what is under way and
    /// for models to be destroyed. Blocks for as long. Whether everything had ended by then.
    #[must_use = "tells whether requests were lost"]
    pub fn drain(mut self, lame_duck: Duration, grace: Duration) -> bool {
        self.state.admission.drain();
        // what balances the load needs time to see it, and sends requests until then
        let _ = after(lame_duck).recv();
        let until = clock::now() + grace;
        let mut finished = true;
        if let Some(data) = self.data.take() {
            data.close();
            finished &= data.join(until - clock::now());
        }
        if let Some(ota) = self.ota.take() {
            ota.close();
        }
        self.stop_planes();
        finished &= join_all(std::mem::take(&mut self.threads), until);
        if let Some(admin) = self.admin.take() {
            admin.close();
        }
        finished
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.state.admission.drain();
        if let Some(data) = self.data.take() {
            data.close();
        }
        if let Some(ota) = &self.ota {
            ota.stop();
        }
        if !self.threads.is_empty() {
            self.stop_planes();
        }
        if let Some(admin) = &self.admin {
            admin.stop();
        }
    }
}

struct Rest {
    state: Arc<State>,
    data: net::Handle,
    admin: admin::Handle,
    ota: Option<admin::Handle>,
    threads: Vec<JoinHandle<()>>,
}

/// Everything that needs the control plane.
fn start_rest(
    config: &Arc<Config>,
    (listeners, addresses, secured): (Listeners, Addresses, Secured),
    backends: &backends::Backends,
    (control, drift, capture, tracer): (Control, Arc<Drift>, Option<Capture>, Option<Arc<Tracer>>),
    recorder: &'static metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<Rest> {
    let (edge, ota, device_threads) = for_devices(config, &drift)?;
    // routes and labels hold before the first version can answer
    let (traffic, traffic_thread) =
        Traffic::start(&config.state_dir, control.clone()).map_err(anyhow::Error::msg)?;
    let options = repository_options(config, Arc::new(traffic.alias_hook()))?;
    let (repository, mut threads) =
        Repository::start(options, backends.all.clone(), control.clone()).map_err(anyhow::Error::msg)?;
    threads.extend(device_threads);
    if let Some(registry) = repository.registry() {
        traffic.follow(Arc::clone(registry));
    }
    let data_ports: Vec<SocketAddr> = addresses.http.into_iter().chain(addresses.grpc).collect();
    let state = Arc::new(State {
        control,
        repository,
        traffic,
        edge,
        ota,
        capture,
        tracer,
        drift,
        admission: Admission::new(config.inflight_bytes_max),
        limits: config.limits,
        tokens: tokens(config.inference_token_file.as_ref(), TOKENS_PAUSE),
        repository_access: repository_access(config.repository.mode, config.repository.api, &data_ports),
    });
    match start_planes(config, &state, (listeners, addresses, secured), recorder) {
        Ok((admin, data, ota)) => {
            threads.push(traffic_thread);
            Ok(Rest { state, data, admin, ota, threads })
        }
        Err(error) => {
            state.stop();
            Err(error)
        }
    }
}

/// Everything that listens.
fn start_planes(
    config: &Arc<Config>,
    state: &Arc<State>,
    (listeners, addresses, secured): (Listeners, Addresses, Secured),
    recorder: &'static metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<(admin::Handle, net::Handle, Option<admin::Handle>)> {
    let Listeners { http, grpc, metrics, admin, webhook, ota: door } = listeners;
    let hooks = state.repository.registry().zip(config.webhook.secret.as_ref());
    let hooks = hooks.map(|(registry, secret)| Webhook::new(Arc::clone(registry), secret.clone()));
    let webhook =
        webhook.zip(hooks).map(|(listener, hooks)| served(listener, secured.webhook.as_ref(), hooks));
    let bind_host = |address: &Option<Address>| address.as_ref().map(|address| address.host.clone());
    let context = admin.zip(addresses.admin).map(|(listener, local)| {
        let tokens = tokens(config.admin_token_file.as_ref(), Duration::ZERO);
        let (state, config, host) = (Arc::clone(state), Arc::clone(config), bind_host(&config.listen.admin));
        let context = admin::Context { state, config, tokens, local, bind_host: host };
        served(listener, secured.admin.as_ref(), context)
    });
    let exporter = metrics.zip(addresses.metrics).map(|(listener, local)| {
        let bind_host = bind_host(&config.listen.metrics);
        let tokens = tokens(config.metrics_token_file.as_ref(), Duration::ZERO);
        let exporter = Exporter { state: Arc::clone(state), recorder, tokens, local, bind_host };
        served(listener, secured.metrics.as_ref(), exporter)
    });
    let options = admin::Options { admin: context, metrics: exporter, webhook };
    let admin = admin::start(options).context("the admin thread did not start")?;
    let door = open_door(config, state, door.zip(addresses.ota), secured.ota.as_ref());
    let threads = config.runtime.io_threads;
    let options = net::Options { http, grpc, secured, threads, state: Arc::clone(state) };
    let data = net::start(options).context("the data plane did not start")?;
    Ok((admin, data, door.context("the thread for devices did not start")?))
}

/// What compiles for devices, what delivers to them, and their threads.
type ForDevices = (EdgeJobs, Option<Arc<Ota>>, Vec<JoinHandle<()>>);

/// Each thread ends with what speaks to it.
fn for_devices(config: &Config, drift: &Arc<Drift>) -> anyhow::Result<ForDevices> {
    let (edge, thread) = EdgeJobs::start(config.runtime.loader_nice).context("no thread for compilations")?;
    let mut threads = vec![thread];
    let ota =
        config.ota.listen.as_ref().map(|_| Ota::start(&config.ota, &config.state_dir, Arc::clone(drift)));
    let ota = ota.transpose().map_err(anyhow::Error::msg)?.map(|(ota, thread)| {
        threads.push(thread);
        Arc::new(ota)
    });
    Ok((edge, ota, threads))
}

/// Lets devices in.
fn open_door(
    config: &Config,
    state: &State,
    listener: Option<(std::net::TcpListener, SocketAddr)>,
    tls: Option<&Arc<Tls>>,
) -> std::io::Result<Option<admin::Handle>> {
    let Some(((listener, local), ota)) = listener.zip(state.ota.clone()) else { return Ok(None) };
    let bind_host = config.ota.listen.as_ref().map(|address| address.host.clone());
    let door = served(listener, tls, Door { ota, local, bind_host });
    admin::start_alone("gannet-devices", door).map(Some)
}

fn tokens(file: Option<&PathBuf>, pause: Duration) -> Option<TokenFile> {
    file.map(|path| TokenFile::new(path.clone(), pause))
}

fn served<E>(listener: std::net::TcpListener, tls: Option<&Arc<Tls>>, endpoint: E) -> Served<E> {
    Served { listener, tls: tls.cloned(), endpoint: Arc::new(endpoint) }
}

/// Who keeps a share of the requests.
fn start_capture(config: &Config) -> anyhow::Result<Option<capture::Started>> {
    let instance = sources::server_name(&config.registry);
    let place = (config.state_dir.as_path(), instance.as_str(), config.runtime.loader_nice);
    Capture::start(&config.capture, place).map_err(anyhow::Error::msg)
}

/// Who traces a share of the requests.
fn start_tracer(config: &Config) -> anyhow::Result<Option<(Arc<Tracer>, JoinHandle<()>)>> {
    let server = sources::server_name(&config.registry);
    Tracer::start(&config.trace, &server).context("nobody can be told of traces")
}

/// Who tells others of drift.
fn start_outlet(config: &Config, state: &State) -> anyhow::Result<(Outlet, JoinHandle<()>)> {
    let settings = &config.drift;
    let webhook = settings.webhook_url.clone().zip(settings.webhook_secret.clone());
    let webhook = webhook.map(|(url, secret)| WebhookOut { url, secret });
    let registry = state.repository.registry().cloned();
    let server = sources::server_name(&config.registry);
    Outlet::start(Arc::clone(&state.drift), registry, webhook, server).context("nobody can be told of drift")
}

/// Where models come from, and how they are looked at.
fn repository_options(config: &Config, on_alias_moved: AliasHook) -> anyhow::Result<RepositoryOptions> {
    let repository = &config.repository;
    Ok(RepositoryOptions {
        paths: repository.paths.clone(),
        state_dir: config.state_dir.clone(),
        mode: repository.mode,
        load_models: repository.load_models.clone(),
        scan: repository.scan,
        settle: repository.settle,
        ingest: repository.ingest,
        event_loops: config.runtime.io_threads,
        allow_torchscript: repository.allow_torchscript,
        nice: config.runtime.loader_nice,
        trust: sources::trust(&config.registry).map_err(anyhow::Error::msg)?,
        registry: follow_options(&config.registry, &config.state_dir, on_alias_moved)?,
    })
}

/// The registries to follow. Without any, and without leave to add some, there is nothing to start.
fn follow_options(
    config: &RegistryConfig,
    state_dir: &Path,
    on_alias_moved: AliasHook,
) -> anyhow::Result<Option<FollowOptions>> {
    if config.sources.is_empty() && config.allow.is_empty() {
        return Ok(None);
    }
    let added = sources::added::load(state_dir, config);
    let sources = config.sources.iter().chain(&added).map(sources::spec).collect::<Result<Vec<_>, String>>();
    Ok(Some(FollowOptions {
        sources: sources.map_err(anyhow::Error::msg)?,
        limits: config.limits.clone(),
        server: sources::server_name(config),
        on_alias_moved,
    }))
}

/// What the data ports let a caller do: never more than the index unless the calls decide what is served, and then
/// only when none but this machine can call, or when the operator says so.
#[must_use]
pub fn repository_access(
    mode: ControlMode,
    api: RepositoryApi,
    data_ports: &[SocketAddr],
) -> RepositoryAccess {
    let allowed = match api {
        RepositoryApi::Index => false,
        RepositoryApi::Full => true,
        RepositoryApi::Auto => data_ports.iter().all(|address| address.ip().is_loopback()),
    };
    if mode == ControlMode::Explicit && allowed { RepositoryAccess::Full } else { RepositoryAccess::Index }
}

/// Whether all ended in time. Those that did not are left behind.
fn join_all(threads: Vec<JoinHandle<()>>, until: Time) -> bool {
    let (done, ended) = bounded(1);
    let join = move || {
        let all = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count() == 0;
        let _ = done.send(all);
    };
    if std::thread::Builder::new().name("gannet-join".into()).spawn(join).is_err() {
        return false;
    }
    ended.recv_timeout(until - clock::now()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_ports_may_load_only_when_nobody_else_can_call() {
        let check = |mode, api, ports: &[&str], expected| {
            let ports: Vec<SocketAddr> = ports.iter().map(|port| port.parse().unwrap()).collect();
            assert_eq!(repository_access(mode, api, &ports), expected, "{mode:?} {api:?} {ports:?}");
        };
        use RepositoryAccess::{Full, Index};
        let (local, open) = (["127.0.0.1:1", "[::1]:2"], ["127.0.0.1:1", "0.0.0.0:2"]);
        check(ControlMode::Explicit, RepositoryApi::Auto, &local, Full);
        check(ControlMode::Explicit, RepositoryApi::Auto, &open, Index);
        check(ControlMode::Explicit, RepositoryApi::Full, &open, Full);
        check(ControlMode::Explicit, RepositoryApi::Index, &local, Index);
        check(ControlMode::Poll, RepositoryApi::Full, &local, Index);
        check(ControlMode::None, RepositoryApi::Full, &local, Index);
    }
}
