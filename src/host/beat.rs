//! A thread that serves many sockets in beats instead of at every packet.
//!
//! Dozens of cameras send something every few milliseconds each. To be woken for every packet costs more than to read it; so
//! what has come is read for all of them together, fifty times a second. It is what network cards do with interrupts.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{runtime, task::yield_now};

/// From one look at the sockets to the next: the most that this adds to the age of a frame.
const BEAT: Duration = Duration::from_millis(20);

/// Looks that follow each other at once in a beat: the first finds what has come, the others what comes of it.
const LOOKS: usize = 3;

/// A runtime of its own that runs in beats. Its tasks end with it, so stop their scope first.
#[derive(Debug)]
pub struct Beat {
    handle: runtime::Handle,
    stop: Arc<AtomicBool>,
}

impl Beat {
    /// Starts the thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            while !stopped.load(Relaxed) {
                runtime.block_on(async {
                    for _ in 0..LOOKS {
                        yield_now().await;
                    }
                });
                thread::sleep(BEAT);
            }
        })?;
        Ok(Self { handle, stop })
    }

    /// While what this returns lives, tasks that are spawned on this thread run in beats.
    pub fn enter(&self) -> runtime::EnterGuard<'_> {
        self.handle.enter()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scope::Scope;

    #[tokio::test]
    async fn tasks_of_a_beat_sleep_read_and_end_with_their_scope() {
        let beat = Beat::start("test").unwrap();
        let scope = Scope::new("test");
        let name = {
            let _inside = beat.enter();
            scope.spawn("named", async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                thread::current().name().map(str::to_owned)
            })
        };
        assert_eq!(name.await.unwrap().as_deref(), Some("test"));
        assert!(scope.shutdown(Duration::from_secs(1)).await.is_empty());
    }
}
