//! What daemons have said: whether one has given up, and what is kept of it for whoever has to find out why.

use std::path::Path;
use std::time::SystemTime;

/// What a daemon says when it gives up on a connector: no restart helps.
const GIVEN_UP: &str = "will not be started again";
/// Lines at a log's end.
const SHOWN: usize = 60;

/// Fails if the log says that a connector is given up.
#[track_caller]
pub fn check_not_given_up(log: &str) {
    if let Some(line) = log.lines().find(|line| line.contains(GIVEN_UP)) {
        panic!("the daemon has given up: {line}");
    }
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// Copies all files of a folder to where they stay; gives the end of the last one.
pub fn keep(folder: &Path, kept: &Path) -> String {
    let _ = std::fs::create_dir_all(kept);
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut logs: Vec<_> = files.map(|file| file.path()).collect();
    logs.sort();
    for log in &logs {
        let _ = std::fs::copy(log, kept.join(log.file_name().unwrap_or_default()));
    }
    logs.last().map_or(String::new(), |log| tail(log))
}

/// The time of day, in UTC as logs have it.
pub fn time_of_day() -> String {
    let since_midnight = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() % 86_400_000;
    let (seconds, millis) = (since_midnight / 1000, since_midnight % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}
