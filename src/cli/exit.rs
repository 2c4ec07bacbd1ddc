//! What the process ends with: the status, and what is said about it.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::avro::RegistryError;
use crate::config::{ConfigError, SelectError};
use crate::connector::Fault;
use crate::kafka::KafkaFault;
use crate::telemetry::FilterError;

/// The exit status. Scripts rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is done.
    Done = 0,
    /// The call was right, and the work failed.
    Failed = 1,
    /// The call or the configuration is wrong: nothing was begun.
    Wrong = 2,
    /// `check` found something that stops `run`.
    Stopped = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The arguments are wrong: what, and what to write instead.
    #[error("{0}")]
    Call(String),
    /// The result could not be written.
    #[error("cannot write to stdout")]
    Output(#[from] io::Error),
    /// The work failed.
    #[error(transparent)]
    Work(Box<dyn Error + Send + Sync>),
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Failure {
        Failure::Call(error.to_string())
    }
}

impl From<FilterError> for Failure {
    fn from(error: FilterError) -> Failure {
        Failure::Call(error.to_string())
    }
}

impl From<KafkaFault> for Failure {
    fn from(fault: KafkaFault) -> Failure {
        match fault.remedy() {
            Some(remedy) => Failure::Work(format!("{fault}; {remedy}").into()),
            None => Failure::Work(fault.into()),
        }
    }
}

impl Failure {
    /// What `run` would say, with its remedy.
    pub(super) fn of_connector(fault: impl Into<Fault>, connector: &str) -> Failure {
        let fault = fault.into();
        let remedy = fault.remedy(connector).map(|remedy| format!("; {remedy}")).unwrap_or_default();
        Failure::Work(format!("{fault}{remedy}").into())
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        Failure::Work(error.into())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        // What is written comes from our own types: only writing itself can fail, and keeps its kind.
        Failure::Output(error.into())
    }
}

impl Failure {
    /// The status that it ends the process with.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Config(_) | Failure::Call(_) => Exit::Wrong,
            // `tablecast tail … | head` is done when `head` is.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Failure::Output(_) | Failure::Work(_) => Exit::Failed,
        }
    }

    /// Says on stderr what went wrong, if anything did.
    pub fn report(&self) {
        if self.exit() == Exit::Done {
            return;
        }
        let mut message = match self {
            // Its lines start with the file's name, so that an editor can jump there.
            Failure::Config(error) => error.to_string(),
            other => format!("error: {other}"),
        };
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            // Many an error's text has its cause's in it already.
            if !message.contains(&words) {
                message.push_str(&format!(": {words}"));
            }
            cause = error.source();
        }
        // If stderr is closed too, there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Done);
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Failed);
    }

    #[test]
    fn what_was_asked_wrongly_is_not_what_failed() {
        assert_eq!(Failure::Call(String::new()).exit(), Exit::Wrong);
        assert_eq!(Failure::Work("refused".into()).exit(), Exit::Failed);
    }
}
