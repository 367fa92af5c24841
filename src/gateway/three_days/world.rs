//! The city around the gateway: what happens when, the clocks, and the machine that is started again and again.

mod script;

use std::{collections::BTreeMap, ops::Range, time::Duration};

use tokio::sync::oneshot;

use self::script::Happening;
use super::{
    cameras::{Camera, Dated},
    checks,
    headquarters::{Broker, Headquarters},
    machine::{Machine, QUOTA, RING},
};
use crate::{
    district::{
        clock::{Mono, Utc},
        ids::{ButtonId, IncidentId, PressId},
        press::{Press, PressKind, Progress},
    },
    host::clock::{self, simulated},
    intake::{self, Accepted},
    spool::sim::SimDisk,
    uplink::events::Event,
};

/// How long a run lasts.
const DAYS: Duration = Duration::from_secs(72 * 3_600);
/// When it begins, by a clock that is right.
const BEGIN: i64 = 1_796_083_200_000_000;
/// The longest step.
const QUIET: Duration = Duration::from_secs(1_800);
/// A button that has no PUBACK sends again after this.
const RESEND: Duration = Duration::from_secs(30);

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// How a run of the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// It is stopped in order.
    Stop,
    /// The process is killed.
    Kill,
    /// The power goes, and the machine boots again; whether its clock is right then.
    Power { right: bool },
}

/// A press, and what its button knows.
pub struct Pressed {
    pub id: PressId,
    button: ButtonId,
    kind: PressKind,
    /// When it was last sent.
    pub sent: Duration,
    pub sendings: u32,
    answer: Option<oneshot::Receiver<bool>>,
    pub acknowledged: bool,
}

