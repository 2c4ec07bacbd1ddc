//! Dates and times, as `datestyle=ISO` writes them: `2024-02-29 12:34:56.789+00`, with ` BC` at the very end.
//!
//! An infinite date or timestamp is the least or the greatest int or long. A finite one never is: that last
//! microsecond counts as what the type can't hold.

use super::{TextError, malformed, put_long};
use crate::calendar::{days_from_civil, days_in_month};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// More digits than the year of any date or timestamp has (dates end in 5874897).
const MAX_YEAR_DIGITS: usize = 7;

/// Most digits of a second's fraction.
const FRACTION_DIGITS: u32 = 6;

/// A date → days since 1970-01-01.
#[inline]
pub fn date(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    if let Some(positive) = infinity(text) {
        put_long(i64::from(if positive { i32::MAX } else { i32::MIN }), out);
        return Ok(());
    }
    let mut reader = Reader { text, at: 0 };
    let civil = reader.civil()?;
    let days = reader.end_of_date(civil)?;
    match i32::try_from(days) {
        Ok(i32::MIN | i32::MAX) | Err(_) => Err(TextError::Unrepresentable("a date so far from 1970")),
        Ok(_) => {
            put_long(days, out);
            Ok(())
        }
    }
}

/// A time → microseconds since midnight; 24:00:00 is 86,400,000,000.
#[inline]
pub fn time_of_day(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut reader = Reader { text, at: 0 };
    let micros = reader.time(24)?;
    if micros > MICROS_PER_DAY {
        return Err(malformed(text, 0, "a time up to 24:00:00"));
    }
    reader.end()?;
    put_long(micros, out);
    Ok(())
}

/// A timestamp without time zone → microseconds since 1970-01-01 00:00:00 on the same clock.
#[inline]
pub fn local_timestamp(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    micros_since_1970(text, false, out)
}

/// A timestamp with time zone → microseconds since 1970-01-01 00:00:00 UTC.
#[inline]
pub fn timestamp(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    micros_since_1970(text, true, out)
}

#[inline]
fn micros_since_1970(text: &[u8], with_zone: bool, out: &mut Vec<u8>) -> Result<(), TextError> {
    if let Some(positive) = infinity(text) {
        put_long(if positive { i64::MAX } else { i64::MIN }, out);
        return Ok(());
    }
    let mut reader = Reader { text, at: 0 };
    let civil = reader.civil()?;
    reader.literal(b' ', "a space before the time")?;
    let time = reader.time(23)?;
    let offset = if with_zone { reader.zone()? } else { 0 };
    let days = reader.end_of_date(civil)?;
    // Multiplied first, a timestamp in the last day of the range before 1970 would overflow on the way; i128 can't.
    let micros = i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(time - offset);
    match i64::try_from(micros) {
        // Postgres counts from 2000 and so gets 30 years further than microseconds since 1970 do.
        Ok(i64::MIN | i64::MAX) | Err(_) => Err(TextError::Unrepresentable("a timestamp after 294247-01-10")),
        Ok(micros) => {
            put_long(micros, out);
            Ok(())
        }
    }
}

/// Whether the text is an infinity, and then whether it is the positive one.
#[inline]
fn infinity(text: &[u8]) -> Option<bool> {
    match text {
        b"infinity" => Some(true),
        b"-infinity" => Some(false),
        _ => None,
    }
}

/// A date's numbers, before it is known whether it is BC.
#[derive(Clone, Copy)]
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    /// Where the day stands, for an error that shows only at the end.
    day_offset: usize,
}

