//! `gannet registry status`, `gannet pull`, `gannet push`, and `gannet package sign|verify`: registries and packages
//! from the command line. Must not know how any registry is spoken to.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use gannet_models::{ModelName, Version, settings::VersionPolicy};
use gannet_registry::{
    FetchLimits, IngestLimits, SourceSpec, SourceUri, Trust, TrustMode, TrustRule,
    pull::{self as pulling, PullOptions},
    push as pushing,
    sign::{self, PublicKey, SIGNATURE_FILE},
};
use serde_json::Value;

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, client, say, table};
use crate::{
    config::{Credentials, SourceConfig},
    sources,
    token::read_tokens,
};

#[derive(Debug, Subcommand)]
pub(super) enum RegistryCommand {
    /// Ask a running server how the sources that it follows fare
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Where the server's admin API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8003")]
    admin: String,
    /// A file whose first token is sent, for servers that want one
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Print the server's JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What `pull` and `push` say of the registry.
#[derive(Debug, Default, Args)]
pub(super) struct RemoteArgs {
    /// Credentials: env:NAME or file:PATH of USER:PASSWORD, KEY:SECRET or a token
    #[arg(long, value_name = "WHERE")]
    credentials: Option<String>,
    /// An object store, tracking server or hub that the URI does not name
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Allow http:// to other machines
    #[arg(long)]
    plain_http: bool,
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Such as mlflow+http://host:5000/iris@champion, s3://bucket/prefix or oci://host/repo:tag
    #[arg(value_name = "URI")]
    uri: String,
    /// The repository that models are put into, as MODEL/VERSION/
    #[arg(value_name = "DIR", default_value = "models")]
    into: PathBuf,
    /// The model's name here [default: as the URI names it]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Which versions, where the URI leaves it open: latest:N or all
    #[arg(long, value_name = "VERSIONS", default_value = "latest:1")]
    versions: String,
    /// A public key that must have signed every package
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Note the digest down in MLflow, which keeps none: whoever fetches other bytes later refuses them
    #[arg(long)]
    seal: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The files of one version: model.onnx and what belongs to it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where to: s3://bucket/prefix/MODEL/VERSION, oci://host/repo:tag, mlflow+http://host/model[@alias] or file:///PATH
    #[arg(value_name = "URI")]
    uri: String,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum PackageCommand {
    /// Sign every file of a version, after OpenSSF Model Signing; writes model.sig beside them
    Sign(SignArgs),
    /// Check that a key signed exactly the files of a version
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The files of one version
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The model's name, which is signed too
    #[arg(long, value_name = "NAME")]
    model: ModelName,
    /// The version's name, which is signed too
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// A private key (P-256, PEM), such as openssl ecparam -name prime256v1 -genkey -noout makes
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The files of one version
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The public key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The name that must have been signed
    #[arg(long, value_name = "NAME", requires = "version")]
    model: Option<ModelName>,
    /// The version that must have been signed
    #[arg(long, value_name = "VERSION", requires = "model")]
    version: Option<Version>,
}

pub(super) fn run_registry(command: &RegistryCommand) -> u8 {
    let RegistryCommand::Status(args) = command;
    let token = match args.admin_token_file.as_ref().map(|path| read_tokens(path)).transpose() {
        Ok(tokens) => tokens.and_then(|tokens| tokens.into_iter().next()),
        Err(error) => {
            eprintln!("--admin-token-file: {error}");
            return EXIT_USAGE;
        }
    };
    let answer = match client::get(&args.admin, "/admin/v1/registry", token.as_deref()) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("{error}");
            return if matches!(error, client::ClientError::Url(_)) { EXIT_USAGE } else { EXIT_UNAVAILABLE };
        }
    };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        eprintln!(
            "{} answered {}: {}",
            args.admin,
            answer.status,
            body["error"].as_str().unwrap_or("no reason")
        );
        return EXIT_REFUSED;
    }
    if args.json {
        say(format_args!("{body:#}"))
    } else {
        say(status(&body).trim_end())
    }
    EXIT_OK
}

