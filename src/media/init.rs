//! Init segments: what a player must know before the first fragment (ISO/IEC 14496-12 section 8.16, 14496-15). Pure.

use bytes::Bytes;
use mp4_atom::{
    Atom, Audio, Avc1, Avcc, Codec as Entry, Dinf, Dops, Dref, Encode, Esds, FourCC, Ftyp, Hdlr, Hvc1, Hvcc, Jpeg,
    Mdhd, Mdia, Minf, Moov, Mp4a, Mvex, Mvhd, Opus, Smhd, Stbl, Stco, Stsd, Tkhd, Trak, Trex, Url, Visual, Vmhd,
    esds::{DecoderConfig, DecoderSpecific, EsDescriptor, SLConfig},
};

use super::frame::{Codec, Format};

/// Track number of pictures in every file of ours.
pub(super) const VIDEO_TRACK: u32 = 1;
/// Track number of sound in every file of ours.
pub(super) const AUDIO_TRACK: u32 = 2;

/// Why a stream cannot be put into MP4.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The codec has no place in MP4 that players take.
    #[error("{0:?} has no place in MP4; push its frames through media::opus::Transcoder first")]
    NotInMp4(Codec),
    /// Ticks without a rate mean nothing.
    #[error("{0:?} comes with a clock rate of 0; the camera's SDP is broken")]
    NoClockRate(Codec),
    /// The codec's configuration cannot be read.
    #[error(
        "the configuration of {codec:?} ({length} bytes) cannot be read; the camera's SDP or parameter sets are broken"
    )]
    Config {
        /// Whose configuration.
        codec: Codec,
        /// Its length in bytes.
        length: usize,
        /// What is wrong with it, where the reader says so.
        #[source]
        source: Option<mp4_atom::Error>,
    },
    /// The sound cannot be made into what players take.
    #[error("the sound cannot be recorded; the pictures are")]
    Opus(#[source] super::opus::OpusError),
    /// The boxes could not be written.
    #[error("an MP4 box could not be written; the fragment is left out")]
    Box(#[from] mp4_atom::Error),
}

/// The init segment of these tracks: `ftyp` and a `moov` without samples. At least one of the two is given.
pub(super) fn segment(video: Option<&Format>, audio: Option<&Format>) -> Result<Bytes, FormatError> {
    let mut tracks = Vec::new();
    let mut defaults = Vec::new();
    for (id, format) in [(VIDEO_TRACK, video), (AUDIO_TRACK, audio)] {
        if let Some(format) = format {
            tracks.push(track(id, format)?);
            defaults.push(Trex { track_id: id, default_sample_description_index: 1, ..Trex::default() });
        }
    }
    let moov = Moov {
        mvhd: Mvhd { rate: 1.into(), volume: 1.into(), next_track_id: AUDIO_TRACK + 1, ..Mvhd::default() },
        mvex: Some(Mvex { mehd: None, trex: defaults }),
        trak: tracks,
        ..Moov::default()
    };
    let mut compatible_brands = vec![FourCC::new(b"iso6"), FourCC::new(b"mp41")];
    if moov.trak.len() == 1 {
        // A CMAF track file has one track (ISO/IEC 23000-19 section 7.3); with two it is the same boxes without the brand.
        compatible_brands.push(FourCC::new(b"cmfc"));
    }
    let ftyp = Ftyp { major_brand: FourCC::new(b"iso6"), minor_version: 0, compatible_brands };
    let mut out = Vec::with_capacity(2048);
    ftyp.encode(&mut out)?;
    moov.encode(&mut out)?;
    Ok(out.into())
}

fn track(id: u32, format: &Format) -> Result<Trak, FormatError> {
    let sound = id == AUDIO_TRACK;
    let entry = sample_entry(format)?;
    Ok(Trak {
        tkhd: Tkhd {
            track_id: id,
            enabled: true,
            in_movie: true,
            volume: u8::from(sound).into(),
            width: format.width.into(),
            height: format.height.into(),
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale: format.clock_rate, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr {
                handler: FourCC::new(if sound { b"soun" } else { b"vide" }),
                name: if sound { "sound" } else { "pictures" }.into(),
            },
            minf: Minf {
                vmhd: (!sound).then(Vmhd::default),
                smhd: sound.then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![Url::default().into()] } },
                stbl: Stbl { stsd: Stsd { codecs: vec![entry] }, stco: Some(Stco::default()), ..Stbl::default() },
                ..Minf::default()
            },
        },
        ..Trak::default()
    })
}

