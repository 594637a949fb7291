//! The keys of what is watched and kept of requests: drift, capturing, redaction. Must not know what the values are used
//! for.

use gannet_runtime::capture::ChosenBy;
use serde_json::json;

use super::{
    super::{Credentials, Root, capture, drift, trace},
    BYTES, Key, MS_POSITIVE, ms, positive_ms, size,
};

pub(super) const KEYS: &[Key] = &[
    key!(
        "capture.root",
        "where captured requests and answers are kept, as tables; nothing is captured without",
        "a folder, or s3://BUCKET/PREFIX",
        |c, g| c.capture.root = Some(Root::parse(g.text()?)?),
        c.capture.root.as_ref().map(ToString::to_string)
    ),
    key!(
        "capture.rate",
        "share of a model's requests that is captured; off: only of models whose settings name one",
        "a share from 0 to 1, or off",
        |c, g| c.capture.tap.rate = drift::share(g)?,
        c.capture.tap.rate
    ),
    key!(
        "capture.by",
        "how they are chosen: id (the same id everywhere or nowhere) or chance",
        "id or chance",
        |c, g| c.capture.tap.by = capture::chosen_by(g)?,
        match c.capture.tap.by {
            ChosenBy::Id => "id",
            ChosenBy::Chance => "chance",
        }
    ),
    key!(
        "capture.queue_bytes",
        "bytes of requests and answers that wait to be written; what comes then is dropped and counted",
        BYTES,
        |c, g| c.capture.tap.bytes_max = size(g)?,
        c.capture.tap.bytes_max
    ),
    key!(
        "capture.flush_ms",
        "time after which waiting rows are written: what a crash can lose",
        MS_POSITIVE,
        |c, g| c.capture.flush = positive_ms(g)?,
        ms(c.capture.flush)
    ),
    key!(
        "capture.file_bytes",
        "bytes of a table's waiting rows after which they are written before that",
        BYTES,
        |c, g| c.capture.file_bytes = g.bytes()?,
        c.capture.file_bytes
    ),
    key!(
        "capture.retention_days",
        "days that rows are kept; 0: for ever",
        "a number of days",
        |c, g| c.capture.retention_days = Some(drift::days_or_none(g)?).filter(|days| *days > 0.0),
        c.capture.retention_days
    ),
    key!(
        "capture.bytes_max",
        "bytes of all tables together; beyond them rows are dropped and counted",
        BYTES,
        |c, g| c.capture.bytes_max = g.bytes()?,
        c.capture.bytes_max
    ),
    key!(
        "capture.endpoint",
        "an object store other than Amazon's",
        "https://HOST:PORT, or http:// to this machine",
        |c, g| c.capture.endpoint = Some(drift::url(g)?),
        c.capture.endpoint
    ),
    key!(
        "capture.credentials",
        "what it is told, as ACCESS_KEY:SECRET_KEY",
        "env:NAME or file:PATH",
        |c, g| c.capture.credentials = Some(Credentials::parse(g.text()?)?),
        c.capture.credentials.as_ref().map(ToString::to_string)
    ),
    key!(
        "capture.events_url",
        "where captured requests and answers are sent too, as CloudEvents in the format of KServe's logger",
        "https://..., or http:// to this machine",
        |c, g| c.capture.events_url = Some(drift::url(g)?),
        c.capture.events_url
    ),
    key!(
        "capture.events_secret",
        "what they are signed with",
        "env:NAME or file:PATH",
        |c, g| c.capture.events_secret = Some(Credentials::parse(g.text()?)?),
        c.capture.events_secret.as_ref().map(ToString::to_string)
    ),
    key!(
        "redaction.key",
        "what values are hashed with where a model's redaction says \"hash\"; 16 bytes or more",
        "env:NAME or file:PATH",
        |c, g| c.capture.redaction_key = Some(Credentials::parse(g.text()?)?),
        c.capture.redaction_key.as_ref().map(ToString::to_string)
    ),
    key!(
        "trace.url",
        "the collector that spans of traced requests are sent to, OTLP over HTTP; nothing is traced without",
        "https://HOST:PORT[/PATH] or http://...",
        |c, g| c.trace.url = Some(trace::url(g)?),
        c.trace.url
    ),
    key!(
        "trace.rate",
        "share traced of the requests whose callers say nothing of a trace (traceparent); of the others, what they say",
        "a share from 0 to 1, or off",
        |c, g| c.trace.rate = drift::share(g)?,
        c.trace.rate
    ),
    key!(
        "trace.service_name",
        "what this service is called in traces",
        "a text",
        |c, g| c.trace.service_name = g.text().filter(|text| !text.is_empty())?.to_owned(),
        c.trace.service_name
    ),
    key!(
        "trace.credentials",
        "what the collector is told: a bearer token, or the header's whole value",
        "env:NAME or file:PATH",
        |c, g| c.trace.credentials = Some(Credentials::parse(g.text()?)?),
        c.trace.credentials.as_ref().map(ToString::to_string)
    ),
    key!(
        "trace.plain_http",
        "tell a collector on another machine without TLS",
        "true or false",
        |c, g| c.trace.plain_http = g.boolean()?,
        c.trace.plain_http
    ),
    key!(
        "drift.rate",
        "share of a model's requests that is looked at for drift; off: only of models whose settings name one",
        "a share from 0 to 1, or off",
        |c, g| c.drift.watch.rate = drift::share(g)?,
        c.drift.watch.rate
    ),
    key!(
        "drift.cpu_ratio_max",
        "share of a core that looking takes; less is sampled before it takes more",
        "a share from 0 to 1",
        |c, g| c.drift.watch.cpu_ratio_max = drift::share(g)?,
        c.drift.watch.cpu_ratio_max
    ),
    key!(
        "drift.budget_days",
        "days with one false alarm among them, all models and features together",
        "a number above 0",
        |c, g| c.drift.watch.budget_days = drift::days(g)?,
        c.drift.watch.budget_days
    ),
    key!(
        "drift.window_rows",
        "rows after which a window ends",
        "a whole number of 500 or more",
        |c, g| c.drift.watch.window_rows = g.number().filter(|rows| *rows >= 500)?,
        c.drift.watch.window_rows
    ),
    key!(
        "drift.window_ms",
        "time after which it ends with fewer rows, of at least 500",
        MS_POSITIVE,
        |c, g| c.drift.watch.window_ms = ms(positive_ms(g)?),
        c.drift.watch.window_ms
    ),
    key!(
        "drift.webhook_url",
        "where alarms are sent as CloudEvents",
        "https://..., or http:// to this machine",
        |c, g| c.drift.webhook_url = Some(drift::url(g)?),
        c.drift.webhook_url
    ),
    key!(
        "drift.webhook_secret",
        "what they are signed with",
        "env:NAME or file:PATH",
        |c, g| c.drift.webhook_secret = Some(Credentials::parse(g.text()?)?),
        c.drift.webhook_secret.as_ref().map(ToString::to_string)
    ),
];
