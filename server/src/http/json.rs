//! JSON as the protocol needs it: a strict pull reader over the body, with numbers of a tensor scanned straight into
//! its bytes ([`number`]), and a writer ([`write`]). Must not know what the fields mean.

pub mod number;
pub mod write;

use std::borrow::Cow;

/// Objects and lists inside each other, at most.
pub const DEPTH_MAX: usize = 64;

/// Where the text is no JSON, or not the JSON expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub message: Cow<'static, str>,
    /// Offset in the body.
    pub at: usize,
}

/// Reads one value after another.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    depth: usize,
}

/// Leading characters, eight at a time, that are neither a quote nor a backslash nor a control character.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // marks the bytes of `value` that are below `bound`, of those that are ASCII; exact up to the first mark
    let below = |value: u64, bound: u64| value.wrapping_sub(ONES * bound) & !value & HIGHS;
    let mut count = 0;
    for chunk in bytes.as_chunks::<8>().0 {
        let value = u64::from_le_bytes(*chunk);
        let quote = below(value ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(value ^ (ONES * u64::from(b'\\')), 1);
        let marks = quote | backslash | below(value, 0x20);
        if marks != 0 {
            return count + (marks.trailing_zeros() / 8) as usize;
        }
        count += 8;
    }
    count
}

/// What a value is, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    List,
    /// `"`
    Text,
    /// A digit or `-`.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

