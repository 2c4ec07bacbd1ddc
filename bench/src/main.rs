//! Measures tablecast, by its outer contract, against real services: `bench/run` starts them.
//!
//! A figure counts only if the work was done: every measurement ends with a consumer of its own that reads the topic
//! and finds each row once.

mod daemon;
mod drain;
mod latency;
mod limits;
mod process;
mod recvlogical;
mod report;
mod services;
mod snapshot;
mod source;
mod stored;
mod topic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use latency::Load;
use report::Report;
use services::Services;
use snapshot::Part;

/// Measures tablecast against real services
#[derive(Parser)]
struct Cli {
    /// The daemon
    #[arg(long, default_value = "target/release/tablecast", global = true)]
    tablecast: PathBuf,
    /// Where configurations, logs and the report go
    #[arg(long, default_value = "target/bench", global = true)]
    work: PathBuf,
    /// A librdkafka property for the daemon's configuration; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    kafka_property: Vec<String>,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// A backlog of one-row transactions, against pg_recvlogical
    Drain {
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
        /// Over each of TCP and the Unix socket
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
        runs: u64,
    },
    /// One transaction that holds all rows
    Big {
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        /// Over each of TCP and the Unix socket
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=7))]
        runs: u64,
    },
    /// The first rows of a table: how fast beside COPY, what the stream's rows suffer from it, and what a crash costs
    Snapshot {
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        /// Over each of TCP and the Unix socket
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
        runs: u64,
        /// A part of it; may be given more than once
        #[arg(long)]
        only: Vec<Part>,
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
    },
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
    /// Keeps names of databases, connectors and topics apart from those of an earlier call.
    pub tag: String,
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
        tag: format!("{:06x}", fastrand::u32(..1 << 24)),
    };
    let mut report = Report::default();
    report.line("# Measured by `make bench`\n");
    for line in services::machine_and_versions(&bench.services)? {
        report.line(format!("- {line}"));
    }
    let measured = measure(&bench, &mut report, &cli.measure);
    report.write(&bench.work.join("report.md"))?;
    measured
}

fn measure(bench: &Bench, report: &mut Report, measure: &Measure) -> Result<()> {
    match measure {
        Measure::Drain { rows, runs } => drain::row_by_row(bench, report, *rows, usize::try_from(*runs)?),
        Measure::Big { rows, runs } => drain::at_once(bench, report, *rows, usize::try_from(*runs)?),
        Measure::Snapshot { rows, runs, only } => {
            let parts = if only.is_empty() { Part::ALL } else { only };
            snapshot::run(bench, report, *rows, usize::try_from(*runs)?, parts)
        }
        Measure::Latency(pace) => latency::run(bench, report, pace.load()),
        Measure::Limits { rows } => limits::run(bench, report, *rows),
        Measure::All { quick } => all(bench, report, *quick),
    }
}

fn all(bench: &Bench, report: &mut Report, quick: bool) -> Result<()> {
    let (rows, big, runs, seconds) = if quick { (200_000, 200_000, 1, 10) } else { (1_000_000, 2_000_000, 3, 30) };
    drain::row_by_row(bench, report, rows, runs)?;
    drain::at_once(bench, report, big, 1)?;
    snapshot::run(bench, report, big, runs, Part::ALL)?;
    let pace = Pace { rate: 1_000, warm_up_seconds: 20, seconds, connections: 4 };
    latency::run(bench, report, pace.load())?;
    limits::run(bench, report, rows)
}
