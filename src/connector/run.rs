//! One run of a connector: from the start to the end of the stream.

use std::sync::Arc;
use std::time::Instant;

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
use crate::config;

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
    let pace = Pace::new(connector.batch_max_latency, stream.look_away(), Instant::now());
    let _readers = Readers::start(connector, relations.topics(), Arc::clone(&encoders), Arc::clone(&desk))?;
    let intake = Intake::new(stream, acknowledger, assembler, sink, pace, setting, desk)?;
    intake.run(&mut relations).map_err(|fault| match fault {
        Fault::Kafka(fault) => Fault::Kafka(fault.with_key(|key| encoders.show_key(key))),
        fault => fault,
    })
}
