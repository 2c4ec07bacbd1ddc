//! The HTTP endpoint: metrics for Prometheus, health and readiness for whoever restarts and balances, status for
//! programs.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | Prometheus's text format |
//! | `/health` | 200 while the process works; 503 if every connector has failed |
//! | `/ready` | 200 if every connector streams or stands by; else 503, with the connectors' phases |
//! | `/status` | the connectors' states as JSON |

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::connector::state::{COMMIT_BUCKETS, Phase, Snapshot, States};
use crate::shutdown::Shutdown;

/// How often the exporter folds the histograms' samples.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder that all metrics of the process go to.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let buckets = COMMIT_BUCKETS.map(|bucket| bucket.as_secs_f64());
    PrometheusBuilder::new().set_buckets(&buckets)?.install_recorder()
}

#[derive(Clone)]
struct Served {
    states: States,
    metrics: PrometheusHandle,
}

/// Listens at `address`; [`serve`] answers.
pub async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}

/// Answers until the shutdown.
pub async fn serve(
    listener: tokio::net::TcpListener,
    states: States,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    tokio::spawn(upkeep(metrics.clone(), shutdown.clone()));
    let router = Router::new()
        .route("/metrics", get(render_metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .with_state(Served { states, metrics });
    axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.requested().await }).await
}

async fn upkeep(metrics: PrometheusHandle, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
    }
}

fn snapshots(served: &Served) -> Vec<Snapshot> {
    served.states.snapshots()
}

async fn render_metrics(Shared(served): Shared<Served>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], served.metrics.render())
}

async fn health(Shared(served): Shared<Served>) -> impl IntoResponse {
    let states = snapshots(&served);
    let all_failed = !states.is_empty() && states.iter().all(|state| matches!(state.phase, Phase::Failed { .. }));
    (code(!all_failed), Json(states))
}

async fn ready(Shared(served): Shared<Served>) -> impl IntoResponse {
    let states = snapshots(&served);
    let ready = states.iter().all(|state| matches!(state.phase, Phase::Streaming | Phase::Standby));
    (code(ready), Json(states))
}

async fn status(Shared(served): Shared<Served>) -> impl IntoResponse {
    Json(serde_json::json!({ "connectors": snapshots(&served) }))
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
