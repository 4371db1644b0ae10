//! Datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use model::Mono;
use routing::dns::{Client, Transport, shorten};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Responder;
use super::limiter::{Limiter, Verdict};
use crate::limits;

/// One of several sockets on an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Room for a burst while this task waits for a processor; the system may grant less.
    socket.set_recv_buffer_size(limits::DNS_SOCKET_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers the datagrams of one socket until `shutdown`.
pub(super) async fn serve(socket: UdpSocket, responder: Arc<Responder>, share: u32, shutdown: CancellationToken) {
    let mut serving = Serving {
        limiter: Limiter::new(responder.config.answers / share),
        started: Instant::now(),
        packet: vec![0; limits::DNS_QUERY_BYTES],
        out: Vec::with_capacity(usize::from(routing::dns::UDP_PAYLOAD)),
        socket,
        responder,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = serving.socket.readable() => if let Err(error) = ready {
                tracing::error!(%error, "a DNS socket is gone");
                return;
            },
        }
        for _ in 0..limits::DNS_BATCH {
            match serving.one() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The system reports that an earlier answer did not arrive; there is nothing to do about it.
                Err(error) => tracing::debug!(%error, "a datagram could not be received"),
            }
        }
        // Other tasks get their turn between batches also while queries keep coming.
        tokio::task::yield_now().await;
    }
}

struct Serving {
    socket: UdpSocket,
    responder: Arc<Responder>,
    limiter: Limiter,
    started: Instant,
    packet: Vec<u8>,
    out: Vec<u8>,
}

impl Serving {
    /// Answers the next datagram, if there is one.
    fn one(&mut self) -> io::Result<()> {
        // What is longer than the buffer arrives cut off, and is refused as not well formed.
        let (length, from) = self.socket.try_recv_from(&mut self.packet)?;
        // Nobody sends from port 0, and answers to it go nowhere.
        if from.port() == 0 {
            return Ok(());
        }
        let client = Client { address: from.ip().to_canonical(), transport: Transport::Udp };
        let Some(outcome) = self.responder.answer(&self.packet[..length], client, &mut self.out) else { return Ok(()) };
        let spared = outcome.known_client || (client.address.is_loopback() && !self.responder.config.limit_loopback);
        if !spared {
            let now = Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
            match self.limiter.admit(client.address, now) {
                Verdict::Send => {}
                Verdict::Shorten => {
                    self.responder.counters.shortened.increment(1);
                    shorten(&mut self.out, &outcome);
                    // The client comes again over TCP, and counts then: a forged one does not.
                    let _ = self.socket.try_send_to(&self.out, from);
                    return Ok(());
                }
                Verdict::Drop => {
                    self.responder.counters.dropped.increment(1);
                    return Ok(());
                }
            }
        }
        self.responder.sent(&outcome);
        // A full send buffer loses the answer, as the network might; the resolver asks again.
        let _ = self.socket.try_send_to(&self.out, from);
        Ok(())
    }
}
