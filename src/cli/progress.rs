//! How far tables are that are being read: bars on a terminal, lines where there is none, JSON for programs.
//!
//! Whoever reads tables, or watches somebody who does, gives [`Display::show`] all that it knows as often as it likes;
//! what has not changed is not said again. Bars, lines and notices go to stderr, what it all came to goes to stdout at
//! the end. JSON is the result itself and goes to stdout: a line for each change of a table, and one at the end.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::Failure;
use super::output::{self, bytes};
use crate::postgres::backfills::{BackfillState, Progress};

/// Where there is no terminal, running tables are told so often. What ends is told at once.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// A rate that is measured over less is a guess.
const MIN_MEASURED: Duration = Duration::from_secs(1);
/// Longer names push their bar to the right.
const NAME_WIDTH: usize = 24;

/// How far a table is. Programs rely on the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TableProgress {
    /// Of `tablecast.backfills`, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// As SQL writes it.
    pub table: String,
    pub state: BackfillState,
    #[serde(flatten)]
    pub progress: Progress,
    /// Why it failed.
    pub error: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Shows people or programs how far tables are. Bars that are left are wiped when it is dropped.
pub(super) struct Display {
    how: How,
    started: Instant,
    /// What was shown last, and how fast it is; in the order of the tables.
    shown: Vec<Shown>,
    /// The sum of them.
    all: Pace,
}

enum How {
    Bars(Bars),
    Lines { last: Option<Instant> },
    Json,
}

struct Shown {
    table: TableProgress,
    pace: Pace,
}

impl Display {
    /// For programs, or as it suits what stderr is.
    pub fn new(json: bool) -> Display {
        let how = match json {
            true => How::Json,
            false if io::stderr().is_terminal() => How::Bars(Bars::new(ProgressDrawTarget::stderr())),
            false => How::Lines { last: None },
        };
        Display { how, started: Instant::now(), shown: Vec::new(), all: Pace::default() }
    }

    /// Shows all tables as they are now: always the same ones, in the same order.
    pub fn show(&mut self, tables: &[TableProgress]) -> Result<(), Failure> {
        let now = Instant::now();
        let before: Vec<TableProgress> = self.shown.iter().map(|shown| shown.table.clone()).collect();
        self.remember(tables, now);
        let changed = tables.iter().enumerate().filter(|(at, table)| before.get(*at) != Some(table));
        match &mut self.how {
            How::Json => {
                for (_, table) in changed {
                    output::write(&serde_json::to_string(table)?)?;
                }
            }
            How::Lines { last } => {
                for (_, table) in changed.filter(|(_, table)| table.state.is_ended()) {
                    say(&format!("{}: {}", table.table, words(table, None)));
                }
                if last.is_some_and(|last| now - last < LINE_INTERVAL) {
                    return Ok(());
                }
                *last = Some(now);
                for Shown { table, pace } in &self.shown {
                    if table.state == BackfillState::Running {
                        say(&format!("{}: {}", table.table, words(table, pace.rate(now))));
                    }
                }
            }
            How::Bars(bars) => bars.show(&self.shown, self.all.rate(now), now),
        }
        Ok(())
    }

    fn remember(&mut self, tables: &[TableProgress], now: Instant) {
        self.shown.truncate(tables.len());
        for (at, table) in tables.iter().enumerate() {
            match self.shown.get_mut(at) {
                Some(shown) => shown.table.clone_from(table),
                None => self.shown.push(Shown { table: table.clone(), pace: Pace::default() }),
            }
            if table.state == BackfillState::Running {
                self.shown[at].pace.see(now, table.progress.bytes_read);
            }
        }
        if tables.iter().any(|table| table.state == BackfillState::Running) {
            self.all.see(now, sum(tables).progress.bytes_read);
        }
    }

    /// Says something on stderr, in whatever form.
    pub fn notice(&self, text: &str) {
        match &self.how {
            How::Bars(bars) => bars.multi.suspend(|| say(text)),
            How::Lines { .. } | How::Json => say(text),
        }
    }

    /// Writes what it came to.
    pub fn end(self, tables: &[TableProgress]) -> Result<(), Failure> {
        let text = match self.how {
            How::Json => json(tables)?,
            How::Bars(_) | How::Lines { .. } => human(tables, self.started.elapsed()),
        };
        // The bars go first.
        drop(self);
        output::write(&text)
    }
}

