//! WAV files (RIFF, Multimedia Programming Interface 1.0) into samples: PCM of 16 bits, mu-law and A-law, mono or stereo,
//! which becomes mono. Pure.

use std::time::Duration;

use super::{
    g711::{ALAW, ULAW},
    sound::Sound,
};

/// The longest file that is taken.
pub const LONGEST: Duration = Duration::from_secs(60);

/// What helps with every fault.
const INSTEAD: &str = "make one with: ffmpeg -i FILE -ar 8000 -ac 1 -c:a pcm_mulaw NEW.wav";

/// Why a file is not taken: what is wrong, at which byte, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another kind of file.
    #[error("this is no WAV file: it does not begin with RIFF and WAVE; {INSTEAD}")]
    NotWav,
    /// A part is not there.
    #[error("the file has no {0:?} part; {INSTEAD}")]
    Without(&'static str),
    /// It says that it is longer than it is.
    #[error("the file ends in the middle of the part that begins at byte {at}: it is cut off; copy it anew")]
    CutOff {
        /// Where the part begins.
        at: usize,
    },
    /// Sound in a form that is not known.
    #[error(
        "byte {at}: sound in the form {form} with {bits} bits; PCM of 16 bits, mu-law or A-law are known; {INSTEAD}"
    )]
    Form {
        /// Where the form stands.
        at: usize,
        /// The format tag.
        form: u16,
        /// Bits a sample.
        bits: u16,
    },
    /// Too many channels, or none.
    #[error("byte {at}: {channels} channels; 1 or 2 are known; {INSTEAD}")]
    Channels {
        /// Where the number stands.
        at: usize,
        /// The number.
        channels: u16,
    },
    /// A rate that no speaker needs.
    #[error("byte {at}: {rate} samples a second; 8000 to 48000 are known; {INSTEAD}")]
    Rate {
        /// Where the rate stands.
        at: usize,
        /// Samples a second.
        rate: u32,
    },
    /// Nobody waits for so long.
    #[error("{0} s of sound; at most 60 s are taken: make it shorter")]
    TooLong(u64),
    /// Nothing to hear.
    #[error("the file holds no sound; {INSTEAD}")]
    Empty,
}

struct Shape {
    form: u16,
    channels: usize,
    rate: u32,
}

