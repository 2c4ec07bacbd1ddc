//! The reader to compare with: `pg_recvlogical`, which comes with Postgres, writing to /dev/null.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::Bench;
use crate::process::{Ended, Watched, log_tail};
use crate::services::Via;
use crate::source::{Backlog, PUBLICATION, Source};

/// Reads the backlog of a slot, and drops it.
pub fn run(bench: &Bench, source: &mut Source, slot: &str, backlog: &Backlog, via: Via) -> Result<Ended> {
    let mut command = Command::new("pg_recvlogical");
    command.args(["--dbname", &bench.services.database(&source.database, via), "--slot", slot]);
    command.args(["--start", "--no-loop", "--file", "/dev/null", "--plugin", "pgoutput"]);
    command.args(["--option", "proto_version=1", "--endpos", &backlog.end]);
    command.arg("--option").arg(format!("publication_names={PUBLICATION}"));
    let log = bench.work.join("pg_recvlogical.log");
    let ended = Watched::spawn(&mut command, &log)?.wait()?;
    ensure!(ended.success, "pg_recvlogical failed:\n{}", log_tail(&log));
    source.drop_slot(slot)?;
    Ok(ended)
}
