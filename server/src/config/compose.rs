//! Puts the sources together. Pure: files and the environment were read before. Must not know what any key means,
//! but for the few rules between keys at the end.

use std::path::PathBuf;

use super::{Config, Fault, Faults, Given, Key, Port, address::Address, key::keys, registry, toml_file};
use crate::repository::ControlMode;

/// Everything that says something, already read.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// (the flag as written, key, value); these win.
    pub flags: Vec<(&'static str, &'static str, Given)>,
    /// `--set` texts, `key=value`.
    pub settings: Vec<String>,
    /// `gannet.toml`.
    pub file: Option<FileText>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
}

/// A file that was read.
#[derive(Debug, Clone, Default)]
pub struct FileText {
    /// For messages.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// One value of one key, and who gave it.
struct Setting {
    source: String,
    key: &'static Key,
    given: Given,
}

/// Variables with our prefix that are no keys, but mean something.
const OTHER_VARIABLES: [&str; 4] =
    ["GANNET_CONFIG", "GANNET_CACHE", "GANNET_BAKED_ORT_DYLIB", "GANNET_ORT_PROVISION_ERROR"];

/// The configuration that the sources make together.
///
/// # Errors
/// Every fault of every source, those that a stronger source would hide included.
pub fn compose(sources: &Sources) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let mut config = Config::new(default_state_dir(&sources.environment).unwrap_or_default());
    config.runtime.ort_dylib = variable(&sources.environment, "ORT_DYLIB_PATH").map(PathBuf::from);
    let mut settings = from_environment(sources, &mut faults, &mut config.warnings);
    let (in_file, tables) = from_file(sources, &mut faults);
    settings.extend(in_file);
    registry::read(&mut config.registry, &tables, &mut faults);
    settings.extend(from_settings(sources, &mut faults));
    settings.extend(from_flags(sources));
    // weakest first, so that the strongest has the last word
    for Setting { source, key, given } in settings {
        match (key.set)(&mut config, &given) {
            Some(()) => drop(config.sources.insert(key.name, source)),
            None => faults.push(Fault::new(&source, key.name, key.expected, given.to_string())),
        }
    }
    // the models that come with the server are for those who named none
    if !config.registry.sources.is_empty() && config.source("repository.paths") == "default" {
        config.repository.paths.clear();
    }
    check_together(&config, &mut faults);
    if let Some(open) =
        config.ota.listen.as_ref().filter(|address| !address.is_loopback() && !config.tls.secures(Port::Ota))
    {
        config.warnings.push(format!(
            "devices come to {open}, which is not loopback, without TLS: name a tls.certificate or put a proxy in front, for their tokens are sent in clear"
        ));
    }
    if config.inference_token_file.is_some() {
        let open = [(Port::Http, &config.listen.http), (Port::Grpc, &config.listen.grpc)];
        for (port, address) in open.into_iter().filter(|(port, _)| !config.tls.secures(*port)) {
            if let Some(address) = address.as_ref().filter(|address| !address.is_loopback()) {
                config.warnings.push(format!(
                    "tokens come to {address} ({}), which is not loopback, in clear: name a tls.certificate or put a proxy in \
                     front",
                    port.name()
                ));
            }
        }
    }
    check_drift(&config, &mut faults);
    check_capture(&config, &mut faults);
    if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
}

fn from_environment(sources: &Sources, faults: &mut Vec<Fault>, warnings: &mut Vec<String>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, value) in &sources.environment {
        let Some(rest) = name.strip_prefix("GANNET_") else { continue };
        if let Some(key) = keys().iter().find(|key| key.variable() == *name) {
            settings.push(Setting { source: name.clone(), key, given: Given::Text(value.clone()) });
            continue;
        }
        if OTHER_VARIABLES.contains(&name.as_str()) || is_of_an_orchestrator(rest) {
            continue;
        }
        let ours = |key: &Key| rest.starts_with(&format!("{}_", section(key.name).to_ascii_uppercase()));
        if keys().iter().any(ours) {
            faults.push(unknown(name, &rest.to_ascii_lowercase().replacen('_', ".", 1), Key::variable));
        } else {
            warnings.push(format!(
                "the variable {name} means nothing to Gannet; see `gannet --help` for what does"
            ));
        }
    }
    settings
}

