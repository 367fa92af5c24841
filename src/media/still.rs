//! A key frame as a JPEG picture. Pure.
//!
//! The decoders are Rust without `unsafe`: what a camera sends is decoded in the gateway's own process. A panic of theirs is
//! for whoever calls to catch.

use bytes::Bytes;
use h264_reader::{nal::sps::SeqParameterSet, rbsp};
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};

use super::{frame::Codec, reel::KeyFrame};

/// Most pixels of a picture: somewhat more than cameras of 8K have.
const MOST_PIXELS: usize = 40_000_000;

/// From 1 to 100: what cameras use themselves.
const QUALITY: u8 = 80;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum StillError {
    /// The decoder does not know how.
    #[error("a picture of this camera cannot be made into a JPEG: {0}")]
    Unsupported(String),
    /// What the camera sent is broken.
    #[error("the key frame cannot be decoded: {0}")]
    Broken(String),
}

/// A key frame as a JPEG, in its own size; or in whole parts of it, so that it is at least `width` pixels wide.
///
/// # Errors
/// [`StillError`].
pub fn jpeg(frame: &KeyFrame, width: Option<usize>) -> Result<Bytes, StillError> {
    let picture = match frame.codec {
        Codec::Jpeg => return Ok(frame.data.clone()),
        Codec::H264 => h264(frame)?,
        Codec::H265 => h265(frame)?,
        other => return Err(StillError::Unsupported(format!("{other:?} has no pictures"))),
    };
    let parts = width.map_or(1, |width| picture.width / width.max(16)).max(1);
    let picture = if parts > 1 { picture.shrunk(parts) } else { picture };
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.encode_image(picture).map_err(|e| StillError::Broken(e.to_string()))?;
    Ok(out.into())
}

fn h264(frame: &KeyFrame) -> Result<Picture, StillError> {
    let full_range = announced(frame, |nal| {
        let is_one = nal.first().is_some_and(|head| head & 0x1f == 7);
        let sps = is_one.then(|| rbsp::decode_nal(nal).ok()).flatten()?;
        let sps = SeqParameterSet::from_bits(rbsp::BitReader::new(&sps[..])).ok()?;
        let (width, height) = sps.pixel_dimensions().ok()?;
        let signal = sps.vui_parameters.and_then(|vui| vui.video_signal_type);
        Some((width, height, signal.is_some_and(|signal| signal.video_full_range_flag)))
    })?;
    let mut decoder = rusty_h264_decoder::Decoder::new();
    let decoded = decoder.decode(&annex_b(frame)).map_err(|e| match e {
        rusty_h264_decoder::DecodeError::Unsupported(what) => StillError::Unsupported(what.into()),
        other => StillError::Broken(format!("{other:?}")),
    })?;
    let decoded = decoded.ok_or_else(|| StillError::Broken("it is not whole".into()))?;
    Picture::new(decoded.width, decoded.height, [decoded.y, decoded.u, decoded.v], full_range)
}

fn h265(frame: &KeyFrame) -> Result<Picture, StillError> {
    let failed = |e: rusty_h265::Error| match e {
        rusty_h265::Error::Unsupported(what) => StillError::Unsupported(what.to_string()),
        other => StillError::Broken(other.to_string()),
    };
    let full_range = announced(frame, |nal| {
        let is_one = nal.first().is_some_and(|head| head >> 1 & 0x3f == 33);
        let body = is_one.then(|| nal.get(2..)).flatten()?;
        let sps = rusty_h265::ps::parse_sps(&rusty_h265::nal::unescape(body).data).ok()?;
        Some((sps.width, sps.height, sps.vui.is_some_and(|vui| vui.video_full_range_flag)))
    })?;
    let mut decoder = rusty_h265::Decoder::new();
    decoder.push_annexb(&annex_b(frame), None).map_err(failed)?;
    decoder.flush();
    let decoded = decoder.next_frame().map_err(failed)?;
    if decoded.bit_depth() != 8 || decoded.picture.chroma_format_idc != 1 {
        return Err(StillError::Unsupported("H.265 of more than 8 bits, or not in 4:2:0".into()));
    }
    let mut yuv = Vec::new();
    decoded.write_yuv(&mut yuv);
    let (width, height) = (decoded.width, decoded.height);
    let chroma = width.div_ceil(2) * height.div_ceil(2);
    if yuv.len() != width * height + 2 * chroma {
        return Err(StillError::Broken("it is not whole".into()));
    }
    let v = yuv.split_off(width * height + chroma);
    let u = yuv.split_off(width * height);
    Picture::new(width, height, [yuv, u, v], full_range)
}