/// The last line for programs.
#[derive(Serialize)]
struct End<'t> {
    /// Whether every table has ended.
    ended: bool,
    rows_written: u64,
    tables: &'t [TableProgress],
}

/// All tables in one line.
pub(super) fn json(tables: &[TableProgress]) -> Result<String, serde_json::Error> {
    let ended = tables.iter().all(|table| table.state.is_ended());
    serde_json::to_string(&End { ended, rows_written: sum(tables).progress.rows_written, tables })
}

/// A line a table, and one for all if there are several.
fn human(tables: &[TableProgress], took: Duration) -> String {
    let line = |table: &TableProgress| format!("{}: {}", table.table, words(table, None));
    let mut lines: Vec<_> = tables.iter().map(line).collect();
    let done = tables.iter().filter(|table| table.state == BackfillState::Done).count();
    let rows = sum(tables).progress.rows_written;
    if tables.len() > 1 {
        lines.push(format!("all: {done} of {} tables done, {rows} rows in {}", tables.len(), time(took)));
    } else if done == 1 {
        lines[0].push_str(&format!(" in {}", time(took)));
    }
    lines.join("\n")
}

/// All tables as if they were one. It has a size only if all have one.
fn sum(tables: &[TableProgress]) -> TableProgress {
    let add = |number: fn(&Progress) -> u64| tables.iter().map(|table| number(&table.progress)).sum();
    let add_known =
        |number: fn(&Progress) -> Option<u64>| tables.iter().map(|table| number(&table.progress)).sum::<Option<u64>>();
    let ended = tables.iter().filter(|table| table.state.is_ended()).count();
    let is_waiting = tables.iter().all(|table| table.state == BackfillState::Requested);
    TableProgress {
        id: None,
        table: format!("all ({ended} of {})", tables.len()),
        state: if is_waiting { BackfillState::Requested } else { BackfillState::Running },
        progress: Progress {
            rows_written: add(|progress| progress.rows_written),
            bytes_read: add(|progress| progress.bytes_read),
            bytes_total: add_known(|progress| progress.bytes_total),
            rows_estimated: add_known(|progress| progress.rows_estimated),
        },
        error: None,
        remedy: None,
    }
}

/// What there is to say of a table, after its name.
fn words(table: &TableProgress, rate: Option<f64>) -> String {
    let rows = table.progress.rows_written;
    match table.state {
        BackfillState::Requested => "waiting for the daemon".to_owned(),
        BackfillState::Running => running(&table.progress, rate),
        BackfillState::Done => format!("done, {rows} rows"),
        BackfillState::Cancelled => format!("cancelled after {rows} rows"),
        BackfillState::Failed => {
            let error = table.error.as_deref().unwrap_or("nobody says why");
            let remedy = table.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
            format!("failed after {rows} rows: {error}{remedy}")
        }
    }
}

fn running(progress: &Progress, rate: Option<f64>) -> String {
    let rows = match progress.rows_estimated {
        // Statistics that are exceeded say nothing more.
        Some(estimated) if estimated >= progress.rows_written => {
            format!("{} of about {estimated} rows", progress.rows_written)
        }
        _ => format!("{} rows", progress.rows_written),
    };
    let read = match progress.bytes_total {
        Some(total) => format!("{} of {}", bytes(progress.bytes_read), bytes(total.max(progress.bytes_read))),
        None => bytes(progress.bytes_read),
    };
    let Some(rate) = rate else { return format!("{rows}, {read}") };
    let speed = format!("{}/s", bytes(rate as u64));
    let left = progress.bytes_total.map(|total| total.saturating_sub(progress.bytes_read)).filter(|_| rate >= 1.0);
    let left = left.map(|left| format!(", {} left", time(Duration::from_secs_f64(left as f64 / rate))));
    format!("{rows}, {read}, {speed}{}", left.unwrap_or_default())
}

/// How long, as people say it.
fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// How fast something is read, since it was first seen: what was read before that was at another's time.
#[derive(Default)]
struct Pace {
    first: Option<(Instant, u64)>,
    read: u64,
}

impl Pace {
    fn see(&mut self, now: Instant, read: u64) {
        self.first.get_or_insert((now, read));
        self.read = read;
    }

