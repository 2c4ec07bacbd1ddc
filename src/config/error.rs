//! What is wrong with a configuration: every finding at once, each with its line, its setting and its remedy.

use std::fmt;

/// A configuration that cannot be used, with all that is wrong with it.
///
/// `Display` writes one finding a line, the way compilers do: `connectors.toml:12: kafka: problem; remedy`. No finding
/// quotes a value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    findings: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1; `None` if it is about the file as a whole.
    pub line: Option<usize>,
    /// The setting's path, as TOML writes it; empty if it is about the file as a whole.
    pub setting: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl ConfigError {
    /// Puts the findings in the order of the file.
    pub(super) fn new(file: &str, mut findings: Vec<Mistake>) -> ConfigError {
        findings.sort_by_key(|finding| finding.line);
        findings.dedup();
        ConfigError { file: file.to_owned(), findings }
    }

    /// An error about the file as a whole.
    pub(super) fn of_file(file: &str, problem: String, remedy: &str) -> ConfigError {
        let remedy = Some(remedy.to_owned());
        ConfigError::new(file, vec![Mistake { line: None, setting: String::new(), problem, remedy }])
    }

    /// All that is wrong, in the order of the file; never empty.
    pub fn findings(&self) -> &[Mistake] {
        &self.findings
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match finding.line {
                Some(line) => write!(f, "{}:{line}: {finding}", self.file)?,
                None => write!(f, "{}: {finding}", self.file)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
