//! Where a model comes from, as an operator writes it: one URI a source. Parsed once, here; what is accepted is sound.
//! Must not know how anything is fetched.

use std::{fmt, net::IpAddr, path::PathBuf};

use percent_encoding::percent_decode_str;

/// The longest URI.
pub const URI_BYTES_MAX: usize = 2048;

/// A source's URI, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUri {
    /// `file:///path`: a repository, one model's folder, or a model file.
    File(PathBuf),
    /// A tracking server and what is wanted of it. `None`: the server that the source's `endpoint` names.
    Mlflow {
        /// `http(s)://host[:port][/path]`, without a slash at the end.
        base: Option<String>,
        /// What is wanted.
        target: MlflowTarget,
    },
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `dvc+file:///path/model.dvc` or `.../dvc.lock#out`.
    Dvc {
        /// The pointer or lock file.
        pointer: PathBuf,
        /// Which output of several.
        out: Option<String>,
    },
    /// `oci://host[:port]/repository:tag` or `@sha256:...`.
    Oci {
        /// With its port.
        host: String,
        /// Such as `models/iris`.
        repository: String,
        /// A tag or a digest.
        reference: OciReference,
    },
    /// `hf://org/repo@revision`.
    HuggingFace {
        /// `org/repo`.
        repository: String,
        /// A branch, a tag or a commit; `main` where none was named.
        revision: String,
    },
}

/// What is wanted of a tracking server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MlflowTarget {
    /// `model@alias`: whatever the alias points to.
    Alias {
        /// The registered model.
        model: String,
        /// Its alias.
        alias: String,
    },
    /// `model/3`: this version, for ever.
    Version {
        /// The registered model.
        model: String,
        /// Its version.
        version: String,
    },
    /// `model?stage=Production`: the newest version of a stage.
    Stage {
        /// The registered model.
        model: String,
        /// Its stage.
        stage: String,
    },
    /// `model`: the newest versions, as many as the source's `versions` say.
    Latest {
        /// The registered model.
        model: String,
    },
    /// `models:/m-...`: a logged model that needs no registration.
    Logged {
        /// `m-...`.
        id: String,
    },
    /// `runs:/RUN_ID/path`: what a run logged.
    Run {
        /// The run.
        run: String,
        /// The artifact's path, without slashes at its ends.
        path: String,
    },
}

/// A tag, which moves, or a digest, which does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciReference {
    /// A tag.
    Tag(String),
    /// `sha256:...`.
    Digest(String),
}

impl OciReference {
    /// As it stands in the protocol's paths.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(text) | Self::Digest(text) => text,
        }
    }
}

/// The forms that are understood, for messages.
const FORMS: &str = "mlflow+http(s)://host[:port]/model@alias (or /version, or ?stage=), models:/..., runs:/RUN_ID/path, \
                     s3://bucket/prefix, dvc+file:///path/model.dvc, oci://host/repo:tag, hf://org/repo@revision or \
                     file:///path";

impl SourceUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// What was expected, what was got, and what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URI_BYTES_MAX {
            return Err(format!("expected at most {URI_BYTES_MAX} bytes, got {}", text.len()));
        }
        if let Some(bad) = text.chars().find(|c| c.is_control() || *c == '\\') {
            return Err(format!("expected a URI, got one with {bad:?}; write it without"));
        }
        if let Some(rest) = text.strip_prefix("models:/").or_else(|| text.strip_prefix("runs:/")) {
            let target = mlflow_uri(text, rest)?;
            return Ok(Self::Mlflow { base: None, target });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("expected {FORMS}, got {text:?}"));
        };
        refuse_credentials(rest)?;
        match scheme {
            "file" => Ok(Self::File(absolute(rest)?)),
            "mlflow+http" | "mlflow+https" => mlflow(scheme, rest),
            "s3" => s3(rest),
            "dvc+file" => dvc(rest),
            "oci" => oci(rest),
            "hf" => hugging_face(rest),
            "http" | "https" => {
                Err(format!("expected {FORMS}, got {text:?}; a tracking server is written mlflow+{text}"))
            }
            _ => Err(format!("expected {FORMS}, got the scheme {scheme:?}")),
        }
    }

    /// What kind of source it is, for states and messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Mlflow { .. } => "mlflow",
            Self::S3 { .. } => "s3",
            Self::Dvc { .. } => "dvc",
            Self::Oci { .. } => "oci",
            Self::HuggingFace { .. } => "hf",
        }
    }
}

