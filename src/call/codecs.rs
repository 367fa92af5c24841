//! Which of the payload types that a browser offered a camera's frames go out as.

use str0m::{
    Rtc,
    format::{Codec as Rtp, PayloadParams},
    media::{Mid, Pt},
};

use crate::media::frame::{Codec, Format};

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

/// How well an offered H.264 fits: pictures in parts (packetization mode 1, RFC 6184 section 5.4) before everything, then
/// the camera's own profile. A decoder that was offered another profile decodes it all the same, or says so.
fn fit(params: &PayloadParams, format: &Format) -> (bool, bool) {
    let said = params.spec().format;
    let parts = said.packetization_mode.unwrap_or(0) == 1;
    let profile = said.profile_level_id.map(|id| (id >> 16) as u8);
    (parts, profile.is_some() && profile == format.config.get(1).copied())
}