/// Kubernetes tells every process of a service called `gannet`, or `gannet-...`, by variables such as
/// `GANNET_SERVICE_HOST` and `GANNET_PORT_8000_TCP_ADDR`.
fn is_of_an_orchestrator(rest: &str) -> bool {
    let rest = format!("_{rest}");
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.ends_with("_PORT")
        || rest.contains("_PORT_")
}

fn from_file(sources: &Sources, faults: &mut Vec<Fault>) -> (Vec<Setting>, Vec<registry::Table>) {
    let Some(FileText { path, text }) = &sources.file else { return (Vec::new(), Vec::new()) };
    let mut settings = Vec::new();
    let (entries, tables) = toml_file::read(path, text, &registry::LISTS, faults);
    let tables = tables.into_iter().map(|table| registry::Table { file: path.clone(), table }).collect();
    for entry in entries {
        let source = format!("{path}:{}", entry.line);
        match keys().iter().find(|key| key.name == entry.key) {
            Some(key) => settings.push(Setting { source, key, given: entry.given }),
            None => faults.push(unknown(&source, &entry.key, |key| key.name.to_owned())),
        }
    }
    (settings, tables)
}

fn from_settings(sources: &Sources, faults: &mut Vec<Fault>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for text in &sources.settings {
        let Some((name, value)) = text.split_once('=') else {
            faults.push(Fault::new(
                "--set",
                "",
                "key=value, such as listen.http=127.0.0.1:9000",
                format!("{text:?}"),
            ));
            continue;
        };
        match keys().iter().find(|key| key.name == name.trim()) {
            Some(key) => {
                let source = format!("--set {}", key.name);
                settings.push(Setting { source, key, given: Given::Text(value.trim().to_owned()) });
            }
            None => faults.push(unknown("--set", name.trim(), |key| key.name.to_owned())),
        }
    }
    settings
}

fn from_flags(sources: &Sources) -> Vec<Setting> {
    let setting = |(flag, name, given): &(&'static str, &'static str, Given)| {
        let key = keys().iter().find(|key| key.name == *name)?;
        Some(Setting { source: (*flag).to_owned(), key, given: given.clone() })
    };
    sources.flags.iter().filter_map(setting).collect()
}

fn section(name: &str) -> &str {
    name.split_once('.').map_or(name, |(section, _)| section)
}

/// A key that nobody knows, with those of its section, or of all.
fn unknown(source: &str, name: &str, write: impl Fn(&Key) -> String) -> Fault {
    let near: Vec<String> =
        keys().iter().filter(|key| section(key.name) == section(name)).map(&write).collect();
    let known = if near.is_empty() { keys().iter().map(&write).collect() } else { near };
    Fault::new(
        source,
        "",
        format!("one of the keys {}", known.join(", ")),
        format!("the unknown key '{name}'"),
    )
}

/// A webhook and what its events are signed with.
fn check_drift(config: &Config, faults: &mut Vec<Fault>) {
    if config.drift.webhook_url.is_none() || config.drift.webhook_secret.is_some() {
        return;
    }
    let key = "drift.webhook_url";
    let expected = "no address without a drift.webhook_secret";
    let advice = "name what events are signed with, such as drift.webhook_secret = \"env:NAME\"";
    faults.push(Fault::new(config.source(key), key, expected, "an address").advise(advice));
}

/// Where captured requests are sent, what their events are signed with, and that there are any.
fn check_capture(config: &Config, faults: &mut Vec<Fault>) {
    let (capture, key) = (&config.capture, "capture.events_url");
    if capture.events_url.is_none() {
        return;
    }
    let mut missing = |what: &str, advice: &str| {
        let expected = format!("no address without {what}");
        faults.push(Fault::new(config.source(key), key, expected, "an address").advise(advice));
    };
    if capture.root.is_none() {
        missing("a capture.root", "name where captured requests are kept: what is captured is what is sent");
    }
    if capture.events_secret.is_none() {
        let advice = "name what events are signed with, such as capture.events_secret = \"env:NAME\"";
        missing("a capture.events_secret", advice);
    }
}

