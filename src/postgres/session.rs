//! The session settings that every connection has, so that a value's text is the same on all of them.
//!
//! The stream and the snapshot share one table of encoders, and that holds only if Postgres's output functions write
//! the same text on both connections. So both apply [`RENDERING`], which outranks the defaults of server, database and
//! role.

use super::sql::{quote_ident, quote_literal};

/// How the server renders values: name and value of each setting.
pub const RENDERING: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    // The text of `regclass` and its kin leaves out the schemas that are on the path; so does that of the row filters
    // that the catalog prints.
    ("search_path", ""),
];

/// Row-level security would leave rows out of a snapshot without a word: with this, it is an error.
pub const ALL_ROWS: &[(&str, &str)] = &[("row_security", "off")];

/// The commands that apply the settings, in one string.
pub fn set_commands<'a>(settings: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> String {
    settings.into_iter().map(|(name, value)| format!("SET {} = {};", quote_ident(name), quote_literal(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_set_commands() {
        let commands = set_commands(&[("timezone", "UTC"), ("search_path", "")]);
        assert_eq!(commands, r#"SET "timezone" = 'UTC';SET "search_path" = '';"#);
    }
}
