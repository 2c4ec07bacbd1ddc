//! Tells how far the reading of tables is: in the log, and as metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::start::Setting;
use super::state::State;
use crate::snapshot::{Desk, ReadingId};

/// How often the metrics are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the log tells.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A task that tells; it ends with the value, and then nothing is being read.
pub struct Telling {
    task: AbortHandle,
    state: Arc<State>,
    connector: String,
}

impl Telling {
    /// Begins to tell.
    pub fn start(setting: &Setting, desk: &Arc<Desk>) -> Self {
        let connector = setting.connector.name.clone();
        let task = setting.runtime.spawn(tell(connector.clone(), Arc::clone(desk))).abort_handle();
        setting.state.read_at(desk);
        Telling { task, state: Arc::clone(&setting.state), connector }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.task.abort();
        self.state.read_no_more();
        show(&self.connector, [0; 4]);
    }
}

async fn tell(connector: String, desk: Arc<Desk>) {
    let mut told = Instant::now();
    loop {
        tokio::time::sleep(METRICS_INTERVAL).await;
        let reports = desk.reports();
        let mut sums = [reports.len() as u64, 0, 0, 0];
        for report in &reports {
            sums[1] += report.progress.rows_written;
            sums[2] += report.progress.bytes_read;
            sums[3] += report.progress.bytes_total.unwrap_or(0);
        }
        show(&connector, sums);
        if told.elapsed() < LOG_INTERVAL {
            continue;
        }
        told = Instant::now();
        for report in reports.iter().filter(|report| report.progress.bytes_total.is_some()) {
            let what = match report.reading {
                ReadingId::Initial(_) => "snapshot".to_owned(),
                ReadingId::Backfill(id) => format!("backfill {id}"),
            };
            let (table, progress) = (&report.table, &report.progress);
            let percent =
                progress.bytes_total.filter(|all| *all > 0).map_or(100, |all| progress.bytes_read * 100 / all);
            tracing::info!(connector, table, what, rows = progress.rows_written, percent, "reading goes on");
        }
    }
}

/// Sets the metrics: tables, rows, bytes, bytes in all.
fn show(connector: &str, [tables, rows, bytes, all]: [u64; 4]) {
    let labels = [("connector", connector.to_owned())];
    metrics::gauge!("tablecast_reading_tables", &labels).set(tables as f64);
    metrics::gauge!("tablecast_reading_rows", &labels).set(rows as f64);
    metrics::gauge!("tablecast_reading_bytes", &labels).set(bytes as f64);
    metrics::gauge!("tablecast_reading_bytes_total", &labels).set(all as f64);
}
