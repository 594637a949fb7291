//! Whose trace a request is part of, as the headers `traceparent` and `tracestate` of W3C's Trace Context say, and the
//! numbers of traces and spans of our own. Must not know requests.

use std::{cell::Cell, hash::BuildHasher as _};

use gannet_runtime::clock;
use gannet_stats::random::Random;
use http::{HeaderMap, HeaderName};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes of a state that is kept.
const STATE_BYTES_MAX: usize = 512;

/// A place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    /// The span that this one is part of; `None`: it is the first.
    pub(super) parent: Option<[u8; 8]>,
    /// Whether it is to be kept.
    pub(super) sampled: bool,
    /// What other systems keep of the trace.
    pub(super) state: String,
}

impl Context {
    /// What a request's headers say; `None` where they say nothing, or nothing sound.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut context = Self::parse(headers.get(PARENT)?.as_bytes())?;
        let state = headers.get(STATE).and_then(|state| state.to_str().ok());
        context.state = state.filter(|state| state.len() <= STATE_BYTES_MAX).unwrap_or_default().to_owned();
        Some(context)
    }

    /// The first place of a trace of our own.
    pub(super) fn first(high: u64, low: u64) -> Self {
        // any number but 0
        let trace = (u128::from(high) << 64 | u128::from(low | 1)).to_be_bytes();
        Self { trace, parent: None, sampled: true, state: String::new() }
    }

    /// `00-TRACE-PARENT-FLAGS`; later versions may have more behind that.
    fn parse(text: &[u8]) -> Option<Self> {
        let (version, rest) = (hex::<1>(text.get(..2)?)?, text.get(2..)?);
        let fits = rest.len() == 53 || (version != [0] && rest.get(53) == Some(&b'-'));
        if version == [0xff] || !fits || [0, 33, 50].iter().any(|&at| rest[at] != b'-') {
            return None;
        }
        let (trace, parent, flags) = (hex(&rest[1..33])?, hex(&rest[34..50])?, hex::<1>(&rest[51..53])?);
        (trace != [0; 16] && parent != [0; 8]).then(|| Self {
            trace,
            parent: Some(parent),
            sampled: flags[0] & 1 == 1,
            state: String::new(),
        })
    }
}

/// Bytes out of lower-case digits, as the format wants them.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

/// A span's number: any but 0.
pub(super) fn own_number(random: &mut Random) -> [u8; 8] {
    (random.bits() | 1).to_be_bytes()
}

/// This thread's chance.
pub(super) fn random<T>(draw: impl FnOnce(&mut Random) -> T) -> T {
    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }
    let seed = STATE.get().unwrap_or_else(|| std::hash::RandomState::new().hash_one(clock::now().as_ns()));
    let mut random = Random::new(seed);
    let drawn = draw(&mut random);
    STATE.set(Some(random.bits()));
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_as_the_format_has_them() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(context.trace[..2], [0x4b, 0xf9]);
        assert_eq!(context.parent, Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        assert!(context.sampled);
        let good = |text: &str| Context::parse(text.as_bytes()).map(|context| context.sampled);
        assert_eq!(good(&GOOD.replace("-01", "-00")), Some(false));
        assert_eq!(good(&GOOD.replace("-01", "-ff")), Some(true), "unknown flags do not matter");
        assert_eq!(good(&format!("cc{}-what-comes", &GOOD[2..])), Some(true), "a later version");
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}x", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01",
        ] {
            assert_eq!(good(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_state_is_kept_within_bounds() {
        let mut headers = HeaderMap::new();
        assert_eq!(Context::of(&headers), None);
        headers.insert(PARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap());
        headers.insert(STATE, "rojo=1,congo=2".parse().unwrap());
        assert_eq!(Context::of(&headers).unwrap().state, "rojo=1,congo=2");
        headers.insert(STATE, "x".repeat(513).parse().unwrap());
        assert_eq!(Context::of(&headers).unwrap().state, "");
    }
}
