//! What tablecast was to show, workload by workload.

use crate::contender::{Contender, DEBEZIUM, Figures, Outcome, TABLECAST_TCP, TABLECAST_UNIX};
use crate::report::{Report, Target, two_digits};
use crate::services::Via;

/// CPU seconds of the daemon per million rows of the table of eleven columns.
const CPU: f64 = 3.5;
/// The same beside Debezium's, which took 35 where that was set: seconds are the machine's.
const CPU_OF_DEBEZIUMS: f64 = 0.1;
/// Peak memory of the daemon in MiB, in a snapshot and elsewhere.
const SNAPSHOT_MIB: f64 = 64.0;
const MIB: f64 = 48.0;

/// Says what became of the targets for this workload, as far as the contenders took part.
pub fn of(report: &mut Report, workload: &'static str) {
    match workload {
        "drain" => {
            ratio(report, workload, TABLECAST_TCP, Contender::Recvlogical(Via::Tcp), 1.8);
            ratio(report, workload, TABLECAST_UNIX, Contender::Recvlogical(Via::Unix), 0.9);
            ratio(report, workload, TABLECAST_TCP, DEBEZIUM, 1.8);
            cpu(report, workload);
            cpu_of_debeziums(report, workload);
            beside_recvlogical(report, workload);
            memory(report, workload, MIB);
        }
        "big" => {
            ratio(report, workload, TABLECAST_TCP, DEBEZIUM, 2.2);
            ratio(report, workload, TABLECAST_UNIX, DEBEZIUM, 2.8);
            cpu(report, workload);
            cpu_of_debeziums(report, workload);
            memory(report, workload, MIB);
        }
        "snapshot" => {
            ratio(report, workload, TABLECAST_TCP, Contender::Copy(Via::Tcp), 0.5);
            ratio(report, workload, TABLECAST_UNIX, Contender::Copy(Via::Unix), 0.5);
            memory(report, workload, SNAPSHOT_MIB);
        }
        _ => memory(report, workload, MIB),
    }
}

/// The rates of two contenders; the median of the rounds counts.
fn ratio(report: &mut Report, workload: &'static str, of: Contender, to: Contender, least: f64) {
    beside(report, workload, &of.shown(), (of, to), |outcome| outcome.rate, Target::AtLeast(least));
}

/// A figure of one contender as a ratio to another's.
fn beside(
    report: &mut Report,
    workload: &'static str,
    shown: &str,
    (of, to): (Contender, Contender),
    figure: impl Fn(&Outcome) -> f64,
    target: Target,
) {
    let Some(spread) = report.figures.ratio(workload, of, to, figure) else { return };
    let what = format!("{workload}: {shown} / {}, {}", to.shown(), spread.shown(two_digits));
    report.target(&what, spread.median, target);
}

fn cpu(report: &mut Report, workload: &'static str) {
    if let Some(worst) = worst(&report.figures, workload, |outcome| outcome.cpu) {
        let what = format!("{workload}: CPU seconds of the daemon per million rows, the worst run");
        report.target(&what, worst, Target::AtMost(CPU));
    }
}

fn cpu_of_debeziums(report: &mut Report, workload: &'static str) {
    for of in [TABLECAST_TCP, TABLECAST_UNIX] {
        let (shown, target) = (format!("CPU, {}", of.shown()), Target::AtMost(CPU_OF_DEBEZIUMS));
        beside(report, workload, &shown, (of, DEBEZIUM), |outcome| outcome.cpu, target);
    }
}

/// Seconds are the machine's; what the daemon takes beside a program that only reads the stream is not.
fn beside_recvlogical(report: &mut Report, workload: &'static str) {
    for (of, via) in [(TABLECAST_TCP, Via::Tcp), (TABLECAST_UNIX, Via::Unix)] {
        let to = Contender::Recvlogical(via);
        if let Some(spread) = report.figures.ratio(workload, of, to, |outcome| outcome.cpu) {
            report.line(format!("- {workload}: CPU, {} / {}: {}", of.shown(), to.shown(), spread.shown(two_digits)));
        }
    }
}

fn memory(report: &mut Report, workload: &'static str, most: f64) {
    if let Some(worst) = worst(&report.figures, workload, |outcome| outcome.peak_mib.unwrap_or(f64::NAN)) {
        let what = format!("{workload}: peak memory of the daemon in MiB, the worst run");
        report.target(&what, worst, Target::AtMost(most));
    }
}

fn worst(figures: &Figures, workload: &'static str, figure: impl Fn(&Outcome) -> f64) -> Option<f64> {
    let of_tablecast =
        figures.of(workload).filter(|outcome| matches!(outcome.contender, Contender::Tablecast(..))).map(figure);
    of_tablecast.max_by(f64::total_cmp)
}
