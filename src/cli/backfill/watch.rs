//! Watching: the rows that were asked for, looked at until all have ended.

use std::time::{Duration, Instant};

use super::mirrored;
use crate::cli::exit::{Exit, Failure};
use crate::cli::look;
use crate::cli::progress::{Display, TableProgress};
use crate::config::Connector;
use crate::postgres::backfills::{BackfillState, Request};
use crate::postgres::control::{Control, ControlError};
use crate::shutdown::Shutdown;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks at a source that doesn't answer.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);
/// A daemon takes up what is asked for within a few seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Backfills that are looked at. The source may be away for a while: the daemon bears that too.
pub(super) struct Watch<'c> {
    connector: &'c Connector,
    control: Option<Control>,
    tables: Vec<TableProgress>,
    /// They are to end, not to be done.
    cancelling: bool,
    since: Instant,
    /// It was said that nobody does anything.
    told_idle: bool,
    /// It was said that the source is away.
    told_away: bool,
}

impl<'c> Watch<'c> {
    pub fn new(connector: &'c Connector, control: Control, tables: Vec<TableProgress>, cancelling: bool) -> Self {
        let since = Instant::now();
        Watch { connector, control: Some(control), tables, cancelling, since, told_idle: false, told_away: false }
    }

    /// Shows them until all have ended, or until the command is to end: then they go on without it.
    pub async fn until_ended(mut self, mut display: Display, shutdown: &Shutdown) -> Result<Exit, Failure> {
        loop {
            let pause = tokio::select! {
                looked = self.look(&display) => looked.map_err(|error| super::failure(error, self.connector))?,
                () = shutdown.requested() => return Ok(self.leave(display)),
            };
            display.show(&self.tables)?;
            if self.tables.iter().all(|table| table.state.is_ended()) {
                display.end(&self.tables)?;
                return Ok(self.exit());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => return Ok(self.leave(display)),
            }
        }
    }

    /// Looks once; gives how long to wait before the next look.
    async fn look(&mut self, display: &Display) -> Result<Duration, ControlError> {
        match self.look_or_fail(display).await {
            Ok(()) => {
                self.told_away = false;
                Ok(INTERVAL)
            }
            Err(error) if error.is_transient() => {
                self.control = None;
                if !std::mem::replace(&mut self.told_away, true) {
                    display.notice(&format!("the source does not answer ({error}); trying again"));
                }
                Ok(AWAY_INTERVAL)
            }
            Err(error) => Err(error),
        }
    }

    async fn look_or_fail(&mut self, display: &Display) -> Result<(), ControlError> {
        let control = match self.control.take() {
            Some(control) => self.control.insert(control),
            None => self.control.insert(look::source(self.connector).await?),
        };
        let ids: Vec<i64> = self.tables.iter().filter_map(|table| table.id).collect();
        let mut found = control.backfills(&ids).await?;
        for table in &mut self.tables {
            match found.iter().position(|facts| Some(facts.request.id) == table.id) {
                Some(at) => *table = mirrored(found.swap_remove(at)),
                None if table.state.is_ended() => {}
                None => {
                    table.state = BackfillState::Failed;
                    table.error = Some("somebody has deleted its row in tablecast.backfills".to_owned());
                }
            }
        }
        let is_idle = match self.cancelling {
            true => self.tables.iter().any(|table| !table.state.is_ended()),
            false => self.tables.iter().all(|table| table.state == BackfillState::Requested),
        };
        if is_idle && !self.told_idle && self.since.elapsed() >= PATIENCE {
            self.told_idle = true;
            let pid = control.slot(&self.connector.slot).await?.and_then(|slot| slot.active_pid);
            let mut open = control.open_backfills(&self.connector.name).await?;
            open.retain(|request| request.state == BackfillState::Running && !ids.contains(&request.id));
            display.notice(&self.idle(pid, open.first()));
        }
        Ok(())
    }

    /// Why nothing may be happening. `ahead` is another backfill that is being done.
    fn idle(&self, pid: Option<i32>, ahead: Option<&Request>) -> String {
        let (slot, seconds) = (&self.connector.slot, PATIENCE.as_secs());
        let goal = if self.cancelling { "ended it" } else { "taken it up" };
        match (pid, ahead) {
            (None, _) => format!(
                "no daemon has {goal} within {seconds} s, and slot {slot} is not in use: is `tablecast run` running? \
                 The request stays until one does"
            ),
            (Some(_), Some(ahead)) => format!("waiting for backfill {} of {}", ahead.id, super::name(ahead)),
            (Some(pid), None) => format!(
                "the daemon that has slot {slot} (process {pid} of the source) has not {goal} within {seconds} s: see \
                 its log and `tablecast status`; one of an earlier version knows no backfills"
            ),
        }
    }

    /// The command ends, and nothing else does.
    fn leave(&self, display: Display) -> Exit {
        let open = self.tables.iter().filter(|table| !table.state.is_ended());
        let names: Vec<_> = open.map(|table| shell_word(&table.table)).collect();
        let how = format!("`tablecast backfill {} {} --cancel`", self.connector.name, names.join(" "));
        display.notice(&match self.cancelling {
            true => "the daemon will end it; `SELECT * FROM tablecast.backfills` shows when".to_owned(),
            false => {
                format!("the backfill goes on without this command; {how} ends it")
            }
        });
        Exit::Done
    }

    fn exit(&self) -> Exit {
        let is_right = |table: &TableProgress| match table.state {
            BackfillState::Done => true,
            BackfillState::Cancelled => self.cancelling,
            _ => false,
        };
        if self.tables.iter().all(is_right) { Exit::Done } else { Exit::Failed }
    }
}

/// As a shell reads it back.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_pasted_into_a_shell() {
        assert_eq!(shell_word("public.users"), "public.users");
        assert_eq!(shell_word(r#"public."it's""#), r#"'public."it'\''s"'"#);
    }
}
