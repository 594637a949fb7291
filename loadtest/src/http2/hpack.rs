//! HPACK (RFC 7541): a decoder with its dynamic table, and the few encodings a client of one
//! method needs.
//!
//! A peer repeats the same header block for every answer. `Memo` remembers the last blocks that
//! left the dynamic table alone, so the common answer costs one comparison.
//! Must not know about frames, streams or gRPC.

use std::collections::VecDeque;

use super::huffman;

/// Dynamic table size that we offer: the protocol's default.
const TABLE_BYTES_MAX: usize = 4096;
/// What RFC 7541 §4.1 adds to the size of each entry.
const ENTRY_OVERHEAD_BYTES: usize = 32;
/// Blocks remembered: an answer has two (headers and trailers), an error one more.
const MEMO_BLOCKS_MAX: usize = 3;

#[rustfmt::skip]
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// A decoded field: name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// Why a block could not be decoded; the connection is lost then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HpackError {
    #[error("header block ends inside a field")]
    Truncated,
    #[error("header index {0} is in neither table")]
    Index(usize),
    #[error("invalid Huffman code in a header")]
    Huffman,
    #[error("header integer or table size is too large")]
    TooLarge,
}

/// Decoder of one direction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    entries: VecDeque<Field>,
    bytes: usize,
    bytes_max: Option<usize>,
    /// Set when the block now decoded changed the table.
    changed: bool,
}

