//! The report: Markdown, to stdout while it grows and to a file at the end, with a chart beside it.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::chart;
use crate::contender::{Contender, Figures, Outcome};

/// What has been measured so far.
#[derive(Default)]
pub struct Report {
    text: String,
    pub figures: Figures,
    /// How long rows were on their way: who, at how many rows a second, p50 and p99 in milliseconds.
    pub latencies: Vec<Latency>,
    verdicts: Vec<Verdict>,
}

/// How long rows were on their way.
pub struct Latency {
    pub who: String,
    pub contender: Contender,
    /// Rows a second.
    pub rate: u64,
    /// In milliseconds.
    pub p50: f64,
    pub p99: f64,
}

struct Verdict {
    what: String,
    value: f64,
    target: Target,
}

impl Report {
    /// A line of its own.
    pub fn line(&mut self, line: impl Display) {
        println!("{line}");
        self.text.push_str(&format!("{line}\n"));
    }

    /// A heading of a measurement.
    pub fn heading(&mut self, heading: impl Display) {
        self.line(format!("\n## {heading}\n"));
    }

    /// A table: its head, then its rows.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.line(format!("| {} |", head.join(" | ")));
        self.line(format!("|{}", " --- |".repeat(head.len())));
        for row in rows {
            self.line(format!("| {} |", row.join(" | ")));
        }
        self.line("");
    }

    /// The contenders of a workload, side by side.
    pub fn contenders(&mut self, workload: &'static str) {
        let head = [
            "reader",
            "rows/s",
            "second half",
            "with startup",
            "CPU-s per million rows",
            "peak MiB",
            "bytes a row, encoded",
            "on the broker's disk",
        ];
        let figures = &self.figures;
        let line = |contender: Contender| {
            let cell = |figure: &dyn Fn(&Outcome) -> Option<f64>, show: &dyn Fn(f64) -> String| {
                let spread = figures.spread(workload, contender, |outcome| figure(outcome).unwrap_or(f64::NAN));
                spread.filter(|spread| !spread.median.is_nan()).map_or(String::new(), |spread| spread.shown(show))
            };
            vec![
                contender.shown(),
                cell(&|outcome| Some(outcome.rate), &thousands),
                cell(&|outcome| outcome.warm_rate, &thousands),
                cell(&|outcome| outcome.startup.map(|_| outcome.whole_rate), &thousands),
                cell(&|outcome| Some(outcome.cpu), &one_digit),
                cell(&|outcome| outcome.peak_mib, &one_digit),
                cell(&|outcome| outcome.payload, &thousands),
                cell(&|outcome| outcome.stored, &thousands),
            ]
        };
        let lines: Vec<_> = figures.contenders(workload).into_iter().map(line).collect();
        self.table(&head, &lines);
    }

    /// Whether a target is met.
    pub fn target(&mut self, what: &str, value: f64, target: Target) {
        let (sign, bound) = target.shown();
        let verdict = if target.is_met(value) { "met" } else { "**missed**" };
        self.line(format!("- {what}: {value:.2}, target {sign} {bound}: {verdict}"));
        self.verdicts.push(Verdict { what: what.to_owned(), value, target });
    }

    /// All targets, at the end.
    pub fn verdicts(&mut self) {
        if self.verdicts.is_empty() {
            return;
        }
        self.heading("What it was to show");
        let line = |verdict: &Verdict| {
            let (sign, bound) = verdict.target.shown();
            let met = if verdict.target.is_met(verdict.value) { "pass" } else { "**fail**" };
            vec![verdict.what.clone(), two_digits(verdict.value), format!("{sign} {bound}"), met.to_owned()]
        };
        let lines: Vec<_> = self.verdicts.iter().map(line).collect();
        self.table(&["what", "measured", "target", ""], &lines);
    }

    /// Writes `report.md` and `report.svg` into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))
        };
        let chart = chart::draw(&self.figures, &self.latencies);
        match chart {
            None => write("report.md", &self.text),
            Some(chart) => {
                write("report.svg", &chart)?;
                write("report.md", &self.text.replacen(CHART, "![Rows a second and latencies](report.svg)", 1))
            }
        }
    }
}

/// Stands where the chart goes, if there is one.
pub const CHART: &str = "<!-- no chart -->";

/// What a figure should be.
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn shown(self) -> (&'static str, f64) {
        match self {
            Target::AtLeast(bound) => ("≥", bound),
            Target::AtMost(bound) => ("≤", bound),
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtLeast(bound) => value >= bound,
            Target::AtMost(bound) => value <= bound,
        }
    }
}

/// Minimum, median and maximum.
#[derive(Clone, Copy)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let last = figures.len().saturating_sub(1);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        // Of an even count, the mean of the two in the middle: of two runs neither is the better one.
        Self { min: at(0), median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), max: at(last) }
    }

    /// As a table's cell; a single figure stands alone.
    pub fn shown(&self, show: impl Fn(f64) -> String) -> String {
        let (min, median, max) = (show(self.min), show(self.median), show(self.max));
        if min == max { median } else { format!("{median} ({min} to {max})") }
    }
}

/// The figure below which that share of the sorted figures lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

/// 1234567.8 as 1,234,568.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

pub fn two_digits(number: f64) -> String {
    format!("{number:.2}")
}

pub fn one_digit(number: f64) -> String {
    format!("{number:.1}")
}
