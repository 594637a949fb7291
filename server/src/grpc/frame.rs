//! The 5-byte prefix of gRPC messages, for calls of one uncompressed message each way. Must not know messages.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

use crate::{
    admission::Permit,
    respond::{Kind, Refusal},
};

/// A flag that says whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Takes in the body of a call piece by piece. A body that comes in one piece is not copied.
#[derive(Debug)]
pub(super) struct Collector {
    permit: Permit,
    message_bytes_max: usize,
    stated_bytes: Option<usize>,
    received: Received,
}

#[derive(Debug)]
enum Received {
    One(Bytes),
    Several(BytesMut),
}

impl Collector {
    /// For a message of at most `message_bytes_max`; `stated_bytes` is the body's length, where it is known.
    pub(super) fn new(permit: Permit, message_bytes_max: usize, stated_bytes: Option<usize>) -> Self {
        Self { permit, message_bytes_max, stated_bytes, received: Received::One(Bytes::new()) }
    }

    /// Takes one piece.
    ///
    /// # Errors
    /// As soon as the pieces cannot become one message within the limits.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
        self.permit.grow(piece.len())?;
        match &mut self.received {
            Received::One(first) if first.is_empty() => self.received = Received::One(piece),
            Received::One(first) => {
                let have = first.len() + piece.len();
                let stated = self.stated_bytes.or_else(|| stated_bytes(first));
                let bytes_max = self.message_bytes_max.saturating_add(PREFIX_BYTES);
                let mut all = BytesMut::with_capacity(stated.unwrap_or(0).min(bytes_max).max(have));
                all.put_slice(first);
                all.put_slice(&piece);
                self.received = Received::Several(all);
            }
            Received::Several(all) => all.put_slice(&piece),
        }
        let received = self.received();
        match Prefix::read(received, self.message_bytes_max)? {
            Some(prefix) if received.len() > PREFIX_BYTES + prefix.bytes => Err(Refusal::new(
                Kind::Unsupported,
                format!(
                    "the body goes on after a message of {} bytes; this call takes exactly one message",
                    prefix.bytes
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The message, and the permit for its bytes.
    ///
    /// # Errors
    /// When the body ended before the message did.
    pub(super) fn finish(self) -> Result<(Bytes, Permit), Refusal> {
        let have = self.received().len();
        let cut = |expected: &str| {
            Err(Refusal::new(
                Kind::Internal,
                format!("the body ends after {have} bytes; expected {expected}"),
            ))
        };
        match Prefix::read(self.received(), self.message_bytes_max)? {
            None if have == 0 => {
                Err(Refusal::new(Kind::Unsupported, "the body is empty; this call takes exactly one message"))
            }
            None => cut("a 5-byte prefix and a message"),
            Some(prefix) if have < PREFIX_BYTES + prefix.bytes => {
                cut(&format!("a message of {} bytes after the 5-byte prefix", prefix.bytes))
            }
            Some(_) => {
                let mut body = match self.received {
                    Received::One(body) => body,
                    Received::Several(body) => body.freeze(),
                };
                Ok((body.split_off(PREFIX_BYTES), self.permit))
            }
        }
    }

    fn received(&self) -> &[u8] {
        match &self.received {
            Received::One(first) => first,
            Received::Several(all) => all,
        }
    }
}

/// The length of the body that begins so.
fn stated_bytes(body: &[u8]) -> Option<usize> {
    let (_, length) = body.first_chunk::<PREFIX_BYTES>()?.split_first_chunk::<1>()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (length as usize).checked_add(PREFIX_BYTES)
}

#[derive(Debug)]
struct Prefix {
    bytes: usize,
}

impl Prefix {
    /// The prefix, once it is there.
    fn read(body: &[u8], message_bytes_max: usize) -> Result<Option<Self>, Refusal> {
        let Some(&[flag, a, b, c, d]) = body.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        match flag {
            0 => {}
            1 => {
                return Err(Refusal::new(
                    Kind::Internal,
                    "the message is marked as compressed, but there is no header 'grpc-encoding'; name the encoding",
                ));
            }
            _ => {
                return Err(Refusal::new(
                    Kind::Internal,
                    format!(
                        "the message's first byte says whether it is compressed: expected 0 or 1, got {flag}"
                    ),
                ));
            }
        }
        let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        if bytes > message_bytes_max {
            return Err(Refusal::new(
                Kind::Exhausted,
                format!(
                    "the message has {bytes} bytes; at most {message_bytes_max} are taken (limits.body_bytes_max)"
                ),
            ));
        }
        Ok(Some(Self { bytes }))
    }
}

/// The message with its prefix, in one buffer.
///
/// # Errors
/// When the message is longer than its prefix can say.
pub(super) fn encode(message: &impl Message) -> Result<Bytes, Refusal> {
    let bytes = message.encoded_len();
    let Ok(length) = u32::try_from(bytes) else {
        return Err(Refusal::new(
            Kind::Exhausted,
            format!(
                "the answer has {bytes} bytes; a message can have at most {}: ask for fewer rows",
                u32::MAX
            ),
        ));
    };
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    frame.put_u8(0);
    frame.put_u32(length);
    message.encode_raw(&mut frame);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Admission;

    const LIMIT: usize = 10;

    fn collect(pieces: &[&[u8]], stated_bytes: Option<usize>) -> Result<Bytes, Refusal> {
        let admission = Admission::new(64);
        let mut collector = Collector::new(admission.permit(), LIMIT, stated_bytes);
        for piece in pieces {
            collector.push(Bytes::copy_from_slice(piece))?;
        }
        collector.finish().map(|(message, _)| message)
    }

    #[test]
    fn one_message_is_taken_however_it_is_cut() {
        let body = b"\0\0\0\0\x04abcd";
        for cut in 0..=body.len() {
            for stated in [None, Some(0), Some(body.len()), Some(usize::MAX)] {
                let (head, tail) = body.split_at(cut);
                assert_eq!(collect(&[head, tail], stated).unwrap(), &b"abcd"[..], "cut at {cut}, {stated:?}");
            }
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(collect(&bytes, None).unwrap(), &b"abcd"[..]);
        assert_eq!(collect(&[b"\0\0\0\0\0"], None).unwrap(), &b""[..]);
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"\0\0\0\0\x04abcd");
        let mut collector = Collector::new(Admission::new(64).permit(), LIMIT, None);
        collector.push(piece.clone()).unwrap();
        let (message, _) = collector.finish().unwrap();
        assert_eq!(message.as_ptr(), piece[PREFIX_BYTES..].as_ptr());
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        let check = |pieces: &[&[u8]], kind: Kind, words: &str| {
            let refusal = collect(pieces, None).unwrap_err();
            assert_eq!(refusal.kind, kind, "{refusal:?}");
            assert!(refusal.message.contains(words), "expected {words:?} in {refusal:?}");
        };
        check(&[], Kind::Unsupported, "empty");
        check(&[b"\0\0\0"], Kind::Internal, "ends after 3 bytes");
        check(&[b"\0\0\0\0\x04ab"], Kind::Internal, "ends after 7 bytes; expected a message of 4 bytes");
        check(&[b"\0\0\0\0\x01a\0\0\0\0\x01b"], Kind::Unsupported, "exactly one message");
        check(&[b"\0\0\0\0\x01a", b"\0\0\0\0\x01b"], Kind::Unsupported, "exactly one message");
        check(&[b"\0\0\0\0\x01ab"], Kind::Unsupported, "exactly one message");
        check(&[b"\x01\0\0\0\x01a"], Kind::Internal, "'grpc-encoding'");
        check(&[b"\x02\0\0\0\x01a"], Kind::Internal, "got 2");
        check(&[b"\0\0\0\0\x0b"], Kind::Exhausted, "has 11 bytes; at most 10");
        check(&[b"\0\xff\xff\xff\xff"], Kind::Exhausted, "limits.body_bytes_max");
    }

    #[test]
    fn the_budget_is_drawn_on_while_bytes_come() {
        let admission = Admission::new(8);
        let mut collector = Collector::new(admission.permit(), LIMIT, None);
        collector.push(Bytes::from_static(b"\0\0\0\0\x06ab")).unwrap();
        assert_eq!(admission.bytes(), 7);
        assert_eq!(collector.push(Bytes::from_static(b"cdef")).unwrap_err().kind, Kind::Exhausted);
        drop(collector);
        assert_eq!(admission.bytes(), 0);
    }

    #[test]
    fn answers_carry_their_length() {
        let message = super::super::pb::ServerLiveResponse { live: true };
        assert_eq!(encode(&message).unwrap(), &b"\0\0\0\0\x02\x08\x01"[..]);
    }
}
