//! The recordings that run: one for each incident and linked camera, begun, extended and ended as the engine orders.

use std::{collections::HashMap, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    feeds::Feeds,
    recorder::{Job, Past, Paused},
    shelf::Whose,
    watched::Watched,
    work::Work,
};
use crate::{
    district::{
        clock::Mono,
        ids::{CameraId, IncidentId},
    },
    host::{clock, scope::Scope},
    incident::case::RecordOrder,
    spool::{Kept, MediaStore},
};

/// Where recordings ended is remembered this long: by then no ring holds anything from before it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The recordings that run.
pub struct Recorders {
    feeds: Feeds,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    watched: Watched,
    scope: Scope,
    running: HashMap<(IncidentId, CameraId), Running>,
    /// Recordings of this run that ended, for when they are extended.
    past: HashMap<(IncidentId, CameraId), Past>,
    /// When this run began.
    begun: Mono,
}

/// A recording that runs.
struct Running {
    order: RecordOrder,
    until: watch::Sender<Mono>,
    /// What it leaves behind.
    paused: oneshot::Receiver<Paused>,
}

impl Recorders {
    /// None running yet.
    pub fn new(feeds: Feeds, store: MediaStore, work: mpsc::Sender<Work>, watched: Watched, scope: Scope) -> Self {
        let (running, past) = (HashMap::new(), HashMap::new());
        Self { feeds, store, work, watched, scope, running, past, begun: clock::mono() }
    }

    /// Begins a recording, or moves the end of the one that runs.
    pub fn order(&mut self, order: RecordOrder) {
        let key = (order.incident, order.camera.clone());
        if let Some(running) = self.running.get_mut(&key) {
            running.order.until = order.until;
            running.until.send_replace(order.until);
            return;
        }
        let (until, watch) = watch::channel(order.until);
        let (leave, paused) = oneshot::channel();
        let past = self.past.remove(&key);
        let job = Job {
            whose: whose(&order),
            leave: Some(leave),
            begun: self.begun,
            order: order.clone(),
            until: watch,
            feeds: self.feeds.clone(),
            store: self.store.clone(),
            work: self.work.clone(),
            watched: self.watched.clone(),
            scope: self.scope.clone(),
        };
        self.running.insert(key, Running { order, until, paused });
        self.scope.spawn("recording", job.run(past));
    }

    /// A recording has ended at `until`. When it was extended in that very moment it begins again, and has not ended.
    pub fn ended(&mut self, incident: IncidentId, camera: &CameraId, until: Mono) -> bool {
        let key = (incident, camera.clone());
        let Some(Running { order, mut paused, .. }) = self.running.remove(&key) else { return true };
        let now = clock::mono();
        self.past.retain(|_, past| now.since(past.until) < REMEMBERED);
        self.past.insert(key, Past { until, paused: paused.try_recv().ok() });
        if order.until > until {
            self.order(order);
            return false;
        }
        true
    }
}

/// First at headquarters, of all cameras of an incident: from so long before the press until so long after it.
const AROUND: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

