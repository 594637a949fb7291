//! Numbers: one pass over the digits, straight into a tensor's little-endian bytes. Exact: every result is the
//! correctly rounded one. Must not know shapes or names.

use super::{JsonError, Kind, Reader};

/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Whole numbers up to here are exact in a double.
const EXACT_MANTISSA: u64 = 1 << 53;

/// A number as it is written.
#[derive(Debug, Clone, Copy)]
struct Literal<'a> {
    text: &'a [u8],
    negative: bool,
    /// All digits as one whole number, when there are at most 19 of them after leading zeros.
    mantissa: Option<u64>,
    /// Power of ten on the mantissa.
    exponent: i32,
    /// Neither point nor exponent.
    whole: bool,
}

/// Powers of ten up to what eight digits need.
const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many of the eight characters, from the first on, are digits.
fn leading_digits(values: u64) -> usize {
    // `values` are the characters xor '0': a digit is below 10. A carry only reaches characters behind the first that
    // is none.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    (others.trailing_zeros() / 8) as usize
}

/// The number that eight digits stand for; the first is in the lowest byte.
fn eight_digits(digits: u64) -> u64 {
    let pairs = (digits.wrapping_mul(10)).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs.wrapping_mul(100)).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    (quads.wrapping_mul(10_000)).wrapping_add(quads >> 32) & 0xffff_ffff
}

/// Digits from `at` on: where they end; `mantissa` takes them in, wrapping. Sixteen characters at a time, without a
/// branch on how many of them are digits: numbers of a tensor differ in that, and no predictor learns it.
#[inline(always)]
fn digits(bytes: &[u8], mut at: usize, mantissa: &mut u64) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let (first, first_count) = leading_number(chunk.first_chunk().unwrap_or(&[0; 8]));
        let (second, second_count) = leading_number(chunk.last_chunk().unwrap_or(&[0; 8]));
        // behind anything but eight digits no more belong to the number
        let full = usize::from(first_count == 8);
        let (second, second_count) = (second * full as u64, second_count * full);
        *mantissa = mantissa.wrapping_mul(POWERS[first_count]).wrapping_add(first);
        *mantissa = mantissa.wrapping_mul(POWERS[second_count]).wrapping_add(second);
        at += first_count + second_count;
        if second_count < 8 {
            return at;
        }
    }
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        at += 1;
    }
    at
}

/// The number that the leading digits of eight characters stand for, and how many these are.
#[inline(always)]
fn leading_number(chunk: &[u8; 8]) -> (u64, usize) {
    let values = u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030;
    let count = leading_digits(values);
    // moved to the end, so that zeros stand in front; in two steps, because none of them moves all
    let half = 4 * (8 - count);
    (eight_digits(values << half << half), count)
}

/// Reads one number; the reader stands on its first byte.
#[inline(always)]
fn literal<'a>(reader: &mut Reader<'a>) -> Result<Literal<'a>, JsonError> {
    let bytes = reader.bytes;
    let start = reader.at;
    let negative = bytes.get(start) == Some(&b'-');
    let whole_start = start + usize::from(negative);
    let mut mantissa = 0u64;
    // most numbers have one digit before the point, or one more
    let mut at = whole_start;
    while at < whole_start + 2
        && let Some(digit @ b'0'..=b'9') = bytes.get(at)
    {
        mantissa = mantissa * 10 + u64::from(digit - b'0');
        at += 1;
    }
    if at == whole_start + 2 {
        at = digits(bytes, at, &mut mantissa);
    }
    let leading_zero = bytes.get(whole_start) == Some(&b'0');
    if at == whole_start || (leading_zero && at > whole_start + 1) {
        reader.at = at;
        return Err(reader.error(if at == whole_start {
            "expected a digit"
        } else {
            "a number begins with 0"
        }));
    }
    let mut digits_read = at - whole_start - usize::from(leading_zero);
    let mut exponent = 0i32;
    let mut whole = true;
    if bytes.get(at) == Some(&b'.') {
        let from = at + 1;
        at = digits(bytes, from, &mut mantissa);
        if at == from {
            reader.at = at;
            return Err(reader.error("expected a digit after the point"));
        }
        whole = false;
        digits_read += at - from;
        exponent = i32::try_from(at - from).map_or(i32::MIN / 2, |digits| -digits);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (end, written) = exponent_at(bytes, at + 1);
        let Some(written) = written else {
            reader.at = end;
            return Err(reader.error("expected a digit in the exponent"));
        };
        exponent = exponent.saturating_add(written);
        at = end;
        whole = false;
    }
    reader.at = at;
    let mantissa = (digits_read <= 19).then_some(mantissa);
    Ok(Literal { text: &bytes[start..at], negative, mantissa, exponent, whole })
}

