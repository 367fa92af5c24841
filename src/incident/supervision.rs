//! Whether each button can be counted on: online, offline, silent, low battery, tampered with. Pure.

use std::{collections::HashMap, time::Duration};

use crate::district::{
    button::{ButtonCondition, ButtonStatus, Presence},
    clock::{Mono, Now},
    ids::ButtonId,
    inventory::Inventory,
};

/// A battery counts as low at or below the level, and as good again this much above it.
const BATTERY_HYSTERESIS: f64 = 0.05;

/// All buttons' conditions.
#[derive(Debug)]
pub struct Supervision {
    buttons: HashMap<ButtonId, Watched>,
    low_battery: f64,
    /// No button falls silent before this.
    next: Option<Mono>,
}

#[derive(Debug)]
struct Watched {
    condition: ButtonCondition,
    heard: Mono,
    silent_after: Duration,
}

/// A sign of life, or its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Sign {
    /// It connected.
    Connected,
    /// It said or asked anything.
    Heard,
    /// It reported its status.
    Status(ButtonStatus),
    /// Its connection ended; with its will, when that is due.
    Gone(Option<ButtonStatus>),
}

impl Supervision {
    /// Every button of the inventory, unknown until heard of, silent if not heard of in time.
    pub fn new(inventory: &Inventory, low_battery: f64, now: Now) -> Self {
        let watch = |b: &std::sync::Arc<crate::district::inventory::Button>| {
            let condition = ButtonCondition {
                button: b.id.clone(),
                revision: 0,
                presence: Presence::Unknown,
                low_battery: false,
                tamper: false,
                heard_at: None,
                since: now.wall,
                status: None,
            };
            (b.id.clone(), Watched { condition, heard: now.mono, silent_after: b.silent_after })
        };
        let buttons: HashMap<_, _> = inventory.buttons().iter().map(watch).collect();
        let next = buttons.values().map(|w| w.heard + w.silent_after).min();
        Self { buttons, low_battery, next }
    }

    /// The condition of every button, in no order.
    pub fn conditions(&self) -> impl Iterator<Item = &ButtonCondition> {
        self.buttons.values().map(|w| &w.condition)
    }

    /// The condition of one button.
    pub fn condition(&self, button: &ButtonId) -> Option<&ButtonCondition> {
        self.buttons.get(button).map(|w| &w.condition)
    }

    /// Takes a condition from the journal. What is not true any more after a restart (presence) starts anew, and with a
    /// new revision, since headquarters has the old one with that number.
    pub fn replay(&mut self, condition: ButtonCondition) {
        if let Some(w) = self.buttons.get_mut(&condition.button) {
            w.condition =
                ButtonCondition { presence: Presence::Unknown, revision: condition.revision + 1, ..condition };
        }
    }

    /// Takes a sign; returns the new condition when it changed in a way that headquarters must hear of.
    pub fn sign(&mut self, button: &ButtonId, sign: Sign, now: Now) -> Option<ButtonCondition> {
        let low_at = self.low_battery;
        let w = self.buttons.get_mut(button)?;
        let mut c = w.condition.clone();
        let alive = match sign {
            Sign::Connected | Sign::Heard => Presence::Online,
            Sign::Status(status) => {
                let presence = if status.online { Presence::Online } else { Presence::Offline };
                take_status(&mut c, status, low_at);
                presence
            }
            Sign::Gone(will) => {
                if let Some(will) = will {
                    take_status(&mut c, will, low_at);
                }
                Presence::Offline
            }
        };
        c.presence = match (alive, c.presence) {
            // Going is no sign of life: a silent button stays silent until it is heard of.
            (Presence::Offline, Presence::Silent) => Presence::Silent,
            (alive, _) => alive,
        };
        if alive == Presence::Online {
            w.heard = now.mono;
            c.heard_at = Some(now.wall);
            // One that was silent is watched again; for the others this is no earlier than what is due anyway.
            let due = now.mono + w.silent_after;
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
        }
        w.settle(c, now)
    }

    /// When [`Supervision::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        self.next
    }

    /// Finds the buttons that have fallen silent.
    pub fn timeout(&mut self, now: Now) -> Vec<ButtonCondition> {
        if self.next.is_none_or(|next| now.mono < next) {
            return Vec::new();
        }
        let mut changed = Vec::new();
        for w in self.buttons.values_mut() {
            if w.condition.presence != Presence::Silent && w.heard + w.silent_after <= now.mono {
                let c = ButtonCondition { presence: Presence::Silent, ..w.condition.clone() };
                changed.extend(w.settle(c, now));
            }
        }
        let waiting = self.buttons.values().filter(|w| w.condition.presence != Presence::Silent);
        // A button that is silent sets the timer again when it is heard of.
        self.next = waiting.map(|w| w.heard + w.silent_after).min();
        changed
    }
}

