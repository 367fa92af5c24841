//! What is kept of cameras beside evidence: everything around an outage of the backhaul, or everything always. One task a
//! camera, from its ring into the media log; headquarters gets it when nothing more urgent waits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    coverage::{Asked, Coverage, Origin},
    feeds::Feeds,
    filing::{Caught, Filing, Told},
    forwarder::Bell,
    recorder::{next, wall_of},
    shelf::Whose,
    watched::{Watch, Watched},
};
use crate::{
    district::{
        clock::{Mono, Utc},
        evidence::{Gap, GapReason},
        ids::CameraId,
        inventory::{Inventory, RecordPolicy, Stream},
    },
    host::{clock, scope::Scope},
    media::{
        fragment::Position,
        ring::{Reader, Ring, Start},
    },
    spool::{Buffer, Kept, MediaStore, Missing, ObjectMeta},
    uplink::{
        link::Backhaul,
        outage::{Outage, Window},
    },
};

/// How often it is looked whether an outage has begun or ended by itself.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is looked whether the disk has room again.
const WAIT: Duration = Duration::from_millis(50);

/// A recording that an earlier run was making is taken up within this, or not at all.
const TAKEN_UP: Duration = Duration::from_secs(60);

/// Frames of the window may still be on their way when it ends.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// Tells the cameras' tasks of outages.
pub struct Keepers {
    outage: watch::Sender<Outage>,
}

/// What a camera's task works with.
struct Keeper {
    camera: CameraId,
    ring: Arc<Ring>,
    always: bool,
    outage: watch::Receiver<Outage>,
    feeds: Feeds,
    store: MediaStore,
    bell: Bell,
    watched: Watched,
    scope: Scope,
    /// When this run began.
    begun: Mono,
}

/// A recording whose window has ended, and when that was.
struct Left {
    filing: Filing,
    reader: Reader,
    until: Mono,
}

impl Keepers {
    /// Starts a task for each camera of which more than evidence is kept. A gateway that stands `alone` has no outages.
    pub fn start(
        inventory: &Inventory,
        feeds: &Feeds,
        (store, bell): (&MediaStore, &Bell),
        watched: &Watched,
        alone: bool,
        scope: &Scope,
    ) -> Self {
        let begun = clock::mono();
        let (outage, followed) = watch::channel(if alone { Outage::never() } else { Outage::new(begun) });
        for Stream { id, record, .. } in inventory.streams().filter(|s| s.record != RecordPolicy::Incident) {
            let Some(ring) = feeds.ring(&id) else { continue };
            let keeper = Keeper {
                ring: ring.clone(),
                camera: id,
                always: record == RecordPolicy::Always,
                outage: followed.clone(),
                feeds: feeds.clone(),
                store: store.clone(),
                bell: bell.clone(),
                watched: watched.clone(),
                scope: scope.clone(),
                begun,
            };
            scope.spawn("keeper", keeper.run());
        }
        Self { outage }
    }

    /// The backhaul is called something else from now on; something last came back at `worked`.
    pub fn backhaul(&self, now: Mono, state: Backhaul, worked: Option<Mono>) {
        self.outage.send_modify(|outage| outage.backhaul(now, state, worked));
    }
}

impl Keeper {
    async fn run(self) {
        let stopping = self.scope.stopping();
        tokio::pin!(stopping);
        let (mut last, mut left) = (self.last().await, None);
        loop {
            let window = tokio::select! {
                window = self.wanted() => window,
                () = &mut stopping => return,
            };
            info!(camera = %self.camera, always = self.always, "recording beside evidence");
            let (mut filing, mut reader) = self.take_up(window, self.taken_up(last.take()), left.take());
            let watch = self.watched.begin(&self.camera);
            tokio::select! {
                until = self.keep(&mut filing, &mut reader, &watch) => {
                    filing.pause().await;
                    let gaps = filing.coverage.ended(until, wall_of(until), wall_of(until));
                    filing.gaps(gaps);
                    self.report(&mut filing, &watch).await;
                    info!(camera = %self.camera, "the outage's recording ended");
                    left = Some(Left { filing, reader, until });
                }
                () = &mut stopping => {
                    filing.finish().await;
                    return self.report(&mut filing, &watch).await;
                }
            }
        }
    }

    /// A recording of this window. Where it reaches back into the last one, that goes on with the very next frame: two
    /// recordings of the same moment would have one name for what they begin at, and different bytes.
    fn take_up(&self, window: Window, last: Option<Utc>, left: Option<Left>) -> (Filing, Reader) {
        let reader = self.ring.reader(Start::Arrived(window.from));
        if let Some(Left { mut filing, reader: before, until }) = left.filter(|left| reader.goes_back_to(&left.reader))
        {
            let from = window.from.max(until);
            let asked = Asked { origin: Origin::Extended(from), ..self.asked(Window { from, ..window }, None) };
            filing.resume(Coverage::new(asked));
            return (filing, before);
        }
        let coverage = Coverage::new(self.asked(window, last));
        let (feeds, store) = (self.feeds.clone(), self.store.clone());
        (Filing::new(self.whose(), feeds, store, Position::default(), coverage), reader)
    }

