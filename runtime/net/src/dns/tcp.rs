//! Connections (RFC 7766): messages behind a length of two bytes, as many as
//! the client likes, answered in the order in which they came.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use routing::dns::{Client, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Responder;
use crate::limits;

/// Connections that each address holds.
#[derive(Default)]
struct Held(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address, for as long as it lives.
struct Hold {
    held: Arc<Held>,
    address: IpAddr,
}

impl Held {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Hold> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_insert(0);
        if *count >= limits::DNS_CONNECTIONS_EACH {
            return None;
        }
        *count += 1;
        Some(Hold { held: self.clone(), address })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// Serves connections until `shutdown`, then lets each finish the query it is at.
pub(super) async fn serve(listener: TcpListener, responder: Arc<Responder>, shutdown: CancellationToken) {
    let (room, held) = (Arc::new(Semaphore::new(limits::DNS_CONNECTIONS)), Arc::new(Held::default()));
    let mut open = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = open.join_next() => continue,
            permit = room.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let (stream, from) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a client that left early: pause, never spin.
                    tracing::warn!(server = "dns", %error, "cannot accept");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let address = from.ip().to_canonical();
        let Some(hold) = held.take(address) else {
            responder.counters.connections_refused.increment(1);
            continue;
        };
        let (responder, shutdown) = (responder.clone(), shutdown.clone());
        open.spawn(async move {
            let (_permit, _hold) = (permit, hold);
            // A client that goes away is no news.
            let _ = converse(stream, address, &responder, &shutdown).await;
        });
    }
    drop(listener);
    let drained = async { while open.join_next().await.is_some() {} };
    if timeout(limits::DNS_IDLE, drained).await.is_err() {
        open.shutdown().await;
    }
}

async fn converse(
    stream: TcpStream,
    address: IpAddr,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let client = Client { address, transport: Transport::Tcp };
    let (mut packet, mut out, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..limits::DNS_CONNECTION_QUERIES {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            read = timeout(limits::DNS_IDLE, read(&mut stream, &mut packet)) => read??,
        }
        // Whoever sends what is no query over a connection is not spoken with any further.
        let Some(outcome) = responder.answer(&packet, client, &mut out) else { break };
        responder.sent(&outcome);
        let length = u16::try_from(out.len()).map_err(io::Error::other)?;
        unsent.extend_from_slice(&length.to_be_bytes());
        unsent.extend_from_slice(&out);
        // While another whole query waits in the buffer, their answers leave together (RFC 7766, section 6.2.1.1).
        if !has_query(stream.buffer()) || unsent.len() >= limits::DNS_UNSENT_BYTES {
            timeout(limits::DNS_IDLE, stream.write_all(&unsent)).await??;
            unsent.clear();
        }
    }
    timeout(limits::DNS_IDLE, stream.write_all(&unsent)).await?
}

async fn read(stream: &mut BufReader<TcpStream>, packet: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    packet.resize(usize::from(length), 0);
    stream.read_exact(packet).await.map(drop)
}

/// Whether a message is there whole.
fn has_query(buffer: &[u8]) -> bool {
    buffer.split_first_chunk::<2>().is_some_and(|(length, rest)| rest.len() >= usize::from(u16::from_be_bytes(*length)))
}
