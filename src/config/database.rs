//! `database_url`: where the source is, who logs in, and how the connection is encrypted.
//!
//! tokio-postgres reads both of libpq's forms, but neither `sslmode=verify-full` nor `sslrootcert`: they are taken out
//! here and become a [`TlsMode`]. No message quotes the URL or a part of it that may be a secret.
//!
//! A password that `${NAME}` brings in may hold any character. In the URL form an `@` of it is percent-encoded here,
//! since only the file's own `@` ends the credentials; in the other form spaces, quotes and backslashes are escaped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::SslMode;

use super::written::Text;
use crate::postgres::tls::TlsMode;

/// What is wrong with a URL, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadUrl {
    pub problem: String,
    pub remedy: String,
}

const SHAPE: &str = "write `postgres://USER:PASSWORD@HOST:5432/DATABASE`, other characters percent-encoded, \
                     or `host=HOST user=USER password='PASSWORD' dbname=DATABASE`";

/// libpq would wait for as long as TCP does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What libpq knows and tokio-postgres doesn't. Only these are named in a message: any other name may be a piece of a
/// password that was not percent-encoded.
const OF_LIBPQ_ALONE: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "passfile",
    "replication",
    "require_auth",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "sslsni",
];

type Result<T> = std::result::Result<T, BadUrl>;

fn bad<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T> {
    Err(BadUrl { problem: problem.into(), remedy: remedy.into() })
}

/// Reads a connection URL. `directory` is where a relative `sslrootcert` starts.
pub(super) fn parse(url: &Text, connector: &str, directory: &Path) -> Result<(tokio_postgres::Config, TlsMode)> {
    let text = protect(url);
    let mut options = Options::split(&text)?;
    let tls = tls_mode(options.take("sslmode"), options.take("sslrootcert"), directory)?;
    let mut config = options.into_config()?;
    complete(&config)?;
    config.ssl_mode(match tls {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyFull { .. } => SslMode::Require,
    });
    if config.get_application_name().is_none() {
        config.application_name(format!("tablecast-{connector}"));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    Ok((config, tls))
}

/// Escapes what was filled in, where the file's own text says what it is.
fn protect(url: &Text) -> String {
    let is_url = without_scheme(&url.value).is_some();
    let last_own_at = end_of_credentials(url);
    let mut text = String::with_capacity(url.value.len());
    let mut done = 0;
    for range in &url.foreign {
        text.push_str(&url.value[done..range.start]);
        let filled_in = &url.value[range.clone()];
        if is_url && last_own_at.is_some_and(|at| range.end <= at) {
            text.push_str(&filled_in.replace('@', "%40"));
        } else if !is_url && url.value[..range.start].ends_with(['=', '\'']) {
            for character in filled_in.chars() {
                if character.is_whitespace() || "'\\".contains(character) {
                    text.push('\\');
                }
                text.push(character);
            }
        } else {
            text.push_str(filled_in);
        }
        done = range.end;
    }
    text.push_str(&url.value[done..]);
    text
}

/// The last `@` before the path and the options that the file itself has, not what was filled in.
fn end_of_credentials(url: &Text) -> Option<usize> {
    let scheme = url.value.len() - without_scheme(&url.value)?.len();
    let own = |characters: &'static [char]| {
        let is_own = |at: &usize| *at >= scheme && !url.foreign.iter().any(|range| range.contains(at));
        url.value.match_indices(characters).map(|(at, _)| at).filter(is_own).collect::<Vec<_>>()
    };
    let end = own(&['/', '?']).first().copied().unwrap_or(url.value.len());
    own(&['@']).into_iter().rfind(|at| *at < end)
}

fn without_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))
}

/// A URL in two halves: what comes before the options, and the options themselves.
struct Options {
    /// `postgres://…` up to the question mark; `None` for the form of `key=value`.
    base: Option<String>,
    options: Vec<(String, String)>,
}

impl Options {
    fn split(text: &str) -> Result<Options> {
        let Some(rest) = without_scheme(text) else {
            return Ok(Options { base: None, options: key_values(text)? });
        };
        // As tokio-postgres reads it: the first `@` ends the credentials, which may hold a question mark.
        let credentials = rest.find('@').map_or(0, |at| at + 1);
        let Some(question) = rest[credentials..].find('?').map(|at| at + credentials) else {
            return Ok(Options { base: Some(text.to_owned()), options: Vec::new() });
        };
        let scheme = text.len() - rest.len();
        let mut options = Vec::new();
        for option in rest[question + 1..].split('&').filter(|option| !option.is_empty()) {
            let Some((key, value)) = option.split_once('=') else {
                return bad("has an option without a value", SHAPE);
            };
            options.push((percent_decoded(key)?, percent_decoded(value)?));
        }
        Ok(Options { base: Some(text[..scheme + question].to_owned()), options })
    }

