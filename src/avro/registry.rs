//! The schema registry: schemas in, ids out, and back.
//!
//! It speaks Confluent's API through `schema_registry_converter`, of which it uses the plain calls and no cache: a
//! registry can be restarted and have forgotten everything (one in memory), so each run of a connector registers its
//! schemas anew and asks for nothing in between. To register a schema that is there already gives the id it has.
//!
//! Whether a failure passes by itself is told by the error code of the registry's answer, or by there being no answer.
//! Where something between us and the registry answers in its own words, there is no code, and waiting is the one
//! choice that can't be wrong: the message says what was answered. No message holds the URL's user or password.

use std::error::Error;
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RawError, RawRegisteredSchema, RegisteredSchema, SchemaType, SrCall, SuppliedSchema,
};

use super::difference::difference;

/// How long the registry may take for an answer: far longer than it ever needs, and short enough that a connection
/// which died without a word doesn't hold up a connector for long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a schema registry, for one run of a connector.
#[derive(Clone, Debug)]
pub struct Registry {
    settings: SrSettings,
    /// Whether schemas may be registered; otherwise only what is registered is used.
    registers: bool,
}

/// The registry didn't do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The URL can't be one of a registry.
    #[error("the registry's url {0}; expected one like http://user:password@127.0.0.1:8081")]
    Url(&'static str),
    /// It may work later: there was no answer, or one that says so.
    #[error("{action}: the schema registry can't do it now: {reason}")]
    Transient {
        /// What it was asked to do.
        action: String,
        /// Why it didn't.
        reason: String,
    },
    /// The schema can't follow the one that the subject has.
    #[error(
        "{action}: the schema is not compatible with the one before ({difference}; the registry says: {reason}); remedy: \
         set the subject's compatibility to NONE where its readers can bear it, take the change of the table back, leave \
         the column out with exclude_columns, or use another topic"
    )]
    Incompatible {
        /// What it was asked to do.
        action: String,
        /// How the schema differs from the newest of the subject.
        difference: String,
        /// Why it didn't.
        reason: String,
    },
    /// Schemas are not registered by us, and nobody has registered this one.
    #[error(
        "subject {subject:?} has not got the schema that the table needs ({difference}), and with registry.auto_register = \
         false it isn't registered by tablecast; remedy: register it: {schema}"
    )]
    NotRegistered {
        /// The subject.
        subject: String,
        /// How the schema differs from the newest of the subject.
        difference: String,
        /// The schema, as JSON.
        schema: String,
    },
    /// User or password are wrong, or may not do this.
    #[error("{action}: the schema registry refuses access ({reason}); remedy: check user and password in its url")]
    Denied {
        /// What it was asked to do.
        action: String,
        /// Why it didn't.
        reason: String,
    },
    /// It won't work later either.
    #[error("{action}: the schema registry refuses: {reason}")]
    Refused {
        /// What it was asked to do.
        action: String,
        /// Why it didn't.
        reason: String,
    },
}

impl RegistryError {
    /// Whether it may pass by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self, RegistryError::Transient { .. })
    }

    fn new(action: String, error: &SRCError) -> RegistryError {
        let reason = chain(error);
        match error.source().map(|source| source.downcast_ref::<RawError>()) {
            Some(Some(answer)) => Self::of_status(http_status(answer.error_code), action, reason),
            // The connection failed, or broke off.
            Some(None) => RegistryError::Transient { action, reason },
            None if error.retriable => RegistryError::Transient { action, reason },
            // An answer that isn't a registry's.
            None => RegistryError::Refused { action, reason },
        }
    }

    fn of_status(status: u32, action: String, reason: String) -> RegistryError {
        match status {
            // 0: no code in the answer.
            0 | 408 | 429 | 500..=599 => RegistryError::Transient { action, reason },
            401 | 403 => RegistryError::Denied { action, reason },
            409 => RegistryError::Incompatible { action, difference: "not known".to_owned(), reason },
            _ => RegistryError::Refused { action, reason },
        }
    }
}

/// Confluent's error codes are HTTP's, or have two digits more (42201).
fn http_status(error_code: u32) -> u32 {
    if error_code >= 10_000 { error_code / 100 } else { error_code }
}