impl Watched {
    /// Keeps `c`; returns it with a new revision when it differs in more than what a heartbeat moves.
    fn settle(&mut self, mut c: ButtonCondition, now: Now) -> Option<ButtonCondition> {
        let old = &self.condition;
        let same = (old.presence, old.low_battery, old.tamper) == (c.presence, c.low_battery, c.tamper);
        if !same {
            c.revision += 1;
            c.since = now.wall;
        }
        self.condition = c;
        (!same).then(|| self.condition.clone())
    }
}

fn take_status(c: &mut ButtonCondition, status: ButtonStatus, low_at: f64) {
    if let Some(battery) = status.battery {
        c.low_battery = battery <= low_at || (c.low_battery && battery < low_at + BATTERY_HYSTERESIS);
    }
    if let Some(tamper) = status.tamper {
        c.tamper = tamper;
    }
    // A will carries no readings: what was last known stays.
    let known = c.status.take().unwrap_or_default();
    c.status = Some(ButtonStatus {
        online: status.online,
        battery: status.battery.or(known.battery),
        rssi: status.rssi.or(known.rssi),
        firmware: status.firmware.or(known.firmware),
        tamper: status.tamper.or(known.tamper),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{district::clock::Utc, incident::fixtures};

    fn at(s: u64) -> Now {
        Now {
            mono: Mono::from_boot(Duration::from_secs(s)),
            wall: Utc::from_micros(s as i64 * 1_000_000),
            synchronised: true,
        }
    }

    fn id() -> ButtonId {
        "b1".parse().unwrap()
    }

    fn watch() -> Supervision {
        Supervision::new(&fixtures::inventory(1, 0), 0.2, at(0))
    }

    #[test]
    fn a_button_that_says_nothing_falls_silent_once_and_comes_back() {
        let mut s = watch();
        assert_eq!(s.sign(&id(), Sign::Connected, at(10)).unwrap().presence, Presence::Online);
        assert_eq!(s.sign(&id(), Sign::Heard, at(80)), None);
        assert!(s.timeout(at(100)).is_empty());
        assert!(s.next_timeout().unwrap() <= at(170).mono);
        assert_eq!(s.timeout(at(171))[0].presence, Presence::Silent);
        assert!(s.timeout(at(400)).is_empty());
        assert_eq!(s.sign(&id(), Sign::Gone(None), at(401)), None, "going is no sign of life");
        assert_eq!(s.sign(&id(), Sign::Heard, at(500)).unwrap().presence, Presence::Online);
        s.timeout(at(589));
        assert_eq!(s.timeout(at(591))[0].presence, Presence::Silent, "supervised again after it came back");
    }

    #[test]
    fn a_button_that_came_back_is_watched_although_the_others_have_hours() {
        let mut s = Supervision::new(&fixtures::inventory(2, 0), 0.2, at(0));
        s.buttons.get_mut(&"b2".parse().unwrap()).unwrap().silent_after = Duration::from_secs(7_200);
        assert_eq!(s.timeout(at(91)).len(), 1);
        assert_eq!(s.sign(&id(), Sign::Heard, at(100)).unwrap().presence, Presence::Online);
        assert!(s.next_timeout().unwrap() <= at(190).mono);
        assert_eq!(s.timeout(at(190))[0].presence, Presence::Silent);
    }

    #[test]
    fn a_battery_hovering_at_the_level_raises_one_alarm() {
        let mut s = watch();
        let mut says = |b: f64, t| {
            let status = ButtonStatus { online: true, battery: Some(b), ..Default::default() };
            s.sign(&id(), Sign::Status(status), at(t)).map(|c| c.low_battery)
        };
        assert_eq!(says(0.9, 1), Some(false));
        assert_eq!(says(0.2, 2), Some(true));
        assert_eq!(says(0.21, 3), None);
        assert_eq!(says(0.19, 4), None);
        assert_eq!(says(0.26, 5), Some(false));
    }

    #[test]
    fn a_will_says_offline_and_keeps_what_was_known() {
        let mut s = watch();
        let full = ButtonStatus { online: true, battery: Some(0.5), tamper: Some(true), ..Default::default() };
        s.sign(&id(), Sign::Status(full), at(1));
        let will = ButtonStatus { online: false, ..Default::default() };
        let c = s.sign(&id(), Sign::Gone(Some(will)), at(2)).unwrap();
        assert_eq!((c.presence, c.tamper, c.status.unwrap().battery), (Presence::Offline, true, Some(0.5)));
    }
}
