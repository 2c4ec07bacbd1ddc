//! The proleptic Gregorian calendar, which Postgres, Avro and RFC 3339 share.

/// Days from 1970-01-01 to a date, negative before it. Years count through 0, which is 1 BC; `month` is 1 to 12.
///
/// `days_from_civil` of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms"
/// (<https://howardhinnant.github.io/date_algorithms.html>): a year that starts in March has its leap day at the end,
/// so the days before a month follow from a straight line, and 400 years always have 146,097 days.
#[inline]
pub fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    era * 146_097 + day_of_era - 719_468
}

/// How many days a month has; `month` is 1 to 12.
#[inline]
pub fn days_in_month(year: i64, month: u8) -> u8 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The date that lies so many days after 1970-01-01, as (year, month, day): the inverse of [`days_from_civil`], from the
/// same source. No `i64` of microseconds, and no `i32` of days, overflows on the way.
pub fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // A day is at most 31 and a month at most 12: nothing is cut off.
    (year, month as u8, day as u8)
}

/// Milliseconds since 1970-01-01 UTC as RFC 3339 writes them: `2024-02-29T12:00:00.123Z`.
pub fn rfc3339(millis: i64) -> String {
    const MILLIS_PER_DAY: i64 = 86_400_000;
    let (year, month, day) = civil_from_days(millis.div_euclid(MILLIS_PER_DAY));
    let of_day = millis.rem_euclid(MILLIS_PER_DAY);
    let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_its_date_are_each_others_inverse() {
        let far = [i64::from(i32::MIN), i64::from(i32::MAX), -719_528, -719_529, -1, 0, 59, 11_016, 19_782];
        for days in far.into_iter().chain((-800_000..800_000).step_by(97)) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days, "{year}-{month}-{day}");
            assert!((1..=days_in_month(year, month)).contains(&day), "{year}-{month}-{day}");
        }
        assert_eq!(civil_from_days(19_782), (2024, 2, 29));
        assert_eq!(civil_from_days(-719_528), (0, 1, 1));
    }

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(1_709_208_000_123), "2024-02-29T12:00:00.123Z");
    }
}
