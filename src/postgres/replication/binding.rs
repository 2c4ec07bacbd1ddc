//! What SCRAM binds to under TLS: `tls-server-end-point` of RFC 5929, a hash over the server's certificate.
//!
//! The hash is that of the certificate's own signature, but SHA-256 for MD5 and SHA-1. Of the certificate only the
//! signature's algorithm is read. An algorithm that isn't known gives no binding, and the login goes on without.

use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::hash::Hash;

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// sha256WithRSAEncryption and ecdsa-with-SHA256, and their two elder relatives with SHA-1.
const SHA_256: [&[u8]; 4] = [
    &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B],
    &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02],
    &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x05],
    &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01],
];

/// sha384WithRSAEncryption and ecdsa-with-SHA384.
const SHA_384: [&[u8]; 2] =
    [&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C], &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03]];

/// The binding's data for a certificate in DER.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_algorithm(certificate)?;
    let suite = if SHA_256.contains(&algorithm) {
        cipher_suite::TLS13_AES_128_GCM_SHA256
    } else if SHA_384.contains(&algorithm) {
        cipher_suite::TLS13_AES_256_GCM_SHA384
    } else {
        return None;
    };
    // rustls lends its hashes by way of the cipher suites that use them.
    let hash: &dyn Hash = suite.tls13()?.common.hash_provider;
    Some(hash.hash(certificate).as_ref().to_vec())
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, signature }`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    Some(element(algorithm, OBJECT_IDENTIFIER)?.0)
}

/// Splits one DER element with the given tag off: its content, and what follows.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(first.into());
    }
    let (digits, rest) = rest.split_at_checked((first & 0x7F).into())?;
    if digits.len() > 4 {
        return None;
    }
    let len = digits.iter().fold(0usize, |len, digit| len << 8 | usize::from(*digit));
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let mut oid = vec![OBJECT_IDENTIFIER, algorithm.len() as u8];
        oid.extend_from_slice(algorithm);
        let mut body = vec![SEQUENCE, 0x82, 0x01, 0x00];
        body.extend_from_slice(&[0; 256]);
        body.extend_from_slice(&[SEQUENCE, oid.len() as u8]);
        body.extend_from_slice(&oid);
        body.extend_from_slice(&[0x03, 1, 0]);
        let mut whole = vec![SEQUENCE, 0x82, (body.len() >> 8) as u8, body.len() as u8];
        whole.extend_from_slice(&body);
        whole
    }

    #[test]
    fn the_hash_is_that_of_the_certificates_signature() {
        assert_eq!(tls_server_end_point(&certificate(SHA_256[0])).unwrap().len(), 32);
        assert_eq!(tls_server_end_point(&certificate(SHA_384[1])).unwrap().len(), 48);
        assert_eq!(tls_server_end_point(&certificate(&[1, 2, 3])), None);
    }

    #[test]
    fn a_malformed_certificate_gives_no_binding() {
        let whole = certificate(SHA_256[0]);
        for cut in 0..whole.len() {
            assert_eq!(tls_server_end_point(&whole[..cut]), None);
        }
    }
}
