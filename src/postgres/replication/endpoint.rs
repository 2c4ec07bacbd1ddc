//! Where to connect, as whom, and how: the connection parameters as this client uses them.
//!
//! Made from a `tokio_postgres::Config`, so that the replication connection and the control connection read the same URL
//! in the same way. What replication can't honour is refused here and not silently left out.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};

use super::error::{ReplicationError, Result};
use crate::postgres::session::RENDERING;

/// How long one host may take from the first packet to the end of the login, where the URL doesn't say. Without a
/// bound, a host that swallows packets would hold the connector forever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a replication connection has besides [`RENDERING`]. As startup options both win over what `ALTER ROLE` and
/// `ALTER DATABASE` have set. Postgres 18 tells of a missing publication by a warning only: see `stream`.
const MIN_MESSAGES: (&str, &str) = ("client_min_messages", "warning");

/// The parameters of a replication connection.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) targets: Vec<Target>,
    pub(super) user: String,
    pub(super) password: Option<Vec<u8>>,
    pub(super) database: String,
    pub(super) options: Option<String>,
    pub(super) application_name: Option<String>,
    /// The bound for each host, from the first packet to the end of the login.
    pub(super) connect_timeout: Duration,
    pub(super) tls: TlsPolicy,
    pub(super) channel_binding: ChannelBinding,
    pub(super) session: TargetSessionAttrs,
    pub(super) keepalives: Keepalives,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp {
        /// The name, which TLS checks; or the address, where the URL has no name.
        host: String,
        /// The address, where the URL has one: saves the look-up.
        addr: Option<IpAddr>,
        port: u16,
    },
    Unix(PathBuf),
}

/// When to use TLS, and with what.
#[derive(Clone)]
pub(super) struct TlsPolicy {
    pub(super) mode: SslMode,
    pub(super) negotiation: SslNegotiation,
    pub(super) config: Option<Arc<rustls::ClientConfig>>,
}

/// TCP's own probes of an idle connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalives {
    pub(super) on: bool,
    pub(super) idle: Duration,
    pub(super) interval: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) user_timeout: Option<Duration>,
}

impl Endpoint {
    /// Takes over what `config` says; `tls` is used if the server and `sslmode` want TLS.
    pub fn new(config: &Config, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Self> {
        let user = config.get_user().ok_or_else(|| refused("it names no user"))?.to_owned();
        let mode = config.get_ssl_mode();
        if tls.is_none() && mode == SslMode::Require {
            return Err(refused("sslmode=require, but TLS is not configured"));
        }
        if config.get_channel_binding() == ChannelBinding::Require && mode == SslMode::Disable {
            return Err(refused("channel_binding=require needs TLS, but sslmode=disable"));
        }
        Ok(Self {
            targets: targets(config)?,
            database: config.get_dbname().unwrap_or(&user).to_owned(),
            user,
            password: config.get_password().map(<[u8]>::to_vec),
            options: config.get_options().map(str::to_owned),
            application_name: config.get_application_name().map(str::to_owned),
            connect_timeout: config
                .get_connect_timeout()
                .copied()
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(CONNECT_TIMEOUT),
            tls: TlsPolicy { mode, negotiation: config.get_ssl_negotiation(), config: tls },
            channel_binding: config.get_channel_binding(),
            session: config.get_target_session_attrs(),
            keepalives: Keepalives {
                on: config.get_keepalives(),
                idle: config.get_keepalives_idle(),
                interval: config.get_keepalives_interval(),
                retries: config.get_keepalives_retries(),
                user_timeout: config.get_tcp_user_timeout().copied(),
            },
        })
    }

    /// The parameters of the startup message.
    pub(super) fn startup_parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("user", &*self.user), ("database", &*self.database), ("replication", "database")];
        parameters.extend(self.application_name.as_deref().map(|name| ("application_name", name)));
        parameters.extend(self.options.as_deref().map(|options| ("options", options)));
        parameters.extend(RENDERING);
        parameters.push(MIN_MESSAGES);
        parameters
    }
}

fn refused(why: &str) -> ReplicationError {
    ReplicationError::Parameters(why.to_owned())
}

/// Pairs hosts, addresses and ports by the rules of libpq: one port holds for all, and an address replaces the look-up
/// of the host at its place.
fn targets(config: &Config) -> Result<Vec<Target>> {
    let (hosts, addrs, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addrs.len());
    if count == 0 {
        return Err(refused("it names no host"));
    }
    if !hosts.is_empty() && !addrs.is_empty() && hosts.len() != addrs.len() {
        return Err(refused("host and hostaddr differ in number"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(refused("hosts and ports differ in number"));
    }
    let mut targets: Vec<Target> = (0..count)
        .map(|n| {
            let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
            let addr = addrs.get(n).copied();
            match (hosts.get(n), addr) {
                (Some(Host::Unix(folder)), _) => Target::Unix(folder.join(format!(".s.PGSQL.{port}"))),
                (Some(Host::Tcp(host)), _) => Target::Tcp { host: host.clone(), addr, port },
                (None, Some(ip)) => Target::Tcp { host: ip.to_string(), addr, port },
                (None, None) => unreachable!("count is the length of the longer of the two"),
            }
        })
        .collect();
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut targets);
    }
    Ok(targets)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Without the password.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("targets", &self.targets)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("ssl_mode", &self.tls.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::new(&url.parse().unwrap(), None)
    }

    fn places(url: &str) -> Vec<String> {
        endpoint(url).unwrap().targets.iter().map(Target::to_string).collect()
    }

    #[test]
    fn hosts_and_ports_are_paired_as_libpq_pairs_them() {
        assert_eq!(places("postgres://u@a,b:1234/db"), ["a:5432", "b:1234"]);
        assert_eq!(places("host=a,/run/pg port=7 user=u"), ["a:7", "/run/pg/.s.PGSQL.7"]);
        assert_eq!(places("hostaddr=::1 user=u"), ["[::1]:5432"]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for url in ["host=a", "user=u", "host=a user=u sslmode=require", "host=a,b,c port=1,2 user=u"] {
            assert!(matches!(endpoint(url), Err(ReplicationError::Parameters(_))), "{url}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let endpoint = endpoint("postgres://u:geheim@a/db").unwrap();
        assert!(!format!("{endpoint:?}").contains("geheim"));
        assert_eq!(endpoint.password.as_deref(), Some(&b"geheim"[..]));
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        assert_eq!(endpoint("postgres://u@a").unwrap().database, "u");
    }
}
