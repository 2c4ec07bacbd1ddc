//! What `check` finds. A finding is no error: `check` did its work, whatever it found.

use std::fmt::Write;

use serde::Serialize;

use super::exit::Exit;

/// How bad it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Info,
    /// `run` works, but something will be missed.
    Warning,
    /// `run` would refuse to start.
    Error,
}

/// One thing that `check` looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `shop: slot tablecast_shop`.
    pub subject: String,
    /// What was found.
    pub message: String,
    /// The very SQL or command that mends it.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well with the subject.
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { severity: Severity::Info, subject: subject.into(), message: message.into(), remedy: None }
    }

    /// All is well for `run`; something else may want more.
    pub fn note(subject: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..Finding::ok(subject, message) }
    }

    /// Something that stops nothing.
    pub fn warning(
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<Option<String>>,
    ) -> Finding {
        let (subject, message) = (subject.into(), message.into());
        Finding { severity: Severity::Warning, subject, message, remedy: remedy.into() }
    }

    /// Something that stops `run`.
    pub fn error(subject: impl Into<String>, message: impl Into<String>, remedy: impl Into<Option<String>>) -> Finding {
        let (subject, message) = (subject.into(), message.into());
        Finding { severity: Severity::Error, subject, message, remedy: remedy.into() }
    }
}

/// The status that findings end `check` with.
pub fn exit(findings: &[Finding]) -> Exit {
    let worst = findings.iter().map(|finding| finding.severity).max();
    if worst == Some(Severity::Error) { Exit::Stopped } else { Exit::Done }
}

#[derive(Serialize)]
struct Report<'f> {
    ok: bool,
    findings: &'f [Finding],
}

/// One JSON object: `ok` is whether `run` can start.
pub fn json(findings: &[Finding]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Report { ok: exit(findings) == Exit::Done, findings })
}

/// A table for people: severity, subject, message; remedies below, ready to be pasted; a sum at the end.
pub fn human(findings: &[Finding], coloured: bool) -> String {
    let subject_width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (label, colour) = label(finding.severity);
        let padded = format!("{label:LABEL_WIDTH$}");
        let label = if coloured { format!("\x1b[{colour}m{padded}\x1b[0m") } else { padded };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label}  {:subject_width$}  {}", finding.subject, finding.message);
        for line in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
            let _ = writeln!(text, "{:LABEL_WIDTH$}  {line}", "");
        }
    }
    text.push_str(&sum(findings));
    text
}

const LABEL_WIDTH: usize = "warning".len();

fn label(severity: Severity) -> (&'static str, u8) {
    match severity {
        Severity::Info => ("ok", 32),
        Severity::Warning => ("warning", 33),
        Severity::Error => ("error", 31),
    }
}

fn sum(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = if errors == 0 { "`run` can start" } else { "`run` would refuse to start" };
    format!("{}, {}: {verdict}", plural(errors, "error"), plural(warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("configuration", "1 connector"),
            Finding::error(
                "shop",
                "wal_level is replica",
                "ALTER SYSTEM SET wal_level = logical;\n-- then restart".to_owned(),
            ),
            Finding::warning("shop: größe", "no rows", None),
        ]
    }

    #[test]
    fn people_get_a_table_with_remedies_to_paste() {
        insta::assert_snapshot!(human(&findings(), false), @r"
        ok       configuration  1 connector
        error    shop           wal_level is replica
                 ALTER SYSTEM SET wal_level = logical;
                 -- then restart
        warning  shop: größe    no rows
        1 error, 1 warning: `run` would refuse to start
        ");
        assert_eq!(human(&[], false), "0 errors, 0 warnings: `run` can start");
    }

    #[test]
    fn colour_is_around_the_label_alone() {
        let text = human(&findings()[..1], true);
        assert_eq!(text.lines().next(), Some("\x1b[32mok     \x1b[0m  configuration  1 connector"));
    }

    #[test]
    fn programs_get_one_object() {
        insta::assert_snapshot!(json(&findings()[1..2]).unwrap(), @r#"
        {
          "ok": false,
          "findings": [
            {
              "severity": "error",
              "subject": "shop",
              "message": "wal_level is replica",
              "remedy": "ALTER SYSTEM SET wal_level = logical;\n-- then restart"
            }
          ]
        }
        "#);
    }

    #[test]
    fn only_an_error_stops_run() {
        assert_eq!(exit(&findings()), Exit::Stopped);
        assert_eq!(exit(&[findings().remove(2)]), Exit::Done);
        assert_eq!(exit(&[]), Exit::Done);
    }
}
