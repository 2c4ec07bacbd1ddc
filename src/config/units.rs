//! Sizes and durations as people write them: a number and a unit.

use std::time::Duration;

/// Bytes: `4194304`, `1MB` (10⁶), `1MiB` (2²⁰). `None` if it is neither, or greater than a `u64`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A size as people write it, for messages.
pub(super) fn show_bytes(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        30.. if bytes > 0 => format!("{}GiB", bytes >> 30),
        20..30 => format!("{}MiB", bytes >> 20),
        10..20 => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// A duration: `100ms`, `10s`, `5m`, `1h`. The unit is a must.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_decimal_and_binary_units() {
        assert_eq!(bytes("12"), Some(12));
        assert_eq!(bytes("1MB"), Some(1_000_000));
        assert_eq!(bytes("1 MiB"), Some(1 << 20));
        assert_eq!(bytes("3GiB"), Some(3 << 30));
        for text in ["", "MB", "-1", "1.5MB", "1 M", "99999999999GiB", "1MBit"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_fits() {
        let shown = [0, 1_000, 1 << 10, 64 << 20, 1 << 30].map(show_bytes);
        assert_eq!(shown, ["0", "1000", "1KiB", "64MiB", "1GiB"]);
    }

    #[test]
    fn durations_name_their_unit() {
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("5 min"), Some(Duration::from_secs(300)));
        for text in ["", "100", "1.5s", "10 seconds", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