/// A run.
pub struct World {
    seed: u64,
    rng: fastrand::Rng,
    pub now: Duration,
    script: BTreeMap<(Duration, usize), Happening>,
    /// When cameras send.
    around: Vec<Range<Duration>>,
    pub cameras: Vec<Camera>,
    pub hq: Headquarters,
    pub presses: Vec<Pressed>,
    /// Incidents that headquarters closes then.
    closing: BTreeMap<IncidentId, Duration>,
    /// When the line was down.
    pub outages: Vec<Range<Duration>>,
    dir: tempfile::TempDir,
    disks: (SimDisk, SimDisk),
    booted: Duration,
    /// How far the clock on the wall is off, in microseconds.
    off: i64,
    boots: u32,
    runs: u32,
    /// When the gateway did not run.
    pub down: Vec<Range<Duration>>,
    /// When the clock on the wall was set, and boots: across them dates do not compare.
    pub set: Vec<Duration>,
    journal_faults: bool,
    /// Objects that still waited when nothing had happened for a long time: those that are refused for good.
    left: u64,
    before: Duration,
    busy_since: Duration,
    pub written: u64,
    /// Bytes of evidence that were written again to make room.
    pub carried: u64,
    pub steps: std::cell::Cell<u64>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let disk = |n| SimDisk::new(seed * 2 + n);
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::create_dir(dir.path().join("media")).unwrap();
        let mut world = Self {
            seed,
            rng,
            now: Duration::ZERO,
            script: BTreeMap::new(),
            around: Vec::new(),
            cameras: vec![Camera::new(1, false, 8), Camera::new(2, false, 6), Camera::new(3, true, 8)],
            hq: Headquarters::new(seed),
            presses: Vec::new(),
            closing: BTreeMap::new(),
            outages: Vec::new(),
            dir,
            disks: (disk(0), disk(1)),
            booted: Duration::ZERO,
            off: 0,
            boots: 0,
            runs: 0,
            down: Vec::new(),
            set: Vec::new(),
            journal_faults: false,
            left: 0,
            before: Duration::ZERO,
            busy_since: Duration::ZERO,
            written: 0,
            carried: 0,
            steps: std::cell::Cell::new(0),
        };
        world.plan();
        world
    }

    fn mono(&self, at: Duration) -> Mono {
        Mono::from_boot(secs(if self.boots == 0 { 1_000 } else { 20 }) + at.saturating_sub(self.booted))
    }

    fn wall(&self, at: Duration) -> Utc {
        Utc::from_micros(BEGIN + i64::try_from(at.as_micros()).unwrap() + self.off)
    }

    fn set_clocks(&self, boot: &'static str) {
        let (mono, wall) = (self.mono(self.now), self.wall(self.now));
        simulated::set(Some(simulated::Clocks { mono, wall, synchronised: self.off == 0, boot }));
    }

    fn is_around(&self, at: Duration) -> bool {
        self.around.iter().any(|around| around.contains(&at))
    }

    /// Runs it to its end, and checks what headquarters has.
    pub fn run(mut self) -> String {
        let mut boot = self.boot();
        loop {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            let from = self.now;
            let ended = runtime.block_on(self.work(boot));
            drop(runtime);
            let Some(crash) = ended else { break };
            (self.disks.0, self.disks.1) = match crash {
                Crash::Stop | Crash::Kill => (self.disks.0.after_kill(), self.disks.1.after_kill()),
                Crash::Power { .. } => (self.disks.0.after_power_cut(), self.disks.1.after_power_cut()),
            };
            self.journal_faults = false;
            // An index is there, or gone.
            if self.rng.u8(0..4) == 0 {
                let _ = std::fs::remove_dir_all(self.dir.path().join("media/index"));
            }
            let was = self.now;
            self.now += Duration::from_millis(self.rng.u64(2_000..40_000));
            self.send(None);
            self.down.push(was..self.now);
            if let Crash::Power { right } = crash {
                self.boots += 1;
                self.booted = self.now;
                self.set.push(self.now);
                if !right {
                    self.off = -self.rng.i64(2..5) * 365 * 86_400_000_000;
                    let at = self.now + secs(self.rng.u64(5..200));
                    self.at(at, Happening::Clock(0));
                }
                boot = self.boot();
            }
            self.runs += 1;
            assert!(self.now > from, "it gets nowhere");
        }
        simulated::set(None);
        checks::seen(&self)
    }

    fn boot(&self) -> &'static str {
        Box::leak(format!("{:08x}-boot-{}", self.seed, self.boots).into_boxed_str())
    }

    /// One run of the gateway. `None` when the three days are over.
    async fn work(&mut self, boot: &'static str) -> Option<Crash> {
        self.set_clocks(boot);
        let cut = Some(Crash::Power { right: true });
        let (hq, dir) = (self.hq.clone(), self.dir.path().to_owned());
        let Some(mut machine) = Machine::start((&self.disks.0, &self.disks.1), &dir, &hq).await else {
            assert!(self.disks.1.is_cut(), "it does not start");
            return cut;
        };
        let mut broker = Broker::new(self.rng.u64(..), self.mono(self.now), machine.hq_events.clone());
        machine.pump(true).await;
        loop {
            let (to, what) = self.next(&machine);
            let span = to - self.now;
            self.now = to;
            self.send(Some(&machine));
            self.set_clocks(boot);
            tokio::time::advance(span).await;
            broker.step(clock::now(), &self.hq, &machine.events);
            self.press_buttons(&machine);
            self.close_incidents(&machine);
            machine.pump(!self.journal_faults).await;
            self.check_bounds(&machine);

            if self.disks.1.is_cut() || self.disks.0.is_cut() {
                return self.ends(machine, Crash::Power { right: true }).await;
            }
            if let Some(what) = what {
                tracing::info!(at = self.now.as_secs_f64(), ?what, "happens");
            }
            match what {
                Some(Happening::Crash(crash)) => return self.ends(machine, crash).await,
                Some(what) => self.happens(what, boot),
                None => {}
            }
            if self.now >= DAYS {
                self.drain(&mut machine, &mut broker, boot).await;
                checks::all(self, &machine).await;
                self.count(&machine);
                machine.stop().await;
                return None;
            }
        }
    }

    fn count(&mut self, machine: &Machine) {
        self.written += machine.stepped.written();
        self.carried += machine.stepped.carried();
    }

    async fn ends(&mut self, machine: Machine, crash: Crash) -> Option<Crash> {
        self.count(&machine);
        if crash == Crash::Stop {
            // A disk that refuses for good would only be waited for.
            self.disks.0.fail(0);
            machine.stop().await;
        } else {
            self.disks.0.cut();
            self.disks.1.cut();
        }
        Some(crash)
    }

    /// The next moment, and what happens then.
    fn next(&mut self, machine: &Machine) -> (Duration, Option<Happening>) {
        let ms = [300, 700, 1_500, 2_000, 3_000][self.rng.usize(..5)];
        let waits = machine.media.stats().undelivered;
        if self.is_around(self.now) || self.presses.iter().any(|p| !p.acknowledged) {
            self.busy_since = self.now;
        } else if self.hq.held().up && self.now > self.busy_since + secs(900) {
            self.left = waits;
        }
        self.left = self.left.min(waits);
        let busy = self.busy_since == self.now || waits > self.left;
        let mut to = self.now + if busy { Duration::from_millis(ms) } else { QUIET };
        if !busy {
            let begins = self.around.iter().map(|a| a.start).filter(|start| *start > self.now).min();
            let closes = self.closing.values().copied().filter(|at| *at > self.now).min();
            to = [begins, closes, Some(to)].into_iter().flatten().min().unwrap_or(to);
        }
        let to = to.min(DAYS);
        match self.script.first_key_value() {
            Some((&(at, _), _)) if at <= to => {
                let what = self.script.pop_first().map(|(_, what)| what);
                (at.max(self.now), what)
            }
            _ => (to, None),
        }
    }

    fn send(&mut self, machine: Option<&Machine>) {
        let now = self.now;
        let mut cameras = std::mem::take(&mut self.cameras);
        // A step never leads past the beginning of a time in which cameras send.
        let quiet = !self.is_around(now) && !self.is_around(self.before);
        self.before = now;
        for (n, camera) in cameras.iter_mut().enumerate() {
            if quiet && !(camera.always && camera.alive) {
                camera.pass(now);
                continue;
            }
            let ring = machine.map(|m| &m.rings[n]);
            let dated = |at| Dated { mono: self.mono(at), wall: self.wall(at) };
            camera.send(ring, now, |at| self.is_around(at), dated);
        }
        self.cameras = cameras;
    }

    fn happens(&mut self, what: Happening, boot: &'static str) {
        match what {
            Happening::Line(up) => self.hq.held().up = up,
            Happening::Press(button, kind) => {
                let id: PressId = format!("p{}", self.presses.len()).parse().unwrap();
                let button = format!("b{button}").parse().unwrap();
                self.presses.push(Pressed {
                    id,
                    button,
                    kind,
                    sent: Duration::ZERO,
                    sendings: 0,
                    answer: None,
                    acknowledged: false,
                });
            }
            Happening::Crash(_) => unreachable!("it ends the run"),
            Happening::Cut(operations) => self.disks.1.cut_after(operations),
            Happening::Clock(off) => {
                self.off = off;
                self.set.push(self.now);
                self.cameras.iter_mut().for_each(Camera::interrupted);
                self.set_clocks(boot);
            }
            Happening::Camera(n, alive) => self.cameras[n].alive = alive,
            Happening::MediaDisk(percent) => self.disks.1.fail(percent),
            Happening::JournalDisk(percent) => {
                self.disks.0.fail(percent);
                // How often its thread tried while it was refused is no matter of simulated time.
                self.disks.0.reseed(self.seed ^ self.now.as_secs());
                self.journal_faults = percent == 100;
            }
        }
    }

    /// Buttons send, hear PUBACK, and send again without one.
    fn press_buttons(&mut self, machine: &Machine) {
        for pressed in self.presses.iter_mut().filter(|p| !p.acknowledged) {
            if let Some(answer) = &mut pressed.answer {
                match answer.try_recv() {
                    Ok(true) => pressed.acknowledged = true,
                    Ok(false) | Err(oneshot::error::TryRecvError::Closed) => pressed.answer = None,
                    Err(oneshot::error::TryRecvError::Empty) if self.now < pressed.sent + RESEND => {}
                    Err(oneshot::error::TryRecvError::Empty) => pressed.answer = None,
                }
                continue;
            }
            let (accepted, answer) = Accepted::pair();
            let press = Press {
                button: pressed.button.clone(),
                press: Some(pressed.id.clone()),
                claimed_at: None,
                kind: pressed.kind,
                payload_hash: [7; 16],
                received: clock::now(),
            };
            machine.buttons.try_send(intake::Event::Press { press, accepted }).expect("the desk reads");
            (pressed.sent, pressed.answer) = (self.now, Some(answer));
            pressed.sendings += 1;
        }
    }

    /// Headquarters closes incidents after a while.
    fn close_incidents(&mut self, machine: &Machine) {
        let held = self.hq.held();
        if !held.up {
            return;
        }
        for (id, document) in &held.incidents {
            if document.state == Progress::Closed {
                self.closing.remove(id);
            } else if let Some(at) = self.closing.get_mut(id) {
                if *at <= self.now {
                    *at = self.now + secs(60);
                    let command = serde_json::json!({ "command": "close", "incident": id, "by": "headquarters" });
                    let payload = serde_json::to_vec(&command).unwrap().into();
                    let event = Event::Command { payload, retained: false, now: clock::now() };
                    machine.hq_events.try_send(event).expect("the desk reads");
                }
            } else {
                self.closing
                    .insert(*id, self.now + secs(100 + id.to_string().bytes().map(u64::from).sum::<u64>() % 400));
            }
        }
    }

    /// What may never be, at no moment.
    fn check_bounds(&self, machine: &Machine) {
        let stats = machine.media.stats();
        // What is carried over is there twice for a moment.
        assert!(stats.used_bytes <= QUOTA + (3 << 19), "{} bytes of media", stats.used_bytes);
        self.steps.set(self.steps.get() + 1);
        assert!(stats.queued_bytes <= 4 << 20, "{} bytes wait for the disk", stats.queued_bytes);
        for ring in &machine.rings {
            assert!(ring.held().bytes <= RING, "{:?}", ring.held());
        }
    }

    /// The line is up and nothing happens any more: everything goes to headquarters.
    async fn drain(&mut self, machine: &mut Machine, broker: &mut Broker, boot: &'static str) {
        self.disks.0.fail(0);
        self.disks.1.fail(0);
        self.disks.1.cut_after(u64::MAX / 2);
        self.journal_faults = false;
        self.cameras[2].alive = true;
        let until = self.now + secs(900);
        while self.now < until {
            let span = secs(3);
            self.cameras[2].alive &= self.now + secs(840) < until;
            self.now += span;
            self.send(Some(machine));
            self.set_clocks(boot);
            tokio::time::advance(span).await;
            broker.step(clock::now(), &self.hq, &machine.events);
            self.press_buttons(machine);
            self.close_incidents(machine);
            machine.pump(true).await;
        }
    }
}
