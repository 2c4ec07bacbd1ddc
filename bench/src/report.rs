//! The report: Markdown, to stdout while it grows and to a file at the end.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What has been measured so far.
#[derive(Default)]
pub struct Report {
    text: String,
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

    /// Whether a target is met.
    pub fn target(&mut self, what: &str, value: f64, target: Target) {
        let (sign, bound, met) = match target {
            Target::AtLeast(bound) => ("≥", bound, value >= bound),
            Target::AtMost(bound) => ("≤", bound, value <= bound),
        };
        let verdict = if met { "met" } else { "**missed**" };
        self.line(format!("- {what}: {value:.2}, target {sign} {bound}: {verdict}"));
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, &self.text).with_context(|| format!("could not write {}", file.display()))
    }
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Minimum, median and maximum.
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
        let at = |share: f64| quantile(&figures, share);
        Self { min: at(0.0), median: at(0.5), max: at(1.0) }
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
