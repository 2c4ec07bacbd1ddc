//! TLS over the non-blocking TCP socket, and the request for it that Postgres wants first.
//!
//! The answer to an SSLRequest is read as exactly one byte. So whatever somebody in between puts behind it in plain text
//! goes into the TLS handshake, which fails, and never into the session.
//!
//! With `sslmode=prefer` a server that has no TLS gets plain text, as with libpq. A handshake that fails is an error and
//! does not fall back: certificates are checked or not by the `ClientConfig`, and a failed check must not be a way around.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio_postgres::config::{SslMode, SslNegotiation};

use super::endpoint::{Target, TlsPolicy};
use super::error::{ReplicationError, Result};
use super::socket::{Socket, wait};

/// A TCP socket with TLS over it.
#[derive(Debug)]
pub(super) struct TlsSocket {
    tcp: TcpStream,
    tls: ClientConnection,
}

/// Puts TLS over `socket` if `policy` and the server want it; Unix-domain sockets are left as they are, as by libpq.
pub(super) fn negotiate(socket: Socket, target: &Target, policy: &TlsPolicy, deadline: Instant) -> Result<Socket> {
    let (Socket::Tcp(tcp), Target::Tcp { host, .. }) = (&socket, target) else {
        return Ok(socket);
    };
    let Some(config) = policy.config.as_ref().filter(|_| policy.mode != SslMode::Disable) else {
        return Ok(socket);
    };
    let mut config = Arc::clone(config);
    if policy.negotiation == SslNegotiation::Direct {
        // Without a request, the protocol's name in the handshake tells the server what this is.
        Arc::make_mut(&mut config).alpn_protocols = vec![b"postgresql".to_vec()];
    } else if !server_has_tls(tcp, target, deadline)? {
        if policy.mode == SslMode::Require {
            return Err(ReplicationError::Parameters(format!("sslmode=require, but Postgres at {target} has no TLS")));
        }
        return Ok(socket);
    }
    let Socket::Tcp(tcp) = socket else { return Ok(socket) };
    TlsSocket::handshake(tcp, host, config, deadline).map(|tls| Socket::Tls(Box::new(tls))).map_err(|failure| {
        match failure {
            Failure::Io(source) => ReplicationError::Connect { place: target.to_string(), source },
            Failure::Tls(source) => ReplicationError::Tls { place: target.to_string(), source },
        }
    })
}

/// Asks the server for TLS.
fn server_has_tls(mut tcp: &TcpStream, target: &Target, deadline: Instant) -> Result<bool> {
    let failed = |source| ReplicationError::Connect { place: target.to_string(), source };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    // Eight bytes fit into the buffer of a socket that was never written to.
    tcp.write_all(&request).map_err(failed)?;
    if !wait(tcp.as_fd(), (true, false), None, left(deadline)).map_err(failed)?.readable {
        return Err(failed(io::ErrorKind::TimedOut.into()));
    }
    let mut answer = [0];
    tcp.read_exact(&mut answer).map_err(failed)?;
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        // An error before TLS is not to be trusted, nor shown. Postgres sends one when it can't start a process.
        [b'E'] => Err(ReplicationError::Closed { waited_for: "its answer to the request for TLS" }),
        [other] => Err(ReplicationError::protocol(
            "'S' or 'N' in answer to the request for TLS",
            format!("{:?}", char::from(other)),
        )),
    }
}

/// Why a handshake failed.
enum Failure {
    Io(io::Error),
    Tls(rustls::Error),
}

impl TlsSocket {
    fn handshake(tcp: TcpStream, host: &str, config: Arc<ClientConfig>, deadline: Instant) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::Tls(rustls::Error::General(format!("{host:?} is not a host's name"))))?;
        let tls = ClientConnection::new(config, name).map_err(Failure::Tls)?;
        let mut socket = Self { tcp, tls };
        while socket.tls.is_handshaking() || socket.tls.wants_write() {
            match socket.step()? {
                Step::Moved => {}
                Step::Stuck => {
                    let ready =
                        wait(socket.fd(), (socket.tls.wants_read(), socket.tls.wants_write()), None, left(deadline));
                    if ready.map_err(Failure::Io)? == Default::default() {
                        return Err(Failure::Io(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
        }
        Ok(socket)
    }

    /// One step of the handshake, as far as it goes without waiting.
    fn step(&mut self) -> Result<Step, Failure> {
        let moved = if self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)
        } else {
            self.tls.read_tls(&mut self.tcp).and_then(|count| match count {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            })
        };
        match moved {
            Ok(_) => {
                if let Err(error) = self.tls.process_new_packets() {
                    // The server is told why, if it still listens.
                    let _ = self.tls.write_tls(&mut self.tcp);
                    return Err(Failure::Tls(error));
                }
                Ok(Step::Moved)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::Moved),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Stuck),
            Err(error) => Err(Failure::Io(error)),
        }
    }

    /// The connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }

    pub(super) fn server_certificate(&self) -> Option<&[u8]> {
        Some(self.tls.peer_certificates()?.first()?)
    }

    /// Reads plain text until `into` is full or the socket is empty.
    ///
    /// A full `into` may leave decrypted bytes behind, of which the operating system knows nothing: read before waiting.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < into.len() {
            match self.tls.reader().read(&mut into[count..]) {
                Ok(0) => return Ok(count),
                Ok(more) => {
                    count += more;
                    continue;
                }
                // Nothing decrypted is left.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) if count > 0 => return Ok(count),
                Err(error) => return Err(error),
            }
            match self.tls.read_tls(&mut self.tcp) {
                // The end, orderly or not: the reader above tells them apart.
                Ok(_) => {
                    self.tls
                        .process_new_packets()
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
                Err(_) if count > 0 => return Ok(count),
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Takes plain text only if nothing encrypted is waiting, so that the backlog is never more than one message.
    pub(super) fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let count = self.tls.writer().write(from)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}

enum Step {
    Moved,
    Stuck,
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
