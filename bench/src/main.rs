//! Measures tablecast, by its outer contract, against real services: `bench/run` starts them.
//!
//! A figure counts only if the work was done: every measurement ends with a consumer of its own that reads the topic
//! and finds each row once.

mod chart;
mod contender;
mod daemon;
mod debezium;
mod drain;
mod http;
mod latency;
mod limits;
mod process;
mod recvlogical;
mod report;
mod services;
mod snapshot;
mod source;
mod split;
mod stored;
mod topic;
mod verdicts;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use contender::{
    Contender, DEBEZIUM, DEBEZIUM_AT_LEAST_ONCE, DEBEZIUM_JSON, Entry, Family, TABLECAST_TCP, TABLECAST_UNIX,
};
use daemon::Delivery;
use latency::Load;
use report::{CHART, Report};
use services::{Services, Via};
use snapshot::Part;
use workload::Workload;

/// Measures tablecast, and what it is compared with, against real services
#[derive(Parser)]
struct Cli {
    /// The daemon
    #[arg(long, default_value = "target/release/tablecast", global = true)]
    tablecast: PathBuf,
    /// Where configurations, logs and the report go
    #[arg(long, default_value = "target/bench", global = true)]
    work: PathBuf,
    /// Writes the report into bench/ as well, for others to read
    #[arg(long, global = true)]
    publish: bool,
    /// Only these take part; may be given more than once
    #[arg(long, value_name = "WHO", global = true)]
    only: Vec<Family>,
    /// A librdkafka property for the daemon's configuration; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    kafka_property: Vec<String>,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// A backlog of one-row transactions [1,000,000 rows, 3 runs]
    Drain(Size),
    /// One transaction that holds all rows [2,000,000 rows, 2 runs]
    Big(Size),
    /// 60 % updates, 25 % inserts, 15 % deletes [600,000 rows, 2 runs]
    Mix(Size),
    /// Rows that hold a document of 2 KB [150,000 rows, 2 runs]
    Jsonb(Size),
    /// Rows of 100 columns [100,000 rows, 2 runs]
    Wide(Size),
    /// Rows of 50 tables in turn [500,000 rows, 2 runs]
    Many(Size),
    /// Two tables, drained by one connector and by two [500,000 rows, 2 runs]
    Split(Size),
    /// The first rows of a table: how fast beside COPY, what the stream's rows suffer from it, and what a crash costs
    /// [2,000,000 rows, 3 runs]
    Snapshot {
        #[command(flatten)]
        size: Size,
        /// A part of it; may be given more than once
        #[arg(long)]
        part: Vec<Part>,
    },
    /// From a row's commit to a consumer of committed records
    Latency(Pace),
    /// librdkafka alone, COPY alone
    Limits {
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
    },
    /// Everything with its defaults
    All {
        /// Smaller and shorter: figures to look at, not to quote
        #[arg(long)]
        quick: bool,
        /// Begins with this part
        #[arg(long, value_name = "PART", conflicts_with = "quick")]
        from: Option<All>,
    },
}

/// The parts of everything, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum All {
    Limits,
    Drain,
    Big,
    Mix,
    Jsonb,
    Wide,
    Many,
    Split,
    Snapshot,
    Latency,
}

/// How much, and how often.
#[derive(Args)]
struct Size {
    /// Rows, or changes of them
    #[arg(long)]
    rows: Option<u64>,
    /// Of each contender; those that are told beside the main ones run twice at most
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    runs: Option<u64>,
}

impl Size {
    /// What was asked for, or else so much.
    fn or(&self, rows: u64, runs: u64) -> (u64, u64) {
        (self.rows.unwrap_or(rows), self.runs.unwrap_or(runs))
    }
}

#[derive(Args)]
struct Pace {
    /// Rows a second, each a transaction
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// A broker that has just been started commits ten times slower, until its code is compiled
    #[arg(long, default_value_t = 20)]
    warm_up_seconds: u64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Among which the rows are dealt out
    #[arg(long, default_value_t = 4)]
    connections: u64,
}

impl Pace {
    fn load(&self) -> Load {
        let Self { rate, warm_up_seconds, seconds, connections } = *self;
        let (warm_up, lasts) = (Duration::from_secs(warm_up_seconds), Duration::from_secs(seconds));
        Load { rate, warm_up, lasts, connections }
    }
}

