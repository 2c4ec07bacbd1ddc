//! TLS to Postgres: what of the server is checked, as a rustls configuration.
//!
//! The words are libpq's `sslmode`. As in libpq, `prefer` and `require` encrypt but check nothing of the certificate:
//! a server's usual certificate is self-signed, and somebody who can put himself between can also refuse TLS to
//! `prefer`. Who wants to be sure of the server says `verify-full`.
//!
//! The cryptography is aws-lc's, named explicitly: rustls's process-wide default panics where two providers are
//! compiled in, and that is decided by dependencies, not here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;

/// The protocol's name in TLS: servers from 17 on ask for it, and refuse any other; older ones ignore it.
const ALPN: &[u8] = b"postgresql";

/// Whether to use TLS, and what of the server to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it; any certificate will do.
    Prefer,
    /// TLS or no connection; any certificate will do.
    Require,
    /// TLS, with a certificate for the host that was asked for, issued by a trusted authority.
    VerifyFull {
        /// PEM file with the trusted authorities, or with the server's own certificate; `None`: the authorities of the
        /// operating system.
        root_cert: Option<PathBuf>,
    },
}

impl TlsMode {
    /// What of it the client library has to know: whether to ask for TLS, and whether to go on without it.
    pub fn ssl_mode(&self) -> SslMode {
        match self {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull { .. } => SslMode::Require,
        }
    }
}

impl From<SslMode> for TlsMode {
    fn from(mode: SslMode) -> TlsMode {
        match mode {
            SslMode::Disable => TlsMode::Disable,
            SslMode::Prefer => TlsMode::Prefer,
            // SslMode may grow: what it doesn't know yet gets TLS or nothing.
            _ => TlsMode::Require,
        }
    }
}

/// The TLS configuration can't be made: definite, since only somebody can change the files that it is made from.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with the trusted authorities can't be read.
    #[error("cannot read root certificates from {}: {reason}", path.display())]
    RootCert {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The operating system trusts no authority.
    #[error(
        "the operating system has no root certificates; install its ca-certificates or name a file with sslrootcert"
    )]
    NoNativeRoots,
    /// rustls refuses the configuration.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// The rustls configuration for a mode. Under [`TlsMode::Disable`] it is one that never gets used.
///
/// # Errors
///
/// If the trusted authorities can't be read or there are none.
pub fn client_config(mode: &TlsMode) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let trust = match mode {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Some(Trust::Anyone),
        TlsMode::VerifyFull { root_cert: Some(path) } => Some(Trust::read(path, Arc::clone(&provider))?),
        TlsMode::VerifyFull { root_cert: None } => None,
    };
    let builder = match trust {
        Some(trust) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { trust, provider })),
        None => builder.with_root_certificates(native_roots()?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The operating system's authorities. One that can't be parsed is left out: it is none of ours, and a store often has
/// some that are too old.
fn native_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoNativeRoots) } else { Ok(roots) }
}

/// Checks the certificate by other rules than WebPKI's.
///
/// The handshake's signature is checked whatever the rules: the server does hold the key of the certificate that it
/// shows, which is what channel binding (SCRAM-SHA-256-PLUS) ties the password exchange to.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// Whose certificate will do.
#[derive(Debug)]
enum Trust {
    /// Anybody's, as libpq does under `prefer` and `require`.
    Anyone,
    /// One that was issued by a certificate of a file, and a certificate of the file itself.
    ///
    /// The second is how Postgres's manual sets up TLS without an authority: a self-signed server certificate, copied to
    /// the clients as `root.crt`. WebPKI refuses such a one as a server's. It is compared byte for byte, and its name
    /// checked; not its dates: a certificate is trusted as long as it is in the file.
    File { certificates: Vec<CertificateDer<'static>>, issued: Arc<WebPkiServerVerifier> },
}

impl Trust {
    fn read(path: &Path, provider: Arc<CryptoProvider>) -> Result<Trust, TlsError> {
        let fail = |reason: String| TlsError::RootCert { path: path.to_owned(), reason };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error: rustls::pki_types::pem::Error| fail(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| fail(error.to_string()))?;
        }
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(
            |error| match error {
                VerifierBuilderError::NoRootAnchors => fail("it has no certificate in PEM format".to_owned()),
                other => fail(other.to_string()),
            },
        )?;
        Ok(Trust::File { certificates, issued })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anyone => Ok(ServerCertVerified::assertion()),
            Trust::File { certificates, .. } if certificates.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Trust::File { issued, .. } => {
                issued.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_never_goes_on_without_tls() {
        assert_eq!(TlsMode::VerifyFull { root_cert: None }.ssl_mode(), SslMode::Require);
    }

    #[test]
    fn a_root_certificate_file_that_cannot_be_used_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        for path in [PathBuf::from("/nowhere/root.crt"), empty.path().to_owned()] {
            let error = client_config(&TlsMode::VerifyFull { root_cert: Some(path.clone()) }).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn every_mode_without_files_has_a_configuration() {
        for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require] {
            assert_eq!(client_config(&mode).unwrap().alpn_protocols, [ALPN]);
        }
    }
}