/// The exponent behind `e`: where it ends, and its value, bounded.
fn exponent_at(bytes: &[u8], mut at: usize) -> (usize, Option<i32>) {
    let negative = bytes.get(at) == Some(&b'-');
    at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
    let from = at;
    let mut value = 0i32;
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        value = value.saturating_mul(10).saturating_add(i32::from(digit - b'0')).min(1_000_000);
        at += 1;
    }
    (at, (at > from).then_some(if negative { -value } else { value }))
}

impl Literal<'_> {
    /// The double, when one exact operation gives it.
    #[inline(always)]
    fn exact(&self) -> Option<f64> {
        let mantissa = self.mantissa.filter(|&m| m <= EXACT_MANTISSA)?;
        #[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
        let value = mantissa as f64;
        let power = EXACT_POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?)?;
        let value = if self.exponent < 0 { value / power } else { value * power };
        Some(if self.negative { -value } else { value })
    }

    fn text(&self) -> &str {
        // only ASCII digits and signs were taken in
        std::str::from_utf8(self.text).unwrap_or("0")
    }

    fn to_f64(self) -> f64 {
        self.exact().unwrap_or_else(|| self.text().parse().unwrap_or(f64::NAN))
    }

    /// Correctly rounded: going through a double rounds twice, which differs only where the double lies exactly
    /// between two floats.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest float is what is wanted")]
    fn to_f32(self) -> f32 {
        const DROPPED: u64 = (1 << 29) - 1;
        const HALF: u64 = 1 << 28;
        match self.exact() {
            Some(value)
                if value.to_bits() & DROPPED != HALF && value.abs() >= f64::from(f32::MIN_POSITIVE) =>
            {
                value as f32
            }
            Some(0.0) if self.negative => -0.0,
            Some(0.0) => 0.0,
            _ => self.text().parse().unwrap_or(f32::NAN),
        }
    }

    /// As a whole number, if it is written as one and fits.
    fn to_i128(self) -> Option<i128> {
        if !self.whole {
            return None;
        }
        let magnitude = match self.mantissa {
            Some(mantissa) => i128::from(mantissa),
            None => self.text().trim_start_matches('-').parse().ok()?,
        };
        Some(if self.negative { -magnitude } else { magnitude })
    }
}

/// Reads past a number.
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), JsonError> {
    let start = reader.at;
    let literal = literal(reader)?;
    // what overflows a double is no number that anyone could use
    if !literal.to_f64().is_finite() {
        return Err(JsonError { message: "the number is out of range".into(), at: start });
    }
    Ok(())
}