/// Looks at every parameter set that is there before a decoder takes memory for what it announces: width, height, and
/// whether the whole range of values is used. What the last one says of that.
fn announced(frame: &KeyFrame, read: impl Fn(&[u8]) -> Option<(u32, u32, bool)>) -> Result<bool, StillError> {
    let mut full_range = false;
    for (width, height, full) in nal_units(&frame.sets).chain(nal_units(&frame.data)).filter_map(read) {
        if width as usize * height as usize > MOST_PIXELS {
            return Err(StillError::Unsupported(format!("{width}x{height} is too large")));
        }
        full_range = full;
    }
    Ok(full_range)
}

/// Its parameter sets and itself, with start codes in place of lengths.
fn annex_b(frame: &KeyFrame) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.sets.len() + frame.data.len());
    for nal in nal_units(&frame.sets).chain(nal_units(&frame.data)) {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(nal);
    }
    out
}

/// NAL units that stand behind their lengths; what is cut short is left out.
fn nal_units(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (nal, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = behind;
        Some(nal)
    })
}

/// A picture in 4:2:0, of the full range that JPEG has.
struct Picture {
    width: usize,
    height: usize,
    planes: [Vec<u8>; 3],
}

impl Picture {
    fn new(width: usize, height: usize, mut planes: [Vec<u8>; 3], full_range: bool) -> Result<Self, StillError> {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        if planes[0].len() < width * height || planes[1..].iter().any(|plane| plane.len() < chroma) {
            return Err(StillError::Broken("it is not whole".into()));
        }
        if width * height > MOST_PIXELS || width > usize::from(u16::MAX) || height > usize::from(u16::MAX) {
            return Err(StillError::Unsupported(format!("{width}x{height} is too large")));
        }
        if !full_range {
            // From ITU-R BT.601's 16..235 and 16..240 to all of a byte (ITU-T T.871 section 7).
            let table = |zero: f32, scale: f32, to: f32| {
                std::array::from_fn::<u8, 256, _>(|i| ((i as f32 - zero) * scale + to + 0.5) as u8)
            };
            let (luma, colour) = (table(16.0, 255.0 / 219.0, 0.0), table(128.0, 255.0 / 224.0, 128.0));
            planes[0].iter_mut().for_each(|y| *y = luma[usize::from(*y)]);
            planes[1..].iter_mut().flatten().for_each(|c| *c = colour[usize::from(*c)]);
        }
        Ok(Self { width, height, planes })
    }

    /// In one `parts`th of its size; each pixel is the mean of those that it stands for.
    fn shrunk(&self, parts: usize) -> Self {
        let (width, height) = (self.width / parts, self.height / parts);
        let mean = |plane: &[u8], stride: usize, (width, height): (usize, usize)| {
            let pixel = |x: usize, y: usize| {
                let rows = plane.chunks(stride).skip(y * parts).take(parts);
                let sum: usize =
                    rows.flat_map(|row| row.iter().skip(x * parts).take(parts)).map(|p| usize::from(*p)).sum();
                (sum / (parts * parts)) as u8
            };
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect::<Vec<_>>()
        };
        let (half, stride) = ((width.div_ceil(2), height.div_ceil(2)), self.width.div_ceil(2));
        let [luma, u, v] = &self.planes;
        let planes = [mean(luma, self.width, (width, height)), mean(u, stride, half), mean(v, stride, half)];
        Self { width, height, planes }
    }
}

impl ImageBuffer for Picture {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width as u16
    }

    fn height(&self) -> u16 {
        self.height as u16
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (y, stride) = (usize::from(y), self.width.div_ceil(2));
        let [luma, u, v] = &self.planes;
        buffers[0].extend_from_slice(&luma[y * self.width..][..self.width]);
        for (plane, buffer) in [u, v].into_iter().zip(&mut buffers[1..]) {
            let row = &plane[y / 2 * stride..][..stride];
            buffer.extend((0..self.width).map(|x| row[x / 2]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With its length before it.
    fn nal(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    #[test]
    fn what_announces_more_pixels_than_a_camera_has_is_refused_before_it_is_decoded() {
        // Baseline, 16,384 x 16,384: profile, level, ids and counts by exp-Golomb, 1,024 macroblocks each way.
        let side = "000000000010000000000";
        let bits = ["1", "1", "1", "1", "010", "0", side, side, "1", "1", "0", "0", "1"];
        let mut text = bits.concat();
        text.push_str(&"0".repeat((8 - text.len() % 8) % 8));
        let body = (0..text.len()).step_by(8).map(|at| u8::from_str_radix(&text[at..at + 8], 2).unwrap());
        let sps: Vec<u8> = [0x67, 66, 0, 62].into_iter().chain(body).collect();
        for in_band in [false, true] {
            let (sets, data) = if in_band { (Vec::new(), nal(&sps)) } else { (nal(&sps), Vec::new()) };
            let frame = KeyFrame { codec: Codec::H264, sets: sets.into(), data: data.into(), at_us: 0 };
            let refused = jpeg(&frame, None).unwrap_err().to_string();
            assert!(refused.contains("16384x16384 is too large"), "{refused}");
        }
    }
}