    /// Bytes in a second; none before it has been measured for long enough.
    fn rate(&self, now: Instant) -> Option<f64> {
        let (since, read) = self.first?;
        let measured = now.saturating_duration_since(since);
        (measured >= MIN_MEASURED).then(|| self.read.saturating_sub(read) as f64 / measured.as_secs_f64())
    }
}

/// A bar for each table that is being read, so that any number of tables fits the screen, and below them one for all.
struct Bars {
    multi: MultiProgress,
    tables: Vec<Option<ProgressBar>>,
    all: Option<ProgressBar>,
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> Bars {
        Bars { multi: MultiProgress::with_draw_target(target), tables: Vec::new(), all: None }
    }

    fn show(&mut self, shown: &[Shown], rate: Option<f64>, now: Instant) {
        self.tables.resize(shown.len(), None);
        let alone = shown.len() == 1;
        if !alone {
            let all = self.all.get_or_insert_with(|| self.multi.add(bar()));
            let tables: Vec<_> = shown.iter().map(|shown| shown.table.clone()).collect();
            set(all, &sum(&tables), share_of_all(&tables), rate);
        }
        for (Shown { table, pace }, bar_of) in shown.iter().zip(&mut self.tables) {
            let wanted = table.state == BackfillState::Running || (alone && !table.state.is_ended());
            match bar_of.take() {
                None if wanted => {
                    let new = match &self.all {
                        Some(all) => self.multi.insert_before(all, bar()),
                        None => self.multi.add(bar()),
                    };
                    set(&new, table, share(&table.progress), pace.rate(now));
                    *bar_of = Some(new);
                }
                Some(there) if wanted => {
                    set(&there, table, share(&table.progress), pace.rate(now));
                    *bar_of = Some(there);
                }
                Some(there) => {
                    there.finish_and_clear();
                    self.multi.remove(&there);
                }
                None => {}
            }
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // A terminal that is gone needs no wiping.
        let _ = self.multi.clear();
    }
}

fn bar() -> ProgressBar {
    let template = format!("{{prefix:{NAME_WIDTH}}} [{{bar:24}}] {{percent:>3}}% {{wide_msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style.progress_chars("=> "))
}

fn set(bar: &ProgressBar, table: &TableProgress, (position, length): (u64, u64), rate: Option<f64>) {
    bar.set_prefix(table.table.clone());
    bar.set_length(length);
    bar.set_position(position);
    bar.set_message(words(table, rate));
}

/// How much of a bar is filled: by bytes, which are counted, or else by rows, which are estimated; never past its end.
fn share(progress: &Progress) -> (u64, u64) {
    let (position, length) = match (progress.bytes_total, progress.rows_estimated) {
        (Some(total), _) => (progress.bytes_read, total),
        (None, Some(estimated)) => (progress.rows_written, estimated),
        (None, None) => (0, 1),
    };
    // A bar of no length at all would be a full one.
    let length = length.max(1);
    (position.min(length), length)
}

/// The same for all tables: each counts alike, since the sizes of those that wait are not known yet.
fn share_of_all(tables: &[TableProgress]) -> (u64, u64) {
    const EACH: u64 = 1000;
    let of = |table: &TableProgress| match table.state {
        BackfillState::Requested => 0,
        BackfillState::Running => {
            let (position, length) = share(&table.progress);
            (position as f64 / length as f64 * EACH as f64) as u64
        }
        BackfillState::Done | BackfillState::Failed | BackfillState::Cancelled => EACH,
    };
    (tables.iter().map(of).sum(), EACH * tables.len() as u64)
}

/// If stderr is closed, nobody looks.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, state: BackfillState, progress: Progress) -> TableProgress {
        TableProgress { id: Some(7), table: name.to_owned(), state, progress, error: None, remedy: None }
    }

    const SOME: Progress =
        Progress { rows_written: 5, bytes_read: 1 << 20, bytes_total: Some(4 << 20), rows_estimated: Some(20) };

