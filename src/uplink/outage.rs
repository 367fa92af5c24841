//! From when to when cameras are kept for an outage of the backhaul. Pure.

use std::time::Duration;

use super::link::Backhaul;
use crate::district::{clock::Mono, inventory::RecordPolicy};

/// A gateway that was just started has so long to reach headquarters before that is an outage.
const START: Duration = Duration::from_secs(10);

/// An outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What had arrived by then is kept.
    pub from: Mono,
    /// Until then; not known while the backhaul is down.
    pub until: Option<Mono>,
}

/// Follows the backhaul.
#[derive(Debug, Clone)]
pub struct Outage {
    window: Option<Window>,
    /// Down since the start, which may just be the start.
    starting: Option<Mono>,
}

impl Outage {
    /// A gateway that was started now and has not reached headquarters yet.
    pub fn new(now: Mono) -> Self {
        Self { window: None, starting: Some(now) }
    }

    /// Of a gateway that stands alone: it has no backhaul to lose.
    pub fn never() -> Self {
        Self { window: None, starting: None }
    }

    /// The backhaul is called something else from now on; something last came back at `worked`.
    pub fn backhaul(&mut self, now: Mono, state: Backhaul, worked: Option<Mono>) {
        // Reached in time after the start, or not: then that outage has begun by itself.
        self.starting = self.starting.filter(|started| worked.is_none_or(|worked| worked.since(*started) >= START));
        let _ = self.window(now);
        match (state, worked) {
            (Backhaul::Down, Some(worked)) => {
                let from = self.window.map_or(worked.before(RecordPolicy::AROUND), |w| w.from);
                self.window = Some(Window { from, until: None });
            }
            (Backhaul::Up, _) => {
                if let Some(window) = &mut self.window {
                    window.until.get_or_insert(now + RecordPolicy::AROUND);
                }
            }
            // Whatever was begun goes on; nothing begins.
            (Backhaul::Degraded, _) | (Backhaul::Down, None) => {}
        }
        if worked.is_some() {
            self.starting = None;
        }
    }

    /// What is kept now, if there is an outage.
    pub fn window(&mut self, now: Mono) -> Option<Window> {
        if let Some(started) = self.starting.filter(|started| now.since(*started) >= START) {
            self.starting = None;
            self.window.get_or_insert(Window { from: started.before(RecordPolicy::AROUND), until: None });
        }
        if self.window.and_then(|w| w.until).is_some_and(|until| now >= until) {
            self.window = None;
        }
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(1_000 + s))
    }

    #[test]
    fn an_outage_begins_before_the_backhaul_last_worked_and_ends_after_it_works_again() {
        let mut outage = Outage::new(at(0));
        outage.backhaul(at(1), Backhaul::Up, Some(at(1)));
        assert_eq!(outage.window(at(100)), None);
        outage.backhaul(at(110), Backhaul::Degraded, Some(at(100)));
        assert_eq!(outage.window(at(110)), None, "a short break is none");
        outage.backhaul(at(115), Backhaul::Down, Some(at(100)));
        assert_eq!(outage.window(at(115)), Some(Window { from: at(70), until: None }));
        outage.backhaul(at(700), Backhaul::Degraded, Some(at(700)));
        outage.backhaul(at(705), Backhaul::Up, Some(at(700)));
        assert_eq!(outage.window(at(734)), Some(Window { from: at(70), until: Some(at(735)) }));
        assert_eq!(outage.window(at(735)), None);
    }

    #[test]
    fn one_that_begins_again_before_the_last_is_over_is_the_same() {
        let mut outage = Outage::new(at(0));
        outage.backhaul(at(1), Backhaul::Up, Some(at(1)));
        outage.backhaul(at(115), Backhaul::Down, Some(at(100)));
        outage.backhaul(at(200), Backhaul::Up, Some(at(195)));
        outage.backhaul(at(220), Backhaul::Down, Some(at(210)));
        assert_eq!(outage.window(at(900)), Some(Window { from: at(70), until: None }));
    }

    #[test]
    fn a_gateway_that_is_started_without_a_backhaul_has_an_outage_and_one_that_connects_has_none() {
        let mut outage = Outage::new(at(0));
        outage.backhaul(at(0), Backhaul::Down, None);
        assert_eq!(outage.window(at(9)), None);
        assert_eq!(outage.window(at(10)), Some(Window { from: at(0).before(RecordPolicy::AROUND), until: None }));
        outage.backhaul(at(40), Backhaul::Up, Some(at(40)));
        assert_eq!(
            outage.window(at(69)),
            Some(Window { from: at(0).before(RecordPolicy::AROUND), until: Some(at(70)) })
        );
        assert_eq!(outage.window(at(70)), None);
        let mut outage = Outage::new(at(0));
        outage.backhaul(at(2), Backhaul::Up, Some(at(2)));
        assert_eq!(outage.window(at(60)), None);
        assert_eq!(Outage::never().window(at(60)), None);
    }

    #[test]
    fn a_late_first_connection_ends_the_outage_of_the_start_as_any_other_though_nobody_looked_meanwhile() {
        let mut outage = Outage::new(at(0));
        outage.backhaul(at(0), Backhaul::Down, None);
        outage.backhaul(at(300), Backhaul::Up, Some(at(300)));
        assert_eq!(
            outage.window(at(301)),
            Some(Window { from: at(0).before(RecordPolicy::AROUND), until: Some(at(330)) })
        );
    }
}
