//! Appetite: whether the sink would write now what it is given, or is busy with a commit.
//!
//! While a commit is under way, rows that come wait for the next Kafka transaction, wherever they are. If they wait in
//! the batch that is being filled, all of them go into that next one; if they were handed over in many small batches
//! they would run out of batches, and the last rows wait for one transaction more. So whoever fills a batch hands it
//! over when the sink is hungry: while a Kafka transaction can take more, or the next can begin. Whoever finds it without
//! appetite asks to be told.
//!
//! No call is lost: the sink says first that it is hungry and looks then whether it was asked, who fills asks first and
//! looks then whether it is hungry.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bell::Bell;

/// Shared by the sink's thread and the one that fills batches.
#[derive(Debug)]
pub struct Appetite {
    hungry: AtomicBool,
    asked: AtomicBool,
    bell: Bell,
}

impl Appetite {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { hungry: AtomicBool::new(false), asked: AtomicBool::new(false), bell: Bell::new()? })
    }

    /// Whether a batch would be written as soon as what was handed over before it is.
    pub fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::SeqCst)
    }

    /// Asks for the bell to be rung when the sink is hungry; tells whether it is already.
    pub fn ask(&self) -> bool {
        if self.is_hungry() {
            return true;
        }
        self.asked.store(true, Ordering::SeqCst);
        self.is_hungry()
    }

    /// Rings when the sink is hungry after an [`ask`](Self::ask) that found it not to be; and now and then for nothing.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// The sink takes more, from now on.
    pub(super) fn wants(&self) {
        self.hungry.store(true, Ordering::SeqCst);
        if self.asked.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// What comes from now on is not in this Kafka transaction any more.
    pub(super) fn has_enough(&self) {
        self.hungry.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_asks_is_called_when_the_sink_wants_more() {
        let appetite = Appetite::new().unwrap();
        assert!(!appetite.ask());
        assert!(!appetite.bell().wait(Duration::ZERO).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| appetite.wants());
            assert!(appetite.bell().wait(Duration::from_secs(9)).unwrap());
        });
        assert!(appetite.is_hungry());
        appetite.bell().silence();
        assert!(!appetite.bell().wait(Duration::ZERO).unwrap());
    }

    #[test]
    fn who_has_not_asked_is_not_called() {
        let appetite = Appetite::new().unwrap();
        appetite.wants();
        assert!(!appetite.bell().wait(Duration::ZERO).unwrap());
        assert!(appetite.ask(), "it is hungry already");
        appetite.has_enough();
        assert!(!appetite.is_hungry());
    }
}
