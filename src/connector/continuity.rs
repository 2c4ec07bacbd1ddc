//! Whether the stream that the slot offers goes on where the stored position ends (P4).
//!
//! The argument. All that the slot has not confirmed, it will send. Nothing is confirmed that is not stored, so as long
//! as both belong to the same stream, `slot.confirmed_flush_lsn <= stored position` holds, and what lies between the
//! two comes again and is skipped. A slot that was dropped and created anew starts at the end of the WAL of its day; if
//! that is past the stored position, something may lie between, and if it is not, nothing does. Whatever can't be
//! shown to hold is a [`Gap`], each with its own remedy; none is guessed away.
//!
//! Where Kafka loses what it has called committed, the slot is past the stored position, too.

use crate::config::Connector;
use crate::kafka::positions::{Origin, StoredPosition};
use crate::lsn::Lsn;
use crate::postgres::catalog::SlotFacts;
use crate::postgres::replication::SystemIdentity;

/// The slot as `pg_replication_slots` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Where it resumes.
    pub confirmed_flush: Option<Lsn>,
    /// `wal_status` is `lost`, or `invalidation_reason` is set: why.
    pub invalidated: Option<String>,
}

impl Slot {
    /// What matters here of the slot of that name.
    pub fn new(name: &str, facts: SlotFacts) -> Slot {
        Slot {
            name: name.to_owned(),
            confirmed_flush: facts.confirmed_flush_lsn,
            invalidated: facts.invalidation_reason,
        }
    }
}

/// The stream that the connector reads now.
pub fn origin(connector: &Connector, identity: &SystemIdentity) -> Origin {
    Origin {
        system_identifier: identity.system_identifier.clone(),
        timeline: identity.timeline,
        database: identity.database.clone().unwrap_or_default(),
        slot: connector.slot.clone(),
    }
}

/// Continuity can't be proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum Gap {
    #[error("slot {slot:?} is gone, but a position ({stored}) is stored: the changes since then are lost")]
    SlotMissing { slot: String, stored: Lsn },
    #[error("slot {slot:?} was invalidated ({reason}): Postgres has removed WAL that was not read yet")]
    SlotInvalidated { slot: String, reason: String },
    #[error(
        "slot {slot:?} starts at {confirmed}, past the stored position {stored}: it was created anew or moved by \
         another reader, or Kafka has lost a transaction that it had committed (see KAFKA-20734); the changes in between \
         are lost"
    )]
    SlotAhead { slot: String, confirmed: Lsn, stored: Lsn },
    #[error("the source is another cluster: its system identifier is {now}, the stored position is of {stored}")]
    OtherSystem { now: String, stored: String },
    #[error(
        "the source is on timeline {now}, the stored position on timeline {stored}: after a failover or a restore, WAL \
         positions mean something else"
    )]
    OtherTimeline { now: u32, stored: u32 },
    #[error("the stored position is of database {stored:?}, the configuration names {now:?}")]
    OtherDatabase { now: String, stored: String },
    #[error("the stored position is of slot {stored:?}, the configuration names {now:?}")]
    OtherSlot { now: String, stored: String },
    #[error(
        "the source's WAL ends at {now}, before the stored position {stored}: it was set back in time, and what it \
         writes from now on would pass for known"
    )]
    SourceBehind { now: Lsn, stored: Lsn },
}

impl Gap {
    /// What to do about it.
    pub fn remedy(&self, connector: &str) -> String {
        let anew = format!(
            "start over: `tablecast teardown {connector}`, delete the connector's topics, and run again; or, under \
             another connector name, fill new topics"
        );
        match self {
            Gap::SlotMissing { .. } | Gap::SlotAhead { .. } | Gap::OtherTimeline { .. } | Gap::SourceBehind { .. } => {
                anew
            }
            Gap::SlotInvalidated { .. } => {
                format!("{anew}. To keep it from happening again, raise max_slot_wal_keep_size")
            }
            Gap::OtherSystem { .. } => format!("point database_url at the former source, or {anew}"),
            Gap::OtherDatabase { stored, .. } => format!("name database {stored:?} in database_url, or {anew}"),
            Gap::OtherSlot { stored, .. } => format!("set slot = {stored:?}, or {anew}"),
        }
    }
}

