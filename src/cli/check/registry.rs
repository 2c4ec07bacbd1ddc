//! The schema registry: whether it answers. Schemas aren't tried: to register one can't be undone.

use crate::avro::Registry;
use crate::cli::finding::Finding;

const SUBJECT: &str = "registry";

/// Whether a registry is there, and lets us in.
pub(super) async fn look(url: &str) -> Finding {
    let registry = match Registry::new(url) {
        Ok(registry) => registry,
        Err(error) => return Finding::error(SUBJECT, error.to_string(), "correct registry.url".to_owned()),
    };
    match registry.reach().await {
        Ok(()) => Finding::ok(SUBJECT, "answers"),
        Err(error) => {
            let remedy = "see that a registry with Confluent's API answers at registry.url, and its user and password";
            Finding::error(SUBJECT, error.to_string(), remedy.to_owned())
        }
    }
}