    #[test]
    fn people_read_rows_bytes_rate_and_the_time_left() {
        assert_eq!(running(&SOME, None), "5 of about 20 rows, 1.0 MiB of 4.0 MiB");
        assert_eq!(running(&SOME, Some(65_536.0)), "5 of about 20 rows, 1.0 MiB of 4.0 MiB, 64.0 KiB/s, 48 s left");
        assert_eq!(running(&SOME, Some(0.0)), "5 of about 20 rows, 1.0 MiB of 4.0 MiB, 0 B/s");
        let unknown = Progress { bytes_total: None, rows_estimated: Some(4), ..SOME };
        assert_eq!(running(&unknown, Some(2048.0)), "5 rows, 1.0 MiB, 2.0 KiB/s");
        let grown = Progress { bytes_total: Some(1), ..SOME };
        assert_eq!(running(&grown, Some(1024.0)), "5 of about 20 rows, 1.0 MiB of 1.0 MiB, 1.0 KiB/s, 0 s left");
    }

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        let shown = [0, 59, 60, 3599, 3600, 90_061].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 1 min"]);
    }

    #[test]
    fn a_rate_is_of_what_was_read_since_it_was_first_seen() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.rate(start), None);
        pace.see(start, 1000);
        pace.see(start + MIN_MEASURED / 2, 1100);
        assert_eq!(pace.rate(start + MIN_MEASURED / 2), None);
        assert_eq!(pace.rate(start + Duration::from_secs(2)), Some(50.0));
    }

    #[test]
    fn a_sum_knows_only_what_every_table_knows() {
        let unknown = Progress { rows_estimated: None, ..SOME };
        let tables = [table("a", BackfillState::Done, SOME), table("b", BackfillState::Running, unknown)];
        let sum = sum(&tables);
        assert_eq!((sum.table.as_str(), sum.progress.rows_written), ("all (1 of 2)", 10));
        assert_eq!((sum.progress.bytes_total, sum.progress.rows_estimated), (Some(8 << 20), None));
    }

    #[test]
    fn the_end_has_a_line_a_table() {
        let mut failed = table("public.b", BackfillState::Failed, Progress::default());
        failed.error = Some("no disk".to_owned());
        failed.remedy = Some("buy one".to_owned());
        let done = table("public.a", BackfillState::Done, SOME);
        let cancelled = table("public.c", BackfillState::Cancelled, SOME);
        insta::assert_snapshot!(human(&[done.clone(), failed, cancelled], Duration::from_secs(12)), @r"
        public.a: done, 5 rows
        public.b: failed after 0 rows: no disk; buy one
        public.c: cancelled after 5 rows
        all: 1 of 3 tables done, 10 rows in 12 s
        ");
        assert_eq!(human(&[done], Duration::from_secs(12)), "public.a: done, 5 rows in 12 s");
    }

    #[test]
    fn programs_get_flat_objects() {
        let text = json(&[table("public.a", BackfillState::Requested, SOME)]).unwrap();
        let table = r#"{"id":7,"table":"public.a","state":"requested","rows_written":5,"bytes_read":1048576,"#
            .to_owned()
            + r#""bytes_total":4194304,"rows_estimated":20,"error":null,"remedy":null}"#;
        assert_eq!(text, format!(r#"{{"ended":false,"rows_written":5,"tables":[{table}]}}"#));
    }

    #[test]
    fn a_bar_never_overflows() {
        assert_eq!(share(&SOME), (1 << 20, 4 << 20));
        assert_eq!(share(&Progress { bytes_total: Some(1), ..SOME }), (1, 1));
        assert_eq!(share(&Progress { bytes_total: None, ..SOME }), (5, 20));
        assert_eq!(share(&Progress { bytes_total: Some(0), bytes_read: 0, ..SOME }), (0, 1));
        assert_eq!(share(&Progress::default()), (0, 1));
        use BackfillState::{Failed, Requested, Running};
        let tables = [Failed, Running, Requested].map(|state| table("t", state, SOME));
        assert_eq!(share_of_all(&tables), (1250, 3000));
    }

    #[test]
    fn there_are_bars_for_what_is_being_read_and_for_all() {
        let mut bars = Bars::new(ProgressDrawTarget::hidden());
        let mut show = |states: [BackfillState; 3]| {
            let shown: Vec<_> =
                states.map(|state| Shown { table: table("t", state, SOME), pace: Pace::default() }).into();
            bars.show(&shown, None, Instant::now());
            (bars.tables.iter().map(Option::is_some).collect::<Vec<_>>(), bars.all.is_some())
        };
        use BackfillState::{Done, Requested, Running};
        assert_eq!(show([Running, Requested, Requested]), (vec![true, false, false], true));
        assert_eq!(show([Done, Running, Requested]), (vec![false, true, false], true));
        assert_eq!(show([Done, Done, Done]), (vec![false, false, false], true));
    }
}