/// Proves that the slot goes on where the stored position ends, or says what is in the way.
pub fn prove(stored: &StoredPosition, now: &Origin, slot: Option<&Slot>) -> Result<(), Gap> {
    let then = &stored.origin;
    if then.system_identifier != now.system_identifier {
        return Err(Gap::OtherSystem { now: now.system_identifier.clone(), stored: then.system_identifier.clone() });
    }
    if then.database != now.database {
        return Err(Gap::OtherDatabase { now: now.database.clone(), stored: then.database.clone() });
    }
    if then.timeline != now.timeline {
        return Err(Gap::OtherTimeline { now: now.timeline, stored: then.timeline });
    }
    if then.slot != now.slot {
        return Err(Gap::OtherSlot { now: now.slot.clone(), stored: then.slot.clone() });
    }
    let Some(slot) = slot else {
        return Err(Gap::SlotMissing { slot: now.slot.clone(), stored: stored.position.lsn });
    };
    usable(slot)?;
    match slot.confirmed_flush {
        Some(confirmed) if confirmed > stored.position.lsn => {
            Err(Gap::SlotAhead { slot: slot.name.clone(), confirmed, stored: stored.position.lsn })
        }
        _ => Ok(()),
    }
}

/// Proves that the source still has what is stored: its WAL doesn't end before the stored position. Postgres sends only
/// WAL that it has flushed, so this fails after a storage was rolled back, and not after a crash.
pub fn prove_source_has(stored: &StoredPosition, wal_end: Lsn) -> Result<(), Gap> {
    match wal_end < stored.position.lsn {
        true => Err(Gap::SourceBehind { now: wal_end, stored: stored.position.lsn }),
        false => Ok(()),
    }
}

/// Whether the slot can be read at all.
pub fn usable(slot: &Slot) -> Result<(), Gap> {
    match &slot.invalidated {
        Some(reason) => Err(Gap::SlotInvalidated { slot: slot.name.clone(), reason: reason.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::position::Position;

    fn origin() -> Origin {
        Origin { system_identifier: "7".into(), timeline: 1, database: "shop".into(), slot: "tablecast_shop".into() }
    }

    fn stored(lsn: u64) -> StoredPosition {
        let position = Position::between(Lsn(lsn));
        StoredPosition {
            position,
            commit_time: None,
            origin: origin(),
            tables: BTreeMap::new(),
            backfills: BTreeMap::new(),
            shapes: BTreeMap::new(),
        }
    }

    fn slot(confirmed: u64) -> Slot {
        Slot { name: "tablecast_shop".into(), confirmed_flush: Some(Lsn(confirmed)), invalidated: None }
    }

    #[test]
    fn a_slot_at_or_behind_the_stored_position_goes_on_from_it() {
        assert_eq!(prove(&stored(100), &origin(), Some(&slot(100))), Ok(()));
        assert_eq!(prove(&stored(100), &origin(), Some(&slot(40))), Ok(()));
    }

    #[test]
    fn a_slot_ahead_of_the_stored_position_is_a_gap() {
        let gap = prove(&stored(100), &origin(), Some(&slot(101))).unwrap_err();
        assert!(matches!(gap, Gap::SlotAhead { .. }));
    }

    #[test]
    fn a_source_that_was_set_back_is_a_gap() {
        assert_eq!(prove_source_has(&stored(100), Lsn(100)), Ok(()));
        assert!(matches!(prove_source_has(&stored(100), Lsn(99)), Err(Gap::SourceBehind { .. })));
    }

    #[test]
    fn each_refusal_is_told_apart_and_has_a_remedy() {
        let lost = Slot { invalidated: Some("wal_removed".into()), ..slot(100) };
        let cases = [
            (prove(&stored(1), &origin(), None), "is gone"),
            (prove(&stored(100), &origin(), Some(&lost)), "was invalidated (wal_removed)"),
            (prove(&stored(1), &origin(), Some(&slot(2))), "past the stored position"),
            (prove(&stored(1), &Origin { system_identifier: "8".into(), ..origin() }, None), "another cluster"),
            (prove(&stored(1), &Origin { timeline: 2, ..origin() }, None), "timeline 2"),
            (prove(&stored(1), &Origin { database: "other".into(), ..origin() }, None), "of database \"shop\""),
            (prove(&stored(1), &Origin { slot: "other".into(), ..origin() }, None), "of slot \"tablecast_shop\""),
        ];
        for (result, words) in cases {
            let gap = result.unwrap_err();
            assert!(gap.to_string().contains(words), "{gap}");
            assert!(gap.remedy("shop").contains("teardown shop"), "{gap}");
        }
    }
}
