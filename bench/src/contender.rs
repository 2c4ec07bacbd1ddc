//! Who takes part, and what is measured of each run.

use std::time::Duration;

use clap::ValueEnum;

use crate::daemon::Delivery;
use crate::debezium::Format;
use crate::process::{Ended, Usage};
use crate::report::Spread;
use crate::services::Via;
use crate::topic::Content;

/// A group of contenders, to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// pg_recvlogical, COPY, librdkafka alone
    Limits,
    Tablecast,
    Debezium,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// To /dev/null: the limit of the stream.
    Recvlogical(Via),
    /// To /dev/null: the limit of the snapshot.
    Copy(Via),
    /// Alone: the limit of the latency.
    Librdkafka,
    Tablecast(Via, Delivery),
    Debezium {
        exactly_once: bool,
        format: Format,
    },
}

/// The two of each that the verdicts are about.
pub const TABLECAST_TCP: Contender = Contender::Tablecast(Via::Tcp, Delivery::ExactlyOnce);
pub const TABLECAST_UNIX: Contender = Contender::Tablecast(Via::Unix, Delivery::ExactlyOnce);
pub const DEBEZIUM: Contender = Contender::Debezium { exactly_once: true, format: Format::Avro };
pub const DEBEZIUM_AT_LEAST_ONCE: Contender = Contender::Debezium { exactly_once: false, format: Format::Avro };
pub const DEBEZIUM_JSON: Contender = Contender::Debezium { exactly_once: false, format: Format::Json };

impl Contender {
    pub fn family(self) -> Family {
        match self {
            Contender::Recvlogical(_) | Contender::Copy(_) | Contender::Librdkafka => Family::Limits,
            Contender::Tablecast(..) => Family::Tablecast,
            Contender::Debezium { .. } => Family::Debezium,
        }
    }

    /// For people.
    pub fn shown(self) -> String {
        match self {
            Contender::Recvlogical(via) => format!("pg_recvlogical, {}", via.shown()),
            Contender::Copy(via) => format!("COPY by psql, {}", via.shown()),
            Contender::Librdkafka => "librdkafka alone".to_owned(),
            Contender::Tablecast(via, Delivery::ExactlyOnce) => format!("tablecast, {}", via.shown()),
            Contender::Tablecast(via, delivery) => format!("tablecast {}, {}", delivery.written(), via.shown()),
            Contender::Debezium { exactly_once: true, format: Format::Avro } => "Debezium, TCP".to_owned(),
            Contender::Debezium { exactly_once, format } => {
                let delivery = if exactly_once { "exactly-once" } else { "at-least-once" };
                let format = if format == Format::Json { ", schemaless JSON" } else { "" };
                format!("Debezium {delivery}{format}, TCP")
            }
        }
    }

    /// For names of slots and connectors.
    pub fn short(self) -> String {
        match self {
            Contender::Recvlogical(via) => format!("recv-{}", via.short()),
            Contender::Copy(via) => format!("copy-{}", via.short()),
            Contender::Librdkafka => "alone".to_owned(),
            Contender::Tablecast(via, Delivery::ExactlyOnce) => format!("once-{}", via.short()),
            Contender::Tablecast(via, Delivery::AtLeastOnce) => format!("least-{}", via.short()),
            Contender::Debezium { exactly_once, format } => {
                let format = if format == Format::Json { "json" } else { "avro" };
                format!("dbz-{}-{format}", if exactly_once { "once" } else { "least" })
            }
        }
    }
}

/// A contender, and how often it runs.
#[derive(Clone, Copy)]
pub struct Entry {
    pub contender: Contender,
    pub runs: usize,
}

/// Of those that were asked for, round after round: what disturbs the machine for a while disturbs all of them.
pub fn rounds(entries: &[Entry]) -> impl Iterator<Item = (usize, Contender)> {
    let most = entries.iter().map(|entry| entry.runs).max().unwrap_or(0);
    (1..=most).flat_map(move |round| {
        entries.iter().filter(move |entry| entry.runs >= round).map(move |entry| (round, entry.contender))
    })
}

