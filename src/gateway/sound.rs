//! What is heard live of cameras whose sound browsers do not take: a second ring beside the camera's, with the sound as
//! Opus. It is filled while somebody listens, by one task however many do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::warn;

use crate::{
    district::ids::CameraId,
    host::{scope::Scope, thread::Thread},
    media::{
        aac::Transcoder,
        frame::{Frame, Track},
        ring::{Limits, Read, Reader, Ring, Start},
    },
};

/// What a listener may be behind at most.
const KEPT: Limits = Limits { span: Duration::from_secs(2), bytes: 1 << 20 };
/// How often it is looked whether anybody listens. Who comes back before nobody did at two looks finds it going on.
const LOOK: Duration = Duration::from_secs(5);
/// Who has a ring that nobody listens to: the list of them, and the task that fills it.
const OURS: usize = 2;

/// The rings of sound that are filled now; cheap to clone.
#[derive(Clone)]
pub struct Sounds(Arc<Shared>);

struct Shared {
    /// What the tasks run on: the cameras' own thread, where there is one.
    thread: Option<Arc<Thread>>,
    scope: Scope,
    rings: Mutex<HashMap<CameraId, Arc<Ring>>>,
}

impl Sounds {
    /// None yet.
    pub fn new(thread: Option<Arc<Thread>>, scope: Scope) -> Self {
        Self(Arc::new(Shared { thread, scope, rings: Mutex::default() }))
    }

    /// A camera's sound from now on, as browsers take it. It goes on while somebody has the ring, and some seconds longer.
    pub fn of(&self, camera: &CameraId, source: &Arc<Ring>) -> Arc<Ring> {
        let mut rings = self.lock();
        if let Some(heard) = rings.get(camera) {
            return heard.clone();
        }
        let heard = Ring::new(KEPT);
        rings.insert(camera.clone(), heard.clone());
        let task = self.clone().fill(camera.clone(), source.reader(Start::Now), heard.clone());
        let _inside = self.0.thread.as_ref().map(|thread| thread.enter());
        self.0.scope.spawn("sound", task);
        heard
    }

    async fn fill(self, camera: CameraId, mut source: Reader, heard: Arc<Ring>) {
        let mut transcoder = Transcoder::default();
        let stopping = self.0.scope.stopping();
        tokio::pin!(stopping);
        let mut looks = tokio::time::interval(LOOK);
        let mut nobody = false;
        loop {
            tokio::select! {
                () = &mut stopping => return,
                _ = looks.tick() => {
                    if nobody && self.forget(&camera) {
                        return;
                    }
                    nobody = Arc::strong_count(&heard) <= OURS;
                }
                read = source.next() => match read {
                    Read::Frame(frame) if frame.track == Track::Audio => hear(&mut transcoder, &camera, &frame, &heard),
                    Read::Frame(_) | Read::Skipped(_) => {}
                    Read::Ended => return heard.end(),
                },
            }
        }
    }

    /// Takes the camera's ring from the list, unless somebody listens. Whether it did.
    fn forget(&self, camera: &CameraId) -> bool {
        let mut rings = self.lock();
        let unheard = rings.get(camera).is_some_and(|ring| Arc::strong_count(ring) <= OURS);
        if unheard {
            rings.remove(camera);
        }
        unheard
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CameraId, Arc<Ring>>> {
        self.0.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hear(transcoder: &mut Transcoder, camera: &CameraId, frame: &Arc<Frame>, heard: &Ring) {
    match transcoder.push(frame) {
        Ok(packets) => packets.into_iter().for_each(|packet| heard.push(Arc::unwrap_or_clone(packet))),
        Err(error) => warn!(%camera, %error, "its sound is not heard live"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        district::clock::{Mono, Utc},
        media::frame::{Codec, Format},
    };

    fn frame(codec: Codec, ticks: i64) -> Frame {
        // AAC-LC, 16 kHz, one channel: a unit that says nothing.
        let format = Format { config: Bytes::from_static(&[0x14, 0x08]), channels: 1, ..Format::bare(codec, 16_000) };
        Frame {
            track: if codec == Codec::H264 { Track::Video } else { Track::Audio },
            timeline: 0,
            ticks,
            captured: Utc::default(),
            arrived: Mono::default(),
            key: true,
            lost_before: 0,
            format: Arc::new(format),
            data: Bytes::from_static(&[0; 16]),
        }
    }

    async fn settled() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_fills_a_ring_for_all_who_listen_and_ends_some_seconds_after_the_last() {
        let scope = Scope::new("test");
        let (sounds, camera) = (Sounds::new(None, scope.clone()), "c1".parse::<CameraId>().unwrap());
        let source = Ring::new(KEPT);
        source.push(frame(Codec::Aac, -1_024));
        let (first, second) = (sounds.of(&camera, &source), sounds.of(&camera, &source));
        assert!(Arc::ptr_eq(&first, &second));
        settled().await;
        source.push(frame(Codec::H264, 0));
        source.push(frame(Codec::Aac, 0));
        settled().await;
        let newest = first.newest_of(Track::Audio).unwrap();
        assert_eq!((newest.format.codec, first.held().frames), (Codec::Opus, 3), "from now on, and sound only");
        drop(first);
        tokio::time::sleep(3 * LOOK).await;
        assert!(Arc::ptr_eq(&second, &sounds.of(&camera, &source)), "one still listens");
        drop(second);
        tokio::time::sleep(LOOK / 2).await;
        assert_eq!(sounds.of(&camera, &source).held().frames, 3, "who comes back finds it going on");
        tokio::time::sleep(3 * LOOK).await;
        assert!(sounds.lock().is_empty());
        assert_eq!(sounds.of(&camera, &source).held().frames, 0, "anew");
        assert!(scope.shutdown(Duration::from_secs(1)).await.is_empty());
    }

    #[tokio::test]
    async fn sound_that_browsers_take_goes_through_as_it_is() {
        let sounds = Sounds::new(None, Scope::new("test"));
        let source = Ring::new(KEPT);
        let heard = sounds.of(&"c1".parse::<CameraId>().unwrap(), &source);
        source.push(frame(Codec::Pcmu, 7));
        settled().await;
        assert_eq!(heard.newest_of(Track::Audio).unwrap().format.codec, Codec::Pcmu);
    }
}