/// The sources as a table, and what is wrong below it.
fn status(body: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for source in list(body) {
        let name = word(&source["name"]);
        let aspired = list(&source["aspired"]);
        let models = aspired.iter().take(5).map(|one| {
            let versions: Vec<String> = list(&one["versions"]).iter().map(word).collect();
            format!("{} {}", word(&one["model"]), versions.join(","))
        });
        let mut models: Vec<String> = models.collect();
        if aspired.len() > 5 {
            models.push(format!("and {} more", aspired.len() - 5));
        }
        rows.push(vec![name.clone(), word(&source["state"]), word(&source["uri"]), models.join("; ")]);
        notes.extend(source["last_error"].as_str().map(|why| format!("{name}: {why}")));
        notes.extend(list(&source["problems"]).iter().map(|why| format!("{name}: {}", word(why))));
        for one in &aspired {
            notes.extend(
                list(&one["problems"]).iter().map(|why| format!("{}: {}", word(&one["model"]), word(why))),
            );
        }
    }
    let mut page = match rows.is_empty() {
        true => "no sources\n".to_owned(),
        false => table::render(&["source", "state", "uri", "serves"], &rows),
    };
    for note in notes {
        page.push_str(&format!("! {}\n", note.replace('\n', "\n  ")));
    }
    page
}

/// A source out of flags.
fn spec(uri: &str, name: Option<&str>, remote: &RemoteArgs) -> Result<SourceSpec, String> {
    let parsed = SourceUri::parse(uri)?;
    let name = name.map_or_else(|| named(&parsed), str::to_owned);
    let name = ModelName::new(&name).map_err(|error| format!("--name: {error}"))?;
    let mut source = SourceConfig::new(name, uri);
    source.endpoint.clone_from(&remote.endpoint);
    source.plain_http = remote.plain_http;
    if let Some(text) = &remote.credentials {
        let credentials = Credentials::parse(text);
        source.credentials = Some(
            credentials
                .ok_or_else(|| format!("--credentials: expected env:NAME or file:PATH, got {text:?}"))?,
        );
    }
    sources::spec(&source)
}

/// The model's name, as a URI tells it.
fn named(uri: &SourceUri) -> String {
    use gannet_registry::uri::MlflowTarget::{Alias, Latest, Logged, Run, Stage, Version};
    let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let name = match uri {
        SourceUri::Mlflow { target, .. } => match target {
            Alias { model, .. } | Version { model, .. } | Stage { model, .. } | Latest { model } => {
                model.clone()
            }
            Logged { id } => id.clone(),
            Run { path, .. } => last(path),
        },
        SourceUri::S3 { bucket, prefix } => {
            // of MODEL/VERSION the model
            let mut parts = prefix.rsplit('/').filter(|part| !part.is_empty());
            let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
            parts.find(|part| !is_number(part)).unwrap_or(bucket).to_owned()
        }
        SourceUri::Dvc { pointer, .. } => pointer
            .file_name()
            .map_or(String::new(), |name| name.to_string_lossy().trim_end_matches(".dvc").to_owned()),
        SourceUri::Oci { repository, .. } | SourceUri::HuggingFace { repository, .. } => last(repository),
        SourceUri::File(path) => {
            path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
        }
    };
    name.trim_end_matches(".onnx").to_owned()
}

