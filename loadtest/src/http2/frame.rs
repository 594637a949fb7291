//! HTTP/2 frames (RFC 9113 §4 and §6): heads, settings and the few frames that are written.
//!
//! Must not know about streams' states.

/// What a client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(crate) const HEAD_BYTES: usize = 9;
/// Frame payload that every peer accepts, and that we offer.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16_384;
/// Flow-control window that a connection and a stream begin with.
pub(crate) const WINDOW_BYTES_DEFAULT: i64 = 65_535;
/// Window that we open to the peer: nearly the largest, so that one update lasts long.
pub(crate) const WINDOW_BYTES_OFFERED: u32 = 1 << 30;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    /// The head at the front of `input`, once it is whole.
    pub(crate) fn parse(input: &[u8]) -> Option<Self> {
        let head = input.get(..HEAD_BYTES)?;
        Some(Self {
            length: usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]),
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff,
        })
    }

    /// Appends the head; the caller appends `length` bytes.
    pub(crate) fn put(&self, output: &mut Vec<u8>) {
        let length = (self.length as u32).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        output.extend_from_slice(&[
            length[1], length[2], length[3], self.kind, self.flags, stream[0], stream[1], stream[2],
            stream[3],
        ]);
    }
}

/// Appends a whole frame.
pub(crate) fn put(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len();
    Head { length, kind, flags, stream }.put(output);
    output.extend_from_slice(payload);
}

/// What either side sends first after the preface: large windows, no pushes.
pub(crate) fn put_opening(output: &mut Vec<u8>) {
    let mut settings = Vec::new();
    for (id, value) in [(2u16, 0), (4, WINDOW_BYTES_OFFERED)] {
        settings.extend_from_slice(&id.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    put(output, SETTINGS, 0, 0, &settings);
    let grow = WINDOW_BYTES_OFFERED - WINDOW_BYTES_DEFAULT as u32;
    put(output, WINDOW_UPDATE, 0, 0, &grow.to_be_bytes());
}

/// What a peer's SETTINGS frame says, as far as it matters here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub header_table_bytes: Option<u32>,
    pub concurrent_streams_max: Option<u32>,
    pub window_bytes: Option<u32>,
    pub frame_bytes_max: Option<u32>,
}

impl Settings {
    /// `None` when the payload is not whole entries.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut settings = Self::default();
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return None;
        }
        for [a, b, c, d, e, f] in entries {
            let value = Some(u32::from_be_bytes([*c, *d, *e, *f]));
            match u16::from_be_bytes([*a, *b]) {
                1 => settings.header_table_bytes = value,
                3 => settings.concurrent_streams_max = value,
                4 => settings.window_bytes = value,
                5 => settings.frame_bytes_max = value,
                _ => {}
            }
        }
        Some(settings)
    }
}

/// The payload without padding and, in HEADERS, without priority.
pub(crate) fn content<'a>(head: &Head, payload: &'a [u8]) -> Option<&'a [u8]> {
    let mut content = payload;
    if head.flags & PADDED != 0 {
        let (&padding, rest) = content.split_first()?;
        content = rest.get(..rest.len().checked_sub(usize::from(padding))?)?;
    }
    if head.kind == HEADERS && head.flags & PRIORITY != 0 {
        content = content.get(5..)?;
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_round_trip() {
        let head = Head { length: 0x01_02_03, kind: HEADERS, flags: END_HEADERS, stream: 0x7fff_fffd };
        let mut bytes = Vec::new();
        head.put(&mut bytes);
        assert_eq!(Head::parse(&bytes), Some(head));
        assert_eq!(Head::parse(&bytes[..8]), None);
    }

    #[test]
    fn settings_and_padding() {
        let settings = Settings::parse(&[0, 3, 0, 0, 0, 100, 0, 9, 0, 0, 0, 0]);
        assert_eq!(settings.unwrap().concurrent_streams_max, Some(100));
        assert_eq!(Settings::parse(&[0; 5]), None);
        let head = |kind, flags| Head { length: 0, kind, flags, stream: 1 };
        assert_eq!(content(&head(DATA, PADDED), b"\x02abcd"), Some(&b"ab"[..]));
        assert_eq!(content(&head(DATA, PADDED), b"\x09abcd"), None);
        assert_eq!(content(&head(HEADERS, PRIORITY), b"12345x"), Some(&b"x"[..]));
    }
}
