//! Distance and partitions between regions that run on one machine.
//!
//! The dialing side of each peer connection can be given a one-way delay, or be
//! cut. Delayed bytes keep their order and their rate; only their arrival moves,
//! so a window of batches fills the link as it would a real one. A cut link
//! loses nothing and delivers nothing: it stalls, as a partitioned one does,
//! until it is restored or a timeout gives up on it. Links of the other
//! direction belong to the other region's [`Wan`]: a full partition is both.
//!
//! Without emulation ([`Wan::none`]) connections are not wrapped at all.

mod distance;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::RegionId;
use model::region::Regions;
use model::status::DelayOrigin;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::limits;

/// Bytes that travel as one piece.
const PIECE: usize = 16 * 1024;

/// How a link to one peer behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkShape {
    /// Added to every byte, one way, in milliseconds.
    #[serde(default)]
    pub delay_ms: f64,
    /// Whether nothing passes.
    #[serde(default)]
    pub cut: bool,
}

impl LinkShape {
    fn delay(self) -> Duration {
        Duration::from_secs_f64(self.delay_ms.clamp(0.0, 60_000.0) / 1000.0)
    }
}

/// The body of `PUT /wan`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WanChange {
    /// The peer whose link changes.
    pub peer: RegionId,
    /// Its new one-way delay; the old one stays where it is absent.
    pub delay_ms: Option<f64>,
    /// Whether it is cut; unchanged where absent.
    pub cut: Option<bool>,
}

/// The emulated links of one region. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Wan {
    links: Option<Arc<Links>>,
}

type Links = Mutex<BTreeMap<RegionId, Link>>;

/// What is kept about the link to one peer.
#[derive(Default)]
struct Link {
    shape: watch::Sender<LinkShape>,
    origin: Option<DelayOrigin>,
}

/// A connection, shaped or not.
pub(crate) trait Conduit: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Conduit for T {}

/// Why `PUT /wan` was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WanError {
    /// The process was started without emulation.
    #[error("this process emulates no distances; start it with `--wan realistic`")]
    Off,
    /// The delay is not a number from 0 to 60000.
    #[error("`delay_ms` must be from 0 to 60000")]
    Delay,
}

impl Wan {
    /// Connections as the system makes them; nothing can be set later.
    pub fn none() -> Self {
        Self::default()
    }

    /// Emulated links, all of zero delay until they are set.
    pub fn emulated() -> Self {
        Self { links: Some(Arc::default()) }
    }

    /// Links as long as those between the provider's regions: half of the measured
    /// round trip, or an estimate from the distance where none was measured.
    /// [`Wan::origins`] tells which.
    pub fn realistic(me: &RegionId, regions: &Regions) -> Self {
        let wan = Self::emulated();
        let Some(here) = regions.by_id.get(me) else { return wan };
        for there in regions.by_id.values().filter(|region| region.id != *me) {
            let (delay_ms, origin) = distance::one_way(here, there);
            wan.with_link(&there.id, |link| {
                link.origin = Some(origin);
                link.shape.send_modify(|shape| shape.delay_ms = delay_ms);
            });
        }
        wan
    }

    /// Where the delay of each link comes from; a link that was never given one is absent.
    pub fn origins(&self) -> BTreeMap<RegionId, DelayOrigin> {
        self.each(|link| link.origin).into_iter().filter_map(|(peer, origin)| Some((peer, origin?))).collect()
    }

    /// The one-way delay of each link in milliseconds; empty without emulation.
    pub fn delays_ms(&self) -> BTreeMap<RegionId, f64> {
        self.shapes().into_iter().map(|(peer, shape)| (peer, shape.delay_ms)).collect()
    }

    /// Changes the link to a peer, at once and also for open connections.
    ///
    /// # Errors
    /// [`WanError`].
    pub fn set(&self, change: &WanChange) -> Result<LinkShape, WanError> {
        if change.delay_ms.is_some_and(|delay| !(0.0..=60_000.0).contains(&delay)) {
            return Err(WanError::Delay);
        }
        self.with_link(&change.peer, |link| {
            if change.delay_ms.is_some() {
                link.origin = Some(DelayOrigin::Operator);
            }
            link.shape.send_modify(|shape| {
                shape.delay_ms = change.delay_ms.unwrap_or(shape.delay_ms);
                shape.cut = change.cut.unwrap_or(shape.cut);
            });
            *link.shape.borrow()
        })
        .ok_or(WanError::Off)
    }

    /// How each link that was ever set or used behaves.
    pub fn shapes(&self) -> BTreeMap<RegionId, LinkShape> {
        self.each(|link| *link.shape.borrow())
    }