/// Everything before an `@` in the authority would end up in logs and process lists.
fn refuse_credentials(rest: &str) -> Result<(), String> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("expected no user or password in the URI, which is logged and shown; name them with \
                    credentials = \"env:NAME\" or \"file:PATH\""
            .to_owned());
    }
    Ok(())
}

fn mlflow(scheme: &str, rest: &str) -> Result<SourceUri, String> {
    let forms = "expected mlflow+http(s)://host[:port]/model@alias, /model/version, /model?stage=NAME, \
                 /models:/m-... or /runs:/RUN_ID/path";
    let (authority, path) = rest.split_once('/').ok_or_else(|| format!("{forms}, got no model"))?;
    check_authority(authority)?;
    let http = scheme.trim_start_matches("mlflow+");
    let inner = |found: usize| {
        let (before, target) = path.split_at(found);
        (
            before.trim_end_matches('/').to_owned(),
            mlflow_uri(target, target.split_once(":/").map_or("", |p| p.1)),
        )
    };
    let (prefix, target) = match path.find("models:/").or_else(|| path.find("runs:/")) {
        Some(found) => {
            let (prefix, target) = inner(found);
            (prefix, target?)
        }
        None => mlflow_path(path).ok_or_else(|| format!("{forms}, got {path:?}"))?,
    };
    let mut base = format!("{http}://{authority}");
    if !prefix.is_empty() {
        base.extend(["/", &prefix]);
    }
    Ok(SourceUri::Mlflow { base: Some(base), target })
}

/// `[prefix/]model@alias`, `[prefix/]model/3`, `[prefix/]model?stage=X` or `[prefix/]model`.
fn mlflow_path(path: &str) -> Option<(String, MlflowTarget)> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?;
        (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into_owned())
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let (prefix, last) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(query) = query {
        let stage = decoded(query.strip_prefix("stage=")?)?;
        return Some((prefix.to_owned(), MlflowTarget::Stage { model: decoded(last)?, stage }));
    }
    if let Some((model, alias)) = last.rsplit_once('@') {
        let target = MlflowTarget::Alias { model: decoded(model)?, alias: decoded(alias)? };
        return Some((prefix.to_owned(), target));
    }
    let is_version = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    if is_version && !prefix.is_empty() {
        let (prefix, model) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let target = MlflowTarget::Version { model: decoded(model)?, version: last.to_owned() };
        return Some((prefix.to_owned(), target));
    }
    Some((prefix.to_owned(), MlflowTarget::Latest { model: decoded(last)? }))
}

/// `models:/...` and `runs:/...`; `rest` is what comes behind the scheme.
fn mlflow_uri(whole: &str, rest: &str) -> Result<MlflowTarget, String> {
    let bad = || {
        format!(
            "expected models:/m-..., models:/model@alias, models:/model/version or runs:/RUN_ID/path, got {whole:?}"
        )
    };
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if whole.starts_with("runs:/") {
        let (run, path) = rest.trim_matches('/').split_once('/').ok_or_else(bad)?;
        let inside = path.split('/').all(|segment| !segment.is_empty() && segment != "..");
        if !word(run) || run.is_empty() || !inside {
            return Err(bad());
        }
        return Ok(MlflowTarget::Run { run: run.to_owned(), path: path.to_owned() });
    }
    if rest.starts_with("m-") && word(rest) {
        return Ok(MlflowTarget::Logged { id: rest.to_owned() });
    }
    match mlflow_path(rest).ok_or_else(bad)? {
        (prefix, target) if prefix.is_empty() => Ok(target),
        _ => Err(bad()),
    }
}

