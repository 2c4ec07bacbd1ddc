//! A bell: one thread rings it, another waits for it beside a socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Rung before or while somebody waits, it is heard: a ring is kept until the bell is [silenced](Self::silence).
#[derive(Debug)]
pub struct Bell {
    rung: UnixStream,
    heard: UnixStream,
}

impl Bell {
    /// A bell that hasn't been rung. Fails when no file descriptor is left.
    pub fn new() -> io::Result<Self> {
        let (rung, heard) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok(Self { rung, heard })
    }

    /// Rings. Never waits.
    pub fn ring(&self) {
        // Full: it has been rung often enough.
        let _ = (&self.rung).write(&[1]);
    }

    /// Waits for a ring, at most for `limit`, and for less where a signal interrupts; tells whether one is kept.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&timespec(limit))) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets all rings so far.
    pub fn silence(&self) {
        let mut rings = [0; 64];
        while matches!((&self.heard).read(&mut rings), Ok(count) if count > 0) {}
    }
}

/// As poll(2) takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

impl AsFd for Bell {
    /// Readable while a ring is kept.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}
