//! `[[models.source]]` and `[[trust]]`: registries to follow and whose signatures are wanted on what comes from them.
//! Every fault is reported with its line. Must not know how a registry is followed.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use gannet_models::{ModelName, Version, settings::VersionPolicy};
use gannet_registry::{FetchLimits, OnAliasMove, SourceUri, TrustMode};

use super::{
    Fault, Given,
    address::Address,
    toml_file::{Entry, TableEntry},
};

/// The lists of tables that this module reads.
pub(super) const LISTS: [&str; 2] = ["models.source", "trust"];

/// Sources and rules, at most.
const TABLES_MAX: usize = 1000;
/// The longest time between two looks.
const POLL_S_MAX: u64 = 86_400;

/// Registries that are followed, and what may come from them.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// The registries.
    pub sources: Vec<SourceConfig>,
    /// Whose signatures are wanted; the first that fits a model decides.
    pub trust: Vec<TrustConfig>,
    /// URIs that sources added while the server runs may have.
    pub allow: Vec<String>,
    /// Bounds of what is fetched.
    pub limits: FetchLimits,
    /// What this server is called in tags; empty: the host's name.
    pub server_name: String,
}

/// One registry.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Its name, and the model's where it names one model.
    pub name: ModelName,
    /// As it was written; it holds no credentials.
    pub uri: String,
    /// Time between two looks.
    pub poll: Duration,
    /// Which versions, where the URI leaves it open.
    pub versions: VersionPolicy,
    /// What a moved alias does.
    pub on_alias_move: OnAliasMove,
    /// Public keys of which one must have signed the model of this name.
    pub trust: Vec<PathBuf>,
    /// What to tell the registry of us.
    pub credentials: Option<Credentials>,
    /// An object store, tracking server or hub that the URI does not name.
    pub endpoint: Option<String>,
    /// Whether other machines may be asked without TLS.
    pub plain_http: bool,
    /// A folder of golden requests that every version must pass.
    pub golden: Option<PathBuf>,
    /// A folder that artifacts may be read from directly.
    pub artifacts_dir: Option<PathBuf>,
}

/// One rule about signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustConfig {
    /// Names of models, `*` for anything.
    pub models: String,
    /// Files of public keys.
    pub keys: Vec<PathBuf>,
    /// What they are for.
    pub mode: TrustMode,
}

/// Who may tell of changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookConfig {
    /// Where.
    pub listen: Option<Address>,
    /// Signed with what.
    pub secret: Option<Credentials>,
}

/// Where a secret is; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// An environment variable.
    Env(String),
    /// A file, read anew each time.
    File(PathBuf),
}

impl Credentials {
    /// Reads `env:NAME` or `file:PATH`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("env:") {
            let sound = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return sound.then(|| Self::Env(name.to_owned()));
        }
        text.strip_prefix("file:").filter(|path| !path.is_empty()).map(|path| Self::File(path.into()))
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl SourceConfig {
    /// A source with nothing but a name and a URI.
    #[must_use]
    pub fn new(name: ModelName, uri: &str) -> Self {
        Self {
            name,
            uri: uri.to_owned(),
            poll: Duration::from_secs(30),
            versions: VersionPolicy::Latest(1),
            on_alias_move: OnAliasMove::Swap,
            trust: Vec::new(),
            credentials: None,
            endpoint: None,
            plain_http: false,
            golden: None,
            artifacts_dir: None,
        }
    }
}

/// One table and the file that it stands in.
pub(super) struct Table {
    pub(super) file: String,
    pub(super) table: TableEntry,
}

/// Reads every table into the configuration.
pub(super) fn read(config: &mut RegistryConfig, tables: &[Table], faults: &mut Vec<Fault>) {
    let mut names = BTreeSet::new();
    for Table { file, table } in tables.iter().take(TABLES_MAX) {
        let mut reader = Reader { file, list: &table.list, line: table.line, faults };
        if table.list == "trust" {
            config.trust.extend(trust(&mut reader, &table.entries));
        } else if let Some(source) = source(&mut reader, &table.entries) {
            if !names.insert(source.name.clone()) {
                reader.fault("name", "each name once", &source.name.to_string());
            }
            config.sources.push(source);
        }
    }
    if tables.len() > TABLES_MAX {
        faults.push(Fault::new(
            &tables[0].file,
            "",
            format!("at most {TABLES_MAX} tables"),
            tables.len().to_string(),
        ));
    }
}