fn s3(rest: &str) -> Result<SourceUri, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if bucket.len() < 3 || bucket.len() > 63 || !bucket.chars().all(allowed) {
        return Err(format!("expected s3://bucket/prefix, got the bucket {bucket:?}"));
    }
    let prefix = prefix.trim_matches('/');
    if prefix.split('/').any(|segment| segment == ".." || segment == ".") {
        return Err(format!("expected a prefix without '.' and '..', got {prefix:?}"));
    }
    Ok(SourceUri::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn dvc(rest: &str) -> Result<SourceUri, String> {
    let (path, out) = rest.split_once('#').map_or((rest, None), |(path, out)| (path, Some(out.to_owned())));
    let pointer = absolute(path)?;
    let name = pointer.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name != "dvc.lock" && !name.ends_with(".dvc") {
        return Err(format!("expected a file that ends in .dvc, or dvc.lock, got {name:?}"));
    }
    Ok(SourceUri::Dvc { pointer, out })
}

fn oci(rest: &str) -> Result<SourceUri, String> {
    let forms = "expected oci://host[:port]/repository:tag or @sha256:DIGEST";
    let (host, path) = rest.split_once('/').ok_or_else(|| format!("{forms}, got {rest:?}"))?;
    check_authority(host)?;
    let (repository, reference) = if let Some((repository, digest)) = path.split_once('@') {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("{forms}, got the digest {digest:?}"));
        }
        (repository, OciReference::Digest(digest.to_owned()))
    } else {
        let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_empty() || tag.len() > 128 || !tag.chars().all(allowed) {
            return Err(format!("{forms}, got the tag {tag:?}"));
        }
        (repository, OciReference::Tag(tag.to_owned()))
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let sound = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_alphanumeric()) && segment.chars().all(allowed)
    };
    if repository.len() > 255 || !repository.split('/').all(sound) {
        return Err(format!("{forms}, got the repository {repository:?}"));
    }
    Ok(SourceUri::Oci { host: host.to_owned(), repository: repository.to_owned(), reference })
}

fn hugging_face(rest: &str) -> Result<SourceUri, String> {
    let forms = "expected hf://org/repo@revision";
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let sound =
        |segment: &str| !segment.is_empty() && !segment.starts_with('.') && segment.chars().all(allowed);
    if repository.split('/').count() != 2 || !repository.split('/').all(sound) {
        return Err(format!("{forms}, got the repository {repository:?}"));
    }
    if revision.is_empty() || !revision.split('/').all(sound) {
        return Err(format!("{forms}, got the revision {revision:?}"));
    }
    Ok(SourceUri::HuggingFace { repository: repository.to_owned(), revision: revision.to_owned() })
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "expected a path in UTF-8".to_owned())?;
    let path = PathBuf::from(&*text);
    if !path.is_absolute() {
        return Err(format!("expected an absolute path, as in file:///srv/models, got {text:?}"));
    }
    Ok(path)
}

/// `host`, `host:port`, `[::1]:port`.
fn check_authority(authority: &str) -> Result<(), String> {
    let url = format!("http://{authority}/");
    let sound = url::Url::parse(&url).is_ok_and(|url| url.has_host() && url.username().is_empty());
    if sound { Ok(()) } else { Err(format!("expected host[:port], got {authority:?}")) }
}

/// Whether a host of a URL is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for anything, also for nothing.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.len() >= end.len() && text.ends_with(end)
}

