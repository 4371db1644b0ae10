//! Asks a region's DNS server as a client's resolver would.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use domain::base::opt::ClientSubnet;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{A, Aaaa};
use tokio::net::UdpSocket;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_millis(500);

/// The addresses that `server` gives for `name` to a resolver that speaks for a client at `client`.
///
/// # Errors
/// Where there is no answer, or one that is not to the question.
pub async fn addresses(server: SocketAddr, name: &str, client: IpAddr) -> anyhow::Result<Vec<IpAddr>> {
    let name: Name<Vec<u8>> = name.parse().map_err(|error| anyhow!("{name}: {error}"))?;
    let mut query = MessageBuilder::new_vec();
    let id = query.header().id();
    query.header_mut().set_rd(false);
    let mut query = query.question();
    query.push((&name, Rtype::A)).map_err(|_| anyhow!("the question is too long"))?;
    let mut query = query.additional();
    let prefix = if client.is_ipv4() { 24 } else { 56 };
    query
        .opt(|opt| opt.push(&ClientSubnet::new(prefix, 0, client)))
        .map_err(|_| anyhow!("the question is too long"))?;

    let near: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(near).await?;
    socket.connect(server).await?;
    socket.send(&query.finish()).await?;
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(DEADLINE, socket.recv(&mut buffer)).await.context("no answer")??;
    let reply = Message::from_octets(&buffer[..length]).map_err(|_| anyhow!("the answer is no DNS message"))?;
    ensure!(reply.header().id() == id, "an answer to another question");
    let mut addresses = Vec::new();
    let answer = reply.answer()?;
    for record in answer.limit_to::<A>() {
        addresses.push(IpAddr::V4(record?.data().addr()));
    }
    for record in answer.limit_to::<Aaaa>() {
        addresses.push(IpAddr::V6(record?.data().addr()));
    }
    Ok(addresses)
}
