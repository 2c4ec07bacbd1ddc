//! Blocking work in a thread of its own, while the caller's thread goes on with what can't wait.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::fault::Fault;

/// How long to wait between two ticks.
const TICK: Duration = Duration::from_millis(20);

/// Does `work` in a thread of its own and waits for it, calling `tick` meanwhile. An error of `tick` ends the waiting;
/// the work is left to itself then, and its result is dropped.
pub fn beside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    mut tick: impl FnMut() -> Result<(), Fault>,
) -> Result<T, Fault> {
    let (answer, done) = sync_channel(1);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody waits for it after an error of `tick`.
        let _ = answer.send(work());
    })?;
    loop {
        match done.recv_timeout(TICK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(Fault::TaskGone),
            Err(RecvTimeoutError::Timeout) => tick()?,
        }
    }
}
