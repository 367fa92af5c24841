//! Which of the payload types that a browser offered a camera's frames go out as.

use str0m::{
    Rtc,
    format::{Codec as Rtp, PayloadParams},
    media::{Mid, Pt},
};

use super::Refused;
use crate::media::frame::{Codec, Format};

/// Whether a browser that offers this can be shown pictures of that codec.
///
/// # Errors
/// [`Refused::Codec`], when it cannot.
pub(super) fn agree(offer: &str, codec: Codec) -> Result<(), Refused> {
    let name = match codec {
        Codec::H264 => "H264/90000",
        Codec::H265 => "H265/90000",
        // RTP has none for the others that a browser knows.
        _ => "",
    };
    let asks = offer.lines().any(|line| line.starts_with("m=video"));
    let takes = |line: &str| line.starts_with("a=rtpmap:") && line.trim_end().ends_with(name);
    if asks && (name.is_empty() || !offer.lines().any(takes)) { Err(Refused::Codec(codec)) } else { Ok(()) }
}

/// The payload type and RTP clock for frames of that format. None: the browser takes none.
pub(super) fn choose(rtc: &Rtc, mid: Mid, format: &Format) -> Option<(Pt, u32)> {
    let (codec, rate) = match format.codec {
        Codec::H264 => (Rtp::H264, 90_000),
        Codec::H265 => (Rtp::H265, 90_000),
        Codec::Pcmu => (Rtp::PCMU, 8_000),
        Codec::Pcma => (Rtp::PCMA, 8_000),
        Codec::Opus => (Rtp::Opus, 48_000),
        Codec::Jpeg | Codec::Aac => return None,
    };
    let offered = rtc.media(mid)?.remote_pts();
    let ours = rtc.codec_config().params();
    let params = offered.iter().filter_map(|pt| ours.iter().find(|p| p.pt() == *pt));
    let best = params.filter(|p| p.spec().codec == codec).max_by_key(|p| fit(p, format))?;
    Some((best.pt(), rate))
}

/// What a browser sends with that payload type. None: nothing that we take.
pub(super) fn sent(rtc: &Rtc, pt: Pt) -> Option<Codec> {
    let params = rtc.codec_config().params().iter().find(|p| p.pt() == pt)?;
    match params.spec().codec {
        Rtp::H264 => Some(Codec::H264),
        Rtp::Opus => Some(Codec::Opus),
        Rtp::PCMU => Some(Codec::Pcmu),
        Rtp::PCMA => Some(Codec::Pcma),
        _ => None,
    }
}

/// How well an offered H.264 fits: pictures in parts (packetization mode 1, RFC 6184 section 5.4) before everything, then
/// the camera's own profile. A decoder that was offered another profile decodes it all the same, or says so.
fn fit(params: &PayloadParams, format: &Format) -> (bool, bool) {
    let said = params.spec().format;
    let parts = said.packetization_mode.unwrap_or(0) == 1;
    let profile = said.profile_level_id.map(|id| (id >> 16) as u8);
    (parts, profile.is_some() && profile == format.config.get(1).copied())
}
