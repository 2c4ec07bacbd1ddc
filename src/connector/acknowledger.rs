//! Tells Postgres what is stored, and that we live.
//!
//! Only what Kafka holds is acknowledged: `confirmed_flush_lsn <= stored position`, always. So a slot that is ahead of
//! the stored position proves a gap, and WAL is released as soon as it may be.

use std::time::{Duration, Instant};

use super::fault::Fault;
use super::state::State;
use crate::lsn::Lsn;
use crate::postgres::replication::ReplicationStream;

/// Postgres, asking for an answer, gets it after at most this time; asked again and again, no sooner.
const ANSWER_AFTER: Duration = Duration::from_millis(10);
/// What is stored is acknowledged after at most this time.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(200);
/// Postgres hears from us at least so often: often enough for any sensible `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Postgres is asked for an answer at least so often: well within the silence after which a connection counts as dead.
const ASK_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// While somebody waits for it, Postgres is asked so often how far it is.
const ASK_WANTED: Duration = Duration::from_millis(5);

/// Tells Postgres what is stored, and that we live.
pub struct Acknowledger {
    acknowledged: Lsn,
    sent_at: Instant,
    asked_at: Instant,
    /// At most so often an idle connector stores a position without records. Postgres is asked how far it is twice as
    /// often, so that there is something to store.
    pub position_interval: Duration,
    /// Postgres has asked for an answer, or waits for one to end.
    pub urgent: bool,
    /// Somebody waits to learn how far Postgres is.
    pub wanted: bool,
}

impl Acknowledger {
    /// One that has told nothing yet.
    pub fn new(position_interval: Duration) -> Self {
        let now = Instant::now();
        Self { acknowledged: Lsn::ZERO, sent_at: now, asked_at: now, position_interval, urgent: false, wanted: false }
    }

    /// Sends a status update if one is due. Cheap if none is.
    pub fn tick(&mut self, stream: &mut ReplicationStream, state: &State) -> Result<(), Fault> {
        let since = self.sent_at.elapsed();
        let news = state.stored_lsn() > self.acknowledged;
        let interval = if self.wanted { ASK_WANTED } else { ASK_INTERVAL_MAX };
        let ask = self.asked_at.elapsed() >= (self.position_interval / 2).min(interval);
        let urgent = self.urgent && since >= ANSWER_AFTER;
        if urgent || ask || (news && since >= ACKNOWLEDGE_AFTER) || since >= STATUS_INTERVAL {
            self.acknowledge(stream, state, ask)?;
        }
        Ok(())
    }

    /// Sends a status update. Only what is stored is acknowledged: `confirmed_flush_lsn <= stored position`, always.
    pub fn acknowledge(&mut self, stream: &mut ReplicationStream, state: &State, ask: bool) -> Result<(), Fault> {
        let stored = state.stored_lsn();
        stream.send_status(stored, stored, stored, ask);
        self.sent_at = Instant::now();
        if ask {
            self.asked_at = self.sent_at;
        }
        self.acknowledged = stored;
        self.urgent = false;
        Ok(())
    }
}