/// What no key can tell alone.
fn check_together(config: &Config, faults: &mut Vec<Fault>) {
    let mut fault = |key: &str, expected: &str, got: &str, advice: &str| {
        faults.push(Fault::new(config.source(key), key, expected, got).advise(advice));
    };
    let listen = &config.listen;
    let all = [
        ("listen.http", &listen.http),
        ("listen.grpc", &listen.grpc),
        ("listen.metrics", &listen.metrics),
        ("listen.admin", &listen.admin),
        ("webhook.listen", &config.webhook.listen),
        ("ota.listen", &config.ota.listen),
    ];
    for (index, (key, address)) in all.iter().enumerate() {
        let same = |other: &Address| address.as_ref().is_some_and(|a| a == other && a.port != 0);
        if let Some((other, _)) = all[..index].iter().find(|(_, other)| other.as_ref().is_some_and(same)) {
            let got = address.as_ref().map(Address::to_string).unwrap_or_default();
            fault(
                key,
                &format!("another address than {other}"),
                &got,
                "each listener needs a port of its own",
            );
        }
    }
    if let Some(admin) = listen.admin.as_ref().filter(|admin| !admin.is_loopback())
        && config.admin_token_file.is_none()
    {
        let advice =
            "name a file of bearer tokens with --admin-token-file, or keep the admin API on 127.0.0.1";
        fault(
            "listen.admin",
            "a loopback address while there is no admin.token_file",
            &admin.to_string(),
            advice,
        );
    }
    let explicit = config.repository.mode == ControlMode::Explicit;
    if !explicit && !config.repository.load_models.is_empty() {
        let got = config.repository.load_models.join(",");
        let advice = "add --model-control explicit, or leave the models out";
        fault("repository.load_models", "no models unless the model control is explicit", &got, advice);
    }
    check_outside(config, &mut fault);
    let has_sources = !config.registry.sources.is_empty() || !config.registry.allow.is_empty();
    if !explicit && config.repository.paths.is_empty() && !has_sources {
        fault("repository.paths", "at least one path", "none", "name a folder of models");
    }
    if config.state_dir.as_os_str().is_empty() {
        fault("state.dir", "a folder", "neither XDG_STATE_HOME nor HOME", "name one with --state DIR");
    }
}

/// What others may send here, or are sent.
fn check_outside(config: &Config, fault: &mut impl FnMut(&str, &str, &str, &str)) {
    let tls = &config.tls;
    if tls.certificate.is_some() != tls.key.is_some() {
        let (named, missing) = match tls.certificate {
            Some(_) => ("tls.certificate", "tls.key"),
            None => ("tls.key", "tls.certificate"),
        };
        let advice = "name both: tls.certificate = \"server.pem\" and tls.key = \"server.key\"";
        fault(named, &format!("nothing without a {missing}"), "a path", advice);
    }
    if tls.client_ca.is_some() && tls.certificate.is_none() {
        let advice = "name the server's own tls.certificate and tls.key too";
        fault("tls.client_ca", "nothing without a tls.certificate", "a path", advice);
    }
    let here = |url: &String| {
        let uri: Option<http::Uri> = url.parse().ok();
        uri.is_some_and(|uri| uri.host().is_some_and(gannet_registry::uri::is_loopback))
    };
    let in_clear = config.trace.url.as_ref().filter(|url| url.starts_with("http://") && !here(url));
    if let Some(url) = in_clear.filter(|_| !config.trace.plain_http) {
        let advice = "use https://, or say trace.plain_http = true where the network between is trusted";
        fault("trace.url", "https://, or http:// to this machine", url, advice);
    }
    if config.webhook.listen.is_some() && config.webhook.secret.is_none() {
        let advice =
            "name the secret that MLflow signs its webhooks with, such as webhook.secret = \"env:NAME\"";
        fault("webhook.listen", "no listener without a webhook.secret", "a listener", advice);
    }
    if config.webhook.listen.is_some()
        && config.registry.sources.is_empty()
        && config.registry.allow.is_empty()
    {
        let advice = "name a [[models.source]], or leave webhook.listen out";
        fault("webhook.listen", "no listener without a registry to look at", "a listener", advice);
    }
    if config.ota.listen.is_some() && (config.ota.keys.is_empty() || config.ota.devices_file.is_none()) {
        let advice = "name both: ota.keys = [\"release.pub.pem\"] and ota.devices_file = \"devices\"";
        fault("ota.listen", "no listener without ota.keys and ota.devices_file", "a listener", advice);
    }
}

fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment
        .iter()
        .find(|(known, value)| known == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

/// After the XDG base directory specification, in which a relative path does not count.
fn default_state_dir(environment: &[(String, String)]) -> Option<PathBuf> {
    let absolute = |name| variable(environment, name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("gannet"))
}

#[cfg(test)]
mod tests;