/// What every measurement needs.
pub struct Bench {
    pub services: Services,
    pub tablecast: PathBuf,
    pub work: PathBuf,
    /// librdkafka's, for the daemon, as `NAME=VALUE`.
    pub kafka_properties: Vec<String>,
    /// Who takes part; all if none is named.
    pub only: Vec<Family>,
    /// Keeps names of databases, connectors and topics apart from those of an earlier call.
    pub tag: String,
}

impl Bench {
    fn takes_part(&self, family: Family) -> bool {
        self.only.is_empty() || self.only.contains(&family)
    }

    /// Those that take part: the main contenders as often as asked, those beside them twice at most.
    fn entries(&self, main: &[Contender], beside: &[Contender], runs: u64) -> Vec<Entry> {
        let runs = runs as usize;
        let main = main.iter().map(|contender| Entry { contender: *contender, runs });
        let beside = beside.iter().map(|contender| Entry { contender: *contender, runs: runs.min(2) });
        main.chain(beside).filter(|entry| self.takes_part(entry.contender.family())).collect()
    }
}

/// Polls until it is so.
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("waited {limit:?} in vain");
        }
        std::thread::sleep(daemon::POLL);
    }
    Ok(())
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    std::fs::create_dir_all(&cli.work).with_context(|| format!("could not make {}", cli.work.display()))?;
    let bench = Bench {
        services: Services::from_environment()?,
        tablecast: cli.tablecast,
        work: cli.work,
        kafka_properties: cli.kafka_property,
        only: cli.only,
        tag: format!("{:06x}", fastrand::u32(..1 << 24)),
    };
    let mut report = Report::default();
    report.line("# Measured by `make bench`\n");
    for line in services::machine_and_versions(&bench.services)? {
        report.line(format!("- {line}"));
    }
    report.line(format!("\n{CHART}"));
    report.line(LEGEND);
    let measured = measure(&bench, &mut report, &cli.measure);
    report.verdicts();
    report.write(&bench.work)?;
    if cli.publish && measured.is_ok() {
        report.write(Path::new("bench"))?;
    }
    measured
}

const LEGEND: &str = "
Everybody reads the same backlog, each from a slot of his own, and writes to a topic of one partition, lz4, acks=all. \
tablecast and Debezium deliver exactly once, as Avro through the registry, unless the line says otherwise. A figure is the \
median of its runs, with the least and the greatest in parentheses.

Debezium runs in a Kafka Connect of its own (distributed, 2 GB of heap) with flat records (`ExtractNewRecordState`), \
`max.batch.size` 8192, `max.queue.size` 32768, `poll.interval.ms` 20, a producer with `linger.ms` 20 and `batch.size` \
512 KB; its schemas are registered before. Its CPU is counted from its first records on, without the JVM's start.";

fn measure(bench: &Bench, report: &mut Report, measure: &Measure) -> Result<()> {
    match measure {
        Measure::Drain(size) => All::Drain.measure(bench, report, size),
        Measure::Big(size) => All::Big.measure(bench, report, size),
        Measure::Mix(size) => All::Mix.measure(bench, report, size),
        Measure::Jsonb(size) => All::Jsonb.measure(bench, report, size),
        Measure::Wide(size) => All::Wide.measure(bench, report, size),
        Measure::Many(size) => All::Many.measure(bench, report, size),
        Measure::Split(size) => All::Split.measure(bench, report, size),
        Measure::Snapshot { size, part } if part.is_empty() => All::Snapshot.measure(bench, report, size),
        Measure::Snapshot { size, part } => {
            let (rows, runs) = All::Snapshot.size(size);
            snapshot_of(bench, report, rows, runs, part)
        }
        Measure::Latency(pace) => latencies(bench, report, pace.load()),
        Measure::Limits { rows } => limits::run(bench, report, *rows),
        Measure::All { quick: true, .. } => quick(bench, report),
        Measure::All { quick: false, from } => all(bench, report, from.unwrap_or(All::Limits)),
    }
}

/// How many tables the rows of `many` go to.
const TABLES: u64 = 50;