impl fmt::Display for MlflowTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias { model, alias } => write!(f, "{model}@{alias}"),
            Self::Version { model, version } => write!(f, "{model}/{version}"),
            Self::Stage { model, stage } => write!(f, "{model}?stage={stage}"),
            Self::Latest { model } => f.write_str(model),
            Self::Logged { id } => write!(f, "models:/{id}"),
            Self::Run { run, path } => write!(f, "runs:/{run}/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mlflow(text: &str) -> (Option<String>, String) {
        match SourceUri::parse(text).unwrap() {
            SourceUri::Mlflow { base, target } => (base, target.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tracking_servers_are_understood() {
        let check = |text: &str, base: Option<&str>, target: &str| {
            assert_eq!(mlflow(text), (base.map(str::to_owned), target.to_owned()), "{text}");
        };
        check("mlflow+http://h:5000/iris@champion", Some("http://h:5000"), "iris@champion");
        check("mlflow+https://h/team/iris@a", Some("https://h/team"), "iris@a");
        check("mlflow+http://h/iris/3", Some("http://h"), "iris/3");
        check("mlflow+http://h/iris", Some("http://h"), "iris");
        check("mlflow+http://h/iris?stage=Production", Some("http://h"), "iris?stage=Production");
        check("mlflow+http://h/a%20b%2Fc@x", Some("http://h"), "a b/c@x");
        check("mlflow+http://h/models:/m-0f", Some("http://h"), "models:/m-0f");
        check("models:/m-0f", None, "models:/m-0f");
        check("models:/iris@x", None, "iris@x");
        check("models:/iris/7", None, "iris/7");
        check("runs:/ab12/model/deep", None, "runs:/ab12/model/deep");
    }

    #[test]
    fn other_sources_are_understood() {
        let parse = |text: &str| SourceUri::parse(text).unwrap();
        let s3 = |bucket: &str, prefix: &str| SourceUri::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(parse("s3://models/a/b/"), s3("models", "a/b"));
        assert_eq!(parse("s3://models"), s3("models", ""));
        assert_eq!(parse("file:///srv/m%20x"), SourceUri::File("/srv/m x".into()));
        let dvc = SourceUri::Dvc { pointer: "/r/dvc.lock".into(), out: Some("models/out.onnx".into()) };
        assert_eq!(parse("dvc+file:///r/dvc.lock#models/out.onnx"), dvc);
        let SourceUri::Oci { host, repository, reference } = parse("oci://127.0.0.1:5000/models/iris:v1")
        else {
            panic!("an OCI source")
        };
        assert_eq!((&*host, &*repository, reference.as_str()), ("127.0.0.1:5000", "models/iris", "v1"));
        let hf = SourceUri::HuggingFace { repository: "org/iris".into(), revision: "main".into() };
        assert_eq!(parse("hf://org/iris"), hf);
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for (bad, part) in [
            ("iris", "expected mlflow+http"),
            ("http://h/iris@x", "mlflow+http://h/iris@x"),
            ("mlflow+http://user:pass@h/iris@x", "credentials = "),
            ("s3://key:secret@bucket/x", "credentials = "),
            ("mlflow+http://h", "no model"),
            ("mlflow+http://h/iris@", "got"),
            ("mlflow+http://h/iris?x=1", "got"),
            ("s3://b/x", "bucket"),
            ("s3://models/../x", "'..'"),
            ("file://relative", "absolute"),
            ("dvc+file:///a/b.txt", ".dvc"),
            ("oci://h/Upper:v1", "repository"),
            ("oci://h/a@sha256:12", "digest"),
            ("oci://h/../x:v1", "repository"),
            ("hf://org", "repository"),
            ("hf://org/repo@../x", "revision"),
            ("runs:/ab/../x", "expected"),
            ("ftp://h/x", "scheme"),
        ] {
            let message = SourceUri::parse(bad).expect_err(bad);
            assert!(message.contains(part), "{bad}: {message}");
        }
    }

    #[test]
    fn patterns_fit() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("s3://models/*", "s3://models/a/b", true),
            ("s3://models/*", "s3://others/a", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c", false),
            ("a*a", "a", false),
            ("iris", "iris", true),
            ("iris", "iris2", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
