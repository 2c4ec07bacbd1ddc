//! Tells how far the reading of tables is: in the log, and as metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::start::Setting;
use crate::snapshot::{Desk, ReadingId};

/// How often the metrics are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the log tells.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A task that tells; it ends with the value.
#[derive(Debug)]
pub struct Telling(AbortHandle);

impl Telling {
    /// Begins to tell.
    pub fn start(setting: &Setting, desk: &Arc<Desk>) -> Self {
        let connector = setting.connector.name.clone();
        Telling(setting.runtime.spawn(tell(connector, Arc::clone(desk))).abort_handle())
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn tell(connector: String, desk: Arc<Desk>) {
    let mut told = Instant::now();
    loop {
        tokio::time::sleep(METRICS_INTERVAL).await;
        let reports = desk.reports();
        let mut sums = [0_u64; 3];
        for report in &reports {
            sums[0] += report.progress.rows_written;
            sums[1] += report.progress.bytes_read;
            sums[2] += report.progress.bytes_total.unwrap_or(0);
        }
        let label = || [("connector", connector.clone())];
        metrics::gauge!("tablecast_reading_tables", &label()).set(reports.len() as f64);
        metrics::gauge!("tablecast_reading_rows", &label()).set(sums[0] as f64);
        metrics::gauge!("tablecast_reading_bytes", &label()).set(sums[1] as f64);
        metrics::gauge!("tablecast_reading_bytes_total", &label()).set(sums[2] as f64);
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
