//! Named scopes for tasks. Every task belongs to one; a scope is awaited at shutdown with a deadline, and says which
//! tasks did not end.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A set of tasks that end together.
#[derive(Clone)]
pub struct Scope {
    name: Arc<str>,
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Scope {
    /// An empty scope of its own.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), tracker: TaskTracker::new(), stop: CancellationToken::new(), running: Arc::default() }
    }

    /// A scope inside this one: stopped when this one is, awaited on its own.
    pub fn child(&self, name: &str) -> Self {
        Self {
            name: format!("{}/{name}", self.name).into(),
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
            running: Arc::default(),
        }
    }

    /// Resolves when the scope is told to stop. Tasks watch it and end by themselves.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Whether the scope has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Runs a task in this scope under a name that shutdown can report.
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<T: Send + 'static>(
        &self,
        task: &str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let entry = Entry::new(self.running.clone(), task);
        self.tracker.spawn(async move {
            let _entry = entry;
            future.await
        })
    }

    /// Looks at something again and again, on a thread that may block, until the scope stops.
    pub fn every(&self, task: &'static str, period: Duration, look: impl FnMut() + Send + 'static) {
        let scope = self.clone();
        self.spawn(task, async move {
            let stopping = scope.stopping();
            tokio::pin!(stopping);
            let mut look = look;
            loop {
                tokio::select! {
                    () = &mut stopping => return,
                    () = tokio::time::sleep(period) => {}
                }
                let looked = scope.spawn_blocking(task, move || {
                    look();
                    look
                });
                match looked.await {
                    Ok(again) => look = again,
                    Err(_) => return,
                }
            }
        });
    }

    /// Runs blocking work in this scope.
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        task: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let entry = Entry::new(self.running.clone(), task);
        // Where a test moves the clocks everything happens on its thread, in an order that its seed decides.
        #[cfg(test)]
        if super::clock::simulated::get().is_some() {
            return self.tracker.spawn(async move {
                let _entry = entry;
                work()
            });
        }
        self.tracker.spawn_blocking(move || {
            let _entry = entry;
            work()
        })
    }

    /// Tells every task to stop and waits for them, at most `deadline`. Returns the names of those still running.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<String> {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(|(task, n)| format!("{}/{task} x{n}", self.name)).collect()
    }
}

struct Entry {
    running: Arc<Mutex<BTreeMap<String, usize>>>,
    task: String,
}

impl Entry {
    fn new(running: Arc<Mutex<BTreeMap<String, usize>>>, task: &str) -> Self {
        *running.lock().unwrap_or_else(PoisonError::into_inner).entry(task.to_owned()).or_default() += 1;
        Self { running, task: task.to_owned() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = running.get_mut(&self.task) {
            *n -= 1;
            if *n == 0 {
                running.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_names_the_tasks_that_did_not_end() {
        let scope = Scope::new("test");
        scope.spawn("polite", scope.stopping());
        scope.spawn("deaf", std::future::pending::<()>());
        assert_eq!(scope.shutdown(Duration::from_secs(1)).await, ["test/deaf x1"]);
    }
}
