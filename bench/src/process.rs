//! Processes that are measured: how long they ran, what CPU they took, how much memory, how often they were switched.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// `USER_HZ`, in which /proc counts CPU time: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process took of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user: f64,
    pub system: f64,
    /// Peak of the resident memory in MiB; zero if the process had ended already.
    pub peak_mib: f64,
    /// Of all threads: those that the process asked for by waiting, and those that it suffered.
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl Usage {
    /// CPU seconds.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// The time of all processors since the machine's start, in ticks, and how much of it its host gave to others while
/// something was to be done here.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    all: u64,
    stolen: u64,
}

impl Processors {
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let ticks: Vec<u64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
        Self { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
    }

    /// Which share was stolen since then.
    pub fn stolen_since(self, before: Self) -> f64 {
        (self.stolen - before.stolen) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// What a process, any process, has taken so far.
pub fn usage(pid: i32) -> Result<Usage> {
    let (user, system) = cpu_times(pid)?;
    let (voluntary_switches, involuntary_switches) = switches(pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak_mib = field(&status, "VmHWM:") as f64 / 1024.0;
    Ok(Usage { user, system, peak_mib, voluntary_switches, involuntary_switches })
}

fn cpu_times(pid: i32) -> Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { bail!("no times in /proc/PID/stat") };
    Ok((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

/// Of the threads that live: those that have ended are not counted.
fn switches(pid: i32) -> (u64, u64) {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return (0, 0) };
    let statuses = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    statuses.fold((0, 0), |(voluntary, involuntary), status| {
        let (asked, suffered) =
            (field(&status, "voluntary_ctxt_switches:"), field(&status, "nonvoluntary_ctxt_switches:"));
        (voluntary + asked, involuntary + suffered)
    })
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A child process; it is killed when this is dropped before its end.
pub struct Watched {
    child: Child,
    pub started: Instant,
}

/// A child that has ended.
pub struct Ended {
    pub took: Duration,
    pub usage: Usage,
    pub success: bool,
}

impl Watched {
    /// Starts it, its output in `log`.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("could not write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
        Ok(Self { child, started })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// What it has taken so far.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.pid())
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end.
    pub fn terminate(&self) -> Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// Waits for its end. The times are read between the end and the reaping, so they are whole.
    pub fn wait(mut self) -> Result<Ended> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(Pid::from_child(&self.child)), options)?;
        let took = self.started.elapsed();
        let usage = self.usage()?;
        let success = self.child.wait()?.success();
        Ok(Ended { took, usage, success })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The end of a log, for an error.
pub fn log_tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
