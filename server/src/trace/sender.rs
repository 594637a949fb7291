//! Brings spans to a collector: together, bounded in bytes, tries and time, and never so that a request waits. Must not
//! know what a span is.

use std::{io, sync::Arc, time::Duration};

use gannet_runtime::{clock, metrics::process};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::{Notify, mpsc};

use super::{
    otlp::{self, Sender},
    record::Record,
};
use crate::config::{Credentials, TraceSettings};

/// Requests that are told of together.
const TOGETHER_MAX: usize = 512;
/// Time that the first of them waits for others.
const GATHER_TIME: Duration = Duration::from_secs(1);
/// Time for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Times that the same is sent.
const TRIES_MAX: u32 = 4;
/// Time before the second try, doubled before each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that a collector may ask to wait.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Time that what waits when the server ends still has.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Sends to one collector.
pub(super) struct Sending {
    url: String,
    credentials: Option<Credentials>,
    client: reqwest::Client,
    sender: Sender,
    stop: Arc<Notify>,
    /// Whether the last was not taken.
    failing: bool,
    /// Spans under way.
    under_way: usize,
}

/// Why spans were not taken.
enum Refused {
    /// Another try may do.
    Later(Option<Duration>, String),
    /// None will.
    Never(String),
}

impl Sending {
    pub(super) fn new(
        url: String,
        settings: &TraceSettings,
        server: &str,
        stop: Arc<Notify>,
    ) -> io::Result<Self> {
        gannet_registry::provide_crypto();
        let client = reqwest::Client::builder().timeout(ANSWER_TIME_MAX).no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none()).build().map_err(io::Error::other)?;
        let sender = Sender { service: settings.service_name.clone(), server: server.to_owned() };
        Ok(Self {
            url,
            credentials: settings.credentials.clone(),
            client,
            sender,
            stop,
            failing: false,
            under_way: 0,
        })
    }

    /// The life of the thread.
    pub(super) async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        let stop = Arc::clone(&self.stop);
        let mut stopped = std::pin::pin!(stop.notified());
        let mut gathered = Vec::new();
        loop {
            tokio::select! {
                () = &mut stopped => break,
                count = records.recv_many(&mut gathered, TOGETHER_MAX) => if count == 0 { break },
            }
            let until = tokio::time::Instant::now() + GATHER_TIME;
            let mut ends = false;
            while gathered.len() < TOGETHER_MAX && !ends {
                let room = TOGETHER_MAX - gathered.len();
                tokio::select! {
                    () = &mut stopped => ends = true,
                    () = tokio::time::sleep_until(until) => break,
                    count = records.recv_many(&mut gathered, room) => ends = count == 0,
                }
            }
            if ends {
                break;
            }
            let together = std::mem::take(&mut gathered);
            let mut told = std::pin::pin!(self.tell(together));
            tokio::select! {
                () = &mut told => {}
                () = &mut stopped => {
                    let _ = tokio::time::timeout(END_TIME_MAX, told).await;
                    break;
                }
            }
        }
        records.close();
        let rest = async {
            while !gathered.is_empty() || records.recv_many(&mut gathered, TOGETHER_MAX).await > 0 {
                self.tell(std::mem::take(&mut gathered)).await;
            }
        };
        if tokio::time::timeout(END_TIME_MAX, rest).await.is_err() {
            process::traced("shutdown", self.under_way as u64 + (gathered.len() + records.len()) as u64);
        }
    }

    /// Sends these, again where that may do; what is not taken is counted.
    async fn tell(&mut self, records: Vec<Record>) {
        let (body, spans) = otlp::encode(records, &self.sender);
        self.under_way += spans;
        let mut tries = 1;
        let why = loop {
            match self.send(body.clone()).await {
                Ok(()) => {
                    process::traced("sent", spans as u64);
                    self.under_way = 0;
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(url = self.url, "the collector takes spans again");
                    }
                    return;
                }
                Err(Refused::Later(pause, _)) if tries < TRIES_MAX => {
                    let pause = pause.unwrap_or(PAUSE * 2_u32.pow(tries - 1));
                    tokio::time::sleep(pause.min(PAUSE_MAX)).await;
                    tries += 1;
                }
                Err(Refused::Later(_, why) | Refused::Never(why)) => break why,
            }
        };
        process::traced("refused", spans as u64);
        self.under_way = 0;
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                url = self.url,
                why,
                spans,
                "the collector takes no spans; they are dropped and counted"
            );
        }
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), Refused> {
        let mut request = self.client.post(&self.url).body(body);
        request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
        if let Some(credentials) = &self.credentials {
            request =
                request.header(header::AUTHORIZATION, authorization(credentials).map_err(Refused::Never)?);
        }
        let started = clock::now();
        let response = request.send().await.map_err(|error| {
            let passed = (clock::now() - started).as_millis();
            Refused::Later(None, format!("no answer after {passed} ms: {}", gannet_registry::causes(&error)))
        })?;
        let (status, headers) = (response.status(), response.headers());
        if status.is_success() {
            return Ok(());
        }
        let pause = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let why = format!("it answered {status}");
        // those of which the protocol says so
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Refused::Later(pause.map(Duration::from_secs), why)),
            _ => Err(Refused::Never(why)),
        }
    }
}

/// What a collector is told of us: a whole value as it stands, or a lone word as a bearer's token.
fn authorization(credentials: &Credentials) -> Result<HeaderValue, String> {
    let text = credentials.read()?;
    let value = if text.contains(' ') { text } else { format!("Bearer {text}") };
    let mut value = HeaderValue::try_from(value).map_err(|_| "the credentials are no header's value")?;
    value.set_sensitive(true);
    Ok(value)
}
