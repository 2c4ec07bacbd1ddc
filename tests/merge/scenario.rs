//! One seed: tables, sessions, a daemon that is killed, and what the topics come to.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::history::Case;
use super::load::Load;
use super::logs;
use super::patience::let_run_for;
use super::stored::{self, Stored};
use super::support::connector::{Connector, Daemon};
use super::support::postgres::Database;
use super::tables::{self, Size, Table};
use super::topics;

/// The daemon may commit nothing for so long, with all the machine's cores taken.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_millis(25);
/// Of tables that the last daemon has read in part.
const REWRITES_MAX: usize = 5;
/// Room for a few rows with a body.
const LARGE_ROWS_KIB: u32 = 8;
/// More complaints say no more.
const COMPLAINTS_SHOWN: usize = 8;

/// What a scenario is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub size: Size,
    pub sessions: (usize, usize),
    /// KiB.
    pub chunks: &'static [u32],
    pub kills_max: usize,
    /// Tables are read again while they are changed.
    pub backfills_max: usize,
    /// How long there is load at least and at most, from the last start of the daemon on; in between it ends when all
    /// is read.
    pub load: (Duration, Duration),
}

/// What a scenario came to, for people.
pub struct Outcome {
    pub summary: String,
    pub slowest_commit: Duration,
}

/// Runs a scenario; panics if anything is wrong.
pub fn run(seed: u64, server_url: &str, plan: &Plan) -> Outcome {
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let tables = tables::random(&mut rng, plan.size);
    let database = Database::create_on(server_url);
    let mut load = Load::prepare(database.config(), tables, &mut rng);
    let connector = connector(database, &load, &mut rng, plan);
    let mut story = Story::new(seed, &connector, &load);
    let sessions = rng.usize(plan.sessions.0..=plan.sessions.1);
    let kills = rng.usize(..=plan.kills_max);
    let mut backfills =
        Backfills::new(&connector, if rng.bool() { rng.usize(..=plan.backfills_max) } else { 0 }, &mut rng);
    let positions_from = stored::end_of_positions();
    let mut daemon = connector.start();
    if rng.bool() {
        // So that the first rows are read in peace, at least for a moment.
        daemon.wait_for_log(" streaming ");
    }
    load.start(sessions, &mut rng);
    for _ in 0..kills {
        let life = Life::random(&mut rng);
        let (began, mut streams_since) = (Instant::now(), None);
        while !life.is_over(began, streams_since) {
            if look(&daemon, &load) && streams_since.is_none() {
                streams_since = Some(Instant::now());
                load.rewrite(rng.usize(..load.tables().len()));
            }
            backfills.ask(&load, &mut rng);
            let_run_for(LOOK);
        }
        daemon.kill();
        daemon = connector.start();
    }
    daemon.wait_for_log(" streaming ");
    look(&daemon, &load);
    let mut rewrites_left = rng.usize(1..=REWRITES_MAX);
    let names: Vec<_> = load.tables().iter().map(|table| table.name.clone()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut stored = Stored::of(connector.name(), positions_from);
    let since = Instant::now();
    while since.elapsed() < plan.load.1 {
        backfills.ask(&load, &mut rng);
        let is_done = stored.is_done(&names) && backfills.are_done();
        if is_done && since.elapsed() >= plan.load.0 {
            break;
        }
        let half_read = stored.half_read(&names).filter(|_| rewrites_left > 0 && rng.bool());
        if let Some(table) = half_read {
            load.rewrite(table);
            rewrites_left -= 1;
        }
        look(&daemon, &load);
        let_run_for(LOOK);
    }
    let was_read_under_load = stored.is_done(&names);
    load.stop();
    let calm = Instant::now();
    while !(stored.is_done(&names) && backfills.are_done()) {
        assert!(calm.elapsed() < PATIENCE, "not all is read, when it is calm: {}", stored.last());
        look(&daemon, &load);
        let_run_for(LOOK);
    }
    connector.wait_until_caught_up();
    assert!(daemon.terminate().success());
    let counted = judge(&connector, &load, &mut story);
    let (ledger, counts) = (load.ledger(), load.counts());
    let count = |number: &std::sync::atomic::AtomicUsize| number.load(Ordering::Relaxed);
    let summary = format!(
        "{} tables, {sessions} sessions, {kills} kills, {} backfills; {} transactions, {} rolled back, {} deadlocks, {} \
         TRUNCATEs, {} rewrites, {} VACUUMs; {counted}, read {} load, {:.1?}",
        load.tables().len(),
        backfills.asked,
        ledger.transactions,
        count(&counts.rolled_back),
        count(&counts.deadlocks),
        count(&counts.truncates),
        count(&counts.rewrites),
        count(&counts.vacuums),
        if was_read_under_load { "under" } else { "after the" },
        began.elapsed()
    );
    Outcome { summary, slowest_commit: load.slowest_commit() }
}

fn connector(database: Database, load: &Load, rng: &mut Rng, plan: &Plan) -> Connector {
    let chunk = plan.chunks[rng.usize(..plan.chunks.len())];
    // Finding out that each row is too large for two takes long.
    let chunk = if load.tables().iter().any(Table::has_body) { chunk.max(LARGE_ROWS_KIB) } else { chunk };
    let (readers, partitions) = (rng.u8(1..=4), rng.u8(1..=3));
    let settings =
        format!("snapshot_chunk_bytes = \"{chunk}KiB\"\nsnapshot_readers = {readers}\nposition_interval = \"200ms\"");
    let tables = format!("[connectors.NAME.tables.\"public.*\"]\n[topics]\npartitions = {partitions}");
    Connector::on(database, &settings, &tables)
}

/// How long a daemon lives.
enum Life {
    /// From its start: some are killed while they start.
    Started(Duration),
    /// From when it streams, and reads tables.
    Streaming(Duration),
}

impl Life {
    fn random(rng: &mut Rng) -> Self {
        match rng.u8(..4) {
            0 => Life::Started(Duration::from_millis(rng.u64(..2_000))),
            _ => Life::Streaming(Duration::from_millis(rng.u64(..800))),
        }
    }

    fn is_over(&self, began: Instant, streams_since: Option<Instant>) -> bool {
        match self {
            Life::Started(life) => began.elapsed() >= *life,
            Life::Streaming(life) => streams_since.is_some_and(|since| since.elapsed() >= *life),
        }
    }
}

/// Nothing is wrong so far. Tells whether the daemon streams: then the slot is there.
fn look(daemon: &Daemon, load: &Load) -> bool {
    let log = daemon.log();
    logs::check_not_given_up(&log);
    load.check_alive();
    let streams = log.contains(" streaming ");
    if streams {
        load.slot_is_there();
    }
    streams
}

/// All is calm: the topics, record by record, and against the tables.
fn judge(connector: &Connector, load: &Load, story: &mut Story) -> String {
    let ledger = load.ledger();
    let mut complaints = Vec::new();
    let (mut records, mut repeated) = (0, 0);
    for (place, table) in load.tables().iter().enumerate() {
        let topic = topics::read(&connector.topic(&table.name), &table.columns());
        let rows = load.rows(table);
        let case = Case {
            name: &table.name,
            place,
            key: &|number| table.key_text(number),
            numbers: table.numbers,
            ledger: &ledger,
            histories: &topic.histories,
            folded: &topic.folded,
            rows: &rows,
        };
        complaints.extend(case.complaints());
        records += topic.records;
        let repeats = |history: &Vec<super::history::Seen>| {
            history.windows(2).filter(|two| two[0].version.is_some() && two[0].version == two[1].version).count()
        };
        repeated += topic.histories.values().map(repeats).sum::<usize>();
    }
    if !complaints.is_empty() {
        let shown = &complaints[..complaints.len().min(COMPLAINTS_SHOWN)];
        panic!("{} complaints:\n{}", complaints.len(), shown.join("\n"));
    }
    let names: Vec<String> = load.tables().iter().map(|table| connector.topic(&table.name)).collect();
    connector.database.block_on(super::support::topic::delete(&names));
    story.is_over = true;
    format!("{records} records, {repeated} repeated")
}

/// Asks for tables to be read again.
struct Backfills<'c> {
    connector: &'c Connector,
    left: usize,
    asked: usize,
    next: Instant,
}

