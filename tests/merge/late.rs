//! A Postgres of its own whose commits are seen late: it replicates synchronously to a standby that takes its time.
//!
//! A commit is decoded as soon as it is in the WAL, and visible only when the standby has said that it has it too. In
//! between, the stream brings what no snapshot shows. The standby is nothing but a walreceiver that keeps nothing.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres_protocol::message::frontend;

use super::support::postgres::Database;
use super::support::wait_for;

/// The standby's name.
const STANDBY: &str = "late";
/// How long it takes to say that it has something.
pub const DELAY_MS: std::ops::Range<u64> = 100..300;
/// How long it waits for data before it looks whether something is to be said.
const LOOK: Duration = Duration::from_millis(5);

/// The server, an instance of `dev/services`, and its standby; both end with it.
pub struct LateServer {
    standby: Option<Standby>,
    instance: String,
    pub url: String,
}

impl LateServer {
    pub fn up(rng: &mut Rng) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::SeqCst);
        let instance = format!("merge-{}-{number}", std::process::id());
        let mut server = Self { standby: None, instance, url: String::new() };
        server.call(&["up", "postgres"]);
        let variables = server.call(&["env"]);
        let url = variables.lines().find_map(|line| line.strip_prefix("export TABLECAST_POSTGRES_URL="));
        server.url = url.unwrap().to_owned();
        let database = Database::create_on(&server.url);
        let start = database.query("SELECT pg_current_wal_flush_lsn()").unwrap();
        server.standby = Some(Standby::start(&server.url, &start, rng.fork()));
        database.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"));
        database.execute("SELECT pg_reload_conf()");
        wait_for("the standby to be a synchronous one", || {
            let state = database.query("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'");
            (state.as_deref() == Some("sync")).then_some(())
        });
        drop(database);
        server
    }

    fn call(&self, arguments: &[&str]) -> String {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("dev/services"));
        command.args(arguments).current_dir(root).env("TABLECAST_SERVICES", &self.instance);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for LateServer {
    fn drop(&mut self) {
        self.standby.take();
        self.call(&["down"]);
        // The instance's name is never used again, nor is its lock.
        let lock = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".services/{}.lock", self.instance));
        let _ = std::fs::remove_file(lock);
    }
}

/// The standby's thread.
struct Standby {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Standby {
    fn start(url: &str, start: &str, rng: Rng) -> Self {
        let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let mut wire = Wire::connect(&address);
        wire.send(|out| frontend::query(&format!("START_REPLICATION PHYSICAL {start}"), out).unwrap());
        wire.wait_for(b'W');
        let stop = Arc::new(AtomicBool::new(false));
        let stop_there = Arc::clone(&stop);
        let thread = std::thread::spawn(move || receive(&mut wire, &stop_there, rng));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It has said why it died.
            let _ = thread.join();
        }
    }
}

fn receive(wire: &mut Wire, stop: &AtomicBool, mut rng: Rng) {
    let mut due: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut said = 0;
    while !stop.load(Ordering::SeqCst) {
        let mut is_asked = false;
        while let Some((kind, body)) = wire.message() {
            assert_eq!(kind, b'd', "{:?}", String::from_utf8_lossy(&body));
            let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
            match body[0] {
                // Where it starts, where the WAL ends, the time; then the WAL itself.
                b'w' => {
                    let at = Instant::now() + Duration::from_millis(rng.u64(DELAY_MS));
                    let at = due.back().map_or(at, |(before, _)| at.max(*before));
                    due.push_back((at, number(1) + (body.len() - 25) as u64));
                }
                // Where the WAL ends, the time, and whether an answer is wanted.
                b'k' => is_asked |= body[17] == 1,
                other => panic!("a message of kind {other}"),
            }
        }
        while let Some(&(_, lsn)) = due.front().filter(|(at, _)| *at <= Instant::now()) {
            due.pop_front();
            (said, is_asked) = (lsn, true);
        }
        if is_asked && said > 0 {
            wire.say(said);
        }
    }
}

/// The connection of a walreceiver.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let mut wire = Self { stream, buffer: Vec::new() };
        let parameters = [("user", "postgres"), ("replication", "true"), ("application_name", STANDBY)];
        wire.send(|out| frontend::startup_message(parameters, out).unwrap());
        wire.wait_for(b'Z');
        wire
    }

    fn send(&mut self, message: impl FnOnce(&mut bytes::BytesMut)) {
        let mut out = bytes::BytesMut::new();
        message(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    /// Says that all before a place is written, flushed and applied.
    fn say(&mut self, lsn: u64) {
        let mut status = vec![b'd'];
        status.extend(38_u32.to_be_bytes());
        status.push(b'r');
        for number in [lsn, lsn, lsn, 0] {
            status.extend(number.to_be_bytes());
        }
        status.push(0);
        self.stream.write_all(&status).unwrap();
    }

    fn wait_for(&mut self, kind: u8) {
        wait_for("the server's answer", || match self.message() {
            Some((b'E', body)) => panic!("{}", String::from_utf8_lossy(&body)),
            Some((this, _)) if this == kind => Some(()),
            _ => None,
        });
    }

    /// The next message, if it comes soon.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() > length {
                    let kind = self.buffer[0];
                    let body = self.buffer[5..=length].to_vec();
                    self.buffer.drain(..=length);
                    return Some((kind, body));
                }
            }
            let mut chunk = [0; 1 << 16];
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
