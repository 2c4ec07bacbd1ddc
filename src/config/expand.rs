//! `${NAME}` and `${file:PATH}` inside a string: where secrets come in.
//!
//! `$${` stands for `${` itself. What was filled in is remembered by its range, for two reasons: a message never quotes
//! a value that has some, and a connection URL can tell a password's `@` from its own.

use std::env::VarError;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Where `${NAME}` and `${file:PATH}` are looked up.
pub trait Environment {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Result<String, VarError>;
    /// The content of a file.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The environment of this process, and the files that it can read.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        std::env::var(name)
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// A string with its references filled in. It has no `Debug`: it may be a secret.
pub(super) struct Expanded {
    pub value: String,
    /// Which bytes of `value` came from elsewhere.
    pub foreign: Vec<Range<usize>>,
}

/// A reference that leads nowhere.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub problem: String,
    pub remedy: String,
}

/// Fills in every reference of `raw`. `directory` is where relative paths start.
pub(super) fn expand(raw: &str, directory: &Path, environment: &dyn Environment) -> Result<Expanded, Vec<Unresolved>> {
    let mut expanded = Expanded { value: String::with_capacity(raw.len()), foreign: Vec::new() };
    let mut unresolved = Vec::new();
    let mut rest = raw;
    while let Some(dollar) = rest.find('$') {
        expanded.value.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.value.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some((reference, after)) = after.split_once('}') else {
                unresolved.push(unterminated());
                break;
            };
            match resolve(reference, directory, environment) {
                Ok(value) => {
                    let start = expanded.value.len();
                    expanded.value.push_str(&value);
                    expanded.foreign.push(start..expanded.value.len());
                }
                Err(problem) => unresolved.push(problem),
            }
            rest = after;
        } else {
            expanded.value.push('$');
            rest = &rest[1..];
        }
    }
    expanded.value.push_str(rest);
    if unresolved.is_empty() { Ok(expanded) } else { Err(unresolved) }
}

fn resolve(reference: &str, directory: &Path, environment: &dyn Environment) -> Result<String, Unresolved> {
    if let Some(path) = reference.strip_prefix("file:") {
        let content = environment.file(&directory.join(path)).map_err(|error| Unresolved {
            problem: format!("`${{file:{path}}}` cannot be read: {error}"),
            remedy: "paths are relative to the configuration file's directory".to_owned(),
        })?;
        let content =
            content.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&content);
        return Ok(content.to_owned());
    }
    if !is_variable_name(reference) {
        return Err(Unresolved {
            problem: "what stands in `${…}` is neither a variable's name nor `file:PATH`".to_owned(),
            remedy: ESCAPE.to_owned(),
        });
    }
    environment.variable(reference).map_err(|error| match error {
        VarError::NotPresent => Unresolved {
            problem: format!("the environment has no variable `{reference}`"),
            remedy: format!("set it, or {ESCAPE}"),
        },
        VarError::NotUnicode(_) => Unresolved {
            problem: format!("the environment's variable `{reference}` is not UTF-8"),
            remedy: "set it to text".to_owned(),
        },
    })
}

const ESCAPE: &str = "write `$${` where `${` itself is meant";

fn unterminated() -> Unresolved {
    Unresolved { problem: "a `${` has no `}`".to_owned(), remedy: ESCAPE.to_owned() }
}

fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Environment for Fake {
        fn variable(&self, name: &str) -> Result<String, VarError> {
            if name == "NAME" { Ok("value".to_owned()) } else { Err(VarError::NotPresent) }
        }

        fn file(&self, path: &Path) -> io::Result<String> {
            if path == Path::new("/etc/tablecast/secret") {
                Ok("from a file\r\n".to_owned())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }

    fn expanded(raw: &str) -> String {
        expand(raw, Path::new("/etc/tablecast"), &Fake).ok().map(|expanded| expanded.value).unwrap()
    }

    fn problem(raw: &str) -> String {
        expand(raw, Path::new("/etc/tablecast"), &Fake).err().unwrap().remove(0).problem
    }

    #[test]
    fn references_are_filled_in_and_the_rest_stays() {
        assert_eq!(expanded("a ${NAME} b ${file:secret} $c $"), "a value b from a file $c $");
        assert_eq!(expanded("${file:/etc/tablecast/secret}"), "from a file");
    }

    #[test]
    fn a_doubled_dollar_escapes_a_reference() {
        assert_eq!(expanded("$${NAME} $$ $$NAME $$${NAME}"), "${NAME} $$ $$NAME $${NAME}");
    }

    #[test]
    fn what_is_filled_in_is_not_read_for_references_again() {
        struct Nested;
        impl Environment for Nested {
            fn variable(&self, _: &str) -> Result<String, VarError> {
                Ok("${OTHER}".to_owned())
            }
            fn file(&self, _: &Path) -> io::Result<String> {
                Err(io::ErrorKind::NotFound.into())
            }
        }
        let expanded = expand("<${NAME}>", Path::new(""), &Nested).ok().unwrap();
        assert_eq!(expanded.value, "<${OTHER}>");
        assert_eq!(expanded.foreign.first(), Some(&(1..9)));
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_named() {
        assert_eq!(problem("${OTHER}"), "the environment has no variable `OTHER`");
        assert_eq!(problem("${file:other}"), "`${file:other}` cannot be read: entity not found");
        assert_eq!(problem("${"), "a `${` has no `}`");
        assert_eq!(problem("${no name}"), "what stands in `${…}` is neither a variable's name nor `file:PATH`");
    }
}