impl Decoder {
    /// Decodes one whole block. The flag says whether the dynamic table changed.
    pub(crate) fn decode(&mut self, mut block: &[u8]) -> Result<(Vec<Field>, bool), HpackError> {
        let mut fields = Vec::new();
        self.changed = false;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                fields.push(self.lookup(index)?);
            } else if first & 0xc0 == 0x40 {
                let field = self.literal(&mut block, 6)?;
                self.insert(field.clone());
                fields.push(field);
            } else if first & 0xe0 == 0x20 {
                let bytes_max = integer(&mut block, 5)?;
                if bytes_max > TABLE_BYTES_MAX {
                    return Err(HpackError::TooLarge);
                }
                self.bytes_max = Some(bytes_max);
                self.changed = true;
                self.evict(0);
            } else {
                fields.push(self.literal(&mut block, 4)?);
            }
        }
        Ok((fields, self.changed))
    }

    fn literal(&mut self, block: &mut &[u8], prefix_bits: u32) -> Result<Field, HpackError> {
        let index = integer(block, prefix_bits)?;
        let name = match index {
            0 => string(block)?,
            _ => self.lookup(index)?.0,
        };
        Ok((name, string(block)?))
    }

    fn lookup(&self, index: usize) -> Result<Field, HpackError> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|i| STATIC_TABLE.get(i)) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        index
            .checked_sub(STATIC_TABLE.len() + 1)
            .and_then(|i| self.entries.get(i))
            .cloned()
            .ok_or(HpackError::Index(index))
    }

    fn insert(&mut self, field: Field) {
        let bytes = field.0.len() + field.1.len() + ENTRY_OVERHEAD_BYTES;
        self.changed = true;
        self.evict(bytes);
        if bytes <= self.limit_bytes() {
            self.bytes += bytes;
            self.entries.push_front(field);
        }
    }

    fn limit_bytes(&self) -> usize {
        self.bytes_max.unwrap_or(TABLE_BYTES_MAX)
    }

    fn evict(&mut self, room_bytes: usize) {
        while self.bytes + room_bytes > self.limit_bytes() {
            let Some((name, value)) = self.entries.pop_back() else {
                return;
            };
            self.bytes -= name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

/// A decoder whose repeated blocks cost one comparison. `T` is what the caller makes of a block.
#[derive(Debug)]
pub(crate) struct Memo<T> {
    decoder: Decoder,
    blocks: Vec<(Vec<u8>, T)>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { decoder: Decoder::default(), blocks: Vec::new() }
    }
}

impl<T: Clone> Memo<T> {
    /// What `read` makes of the block's fields.
    pub(crate) fn decode(&mut self, block: &[u8], read: impl FnOnce(&[Field]) -> T) -> Result<T, HpackError> {
        if let Some((_, value)) = self.blocks.iter().find(|(known, _)| known == block) {
            return Ok(value.clone());
        }
        let (fields, changed) = self.decoder.decode(block)?;
        let value = read(&fields);
        if changed {
            self.blocks.clear();
        } else {
            if self.blocks.len() == MEMO_BLOCKS_MAX {
                self.blocks.remove(0);
            }
            self.blocks.push((block.to_vec(), value.clone()));
        }
        Ok(value)
    }
}

fn integer(block: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    let (&first, mut rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1usize << prefix_bits) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, tail) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = tail;
            if shift > 21 {
                return Err(HpackError::TooLarge);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

fn string(block: &mut &[u8]) -> Result<Vec<u8>, HpackError> {
    let huffman_coded = block.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    match huffman_coded {
        true => huffman::decode(bytes).ok_or(HpackError::Huffman),
        false => Ok(bytes.to_vec()),
    }
}

/// Appends an integer with its prefix; `first` holds the bits above the prefix.
fn put_integer(output: &mut Vec<u8>, first: u8, prefix_bits: u32, mut value: usize) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        output.push(first | value as u8);
        return;
    }
    output.push(first | mask as u8);
    value -= mask;
    while value >= 0x80 {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// Appends a field that both tables know.
pub(crate) fn put_indexed(output: &mut Vec<u8>, index: usize) {
    put_integer(output, 0x80, 7, index);
}

/// Appends a literal field, into the dynamic table or not.
pub(crate) fn put_literal(output: &mut Vec<u8>, (name, value): (&str, &str), indexed: bool) {
    let known = STATIC_TABLE.iter().position(|(known, _)| *known == name);
    let (first, prefix_bits) = if indexed { (0x40, 6) } else { (0x00, 4) };
    put_integer(output, first, prefix_bits, known.map_or(0, |i| i + 1));
    if known.is_none() {
        put_integer(output, 0, 7, name.len());
        output.extend_from_slice(name.as_bytes());
    }
    put_integer(output, 0, 7, value.len());
    output.extend_from_slice(value.as_bytes());
}

/// Index of the first dynamic entry.
pub(crate) const DYNAMIC_INDEX_FIRST: usize = STATIC_TABLE.len() + 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(decoder: &mut Decoder, block: &[u8], expected: &[(&str, &str)]) {
        let (fields, _) = decoder.decode(block).unwrap();
        let fields: Vec<_> =
            fields.iter().map(|(n, v)| (str::from_utf8(n).unwrap(), str::from_utf8(v).unwrap())).collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn decodes_rfc_7541_c3() {
        let mut decoder = Decoder::default();
        let first = b"\x82\x86\x84\x41\x0fwww.example.com";
        let authority = (":authority", "www.example.com");
        let start = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        check(&mut decoder, first, &[start[0], start[1], start[2], authority]);
        check(
            &mut decoder,
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            &[start[0], start[1], start[2], authority, ("cache-control", "no-cache")],
        );
        assert_eq!(decoder.bytes, 110);
    }

    #[test]
    fn encoded_fields_decode() {
        let mut block = Vec::new();
        put_indexed(&mut block, 3);
        put_literal(&mut block, (":path", "/inference.GRPCInferenceService/ModelInfer"), true);
        put_literal(&mut block, ("te", "trailers"), false);
        put_indexed(&mut block, DYNAMIC_INDEX_FIRST);
        let path = (":path", "/inference.GRPCInferenceService/ModelInfer");
        check(&mut Decoder::default(), &block, &[(":method", "POST"), path, ("te", "trailers"), path]);
    }

    #[test]
    fn a_block_that_changes_the_table_is_not_remembered() {
        let mut memo = Memo::default();
        let block = b"\x40\x01a\x01b";
        for expected in 1..=2usize {
            let seen = memo.decode(block, |fields| fields.len()).unwrap();
            assert_eq!(seen, 1);
            assert_eq!(memo.decoder.entries.len(), expected);
        }
    }

    #[test]
    fn bad_blocks_are_errors() {
        for (block, expected) in [
            (&b"\xff"[..], HpackError::Truncated),
            (b"\xbe", HpackError::Index(62)),
            (b"\x80", HpackError::Index(0)),
            (b"\x40\x05ab", HpackError::Truncated),
            (b"\x3f\xff\xff\xff\xff\xff\xff", HpackError::TooLarge),
        ] {
            assert_eq!(Decoder::default().decode(block), Err(expected), "{block:?}");
        }
    }
}
