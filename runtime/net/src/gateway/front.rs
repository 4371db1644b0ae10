//! How connections of users come in: TLS, and proxies that speak for others.
//!
//! Whoever connects is taken for the client, but for proxies that an operator
//! names: they are believed about whom they speak for, by `X-Forwarded-For` or
//! by the PROXY protocol (versions 1 and 2 of HAProxy's `proxy-protocol.txt`).
//! A proxy on this machine is always believed about `X-Forwarded-For`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::pki::{self, PkiError};

/// How the gateway meets its clients.
#[derive(Clone, Default)]
pub struct GatewayConfig {
    /// The certificate; without one, HTTP is spoken in the clear.
    pub certificate: Option<Arc<Certificate>>,
    /// Proxies that are believed about whom they speak for.
    pub proxies: Vec<Network>,
    /// Whether each connection of these proxies begins with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether each request is logged, under the target `access`: never its path, its query or its client.
    pub access_log: bool,
}

/// A network, such as `10.0.0.0/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let wide = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let differing = wide(self.address) ^ wide(address);
        self.address.is_ipv4() == address.is_ipv4() && differing.leading_zeros() >= u32::from(self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network; write it as 10.0.0.0/8, 2001:db8::/32 or an address");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(longest), |bits| bits.parse::<u8>().map_err(|_| wrong()))?;
        if bits > longest { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

/// The gateway's certificate chain and key, followed as they are replaced.
pub struct Certificate {
    config: ArcSwap<ServerConfig>,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Reads a chain and its key, both in PEM.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn open(chain: PathBuf, key: PathBuf) -> Result<Self, PkiError> {
        let config = ArcSwap::from_pointee(read(&chain, &key)?);
        Ok(Self { config, chain, key })
    }

    /// Takes up the files whenever they are replaced, until `stop`. Those that are not good, or do not belong together
    /// while one of them is not yet replaced, leave the last pair in force.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let mut taken = [&self.chain, &self.key].map(stamp);
        while stop.run_until_cancelled(tokio::time::sleep(limits::CERTIFICATE_LOOK)).await.is_some() {
            let now = [&self.chain, &self.key].map(stamp);
            if now == taken {
                continue;
            }
            taken = now;
            match read(&self.chain, &self.key) {
                Ok(config) => {
                    self.config.store(Arc::new(config));
                    tracing::info!(file = %self.chain.display(), "the gateway has another certificate");
                }
                Err(error) => tracing::warn!(%error, "the gateway keeps the certificate that it has"),
            }
        }
    }
}

fn read(chain_path: &Path, key_path: &Path) -> Result<ServerConfig, PkiError> {
    let pem = pki::read(chain_path)?;
    let wrong = |reason: &dyn std::fmt::Display| pki::content(chain_path, "certificate chain", reason);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(pki::read(key_path)?.as_bytes())
        .map_err(|error| pki::content(key_path, "private key", error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(&error))?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if let Ok(end) = pki::not_after(chain_path, &pem) {
        let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metrics::gauge!("repomind_gateway_certificate_expires_seconds").set(seconds);
        if end < SystemTime::now() + Duration::from_secs(7 * 24 * 3600) {
            tracing::warn!(file = %chain_path.display(), "the gateway's certificate ends within a week");
        }
    }
    Ok(config)
}

/// A connection, ready for HTTP.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl GatewayConfig {
    /// Whether a proxy is believed about whom it speaks for.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        peer.to_canonical().is_loopback() || self.names(peer)
    }

    fn names(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.holds(peer))
    }

    /// Brings a connection to where HTTP begins, and says who is at its other end.
    pub(super) async fn greet(&self, mut stream: TcpStream, from: SocketAddr) -> io::Result<(Stream, IpAddr)> {
        let work = async {
            let mut client = from.ip().to_canonical();
            if self.proxy_protocol && self.names(client) {
                client = proxied(&mut stream).await?.unwrap_or(client).to_canonical();
            }
            let Some(certificate) = &self.certificate else { return Ok((Either::Left(stream), client)) };
            let acceptor = TlsAcceptor::from(certificate.config.load_full());
            Ok((Either::Right(Box::new(acceptor.accept(stream).await?)), client))
        };
        timeout(limits::HANDSHAKE_TIME, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, and more than any address of version 2 needs; vendors add fields.
const LONGEST_LINE: usize = 107;
const LONGEST_ADDRESSES: usize = 1024;

/// Reads the head of the PROXY protocol and nothing beyond it. None where the proxy speaks for itself.
async fn proxied(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a proxy did not begin with the PROXY protocol");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    if head != SIGNATURE {
        let mut line = head.to_vec();
        while !line.ends_with(b"\r\n") {
            if line.len() >= LONGEST_LINE || !line.starts_with(b"PROXY ") {
                return Err(wrong());
            }
            line.push(stream.read_u8().await?);
        }
        let line = std::str::from_utf8(&line).map_err(|_| wrong())?;
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        return match words[..] {
            [_, "UNKNOWN", ..] => Ok(None),
            [_, "TCP4" | "TCP6", source, _, _, _] => source.parse().map(Some).map_err(|_| wrong()),
            _ => Err(wrong()),
        };
    }
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if command >> 4 != 2 || length > LONGEST_ADDRESSES {
        return Err(wrong());
    }
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    match (command & 0xF, family) {
        // A check of the proxy's own.
        (0, _) => Ok(None),
        (1, 0x11) => {
            let source: [u8; 4] = addresses.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
            Ok(Some(Ipv4Addr::from(source).into()))
        }
        (1, 0x21) => {
            let source: [u8; 16] = addresses.get(..16).and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
            Ok(Some(Ipv6Addr::from(source).into()))
        }
        (1, _) => Ok(None),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_never_holds_what_lies_beside_it() {
        let holds = |network: &str, address: &str| network.parse::<Network>().unwrap().holds(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3", "::ffff:10.1.2.3") && !holds("10.1.2.3", "10.1.2.4"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "192.0.2.1") && !holds("0.0.0.0/0", "::1") && holds("::/0", "2001:db8::1"));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "ten", "::/129", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
