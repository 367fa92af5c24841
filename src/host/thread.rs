//! A thread of its own for tasks that must not keep others waiting; if wanted it serves its sockets in beats instead of at
//! every packet.
//!
//! Dozens of cameras send something every few milliseconds each. To be woken for every packet costs more than to read it; so
//! the thread sleeps a moment after its work, and then reads what has come for all of them together. It is what network
//! cards do with interrupts. When nothing has come in that moment, it waits as any other thread does.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread as system,
    time::{Duration, Instant},
};

use tokio::{runtime, sync::Notify};

use super::clock;

/// From one look at the sockets to the next: the most that this adds to the age of a frame.
const BEAT: Duration = Duration::from_millis(20);

/// The same while somebody is watching live, and many cameras send.
const HURRIED: Duration = Duration::from_millis(1);

/// The same while few send, which wake the thread seldom anyway: about the time between a picture's packets.
const AT_ONCE: Duration = Duration::from_micros(50);

/// So often in a second, and in a row, may the thread be woken at once.
const WAKES_A_SECOND: f64 = 2_000.0;
const WAKES_IN_A_ROW: f64 = 40.0;

/// A runtime of its own, on one thread. Its tasks end with it, so stop their scope first.
#[derive(Debug)]
pub struct Thread {
    handle: runtime::Handle,
    stop: Arc<Notify>,
    hurried: Arc<AtomicUsize>,
}

/// While this lives, the thread beats faster.
#[derive(Debug)]
pub struct Hurry(Arc<AtomicUsize>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Thread {
    /// Starts a thread that serves its sockets at once.
    pub fn prompt(name: &str) -> io::Result<Self> {
        Self::run(name, Arc::default(), || {})
    }

    /// Starts a thread that runs in beats.
    pub fn in_beats(name: &str) -> io::Result<Self> {
        let hurried = Arc::new(AtomicUsize::new(0));
        let watched = hurried.clone();
        let wakes = Mutex::new(Wakes { left: WAKES_IN_A_ROW, at: clock::instant() });
        let moment = move || {
            let hurried = watched.load(Relaxed) > 0;
            let at_once = hurried && wakes.lock().unwrap_or_else(PoisonError::into_inner).take(clock::instant());
            system::sleep(if at_once {
                AT_ONCE
            } else if hurried {
                HURRIED
            } else {
                BEAT
            });
        };
        Self::run(name, hurried, moment)
    }

    fn run(name: &str, hurried: Arc<AtomicUsize>, moment: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().on_thread_park(moment).build()?;
        let (handle, stop) = (runtime.handle().clone(), Arc::new(Notify::new()));
        let stopped = stop.clone();
        system::Builder::new().name(name.into()).spawn(move || runtime.block_on(stopped.notified()))?;
        Ok(Self { handle, stop, hurried })
    }

    /// Beats faster from now on: somebody is watching.
    pub fn hurry(&self) -> Hurry {
        self.hurried.fetch_add(1, Relaxed);
        Hurry(self.hurried.clone())
    }

    /// While what this returns lives, tasks that are spawned here run on that thread.
    pub fn enter(&self) -> runtime::EnterGuard<'_> {
        self.handle.enter()
    }
}

/// How often the thread may still be woken at once.
struct Wakes {
    left: f64,
    at: Instant,
}

impl Wakes {
    fn take(&mut self, now: Instant) -> bool {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * WAKES_A_SECOND;
        (self.left, self.at) = ((self.left + more).min(WAKES_IN_A_ROW), now);
        let may = self.left >= 1.0;
        self.left -= if may { 1.0 } else { 0.0 };
        may
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scope::Scope;

    #[test]
    fn few_packets_are_read_at_once_and_many_together() {
        let at_once = |every_us: u64| {
            let begin = clock::instant();
            let mut wakes = Wakes { left: WAKES_IN_A_ROW, at: begin };
            (1..=10_000).filter(|i| wakes.take(begin + Duration::from_micros(i * every_us))).count()
        };
        assert_eq!(at_once(1_000), 10_000);
        // Ten thousand of them in a second.
        assert!((1_990..2_100).contains(&at_once(100)), "{}", at_once(100));
    }

    #[tokio::test]
    async fn tasks_of_such_a_thread_sleep_read_and_end_with_their_scope() {
        let thread = Thread::in_beats("test").unwrap();
        let scope = Scope::new("test");
        let name = {
            let _inside = thread.enter();
            scope.spawn("named", async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                system::current().name().map(str::to_owned)
            })
        };
        assert_eq!(name.await.unwrap().as_deref(), Some("test"));
        assert!(scope.shutdown(Duration::from_secs(1)).await.is_empty());
    }
}