fn whose(order: &RecordOrder) -> Whose {
    let (incident, pressed) = (order.incident, order.pressed_at);
    let urgent = Some((pressed.before(AROUND.0), pressed.after(AROUND.1)));
    let (camera, rank, boot) = (order.camera.clone(), order.rank, clock::boot_id());
    Whose { kept: Kept::Evidence { incident }, camera, rank, urgent, boot }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        district::evidence::{Gap, GapReason},
        incident::record::Gone,
        media::{
            frame::{Codec, Format, Frame, Track},
            ring::{Limits, Ring},
        },
        spool::{MediaSettings, ObjectMeta},
    };

    /// Parameter sets of a camera that makes many words: its init segments are larger than its fragments.
    fn avcc() -> Bytes {
        let words = vec![0x28; 8_000 - 3];
        let head = [1, 0x4d, 0x40, 0x28, 0xff, 0xe1, (8_000u16 >> 8) as u8, 8_000u16 as u8, 0x67, 0x4d, 0x40];
        [&head[..], &words, &[1, 0, 2, 0x68, 0xee]].concat().into()
    }

    struct Rig {
        recorders: Recorders,
        store: MediaStore,
        ring: Arc<Ring>,
        work: mpsc::Receiver<Work>,
        format: Arc<Format>,
        order: RecordOrder,
        pushed: i64,
        /// Packets lost before the next frame.
        lost: u16,
        _dir: tempfile::TempDir,
    }

    fn rig(queue_bytes: u32) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let sync_every = Duration::from_millis(5);
        let settings = MediaSettings { queue_bytes, keep_free: 0, sync_every, ..MediaSettings::default() };
        let scope = Scope::new("test");
        let (store, _, _) = MediaStore::open(dir.path(), settings, &scope).unwrap();
        let ring = Ring::new(Limits { span: Duration::from_secs(30), bytes: 1 << 20 });
        let camera: CameraId = "c1".parse().unwrap();
        let (work, queue) = mpsc::channel(1024);
        let feeds = Feeds::of([(camera.clone(), ring.clone())]);
        let now = clock::now();
        let format = Format { config: avcc(), ..Format::bare(Codec::H264, 90_000) };
        let until = now.mono + Duration::from_millis(300);
        let order = RecordOrder {
            incident: IncidentId::derive(1, b"x"),
            button: "b1".parse().unwrap(),
            camera,
            rank: 0,
            from: now.mono,
            until,
            window: (now.wall, now.wall.after(Duration::from_millis(300))),
            pressed_at: now.wall,
            restarted: false,
            rebooted: false,
            gone: Gone::default(),
        };
        let recorders = Recorders::new(feeds, store.clone(), work, Watched::default(), scope);
        Rig { recorders, store, ring, work: queue, format: Arc::new(format), order, pushed: 0, lost: 0, _dir: dir }
    }

    impl Rig {
        /// A frame, dated so many seconds off, as a new timeline when that changes. Every 25th is a key frame.
        fn push(&mut self, off: i64) {
            self.push_bytes(off, 64);
        }

        fn push_bytes(&mut self, off: i64, bytes: usize) {
            let key = self.pushed % 25 == 0 || off != 0;
            self.pushed += 1;
            let now = clock::now();
            self.ring.push(Frame {
                track: Track::Video,
                timeline: u32::from(off != 0),
                ticks: i64::try_from(now.mono.since_boot().as_millis()).unwrap() * 90,
                captured: now.wall.shifted(off * 1_000_000),
                arrived: now.mono,
                key,
                lost_before: std::mem::take(&mut self.lost),
                format: self.format.clone(),
                data: Bytes::from(vec![0; bytes]),
            });
        }

        /// Sends frames until the recording has ended; gives the gaps that were told.
        async fn until_ended(&mut self, off: i64) -> Vec<Gap> {
            let mut gaps = Vec::new();
            loop {
                self.push(off);
                tokio::time::sleep(Duration::from_millis(40)).await;
                while let Ok(work) = self.work.try_recv() {
                    match work {
                        Work::Gap(_, _, gap) => gaps.push(gap),
                        Work::Ended(incident, camera, until) => {
                            self.recorders.ended(incident, &camera, until);
                            return gaps;
                        }
                        _ => {}
                    }
                }
            }
        }

        async fn held(&self) -> usize {
            let held = self.store.evidence(self.order.incident, &self.order.camera).await.unwrap();
            held.iter().filter(|o| o.meta.from < o.meta.to).count()
        }
    }

    #[tokio::test]
    async fn a_recording_that_is_extended_goes_on_though_the_clock_was_set_back_by_years() {
        let mut rig = rig(64 << 20);
        rig.recorders.order(rig.order.clone());
        assert!(rig.until_ended(0).await.is_empty());
        let before = rig.held().await;
        let until = clock::mono() + Duration::from_millis(1_500);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        let gaps = rig.until_ended(-40 * 365 * 24 * 3_600).await;
        assert!(rig.held().await > before, "what came after is held");
        assert!(gaps.is_empty(), "and nothing is missing: {gaps:?}");
    }

    #[tokio::test]
    async fn a_recording_that_is_extended_after_its_end_goes_on_with_the_very_next_frame() {
        let mut rig = rig(64 << 20);
        rig.recorders.order(rig.order.clone());
        let mut gaps = rig.until_ended(0).await;
        for _ in 0..8 {
            rig.push(0);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let until = clock::mono() + Duration::from_millis(1_500);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        gaps.extend(rig.until_ended(0).await);
        let held = rig.store.evidence(rig.order.incident, &rig.order.camera).await.unwrap();
        let parts: Vec<_> = held.iter().map(|o| &o.meta).filter(|m| m.from < m.to).collect();
        assert!(parts.len() > 2 && gaps.is_empty(), "{} parts, {gaps:?}", parts.len());
        // The rig's frames are dated by two clocks, to the millisecond.
        let joined = |w: &[&ObjectMeta]| (w[1].from.micros() - w[0].to.micros()).abs() <= 2_000;
        assert!(parts.windows(2).all(joined), "{parts:?}");
    }

    #[tokio::test]
    async fn a_recording_that_is_extended_after_the_ring_has_moved_on_says_that_nobody_was_slow() {
        let mut rig = rig(64 << 20);
        rig.recorders.order(rig.order.clone());
        let mut gaps = rig.until_ended(0).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        (0..60).for_each(|_| rig.push_bytes(0, 40_000));
        let until = clock::mono() + Duration::from_millis(1_200);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        gaps.extend(rig.until_ended(0).await);
        let reasons: Vec<_> = gaps.iter().map(|g| g.reason).collect();
        assert_eq!(reasons, [GapReason::BeforeRing], "{gaps:?}");
    }

    #[tokio::test]
    async fn where_packets_were_lost_evidence_is_not_whole() {
        let mut rig = rig(64 << 20);
        rig.lost = 3;
        rig.recorders.order(rig.order.clone());
        let reasons: Vec<_> = rig.until_ended(0).await.iter().map(|gap| gap.reason).collect();
        assert_eq!((reasons, rig.held().await), (vec![GapReason::PacketsLost], 1), "held, and said to be damaged");
    }

    #[tokio::test]
    async fn what_was_evicted_once_headquarters_had_it_is_not_overwritten_by_an_extension() {
        let mut rig = rig(64 << 20);
        let gone = Gone { objects: 8, bytes: 1, fragment: 7, init: 2, to: clock::wall() };
        rig.recorders.order(RecordOrder { gone, ..rig.order.clone() });
        rig.until_ended(0).await;
        let held = rig.store.evidence(rig.order.incident, &rig.order.camera).await.unwrap();
        let names: Vec<_> = held.iter().map(|o| o.meta.name.as_str()).collect();
        assert_eq!(names, ["init-3.mp4", "00007.m4s"]);
    }

    #[tokio::test]
    async fn what_cannot_be_played_without_a_lost_init_segment_is_a_gap_and_not_evidence() {
        let mut rig = rig(6_000);
        let until = rig.order.from + Duration::from_millis(2_500);
        rig.order = RecordOrder { until, ..rig.order.clone() };
        rig.recorders.order(rig.order.clone());
        let gaps = rig.until_ended(0).await;
        assert_eq!(rig.held().await, 0);
        assert!(gaps.iter().any(|g| g.reason == GapReason::DiskFailed), "{gaps:?}");
    }

    #[tokio::test]
    async fn what_a_camera_sent_before_it_fell_silent_is_evidence_before_the_window_ends() {
        let mut rig = rig(64 << 20);
        let until = rig.order.from + Duration::from_secs(60);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        for _ in 0..20 {
            rig.push(0);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let silent = clock::wall();
        let held = async {
            while rig.held().await == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), held).await.expect("it waits for the camera to come back");
        let held = rig.store.evidence(rig.order.incident, &rig.order.camera).await.unwrap();
        let to = held.iter().map(|o| o.meta.to).max().unwrap();
        assert!(silent.since(to) < Duration::from_millis(100), "all of it");
    }
}
