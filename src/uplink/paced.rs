//! TCP connections that share a [`Budget`]: each writes a small piece when it is its turn, so that nothing piles up in
//! the bottleneck's queue, where what is urgent would wait behind it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tracing::trace;

use super::{budget::Budget, pace::Pace};
use crate::{district::clock::Mono, host::clock};

/// What the kernel holds of a connection beyond what is on its way, at most: on a line that became slower than its
/// budget the kernel would else collect megabytes, and send them at once when the line recovers.
const UNSENT: u32 = 16 * 1024;

/// A budget and all who share it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pacer(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    budget: Budget,
    /// None: somebody said how fast the line is.
    pace: Option<Pace>,
}

impl Pacer {
    /// For a line with a ceiling of `bits` a second.
    pub(super) fn new(bits: u64) -> Self {
        Self(Arc::new(Mutex::new(Shared { budget: Budget::new(bits), pace: None })))
    }

    /// For a line of which nobody said how fast it is.
    pub(super) fn finding_out() -> Self {
        let pace = Pace::default();
        Self(Arc::new(Mutex::new(Shared { budget: Budget::new(pace.rate()), pace: Some(pace) })))
    }

    /// Bits a second that may leave now, as far as that is being found out. None: somebody said it.
    pub fn pace(&self) -> Option<u64> {
        self.lock().pace.as_ref().map(Pace::rate)
    }

    /// Takes `bytes` out of the budget; how long they have to wait.
    pub(super) fn take(&self, bytes: usize) -> Duration {
        self.lock().take(bytes)
    }

    /// Takes a piece of what is to be sent: its size, and how long it has to wait.
    fn piece(&self, of: usize) -> (usize, Duration) {
        let mut shared = self.lock();
        let piece = of.min(shared.budget.piece());
        (piece, shared.take(piece))
    }

    /// Whether it is to be found out what is sent does to the line.
    pub(super) fn asks(&self) -> bool {
        self.lock().pace.as_ref().is_some_and(Pace::is_used)
    }

    /// Headquarters' broker has answered after so long.
    pub(super) fn answered(&self, took: Duration, now: Mono) {
        self.lock().change(|pace| pace.answered(took, now));
    }

    /// No broker answers.
    pub(super) fn unheard(&self, now: Mono) {
        self.lock().change(|pace| pace.unheard(now));
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn take(&mut self, bytes: usize) -> Duration {
        if let Some(pace) = &mut self.pace {
            pace.sent(Budget::on_line(bytes));
        }
        self.budget.take(bytes, clock::mono())
    }

    fn change(&mut self, learn: impl FnOnce(&mut Pace)) {
        let Some(pace) = &mut self.pace else { return };
        let before = pace.rate();
        learn(pace);
        if pace.rate() != before {
            trace!(bits = pace.rate(), "pace");
            self.budget.allow(pace.rate());
        }
    }
}

/// A connection whose writes are paced; reads are not.
#[derive(Debug)]
pub(super) struct Paced {
    socket: TcpStream,
    /// None: no ceiling.
    pacer: Option<Pacer>,
    /// Bytes out of the budget that are not written yet.
    credit: usize,
    /// Until these may be.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(socket: TcpStream, pacer: Option<Pacer>) -> io::Result<Self> {
        if pacer.is_some() {
            socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
        }
        Ok(Self { socket, pacer, credit: 0, wait: None })
    }

    /// How many of these bytes may be written now.
    fn poll_credit(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let Some(pacer) = &self.pacer else { return Poll::Ready(wanted) };
        if self.credit == 0 && wanted > 0 {
            let (piece, wait) = pacer.piece(wanted);
            self.credit = piece;
            self.wait = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        Poll::Ready(self.credit.min(wanted))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = ready!(self.poll_credit(cx, buf.len()));
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &buf[..allowed]))?;
        self.credit = self.credit.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}