/// The sample entry of a format; also the test of whether the format can be recorded at all.
pub(super) fn sample_entry(format: &Format) -> Result<Entry, FormatError> {
    if format.clock_rate == 0 {
        return Err(FormatError::NoClockRate(format.codec));
    }
    let visual = Visual { data_reference_index: 1, width: format.width, height: format.height, ..Visual::default() };
    Ok(match format.codec {
        Codec::H264 => Avc1 { visual, avcc: config(format)?, ..Avc1::default() }.into(),
        Codec::H265 => Hvc1 { visual, hvcc: config(format)?, ..Hvc1::default() }.into(),
        // QuickTime's entry: ISO's `mp4v` with object type 0x6C says the same, and fewer players read it.
        Codec::Jpeg => Jpeg { visual, ..Jpeg::default() }.into(),
        Codec::Aac => aac(format)?.into(),
        Codec::Opus => {
            Opus { audio: audio(format, format.channels.clamp(1, 2)), dops: dops(format)?, btrt: None }.into()
        }
        Codec::Pcmu | Codec::Pcma => return Err(FormatError::NotInMp4(format.codec)),
    })
}

fn broken(format: &Format, source: Option<mp4_atom::Error>) -> FormatError {
    FormatError::Config { codec: format.codec, length: format.config.len(), source }
}

/// `avcC` or `hvcC`, from its body.
fn config<T: DecoderRecord>(format: &Format) -> Result<T, FormatError> {
    let mut body: &[u8] = &format.config;
    let record = T::decode_body(&mut body).map_err(|e| broken(format, Some(e)))?;
    if record.complete() { Ok(record) } else { Err(broken(format, None)) }
}

trait DecoderRecord: Atom {
    /// Whether the parameter sets that a decoder cannot do without are there.
    fn complete(&self) -> bool;
}

impl DecoderRecord for Avcc {
    fn complete(&self) -> bool {
        !self.sequence_parameter_sets.is_empty() && !self.picture_parameter_sets.is_empty()
    }
}

impl DecoderRecord for Hvcc {
    fn complete(&self) -> bool {
        // ITU-T H.265 table 7-1: VPS, SPS, PPS.
        [32, 33, 34].iter().all(|t| self.arrays.iter().any(|a| a.nal_unit_type == *t && !a.nalus.is_empty()))
    }
}

