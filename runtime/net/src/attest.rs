//! Asks a node for its certificate: which region does the authority say that it is?
//!
//! A peer that is dialled must be the region that was meant, and anything else
//! ends the connection. The auditor asks the other way round: it takes any
//! certificate of the authority, and reads the region in it.

use std::net::SocketAddr;
use std::sync::Arc;

use model::RegionId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::identity::{self, Identity, IdentityError};
use crate::limits;

/// Why a node was not attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The auditor's own certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No connection, or no certificate of this authority.
    #[error("no certificate of this deployment was shown at {address}: {reason}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What failed.
        reason: String,
    },
}

/// Accepts every region that the authority has certified, under the name that its certificate bears.
#[derive(Debug)]
struct AnyRegion(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyRegion {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let general = |error: IdentityError| rustls::Error::General(error.to_string());
        let name = identity::server_name(&identity::region_of(shown).map_err(general)?).map_err(general)?;
        self.0.verify_server_cert(shown, intermediates, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The region in the certificate of the node that serves peers at `address`, which has proved that it holds the key.
/// `identity` is that of another region: a node refuses itself. Takes [`limits::CONNECT_TIME`] at most.
///
/// # Errors
/// [`AttestError`].
pub async fn attest(identity: &Identity, address: SocketAddr) -> Result<RegionId, AttestError> {
    let refused = |reason: String| AttestError::Refused { address, reason };
    let config = identity.client_with(|verifier| Arc::new(AnyRegion(verifier)))?;
    // Sent to tell the node whom we want; it serves one name, and any is good here.
    let name = ServerName::try_from("any.repomind.internal").map_err(|error| refused(error.to_string()))?;
    let greeting = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = timeout(limits::CONNECT_TIME, greeting)
        .await
        .map_err(|_| refused("it took too long".into()))?
        .map_err(|error| refused(error.to_string()))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let shown = chain.first().ok_or_else(|| refused("it showed none".into()))?;
    Ok(identity::region_of(shown)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki;

    async fn attested(shown: Identity, auditor: &Identity) -> Result<RegionId, AttestError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(shown.server().unwrap());
        let node = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(acceptor.accept(stream).await);
        });
        let found = attest(auditor, address).await;
        node.await.unwrap();
        found
    }

    #[tokio::test]
    async fn a_node_is_the_region_of_its_certificate_and_a_stranger_is_none() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [east, west] = ["us-east", "eu-west"].map(|name| RegionId::new(name).unwrap());
        for dir in [&ours, &theirs] {
            pki::ensure(dir.path(), [&east, &west]).unwrap();
        }
        let load = |dir: &tempfile::TempDir, region| Identity::load(dir.path(), region).unwrap();
        let auditor = load(&ours, &east);
        assert_eq!(attested(load(&ours, &west), &auditor).await.unwrap(), west);
        let error = attested(load(&theirs, &west), &auditor).await.unwrap_err();
        assert!(matches!(error, AttestError::Refused { .. }), "{error}");
    }
}
