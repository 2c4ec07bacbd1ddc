//! The fault test: the daemon is killed again and again under a steady mixed load, Kafka and Postgres are restarted
//! and crashed beside it, and in the end every topic is its table, with no record twice and no transaction in part.
//!
//! It brings services of its own and prints its seed. Environment:
//!
//! - `TABLECAST_FAULT_SEED`: the seed, to do the same once more (as far as the machine's timing lets it);
//! - `TABLECAST_FAULT_KILLS`: how often the daemon is killed, 25 by default;
//! - `TABLECAST_FAULT_KEEP`: leaves the services and the logs where they are.
//!
//! How it knows. The load plans each transaction before it runs it, and keeps a ledger of what was committed ([`load`],
//! [`ledger`]): per key, the versions and tombstones in commit order. What consumers of their own have seen is compared
//! with the ledger ([`checker`]). Atomicity is looked at when the daemon is dead and nothing is under way, for then
//! what is visible stands still: a consumer that polls several partitions can't see them at one moment otherwise.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

/// Says it now, even if the test passes: libtest keeps only what `print!` prints.
macro_rules! say {
    ($($words:tt)*) => {
        {
            use std::io::Write;
            // Nobody may be listening.
            let _ = writeln!(std::io::stderr(), $($words)*);
        }
    };
}

mod chaos;
mod checker;
mod daemon;
mod decode;
mod ledger;
mod load;
#[allow(dead_code, reason = "the merge test uses the rest")]
mod logs;
mod patience;
mod plan;
mod reader;
mod services;
mod tables;

use std::env;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use checker::{Extent, check, compare_rows};
use daemon::{Daemon, Daemons};
use fastrand::Rng;
use load::Load;
use patience::{let_run_for, wait_until};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use reader::{Addresses, EndReader, SteadyReader, tallies, topic};
use services::Services;
use tables::TABLES;

const KILLS: usize = 25;
/// So many kills apart, what is visible is compared with the ledger while the daemon is dead.
const KILLS_PER_LOOK: usize = 4;
/// A daemon that never commits anything between its deaths would prove nothing.
const LOOKS_PER_ADVANCE: usize = 4;
/// A transaction that is being committed when the daemon dies, or the broker, is settled by the broker by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
const FIRST_ROWS_WITHIN: Duration = Duration::from_secs(60);
/// No single record in that time is no progress: longer than any timeout and backoff on the way.
const PROGRESS_WITHIN: Duration = Duration::from_secs(90);
const TERMINATED_WITHIN: Duration = Duration::from_secs(10);
/// More lines say no more.
const COMPLAINTS_SHOWN: usize = 20;

/// Everything that takes part. Dropped from first to last: daemons and readers end before the services do.
struct Arena {
    steady: SteadyReader,
    ends: EndReader,
    load: Load,
    daemons: Daemons,
    addresses: Addresses,
    services: Arc<Mutex<Services>>,
    _story: Story,
}

/// What has been done to the daemon, and what it has done in between.
#[derive(Default)]
struct Storm {
    kills: usize,
    disturbed: usize,
    looks: usize,
    /// Looks that saw more than the one before.
    advances: usize,
    /// Records at the last look.
    seen: usize,
}

/// What to say and where things lie if the test fails.
struct Story {
    seed: u64,
    folder: PathBuf,
    log: PathBuf,
    kept: bool,
}

