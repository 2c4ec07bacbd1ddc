//! What it costs to look TOASTed values up: an update storm takes at most twice the time that it takes under REPLICA
//! IDENTITY FULL, where nothing is looked up and the WAL carries each value. To be measured with
//! `cargo test --release --test suite toast_cost -- --nocapture`.

use std::time::{Duration, Instant};

use crate::support::connector::Connector;

const UPDATES: usize = 5_000;
/// The machine has other things to do: the best of so many storms counts.
const STORMS: usize = 3;
/// A debug build is slow where a look-up has more to do, in the client of Postgres above all.
const RATIO_MAX: f64 = if cfg!(debug_assertions) { 4.0 } else { 2.0 };

/// Rows with 8 KiB of text that doesn't compress.
fn connector(identity: &str) -> Connector {
    let sql =
        format!("CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t REPLICA IDENTITY {identity}");
    // So that what is measured isn't when an idle connector stores its position.
    let connector =
        Connector::configured(&sql, "position_interval = \"100ms\"", "[connectors.NAME.tables.\"public.t\"]");
    let daemon = connector.start_streaming();
    connector.database.execute(&format!(
        "INSERT INTO t SELECT g, 0, (SELECT string_agg(md5(random()::text || g || i), '') FROM generate_series(1, 256) i)
         FROM generate_series(1, {UPDATES}) g"
    ));
    connector.wait_until_caught_up();
    assert!(daemon.terminate().success());
    connector
}

/// How long the daemon takes for what has waited while it was away.
fn drain(connector: &Connector, storm: &str) -> Duration {
    connector.database.execute(storm);
    let daemon = connector.start_streaming();
    let began = Instant::now();
    connector.wait_until_caught_up();
    let took = began.elapsed();
    assert!(daemon.terminate().success());
    took
}

#[test]
#[allow(clippy::print_stdout, reason = "it is a measurement too")]
fn an_update_storm_takes_at_most_twice_what_it_takes_with_replica_identity_full() {
    let (default, full) = (connector("DEFAULT"), connector("FULL"));
    let at_once = "UPDATE t SET n = n + 1".to_owned();
    let one_by_one = format!(
        "SET synchronous_commit = off;
         CREATE OR REPLACE PROCEDURE storm() LANGUAGE plpgsql AS $$ BEGIN
             FOR i IN 1..{UPDATES} LOOP UPDATE t SET n = n + 1 WHERE id = i; COMMIT; END LOOP; END $$"
    );
    for (what, storm) in [("at once", at_once), ("one by one", "CALL storm()".to_owned())] {
        default.database.execute(&one_by_one);
        full.database.execute(&one_by_one);
        let (mut looked_up, mut carried) = (Duration::MAX, Duration::MAX);
        for _ in 0..STORMS {
            looked_up = looked_up.min(drain(&default, &storm));
            carried = carried.min(drain(&full, &storm));
        }
        let ratio = looked_up.as_secs_f64() / carried.as_secs_f64();
        println!("{UPDATES} updates {what}: {looked_up:?} looked up, {carried:?} carried by the WAL, ratio {ratio:.2}");
        assert!(ratio <= RATIO_MAX, "{what}: {looked_up:?} looked up, {carried:?} carried by the WAL");
    }
}