impl<'c> Backfills<'c> {
    fn new(connector: &'c Connector, count: usize, rng: &mut Rng) -> Self {
        if count > 0 {
            let migrated = connector.command().args(["migrate", connector.name()]).stdout(Stdio::null()).status();
            assert!(migrated.unwrap().success());
        }
        Self { connector, left: count, asked: 0, next: Instant::now() + Duration::from_millis(rng.u64(..3_000)) }
    }

    /// Asks, if it is time to.
    fn ask(&mut self, load: &Load, rng: &mut Rng) {
        if self.left == 0 || Instant::now() < self.next {
            return;
        }
        self.left -= 1;
        self.asked += 1;
        self.next = Instant::now() + Duration::from_millis(rng.u64(..1_500));
        let (name, table) = (self.connector.name(), &load.tables()[rng.usize(..load.tables().len())].name);
        let condition = if rng.bool() { "NULL" } else { "'version % 2 = 0'" };
        self.connector.database.execute(&format!(
            "INSERT INTO tablecast.backfills (connector, schema_name, table_name, \"where\")
             VALUES ('{name}', 'public', '{table}', {condition})"
        ));
    }

    fn are_done(&self) -> bool {
        if self.asked == 0 {
            return true;
        }
        let database = &self.connector.database;
        let failed = database.query("SELECT error FROM tablecast.backfills WHERE state IN ('failed', 'cancelled')");
        assert_eq!(failed, None, "of a backfill");
        let open = "SELECT count(*) FROM tablecast.backfills WHERE state IN ('requested', 'running')";
        self.left == 0 && database.query(open).as_deref() == Some("0")
    }
}

/// What to say and to keep if the scenario fails.
struct Story {
    seed: u64,
    folder: PathBuf,
    tables: String,
    is_over: bool,
}

impl Story {
    fn new(seed: u64, connector: &Connector, load: &Load) -> Self {
        let tables: Vec<_> = load.tables().iter().map(|table| format!("  {table:?}")).collect();
        let folder = connector.config().parent().unwrap().to_owned();
        Self { seed, folder, tables: tables.join("\n"), is_over: false }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let kept = std::env::temp_dir().join(format!("tablecast-merge-{}", self.seed));
        let end = logs::keep(&self.folder, &kept);
        say!(
            "seed {}: tables\n{}\nthe end of the last log (all are in {}):\n{end}",
            self.seed,
            self.tables,
            kept.display()
        );
    }
}