#[test]
fn every_topic_is_its_table_whatever_is_killed_and_whenever() {
    let began = Instant::now();
    let seed = number("TABLECAST_FAULT_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let kills = number("TABLECAST_FAULT_KILLS").map_or(KILLS, |kills| kills as usize);
    say!("fault test: TABLECAST_FAULT_SEED={seed} TABLECAST_FAULT_KILLS={kills}");
    let mut rng = Rng::with_seed(seed);
    let mut arena = Arena::open(seed);
    let daemon = arena.see_first_rows();
    arena.load.start(&mut rng);
    let storm = arena.storm(daemon, kills, &mut rng);
    let Storm { kills, disturbed, looks, advances, .. } = storm;
    assert!(advances * LOOKS_PER_ADVANCE >= looks, "the daemon got on between {advances} of {looks} looks only");
    let mut daemon = arena.daemons.start();
    let_run_for(Duration::from_secs(1));
    arena.load.stop();
    arena.catch_up(&mut daemon);
    let ended = daemon.terminate(TERMINATED_WITHIN);
    arena.judge();
    let ledger = arena.load.ledger();
    let (rolled_back, looked_up) = arena.load.others();
    say!(
        "fault test passed: seed {seed}, {kills} kills, {disturbed} restarts and crashes of Kafka and Postgres, \
         {} transactions ({rolled_back} more rolled back, {looked_up} looked up), {} row changes, {} records, SIGTERM \
         took {ended:.1?}, all in all {:.0?}",
        ledger.transactions(),
        ledger.row_changes(),
        ledger.records().iter().sum::<u64>(),
        began.elapsed()
    );
}

impl Arena {
    fn open(seed: u64) -> Self {
        let kept = env::var_os("TABLECAST_FAULT_KEEP").is_some();
        let folder = tempfile::Builder::new().prefix("tablecast-fault-").tempdir().unwrap().keep();
        let log = folder.join("daemon.log");
        let story = Story { seed, folder: folder.clone(), log: log.clone(), kept };
        let services = Services::up(log.clone(), kept);
        let addresses = Addresses { kafka: services.kafka(), registry: services.registry() };
        let url = services.postgres_url();
        let load = Load::prepare(&url);
        load.handle().block_on(create_topics(&addresses.kafka));
        let daemons = Daemons::new(&folder, log, &config(&url, &addresses));
        let (steady, ends) = (SteadyReader::start(&addresses), EndReader::new(&addresses));
        Self { steady, ends, load, daemons, addresses, services: Arc::new(Mutex::new(services)), _story: story }
    }

    /// The daemon has found its tables empty and streams: there is nothing to snapshot, and each record is a change.
    fn see_first_rows(&self) -> Daemon {
        let mut daemon = self.daemons.start();
        wait_until("the daemon stores its first position", FIRST_ROWS_WITHIN, || {
            daemon.check_alive();
            self.ends.has_position()
        });
        self.load.first_rows();
        wait_until("the first rows arrive", FIRST_ROWS_WITHIN, || {
            daemon.check_alive();
            !self.steady.seen().is_empty()
        });
        daemon
    }

    /// Kills the daemon until that has been done often enough and the services are through with their own troubles.
    fn storm(&mut self, mut daemon: Daemon, kills: usize, rng: &mut Rng) -> Storm {
        let disturber = chaos::Disturber::start(&self.services, kills, rng.fork());
        let mut storm = Storm { disturbed: disturber.count, ..Storm::default() };
        let mut look_due = false;
        while storm.kills < kills || !disturber.is_done() {
            daemon.let_run_for(chaos::life(rng));
            daemon.kill();
            storm.kills += 1;
            look_due |= storm.kills.is_multiple_of(KILLS_PER_LOOK);
            // While the services are being disturbed the daemon is to be killed on; the look comes after a later kill.
            if look_due && self.services.try_lock().is_ok() {
                self.look(&mut storm);
                look_due = false;
            }
            daemon = self.daemons.start();
        }
        daemon.kill();
        storm.kills += 1;
        self.look(&mut storm);
        disturber.finish();
        storm
    }

    /// The daemon is dead, and the load stands still: every transaction must be visible as a whole, or not at all.
    fn look(&mut self, storm: &mut Storm) {
        let services = Arc::clone(&self.services);
        let _calm = services.lock().unwrap();
        let _held = self.load.hold();
        let mut complaints = Vec::new();
        let deadline = Instant::now() + SETTLED_WITHIN;
        // What the broker is still about to finish is not wrong yet; what stays wrong, is.
        while Instant::now() < deadline {
            wait_until("the steady reader sees what is visible", SETTLED_WITHIN, || {
                // A broker that has just started may still be writing markers: the ends move.
                self.ends.advance() == tallies(&self.steady.seen())
            });
            complaints = check(&self.load.ledger(), &self.steady.seen(), Extent::SoFar);
            if complaints.is_empty() {
                break;
            }
        }
        assert_none(&complaints, "while the daemon is dead");
        let (seen, all) = (self.steady.seen().len(), self.load.ledger().records().iter().sum::<u64>());
        say!("  {} kills: {seen} of {all} records visible, every transaction whole or not at all", storm.kills);
        storm.looks += 1;
        storm.advances += usize::from(seen > storm.seen);
        storm.seen = seen;
    }

    fn catch_up(&self, daemon: &mut Daemon) {
        let all = self.load.ledger().records().iter().sum::<u64>() as usize;
        loop {
            let before = self.steady.seen().len();
            if before >= all {
                break;
            }
            wait_until(&format!("a record after {before} of {all}"), PROGRESS_WITHIN, || {
                daemon.check_alive();
                self.steady.seen().len() > before
            });
        }
    }

    /// All is quiet: the topics, as two consumers have them, against the ledger and the tables.
    fn judge(&self) {
        let (seen, folded) = reader::read_all(&self.addresses);
        let ledger = self.load.ledger();
        assert_none(&check(&ledger, &seen, Extent::All), "by who reads the topics afterwards");
        assert_none(&check(&ledger, &self.steady.seen(), Extent::All), "by who has read them all the time");
        assert_none(&self.steady.faults(), "by Kafka, to who has read all the time");
        for (table, folded) in folded.iter().enumerate() {
            let records = seen.iter().filter(|record| record.place.table == table).count() as u64;
            assert_eq!(records, ledger.records()[table], "records of {}", topic(table));
            let rows = self.load.rows(table);
            assert_none(&compare_rows(table, &rows, folded), "by who folds the topic");
            say!("  {}: {records} records, {} rows, topic = table", topic(table), rows.len());
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say!("fault test failed: TABLECAST_FAULT_SEED={}", self.seed);
            say!("the end of the daemon's log ({}):\n{}", self.log.display(), logs::tail(&self.log));
        } else if !self.kept {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// The topics are there beforehand: one has several partitions, and no record is compacted away before it is counted.
async fn create_topics(kafka: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let names: Vec<String> = (0..TABLES.len()).map(topic).collect();
    let topics = names.iter().zip(&TABLES).map(|(name, table)| {
        let topic = NewTopic::new(name, table.partitions, TopicReplication::Fixed(1));
        topic.set("cleanup.policy", "compact").set("min.compaction.lag.ms", "86400000")
    });
    let topics: Vec<_> = topics.collect();
    for created in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
        created.unwrap();
    }
}

fn config(url: &str, Addresses { kafka, registry }: &Addresses) -> String {
    let tables: String =
        TABLES.iter().map(|table| format!("[connectors.fault.tables.\"public.{}\"]\n", table.name)).collect();
    format!(
        "[kafka]\nbootstrap_servers = \"{kafka}\"\n[registry]\nurl = \"{registry}\"\n[connectors.fault]\n\
         database_url = \"{url}\"\ntopic = \"{{schema}}.{{table}}\"\n{tables}"
    )
}

#[track_caller]
fn assert_none(complaints: &[String], seen: &str) {
    let first = &complaints[..complaints.len().min(COMPLAINTS_SHOWN)];
    assert!(complaints.is_empty(), "{} findings {seen}:\n{}", complaints.len(), first.join("\n"));
}