/// A whole number of a few digits, as the lengths of axes are; `None`, having read nothing, when it is anything else.
pub(crate) fn small(reader: &mut Reader<'_>) -> Option<usize> {
    reader.skip_space();
    let rest = reader.bytes.get(reader.at..)?;
    let length = rest.iter().take(8).take_while(|byte| byte.is_ascii_digit()).count();
    let plain = length == 1 || (length > 1 && rest[0] != b'0');
    if !plain || !matches!(rest.get(length), Some(b',' | b']' | b' ')) {
        return None;
    }
    reader.at += length;
    Some(rest[..length].iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0')))
}

/// A number of a tensor: how to read it and how to write its bytes.
pub trait Element: Sized {
    /// Reads one.
    ///
    /// # Errors
    /// When it is no number, or out of range.
    fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError>;

    /// Appends its little-endian bytes.
    fn push(self, out: &mut Vec<u8>);
}

macro_rules! floats {
    ($($type:ty, $convert:ident);*) => {$(
        impl Element for $type {
            #[inline(always)]
            fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
                let start = reader.at;
                let value = literal(reader)?.$convert();
                if value.is_finite() {
                    return Ok(value);
                }
                let message = concat!("the number is out of the range of ", stringify!($type));
                Err(JsonError { message: message.into(), at: start })
            }

            #[inline(always)]
            fn push(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Element for $type {
            #[inline(always)]
            fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
                let start = reader.at;
                let value = literal(reader)?.to_i128().and_then(|value| Self::try_from(value).ok());
                value.ok_or(JsonError {
                    message: concat!("expected a whole number in the range of ", stringify!($type)).into(),
                    at: start,
                })
            }

            #[inline(always)]
            fn push(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

floats!(f32, to_f32; f64, to_f64);
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Reads a flat or nested list of numbers; their bytes are appended to `out`, at most `limit` of them. How many.
///
/// # Errors
/// When something in it is no such number, or there are more than `limit`.
pub fn numbers<T: Element>(
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<usize, JsonError> {
    let mut count = 0;
    nested(reader, out, limit, &mut count, 0, &mut |reader, out| {
        T::read(reader)?.push(out);
        Ok(())
    })?;
    Ok(count)
}

/// Appends the bytes of one element.
pub type PushElement<'f> = dyn FnMut(&mut Reader<'_>, &mut Vec<u8>) -> Result<(), JsonError> + 'f;

/// As [`numbers`], for elements read by `push`.
///
/// # Errors
/// As [`numbers`].
pub fn elements(
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
    limit: usize,
    push: &mut PushElement<'_>,
) -> Result<usize, JsonError> {
    let mut count = 0;
    nested(reader, out, limit, &mut count, 0, &mut |reader, out| push(reader, out))?;
    Ok(count)
}

fn nested(
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
    limit: usize,
    count: &mut usize,
    depth: usize,
    push: &mut impl FnMut(&mut Reader<'_>, &mut Vec<u8>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    if depth == 0 && reader.kind()? != Kind::List {
        return Err(reader.error("expected a list"));
    }
    if depth >= super::DEPTH_MAX {
        return Err(reader.error("lists are nested too deep"));
    }
    reader.at += 1;
    match reader.peek() {
        Some(b']') => {
            reader.at += 1;
            return Ok(());
        }
        Some(b'[') => loop {
            if reader.peek() != Some(b'[') {
                return Err(reader.error("expected a list beside lists"));
            }
            nested(reader, out, limit, count, depth + 1, push)?;
            if ends(reader)? {
                return Ok(());
            }
        },
        _ => {}
    }
    loop {
        if *count == limit {
            return Err(reader.error(format!("more values than the shape takes ({limit})")));
        }
        reader.skip_space();
        push(reader, out)?;
        *count += 1;
        if ends(reader)? {
            return Ok(());
        }
    }
}

/// Reads the comma (false) or the end of the list (true).
fn ends(reader: &mut Reader<'_>) -> Result<bool, JsonError> {
    match reader.peek() {
        Some(b',') => {
            reader.at += 1;
            Ok(false)
        }
        Some(b']') => {
            reader.at += 1;
            Ok(true)
        }
        _ => match reader.kind() {
            Err(error) => Err(error),
            Ok(_) => Err(reader.error("expected ',' or ']'")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Element>(text: &str) -> Result<T, JsonError> {
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        let value = T::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn floats_are_correctly_rounded() {
        let mut seed = 42u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 11
        };
        let mut texts: Vec<String> = [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "1",
            "16777217",
            "16777219.000000001",
            "0.1",
            "1e-45",
            "7e-46",
            "1e-50",
            "3.4028235e38",
            "123456789012345678901234567890",
            "9007199254740993",
            "1.17549435e-38",
            "0.3",
            "1e22",
            "1e23",
            "5e-324",
            "8388608.5",
            "8388609.5",
            "33554433",
            "1.00000005960464477539062500000001",
        ]
        .map(String::from)
        .to_vec();
        for _ in 0..200_000 {
            let digits = next() % 10u64.pow(u32::try_from(next() % 18 + 1).unwrap());
            texts.push(match next() % 4 {
                0 => format!("{}", f32::from_bits(u32::try_from(next() & 0x7f7f_ffff).unwrap())),
                1 => format!("{}.{}", digits % 1000, next() % 100_000_000),
                2 => format!("{digits}e{}", i64::try_from(next() % 60).unwrap() - 40),
                _ => format!("-{digits}"),
            });
        }
        for text in &texts {
            let expected: f32 = text.parse().unwrap();
            match read::<f32>(text) {
                Ok(value) => assert_eq!(value.to_bits(), expected.to_bits(), "{text}"),
                Err(_) => assert!(!expected.is_finite(), "{text}"),
            }
            let expected: f64 = text.parse().unwrap();
            assert_eq!(read::<f64>(text).unwrap().to_bits(), expected.to_bits(), "{text}");
        }
    }

    #[test]
    fn digits_are_counted_whatever_stands_behind_them() {
        for length in 0..=20usize {
            for behind in 0..=255u8 {
                let text: Vec<u8> = (0..length).map(|i| b'1' + (i % 9) as u8).collect();
                let bytes = [&text[..], &[behind], b"77777777"].concat();
                let mut mantissa = 0;
                let end = digits(&bytes, 0, &mut mantissa);
                let expected = if behind.is_ascii_digit() { bytes.len() } else { length };
                assert_eq!(end, expected, "{length} digits before {behind}");
                if expected == length && length > 0 && length < 20 {
                    let text = String::from_utf8(text).unwrap();
                    assert_eq!(mantissa, text.parse::<u64>().unwrap(), "{text}");
                }
            }
        }
    }

    #[test]
    fn grammar_and_ranges_are_strict() {
        for bad in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "--1", "0x1", "1_0", "NaN"] {
            assert!(read::<f64>(bad).is_err(), "{bad}");
        }
        assert!(read::<f32>("1e39").is_err());
        assert!(read::<f64>("1e309").is_err());
        assert_eq!(read::<i8>("-128").unwrap(), -128);
        assert_eq!(read::<u64>("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(read::<i64>("-9223372036854775808").unwrap(), i64::MIN);
        for bad in ["128", "1.0", "1e2", "-129", "99999999999999999999999"] {
            assert!(read::<i8>(bad).is_err(), "{bad}");
        }
        assert!(read::<u8>("-1").is_err());
    }

    #[test]
    fn lists_may_be_flat_or_nested() {
        let check = |text: &str, expected: Result<&[u8], &str>| {
            let mut out = Vec::new();
            let mut reader = Reader::new(text.as_bytes()).unwrap();
            let result = numbers::<u8>(&mut reader, &mut out, 6);
            match expected {
                Ok(bytes) => {
                    assert_eq!(result, Ok(bytes.len()), "{text}");
                    assert_eq!(out, bytes);
                }
                Err(message) => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(message), "{error} for {text}");
                }
            }
        };
        check("[]", Ok(&[]));
        check("[ 1 , 2 ]", Ok(&[1, 2]));
        check("[[1,2],[3,4]]", Ok(&[1, 2, 3, 4]));
        check("[[[1],[2]]]", Ok(&[1, 2]));
        check("[[],[]]", Ok(&[]));
        check("[1,2,3,4,5,6,7]", Err("more values than the shape takes (6)"));
        check("[1,[2]]", Err("expected a digit"));
        check("[[1],2]", Err("expected a list beside lists"));
        check("[1,]", Err("expected a digit"));
        check("[1 2]", Err("expected ',' or ']'"));
        check("[1", Err("expected a value"));
        check("5", Err("expected a list"));
    }
}