/// What an error says, and all that caused it.
fn chain(error: &SRCError) -> String {
    let mut text = error.error.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Registry {
    /// A registry at `url`, which may carry `user:password@`. Connects to nothing yet.
    pub fn new(url: &str) -> Result<Registry, RegistryError> {
        let parts = Url::parse(url)?;
        let mut builder = SrSettings::new_builder(parts.base);
        builder.set_timeout(TIMEOUT);
        if let Some((user, password)) = &parts.credentials {
            builder.set_basic_authorization(user, password.as_deref());
        }
        let action = || "preparing for the schema registry".to_owned();
        let settings = builder.build().map_err(|error| RegistryError::new(action(), &error))?;
        Ok(Registry { settings, registers: true })
    }

    /// The same, which registers schemas only if `registers`.
    #[must_use]
    pub fn registering(self, registers: bool) -> Registry {
        Registry { registers, ..self }
    }

    /// The id of a schema under `subject`; registers it, unless it is there already or that is not wanted.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        if !self.registers {
            return self.find(subject, schema).await;
        }
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let registered = post_schema(&self.settings, subject.to_owned(), supplied).await;
        let error = match registered {
            Ok(schema) => return Ok(schema.id),
            Err(error) => RegistryError::new(format!("registering {subject}"), &error),
        };
        match error {
            RegistryError::Incompatible { action, reason, .. } => {
                let difference = self.difference(subject, schema).await;
                Err(RegistryError::Incompatible { action, difference, reason })
            }
            error => Err(error),
        }
    }

    /// The id of a schema that somebody has registered under `subject`.
    async fn find(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let action = || format!("looking {subject} up");
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" }).to_string();
        let error = match perform_sr_call(&self.settings, SrCall::PostForVersion(subject, &body)).await {
            Ok(found) => {
                let none = || RegistryError::Refused { action: action(), reason: "its answer has no id".to_owned() };
                return found.id.ok_or_else(none);
            }
            Err(error) => error,
        };
        let answer = error.source().and_then(|source| source.downcast_ref::<RawError>());
        match answer.is_some_and(|answer| http_status(answer.error_code) == 404) {
            true => Err(RegistryError::NotRegistered {
                subject: subject.to_owned(),
                difference: self.difference(subject, schema).await,
                schema: schema.to_owned(),
            }),
            false => Err(RegistryError::new(action(), &error)),
        }
    }

    /// How a schema differs from the newest of the subject, in words.
    async fn difference(&self, subject: &str, schema: &str) -> String {
        match perform_sr_call(&self.settings, SrCall::GetLatest(subject)).await {
            Ok(RawRegisteredSchema { schema: Some(newest), .. }) => difference(&newest, schema),
            _ => "the subject has no schema that could be read".to_owned(),
        }
    }

    /// Whether a registry answers, and lets us in. Any answer of a registry's own will do, also that it has no such
    /// schema.
    pub async fn reach(&self) -> Result<(), RegistryError> {
        match self.fetch(1).await {
            Ok(_) | Err(RegistryError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The schema that has this id, as JSON.
    pub async fn fetch(&self, id: u32) -> Result<String, RegistryError> {
        let action = || format!("fetching the schema {id}");
        match get_schema_by_id(id, &self.settings).await {
            Ok(RegisteredSchema { schema_type: SchemaType::Avro, schema, .. }) => Ok(schema),
            Ok(_) => Err(RegistryError::Refused { action: action(), reason: "it is not an Avro schema".to_owned() }),
            Err(error) => Err(RegistryError::new(action(), &error)),
        }
    }
}

/// A URL, taken apart as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    /// Without user and password, and without a slash at the end.
    base: String,
    credentials: Option<(String, Option<String>)>,
}

impl Url {
    fn parse(url: &str) -> Result<Url, RegistryError> {
        let (scheme, rest) = url.split_once("://").ok_or(RegistryError::Url("has no scheme"))?;
        if scheme != "http" && scheme != "https" {
            return Err(RegistryError::Url("is neither http nor https"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains(['?', '#']) {
            return Err(RegistryError::Url(
                "has a query or a fragment (in a password, write ? as %3F, # as %23, / as %2F)",
            ));
        }
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return Err(RegistryError::Url("has no host"));
        }
        let credentials = userinfo.map(credentials).transpose()?;
        Ok(Url { base: format!("{scheme}://{host}{}", path.trim_end_matches('/')), credentials })
    }
}

fn credentials(userinfo: &str) -> Result<(String, Option<String>), RegistryError> {
    let (user, password) = match userinfo.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (userinfo, None),
    };
    let decode = |text| percent_decode(text).ok_or(RegistryError::Url("has a % in user or password; write it as %25"));
    Ok((decode(user)?, password.map(decode).transpose()?))
}

/// `%40` → `@`; `None` where a `%` is followed by anything but two hexadecimal digits, or the bytes aren't UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        let code = code.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(code)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::Request;
    use axum::http::{StatusCode, header};

    use super::*;

    /// What the last request asked for, and with which authorization.
    type Seen = Arc<Mutex<Option<(String, Option<String>)>>>;

    /// A server that gives every request the same answer.
    async fn serve(status: u16, body: &'static str) -> (String, Seen) {
        let seen = Seen::default();
        let saw = Arc::clone(&seen);
        let answer = move |request: Request| {
            let authorization =
                request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().into());
            *saw.lock().unwrap() = Some((format!("{} {}", request.method(), request.uri()), authorization));
            async move { (StatusCode::from_u16(status).unwrap(), body) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        (host, seen)
    }

    async fn failure(status: u16, body: &'static str) -> RegistryError {
        let (host, _) = serve(status, body).await;
        let registry = Registry::new(&format!("http://me:secret@{host}")).unwrap();
        let error = registry.register("users-key", "\"string\"").await.unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        error
    }

    #[tokio::test]
    async fn registers_with_user_and_password_and_gives_the_id() {
        let (host, seen) = serve(200, r#"{"id": 7}"#).await;
        let registry = Registry::new(&format!("http://me:p%40ss@{host}/apis/ccompat/v7/")).unwrap();
        assert_eq!(registry.register("users-key", "\"string\"").await.unwrap(), 7);
        let expected = ("POST /apis/ccompat/v7/subjects/users-key/versions".into(), Some("Basic bWU6cEBzcw==".into()));
        assert_eq!(*seen.lock().unwrap(), Some(expected));
    }

    #[tokio::test]
    async fn fetches_a_schema_by_its_id() {
        let (host, seen) = serve(200, r#"{"schema": "\"string\""}"#).await;
        let registry = Registry::new(&format!("http://{host}")).unwrap();
        assert_eq!(registry.fetch(7).await.unwrap(), "\"string\"");
        assert_eq!(*seen.lock().unwrap(), Some(("GET /schemas/ids/7?deleted=true".into(), None)));
    }

    #[tokio::test]
    async fn what_the_registry_refuses_is_definite() {
        let incompatible = failure(409, r#"{"error_code": 409, "message": "type changed"}"#).await;
        assert!(matches!(incompatible, RegistryError::Incompatible { .. }));
        assert!(incompatible.to_string().contains("type changed"), "{incompatible}");
        let invalid = failure(422, r#"{"error_code": 42201, "message": "no schema"}"#).await;
        assert!(matches!(invalid, RegistryError::Refused { .. }), "{invalid}");
        for (status, body) in
            [(401, r#"{"error_code": 401, "message": "no"}"#), (403, r#"{"error_code": 40301, "message": "no"}"#)]
        {
            assert!(matches!(failure(status, body).await, RegistryError::Denied { .. }));
        }
        assert!(matches!(failure(200, "{}").await, RegistryError::Refused { .. }));
    }

    #[tokio::test]
    async fn a_schema_that_must_be_registered_already_is_looked_up_or_told() {
        let (host, seen) =
            serve(200, r#"{"subject": "users-key", "id": 7, "version": 2, "schema": "\"string\""}"#).await;
        let registry = Registry::new(&format!("http://{host}")).unwrap().registering(false);
        assert_eq!(registry.register("users-key", "\"string\"").await.unwrap(), 7);
        assert_eq!(seen.lock().unwrap().as_ref().unwrap().0, "POST /subjects/users-key?deleted=false");
        let (host, _) = serve(404, r#"{"error_code": 40403, "message": "no such schema"}"#).await;
        let registry = Registry::new(&format!("http://{host}")).unwrap().registering(false);
        let error = registry.register("users-key", "\"string\"").await.unwrap_err();
        assert!(matches!(error, RegistryError::NotRegistered { .. }), "{error}");
        assert!(error.to_string().ends_with("register it: \"string\""), "{error}");
    }

    #[tokio::test]
    async fn what_may_pass_is_transient() {
        for (status, body) in [
            (500, r#"{"error_code": 50001, "message": "store"}"#),
            (503, r#"{"error_code": 503, "message": "busy"}"#),
            (429, r#"{"error_code": 429, "message": "slow down"}"#),
            (502, "<html>bad gateway</html>"),
            (504, "<html>gateway timeout</html>"),
        ] {
            let error = failure(status, body).await;
            assert!(error.is_transient(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_is_not_there_is_transient_and_says_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://me:secret@{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Registry::new(&url).unwrap().register("users-key", "\"string\"").await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn neither_errors_nor_debug_show_the_password() {
        let registry = Registry::new("http://me:secret@127.0.0.1:8081").unwrap();
        assert!(!format!("{registry:?}").contains("secret"));
        for url in [
            "127.0.0.1:8081",
            "ftp://me:secret@host",
            "http://me:secret@",
            "http://me:sec?ret@host",
            "http://a:secret%@b",
        ] {
            let error = Registry::new(url).unwrap_err().to_string();
            assert!(!error.contains("sec?ret") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let url = |base: &str, credentials| Url { base: base.to_owned(), credentials };
        let user = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
        for (text, expected) in [
            ("http://localhost:8081", url("http://localhost:8081", None)),
            ("https://a:b:c@[::1]:80/x/", url("https://[::1]:80/x", user("a", Some("b:c")))),
            ("https://key@host", url("https://host", user("key", None))),
            ("https://a%3Ab:%C3%A9@host", url("https://host", user("a:b", Some("é")))),
        ] {
            assert_eq!(Url::parse(text).unwrap(), expected);
        }
    }
}
