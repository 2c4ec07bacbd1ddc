//! A non-blocking byte stream to the server: TCP, a Unix-domain socket, or TLS over TCP.
//!
//! Nothing here blocks but [`Socket::connect`] and [`Socket::wait`], and both have a deadline. Reads and writes return
//! `WouldBlock` when there is nothing to do.
//!
//! TCP's receive buffer is left to the kernel, which lets it grow with the stream: a fixed SO_RCVBUF would switch that
//! off, and is cut to `net.core.rmem_max`, which on most systems is far less than what the kernel allows itself. But where
//! the server runs on this machine, it is ours to choose ([`window`]).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

use super::endpoint::{Keepalives, Target};
use super::tls::TlsSocket;
use super::window;
use crate::bell::{Bell, timespec};

/// How long a reader may look away from a TCP connection within this machine: what the walsender writes meanwhile lies in
/// its own buffer, of megabytes.
const LOOK_AWAY_LOCAL: Duration = Duration::from_millis(2);
/// The same across a network. Longer, and the receiver's window is filled, and what is on its way too little.
const LOOK_AWAY_TCP: Duration = Duration::from_micros(500);
/// The same for a Unix socket, whose buffer is the smallest.
const LOOK_AWAY_UNIX: Duration = Duration::from_micros(450);

/// The bytes to and from the server.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsSocket>),
}

/// What a socket is ready for. A socket that failed or was closed is ready for both: the next call says why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The bell has rung.
    pub(super) rung: bool,
}

impl Socket {
    /// Opens a connection, in plain text, before `deadline`.
    pub(super) fn connect(target: &Target, keepalives: Keepalives, deadline: Instant) -> io::Result<Self> {
        match target {
            Target::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(socket))
            }
            Target::Tcp { host, addr, port } => {
                let socket = match addr {
                    Some(addr) => connect_tcp([SocketAddr::new(*addr, *port)], deadline)?,
                    None => connect_tcp((host.as_str(), *port).to_socket_addrs()?, deadline)?,
                };
                // Status updates are small and must not wait for more to come.
                socket.set_nodelay(true)?;
                keep_alive(&socket, keepalives)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(socket))
            }
        }
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
            Self::Tls(socket) => socket.read(into),
        })
    }

    /// Writes what the other side takes now. Under TLS, what was taken may still need a [`flush`](Self::flush).
    pub(super) fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Tcp(socket) => socket.write(from),
            Self::Unix(socket) => socket.write(from),
            Self::Tls(socket) => socket.write(from),
        })
    }

    /// Sends what TLS still holds; `WouldBlock` if the other side does not take it now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(socket) => retry_interrupted(|| socket.flush()),
        }
    }

    /// The certificate that the server showed, if there is TLS.
    pub(super) fn server_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(socket) => socket.server_certificate(),
        }
    }

    /// How long a reader may look away while much comes.
    pub(super) fn look_away(&self) -> Duration {
        match self.tcp() {
            None => LOOK_AWAY_UNIX,
            Some(socket) if is_local(socket) => LOOK_AWAY_LOCAL,
            Some(_) => LOOK_AWAY_TCP,
        }
    }

    /// Makes room for large messages, where the receive buffer is ours to choose.
    pub(super) fn widen(&self) -> io::Result<()> {
        match self.tcp() {
            Some(socket) if is_local(socket) => Ok(sockopt::set_socket_recv_buffer_size(socket, window::LARGE)?),
            _ => Ok(()),
        }
    }

    /// SO_RCVBUF, as the kernel has it.
    #[cfg(test)]
    pub(super) fn receive_buffer(&self) -> usize {
        sockopt::socket_recv_buffer_size(self.fd()).unwrap()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(socket) => Some(socket),
            Self::Tls(socket) => Some(socket.tcp()),
        }
    }

    /// Waits until the socket is readable or, if `for_writing`, writable, or the bell rings, for at most `patience`.
    pub(super) fn wait(&self, for_writing: bool, bell: Option<&Bell>, patience: Duration) -> io::Result<Ready> {
        wait(self.fd(), (true, for_writing), bell, patience)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
            Self::Tls(socket) => socket.fd(),
        }
    }
}

/// Waits until `fd` is ready for reading or writing, whichever is asked for, or the bell rings; nothing is ready when
/// `patience` is over.
pub(super) fn wait(
    fd: BorrowedFd<'_>,
    (reading, writing): (bool, bool),
    bell: Option<&Bell>,
    patience: Duration,
) -> io::Result<Ready> {
    let mut interest = PollFlags::empty();
    interest.set(PollFlags::IN, reading);
    interest.set(PollFlags::OUT, writing);
    let deadline = Instant::now() + patience;
    loop {
        let other = bell.map_or(fd, AsFd::as_fd);
        let mut fds = [PollFd::from_borrowed_fd(fd, interest), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        let fds = &mut fds[..1 + usize::from(bell.is_some())];
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(fds, Some(&timespec(left))) {
            Ok(_) => {
                let events = fds[0].revents();
                let broken = events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
                return Ok(Ready {
                    readable: broken || events.contains(PollFlags::IN),
                    writable: broken || events.contains(PollFlags::OUT),
                    rung: fds.get(1).is_some_and(|bell| !bell.revents().is_empty()),
                });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tries each address in turn; the last error counts.
fn connect_tcp(addresses: impl IntoIterator<Item = SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match connect_one(address, left) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The receive buffer has to be small before the connection is made: a server that was once offered a larger window waits
/// for more room than there will ever be.
fn connect_one(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.ip().is_loopback() {
        socket.set_recv_buffer_size(window::SMALL)?;
    }
    socket.connect_timeout(&address.into(), patience)?;
    Ok(socket.into())
}

/// Whether the other end is on this machine.
fn is_local(socket: &TcpStream) -> bool {
    socket.peer_addr().is_ok_and(|peer| peer.ip().is_loopback())
}

fn keep_alive(socket: &TcpStream, keepalives: Keepalives) -> io::Result<()> {
    if keepalives.on {
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, keepalives.idle)?;
        if let Some(interval) = keepalives.interval {
            sockopt::set_tcp_keepintvl(socket, interval)?;
        }
        if let Some(retries) = keepalives.retries {
            sockopt::set_tcp_keepcnt(socket, retries)?;
        }
    }
    #[cfg(target_os = "linux")]
    if let Some(timeout) = keepalives.user_timeout {
        sockopt::set_tcp_user_timeout(socket, timeout.as_millis().try_into().unwrap_or(u32::MAX))?;
    }
    Ok(())
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