    /// Takes frames until the window has ended.
    async fn keep(&self, filing: &mut Filing, reader: &mut Reader, watch: &Watch) -> Mono {
        let mut caught = Caught::NotYet;
        loop {
            self.report(filing, watch).await;
            filing.whose.kept = self.kept();
            let now = clock::mono();
            filing.rest(&caught, self.ring.newest());
            let until = match self.window() {
                _ if self.always => None,
                Some(window) => window.until,
                None => Some(now),
            };
            // However late this looks again, what has come by then is taken.
            let last = until.unwrap_or(Mono::from_boot(Duration::MAX));
            let end = until.unwrap_or(now + LOOK);
            let held_up = filing.is_held_up();
            // What is in the ring comes first, also when the window has passed meanwhile.
            let look = match (held_up, reader.has_more()) {
                (true, _) => now + WAIT,
                (false, true) => now + LOOK,
                (false, false) => (end + LAST_FRAMES).min(now + LOOK),
            };
            tokio::select! {
                biased;
                () = filing.synced() => {}
                read = next(reader, &caught), if caught != Caught::RingEnded && !held_up => {
                    caught = filing.catch_up(read, reader, last);
                    if caught == Caught::WindowEnded { return end }
                }
                () = tokio::time::sleep_until(clock::deadline(look)) => {
                    let over = until.is_some_and(|until| clock::mono() >= until + LAST_FRAMES);
                    if over && !reader.has_more() { return end }
                }
            }
        }
    }