/// The parameter sets of a stream of pictures, in the order in which a decoder wants them. None where the format says
/// none that can be read.
pub fn parameter_sets(format: &Format) -> Vec<Vec<u8>> {
    match format.codec {
        Codec::H264 => config::<Avcc>(format)
            .map(|avcc| [avcc.sequence_parameter_sets, avcc.picture_parameter_sets].concat())
            .unwrap_or_default(),
        Codec::H265 => config::<Hvcc>(format)
            .map(|hvcc| hvcc.arrays.into_iter().flat_map(|array| array.nalus).collect())
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn audio(format: &Format, channel_count: u16) -> Audio {
    // 16.16 fixed point takes no more than 65,535 Hz; beyond that players go by the timescale and the configuration.
    let rate = u16::try_from(format.clock_rate).unwrap_or(0);
    Audio { data_reference_index: 1, channel_count, sample_size: 16, sample_rate: rate.into() }
}

fn aac(format: &Format) -> Result<Mp4a, FormatError> {
    if format.config.len() < 2 {
        return Err(broken(format, None));
    }
    let dec_config = DecoderConfig {
        object_type_indication: 0x40, // ISO/IEC 14496-3
        stream_type: 5,               // audio
        dec_specific: Some(DecoderSpecific { raw: format.config.to_vec(), ..DecoderSpecific::default() }),
        ..DecoderConfig::default()
    };
    let es_desc = EsDescriptor { dec_config, sl_config: SLConfig {}, ..EsDescriptor::default() };
    Ok(Mp4a { audio: audio(format, format.channels.max(1)), esds: Esds { es_desc }, btrt: None, taic: None })
}

/// `dOps` from the body of `OpusHead` (RFC 7845 section 5.1), mono and stereo.
fn dops(format: &Format) -> Result<Dops, FormatError> {
    match *format.config {
        [1, channels @ 1..=2, p0, p1, _, _, _, _, g0, g1, 0] => Ok(Dops {
            output_channel_count: channels,
            pre_skip: u16::from_le_bytes([p0, p1]),
            // What the sound was recorded at is of no use to a player, and Chromium wants the sample entry's rate here.
            input_sample_rate: format.clock_rate,
            output_gain: i16::from_le_bytes([g0, g1]),
            channel_mapping: None,
        }),
        _ => Err(broken(format, None)),
    }
}

/// The RFC 6381 `codecs` value of a file with these tracks.
pub(super) fn codecs(video: Option<&Format>, audio: Option<&Format>) -> String {
    [video, audio].into_iter().flatten().map(codec_name).collect::<Vec<_>>().join(",")
}

fn codec_name(format: &Format) -> String {
    let c: &[u8] = &format.config;
    match format.codec {
        // Our sample entry is `hvc1`, whatever the stream's source would have chosen.
        Codec::H265 if !format.rfc6381.is_empty() => format.rfc6381.replacen("hev1", "hvc1", 1),
        Codec::H265 => hevc_name(c),
        Codec::Jpeg => "jpeg".into(),
        Codec::Opus => "opus".into(),
        _ if !format.rfc6381.is_empty() => format.rfc6381.clone(),
        Codec::H264 if c.len() > 3 => format!("avc1.{:02x}{:02x}{:02x}", c[1], c[2], c[3]),
        Codec::H264 => "avc1".into(),
        // AudioSpecificConfig: five bits of object type; 31 escapes to six more.
        Codec::Aac if c.len() > 1 => match c[0] >> 3 {
            31 => format!("mp4a.40.{}", 32 + (((c[0] & 7) << 3) | (c[1] >> 5))),
            kind => format!("mp4a.40.{kind}"),
        },
        Codec::Aac => "mp4a.40".into(),
        Codec::Pcmu => "ulaw".into(),
        Codec::Pcma => "alaw".into(),
    }
}

/// ISO/IEC 14496-15 section E.3, from the body of `hvcC`.
fn hevc_name(c: &[u8]) -> String {
    let &[_, profile, f0, f1, f2, f3, ref constraints @ .., level] = &c[..c.len().min(13)] else {
        return "hvc1".into();
    };
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let flags = u32::from_be_bytes([f0, f1, f2, f3]).reverse_bits();
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut name = format!("hvc1.{space}{}.{flags:X}.{tier}{level}", profile & 0x1f);
    let used = constraints.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    for byte in &constraints[..used] {
        name.push_str(&format!(".{byte:X}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(codec: Codec, config: &[u8]) -> Format {
        Format {
            codec,
            clock_rate: 48_000,
            width: 0,
            height: 0,
            channels: 1,
            config: Bytes::copy_from_slice(config),
            rfc6381: String::new(),
        }
    }

    #[test]
    fn codec_names_follow_rfc_6381() {
        assert_eq!(codec_name(&format(Codec::H264, &[1, 0x4d, 0x40, 0x28])), "avc1.4d4028");
        assert_eq!(codec_name(&format(Codec::Aac, &[0x14, 0x08])), "mp4a.40.2");
        assert_eq!(codec_name(&format(Codec::Aac, &[0xf9, 0x40])), "mp4a.40.42");
        let hvcc = [1, 1, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93, 0xf0];
        assert_eq!(codec_name(&format(Codec::H265, &hvcc)), "hvc1.1.6.L93.B0");
        let mut named = format(Codec::H265, &hvcc);
        named.rfc6381 = "hev1.1.6.L93.B0".into();
        assert_eq!(codecs(Some(&named), Some(&format(Codec::Opus, &[]))), "hvc1.1.6.L93.B0,opus");
    }

    #[test]
    fn the_rate_in_dops_is_that_of_the_sample_entry() {
        let opus = format(Codec::Opus, &[1, 1, 0x38, 1, 0x40, 0x1f, 0, 0, 0, 0, 0]);
        let Ok(Entry::Opus(entry)) = sample_entry(&opus) else { panic!("refused") };
        assert_eq!((entry.dops.input_sample_rate, entry.dops.pre_skip), (48_000, 312));
        assert_eq!(entry.audio.sample_rate.integer(), 48_000);
    }

    #[test]
    fn broken_configurations_are_refused_with_their_codec_and_never_panic() {
        for codec in [Codec::H264, Codec::H265, Codec::Aac, Codec::Opus] {
            for length in 0..40 {
                for fill in [0u8, 1, 0xff] {
                    let e = sample_entry(&format(codec, &vec![fill; length]));
                    if let Err(e) = e {
                        assert!(e.to_string().contains(&format!("{codec:?}")), "{e}");
                    } else {
                        assert_eq!(codec, Codec::Aac);
                    }
                    codec_name(&format(codec, &vec![fill; length]));
                }
            }
        }
        assert!(matches!(sample_entry(&format(Codec::Pcmu, &[])), Err(FormatError::NotInMp4(Codec::Pcmu))));
    }
}
