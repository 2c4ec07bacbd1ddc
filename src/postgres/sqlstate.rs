//! Which of the server's errors pass by themselves.
//!
//! Decided by SQLSTATE alone, never by a message's text, which depends on version and language. What isn't listed is
//! definite: to retry what can't succeed hides the reason from whoever could remove it.

/// Classes (the first two characters) all of whose errors may pass by themselves.
const TRANSIENT_CLASSES: &[&str] = &[
    "08", // connection exception
    "40", // transaction rollback: serialization failure, deadlock
    "53", // insufficient resources: disk, memory, connections, slots
];

/// Single errors that may pass by themselves, of classes that as a whole don't.
const TRANSIENT_STATES: &[&str] = &[
    "25P03", // idle_in_transaction_session_timeout
    "55006", // object_in_use: the slot is another daemon's
    "55P03", // lock_not_available: lock_timeout
    "57014", // query_canceled: statement_timeout
    "57P01", // admin_shutdown
    "57P02", // crash_shutdown
    "57P03", // cannot_connect_now: starting up, shutting down
    "57P05", // idle_session_timeout
    "58000", // system_error, outside Postgres
    "58030", // io_error; not 58P01, undefined_file: a WAL segment that was removed stays so
];

/// Whether an error with this SQLSTATE may pass by itself.
pub fn is_transient(code: &str) -> bool {
    TRANSIENT_STATES.contains(&code) || TRANSIENT_CLASSES.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_transient() {
        for code in ["08006", "40001", "40P01", "53100", "53300", "53400", "55006", "57P01", "57P02", "57P03", "58030"]
        {
            assert!(is_transient(code), "{code}");
        }
    }

    #[test]
    fn what_somebody_has_to_put_right_is_definite() {
        for code in
            ["28P01", "28000", "3D000", "42501", "42P01", "42704", "55000", "57P04", "58P01", "0A000", "XX000", ""]
        {
            assert!(!is_transient(code), "{code}");
        }
    }
}
