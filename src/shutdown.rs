//! The end of the daemon: SIGTERM or SIGINT asks for it, and everything that runs is told.
//!
//! The first signal is a request: batches are committed, connections closed. A second one, from someone who won't wait,
//! ends the process at once with the status that a shell gives the signal. That is safe: what is not committed is read
//! again after a restart, as after any crash.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Whether the daemon is to end. All clones are one; any thread may ask, and any may request.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: Arc<watch::Sender<bool>>,
    /// Whose end is this one's end too.
    parent: Option<Arc<watch::Sender<bool>>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { requested: Arc::new(watch::Sender::new(false)), parent: None }
    }
}

impl Shutdown {
    /// A token that SIGTERM and SIGINT trip. Must be called in the Tokio runtime, which listens for as long as it runs.
    pub fn on_signals() -> io::Result<Shutdown> {
        let shutdown = Shutdown::default();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(listen(shutdown.clone(), terminate, interrupt));
        Ok(shutdown)
    }

    /// A token for a part of the daemon: it ends with the whole, and can be ended before.
    pub fn part(&self) -> Shutdown {
        Shutdown { parent: Some(Arc::clone(&self.requested)), ..Shutdown::default() }
    }

    /// Asks everything to end.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether the end was asked for; never waits.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow() || self.parent.as_ref().is_some_and(|parent| *parent.borrow())
    }

    /// Whether the end of the whole was asked for, and not only that of this part.
    pub fn is_of_the_whole(&self) -> bool {
        *self.parent.as_ref().unwrap_or(&self.requested).borrow()
    }

    /// Waits until the end is asked for. May be dropped and called again: nothing is missed.
    pub async fn requested(&self) {
        let parent = self.parent.as_ref().unwrap_or(&self.requested);
        let (mut own, mut parent) = (self.requested.subscribe(), parent.subscribe());
        // The senders live as long as `self`, so waiting cannot fail.
        tokio::select! {
            _ = own.wait_for(|requested| *requested) => {}
            _ = parent.wait_for(|requested| *requested) => {}
        }
    }
}

async fn listen(shutdown: Shutdown, mut terminate: Signal, mut interrupt: Signal) {
    loop {
        let (name, status) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", 143),
            _ = interrupt.recv() => ("SIGINT", 130),
        };
        if shutdown.is_requested() {
            tracing::warn!("{name} again: ending at once");
            std::process::exit(status);
        }
        tracing::info!("{name}: ending; once more ends at once");
        shutdown.request();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn threads_and_tasks_learn_of_it() {
        let shutdown = Shutdown::default();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        let requester = shutdown.clone();
        std::thread::spawn(move || requester.request()).join().unwrap();
        task.await.unwrap();
        assert!(shutdown.is_requested());
        // Whoever asks late is told at once.
        shutdown.requested().await;
    }

    /// Not a test of its own: the process that the next test sends its signals to. It ends with 0 if the first signal
    /// is a request, and lives on until the second.
    #[tokio::test]
    #[ignore = "run by the_second_signal_ends_at_once"]
    async fn victim() {
        let shutdown = Shutdown::on_signals().unwrap();
        let kill =
            |signal: &str| Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap();
        kill(&std::env::var("FIRST").unwrap());
        tokio::time::timeout(Duration::from_secs(10), shutdown.requested()).await.unwrap();
        if let Ok(second) = std::env::var("SECOND") {
            kill(&second);
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }

    fn status_of_victim(signals: &[(&str, &str)]) -> Option<i32> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "shutdown::tests::victim", "--ignored"]).envs(signals.iter().copied());
        command.output().unwrap().status.code()
    }

    #[test]
    fn the_first_signal_is_a_request() {
        assert_eq!(status_of_victim(&[("FIRST", "-TERM")]), Some(0));
        assert_eq!(status_of_victim(&[("FIRST", "-INT")]), Some(0));
    }

    #[test]
    fn the_second_signal_ends_at_once() {
        assert_eq!(status_of_victim(&[("FIRST", "-INT"), ("SECOND", "-TERM")]), Some(143));
        assert_eq!(status_of_victim(&[("FIRST", "-TERM"), ("SECOND", "-INT")]), Some(130));
    }
}