    /// Resolves when this camera is to be kept, with since when.
    async fn wanted(&self) -> Window {
        loop {
            if self.always {
                return Window { from: clock::mono(), until: None };
            }
            if let Some(window) = self.window() {
                return window;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn window(&self) -> Option<Window> {
        self.outage.borrow().clone().window(clock::mono())
    }

    fn kept(&self) -> Kept {
        let buffer = if self.window().is_some() { Buffer::Outage } else { Buffer::Bulk };
        Kept::Buffer { buffer }
    }

    fn whose(&self) -> Whose {
        Whose { kept: self.kept(), camera: self.camera.clone(), rank: 0, urgent: None, boot: clock::boot_id() }
    }

    /// Up to when an earlier run kept this camera, if it was doing so when it ended.
    async fn last(&self) -> Option<Utc> {
        let found = self.store.buffer_before(&self.camera, clock::wall()).await;
        let found = found.inspect_err(|e| warn!(error = %e, "the media log")).ok().flatten();
        found.filter(|o| !o.delivered).map(|o| o.meta.to)
    }

    /// Where an earlier run left off, if this one takes it up at once: of an outage that is over by then nobody knows how
    /// long it lasted.
    fn taken_up(&self, last: Option<Utc>) -> Option<Utc> {
        last.filter(|_| clock::mono().since(self.begun) < TAKEN_UP)
    }

    fn asked(&self, window: Window, last: Option<Utc>) -> Asked {
        let from = wall_of(window.from.max(self.begun));
        let origin = if last.is_some() { Origin::Restarted { rebooted: false } } else { Origin::Fresh };
        Asked {
            origin,
            // Of an earlier run only the wall's clock tells.
            from: if last.is_some() { Mono::default() } else { window.from.max(self.begun) },
            window: (last.unwrap_or(from), from),
            begun: self.begun,
            stored: last,
            lasts: Duration::ZERO,
            why: if self.ring.newest().is_some() { GapReason::BeforeRing } else { GapReason::CameraDown },
        }
    }

    /// What became of pictures: the forwarder is told of what is there, and what is not is written down beside it.
    async fn report(&self, filing: &mut Filing, watch: &Watch) {
        for told in filing.told() {
            match told {
                Told::Stored(_) => {
                    watch.stored();
                    self.bell.ring();
                }
                Told::Gap(gap) => self.missing(gap).await,
            }
        }
    }

    async fn missing(&self, Gap { from, to, reason }: Gap) {
        let Kept::Buffer { buffer } = self.kept() else { return };
        warn!(camera = %self.camera, %from, %to, ?reason, "a gap in a recording");
        let meta = ObjectMeta::missing(self.camera.clone(), buffer, (from, to), Missing { reason, bytes: 0 });
        if let Err(error) = self.store.append(meta, Bytes::new()) {
            warn!(camera = %self.camera, %error, "the gap could not be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        media::{
            frame::{Codec, Format, Frame, Track},
            ring::Limits,
        },
        spool::{MediaLane, MediaSettings},
    };

    const FRAME: Duration = Duration::from_millis(40);

    /// The least that is an `avcC`.
    const AVCC: &[u8] = &[1, 0x4d, 0x40, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0x40, 0x28, 1, 0, 2, 0x68, 0xee];

    struct Rig {
        ring: Arc<Ring>,
        outage: watch::Sender<Outage>,
        store: MediaStore,
        format: Arc<Format>,
        pushed: u32,
        _dir: tempfile::TempDir,
    }

    /// A keeper of a ring that the test fills; so much may wait for its disk.
    fn rig(queue_bytes: u32) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let settings = MediaSettings {
            queue_bytes,
            keep_free: 0,
            sync_every: Duration::from_millis(5),
            ..MediaSettings::default()
        };
        let scope = Scope::new("test");
        let (store, _, _) = MediaStore::open(dir.path(), settings, &scope).unwrap();
        let ring = Ring::new(Limits { span: Duration::from_secs(60), bytes: 64 << 20 });
        let camera: CameraId = "c1".parse().unwrap();
        let (outage, followed) = watch::channel(Outage::never());
        let format = Format { config: Bytes::from_static(AVCC), ..Format::bare(Codec::H264, 90_000) };
        let keeper = Keeper {
            camera: camera.clone(),
            ring: ring.clone(),
            always: false,
            outage: followed,
            feeds: Feeds::of([(camera, ring.clone())]),
            store: store.clone(),
            bell: Bell::default(),
            watched: Watched::default(),
            scope: scope.clone(),
            begun: clock::mono().before(RecordPolicy::AROUND * 2),
        };
        scope.spawn("keeper", keeper.run());
        Rig { ring, outage, store, format: Arc::new(format), pushed: 0, _dir: dir }
    }

    impl Rig {
        /// Sends 25 frames a second for so long, every 10th a key frame.
        async fn film(&mut self, span: Duration) {
            let until = clock::mono() + span;
            while clock::mono() < until {
                self.push(Duration::ZERO, 4);
                tokio::time::sleep(FRAME).await;
            }
        }

        /// A frame of so many bytes that came so long ago.
        fn push(&mut self, ago: Duration, bytes: usize) {
            let now = clock::now();
            self.ring.push(Frame {
                track: Track::Video,
                timeline: 0,
                ticks: i64::from(self.pushed) * 3_600,
                captured: now.wall.before(ago),
                arrived: now.mono.before(ago),
                key: self.pushed.is_multiple_of(10),
                lost_before: 0,
                format: self.format.clone(),
                data: Bytes::from(vec![7; bytes]),
            });
            self.pushed += 1;
        }

        /// What is kept for headquarters, without a word about a gap, and on one time line.
        async fn kept_whole(&self) -> Vec<ObjectMeta> {
            let held = self.store.pending_in(MediaLane::Outage, 1_000).await.unwrap();
            assert!(held.iter().all(|o| o.meta.gap.is_none()), "{held:?}");
            let parts: Vec<_> = held.into_iter().map(|o| o.meta).filter(|m| m.from < m.to).collect();
            let at = |m: &ObjectMeta| m.extra["at_us"].as_u64().unwrap();
            assert!(parts.windows(2).all(|w| at(&w[0]) + w[0].duration_us == at(&w[1])), "{parts:?}");
            parts
        }

        /// An outage of which is kept what came in the 3 s before it, and in half a second after it.
        async fn outage(&mut self) {
            let now = clock::mono();
            let worked = now + (RecordPolicy::AROUND - Duration::from_secs(3));
            self.outage.send_modify(|outage| outage.backhaul(now, Backhaul::Down, Some(worked)));
            self.film(Duration::from_millis(1_500)).await;
            let worked = clock::mono().before(RecordPolicy::AROUND - Duration::from_millis(500));
            self.outage.send_modify(|outage| outage.backhaul(worked, Backhaul::Up, Some(worked)));
            self.film(Duration::from_millis(2_500)).await;
        }
    }

    #[tokio::test]
    async fn an_outage_soon_after_another_goes_on_with_the_very_next_frame_and_nothing_is_there_twice() {
        let mut rig = rig(64 << 20);
        rig.film(Duration::from_millis(3_500)).await;
        rig.outage().await;
        rig.outage().await;
        let parts = rig.kept_whole().await;
        let names: BTreeSet<_> = parts.iter().map(|m| &m.name).collect();
        assert!(parts.len() > 3 && names.len() == parts.len(), "one name, one object: {parts:?}");
    }

    #[tokio::test]
    async fn what_came_before_an_outage_waits_for_the_disk_in_the_ring_and_none_of_it_is_refused() {
        let mut rig = rig(2 << 20);
        // 40 s, 20 MB: ten times what may wait for the disk.
        (0..1_000).rev().for_each(|i| rig.push(FRAME * i, 20_000));
        let now = clock::mono();
        rig.outage.send_modify(|outage| outage.backhaul(now, Backhaul::Down, Some(now)));
        rig.film(Duration::from_secs(4)).await;
        let parts = rig.kept_whole().await;
        let seconds = parts.iter().map(|m| m.duration_us).sum::<u64>() / 1_000_000;
        assert!(seconds >= 30, "{seconds} s of the 30 s before it, and more");
    }
}
