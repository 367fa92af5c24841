//! From what happens to a camera's sessions: its state for the operator, and when to try again. Pure.

use std::{mem, time::Duration};

use super::fault::{Fault, Retry};
use crate::district::{camera::CameraState, clock::Mono};

/// How long to wait before another session. Each wait doubles from `first` to the cap of its kind, and is shortened by
/// up to a quarter at random, so that cameras behind one switch do not come back in step.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// Longest wait while it may be back at any moment: unreachable, hanging.
    pub soon: Duration,
    /// Longest wait while somebody has to change something: no such stream, no codec.
    pub later: Duration,
    /// Wait after a refused login, so as not to lock the account.
    pub rarely: Duration,
    /// A session that delivered for this long clears the count: what ends it is tried again at once.
    pub steady: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            soon: Duration::from_secs(5),
            later: Duration::from_secs(15),
            rarely: Duration::from_secs(30),
            steady: Duration::from_secs(10),
        }
    }
}

/// A state to tell, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What the camera does now.
    pub state: CameraState,
    /// One sentence for people.
    pub detail: String,
}

/// The states of one camera.
#[derive(Debug)]
pub struct States {
    backoff: Backoff,
    state: CameraState,
    kind: Option<mem::Discriminant<Fault>>,
    /// Tries in a row that did not lead to a steady session.
    failures: u32,
    /// When the current session delivered its first frame.
    live_since: Option<Mono>,
    random: fastrand::Rng,
}

impl States {
    /// A camera not yet tried. Equal seeds give equal waits.
    pub fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            backoff,
            state: CameraState::Connecting,
            kind: None,
            failures: 0,
            live_since: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// What the camera does now.
    pub fn state(&self) -> CameraState {
        self.state
    }

    /// The session's first frame arrived; `what` describes the stream.
    pub fn frames(&mut self, now: Mono, what: String) -> Option<Change> {
        self.live_since = Some(now);
        self.change(CameraState::Live, None, what)
    }

    /// The session ended, or could not begin. Returns what to tell, when that is news, and how long to wait.
    pub fn fault(&mut self, now: Mono, fault: &Fault) -> (Option<Change>, Duration) {
        let live_since = self.live_since.take();
        let steady = live_since.is_some_and(|since| now.since(since) >= self.backoff.steady);
        if steady {
            self.failures = 0;
        }
        let wait = self.wait(fault, steady);
        self.failures = self.failures.saturating_add(1);
        let state = fault.state(live_since.is_some());
        (self.change(state, Some(mem::discriminant(fault)), fault.to_string()), wait)
    }

    fn wait(&mut self, fault: &Fault, steady: bool) -> Duration {
        let cap = match fault.retry() {
            Retry::Rarely => return self.backoff.rarely,
            Retry::Soon if steady => return Duration::ZERO,
            Retry::Soon => self.backoff.soon,
            Retry::Later => self.backoff.later,
        };
        let doubled = self.backoff.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        doubled.min(cap).mul_f64(1.0 - 0.25 * self.random.f64())
    }

    fn change(&mut self, state: CameraState, kind: Option<mem::Discriminant<Fault>>, detail: String) -> Option<Change> {
        let news = (state, kind) != (self.state, self.kind);
        (self.state, self.kind) = (state, kind);
        news.then_some(Change { state, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(seconds))
    }

    fn unreachable() -> Fault {
        Fault::Unreachable { address: "10.1.1.1:554".into(), why: "connection refused".into() }
    }

    fn ended() -> Fault {
        Fault::Ended { address: "10.1.1.1:554".into(), said: "wrong ssrc".into() }
    }

    fn wrong_password() -> Fault {
        let (address, user, said) = ("10.1.1.1:554".into(), "chowki".into(), "401".into());
        Fault::WrongPassword { address, user, said }
    }

    #[test]
    fn an_unreachable_camera_is_told_once_and_tried_every_few_seconds() {
        let mut states = States::new(Backoff::default(), 7);
        let told: Vec<_> = (0..50).map(|i| states.fault(at(i * 6), &unreachable())).collect();
        assert_eq!(told.iter().filter(|(change, _)| change.is_some()).count(), 1);
        assert_eq!(told[0].0.as_ref().unwrap().state, CameraState::Unreachable);
        assert!(told[0].1 <= Duration::from_millis(500));
        assert!(told[49].1 <= Duration::from_secs(5) && told[49].1 >= Duration::from_secs(3));
    }

    #[test]
    fn a_steady_session_that_breaks_is_tried_again_at_once_and_is_not_live_meanwhile() {
        let mut states = States::new(Backoff::default(), 7);
        assert_eq!(states.frames(at(0), "h264".into()).unwrap().state, CameraState::Live);
        let (change, wait) = states.fault(at(60), &ended());
        assert_eq!((change.unwrap().state, wait), (CameraState::Connecting, Duration::ZERO));
        assert_eq!(states.frames(at(61), "h264".into()).unwrap().state, CameraState::Live);
    }

    #[test]
    fn a_camera_that_breaks_every_session_is_tried_ever_less_often() {
        let mut states = States::new(Backoff::default(), 7);
        let mut waits = Vec::new();
        for i in 0..8 {
            states.frames(at(i * 10), String::new());
            waits.push(states.fault(at(i * 10 + 1), &ended()).1);
        }
        assert!(waits[0] < Duration::from_secs(1) && waits[7] > Duration::from_secs(3), "{waits:?}");
    }

    #[test]
    fn a_refused_login_is_not_tried_often() {
        let mut states = States::new(Backoff::default(), 7);
        for i in 0..5 {
            assert_eq!(states.fault(at(i), &wrong_password()).1, Duration::from_secs(30));
        }
        assert_eq!(states.state(), CameraState::WrongPassword);
    }

    #[test]
    fn the_same_state_for_another_reason_is_news() {
        let mut states = States::new(Backoff::default(), 7);
        let address = String::from("10.1.1.1:554");
        let hangs = Fault::Mute { address: address.clone(), step: "DESCRIBE", after: Duration::from_secs(5) };
        let silent = Fault::Silent { address, after: Duration::from_secs(4) };
        states.frames(at(0), String::new());
        assert!(states.fault(at(1), &silent).0.is_some());
        assert!(states.fault(at(2), &hangs).0.is_some());
        assert!(states.fault(at(3), &hangs).0.is_none());
    }
}
