//! One seed: tables, changes of their rows and shapes, a daemon that comes and goes, and what the topics come to.

use std::process::Stdio;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::cases::SETUP;
use super::check;
use super::ddl::{Maker, Step, bring_home};
use super::dml::Writer;
use super::judge::{Case, Schemas, Topic};
use super::kinds::{COMPOSITE, Changing, ENUM, Kinds};
use super::logs;
use super::patience::let_run_for;
use super::session::Session;
use super::stored::{self, Stored};
use super::support::connector::{Connector, Daemon};
use super::support::postgres::Database;
use super::support::topic;
use super::table::Table;

/// How long the topics may take to become the tables, with all the machine's cores taken.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether they are.
const LOOK: Duration = Duration::from_millis(300);
/// In it, whatever is still to be done because of the last changes would begin: two looks into the catalog.
const CALM: Duration = Duration::from_millis(1_300);
/// After so long the daemon is started once more: a table that only a pattern maps, and that came while the daemon ran, is
/// taken in by the next start.
const NEXT_START: Duration = Duration::from_secs(25);
const TABLES: std::ops::RangeInclusive<usize> = 1..=3;
const STEPS: std::ops::RangeInclusive<usize> = 15..=60;
const ROWS_MAX: usize = 150;
const PAUSE_MS: u64 = 120;
/// Tables that come and go have no names but these.
const NAMES: &[&str] = &["t0", "t1", "t2"];
const COMPLAINTS_SHOWN: usize = 6;

/// Runs a scenario; panics if anything is wrong. Tells what it was.
pub fn run(seed: u64, server_url: &str) -> String {
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let database = Database::create_on(server_url);
    database.execute(SETUP);
    // Without any table, the connector would refuse to start.
    database.execute("CREATE SCHEMA parts; CREATE SCHEMA parked; CREATE TABLE always (id int PRIMARY KEY)");
    let session = Session::open(&database.config());
    let kinds = Kinds::learn(&session);
    let names = &NAMES[..rng.usize(TABLES)];
    let connector = connector(database, &mut rng);
    let mut scenario = Scenario {
        seed,
        publication: connector.slot(),
        connector: &connector,
        session,
        kinds,
        names,
        rng,
        writer: Writer::new(),
        daemon: None,
        counts: Counts::default(),
        can_backfill: false,
        is_started_again: false,
        is_over: false,
    };
    scenario.fill();
    let positions_from = stored::end_of_positions();
    scenario.work();
    scenario.bring_all_home();
    let judged = scenario.judge(positions_from);
    let Counts { steps, refused, kills, backfills } = scenario.counts;
    scenario.is_over = true;
    format!(
        "{} tables, {steps} steps, {refused} refused, {kills} ends of daemons, {backfills} backfills; {judged}, {:.1?}",
        names.len(),
        began.elapsed()
    )
}

fn connector(database: Database, rng: &mut Rng) -> Connector {
    // Not smaller: to find out that each row with a large value is too much takes long.
    let (chunk, readers, partitions) = ([8, 8, 16, 64][rng.usize(..4)], rng.u8(1..=3), rng.u8(1..=3));
    let settings = format!(
        "snapshot_chunk_bytes = \"{chunk}KiB\"\nsnapshot_readers = {readers}\nposition_interval = \"200ms\"\n\
         catalog_interval = \"500ms\""
    );
    let tables = format!("[connectors.NAME.tables.\"public.*\"]\n[topics]\npartitions = {partitions}");
    Connector::on(database, &settings, &tables)
}

#[derive(Default)]
struct Counts {
    steps: usize,
    refused: usize,
    kills: usize,
    backfills: usize,
}

struct Scenario<'s> {
    seed: u64,
    connector: &'s Connector,
    publication: String,
    session: Session,
    kinds: Kinds,
    names: &'s [&'s str],
    rng: Rng,
    writer: Writer,
    daemon: Option<Daemon>,
    counts: Counts,
    can_backfill: bool,
    is_started_again: bool,
    is_over: bool,
}

