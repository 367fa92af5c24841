//! What a camera of the demo shows when: pictures and sound of a looping clip, as frames of a ring. Pure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cli::demo::clip::{Clip, FPS, Film},
    district::clock::{Mono, Utc},
    media::{
        frame::{Codec, Format, Frame, Track},
        ring::Ring,
    },
};

/// Ticks a second of pictures and of sound.
const PICTURES: u32 = 90_000;
const SOUND: u32 = 8_000;
/// Samples of sound in a frame: 20 ms.
pub(super) const SAMPLES: u32 = 160;
/// A show so late is not caught up: it leaves out what it has missed.
const TOO_LATE: Duration = Duration::from_secs(2);

/// When all shows began: everyone sees the same moment, whenever they come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    pub mono: Mono,
    pub wall: Utc,
}

/// One camera's show.
#[derive(Debug)]
pub(super) struct Show {
    film: Film,
    sound: &'static [u8],
    formats: [Arc<Format>; 2],
    began: Began,
    /// Pictures and pieces of sound shown.
    shown: [u64; 2],
}

impl Show {
    /// The show of a clip. None: the clip is damaged.
    pub fn new(clip: Clip, began: Began) -> Option<Self> {
        let film = Film::cut(clip.h264())?;
        let format = |codec, clock_rate, channels, config| {
            let (width, height, rfc6381) = (0, 0, String::new());
            Arc::new(Format { codec, clock_rate, width, height, channels, config, rfc6381 })
        };
        let pictures = format(Codec::H264, PICTURES, 0, film.config());
        let sound = format(Codec::Pcmu, SOUND, 1, Bytes::new());
        Some(Self { film, sound: clip.ulaw(), formats: [pictures, sound], began, shown: [0; 2] })
    }

    /// Pushes everything that is due by now; nothing where there is no ring: time goes on all the same.
    pub fn run(&mut self, now: Mono, ring: Option<&Ring>) {
        for (i, track) in [Track::Video, Track::Audio].into_iter().enumerate() {
            let due = 1 + (now.since(self.began.mono).as_nanos() / unit(track).as_nanos()) as u64;
            let latest = due.saturating_sub((TOO_LATE.as_nanos() / unit(track).as_nanos()) as u64);
            for n in self.shown[i].max(latest)..due {
                ring.into_iter().for_each(|ring| ring.push(self.frame(track, n)));
            }
            self.shown[i] = self.shown[i].max(due);
        }
    }

    fn frame(&self, track: Track, n: u64) -> Frame {
        let after = Duration::from_nanos(unit(track).as_nanos() as u64 * n);
        let (ticks, key, data) = match track {
            Track::Video => {
                let picture = &self.film.pictures[(n % self.film.pictures.len() as u64) as usize];
                (n * u64::from(PICTURES / FPS), picture.key, picture.data.clone())
            }
            Track::Audio => {
                let pieces = self.sound.len() as u64 / u64::from(SAMPLES);
                let at = (n % pieces.max(1) * u64::from(SAMPLES)) as usize;
                let piece = self.sound.get(at..at + SAMPLES as usize).unwrap_or_default();
                (n * u64::from(SAMPLES), true, Bytes::from_static(piece))
            }
        };
        Frame {
            track,
            timeline: 0,
            ticks: ticks as i64,
            captured: self.began.wall.after(after),
            arrived: self.began.mono + after,
            key,
            lost_before: 0,
            format: self.formats[usize::from(track == Track::Audio)].clone(),
            data,
        }
    }
}

/// How long a picture or a piece of sound lasts.
fn unit(track: Track) -> Duration {
    match track {
        Track::Video => Duration::from_secs(1) / FPS,
        Track::Audio => Duration::from_secs(1) * SAMPLES / SOUND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ring::{Limits, Read, Start};

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(1_000_000 + ms))
    }

    fn show() -> (Show, Arc<Ring>) {
        let began = Began { mono: at(0), wall: Utc::from_micros(1_772_366_400_000_000) };
        (Show::new(Clip::Gate, began).unwrap(), Ring::new(Limits { span: Duration::from_secs(60), bytes: 64 << 20 }))
    }

    fn frames(ring: &Arc<Ring>, track: Track) -> Vec<Arc<Frame>> {
        let mut reader = ring.reader(Start::Arrived(Mono::default()));
        let all = std::iter::from_fn(|| match reader.try_next() {
            Some(Read::Frame(frame)) => Some(frame),
            _ => None,
        });
        all.filter(|frame| frame.track == track).collect()
    }

    #[test]
    fn time_goes_on_when_the_clip_begins_anew() {
        let (mut show, ring) = show();
        (0..2_500).for_each(|i| show.run(at(i * 10), Some(&ring)));
        let (pictures, sounds) = (frames(&ring, Track::Video), frames(&ring, Track::Audio));
        assert!(pictures.len() == 300 && sounds.len() == 1_250, "{} {}", pictures.len(), sounds.len());
        assert!(pictures.windows(2).all(|w| w[1].ticks - w[0].ticks == 7_500));
        assert!(pictures.iter().enumerate().all(|(i, p)| p.key == (i % 12 == 0)));
        assert!(sounds.iter().all(|s| s.data.len() == 160));
        assert_eq!(sounds[500].data, sounds[0].data, "the sound loops");
        assert_eq!(pictures[12].captured.since(sounds[50].captured), Duration::ZERO);
    }

    #[test]
    fn a_machine_that_slept_does_not_send_a_burst_and_who_has_no_power_none_at_all() {
        let (mut show, ring) = show();
        show.run(at(0), Some(&ring));
        show.run(at(600_000), Some(&ring));
        let burst = frames(&ring, Track::Video).len();
        assert!(burst <= 25, "{burst}");
        show.run(at(605_000), None);
        show.run(at(605_100), Some(&ring));
        assert!(frames(&ring, Track::Video).len() <= burst + 2);
    }
}