/// What is left of a text.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[cold]
    fn error(&self, expected: &'static str) -> TextError {
        malformed(self.text, self.at, expected)
    }

    #[inline]
    fn literal(&mut self, byte: u8, expected: &'static str) -> Result<(), TextError> {
        if self.peek() != Some(byte) {
            return Err(self.error(expected));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn digit(&self) -> Option<u8> {
        self.peek().map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9)
    }

    /// Two digits, at most `limit`.
    #[inline]
    fn two_digits(&mut self, limit: u8, expected: &'static str) -> Result<u8, TextError> {
        let pair = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<2>());
        let value = match pair {
            Some([high @ b'0'..=b'9', low @ b'0'..=b'9']) => (high - b'0') * 10 + (low - b'0'),
            _ => return Err(self.error(expected)),
        };
        if value > limit {
            return Err(self.error(expected));
        }
        self.at += 2;
        Ok(value)
    }

    /// `2024-02-29`; the year has four digits or more.
    #[inline]
    fn civil(&mut self) -> Result<Civil, TextError> {
        let mut year = 0;
        while let Some(digit) = self.digit().filter(|_| self.at < MAX_YEAR_DIGITS) {
            year = year * 10 + i64::from(digit);
            self.at += 1;
        }
        if self.at < 4 || year == 0 {
            return Err(self.error("a year of four digits or more"));
        }
        self.literal(b'-', "a hyphen after the year")?;
        let month = self.two_digits(12, "a month from 01 to 12")?;
        self.literal(b'-', "a hyphen after the month")?;
        let day_offset = self.at;
        let day = self.two_digits(31, "a day of the month")?;
        match month {
            0 => Err(malformed(self.text, day_offset - 3, "a month from 01 to 12")),
            _ => Ok(Civil { year, month, day, day_offset }),
        }
    }

    /// `12:34:56.789` → microseconds.
    #[inline]
    fn time(&mut self, last_hour: u8) -> Result<i64, TextError> {
        let hour = self.two_digits(last_hour, "an hour")?;
        self.literal(b':', "a colon after the hour")?;
        let minute = self.two_digits(59, "a minute")?;
        self.literal(b':', "a colon after the minute")?;
        let second = self.two_digits(59, "a second")?;
        let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let fraction = if self.peek() == Some(b'.') { self.fraction()? } else { 0 };
        Ok(seconds * MICROS_PER_SECOND + fraction)
    }

    /// `.789` → microseconds.
    #[inline]
    fn fraction(&mut self) -> Result<i64, TextError> {
        self.at += 1;
        let (mut value, mut digits) = (0, 0);
        while let Some(digit) = self.digit().filter(|_| digits < FRACTION_DIGITS) {
            value = value * 10 + i64::from(digit);
            digits += 1;
            self.at += 1;
        }
        match digits {
            0 => Err(self.error("a digit of the second's fraction")),
            _ => Ok(value * 10_i64.pow(FRACTION_DIGITS - digits)),
        }
    }

    /// `+00`, `+05:30`, `-07:52:58` → microseconds east of UTC.
    #[inline]
    fn zone(&mut self) -> Result<i64, TextError> {
        let sign = match self.peek() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.error("the sign of an offset from UTC")),
        };
        self.at += 1;
        let mut seconds = i64::from(self.two_digits(23, "an offset's hours")?) * 3600;
        for unit in [60, 1] {
            if self.peek() == Some(b':') {
                self.at += 1;
                seconds += i64::from(self.two_digits(59, "an offset's minutes or seconds")?) * unit;
            }
        }
        Ok(sign * seconds * MICROS_PER_SECOND)
    }

    /// What may follow the date and all that belongs to it: ` BC`, and then nothing. Gives the date's days.
    #[inline]
    fn end_of_date(&mut self, civil: Civil) -> Result<i64, TextError> {
        let mut year = civil.year;
        if self.peek() == Some(b' ') {
            for byte in *b" BC" {
                self.literal(byte, "BC")?;
            }
            year = 1 - year;
        }
        self.end()?;
        if civil.day == 0 || civil.day > days_in_month(year, civil.month) {
            return Err(malformed(self.text, civil.day_offset, "a day of the month"));
        }
        Ok(days_from_civil(year, civil.month, civil.day))
    }

    #[inline]
    fn end(&self) -> Result<(), TextError> {
        match self.at == self.text.len() {
            true => Ok(()),
            false => Err(self.error("the end")),
        }
    }
}
