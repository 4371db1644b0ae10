//! Who a region is on the wire: its certificate, and the authority it trusts.
//!
//! Both sides of a peer connection show a certificate. The region that speaks
//! is read from the certificate and from nowhere else, so that no region can
//! speak for another.

use std::path::Path;
use std::sync::Arc;

use model::RegionId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::pki::{self, DOMAIN, PkiError};

const HTTP2: &[u8] = b"h2";

/// A region's certificate chain and key, and the authority that it trusts, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The authority's certificate.
    pub ca: String,
    /// The region's certificate.
    pub cert: String,
    /// The region's private key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The PEM text could not be read.
    #[error("the {what} is not readable PEM: {reason}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// TLS refuses the combination.
    #[error("TLS refuses this identity: {0}")]
    Tls(String),
    /// A certificate names no region, or more than one.
    #[error("the certificate does not name exactly one region under {DOMAIN}")]
    NoRegion,
}

impl Identity {
    /// Reads `ca.pem`, `REGION.pem` and `REGION.key` from `dir`.
    ///
    /// # Errors
    /// [`PkiError`], naming the file that could not be read.
    pub fn load(dir: &Path, region: &RegionId) -> Result<Self, PkiError> {
        Ok(Self {
            ca: pki::read(&dir.join("ca.pem"))?,
            cert: pki::read(&dir.join(format!("{region}.pem")))?,
            key: pki::read(&dir.join(format!("{region}.key")))?,
        })
    }

    fn parts(&self) -> Result<(RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca, "authority's certificate")? {
            roots.add(certificate).map_err(|error| IdentityError::Tls(error.to_string()))?;
        }
        let chain = certificates(&self.cert, "region's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| IdentityError::Pem { what: "region's key", reason: error.to_string() })?;
        Ok((roots, chain, key))
    }

    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let tls = |error: &dyn std::fmt::Display| IdentityError::Tls(error.to_string());
        let (roots, chain, key) = self.parts()?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| tls(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }

    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        self.client_with(|verifier| verifier)
    }

    /// A client's side whose check of the server's certificate is made from the usual one.
    pub(crate) fn client_with(
        &self,
        check: impl FnOnce(Arc<WebPkiServerVerifier>) -> Arc<dyn ServerCertVerifier>,
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let tls = |error: &dyn std::fmt::Display| IdentityError::Tls(error.to_string());
        let (roots, chain, key) = self.parts()?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| tls(&error))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(check(usual))
            .with_client_auth_cert(chain, key)
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(IdentityError::Pem { what, reason: "it holds no certificate".into() }),
        Err(error) => Err(IdentityError::Pem { what, reason: error.to_string() }),
    }
}

/// The name that the certificate of `region` must bear.
pub(crate) fn server_name(region: &RegionId) -> Result<ServerName<'static>, IdentityError> {
    ServerName::try_from(format!("{region}{DOMAIN}")).map_err(|error| IdentityError::Tls(error.to_string()))
}

/// The region that a certificate was issued to. The chain has been verified by then.
pub(crate) fn region_of(certificate: &CertificateDer<'_>) -> Result<RegionId, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate.as_ref())
        .map_err(|error| IdentityError::Pem { what: "peer's certificate", reason: error.to_string() })?;
    let names = parsed.subject_alternative_name().ok().flatten().ok_or(IdentityError::NoRegion)?;
    let mut regions = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => RegionId::new(name.strip_suffix(DOMAIN)?).ok(),
        _ => None,
    });
    match (regions.next(), regions.next()) {
        (Some(region), None) => Ok(region),
        _ => Err(IdentityError::NoRegion),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_the_region_that_it_was_issued_to() {
        let dir = tempfile::tempdir().unwrap();
        let region = RegionId::new("eu-west").unwrap();
        pki::ensure(dir.path(), [&region]).unwrap();
        let identity = Identity::load(dir.path(), &region).unwrap();
        let chain = certificates(&identity.cert, "certificate").unwrap();
        assert_eq!(region_of(&chain[0]).unwrap(), region);
        let authority = certificates(&identity.ca, "certificate").unwrap();
        assert!(matches!(region_of(&authority[0]), Err(IdentityError::NoRegion)));
    }

    async fn greeting(server: Identity, client: Identity, dialled: &RegionId) -> Result<RegionId, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(server.server().unwrap());
        let accepting = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
            let chain = stream.get_ref().1.peer_certificates().unwrap();
            region_of(&chain[0]).map_err(|error| error.to_string())
        });
        let connector = tokio_rustls::TlsConnector::from(client.client().unwrap());
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let dialled = connector.connect(server_name(dialled).unwrap(), stream).await;
        let seen = accepting.await.unwrap()?;
        dialled.map(|_| seen).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_certificate_of_another_authority_or_another_region_is_refused_by_both_sides() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [east, west] = ["us-east", "eu-west"].map(|name| RegionId::new(name).unwrap());
        for dir in [&ours, &theirs] {
            pki::ensure(dir.path(), [&east, &west]).unwrap();
        }
        let load = |dir: &tempfile::TempDir, region| Identity::load(dir.path(), region).unwrap();
        let seen = greeting(load(&ours, &east), load(&ours, &west), &east).await;
        assert_eq!(seen, Ok(west.clone()));
        // A stranger that trusts our authority and shows a certificate of its own.
        let mut stranger = load(&theirs, &west);
        stranger.ca = load(&ours, &west).ca;
        assert!(greeting(load(&ours, &east), stranger, &east).await.is_err());
        assert!(greeting(load(&theirs, &east), load(&ours, &west), &east).await.is_err());
        // The right authority, but another region answers than the one that was dialled.
        assert!(greeting(load(&ours, &west), load(&ours, &west), &east).await.is_err());
    }
}
