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
            b"grpc-message" => reply.message = Some(text.as_ref().into()),
            _ => {}
        }
    }
    reply
}
