//! Logs: to stderr, for people or as JSON, one line an event.
//!
//! Colour is for a terminal, and only where `NO_COLOR` is not set.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Compact, for people.
    #[default]
    Human,
    /// One JSON object a line, for programs.
    Json,
}

/// The filter says nothing that can be understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{filter}` is not a log filter: {source}; write a level (`debug`), or targets (`info,tablecast::kafka=debug`)"
)]
pub struct FilterError {
    filter: String,
    source: ParseError,
}

/// Starts logging for this process. `filter` is a level, which is for tablecast's own events, or a list of
/// `target=level`, which is taken as it is. A second call changes nothing.
pub fn init(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_colour);
    // An error would mean that a logger is there already, as in a test: that one serves as well.
    let _ = match format {
        LogFormat::Human => builder.compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A bare level is tablecast's; libraries only warn, so that `debug` is readable.
fn parse_filter(filter: &str) -> Result<EnvFilter, FilterError> {
    // A variable that is set to nothing asks for nothing.
    let filter = if filter.trim().is_empty() { "info" } else { filter };
    let directives = match filter.trim().parse::<LevelFilter>() {
        Ok(LevelFilter::OFF) => "off".to_owned(),
        Ok(LevelFilter::ERROR) => "error".to_owned(),
        Ok(level) => format!("warn,tablecast={level}"),
        Err(_) => filter.to_owned(),
    };
    EnvFilter::builder().parse(&directives).map_err(|source| FilterError { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filter: &str) -> String {
        let mut directives: Vec<_> = parse_filter(filter).unwrap().to_string().split(',').map(str::to_owned).collect();
        directives.sort();
        directives.join(",")
    }

    #[test]
    fn a_level_is_for_tablecast_and_libraries_only_warn() {
        assert_eq!(read("info"), "tablecast=info,warn");
        assert_eq!(read(" DEBUG "), "tablecast=debug,warn");
        assert_eq!(read(""), "tablecast=info,warn");
        assert_eq!(read("error"), "error");
        assert_eq!(read("off"), "off");
    }

    #[test]
    fn targets_are_taken_as_they_are() {
        assert_eq!(read("warn,tablecast::kafka=trace,rdkafka=info"), "rdkafka=info,tablecast::kafka=trace,warn");
    }

    #[test]
    fn what_is_no_filter_is_an_error() {
        let error = parse_filter("tablecast=loud").unwrap_err().to_string();
        assert!(error.starts_with("`tablecast=loud` is not a log filter: "), "{error}");
    }
}
