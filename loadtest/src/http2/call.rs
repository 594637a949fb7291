//! The header blocks of unary gRPC calls: prebuilt for requests, read for answers.
//!
//! Must not know about streams or frames.

use std::sync::Arc;

use super::hpack;

/// The header block of the calls on a connection.
#[derive(Debug, Clone)]
pub(crate) struct CallHead {
    /// Fills the peer's dynamic table.
    pub(super) first: Vec<u8>,
    /// Indices into that table.
    pub(super) repeated: Vec<u8>,
    /// Uses no table.
    pub(super) plain: Vec<u8>,
}

impl CallHead {
    /// The head of calls of `path` on `authority`, with `metadata` besides gRPC's own fields.
    pub(crate) fn new(authority: &str, path: &str, metadata: &[(String, String)]) -> Self {
        let mut fields = vec![
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        fields.extend(metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let literals = |indexed| {
            // :method POST and :scheme http stand in the static table.
            let mut block = vec![0x83, 0x86];
            for field in &fields {
                hpack::put_literal(&mut block, *field, indexed);
            }
            block
        };
        let mut repeated = vec![0x83, 0x86];
        for age in (0..fields.len()).rev() {
            hpack::put_indexed(&mut repeated, hpack::DYNAMIC_INDEX_FIRST + age);
        }
        let bytes: usize = fields.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
        // Fields that do not all fit the peer's default table are sent as they are.
        let fits = bytes <= 4096;
        Self {
            first: literals(fits),
            repeated: if fits { repeated } else { literals(false) },
            plain: literals(false),
        }
    }
}

/// What the fields of an answer say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub http_status: Option<u16>,
    pub grpc_code: Option<u16>,
    pub message: Option<Arc<str>>,
}

/// Reads the fields that matter.
pub(super) fn read_reply(fields: &[hpack::Field]) -> Reply {
    let mut reply = Reply::default();
    for (name, value) in fields {
        let text = String::from_utf8_lossy(value);
        match &name[..] {
            b":status" => reply.http_status = text.parse().ok(),
            b"grpc-status" => reply.grpc_code = text.parse().ok(),
            b"grpc-message" => reply.message = Some(percent_decoded(&text).into()),
            _ => {}
        }
    }
    reply
}

/// gRPC sends messages percent-encoded; what is no valid escape stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded() {
        assert_eq!(percent_decoded("50%25 full%0A%zz%"), "50% full\n%zz%");
        let field = |name: &str, value: &str| (name.into(), value.into());
        let reply = read_reply(&[field(":status", "200"), field("grpc-status", "5")]);
        assert_eq!((reply.http_status, reply.grpc_code), (Some(200), Some(5)));
    }
}
