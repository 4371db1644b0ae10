//! Distance, loss and partitions between regions that run on one machine.
//!
//! The dialing side of each peer connection can be given a one-way delay with
//! jitter, a share of losses, or be cut in one direction or both. Delayed bytes
//! keep their order and their rate; only their arrival moves, so a window of
//! batches fills the link as it would a real one. What a loss looks like, and
//! where that differs from a real path, is told in `link`. A cut link loses
//! nothing and delivers nothing: it stalls, as a partitioned one does, until it
//! is restored or a timeout gives up on it.
//!
//! Links belong to the region that dials, and carry its requests and the answers
//! to them. So a full partition between A and B is `both` at A and at B. If only
//! what A sends is to be lost, A's link to B is cut `out` and B's link to A `in`:
//! no handshake completes over a link that is cut in either direction, but what
//! flows already on open connections still flows the other way.
//!
//! Without emulation ([`Wan::none`]) connections are not wrapped at all.

mod change;
mod distance;
mod link;
mod random;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use model::RegionId;
use model::region::Regions;
use model::status::{Cut, DelayOrigin, Emulated};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

pub use change::{LONGEST_MS, LinkShape, WanChange, WanError};

use link::{Direction, Way};
use random::Random;

/// The emulated links of one region. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Wan {
    emulation: Option<Emulation>,
}

#[derive(Clone)]
struct Emulation {
    seed: u64,
    links: Arc<Mutex<BTreeMap<RegionId, Link>>>,
}

/// What is kept about the link to one peer.
#[derive(Default)]
struct Link {
    shape: watch::Sender<LinkShape>,
    origin: Option<DelayOrigin>,
    /// How many connections were asked for.
    dialled: u64,
}

/// A connection, shaped or not.
pub(crate) trait Conduit: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Conduit for T {}

impl Wan {
    /// Connections as the system makes them; nothing can be set later.
    pub fn none() -> Self {
        Self::default()
    }

    /// Emulated links that pass everything at once until they are set. What they
    /// lose then is made up by the system, or the same each time after [`Wan::with_seed`].
    pub fn emulated() -> Self {
        Self { emulation: Some(Emulation { seed: random::any_seed(), links: Arc::default() }) }
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

    /// The same links, with losses and jitter that follow from `seed`, the peer and the
    /// number of the connection. To be called before this is cloned.
    pub fn with_seed(mut self, seed: u64) -> Self {
        if let Some(emulation) = &mut self.emulation {
            emulation.seed = seed;
        }
        self
    }

    /// The seed of losses and jitter, to be logged so that a run can be repeated.
    pub fn seed(&self) -> Option<u64> {
        self.emulation.as_ref().map(|emulation| emulation.seed)
    }

    /// Where the delay of each link comes from; a link that was never given one is absent.
    pub fn origins(&self) -> BTreeMap<RegionId, DelayOrigin> {
        self.each(|link| link.origin)
    }

    /// The one-way delay of each link in milliseconds; empty without emulation.
    pub fn delays_ms(&self) -> BTreeMap<RegionId, f64> {
        self.each(|link| Some(link.shape.borrow().delay_ms))
    }

    /// How each link that was ever set or used behaves.
    pub fn shapes(&self) -> BTreeMap<RegionId, LinkShape> {
        self.each(|link| Some(*link.shape.borrow()))
    }

    /// Everything about these links that is made up, as `/status` shows it.
    pub fn status(&self) -> Emulated {
        let not_zero = |value: f64| (value != 0.0).then_some(value);
        Emulated {
            delay_ms: self.each(|link| not_zero(link.shape.borrow().delay_ms)),
            delay_from: self.each(|link| not_zero(link.shape.borrow().delay_ms).and(link.origin)),
            jitter_ms: self.each(|link| not_zero(link.shape.borrow().jitter_ms)),
            loss: self.each(|link| not_zero(link.shape.borrow().loss)),
            cut: self.each(|link| Some(link.shape.borrow().cut).filter(|cut| *cut != Cut::None)),
        }
    }

    /// Changes the link to a peer, at once and also for open connections; bytes
    /// that are under way keep their delay. Gives what the link is by then.
    ///
    /// # Errors
    /// [`WanError`], and nothing is changed.
    pub fn set(&self, change: &WanChange) -> Result<LinkShape, WanError> {
        change.check()?;
        self.with_link(&change.peer, |link| {
            if change.delay_ms.is_some() {
                link.origin = Some(DelayOrigin::Operator);
            }
            link.shape.send_modify(|shape| *shape = change.after(*shape));
            *link.shape.borrow()
        })
        .ok_or(WanError::Off)
    }

    fn each<T>(&self, look: impl Fn(&Link) -> Option<T>) -> BTreeMap<RegionId, T> {
        let Some(emulation) = &self.emulation else { return BTreeMap::new() };
        let links = emulation.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(|(peer, link)| Some((peer.clone(), look(link)?))).collect()
    }

    fn with_link<T>(&self, peer: &RegionId, use_it: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let mut links = self.emulation.as_ref()?.links.lock().unwrap_or_else(PoisonError::into_inner);
        Some(use_it(links.entry(peer.clone()).or_default()))
    }

    /// Both directions of the next connection to `peer`; nothing without emulation.
    fn directions(&self, peer: &RegionId) -> Option<(Direction, Direction)> {
        let seed = self.seed()?;
        self.with_link(peer, |link| {
            let connection = link.dialled;
            link.dialled += 1;
            let direction = |way| Direction {
                way,
                shape: link.shape.subscribe(),
                random: Random::new(seed, peer.as_str(), connection, way as u64),
            };
            (direction(Way::Out), direction(Way::In))
        })
    }

    /// Connects to `peer` over its link.
    pub(crate) async fn dial(&self, peer: &RegionId, address: SocketAddr) -> io::Result<Box<dyn Conduit>> {
        let Some((mut out, mut back)) = self.directions(peer) else {
            return Ok(Box::new(connect(address).await?));
        };
        link::handshake(&mut out, &mut back).await?;
        let far = connect(address).await?.into_split();
        let (near, inner) = tokio::io::duplex(64 * 1024);
        tokio::spawn(link::carry(inner, far, out, back));
        Ok(Box::new(near))
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
