//! What a daemon on this machine says of itself at `[http]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// It answers at once, or isn't there.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Far more than the states of all connectors that one daemon could run.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// A connector, as its daemon sees it.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    connector: String,
    pub phase: String,
    /// Why it doesn't stream.
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    connectors: Vec<Seen>,
}

/// The connectors of the daemon that listens there, by name; none if there is none that answers.
pub(super) async fn ask(listen: SocketAddr) -> BTreeMap<String, Seen> {
    let answer = tokio::time::timeout(TIMEOUT, get_status(reachable(listen))).await;
    let connectors = answer.ok().flatten().map(|answer| answer.connectors).unwrap_or_default();
    connectors.into_iter().map(|seen| (seen.connector.clone(), seen)).collect()
}

/// Nobody can connect to "any address"; whoever listens there listens on loopback too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

/// HTTP/1.0: the answer ends with the connection, and comes in one piece.
async fn get_status(address: SocketAddr) -> Option<Answer> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, address) in
            [("0.0.0.0:9187", "127.0.0.1:9187"), ("[::]:9187", "[::1]:9187"), ("10.0.0.1:9187", "10.0.0.1:9187")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), address.parse().unwrap());
        }
    }
}
