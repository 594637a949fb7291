//! Huffman decoding of HPACK strings (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical, so the table is the code lengths alone. It is on no hot path: a
//! header block that repeats is not decoded again (see `hpack`).
//! Must not know about header fields or frames.

use std::sync::OnceLock;

/// Bits of each symbol's code; the last is the end-of-string symbol.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Longest code, in bits.
const CODE_BITS_MAX: usize = 30;

struct Table {
    /// First code of each length.
    first_code: [u32; CODE_BITS_MAX + 1],
    /// Codes of each length.
    count: [u32; CODE_BITS_MAX + 1],
    /// Where the symbols of each length begin in `symbols`.
    offset: [usize; CODE_BITS_MAX + 1],
    symbols: Vec<u16>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut symbols: Vec<u16> = (0..257).collect();
        symbols.sort_by_key(|&symbol| (CODE_BITS[usize::from(symbol)], symbol));
        let mut table = Table {
            first_code: [0; CODE_BITS_MAX + 1],
            count: [0; CODE_BITS_MAX + 1],
            offset: [0; CODE_BITS_MAX + 1],
            symbols,
        };
        for bits in CODE_BITS {
            table.count[usize::from(bits)] += 1;
        }
        let mut code = 0;
        let mut offset = 0;
        for bits in 1..=CODE_BITS_MAX {
            code <<= 1;
            table.first_code[bits] = code;
            table.offset[bits] = offset;
            code += table.count[bits];
            offset += table.count[bits] as usize;
        }
        table
    })
}

/// The decoded bytes, or `None` when the input is not a valid code.
pub(crate) fn decode(input: &[u8]) -> Option<Vec<u8>> {
    let table = table();
    let mut output = Vec::with_capacity(input.len() * 8 / 5);
    let mut code = 0u32;
    let mut bits = 0usize;
    let mut padding_is_ones = true;
    for byte in input {
        for shift in (0..8).rev() {
            let bit = u32::from(byte >> shift & 1);
            code = code << 1 | bit;
            bits += 1;
            padding_is_ones &= bit == 1;
            if bits > CODE_BITS_MAX {
                return None;
            }
            let index = code.wrapping_sub(table.first_code[bits]);
            if code >= table.first_code[bits] && index < table.count[bits] {
                let symbol = table.symbols[table.offset[bits] + index as usize];
                // The end-of-string symbol itself may not occur.
                output.push(u8::try_from(symbol).ok()?);
                (code, bits, padding_is_ones) = (0, 0, true);
            }
        }
    }
    (bits < 8 && padding_is_ones).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hexadecimal: &str, expected: Option<&str>) {
        let bytes: Vec<u8> = (0..hexadecimal.len() / 2)
            .map(|i| u8::from_str_radix(&hexadecimal[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        assert_eq!(decode(&bytes).as_deref(), expected.map(str::as_bytes), "{hexadecimal}");
    }

    #[test]
    fn decodes_the_examples_of_rfc_7541() {
        check("f1e3c2e5f23a6ba0ab90f4ff", Some("www.example.com"));
        check("a8eb10649cbf", Some("no-cache"));
        check("6402", Some("302"));
        check("aec3771a4b", Some("private"));
        check("", Some(""));
        check("ffffffff", None);
        check("00", None);
    }
}