struct Reader<'a> {
    file: &'a str,
    list: &'a str,
    line: usize,
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, key: &str, expected: &str, got: &str) {
        let source = format!("{}:{}", self.file, self.line);
        self.faults.push(Fault::new(&source, &format!("{}.{key}", self.list), expected, got));
    }

    fn missing(&mut self, key: &str, expected: &str) {
        self.fault(key, expected, "nothing");
    }
}

fn source(reader: &mut Reader<'_>, entries: &[Entry]) -> Option<SourceConfig> {
    let before = reader.faults.len();
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).and_then(|entry| entry.given.text());
    let (Some(name), Some(uri)) = (find("name"), find("uri")) else {
        reader.missing("name", "a name and a uri");
        return None;
    };
    let Ok(name) = ModelName::new(name) else {
        reader.fault("name", "a name of letters, digits and any of . _ - + @ =", name);
        return None;
    };
    if let Err(why) = SourceUri::parse(uri) {
        reader.faults.push(Fault::new(
            &format!("{}:{}", reader.file, reader.line),
            "models.source.uri",
            why,
            "that",
        ));
        return None;
    }
    let mut source = SourceConfig::new(name, uri);
    for Entry { key, given, line } in entries {
        let set: Option<()> = set(&mut source, key, given);
        if set.is_none() {
            reader.line = *line;
            reader.fault(key, expected(key), &given.to_string());
        }
    }
    (reader.faults.len() == before).then_some(source)
}

/// What may stand behind a key of a source.
fn expected(key: &str) -> &'static str {
    match key {
        "poll_s" => "seconds from 1 to 86400",
        "versions" => "\"latest:2\", \"all\", or a list of versions",
        "on_alias_move" => "swap or rollout",
        "trust" => "files of public keys: a list",
        "credentials" => "env:NAME or file:PATH",
        "endpoint" => "http(s)://host[:port], without user or password",
        "plain_http" => "true or false",
        "golden" | "artifacts_dir" => "a path",
        _ => {
            "one of the keys name, uri, poll_s, versions, on_alias_move, trust, credentials, endpoint, plain_http, \
             golden, artifacts_dir"
        }
    }
}

fn set(source: &mut SourceConfig, key: &str, given: &Given) -> Option<()> {
    let path = || given.text().filter(|text| !text.is_empty()).map(PathBuf::from);
    match key {
        "name" | "uri" => {}
        "poll_s" => {
            source.poll = Duration::from_secs(given.number().filter(|s| (1..=POLL_S_MAX).contains(s))?);
        }
        "versions" => source.versions = versions(given)?,
        "on_alias_move" => {
            source.on_alias_move = match given.text()? {
                "swap" => OnAliasMove::Swap,
                "rollout" => OnAliasMove::Rollout,
                _ => return None,
            }
        }
        "trust" => source.trust = given.list()?.into_iter().map(PathBuf::from).collect(),
        "credentials" => source.credentials = Some(Credentials::parse(given.text()?)?),
        "endpoint" => source.endpoint = Some(endpoint(given.text()?)?),
        "plain_http" => {
            source.plain_http = match given {
                Given::Other(text) => text.parse().ok()?,
                _ => return None,
            }
        }
        "golden" => source.golden = Some(path()?),
        "artifacts_dir" => source.artifacts_dir = Some(path()?),
        _ => return None,
    }
    Some(())
}

/// An address without credentials.
fn endpoint(text: &str) -> Option<String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    (!rest.is_empty() && !rest.split('/').next()?.contains('@')).then(|| text.to_owned())
}

fn versions(given: &Given) -> Option<VersionPolicy> {
    if let Given::List(list) = given {
        return list
            .iter()
            .map(|text| Version::new(text).ok())
            .collect::<Option<_>>()
            .map(VersionPolicy::Specific);
    }
    match given.text()? {
        "all" => Some(VersionPolicy::All),
        text => {
            let count =
                text.strip_prefix("latest:")?.trim().parse().ok().filter(|&count: &usize| count > 0)?;
            Some(VersionPolicy::Latest(count))
        }
    }
}