    fn each<T>(&self, look: impl Fn(&Link) -> T) -> BTreeMap<RegionId, T> {
        let Some(links) = &self.links else { return BTreeMap::new() };
        let links = links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(peer, link)| (peer.clone(), look(link))).collect()
    }

    fn with_link<T>(&self, peer: &RegionId, use_it: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let mut links = self.links.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(use_it(links.entry(peer.clone()).or_default()))
    }

    /// Connects to `peer` over its link.
    pub(crate) async fn dial(&self, peer: &RegionId, address: SocketAddr) -> io::Result<Box<dyn Conduit>> {
        let Some(mut shape) = self.with_link(peer, |link| link.shape.subscribe()) else {
            return Ok(Box::new(connect(address).await?));
        };
        restored(&mut shape).await;
        // The three-way handshake takes one round trip before the first byte may go.
        tokio::time::sleep(shape.borrow().delay() * 2).await;
        let stream = connect(address).await?;
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(carry(far, stream, shape));
        Ok(Box::new(near))
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits until the link is not cut. A link whose `Wan` is gone stays as it was.
async fn restored(shape: &mut watch::Receiver<LinkShape>) {
    if shape.wait_for(|shape| !shape.cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Carries bytes both ways until both directions have ended or one has failed.
async fn carry(near: DuplexStream, far: TcpStream, shape: watch::Receiver<LinkShape>) {
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = far.into_split();
    let there = one_way(near_read, far_write, shape.clone());
    let back = one_way(far_read, near_write, shape);
    let _ = tokio::try_join!(there, back);
}

async fn one_way<R, W>(mut from: R, mut to: W, shape: watch::Receiver<LinkShape>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let room = Semaphore::new(limits::WAN_BYTES / PIECE);
    let (send, mut receive) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let (read_shape, mut write_shape) = (shape.clone(), shape);
    let reading = async {
        // Moved in, so that the channel closes when reading ends.
        let send = send;
        loop {
            // Bounds the channel: one permit a piece, returned once it is delivered.
            if let Ok(permit) = room.acquire().await {
                permit.forget();
            }
            let mut piece = vec![0; PIECE];
            let length = from.read(&mut piece).await?;
            if length == 0 {
                return io::Result::Ok(());
            }
            piece.truncate(length);
            let due = Instant::now() + read_shape.borrow().delay();
            if send.send((due, piece)).is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            restored(&mut write_shape).await;
            to.write_all(&piece).await?;
            room.add_permits(1);
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn peer() -> RegionId {
        RegionId::new("eu-west").unwrap()
    }

    fn change(delay_ms: Option<f64>, cut: Option<bool>) -> WanChange {
        WanChange { peer: peer(), delay_ms, cut }
    }

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn round_trip(link: &mut Box<dyn Conduit>) -> Duration {
        let begun = Instant::now();
        link.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        link.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_delay_is_paid_each_way_and_can_be_changed_on_an_open_connection() {
        let wan = Wan::emulated();
        wan.set(&change(Some(30.0), None)).unwrap();
        let mut link = wan.dial(&peer(), echo().await).await.unwrap();
        let slow = round_trip(&mut link).await;
        assert!(slow >= Duration::from_millis(60) && slow < Duration::from_millis(400), "{slow:?}");
        wan.set(&change(Some(0.0), None)).unwrap();
        let quick = round_trip(&mut link).await;
        assert!(quick < Duration::from_millis(30), "{quick:?}");
    }

    #[tokio::test]
    async fn a_cut_link_delivers_nothing_until_it_is_restored() {
        let wan = Wan::emulated();
        let mut link = wan.dial(&peer(), echo().await).await.unwrap();
        wan.set(&change(None, Some(true))).unwrap();
        let stalled = tokio::time::timeout(Duration::from_millis(80), round_trip(&mut link)).await;
        assert!(stalled.is_err());
        wan.set(&change(None, Some(false))).unwrap();
        let mut back = [0; 5];
        tokio::time::timeout(Duration::from_secs(2), link.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"hello");
    }

    #[test]
    fn a_delay_that_an_operator_set_is_not_called_measured() {
        let files = [("us-east", "us-east-1", true), ("eu-west", "eu-west-1", false)].map(|(id, name, primary)| {
            let text = format!(
                "region:\n  name: {name}\n  primary: {primary}\n  services: {{api: https://x.example, storage: s3://x}}\n  \
                 capacity: {{min_instances: 1, max_instances: 1}}\n"
            );
            (format!("region-config/{id}.yml"), text)
        });
        let regions = config::load_from(&files.into()).unwrap();
        let wan = Wan::realistic(&RegionId::new("us-east").unwrap(), &regions);
        assert_eq!(wan.delays_ms(), BTreeMap::from([(peer(), 35.0)]));
        assert_eq!(wan.origins(), BTreeMap::from([(peer(), DelayOrigin::Measured)]));
        wan.set(&change(Some(1.0), None)).unwrap();
        assert_eq!(wan.origins(), BTreeMap::from([(peer(), DelayOrigin::Operator)]));
    }

    #[test]
    fn without_emulation_a_link_cannot_be_cut() {
        assert_eq!(Wan::none().set(&change(None, Some(true))), Err(WanError::Off));
        assert_eq!(Wan::emulated().set(&change(Some(-1.0), None)), Err(WanError::Delay));
    }
}
