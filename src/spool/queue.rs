//! The way from many tasks to the one thread that writes, and the tickets that come back.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::{Semaphore, oneshot};

use super::error::Error;

/// Resolves once what it was given for is durable. Dropping it does not take the work back.
#[derive(Debug)]
#[must_use = "nothing may be told to anyone before the ticket has resolved"]
pub struct Ticket<T = ()>(oneshot::Receiver<Result<T, Error>>);

/// The writer's end of a ticket.
pub(super) type Done<T> = oneshot::Sender<Result<T, Error>>;

impl<T> Ticket<T> {
    pub(super) fn new() -> (Done<T>, Self) {
        let (done, ticket) = oneshot::channel();
        (done, Self(ticket))
    }

    /// Waits on a thread that runs no tasks.
    pub fn wait(self) -> Result<T, Error> {
        self.0.blocking_recv().unwrap_or(Err(Error::Stopped))
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, Error>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|r| r.unwrap_or(Err(Error::Stopped)))
    }
}

/// A queue bounded in bytes. What is taken still counts until [`Queue::release`], so the bound covers everything that
/// is not yet durable. When it is full, [`Queue::push`] waits in order of arrival and [`Queue::try_push`] refuses.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    room: Semaphore,
    limit: u32,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new(limit: u32) -> Self {
        let state = Mutex::new(State { items: VecDeque::new(), closed: false });
        Self { state, wake: Condvar::new(), room: Semaphore::new(limit as usize), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are queued or not yet durable.
    pub fn used(&self) -> u64 {
        u64::from(self.limit).saturating_sub(self.room.available_permits() as u64)
    }

    /// Waits for room.
    pub async fn push(&self, cost: u64, item: T) -> Result<(), Error> {
        let cost = self.fits(cost)?;
        self.room.acquire_many(cost).await.map_err(|_| Error::Stopped)?.forget();
        self.push_free(item)
    }

    /// Refuses when there is no room now.
    pub fn try_push(&self, cost: u64, item: T) -> Result<(), Error> {
        let cost = self.fits(cost)?;
        match self.room.try_acquire_many(cost) {
            Ok(permit) => permit.forget(),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(Error::Stopped),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                return Err(Error::Full { queued: self.used(), limit: self.limit.into() });
            }
        }
        self.push_free(item)
    }

    /// Without counting: for what its owner bounds otherwise.
    pub fn push_free(&self, item: T) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Stopped);
        }
        state.items.push_back(item);
        let wake = state.items.len() == 1 || self.is_half_full();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn fits(&self, cost: u64) -> Result<u32, Error> {
        let too_large = Error::TooLarge { bytes: cost, limit: self.limit.into() };
        u32::try_from(cost).ok().filter(|c| *c <= self.limit).ok_or(too_large)
    }

    /// Gives room back for what has become durable.
    pub fn release(&self, cost: u64) {
        self.room.add_permits(usize::try_from(cost).unwrap_or(0));
    }

    /// Everything queued, as soon as there is anything, or nothing after `at_most` or once closed.
    pub fn take(&self, at_most: Duration) -> VecDeque<T> {
        let state = self.lock();
        let waiting = |s: &mut State<T>| s.items.is_empty() && !s.closed;
        let (mut state, _) =
            self.wake.wait_timeout_while(state, at_most, waiting).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.items)
    }

    pub fn is_half_full(&self) -> bool {
        self.used() > u64::from(self.limit) / 2
    }

    /// Whether something is queued that waits for no more: see [`Queue::gather`].
    pub fn is_pressing(&self) -> bool {
        !self.lock().items.is_empty() && self.is_half_full()
    }

    /// Sleeps for `span` so that more may come, but not once the queue is half full or closed.
    pub fn gather(&self, span: Duration) {
        let waiting = |s: &mut State<T>| !s.closed && !self.is_half_full();
        drop(self.wake.wait_timeout_while(self.lock(), span, waiting));
    }

    /// Sleeps for `span`, or until closed; says whether it is closed. Items that come meanwhile stay.
    pub fn pause(&self, span: Duration) -> bool {
        let state = self.lock();
        let (state, _) =
            self.wake.wait_timeout_while(state, span, |s| !s.closed).unwrap_or_else(PoisonError::into_inner);
        state.closed
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Refuses everything new; what is queued is still taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_until_what_was_taken_is_durable() {
        let queue = Queue::new(10);
        queue.try_push(6, 'a').unwrap();
        assert!(matches!(queue.try_push(6, 'b'), Err(Error::Full { queued: 6, limit: 10 })));
        assert_eq!(queue.take(Duration::ZERO), ['a']);
        assert!(queue.try_push(6, 'b').is_err());
        queue.release(6);
        queue.try_push(6, 'b').unwrap();
        assert!(matches!(queue.try_push(11, 'c'), Err(Error::TooLarge { .. })));
        queue.close();
        assert!(matches!(queue.try_push(1, 'c'), Err(Error::Stopped)));
        assert_eq!(queue.take(Duration::from_secs(9)), ['b']);
    }
}
