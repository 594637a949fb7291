//! JSON in one spelling only (RFC 8785), so that the same manifest always has the same bytes to sign. Must not know
//! manifests.

use std::fmt::Write as _;

use serde_json::Value;

/// The canonical text of a value.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => {
                number_into(integer as f64, integer.unsigned_abs() < 1 << 53, &integer.to_string(), out)
            }
            (None, Some(integer)) => number_into(integer as f64, false, "", out),
            _ => number_into(number.as_f64().unwrap_or(0.0), false, "", out),
        },
        Value::String(text) => string(text, out),
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by_key(|key| key.encode_utf16().collect::<Vec<u16>>());
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                string(key, out);
                out.push(':');
                write(&map[key], out);
            }
            out.push('}');
        }
    }
}

fn number_into(value: f64, exact: bool, text: &str, out: &mut String) {
    if exact { out.push_str(text) } else { out.push_str(&number(value)) }
}

/// A number as ECMAScript writes it: the shortest digits that read back as the same number.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".into();
    }
    let shortest = format!("{:e}", value.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let sign = if value < 0.0 { "-" } else { "" };
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let split = |at: i32| digits.split_at(usize::try_from(at).unwrap_or(0));
    let text = if (count..=21).contains(&point) {
        format!("{digits}{}", zeros(point - count))
    } else if (1..=21).contains(&point) {
        let (whole, rest) = split(point);
        format!("{whole}.{rest}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = split(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let exponent = point - 1;
        format!("{first}{dot}{rest}e{}{}", if exponent < 0 { "-" } else { "+" }, exponent.abs())
    };
    format!("{sign}{text}")
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_standard() {
        // from the appendix of RFC 8785
        let check = |bits: u64, expected: &str| assert_eq!(number(f64::from_bits(bits)), expected);
        check(0x0000_0000_0000_0000, "0");
        check(0x8000_0000_0000_0000, "0");
        check(0x0000_0000_0000_0001, "5e-324");
        check(0x8000_0000_0000_0001, "-5e-324");
        check(0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308");
        check(0x4340_0000_0000_0000, "9007199254740992");
        check(0x4430_0000_0000_0000, "295147905179352830000");
        check(0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22");
        check(0x444b_1ae4_d6e2_ef4e, "999999999999999700000");
        check(0x3eb0_c6f7_a0b5_ed8d, "0.000001");
        check(0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7");
        check(0x41b3_de43_5555_5553, "333333333.3333332");
        check(0xbecb_f647_612f_3696, "-0.0000033333333333333333");
    }

    #[test]
    fn keys_are_sorted_and_nothing_is_spaced() {
        let value: Value =
            serde_json::from_str("{\"b\": [1, 2.5, \"\\u001f\\n\"], \"a\": null, \"\\u20ac\": true}")
                .unwrap();
        assert_eq!(canonical(&value), "{\"a\":null,\"b\":[1,2.5,\"\\u001f\\n\"],\"\u{20ac}\":true}");
    }
}
