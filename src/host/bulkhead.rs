//! What a peer sends may end its own session, never the gateway.
//!
//! A panic anywhere ends the process: a half-dead box is worse than a restart. But the libraries that read what cameras and
//! browsers send (RTSP, SDP, RTP, codecs' headers) have panicked before on what nobody should send, and a single camera must
//! not take the district's buttons with it. So such a session runs behind a bulkhead: its panic is caught, the session is
//! dropped whole, and the rest never notices. Behind one stands only what owns its state or drops it.

use std::{
    any::Any,
    cell::Cell,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    pin::pin,
    task::Poll,
};

thread_local! {
    /// How many bulkheads this thread is behind now.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A panic behind a bulkhead: what it said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Burst(String);

/// From now on a panic that no bulkhead stands before ends the process (SIGABRT), after it was reported.
pub fn abort_without() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        report(panic);
        if DEPTH.get() == 0 {
            std::process::abort();
        }
    }));
}

/// Does some work behind a bulkhead.
///
/// # Errors
/// [`Burst`], when it panicked.
pub fn behind<T>(work: impl FnOnce() -> T) -> Result<T, Burst> {
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    done.map_err(|said| Burst(words(&*said)))
}

/// The same for work that waits.
///
/// # Errors
/// [`Burst`], when it panicked.
pub async fn behind_all_of<T>(work: impl Future<Output = T>) -> Result<T, Burst> {
    let mut work = pin!(work);
    poll_fn(|cx| match behind(|| work.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(burst) => Poll::Ready(Err(burst)),
    })
    .await
}

fn words(said: &(dyn Any + Send)) -> String {
    let text = said.downcast_ref::<&str>().copied().or_else(|| said.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_behind_it_is_an_error_and_what_does_not_panic_is_done() {
        assert_eq!(behind(|| 7), Ok(7));
        assert_eq!(behind(|| panic!("no {}", 7)), Err::<(), _>(Burst("no 7".into())));
        let waits = |panics: bool| async move {
            tokio::task::yield_now().await;
            assert!(!panics, "after a wait");
            7
        };
        assert_eq!(behind_all_of(waits(false)).await, Ok(7));
        assert_eq!(behind_all_of(waits(true)).await, Err(Burst("after a wait".into())));
        assert_eq!(DEPTH.get(), 0, "nothing stands before what comes next");
    }

    #[test]
    fn a_panic_before_which_none_stands_ends_the_process_also_in_a_task() {
        const ALONE: &str = "CHOWKI_TEST_PANICS";
        if std::env::var_os(ALONE).is_some() {
            abort_without();
            let _caught = behind(|| panic!("caught"));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let scope = crate::host::scope::Scope::new("test");
            let _ = runtime.block_on(async { scope.spawn("panics", async { panic!("not caught") }).await });
            std::process::exit(0);
        }
        let name = "host::bulkhead::tests::a_panic_before_which_none_stands_ends_the_process_also_in_a_task";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = again.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(6), "{said}");
        assert!(said.contains("caught") && said.contains("not caught"), "{said}");
    }
}
