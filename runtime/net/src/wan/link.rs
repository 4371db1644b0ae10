//! What an emulated link does to the bytes of one connection.
//!
//! Connections are streams of a real TCP on loopback, which loses nothing; so a
//! loss is shown as what TCP makes of it for whoever reads: a stall. A piece is
//! what one read yields, at most 16 KiB. It arrives after delay and jitter; with
//! the probability `loss` it is lost instead and arrives one retransmission
//! timeout later, the second time after twice that, and so on (RFC 6298, 5.5).
//! Whatever was sent behind it waits for it, as TCP delivers in order.
//!
//! Where this differs from a real path:
//!
//! * Every loss costs a full timeout. TCP repairs most losses in the midst of a
//!   stream within a round trip (fast retransmit, RFC 5681) and needs the timeout
//!   for the last pieces of a burst only. Probes and small writes are such last
//!   pieces, so for them it is right; long transfers stall longer than they would.
//! * One draw is made a piece, not one a segment of about 1,460 bytes, so long
//!   transfers stall less often than segments of the same loss would have them.
//! * There is no congestion window: a loss slows nothing down afterwards.
//! * Acknowledgements of the emulated TCP are not modelled, nor lost.
//! * A link that is restored after a cut delivers at once; TCP would wait for its
//!   next retransmission, up to two minutes after a long cut.
//! * Jitter never reorders; a piece that is overtaken holds up the next one.

use std::io;
use std::time::Duration;

use model::status::Cut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::LinkShape;
use super::random::Random;
use crate::limits;

/// Bytes that travel as one piece.
const PIECE: usize = 16 * 1024;

/// Linux adds at least this to the smoothed round trip (`TCP_RTO_MIN`; RFC 6298 would have 1 s in all).
const TIMEOUT_LEAST: Duration = Duration::from_millis(200);

/// No retransmission waits longer (Linux: `TCP_RTO_MAX`).
const TIMEOUT_MOST: Duration = Duration::from_secs(120);

/// The first timeout of a handshake, before any round trip was measured (RFC 6298, 2.1).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Which way bytes go, seen from the dialling region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

/// One direction of one connection.
pub(super) struct Direction {
    pub(super) way: Way,
    pub(super) shape: watch::Receiver<LinkShape>,
    pub(super) random: Random,
}

impl Way {
    fn is_cut(self, cut: Cut) -> bool {
        matches!((self, cut), (_, Cut::Both) | (Self::Out, Cut::Out) | (Self::In, Cut::In))
    }
}

impl LinkShape {
    /// The one-way delay with its jitter, which is uniform to either side.
    fn delay(self, random: &mut Random) -> Duration {
        let waver = self.jitter_ms * (2.0 * random.share() - 1.0);
        milliseconds(self.delay_ms + waver)
    }

    /// When TCP takes a piece for lost: the round trip, and at least 200 ms or four
    /// times its variation (RFC 6298, 2.3, as Linux has it).
    fn timeout(self) -> Duration {
        milliseconds(2.0 * self.delay_ms) + TIMEOUT_LEAST.max(milliseconds(4.0 * self.jitter_ms))
    }
}

fn milliseconds(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds.max(0.0) / 1000.0)
}

impl Direction {
    /// Waits until bytes pass in this direction; says whether it had to.
    /// A link whose `Wan` is gone stays as it was.
    async fn restored(&mut self) -> bool {
        let was_cut = self.way.is_cut(self.shape.borrow().cut);
        let way = self.way;
        if self.shape.wait_for(|shape| !way.is_cut(shape.cut)).await.is_err() {
            std::future::pending::<()>().await;
        }
        was_cut
    }

    fn loses(&mut self) -> bool {
        let loss = self.shape.borrow().loss;
        self.random.chance(loss)
    }

    /// Waits until a piece that left at `sent` over a link of this shape has arrived.
    async fn arrival(&mut self, sent: Instant, shape: LinkShape) -> io::Result<()> {
        let mut due = sent + shape.delay(&mut self.random);
        let mut timeout = shape.timeout().min(TIMEOUT_MOST);
        for _ in 0..=limits::WAN_RETRANSMISSIONS {
            sleep_until(due).await;
            if self.restored().await {
                due = Instant::now();
            }
            // The link as it is by now: a retransmission may pass where the first try did not.
            if !self.loses() {
                return Ok(());
            }
            due += timeout;
            timeout = (timeout * 2).min(TIMEOUT_MOST);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the emulated link lost every retransmission"))
    }
}

/// The three-way handshake: one round trip before the first byte may go.
pub(super) async fn handshake(out: &mut Direction, back: &mut Direction) -> io::Result<()> {
    let mut timeout = HANDSHAKE_TIMEOUT;
    for _ in 0..=limits::WAN_HANDSHAKES {
        while out.restored().await || back.restored().await {}
        if !out.loses() && !back.loses() {
            let shape = *out.shape.borrow();
            sleep(shape.delay(&mut out.random) + shape.delay(&mut back.random)).await;
            return Ok(());
        }
        sleep(timeout).await;
        timeout *= 2;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the emulated link lost every handshake"))
}

/// Carries bytes both ways until both directions have ended or one has failed.
pub(super) async fn carry<R, W>(near: DuplexStream, (far_read, far_write): (R, W), out: Direction, back: Direction)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (near_read, near_write) = tokio::io::split(near);
    let there = one_way(near_read, far_write, out);
    let back = one_way(far_read, near_write, back);
    let _ = tokio::try_join!(there, back);
}

async fn one_way<R, W>(mut from: R, mut to: W, mut direction: Direction) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let room = Semaphore::new(limits::WAN_BYTES / PIECE);
    let (send, mut receive) = mpsc::unbounded_channel::<(Instant, LinkShape, Vec<u8>)>();
    let shape = direction.shape.clone();
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
            let shape = *shape.borrow();
            if send.send((Instant::now(), shape, piece)).is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((sent, shape, piece)) = receive.recv().await {
            direction.arrival(sent, shape).await?;
            to.write_all(&piece).await?;
            room.add_permits(1);
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}
