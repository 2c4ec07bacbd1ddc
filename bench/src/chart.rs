//! The chart: for each workload a bar a contender, the median with its spread; then the latencies.

use std::fmt::Write as _;

use crate::contender::{Contender, Figures};
use crate::report::{Latency, Spread, thousands, two_digits};

/// In pixels: the whole, its text to the left of the bars, and what a bar takes.
const WIDTH: f64 = 860.0;
const LABELS: f64 = 270.0;
const BARS: f64 = 440.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const GAP: f64 = 34.0;

/// The workloads, and what they are called here.
const PANELS: [(&str, &str); 7] = [
    ("drain", "One-row transactions, rows/s"),
    ("big", "One transaction, rows/s"),
    ("mix", "Updates, inserts, deletes, changes/s"),
    ("jsonb", "2 KB of jsonb a row, rows/s"),
    ("wide", "100 columns, rows/s"),
    ("many", "50 tables, rows/s"),
    ("snapshot", "Snapshot, rows/s"),
];

/// A bar.
struct Bar {
    label: String,
    contender: Contender,
    spread: Spread,
    shown: String,
}

/// The chart as SVG; none if nothing for it was measured.
pub fn draw(figures: &Figures, latencies: &[Latency]) -> Option<String> {
    let mut panels: Vec<(String, Vec<Bar>)> = Vec::new();
    for (workload, title) in PANELS {
        let bars = figures.contenders(workload).into_iter().filter_map(|contender| {
            let spread = figures.spread(workload, contender, |outcome| outcome.rate)?;
            Some(Bar { label: contender.shown(), contender, spread, shown: thousands(spread.median) })
        });
        panels.push((title.to_owned(), bars.collect()));
    }
    let mut rates: Vec<u64> = latencies.iter().map(|latency| latency.rate).collect();
    rates.sort_unstable();
    rates.dedup();
    for rate in rates {
        let bars = latencies.iter().filter(|latency| latency.rate == rate).map(|latency| Bar {
            label: latency.who.clone(),
            contender: latency.contender,
            spread: Spread { min: latency.p50, median: latency.p50, max: latency.p99 },
            shown: format!("{} (p99 {})", two_digits(latency.p50), two_digits(latency.p99)),
        });
        panels.push((format!("Latency at {} rows/s in ms, p50 to p99", thousands(rate as f64)), bars.collect()));
    }
    panels.retain(|(_, bars)| !bars.is_empty());
    (!panels.is_empty()).then(|| svg(&panels))
}

fn svg(panels: &[(String, Vec<Bar>)]) -> String {
    let (mut body, mut y) = (String::new(), 0.0);
    for (title, bars) in panels {
        y += GAP;
        let _ = writeln!(body, r#"<text x="12" y="{y}" class="title">{}</text>"#, escaped(title));
        let most = bars.iter().map(|bar| bar.spread.max).fold(f64::MIN_POSITIVE, f64::max);
        for bar in bars {
            y += STEP;
            body.push_str(&drawn(bar, y, BARS / most));
        }
    }
    let height = y + GAP / 2.0;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">
<title>Rows a second and latencies, measured by make bench</title>
<style>text {{ font: 12px sans-serif; fill: #24292f }} .title {{ font-weight: bold }} line {{ stroke: #24292f }}</style>
<rect width="{WIDTH}" height="{height}" fill="white"/>
{body}</svg>
"#
    )
}

/// One bar, its foot at `y`; a line over it goes from the least to the most.
fn drawn(bar: &Bar, y: f64, scale: f64) -> String {
    let width = bar.spread.median * scale;
    let (from, to) = (LABELS + bar.spread.min * scale, LABELS + bar.spread.max * scale);
    let (top, middle, text) = (y - BAR + 4.0, y - BAR / 2.0 + 4.0, to.max(LABELS + width) + 6.0);
    let (label, shown, end) = (escaped(&bar.label), escaped(&bar.shown), LABELS - 6.0);
    format!(
        r#"<text x="{end}" y="{y}" text-anchor="end">{label}</text>
<rect x="{LABELS}" y="{top}" width="{width:.1}" height="{BAR}" fill="{}"/>
<line x1="{from:.1}" x2="{to:.1}" y1="{middle}" y2="{middle}"/>
<text x="{text:.1}" y="{y}">{shown}</text>
"#,
        colour(bar.contender)
    )
}

fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Recvlogical(_) | Contender::Copy(_) | Contender::Librdkafka => "#b8c0c8",
        Contender::Tablecast(..) => "#2a9d8f",
        Contender::Debezium { .. } => "#e76f51",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
