//! A clock that was not synchronised when a button was pressed, and is later: the incident's times are corrected. Pure.

use std::time::Duration;

use super::{super::record::Record, Engine, Outputs};
use crate::district::{clock::Now, ids::IncidentId};

/// How often it is looked while an incident waits for it.
const LOOK: Duration = Duration::from_secs(1);

impl Engine {
    /// Corrects what was dated by a clock that is synchronised only now.
    pub(super) fn clock_timeout(&mut self, now: Now, out: &mut Outputs) {
        if self.clock_due.is_none_or(|due| due > now.mono) {
            return;
        }
        if !now.synchronised {
            self.clock_due = Some(now.mono + LOOK);
            return;
        }
        self.clock_due = None;
        let boot = self.settings.boot.clone();
        let found = self.cases.iter().filter_map(|(id, case)| Some((*id, case.clock_correction(&boot, now)?)));
        for (incident, correction) in found.collect::<Vec<_>>() {
            self.record(Record::ClockCorrected { incident, correction }, out);
            out.changed.insert(incident);
        }
    }

    /// An incident whose times may have to be corrected.
    pub(super) fn watch_clock(&mut self, incident: IncidentId, now: Now) {
        let pressed = self.cases.get(incident).map(|case| &case.document.pressed_at);
        if pressed
            .is_some_and(|p| !p.clock_synchronised && p.clock_correction.is_none() && p.boot == self.settings.boot)
        {
            self.clock_due.get_or_insert(now.mono);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        district::{
            clock::{Now, Utc},
            evidence::{Gap, GapReason},
            press::PressKind,
        },
        incident::{
            engine::{Engine, Outputs},
            fixtures::{at, engine_of, press},
        },
    };

    const DAY_US: i64 = 86_400_000_000;

    /// A moment by a clock that is `off_us` behind and not synchronised.
    fn unsure(ms: u64, off_us: i64) -> Now {
        let now = at(ms);
        Now { wall: now.wall.shifted(-off_us), synchronised: false, ..now }
    }

    fn pressed(engine: &mut Engine, id: &str, now: Now) -> Outputs {
        let mut out = Outputs::default();
        let mut press = press(1, Some(id), PressKind::Panic, 0);
        press.received = now;
        engine.press(press, &mut out);
        out
    }

    /// Does all that is due until then.
    fn until(engine: &mut Engine, now: Now, out: &mut Outputs) {
        while engine.next_timeout().is_some_and(|due| due <= now.mono) {
            engine.timeout(now, out);
        }
    }

    #[test]
    fn what_was_dated_before_the_clock_was_synchronised_is_corrected_once_and_says_so() {
        for off_us in [20_000 * DAY_US, 90_000_000, -90_000_000, -400 * DAY_US, 0] {
            let mut engine = engine_of("boot-1", false, 1, 1);
            let mut records = pressed(&mut engine, "p1", unsure(0, off_us)).records;
            let id = engine.incidents().next().unwrap();
            records.extend(pressed(&mut engine, "p2", unsure(20_000, off_us)).records);
            let mut out = Outputs::default();
            let camera = "c1".parse().unwrap();
            let lost = |at: Now, off: i64| Gap {
                from: at.wall.shifted(-off),
                to: at.wall.shifted(1_000_000 - off),
                reason: GapReason::CameraDown,
            };
            engine.evidence_gap(id, &camera, lost(at(5_000), off_us), &mut out);
            until(&mut engine, unsure(25_000, off_us), &mut out);
            let before = engine.document(id).unwrap();
            assert!(before.pressed_at.clock_correction.is_none());
            assert_eq!(before.pressed_at.at, at(0).wall.shifted(-off_us));

            until(&mut engine, at(30_000), &mut out);
            assert!(out.changed.contains(&id));
            // What was recorded by the old clock is told of still, and what is dated by the new one too.
            engine.evidence_gap(id, &camera, lost(at(8_000), off_us), &mut out);
            engine.evidence_gap(id, &camera, lost(at(31_000), 0), &mut out);
            let document = engine.document(id).unwrap();
            assert!(document.revision > before.revision);
            let pressed = &document.pressed_at;
            assert_eq!((pressed.at, pressed.clock_synchronised), (at(0).wall, false));
            let correction = pressed.clock_correction.unwrap();
            assert_eq!((correction.by_us, correction.at), (off_us, at(30_000).wall));
            assert_eq!(document.presses[1].at, at(20_000).wall);
            assert_eq!(document.call.as_ref().unwrap().since, at(0).wall);
            assert_eq!(document.timeline[0].at, at(0).wall);
            assert!(document.timeline.last().unwrap().what.contains("clock synchronised"));
            let evidence = document.evidence.iter().find(|e| e.camera == camera).unwrap();
            assert_eq!((evidence.from, evidence.to), (at(0).wall.shifted(-30_000_000), at(80_000).wall));
            let gaps: Vec<Utc> = evidence.gaps.iter().map(|g| g.from).collect();
            if off_us.abs() > 100_000_000 || off_us == 0 {
                assert_eq!(gaps, [at(5_000).wall, at(8_000).wall, at(31_000).wall], "{off_us}");
            }

            // Once; and a replay makes the same.
            let corrected = document.revision;
            until(&mut engine, at(50_000), &mut out);
            let again = engine.document(id).unwrap();
            assert_eq!(again.pressed_at, document.pressed_at);
            assert!(again.revision <= corrected + 1, "only the gaps are told of");
            records.extend(out.records);
            for records in [records, engine.snapshot()] {
                let mut replayed = engine_of("boot-1", false, 1, 1);
                records.into_iter().for_each(|record| replayed.replay(record));
                let mut wanted = engine.document(id).unwrap();
                wanted.evidence.iter_mut().for_each(|e| e.objects.clear());
                assert_eq!(replayed.document(id).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn after_a_restart_in_the_same_boot_it_is_corrected_and_after_a_reboot_it_stays_unsure() {
        for (boot, corrected) in [("boot-1", true), ("boot-2", false)] {
            let mut engine = engine_of("boot-1", false, 1, 0);
            let records = pressed(&mut engine, "p1", unsure(0, DAY_US)).records;
            let id = engine.incidents().next().unwrap();
            let mut engine = engine_of(boot, false, 1, 0);
            records.into_iter().for_each(|record| engine.replay(record));
            let mut out = Outputs::default();
            engine.resume(unsure(10_000, DAY_US), &mut out);
            until(&mut engine, at(12_000), &mut out);
            let pressed = engine.document(id).unwrap().pressed_at;
            assert_eq!(pressed.clock_correction.is_some(), corrected, "{boot}");
            assert_eq!(pressed.at == at(0).wall, corrected, "{boot}");
        }
    }
}