/// The contenders of a drain: all of them where rows are what is measured, the main ones where a kind of row is.
fn drained(bench: &Bench, report: &mut Report, workload: &Workload, runs: u64) -> Result<()> {
    let recvlogical = Via::BOTH.map(Contender::Recvlogical);
    let main = [recvlogical[0], recvlogical[1], TABLECAST_TCP, TABLECAST_UNIX, DEBEZIUM];
    let beside = [
        Contender::Tablecast(Via::Tcp, Delivery::AtLeastOnce),
        Contender::Tablecast(Via::Unix, Delivery::AtLeastOnce),
        DEBEZIUM_AT_LEAST_ONCE,
        DEBEZIUM_JSON,
    ];
    let beside = if matches!(workload.name, "drain" | "big") { &beside[..] } else { &[] };
    drain::run(bench, report, workload, &bench.entries(&main, beside, runs))?;
    verdicts::of(report, workload.name);
    Ok(())
}

fn snapshot_of(bench: &Bench, report: &mut Report, rows: u64, runs: u64, parts: &[Part]) -> Result<()> {
    let copy = Via::BOTH.map(Contender::Copy);
    // Each right after the COPY that it is compared with.
    let main = [copy[0], TABLECAST_TCP, copy[1], TABLECAST_UNIX];
    let entries = bench.entries(&main, &[DEBEZIUM_AT_LEAST_ONCE, DEBEZIUM_JSON], runs);
    snapshot::run(bench, report, rows, &entries, parts)
}

fn latencies(bench: &Bench, report: &mut Report, load: Load) -> Result<()> {
    for family in [Family::Limits, Family::Tablecast, Family::Debezium] {
        if bench.takes_part(family) {
            latency::run(bench, report, load, family)?;
        }
    }
    Ok(())
}

/// One part after the other; one that fails doesn't take the others with it.
fn all(bench: &Bench, report: &mut Report, from: All) -> Result<()> {
    let mut failed = Vec::new();
    for part in All::value_variants().iter().filter(|part| **part >= from) {
        if let Err(error) = part.measure(bench, report, &Size { rows: None, runs: None }) {
            eprintln!("{part:?}: {error:?}");
            report.line(format!("**{part:?} failed**: {error:#}\n"));
            failed.push(format!("{part:?}"));
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

impl All {
    /// Rows and runs: as asked for, or this part's own.
    fn size(self, size: &Size) -> (u64, u64) {
        match self {
            All::Limits | All::Latency => size.or(1_000_000, 1),
            All::Drain => size.or(1_000_000, 3),
            All::Big => size.or(2_000_000, 2),
            All::Mix => size.or(600_000, 2),
            All::Jsonb => size.or(150_000, 2),
            All::Wide => size.or(100_000, 2),
            All::Many | All::Split => size.or(500_000, 2),
            All::Snapshot => size.or(2_000_000, 3),
        }
    }

    fn measure(self, bench: &Bench, report: &mut Report, size: &Size) -> Result<()> {
        let (rows, runs) = self.size(size);
        match self {
            All::Limits if !bench.takes_part(Family::Limits) => Ok(()),
            All::Split if !bench.takes_part(Family::Tablecast) => Ok(()),
            All::Limits => limits::run(bench, report, rows),
            All::Drain => drained(bench, report, &Workload::row_by_row(rows), runs),
            All::Big => drained(bench, report, &Workload::at_once(rows), runs),
            All::Mix => drained(bench, report, &Workload::mix(rows), runs),
            All::Jsonb => drained(bench, report, &Workload::documents(rows), runs),
            All::Wide => drained(bench, report, &Workload::wide(rows), runs),
            All::Many => drained(bench, report, &Workload::many(TABLES, rows), runs),
            All::Split => split::run(bench, report, rows, runs),
            All::Snapshot => snapshot_of(bench, report, rows, runs, Part::ALL),
            All::Latency => [(1_000, 4), (10_000, 8)].into_iter().try_for_each(|(rate, connections)| {
                let pace = Pace { rate, warm_up_seconds: 20, seconds: 30, connections };
                latencies(bench, report, pace.load())
            }),
        }
    }
}

/// Each contender once, over what says most.
fn quick(bench: &Bench, report: &mut Report) -> Result<()> {
    drained(bench, report, &Workload::row_by_row(300_000), 1)?;
    drained(bench, report, &Workload::mix(100_000), 1)?;
    snapshot_of(bench, report, 500_000, 1, &[Part::Speed])?;
    let pace = Pace { rate: 1_000, warm_up_seconds: 10, seconds: 10, connections: 4 };
    latencies(bench, report, pace.load())
}