impl Scenario<'_> {
    /// The tables and their first rows.
    fn fill(&mut self) {
        for name in self.names {
            self.create(name);
            let rows = self.rng.usize(..ROWS_MAX);
            for _ in 0..rows / 15 {
                let insert = self.with(name, |this, table, changing| {
                    this.writer.insert(&mut this.rng, table, &this.kinds, changing, 15)
                });
                let _ = self.session.attempt(&insert);
            }
        }
        self.can_backfill = self.rng.u8(..3) == 0;
        if self.can_backfill {
            let mut migrate = self.connector.command();
            let migrated = migrate.args(["migrate", self.connector.name()]).stdout(Stdio::null()).status();
            assert!(migrated.unwrap().success());
        }
    }

    /// Makes a table; some random ones Postgres doesn't take.
    fn create(&mut self, name: &str) {
        loop {
            let changing = changing(&self.session);
            let sql = self.maker(&changing).create(name);
            if self.session.attempt(&sql).is_ok() {
                return;
            }
        }
    }

    fn maker<'m>(&'m mut self, changing: &'m Changing) -> Maker<'m> {
        let Self { rng, kinds, publication, .. } = self;
        Maker { rng, kinds, changing, publication }
    }

    /// With the table and the types as they are now.
    fn with<T>(&mut self, name: &str, make: impl FnOnce(&mut Self, &Table, &Changing) -> T) -> T {
        let table = Table::look(&self.session, name).expect("the table is there");
        let changing = changing(&self.session);
        make(self, &table, &changing)
    }

    /// All that happens.
    fn work(&mut self) {
        if self.rng.u8(..4) > 0 {
            self.start();
        }
        let waits = self.rng.bool();
        if let Some(daemon) = self.daemon.as_ref().filter(|_| waits) {
            daemon.wait_for_log(" streaming ");
        }
        for _ in 0..self.rng.usize(STEPS) {
            match self.rng.u8(..100) {
                0..=5 => self.end_daemon(),
                6..=12 => self.start(),
                13..=15 if self.can_backfill => self.backfill(),
                16..=55 => self.transaction(),
                _ => {
                    let step = self.step();
                    self.run(step);
                }
            }
            self.look();
            if self.rng.bool() {
                let_run_for(Duration::from_millis(self.rng.u64(..PAUSE_MS)));
            }
        }
    }

    fn start(&mut self) {
        if self.daemon.is_none() {
            self.session.note("-- the daemon is started");
            self.daemon = Some(self.connector.start());
        }
    }

    fn end_daemon(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        self.counts.kills += 1;
        // Before it has said anything, it may not know yet what a signal asks it for.
        let may_be_asked = !daemon.log().is_empty();
        if self.rng.u8(..4) > 0 || !may_be_asked {
            self.session.note("-- the daemon is killed");
            daemon.kill();
        } else {
            self.session.note("-- the daemon is ended");
            assert!(daemon.terminate().success(), "the daemon's exit status");
        }
    }

    /// Nothing is wrong so far.
    fn look(&self) {
        let Some(daemon) = &self.daemon else { return };
        logs::check_not_given_up(&daemon.log());
    }

    fn backfill(&mut self) {
        self.counts.backfills += 1;
        let (connector, table) = (self.connector.name(), self.names[self.rng.usize(..self.names.len())]);
        let sql = format!(
            "INSERT INTO tablecast.backfills (connector, schema_name, table_name) VALUES ('{connector}', 'public', '{table}')"
        );
        let _ = self.session.attempt(&sql);
    }

    /// A change of any kind.
    fn step(&mut self) -> Step {
        let name = self.names[self.rng.usize(..self.names.len())];
        let changing = changing(&self.session);
        let Some(table) = Table::look(&self.session, name) else {
            return Step::Within(self.maker(&changing).create(name));
        };
        if self.rng.u8(..100) < 35 {
            for _ in 0..5 {
                if let Some(step) = self.maker(&changing).change(name, &table) {
                    return step;
                }
            }
        }
        Step::Within(self.writer.change(&mut self.rng, &table, &self.kinds, &changing))
    }

    fn run(&mut self, step: Step) {
        let (Step::Within(sql) | Step::Alone(sql)) = step;
        self.counts.steps += 1;
        if self.session.attempt(&sql).is_err() {
            self.counts.refused += 1;
        }
    }

    /// Several steps, of which some are rolled back, or all.
    fn transaction(&mut self) {
        let _ = self.session.attempt("BEGIN");
        for _ in 0..self.rng.usize(2..=5) {
            let Step::Within(sql) = self.step() else { continue };
            self.counts.steps += 1;
            let _ = self.session.attempt("SAVEPOINT s");
            let is_done = self.session.attempt(&sql).is_ok();
            self.counts.refused += usize::from(!is_done);
            let end = if is_done && self.rng.u8(..8) > 0 { "RELEASE s" } else { "ROLLBACK TO s; RELEASE s" };
            let _ = self.session.attempt(end);
            if self.rng.u8(..6) == 0 {
                let_run_for(Duration::from_millis(self.rng.u64(..PAUSE_MS)));
            }
        }
        let end = if self.rng.u8(..12) == 0 { "ROLLBACK" } else { "COMMIT" };
        let _ = self.session.attempt(end);
    }

    /// All tables are there, under their names.
    fn bring_all_home(&mut self) {
        for name in self.names {
            match Table::look(&self.session, name) {
                None => self.create(name),
                Some(table) if !table.is_home => assert!(self.session.attempt(&bring_home(name, &table)).is_ok()),
                Some(_) => {}
            }
        }
        self.start();
    }

    /// All is calm: the topics become the tables, and stay so.
    fn judge(&mut self, positions_from: i64) -> String {
        self.session.note("-- all is calm");
        let judge = Session::open(&self.connector.database.config());
        judge.must(check::SESSION);
        let mut schemas = Schemas::default();
        self.daemon.as_ref().unwrap().wait_for_log(" streaming ");
        let mut stored = Stored::of(self.connector.name(), positions_from);
        let since = Instant::now();
        let mut wrong = vec!["nothing was looked at".to_owned()];
        let mut looks = 0;
        while !wrong.is_empty() {
            if since.elapsed() > PATIENCE {
                let shown = &wrong[..wrong.len().min(COMPLAINTS_SHOWN)];
                panic!("{} complaints when it is calm:\n{}", wrong.len(), shown.join("\n"));
            }
            if since.elapsed() > NEXT_START && !self.is_started_again {
                self.is_started_again = true;
                self.end_daemon();
                self.start();
            }
            self.connector.wait_until_caught_up();
            self.look();
            wrong = match stored.is_done(self.names) {
                true => self.complaints(&judge, &mut schemas).0,
                false => vec![format!("not all is read: {}", stored.last())],
            };
            looks += 1;
            if let Some(first) = wrong.first() {
                let first: String = first.chars().take(500).collect();
                self.session.note(&format!("-- {} complaints, the first: {first}", wrong.len()));
            }
            if wrong.is_empty() {
                // It has to stay so.
                let_run_for(CALM);
                if !stored.is_done(self.names) {
                    wrong = vec!["it was read again".to_owned()];
                }
            }
            let_run_for(LOOK);
        }
        self.connector.wait_until_caught_up();
        let took = since.elapsed();
        self.session.note("-- all is right");
        assert!(self.daemon.take().unwrap().terminate().success());
        let (wrong, records) = self.complaints(&judge, &mut schemas);
        let shown = &wrong[..wrong.len().min(COMPLAINTS_SHOWN)];
        assert!(wrong.is_empty(), "{} complaints in the end, after none:\n{}", wrong.len(), shown.join("\n"));
        let mut topics: Vec<_> = self.names.iter().chain(&["always"]).map(|name| self.connector.topic(name)).collect();
        topics.extend(self.names.iter().map(|name| self.connector.topic(&format!("{name}_away"))));
        self.connector.database.block_on(topic::delete(&topics));
        let again = if self.is_started_again { " and another start" } else { "" };
        format!("{records} records, right after {took:.1?} and {looks} looks{again}")
    }

    /// What is wrong with any topic, and how many records there are.
    fn complaints(&self, judge: &Session, schemas: &mut Schemas) -> (Vec<String>, usize) {
        let (mut all, mut records) = (Vec::new(), 0);
        for name in self.names {
            let table = Table::look(&self.session, name).expect("the table is there");
            let topic = Topic::read(&self.connector.topic(name));
            let case = Case { connector: self.connector, session: judge, kinds: &self.kinds, name, table: &table };
            all.extend(case.complaints(&topic, schemas));
            records += topic.records;
        }
        (all, records)
    }
}

/// The types as they are now.
fn changing(session: &Session) -> Changing {
    let labels =
        format!("SELECT enumlabel FROM pg_enum WHERE enumtypid = 'public.{ENUM}'::regtype ORDER BY enumsortorder");
    let labels = session.rows(&labels).into_iter().map(|row| row[0].clone().unwrap()).collect();
    let attributes = format!(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.{COMPOSITE}'::regclass AND attnum > 0 AND NOT attisdropped"
    );
    Changing { labels, attributes: session.one(&attributes).unwrap().parse().unwrap() }
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        if self.is_over && std::env::var_os("TABLECAST_RESHAPE_KEEP").is_none() {
            return;
        }
        let kept = std::env::temp_dir().join(format!("tablecast-reshape-{}", self.seed));
        let end = logs::keep(self.connector.config().parent().unwrap(), &kept);
        let _ = std::fs::write(kept.join("story.sql"), self.session.story());
        if self.is_over {
            return;
        }
        let (seed, kept) = (self.seed, kept.display());
        say!("seed {seed}: the end of the last log (all, and all statements, are in {kept}):\n{end}");
    }
}