impl<'a> Reader<'a> {
    /// Begins at the start of `bytes`, which are looked at once as a whole: every string in them is then known to be
    /// UTF-8.
    ///
    /// # Errors
    /// When they are not.
    pub fn new(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| JsonError { message: "invalid utf-8".into(), at: error.valid_up_to() })?;
        Ok(Self { text, bytes, at: 0, depth: 0 })
    }

    /// An error here.
    pub fn error(&self, message: impl Into<Cow<'static, str>>) -> JsonError {
        JsonError { message: message.into(), at: self.at }
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Goes back (or forth) to an offset that [`Reader::offset`] gave at the same depth.
    pub fn rewind(&mut self, offset: usize) {
        self.at = offset;
    }

    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, expected: u8, message: &'static str) -> Result<(), JsonError> {
        if self.peek() == Some(expected) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(message))
    }

    fn unexpected(&self, expected: &'static str) -> JsonError {
        match self.bytes.get(self.at) {
            None => self.error(format!("the text ends, expected {expected}")),
            Some(byte) => self.error(format!("found {:?}, expected {expected}", char::from(*byte))),
        }
    }

    /// What the next value is.
    ///
    /// # Errors
    /// When no value begins here; `NaN` and `Infinity` are named.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::List),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'N' | b'I') => {
                Err(self.error("NaN and Infinity are no JSON; send the tensor as binary data"))
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn deeper(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} objects and lists inside each other")));
        }
        Ok(())
    }

    /// Reads an object: `field` gets each key, must read its value.
    ///
    /// # Errors
    /// When this is no object, or from `field`.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'{', "an object")?;
        self.deeper()?;
        if self.peek() != Some(b'}') {
            loop {
                let key = self.text()?;
                self.take(b':', "':'")?;
                field(self, &key)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break,
                    _ => return Err(self.unexpected("',' or '}'").into()),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Reads a list: `item` must read each value.
    ///
    /// # Errors
    /// When this is no list, or from `item`.
    pub fn list<E: From<JsonError>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'[', "a list")?;
        self.deeper()?;
        if self.peek() != Some(b']') {
            loop {
                item(self)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break,
                    _ => return Err(self.unexpected("',' or ']'").into()),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string. Borrowed where it has no escapes.
    ///
    /// # Errors
    /// When this is no string.
    pub fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain(&self.bytes[self.at.min(self.bytes.len())..]);
            match self.bytes.get(self.at) {
                None => return Err(self.error("the text ends inside a string")),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) => return Err(self.error("a control character inside a string")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let ends = || self.error("the text ends inside a string");
        if escaped {
            let quoted = self.bytes.get(start..self.at).ok_or_else(ends)?;
            let text: String = serde_json::from_slice(quoted)
                .map_err(|error| JsonError { message: error.to_string().into(), at: start })?;
            return Ok(Cow::Owned(text));
        }
        self.text.get(start + 1..self.at - 1).map(Cow::Borrowed).ok_or_else(ends)
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn boolean(&mut self) -> Result<bool, JsonError> {
        self.skip_space();
        let rest = &self.bytes[self.at..];
        for (word, value) in [(&b"true"[..], true), (b"false", false)] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.unexpected("true or false"))
    }

    fn null(&mut self) -> Result<(), JsonError> {
        if self.bytes[self.at..].starts_with(b"null") {
            self.at += 4;
            return Ok(());
        }
        Err(self.unexpected("null"))
    }

    /// Reads past any value; the bytes it took.
    ///
    /// # Errors
    /// When it is no value.
    pub fn skip(&mut self) -> Result<&'a [u8], JsonError> {
        self.skip_space();
        let start = self.at;
        match self.kind()? {
            Kind::Object => self.object(|reader, _| reader.skip().map(|_| ()))?,
            Kind::List => self.list(|reader| reader.skip().map(|_| ()))?,
            Kind::Text => self.text().map(|_| ())?,
            Kind::Number => number::skip(self)?,
            Kind::Bool => self.boolean().map(|_| ())?,
            Kind::Null => self.null()?,
        }
        Ok(&self.bytes[start..self.at])
    }

    /// Reads any value into a tree.
    ///
    /// # Errors
    /// When it is no value.
    pub fn value(&mut self) -> Result<serde_json::Value, JsonError> {
        let start = self.at;
        let bytes = self.skip()?;
        serde_json::from_slice(bytes)
            .map_err(|error| JsonError { message: error.to_string().into(), at: start })
    }

    /// Nothing but space may follow.
    ///
    /// # Errors
    /// When something does.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(bytes: &[u8]) -> bool {
        let Ok(mut reader) = Reader::new(bytes) else { return false };
        reader.skip().is_ok() && reader.end().is_ok()
    }

    #[test]
    fn agrees_with_serde_json_on_the_grammar() {
        let seeds: [&[u8]; 8] = [
            br#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2.5,-3e-2,4E+1]}],"id":"a\"\u00e9"}"#,
            b"[[1,2],[3.0,4]]",
            b" { } ",
            b"[]",
            b"[true,false,null]",
            b"-0.5e10",
            b"\"a\\n\"",
            b"[1,]",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..40_000u32 {
            let mut bytes = seeds[round as usize % seeds.len()].to_vec();
            for _ in 0..next() % 4 {
                let at = (next() % bytes.len() as u64) as usize;
                let palette = b"{}[]\",:0123456789.eE+-tfn \\u\x01\xc3\xa9";
                let byte = palette[(next() % palette.len() as u64) as usize];
                match next() % 3 {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            let expected = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok()
                && serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
            assert_eq!(accepts(&bytes), expected, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert!(accepts(&nested(DEPTH_MAX)));
        assert!(!accepts(&nested(DEPTH_MAX + 1)));
        assert!(!accepts(&b"[".repeat(1_000_000)));
        assert!(!accepts(&b"{\"a\":".repeat(100_000)));
    }

    #[test]
    fn messages_say_where() {
        let check = |text: &str, expected: &str| {
            let mut reader = Reader::new(text.as_bytes()).unwrap();
            let message = reader.skip().and_then(|_| reader.end()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} for {text}");
        };
        check("[1,2", "the text ends, expected ',' or ']' at byte 4");
        check("[NaN]", "NaN and Infinity are no JSON; send the tensor as binary data at byte 1");
        check("{\"a\" 1}", "found '1', expected ':' at byte 5");
        check("[1] x", "expected the end of the text at byte 4");
    }
}