    /// Takes an option out; the last one wins, as in libpq.
    fn take(&mut self, key: &str) -> Option<String> {
        let value = self.options.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        self.options.retain(|(name, _)| name != key);
        value
    }

    fn into_config(self) -> Result<tokio_postgres::Config> {
        for (key, value) in &self.options {
            check_option(key, value)?;
        }
        let text = match &self.base {
            Some(base) if self.options.is_empty() => base.clone(),
            Some(base) => {
                let options = self.options.iter().map(|(key, value)| format!("{key}={}", percent_encoded(value)));
                format!("{base}?{}", options.collect::<Vec<_>>().join("&"))
            }
            None => self.options.iter().map(|(key, value)| quoted(key, value)).collect::<Vec<_>>().join(" "),
        };
        // Its own message may quote a character of the text.
        text.parse().or_else(|_| bad("is not a connection URL", SHAPE))
    }
}

/// An option on its own, so that the message can name it.
fn check_option(key: &str, value: &str) -> Result<()> {
    if quoted(key, value).parse::<tokio_postgres::Config>().is_ok() {
        return Ok(());
    }
    // With a value that suits most options, only an unknown name can fail.
    let is_known = ["1", "127.0.0.1", "disable", "any"]
        .iter()
        .any(|value| quoted(key, value).parse::<tokio_postgres::Config>().is_ok());
    if is_known {
        bad(format!("its option `{key}` has a value that is not valid"), "see libpq's \"Parameter Key Words\"")
    } else if OF_LIBPQ_ALONE.contains(&key) {
        bad(format!("its option `{key}` is libpq's, and tablecast cannot heed it"), "leave it out")
    } else {
        bad("has an option that is not known", format!("percent-encode `&`, `=` and `?` in a value, or {SHAPE}"))
    }
}

fn quoted(key: &str, value: &str) -> String {
    format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Reads `key=value key='value'`, with backslashes before what is meant literally.
fn key_values(text: &str) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    // The end is not trimmed: its space may be an escaped one.
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return bad("is not a connection URL", SHAPE);
        };
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return bad("is not a connection URL", SHAPE);
        }
        let (value, after) = value(after.trim_start())?;
        options.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(options)
}

/// The value at the start of `text`, and what follows it.
fn value(text: &str) -> Result<(String, &str)> {
    let (inner, is_quoted) = text.strip_prefix('\'').map_or((text, false), |inner| (inner, true));
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, &inner[at + 1..])),
            space if space.is_whitespace() && !is_quoted => return Ok((value, &inner[at..])),
            other => value.push(other),
        }
    }
    if is_quoted { bad("has a quote that nothing closes", SHAPE) } else { Ok((value, "")) }
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).or_else(|_| bad("is not UTF-8 once it is decoded", SHAPE))
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b',' | b':' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn tls_mode(mode: Option<String>, root_cert: Option<String>, directory: &Path) -> Result<TlsMode> {
    let tls = match mode.as_deref() {
        None => TlsMode::Prefer,
        Some("disable") => TlsMode::Disable,
        Some("prefer") => TlsMode::Prefer,
        Some("require") => TlsMode::Require,
        Some("verify-full") => {
            let root_cert: Option<PathBuf> = root_cert.filter(|path| path != "system").map(|path| directory.join(path));
            return Ok(TlsMode::VerifyFull { root_cert });
        }
        Some("verify-ca") => {
            return bad("`sslmode=verify-ca` would trust any host's certificate", "write `sslmode=verify-full`");
        }
        Some(_) => {
            return bad("its `sslmode` is not known", "there are `disable`, `prefer`, `require` and `verify-full`");
        }
    };
    if root_cert.is_some() {
        return bad("its `sslrootcert` would not be looked at", "add `sslmode=verify-full`, or leave it out");
    }
    Ok(tls)
}

/// libpq would guess what isn't said, by the user who runs it; a daemon's guess would surprise.
fn complete(config: &tokio_postgres::Config) -> Result<()> {
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    if hosts == 0 {
        return bad(
            "names no host",
            "add one, or a Unix socket's directory (`host=/run/postgresql`); there is no default",
        );
    }
    if config.get_user().is_none_or(str::is_empty) {
        return bad("names no user", "add one (`postgres://USER@…`, or `user=USER`); there is no default");
    }
    if config.get_dbname().is_none_or(str::is_empty) {
        return bad("names no database", "add one (`…/DATABASE`, or `dbname=DATABASE`); there is no default");
    }
    if config.get_ports().len() > 1 && config.get_ports().len() != hosts {
        return bad("has not as many ports as hosts", "write one port, or one for each host");
    }
    Ok(())
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