pub(super) fn run_pull(args: &PullArgs) -> u8 {
    let ready = || -> Result<(SourceSpec, Trust), String> {
        let mut spec = spec(&args.uri, args.name.as_deref(), &args.remote)?;
        spec.versions = match args.versions.as_str() {
            "all" => VersionPolicy::All,
            text => {
                let count = text.strip_prefix("latest:").and_then(|count| count.parse().ok());
                let count: usize =
                    count.ok_or_else(|| format!("--versions: expected latest:N or all, got {text:?}"))?;
                VersionPolicy::Latest(count)
            }
        };
        let rules = match &args.key {
            None => Vec::new(),
            Some(path) => {
                let keys = vec![public_key(path)?];
                vec![TrustRule { models: "*".into(), keys, mode: TrustMode::Require }]
            }
        };
        Ok((spec, Trust::new(rules)))
    };
    let (spec, trust) = match ready() {
        Ok(ready) => ready,
        Err(why) => {
            eprintln!("{why}");
            return EXIT_USAGE;
        }
    };
    let shows = std::io::stderr().is_terminal();
    let tell = |model: &ModelName, version: &Version, step: pulling::Step| {
        if shows {
            let (done, all) = (step.bytes_done >> 10, step.bytes >> 10);
            let _ = write!(std::io::stderr(), "\r{model} {version}: {done} of {all} KiB ");
        }
    };
    let options = PullOptions { limits: FetchLimits::default(), trust, seal: args.seal };
    match pulling::pull(&spec, &args.into, options, &tell) {
        Ok(pulled) => {
            if shows {
                eprintln!();
            }
            for one in pulled {
                let sealed = if one.sealed { " (sealed)" } else { "" };
                say(format_args!(
                    "{} {} {} {}{sealed}",
                    one.model,
                    one.version,
                    one.digest,
                    one.path.display()
                ));
            }
            EXIT_OK
        }
        Err(error) => {
            eprintln!("{error}");
            EXIT_REFUSED
        }
    }
}

/// Brings the newest version that a URI names into a folder; the version's own.
///
/// # Errors
/// A text: what cannot be had.
pub(super) fn pull_one(uri: &str, into: &Path) -> Result<PathBuf, String> {
    let mut spec = spec(uri, None, &RemoteArgs::default())?;
    spec.versions = VersionPolicy::Latest(1);
    let pulled = pulling::pull(&spec, into, PullOptions::default(), &|_, _, _| ());
    let pulled = pulled.map_err(|error| error.to_string())?;
    let one = pulled.into_iter().next().ok_or_else(|| format!("{uri}: expected a version, got none"))?;
    Ok(one.path)
}

pub(super) fn run_push(args: &PushArgs) -> u8 {
    let spec = match spec(&args.uri, None, &args.remote) {
        Ok(spec) => spec,
        Err(why) => {
            eprintln!("{why}");
            return EXIT_USAGE;
        }
    };
    match pushing::push(&args.dir, &spec, &IngestLimits::default()) {
        Ok(pushed) => {
            let was = if pushed.was_there { " (was there already)" } else { "" };
            say(format_args!(
                "{} {} {} files, {} bytes{was}",
                pushed.uri, pushed.digest, pushed.files, pushed.bytes
            ));
            EXIT_OK
        }
        Err(error) => {
            eprintln!("{error}");
            EXIT_REFUSED
        }
    }
}

pub(super) fn run_package(command: &PackageCommand) -> u8 {
    let result = match command {
        PackageCommand::Sign(args) => sign_package(args),
        PackageCommand::Verify(args) => verify_package(args),
    };
    match result {
        Ok(text) => {
            say(text);
            EXIT_OK
        }
        Err(why) => {
            eprintln!("{why}");
            EXIT_REFUSED
        }
    }
}

fn sign_package(args: &SignArgs) -> Result<String, String> {
    let key =
        fs::read_to_string(&args.key).map_err(|error| format!("--key {}: {error}", args.key.display()))?;
    let subject = sign::subject(&args.model, &args.version);
    let signature = sign::sign(&args.dir, &subject, &key)?;
    let path = args.dir.join(SIGNATURE_FILE);
    fs::write(&path, signature).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(format!("{}: signed as {subject}", path.display()))
}

fn verify_package(args: &VerifyArgs) -> Result<String, String> {
    let signed = sign::verify(&args.dir, &[public_key(&args.key)?])?;
    if let (Some(model), Some(version)) = (&args.model, &args.version) {
        let expected = sign::subject(model, version);
        if signed != expected {
            return Err(format!("expected a signature of '{expected}', got one of '{signed}'"));
        }
    }
    Ok(format!("{}: the signature of {signed} is valid", args.dir.display()))
}

fn public_key(path: &Path) -> Result<PublicKey, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("--key {}: {error}", path.display()))?;
    PublicKey::from_pem(&text).map_err(|why| format!("--key {}: {why}", path.display()))
}
