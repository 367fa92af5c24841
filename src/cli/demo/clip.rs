//! The bundled clips: ten-second synthetic scenes in H.264, and a sound for all of them. Pure.
//!
//! `scripts/make-clips` draws them. A clip loops without a break: time and sequence numbers go on, only the pictures
//! begin anew, with a key frame.

use bytes::Bytes;

/// Pictures a second of every clip.
pub const FPS: u32 = 12;

/// The bytes of a file of `clips/`.
macro_rules! clip_file {
    ($name:literal) => {
        include_bytes!(concat!("clips/", $name))
    };
}

/// One of the bundled scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clip {
    /// A wide street with a gate.
    Gate,
    /// A market lane with stalls.
    Bazaar,
    /// A crossing with cars and people.
    Crossing,
    /// A bus stop.
    BusStop,
    /// A narrow lane.
    Lane,
    /// A person in front of the post, close up.
    Unit,
}

impl Clip {
    /// All of them.
    pub const ALL: [Clip; 6] = [Clip::Gate, Clip::Bazaar, Clip::Crossing, Clip::BusStop, Clip::Lane, Clip::Unit];

    /// Annex B byte stream with access unit delimiters (H.264 Annex B).
    pub fn h264(self) -> &'static [u8] {
        match self {
            Clip::Gate => clip_file!("gate-1.h264"),
            Clip::Bazaar => clip_file!("bazaar.h264"),
            Clip::Crossing => clip_file!("crossing.h264"),
            Clip::BusStop => clip_file!("bus-stop.h264"),
            Clip::Lane => clip_file!("lane.h264"),
            Clip::Unit => clip_file!("unit.h264"),
        }
    }

    /// G.711 mu-law, 8,000 samples a second, mono.
    pub fn ulaw(self) -> &'static [u8] {
        clip_file!("street.ulaw")
    }
}

/// One picture of a clip.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its NAL units behind 4-byte lengths, delimiters left out.
    pub data: Bytes,
    /// Whether a decoder can begin here: an IDR picture, its parameter sets before it.
    pub key: bool,
}

/// A clip cut into pictures.
#[derive(Debug, Clone)]
pub struct Film {
    /// The pictures, [`FPS`] a second; the first is a key picture.
    pub pictures: Vec<Picture>,
    /// Sequence parameter set, without start code.
    pub sps: Bytes,
    /// Picture parameter set, without start code.
    pub pps: Bytes,
}

const TYPE_IDR: u8 = 5;
const TYPE_SPS: u8 = 7;
const TYPE_PPS: u8 = 8;
const TYPE_DELIMITER: u8 = 9;

impl Film {
    /// Cuts an Annex B stream at its access unit delimiters. `None` when it has no key picture or no parameter sets.
    pub fn cut(stream: &'static [u8]) -> Option<Film> {
        let stream = Bytes::from_static(stream);
        let mut film = Film { pictures: Vec::new(), sps: Bytes::new(), pps: Bytes::new() };
        let mut units = Vec::new();
        for unit in nal_units(&stream) {
            match unit.first().map(|header| header & 0x1f) {
                Some(TYPE_DELIMITER) => film.finish(&mut units),
                Some(TYPE_SPS) if film.sps.is_empty() => film.sps = unit.clone(),
                Some(TYPE_PPS) if film.pps.is_empty() => film.pps = unit.clone(),
                _ => {}
            }
            units.push(unit);
        }
        film.finish(&mut units);
        (film.pictures.first().is_some_and(|p| p.key) && film.sps.len() > 3 && !film.pps.is_empty()).then_some(film)
    }

    fn finish(&mut self, units: &mut Vec<Bytes>) {
        let kept: Vec<Bytes> =
            units.drain(..).filter(|u| u.first().is_some_and(|h| h & 0x1f != TYPE_DELIMITER)).collect();
        if kept.is_empty() {
            return;
        }
        let key = kept.iter().any(|u| u[0] & 0x1f == TYPE_IDR);
        let behind = |unit: &Bytes| [&(unit.len() as u32).to_be_bytes(), unit.as_ref()].concat();
        let data = kept.iter().flat_map(behind).collect::<Vec<u8>>().into();
        self.pictures.push(Picture { data, key });
    }

    /// What a decoder must know of it: the body of an `avcC` box (ISO/IEC 14496-15 section 5.3.3.1).
    pub fn config(&self) -> Bytes {
        let length = |set: &Bytes| (set.len() as u16).to_be_bytes();
        let (sps, pps) = (&self.sps, &self.pps);
        [&[1, sps[1], sps[2], sps[3], 0xff, 0xe1], &length(sps)[..], sps, &[1], &length(pps), pps].concat().into()
    }
}

/// NAL units of an Annex B stream, without start codes and trailing zeros.
fn nal_units(stream: &Bytes) -> Vec<Bytes> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(i, _)| i + 3).collect();
    let ends = starts.iter().skip(1).map(|s| s - 3).chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, mut end)| {
            while end > start && stream[end - 1] == 0 {
                end -= 1;
            }
            stream.slice(start..end)
        })
        .filter(|unit| !unit.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clip_is_ten_seconds_with_a_key_picture_each_second() {
        for clip in Clip::ALL {
            let film = Film::cut(clip.h264()).unwrap();
            assert_eq!(film.pictures.len(), 120, "{clip:?}");
            for (i, picture) in film.pictures.iter().enumerate() {
                assert_eq!(picture.key, i % FPS as usize == 0, "{clip:?} picture {i}");
            }
            assert_eq!(clip.ulaw().len(), 80_000);
        }
    }

    #[test]
    fn all_clips_together_stay_small() {
        let bytes: usize = Clip::ALL.iter().map(|c| c.h264().len()).sum::<usize>() + Clip::Unit.ulaw().len();
        assert!(bytes < 2_500_000, "{bytes}");
    }

    #[test]
    fn the_configuration_has_both_parameter_sets() {
        let film = Film::cut(Clip::Gate.h264()).unwrap();
        let config = film.config();
        assert_eq!((config[0], config[5], config.len()), (1, 0xe1, 11 + film.sps.len() + film.pps.len()));
        assert!(config.ends_with(&film.pps) && config[8..].starts_with(&film.sps));
    }

    #[test]
    fn a_stream_without_key_picture_is_no_film() {
        assert!(Film::cut(b"").is_none());
        assert!(Film::cut(b"\0\0\0\x01\x09\xf0\0\0\x01\x41\x9a").is_none());
    }
}
