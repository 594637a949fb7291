//! `gannet serve`: reads the sources of the configuration, starts the server, and ends it when a signal comes. Must
//! not know what is between start and end.

use std::{fs, io::ErrorKind, path::Path, time::Duration};

use anyhow::Context as _;
use gannet_runtime::backend::BackendError;
use tokio::sync::oneshot;

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, ServeArgs, banner};
use crate::{
    app::{App, Listeners},
    config::{Config, FILE_NAME, Fault, Faults, FileText, Given, LogConfig, LogFormat, Sources, compose},
    shutdown::Signals,
    token::read_tokens,
};

pub(super) fn run(args: &ServeArgs) -> u8 {
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let config = match load(args, environment.collect()) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return EXIT_USAGE;
        }
    };
    start_log(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match serve(config) {
        Ok(true) => EXIT_OK,
        Ok(false) => EXIT_REFUSED,
        Err(error) => {
            eprintln!("{error:#}");
            let missing = matches!(error.downcast_ref(), Some(BackendError::Unavailable(_)));
            if missing { EXIT_UNAVAILABLE } else { EXIT_REFUSED }
        }
    }
}

/// The configuration of this process, its files looked at.
fn load(args: &ServeArgs, environment: Vec<(String, String)>) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let file = read_file(args, &environment, &mut faults);
    let sources = Sources { flags: flags(args), settings: args.set.clone(), file, environment };
    match compose(&sources) {
        Ok(config) => {
            check_paths(&config, &mut faults);
            if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
        }
        Err(Faults(more)) => {
            faults.extend(more);
            Err(Faults(faults))
        }
    }
}

/// The file that was named, or the one in the working directory if there is one.
fn read_file(
    args: &ServeArgs,
    environment: &[(String, String)],
    faults: &mut Vec<Fault>,
) -> Option<FileText> {
    let variable = environment.iter().find(|(name, value)| name == "GANNET_CONFIG" && !value.is_empty());
    let (source, path) = match (&args.config, variable) {
        (Some(path), _) => ("--config", path.clone()),
        (None, Some((_, path))) => ("GANNET_CONFIG", path.clone()),
        (None, None) => ("", FILE_NAME.to_owned()),
    };
    match fs::read_to_string(&path) {
        Ok(text) => Some(FileText { path, text }),
        Err(error) if source.is_empty() && error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let source = if source.is_empty() { FILE_NAME } else { source };
            faults.push(Fault::new(source, "", "a file that can be read", format!("{path}: {error}")));
            None
        }
    }
}

fn flags(args: &ServeArgs) -> Vec<(&'static str, &'static str, Given)> {
    let texts = [
        ("--model-control", "repository.model_control", &args.model_control),
        ("--repository-api", "repository.api", &args.repository_api),
        ("--http", "listen.http", &args.http),
        ("--grpc", "listen.grpc", &args.grpc),
        ("--metrics", "listen.metrics", &args.metrics),
        ("--admin", "listen.admin", &args.admin),
        ("--admin-token-file", "admin.token_file", &args.admin_token_file),
        ("--token-file", "inference.token_file", &args.token_file),
        ("--state", "state.dir", &args.state),
    ];
    let given =
        texts.into_iter().filter_map(|(flag, key, text)| Some((flag, key, Given::Text(text.clone()?))));
    let mut flags: Vec<_> = given.collect();
    let paths: Vec<String> = args.paths.iter().chain(&args.repository).cloned().collect();
    if !paths.is_empty() {
        let flag = if args.paths.is_empty() { "--repository" } else { "PATH" };
        flags.push((flag, "repository.paths", Given::List(paths)));
    }
    if !args.load_model.is_empty() {
        flags.push(("--load-model", "repository.load_models", Given::List(args.load_model.clone())));
    }
    flags
}

