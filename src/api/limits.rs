//! How much one caller may ask for, so that the others and the gateway's own work go on: requests in a time, files at a time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Problem;
use crate::{
    district::clock::Mono,
    gateway::access::Caller,
    host::{clock, doors::network},
};

/// Files that are sent at a time, to all callers and to one.
const FILES: usize = 64;
const FILES_EACH: usize = 24;

/// Pictures that are decoded at a time: the processor has other things to do.
const DECODED: usize = 1;

/// How long a picture may wait for that.
const DECODED_WITHIN: Duration = Duration::from_secs(5);

/// Requests of one caller: so many a second for long, and so many at once.
const A_SECOND: f64 = 200.0;
const AT_ONCE: f64 = 1_000.0;

/// Callers that are remembered; those that have been quiet are forgotten first.
const REMEMBERED: usize = 1_024;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address.
    pub address: IpAddr,
    /// The common name of the certificate that was shown and proved.
    pub certificate: Option<Arc<str>>,
    /// Whether it is by TLS.
    pub secure: bool,
}

/// Who is limited: a client of the config, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Client(Arc<str>),
    Address(IpAddr),
    Unknown,
}

impl Who {
    fn of(caller: Option<&Caller>, from: Option<&Peer>) -> Self {
        match (caller.and_then(|caller| caller.name.clone()), from) {
            (Some(name), _) => Self::Client(name),
            (None, Some(Peer { address, .. })) => Self::Address(network(*address)),
            (None, None) => Self::Unknown,
        }
    }
}

/// The limits of all callers.
#[derive(Debug)]
pub struct Limiter {
    files: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
    callers: Mutex<HashMap<Who, Counts>>,
}

/// What one caller has.
#[derive(Debug, Clone, Copy)]
struct Counts {
    files: usize,
    /// Requests that are left.
    left: f64,
    at: Mono,
}

impl Default for Limiter {
    fn default() -> Self {
        let (files, decoders) = (Arc::new(Semaphore::new(FILES)), Arc::new(Semaphore::new(DECODED)));
        Self { files, decoders, callers: Mutex::default() }
    }
}

/// A file may be sent for as long as this is held.
#[derive(Debug)]
pub struct Pass {
    limiter: Arc<Limiter>,
    who: Who,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(counts) = self.limiter.callers().get_mut(&self.who) {
            counts.files = counts.files.saturating_sub(1);
        }
    }
}

impl Limiter {
    fn callers(&self) -> MutexGuard<'_, HashMap<Who, Counts>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets another file be sent to whoever asks.
    ///
    /// # Errors
    /// 429, when that would be too many.
    pub fn file(self: &Arc<Self>, caller: &Caller, from: Option<&Peer>) -> Result<Pass, Problem> {
        let who = Who::of(Some(caller), from);
        let mut callers = self.callers();
        let counts = callers.entry(who.clone()).or_insert_with(|| Counts::new(clock::mono()));
        if counts.files >= FILES_EACH {
            let detail = format!("{FILES_EACH} files are being sent to you already; take one after another");
            return Err(Problem::too_many(detail, 5));
        }
        let Ok(permit) = self.files.clone().try_acquire_owned() else {
            return Err(Problem::too_many(
                format!("{FILES} files are being sent already, which is all that go at a time"),
                5,
            ));
        };
        counts.files += 1;
        drop(callers);
        Ok(Pass { limiter: self.clone(), who, _permit: permit })
    }

    /// Waits for a turn to decode a picture.
    ///
    /// # Errors
    /// 429, when it takes too long.
    pub async fn decoder(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = tokio::time::timeout(DECODED_WITHIN, self.decoders.clone().acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok);
        turn.ok_or_else(|| Problem::too_many("too many pictures are asked for at a time", 5))
    }

    /// Counts a request. The seconds until the next one may come, where this is one too many.
    fn request(&self, who: Who, now: Mono) -> Result<(), u32> {
        let mut callers = self.callers();
        if callers.len() >= REMEMBERED && !callers.contains_key(&who) {
            callers.retain(|_, counts| counts.files > 0 || counts.refilled(now) < AT_ONCE);
        }
        let counts = callers.entry(who).or_insert_with(|| Counts::new(now));
        counts.left = counts.refilled(now);
        counts.at = now;
        if counts.left < 1.0 {
            return Err(1);
        }
        counts.left -= 1.0;
        Ok(())
    }
}

impl Counts {
    fn new(now: Mono) -> Self {
        Self { files: 0, left: AT_ONCE, at: now }
    }

    fn refilled(&self, now: Mono) -> f64 {
        (self.left + now.since(self.at).as_secs_f64() * A_SECOND).min(AT_ONCE)
    }
}

/// Lets no caller ask more often than that. It stands behind the guard, so that a caller is known by its name.
pub async fn in_measure(State(limiter): State<Arc<Limiter>>, request: Request, next: Next) -> Response {
    let who = Who::of(request.extensions().get::<Caller>(), request.extensions().get::<Peer>());
    match limiter.request(who, clock::mono()) {
        Ok(()) => next.run(request).await,
        Err(seconds) => {
            let detail =
                format!("more than {A_SECOND} requests a second are too many; wait, or ask for more at a time");
            Problem::too_many(detail, seconds).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn caller(name: &str) -> Caller {
        Caller { name: Some(name.into()), role: Role::Puller, group: None }
    }

    #[test]
    fn files_at_a_time_are_counted_for_each_and_all_and_given_back() {
        let limiter = Arc::new(Limiter::default());
        let take = |name: &str| limiter.file(&caller(name), None);
        let mut held: Vec<_> = (0..FILES_EACH).map(|_| take("a").unwrap()).collect();
        let refused = take("a").unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (429, Some(5)));
        held.extend((0..FILES_EACH).map(|_| take("b").unwrap()));
        held.extend((0..FILES - 2 * FILES_EACH).map(|_| take("c").unwrap()));
        assert!(take("c").is_err(), "all are taken");
        held.truncate(FILES_EACH - 1);
        assert!(take("a").is_ok() && take("c").is_ok());
    }

    #[test]
    fn who_asks_too_often_waits_and_nobody_else_does() {
        let limiter = Limiter::default();
        let at = |ms: u64| Mono::from_boot(Duration::from_millis(ms));
        let ask = |name: &str, ms: u64| limiter.request(Who::Client(name.into()), at(ms)).is_ok();
        assert_eq!((0..3_000).filter(|_| ask("a", 0)).count(), 1_000, "so many at once");
        assert!(ask("b", 0));
        assert_eq!((0..3_000).filter(|_| ask("a", 1_000)).count(), 200, "so many a second");
        assert_eq!((0..3_000).filter(|_| ask("a", 60_000)).count(), 1_000, "no more than at once are saved up");
        // However many there are: who has been quiet is forgotten.
        for n in 0..5_000_u64 {
            assert!(ask(&n.to_string(), 60_000 + 10 * n));
            assert!(limiter.callers().len() <= REMEMBERED + 1);
        }
    }
}