/// The sound of a file.
///
/// # Errors
/// A [`Fault`], which says what to do.
pub fn read(file: &[u8]) -> Result<Sound, Fault> {
    if file.get(..4) != Some(b"RIFF") || file.get(8..12) != Some(b"WAVE") {
        return Err(Fault::NotWav);
    }
    let (mut at, mut shape) = (12, None);
    while let Some(head) = file.get(at..at + 8) {
        let (name, length) = (&head[..4], u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        let body = at + 8;
        let end = usize::try_from(length).ok().and_then(|length| body.checked_add(length));
        match name {
            b"fmt " => {
                let part = end.and_then(|end| file.get(body..end)).ok_or(Fault::CutOff { at })?;
                shape = Some(Shape::read(part, body)?);
            }
            b"data" => {
                // What streams to a pipe does not know its length, and says the largest.
                let end = if length == u32::MAX { Some(file.len()) } else { end };
                let data = end.and_then(|end| file.get(body..end)).ok_or(Fault::CutOff { at })?;
                return shape.ok_or(Fault::Without("fmt"))?.samples(data);
            }
            _ => {}
        }
        // Parts begin at even places.
        at = end.and_then(|end| end.checked_add(end % 2)).ok_or(Fault::CutOff { at })?;
    }
    Err(Fault::Without(if shape.is_some() { "data" } else { "fmt" }))
}

const PCM: u16 = 1;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
/// The form stands in a longer part (WAVEFORMATEXTENSIBLE).
const EXTENSIBLE: u16 = 0xfffe;

impl Shape {
    fn read(part: &[u8], at: usize) -> Result<Self, Fault> {
        let word = |i: usize| part.get(i..i + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let cut = Fault::CutOff { at: at - 8 };
        let (Some(form), Some(channels), Some(low), Some(high), Some(bits)) =
            (word(0), word(2), word(4), word(6), word(14))
        else {
            return Err(cut);
        };
        let form = if form == EXTENSIBLE { word(24).ok_or(cut)? } else { form };
        let rate = u32::from(high) << 16 | u32::from(low);
        if !matches!((form, bits), (PCM, 16) | (A_LAW | MU_LAW, 8)) {
            return Err(Fault::Form { at, form, bits });
        }
        if !(1..=2).contains(&channels) {
            return Err(Fault::Channels { at: at + 2, channels });
        }
        if !(8_000..=48_000).contains(&rate) {
            return Err(Fault::Rate { at: at + 4, rate });
        }
        Ok(Self { form, channels: usize::from(channels), rate })
    }

    fn samples(&self, data: &[u8]) -> Result<Sound, Fault> {
        let width = if self.form == PCM { 2 } else { 1 };
        let count = data.len() / width / self.channels;
        let seconds = count as u64 / u64::from(self.rate);
        if seconds >= LONGEST.as_secs() {
            return Err(Fault::TooLong(seconds));
        }
        if count == 0 {
            return Err(Fault::Empty);
        }
        let all: Vec<i16> = match self.form {
            PCM => data.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect(),
            A_LAW => data.iter().map(|code| ALAW[usize::from(*code)]).collect(),
            _ => data.iter().map(|code| ULAW[usize::from(*code)]).collect(),
        };
        let mono = |both: &[i16]| (both.iter().map(|s| i32::from(*s)).sum::<i32>() / both.len() as i32) as i16;
        let samples = all.chunks_exact(self.channels).map(mono).collect();
        Ok(Sound { rate: self.rate, samples })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wav(form: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        file.extend([form.to_le_bytes(), channels.to_le_bytes()].concat());
        file.extend(rate.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        // A part that is not known, of odd length.
        file.extend(b"LIST\x03\0\0\0abc\0data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn pcm_and_both_laws_are_read_and_stereo_becomes_mono() {
        let pcm = read(&wav(1, 1, 16_000, 16, &[1, 0, 0xff, 0xff])).unwrap();
        assert_eq!(pcm, Sound { rate: 16_000, samples: vec![1, -1] });
        assert_eq!(read(&wav(1, 2, 8_000, 16, &[10, 0, 20, 0])).unwrap().samples, [15]);
        assert_eq!(read(&wav(7, 1, 8_000, 8, &[0x80, 0xff])).unwrap().samples, [32_124, 0]);
        assert_eq!(read(&wav(6, 1, 8_000, 8, &[0xaa])).unwrap().samples, [32_256]);
    }

    #[test]
    fn what_is_not_taken_is_told_with_its_place_and_a_remedy() {
        let told = |file: &[u8]| read(file).unwrap_err().to_string();
        assert!(told(b"ID3\x04").contains("no WAV file"));
        assert!(told(&wav(3, 1, 8_000, 32, &[0; 8])).starts_with("byte 20: sound in the form 3 with 32 bits"));
        assert!(told(&wav(1, 6, 8_000, 16, &[0; 12])).starts_with("byte 22: 6 channels"));
        assert!(told(&wav(1, 1, 96_000, 16, &[0; 8])).starts_with("byte 24: 96000 samples"));
        assert!(told(&wav(1, 1, 8_000, 16, &[])).contains("no sound"));
        assert!(told(&wav(7, 1, 8_000, 8, &vec![0; 480_000])).starts_with("60 s of sound"));
        let whole = wav(7, 1, 8_000, 8, &[0; 100]);
        assert!(told(&whole[..whole.len() - 1]).contains("cut off"));
        assert!(told(&whole[..36]).contains("no \"data\" part"));
    }

    proptest! {
        #[test]
        fn no_file_does_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0u16..8, at in 0usize..60) {
            let _ = read(&bytes);
            let mut file = wav(form, 1, 8_000, 8, &bytes);
            let place = at.min(file.len() - 1);
            file[place] = bytes.pop().unwrap_or(0xff);
            let _ = read(&file);
            file.truncate(place);
            let _ = read(&file);
        }
    }
}
