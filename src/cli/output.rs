//! stdout, for results.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::exit::Failure;

/// Writes a result, with a newline after it.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

/// stdout for many lines of JSON.
pub(super) struct Lines {
    stdout: BufWriter<StdoutLock<'static>>,
    /// How many more may be written.
    left: u64,
}

impl Lines {
    /// At most `limit` lines.
    pub fn new(limit: Option<u64>) -> Lines {
        Lines { stdout: BufWriter::new(io::stdout().lock()), left: limit.unwrap_or(u64::MAX) }
    }

    /// Writes a line; false if it was the last one that may be written.
    pub fn write(&mut self, line: &impl Serialize) -> Result<bool, Failure> {
        serde_json::to_writer(&mut self.stdout, line)?;
        self.stdout.write_all(b"\n")?;
        self.left -= 1;
        Ok(self.left > 0)
    }

    /// Sees to it that a reader has them all.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }
}

/// Whether a result may be coloured: on a terminal, unless `NO_COLOR` is set.
pub(super) fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A number of bytes for people: `512 B`, `3.0 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut amount = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    format!("{amount:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_in_units_that_fit() {
        let shown = [0, 1023, 1024, 1536, 3 << 20, 5 << 40, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "3.0 MiB", "5.0 TiB", "16777216.0 TiB"]);
    }
}