fn trust(reader: &mut Reader<'_>, entries: &[Entry]) -> Option<TrustConfig> {
    let before = reader.faults.len();
    let (mut models, mut keys, mut mode) = ("*".to_owned(), Vec::new(), None);
    for Entry { key, given, line } in entries {
        reader.line = *line;
        match (key.as_str(), given.text(), given.list()) {
            ("models", Some(text), _) => text.clone_into(&mut models),
            ("keys", _, Some(list)) => keys = list.into_iter().map(PathBuf::from).collect(),
            ("mode", Some("off"), _) => mode = Some(TrustMode::Off),
            ("mode", Some("warn"), _) => mode = Some(TrustMode::Warn),
            ("mode", Some("require"), _) => mode = Some(TrustMode::Require),
            ("mode", ..) => reader.fault(key, "off, warn or require", &given.to_string()),
            _ => reader.fault(
                key,
                "models = \"NAME*\", keys = [PATHS] or mode = \"off|warn|require\"",
                &given.to_string(),
            ),
        }
    }
    // whoever names keys wants them to count
    let mode = mode.unwrap_or(if keys.is_empty() { TrustMode::Off } else { TrustMode::Require });
    if keys.is_empty() && mode != TrustMode::Off {
        reader.missing("keys", "files of public keys, without which nothing can be trusted");
    }
    (reader.faults.len() == before).then_some(TrustConfig { models, keys, mode })
}

#[cfg(test)]
mod tests {
    use super::super::{FileText, Sources, compose};
    use super::*;

    fn composed(text: &str) -> Result<super::super::Config, String> {
        let file = Some(FileText { path: "gannet.toml".into(), text: text.into() });
        let environment = vec![("HOME".to_owned(), "/home/a".to_owned())];
        compose(&Sources { file, environment, ..Sources::default() }).map_err(|faults| faults.to_string())
    }

    #[test]
    fn sources_and_rules_are_read() {
        let text = r#"
[[models.source]]
name = "iris"
uri = "mlflow+http://127.0.0.1:5000/iris@champion"
poll_s = 5
on_alias_move = "rollout"
credentials = "env:MLFLOW_LOGIN"

[[models.source]]
name = "store"
uri = "s3://models/prod"
versions = "latest:2"
endpoint = "http://127.0.0.1:9000"
plain_http = true

[[trust]]
models = "iris*"
keys = ["/etc/gannet/key.pub"]

[registry]
allow = ["s3://models/*"]
max_package_bytes = "1GiB"
"#;
        let config = composed(text).unwrap();
        let [iris, store] = &config.registry.sources[..] else { panic!("two sources") };
        assert_eq!((iris.poll, iris.on_alias_move), (Duration::from_secs(5), OnAliasMove::Rollout));
        assert_eq!(iris.credentials, Some(Credentials::Env("MLFLOW_LOGIN".into())));
        assert_eq!((&store.versions, store.plain_http), (&VersionPolicy::Latest(2), true));
        assert_eq!(config.registry.trust[0].mode, TrustMode::Require);
        assert_eq!(config.registry.limits.package.bytes_max, 1 << 30);
        // the models that come with the server are not served beside a registry unless named
        assert!(config.repository.paths.is_empty());
        let with_paths = format!("repository.paths = [\"models\"]\n{text}");
        assert_eq!(composed(&with_paths).unwrap().repository.paths.len(), 1);
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let text = r#"
[[models.source]]
name = "a"
uri = "mlflow+http://user:secret@h/iris@x"

[[models.source]]
name = "b"
uri = "s3://models/x"
poll_s = 0
credentials = "hunter2"
colour = "blue"

[[models.source]]
uri = "s3://models/y"

[[trust]]
mode = "require"

[webhook]
listen = "127.0.0.1:9"
"#;
        let message = composed(text).unwrap_err();
        for part in [
            "gannet.toml:2: models.source.uri: expected expected no user or password",
            "gannet.toml:9: models.source.poll_s: expected seconds from 1 to 86400, got 0",
            "gannet.toml:10: models.source.credentials",
            "gannet.toml:11: models.source.colour: expected one of the keys name",
            "gannet.toml:13: models.source.name: expected a name and a uri, got nothing",
            "trust.keys: expected files of public keys",
            "webhook.listen: expected no listener without a webhook.secret",
        ] {
            assert!(message.contains(part), "{part} is missing in\n{message}");
        }
        assert!(!message.contains("user:secret"), "{message}");
    }
}
