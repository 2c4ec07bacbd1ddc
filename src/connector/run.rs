//! One run of a connector: from the start to the end of the stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::config::Host;

use super::assembler::Assembler;
use super::backfills::Backfills;
use super::fault::Fault;
use super::intake::Intake;
use super::pace::Pace;
use super::readers::{self, Readers};
use super::relations::Relations;
use super::start::{Goal, Setting, Started, start};
use super::state::Phase;
use super::telling::Telling;
use super::watch::Watch;
use crate::avro::{Encoders, Registry};
use crate::config::{self, Connector};

/// Measured: with 0.5 ms Postgres decodes and sends more than twice as fast as to a reader that it wakes for each
/// message; with 2 ms the socket's buffer fills, and it stalls.
const LOOK_AWAY_TCP: Duration = Duration::from_micros(500);
/// The same for a Unix socket, whose buffer is smaller.
const LOOK_AWAY_UNIX: Duration = Duration::from_micros(300);

/// Runs until the shutdown, or until something fails. Blocks.
pub fn run(setting: &Setting, registry: &config::Registry) -> Result<(), Fault> {
    setting.state.starting();
    let Started { source, stream, acknowledger, ready, stored, options, horizon } = start(setting)?;
    let connector = &setting.connector;
    let registry = Registry::new(&registry.url)?.registering(registry.auto_register);
    let encoders = Arc::new(Encoders::new(connector.name.clone(), registry, setting.runtime.clone()));
    let desk = readers::desk(connector, &source, &stored, horizon, &setting.goal);
    tracing::info!(
        connector = connector.name,
        slot = connector.slot,
        tables = source.tables.len(),
        position = %stored.position.lsn,
        delivery = if options.exactly_once { "exactly-once" } else { "at-least-once" },
        "streaming"
    );
    let _watch = Watch::start(setting, &source, &desk);
    let mut relations = Relations::new(connector.clone(), source, Arc::clone(&encoders), setting.runtime.clone());
    let assembler = Assembler::new(stored.position, Arc::clone(&desk));
    let sink = ready.start(options, stored, Arc::clone(&setting.state) as _)?;
    let _telling = Telling::start(setting, &desk);
    let _backfills = (setting.goal == Goal::Stream).then(|| Backfills::start(setting, &desk));
    setting.state.enter(Phase::Streaming);
    let pace = Pace::new(connector.batch_max_latency, look_away(connector), Instant::now());
    let _readers = Readers::start(connector, relations.topics(), encoders, Arc::clone(&desk))?;
    let intake = Intake::new(stream, acknowledger, assembler, sink, pace, setting, desk);
    intake.run(&mut relations)
}

/// How long to look away while data keeps coming: as long as the socket's buffer takes what comes meanwhile.
fn look_away(connector: &Connector) -> Duration {
    match connector.database.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
        true => LOOK_AWAY_UNIX,
        false => LOOK_AWAY_TCP,
    }
}
