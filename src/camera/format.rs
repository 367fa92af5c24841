//! What a camera offers, in our words: which of its streams are taken, their format, and where decoding can begin. Pure.

use bytes::Bytes;
use retina::{
    client::Stream,
    codec::{AudioParameters, ParametersRef, VideoParameters},
};

use crate::media::frame::{Codec, Format};

/// The streams that are set up, by their index in the session description. Others stay untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Pictures.
    pub video: Option<usize>,
    /// Sound.
    pub audio: Option<usize>,
}

/// The first stream of pictures and the first of sound that we take; otherwise what is offered instead, in words.
pub fn choose(streams: &[Stream]) -> Result<Chosen, String> {
    let taken = |media: &[&str]| {
        streams.iter().position(|s| media.contains(&s.media()) && codec(s.media(), s.encoding_name()).is_some())
    };
    let chosen = Chosen { video: taken(&["video", "image"]), audio: taken(&["audio"]) };
    // A camera whose pictures we cannot take is not a microphone.
    let pictures = streams.iter().any(|s| matches!(s.media(), "video" | "image"));
    if chosen.video.is_some() || (chosen.audio.is_some() && !pictures) {
        return Ok(chosen);
    }
    let offered: Vec<_> = streams.iter().map(|s| format!("{}/{}", s.media(), s.encoding_name())).collect();
    Err(if offered.is_empty() { "nothing".into() } else { offered.join(", ") })
}

/// The codec behind a media type and an encoding name of SDP (RFC 8866 section 6.6), where it is one we take.
pub fn codec(media: &str, encoding_name: &str) -> Option<Codec> {
    Some(match (media, encoding_name) {
        ("video", "h264") => Codec::H264,
        ("video", "h265") => Codec::H265,
        ("video" | "image", "jpeg") => Codec::Jpeg,
        ("audio", "mpeg4-generic") => Codec::Aac,
        ("audio", "pcmu") => Codec::Pcmu,
        ("audio", "pcma") => Codec::Pcma,
        _ => return None,
    })
}

/// The format of a stream, once its parameters are known: from the description or from the stream itself.
pub fn format(stream: &Stream) -> Option<Format> {
    let codec = codec(stream.media(), stream.encoding_name())?;
    match stream.parameters()? {
        ParametersRef::Video(video) => Some(video_format(codec, stream.clock_rate_hz(), video)),
        ParametersRef::Audio(audio) => Some(audio_format(codec, audio)),
        ParametersRef::Message(_) => None,
    }
}

fn video_format(codec: Codec, clock_rate: u32, video: &VideoParameters) -> Format {
    let (width, height) = video.pixel_dimensions();
    let config = if codec == Codec::Jpeg { Bytes::new() } else { Bytes::copy_from_slice(video.extra_data()) };
    Format {
        codec,
        clock_rate,
        width: u16::try_from(width).unwrap_or(u16::MAX),
        height: u16::try_from(height).unwrap_or(u16::MAX),
        channels: 0,
        config,
        rfc6381: video.rfc6381_codec().to_owned(),
    }
}

fn audio_format(codec: Codec, audio: &AudioParameters) -> Format {
    Format {
        codec,
        clock_rate: audio.clock_rate(),
        width: 0,
        height: 0,
        channels: audio.channels().get(),
        config: if codec == Codec::Aac { Bytes::copy_from_slice(audio.extra_data()) } else { Bytes::new() },
        rfc6381: audio.rfc6381_codec().unwrap_or_default().to_owned(),
    }
}

/// Whether decoding can begin at this picture. `flagged` is what the depacketizer says: it knows neither that H.265's
/// BLA and CRA pictures are random access points, nor that a unit of parameter sets alone is none.
pub fn is_key(codec: Codec, flagged: bool, data: &[u8]) -> bool {
    match codec {
        // ITU-T H.264 table 7-1: 1 to 5 are slices, 5 is that of an IDR picture.
        Codec::H264 => flagged && first_slice(data, |b| b & 0x1f, 1..=5) == Some(5),
        // ITU-T H.265 table 7-1: 0 to 31 are slices, 16 to 21 those of BLA, IDR and CRA pictures.
        Codec::H265 => first_slice(data, |b| (b >> 1) & 0x3f, 0..=31).is_some_and(|kind| (16..=21).contains(&kind)),
        _ => flagged,
    }
}

/// The type of the first NAL unit that is a slice. Reads the headers only.
fn first_slice(mut data: &[u8], kind: fn(u8) -> u8, slices: std::ops::RangeInclusive<u8>) -> Option<u8> {
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let found = kind(*rest.first()?);
        if slices.contains(&found) {
            return Some(found);
        }
        data = rest.get(usize::try_from(u32::from_be_bytes(*length)).ok()?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nals(headers: &[u8]) -> Vec<u8> {
        headers.iter().flat_map(|&h| [0, 0, 0, 3, h, 0, 0]).collect()
    }

    #[test]
    fn cra_and_bla_pictures_of_h265_are_key_frames() {
        for kind in 16..=21_u8 {
            assert!(is_key(Codec::H265, false, &nals(&[39 << 1, kind << 1])), "NAL type {kind}");
        }
        for kind in [0, 1, 8, 9, 22] {
            assert!(!is_key(Codec::H265, true, &nals(&[39 << 1, kind << 1])), "NAL type {kind}");
        }
    }

    #[test]
    fn only_an_idr_picture_of_h264_is_a_key_frame() {
        assert!(is_key(Codec::H264, true, &nals(&[6, 0x65])));
        assert!(!is_key(Codec::H264, false, &nals(&[0x41])));
        assert!(!is_key(Codec::H264, true, &nals(&[6])), "SEI alone");
        assert!(!is_key(Codec::H264, true, &[]));
    }

    #[test]
    fn broken_lengths_end_the_search() {
        assert!(!is_key(Codec::H265, true, &[0xff, 0xff, 0xff, 0xff, 39 << 1, 0]));
        assert!(!is_key(Codec::H265, true, &[0, 0, 0, 0]));
    }
}