/// What can be told only by looking at the paths.
fn check_paths(config: &Config, faults: &mut Vec<Fault>) {
    for path in config.repository.paths.iter().filter(|path| !path.exists()) {
        let fault = Fault::new(
            config.source("repository.paths"),
            "repository.paths",
            "a model repository, a model's folder or a model file",
            format!("{}, which does not exist", path.display()),
        );
        let here = std::env::current_dir().unwrap_or_default();
        faults.push(fault.advise(format!("check the path (the working directory is {})", here.display())));
    }
    let token_files = [
        ("admin.token_file", &config.admin_token_file),
        ("inference.token_file", &config.inference_token_file),
        ("metrics.token_file", &config.metrics_token_file),
    ];
    for (key, path) in token_files {
        if let Some(path) = path
            && let Err(error) = read_tokens(path)
        {
            let got = format!("{}: {error}", path.display());
            faults.push(Fault::new(config.source(key), key, "a file of tokens, one a line", got));
        }
    }
    if let Err(error) = fs::create_dir_all(&config.state_dir) {
        let got = format!("{}: {error}", config.state_dir.display());
        faults.push(Fault::new(config.source("state.dir"), "state.dir", "a folder that can be written", got));
    }
}

fn start_log(config: &LogConfig) {
    let filter = tracing_subscriber::EnvFilter::new(&config.level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // fails only when a log was started before: then that one stays
    let _ = match config.format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// Serves until a signal comes; whether everything ended in time.
fn serve(config: Config) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() }).context("signals cannot be received")?;
    let listeners = Listeners::bind(&config)?;
    let shutdown = config.shutdown;
    let app = App::start(config, listeners)?;
    banner::print_addresses(&app);
    runtime.block_on(async {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = announce(&app) => signals.next().await,
        };
        tracing::info!(signal, "draining; a second signal ends the process at once");
        let (done, drained) = oneshot::channel();
        let drain = move || {
            let _ = done.send(app.drain(shutdown.lame_duck, shutdown.grace));
        };
        std::thread::Builder::new()
            .name("gannet-drain".into())
            .spawn(drain)
            .context("no thread to end the server")?;
        tokio::select! {
            finished = drained => {
                let finished = finished.unwrap_or(false);
                if !finished {
                    tracing::warn!("not everything ended within shutdown.grace_ms");
                }
                Ok(finished)
            }
            signal = signals.next() => {
                tracing::warn!(signal, "ended at once, with requests under way");
                Ok(false)
            }
        }
    })
}

/// Says what is served once that is settled, or what is not after a while.
async fn announce(app: &App) {
    const LOOK: Duration = Duration::from_millis(50);
    const WAIT_MAX: Duration = Duration::from_secs(15);
    let ready = async {
        while !app.state().is_ready() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(WAIT_MAX, ready).await;
    banner::print_models(app);
}

/// The configuration of a command that only needs the engine.
pub(super) fn engine_config() -> crate::config::RuntimeConfig {
    let mut config = Config::new(Path::new("").into()).runtime;
    config.ort_dylib = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(Into::into);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_all_sources_and_of_the_paths_come_together() {
        let args = ServeArgs {
            config: Some("/nonexistent/gannet.toml".into()),
            http: Some("nowhere".into()),
            set: vec!["x=y".into()],
            ..ServeArgs::default()
        };
        let text = load(&args, vec![("HOME".into(), "/tmp".into())]).unwrap_err().to_string();
        for part in
            ["--config: expected a file that can be read, got /nonexistent/gannet.toml", "--http", "--set"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let state = std::env::temp_dir().join(format!("gannet-state-{}", std::process::id()));
        let args = ServeArgs {
            paths: vec!["/nonexistent/a".into()],
            repository: vec!["/nonexistent/b".into()],
            admin_token_file: Some("/nonexistent/token".into()),
            state: Some(state.display().to_string()),
            ..ServeArgs::default()
        };
        let text = load(&args, Vec::new()).unwrap_err().to_string();
        for part in [
            "PATH: repository.paths: ",
            "/nonexistent/a",
            "/nonexistent/b",
            "--admin-token-file: admin.token_file: ",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let _ = fs::remove_dir_all(state);
    }
}
