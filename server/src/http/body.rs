//! Bodies: read whole within their limits, and unpacked. Must not know what is in them.

use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use flate2::{
    Compression,
    bufread::{GzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::{
    admission::Permit,
    patience,
    respond::{Kind, Refusal},
    state::State,
};

/// Memory set aside at once for a body whose length is stated; the rest follows as it comes.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Below this a client that accepts several codings gets none: it fits one packet.
const COMPRESS_BYTES_MIN: usize = 1400;

/// Alignment of binary tensors in a body that comes in pieces: the runtime then reads them where they lie.
const ALIGNMENT: usize = 64;

/// Reads a body whole, unpacked, and the permit for its bytes. The byte at `aligned` is aligned in memory where that
/// costs nothing.
///
/// # Errors
/// [`Kind::TooLarge`], [`Kind::SlowSender`], [`Kind::Exhausted`], [`Kind::UnsupportedMedia`], [`Kind::Invalid`].
pub async fn read(
    state: &State,
    headers: &HeaderMap,
    body: Incoming,
    aligned: usize,
) -> Result<(Bytes, Permit), Refusal> {
    let limit = state.limits.body_bytes_max;
    let mut permit = state.admission.permit();
    let within = state.limits.body_time_max;
    let late = || {
        let message =
            format!("the body did not arrive within {} ms (limits.body_ms_max)", within.as_millis());
        Refusal::new(Kind::SlowSender, message)
    };
    let bytes =
        patience::within(collect(body, limit, aligned, &mut permit), || within).await.ok_or_else(late)??;
    let bytes = match headers.get(header::CONTENT_ENCODING) {
        None => bytes,
        Some(coding) => unpack(&bytes, coding, limit, &mut permit)?,
    };
    Ok((bytes, permit))
}

fn too_large(what: &str, limit: usize) -> Refusal {
    Refusal::new(
        Kind::TooLarge,
        format!("the body {what}; at most {limit} are taken (limits.body_bytes_max)"),
    )
}

async fn collect(
    mut body: Incoming,
    limit: usize,
    aligned: usize,
    permit: &mut Permit,
) -> Result<Bytes, Refusal> {
    let stated = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if let Some(length) = stated.filter(|&length| length > limit) {
        return Err(too_large(&format!("has {length} bytes"), limit));
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let (mut total, mut pad) = (0usize, 0usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::invalid(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total > limit {
            return Err(too_large("grew over its limit", limit));
        }
        permit.grow(data.len())?;
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(before) => {
                let expected = stated.unwrap_or(0).min(RESERVE_BYTES_MAX);
                rest.reserve(expected.max(before.len() + data.len()) + ALIGNMENT);
                pad = rest.as_ptr().addr().wrapping_add(aligned).wrapping_neg() % ALIGNMENT;
                rest.resize(pad, 0);
                rest.extend_from_slice(&before);
                rest.extend_from_slice(&data);
            }
        }
    }
    if stated.is_some_and(|length| length != total) {
        return Err(Refusal::invalid(format!("the body broke off after {total} bytes")));
    }
    Ok(first.unwrap_or_else(|| rest.freeze().slice(pad..)))
}

fn unpack(bytes: &[u8], coding: &HeaderValue, limit: usize, permit: &mut Permit) -> Result<Bytes, Refusal> {
    let mut out = Vec::new();
    // one byte more than allowed tells that there is more
    let bound = limit as u64 + 1;
    let result = match coding.as_bytes() {
        b"identity" => return Ok(Bytes::copy_from_slice(bytes)),
        b"gzip" => GzDecoder::new(bytes).take(bound).read_to_end(&mut out),
        b"deflate" => ZlibDecoder::new(bytes).take(bound).read_to_end(&mut out),
        other => {
            let other = String::from_utf8_lossy(other);
            let message =
                format!("Content-Encoding '{other}' is not known; expected gzip, deflate or identity");
            return Err(Refusal::new(Kind::UnsupportedMedia, message));
        }
    };
    result.map_err(|error| Refusal::invalid(format!("the body is damaged: {error}")))?;
    if out.len() > limit {
        return Err(too_large("is larger when unpacked", limit));
    }
    permit.grow(out.len())?;
    Ok(Bytes::from(out))
}

/// A coding for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Coding {
    /// The header's value.
    #[must_use]
    pub fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    /// The coding for an answer of `bytes` bytes. A client that names one coding alone gets it; a list, which many
    /// send unasked, is honoured where it saves a packet.
    #[must_use]
    pub fn choose(accepted: Option<&HeaderValue>, bytes: usize) -> Option<Self> {
        let accepted = accepted?.to_str().ok()?;
        let named = |name: &str| accepted.split(',').any(|part| is_accepted(part, name));
        let alone = !accepted.contains(',');
        if !alone && bytes < COMPRESS_BYTES_MIN {
            return None;
        }
        if named("gzip") {
            Some(Self::Gzip)
        } else if named("deflate") {
            Some(Self::Deflate)
        } else {
            None
        }
    }

    /// Packs an answer.
    #[must_use]
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        // writing into a Vec does not fail
        let packed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                std::io::Write::write_all(&mut encoder, bytes).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                std::io::Write::write_all(&mut encoder, bytes).and_then(|()| encoder.finish())
            }
        };
        packed.unwrap_or_default()
    }
}

fn is_accepted(part: &str, name: &str) -> bool {
    let mut pieces = part.split(';').map(str::trim);
    pieces.next().is_some_and(|coding| coding.eq_ignore_ascii_case(name))
        && !pieces.any(|piece| piece.strip_prefix("q=").is_some_and(|q| q.parse::<f32>() == Ok(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_chosen() {
        let check = |accepted: &str, bytes, expected| {
            let value = HeaderValue::from_str(accepted).unwrap();
            assert_eq!(Coding::choose(Some(&value), bytes), expected, "{accepted}");
        };
        check("gzip", 10, Some(Coding::Gzip));
        check("deflate", 10, Some(Coding::Deflate));
        check("gzip, deflate, br", 10, None);
        check("gzip, deflate, br", 10_000, Some(Coding::Gzip));
        check("gzip;q=0, deflate", 10_000, Some(Coding::Deflate));
        check("br", 10_000, None);
        assert_eq!(Coding::choose(None, 10_000), None);
    }
}
