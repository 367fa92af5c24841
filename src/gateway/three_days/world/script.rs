//! What happens when in a run, as its seed decides.

use std::time::Duration;

use super::{Crash, DAYS, World, secs};
use crate::district::press::PressKind;

/// Around what happens cameras send, and so long the least step in quiet times.
const AROUND: (Duration, Duration) = (Duration::from_secs(70), Duration::from_secs(90));

/// What may happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// The line to headquarters comes or goes.
    Line(bool),
    Press(u8, PressKind),
    Crash(Crash),
    /// The power goes at so many operations of the media disk from now.
    Cut(u64),
    /// The clock on the wall is set: right, or so many microseconds off.
    Clock(i64),
    Camera(usize, bool),
    /// Of a hundred operations the disk of media, or the journal's, refuses so many.
    MediaDisk(u8),
    JournalDisk(u8),
}

impl World {
    pub(super) fn at(&mut self, at: Duration, what: Happening) {
        self.script.insert((at, self.script.len()), what);
    }

    /// What happens when; a moment that something may be near to.
    pub(super) fn plan(&mut self) {
        let end = DAYS.as_secs() - 3_600;
        let moment = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(600_000..end * 1_000));
        let mut moments = Vec::new();
        // Outages: flaps, short ones, and one that fills the disk.
        let lasts = [(1, 12), (3, 25), (40, 90), (60, 180), (450, 650)];
        for (least, most) in lasts {
            let (from, lasts) =
                (moment(&mut self.rng), Duration::from_millis(self.rng.u64(least * 1_000..most * 1_000)));
            if self.outages.iter().any(|o| from < o.end + secs(300) && o.start < from + lasts + secs(300)) {
                continue;
            }
            self.outages.push(from..from + lasts);
            self.at(from, Happening::Line(false));
            self.at(from + lasts, Happening::Line(true));
            self.around.push(from.saturating_sub(AROUND.0)..from + lasts + AROUND.1);
            moments.extend([from + lasts / 2, from, from + lasts]);
        }
        for n in 0..12 {
            let near = moments[self.rng.usize(..moments.len())];
            let at = if n % 3 == 0 { near + secs(self.rng.u64(0..90)) } else { moment(&mut self.rng) };
            self.plan_press(at);
            moments.push(at);
        }
        for n in 0..6 {
            let near = moments[self.rng.usize(..moments.len())] + Duration::from_millis(self.rng.u64(0..60_000));
            let at = if n % 2 == 0 { near } else { moment(&mut self.rng) };
            let crash = match self.rng.u8(0..6) {
                0 => Happening::Crash(Crash::Stop),
                1 | 2 => Happening::Crash(Crash::Kill),
                3 => Happening::Crash(Crash::Power { right: true }),
                4 => Happening::Crash(Crash::Power { right: false }),
                _ => Happening::Cut(self.rng.u64(1..60)),
            };
            self.at(at, crash);
            self.around.push(at.saturating_sub(AROUND.0)..at + AROUND.1);
        }
        // The clock on the wall is set by years, and back.
        let at = moments[self.rng.usize(..moments.len())] + secs(self.rng.u64(0..60));
        let years = self.rng.i64(-4..4) * 365 * 86_400_000_000;
        self.at(at, Happening::Clock(years));
        let back = at + secs(self.rng.u64(20..400));
        self.at(back, Happening::Clock(0));
        // Cameras die and come back; the one that is always recorded is switched on for a while each day.
        for _ in 0..6 {
            let at = moments[self.rng.usize(..moments.len())] + secs(self.rng.u64(0..60));
            let camera = self.rng.usize(0..2);
            self.at(at, Happening::Camera(camera, false));
            let back = at + Duration::from_millis(self.rng.u64(300..90_000));
            self.at(back, Happening::Camera(camera, true));
        }
        for day in 0..3 {
            let at = secs(day * 86_400 + self.rng.u64(600..80_000));
            let until = at + secs(self.rng.u64(100..250));
            self.at(at, Happening::Camera(2, true));
            self.at(until, Happening::Camera(2, false));
            self.around.push(at..until + secs(60));
        }
        for n in 0..4 {
            let at = moments[self.rng.usize(..moments.len())] + secs(self.rng.u64(0..60));
            let (percent, until) = (self.rng.u8(3..40), at + secs(self.rng.u64(5..40)));
            let (begins, ends) = match n {
                0 | 1 => (Happening::MediaDisk(percent), Happening::MediaDisk(0)),
                2 => (Happening::JournalDisk(percent), Happening::JournalDisk(0)),
                _ => (Happening::JournalDisk(100), Happening::JournalDisk(0)),
            };
            self.at(at, begins);
            self.at(until, ends);
        }
        self.at(DAYS - secs(1_800), Happening::Line(true));
    }

    fn plan_press(&mut self, at: Duration) {
        let kinds = [PressKind::Panic, PressKind::Medical, PressKind::Fire, PressKind::Test];
        let (button, kind) = (self.rng.u8(1..3), kinds[self.rng.usize(..4)]);
        let mut last = at;
        for _ in 0..[1, 1, 1, 2, 4][self.rng.usize(..5)] {
            self.at(last, Happening::Press(button, kind));
            last += Duration::from_millis(self.rng.u64(50..40_000));
        }
        self.around.push(at.saturating_sub(AROUND.0)..last + AROUND.1);
    }
}