/// What was measured in one run.
#[derive(Clone)]
pub struct Outcome {
    pub contender: Contender,
    /// Rows a second, from the first that were seen to the last; where there is only an end, from the start.
    pub rate: f64,
    /// Of the second half, where it was looked at.
    pub warm_rate: Option<f64>,
    /// Rows a second from the start of the process.
    pub whole_rate: f64,
    /// From the start of the process to the first rows.
    pub startup: Option<Duration>,
    /// CPU seconds per million rows. Of a JVM without its start.
    pub cpu: f64,
    pub peak_mib: Option<f64>,
    pub usage: Usage,
    /// CPU seconds of the walsender.
    pub walsender_cpu: Option<f64>,
    /// Bytes of keys and values a record, and bytes on the broker's disk a record.
    pub payload: Option<f64>,
    pub stored: Option<f64>,
    /// Kafka's transactions.
    pub transactions: Option<u64>,
}

impl Outcome {
    /// Of a program that does nothing else.
    pub fn of_program(contender: Contender, rows: u64, ended: &Ended) -> Self {
        let rate = rows as f64 / ended.took.as_secs_f64();
        Self {
            contender,
            rate,
            warm_rate: None,
            whole_rate: rate,
            startup: None,
            cpu: ended.usage.cpu() * 1e6 / rows as f64,
            peak_mib: None,
            usage: ended.usage,
            walsender_cpu: None,
            payload: None,
            stored: None,
            transactions: None,
        }
    }

    /// Adds what the topics hold: their contents together, and their bytes on disk.
    pub fn with_contents(mut self, contents: &[Content], stored: Option<u64>) -> Self {
        let records: u64 = contents.iter().map(|content| content.records).sum();
        self.payload = Some(contents.iter().map(|content| content.bytes).sum::<u64>() as f64 / records as f64);
        self.stored = stored.map(|bytes| bytes as f64 / records as f64);
        self.transactions = contents.iter().map(|content| content.gaps).max();
        self
    }
}

/// All that was measured, by workload.
#[derive(Default)]
pub struct Figures {
    runs: Vec<(&'static str, Outcome)>,
}

impl Figures {
    pub fn add(&mut self, workload: &'static str, outcome: Outcome) {
        self.runs.push((workload, outcome));
    }

    /// The runs of a workload.
    pub fn of(&self, workload: &'static str) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter(move |(name, _)| *name == workload).map(|(_, outcome)| outcome)
    }

    /// The spread of a figure over a contender's runs.
    pub fn spread(
        &self,
        workload: &'static str,
        contender: Contender,
        figure: impl Fn(&Outcome) -> f64,
    ) -> Option<Spread> {
        let figures: Vec<f64> =
            self.of(workload).filter(|outcome| outcome.contender == contender).map(figure).collect();
        (!figures.is_empty()).then(|| Spread::of(figures))
    }

    /// The contenders of a workload, in the order in which they first ran.
    pub fn contenders(&self, workload: &'static str) -> Vec<Contender> {
        let mut contenders = Vec::new();
        for outcome in self.of(workload) {
            if !contenders.contains(&outcome.contender) {
                contenders.push(outcome.contender);
            }
        }
        contenders
    }

    /// The spread of the ratio of two contenders' rates; round by round, since both were disturbed alike.
    pub fn ratio(
        &self,
        workload: &'static str,
        of: Contender,
        to: Contender,
        rate: impl Fn(&Outcome) -> f64,
    ) -> Option<Spread> {
        let rates = |contender: Contender| -> Vec<f64> {
            self.of(workload).filter(|outcome| outcome.contender == contender).map(&rate).collect()
        };
        let ratios: Vec<f64> = rates(of).iter().zip(rates(to)).map(|(of, to)| of / to).collect();
        (!ratios.is_empty()).then(|| Spread::of(ratios))
    }
}
