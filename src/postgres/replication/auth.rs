//! The login: startup message, authentication, and the server's first words up to ReadyForQuery.
//!
//! The methods are those that Postgres offers without further libraries: trust, password, md5 and SCRAM-SHA-256. Over TLS
//! SCRAM binds itself to the server's certificate (SCRAM-SHA-256-PLUS) where the server offers it and the certificate's
//! signature is one that RFC 5929 covers, so that somebody in between with a certificate of his own can't pass the
//! login on.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::config::ChannelBinding;

use super::binding;
use super::channel::{Answer, Channel, name};
use super::endpoint::Endpoint;
use super::error::{ReplicationError, Result};

const WAITED_FOR: &str = "its answer to the login";

/// Logs in, and returns when the server is ready for the first command.
pub(super) fn log_in(channel: &mut Channel, endpoint: &Endpoint) -> Result<()> {
    frontend::startup_message(endpoint.startup_parameters(), &mut channel.outgoing)
        .map_err(|_| ReplicationError::Parameters("a name or an option has a zero byte".to_owned()))?;
    channel.send()?;
    authenticate(channel, endpoint)?;
    loop {
        match channel.receive("the end of the login")? {
            Answer::Message(Message::BackendKeyData(_)) => {}
            Answer::Message(Message::ReadyForQuery(_)) => return Ok(()),
            other => return Err(ReplicationError::protocol("ReadyForQuery after the login", name(&other))),
        }
    }
}

fn authenticate(channel: &mut Channel, endpoint: &Endpoint) -> Result<()> {
    let Answer::Message(request) = channel.receive(WAITED_FOR)? else {
        return Err(ReplicationError::protocol("a request to authenticate", name(&Answer::CopyBoth)));
    };
    let bound = matches!(request, Message::AuthenticationSasl(_));
    if endpoint.channel_binding == ChannelBinding::Require && !bound {
        return Err(login("channel_binding=require, but the server asks for a login without SCRAM"));
    }
    match request {
        Message::AuthenticationOk => return Ok(()),
        Message::AuthenticationCleartextPassword => {
            send_password(channel, password(endpoint)?)?;
        }
        Message::AuthenticationMd5Password(body) => {
            let hash = md5_hash(endpoint.user.as_bytes(), password(endpoint)?, body.salt());
            send_password(channel, hash.as_bytes())?;
        }
        Message::AuthenticationSasl(body) => scram(channel, endpoint, &body)?,
        Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
            return Err(login("the server asks for GSSAPI, SSPI or Kerberos: use SCRAM for this role"));
        }
        other => {
            return Err(ReplicationError::protocol("a request to authenticate", name(&Answer::Message(other))));
        }
    }
    match channel.receive(WAITED_FOR)? {
        Answer::Message(Message::AuthenticationOk) => Ok(()),
        other => Err(ReplicationError::protocol("AuthenticationOk", name(&other))),
    }
}

fn send_password(channel: &mut Channel, password: &[u8]) -> Result<()> {
    frontend::password_message(password, &mut channel.outgoing)
        .map_err(|_| ReplicationError::Parameters("the password has a zero byte".to_owned()))?;
    channel.send()
}

fn scram(channel: &mut Channel, endpoint: &Endpoint, offer: &AuthenticationSaslBody) -> Result<()> {
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = offer.mechanisms();
    while let Some(mechanism) = mechanisms.next()? {
        plain |= mechanism == sasl::SCRAM_SHA_256;
        plus |= mechanism == sasl::SCRAM_SHA_256_PLUS;
    }
    let binding = match endpoint.channel_binding {
        ChannelBinding::Disable => None,
        _ => channel.socket().server_certificate().and_then(binding::tls_server_end_point),
    };
    let (mechanism, binding) = match binding {
        Some(hash) if plus => (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)),
        _ if endpoint.channel_binding == ChannelBinding::Require => {
            return Err(login("channel_binding=require, but there is no TLS, or the server can't bind to it"));
        }
        // Saying that we could have, had it been offered, lets the server notice that somebody removed the offer.
        Some(_) if plain => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None if plain => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        _ => return Err(login("the server offers no SASL mechanism that we know: SCRAM-SHA-256 is needed")),
    };
    let mut scram = sasl::ScramSha256::new(password(endpoint)?, binding);
    frontend::sasl_initial_response(mechanism, scram.message(), &mut channel.outgoing)?;
    channel.send()?;
    match channel.receive(WAITED_FOR)? {
        Answer::Message(Message::AuthenticationSaslContinue(body)) => {
            scram.update(body.data()).map_err(|error| login(&error.to_string()))?;
        }
        other => return Err(ReplicationError::protocol("AuthenticationSASLContinue", name(&other))),
    }
    frontend::sasl_response(scram.message(), &mut channel.outgoing)?;
    channel.send()?;
    match channel.receive(WAITED_FOR)? {
        // A wrong signature means that the server doesn't know the password either.
        Answer::Message(Message::AuthenticationSaslFinal(body)) => {
            scram.finish(body.data()).map_err(|error| login(&error.to_string()))
        }
        other => Err(ReplicationError::protocol("AuthenticationSASLFinal", name(&other))),
    }
}

fn password(endpoint: &Endpoint) -> Result<&[u8]> {
    endpoint.password.as_deref().ok_or_else(|| login("the server asks for a password, and the URL has none"))
}

fn login(why: &str) -> ReplicationError {
    ReplicationError::Login(why.to_owned())
}
