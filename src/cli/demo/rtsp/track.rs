//! What a viewer gets when: RTP packets of a looping clip and RTCP sender reports, in real time. Pure.
//!
//! RFC 3550 for RTP and RTCP, RFC 6184 for H.264 in it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rtp::{codecs::h264::H264Payloader, packetizer::Payloader};

use crate::{
    cli::demo::clip::{FPS, Film},
    district::clock::{Mono, Utc},
};

/// Largest RTP packet, in bytes: fits an Ethernet frame with UDP and IP.
const MTU: usize = 1_400;
/// Bytes of an RTP header without extensions.
const RTP_HEADER: usize = 12;
/// Samples of sound in a packet: 20 ms.
const SOUND_SAMPLES: usize = 160;
/// Time between sender reports.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// A stream so late is not caught up: its media time pauses instead.
const TOO_LATE: Duration = Duration::from_secs(2);
/// Seconds from 1900 (NTP) to 1970.
const NTP_1970: u64 = 2_208_988_800;

/// What a track plays.
#[derive(Debug)]
pub(super) enum Source {
    /// A film, from this picture on.
    Film(Arc<Film>, usize),
    /// G.711 mu-law, from this sample on.
    Sound(&'static [u8], usize),
}

/// One packet for the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// Media.
    Rtp(Vec<u8>),
    /// A sender report.
    Rtcp(Vec<u8>),
}

/// One stream of one viewer.
#[derive(Debug)]
pub(super) struct Track {
    source: Source,
    ssrc: u32,
    sequence: u16,
    first_timestamp: u32,
    /// Units sent: pictures, or sound packets.
    sent: u64,
    began: Option<Mono>,
    next_report: Mono,
    packets: u32,
    octets: u32,
}

impl Track {
    /// A track that has not begun. `random`: for its source id, first sequence number and first timestamp.
    pub fn new(source: Source, random: [u32; 3]) -> Self {
        Self {
            source,
            ssrc: random[0],
            sequence: random[1] as u16,
            first_timestamp: random[2],
            sent: 0,
            began: None,
            next_report: Mono::default(),
            packets: 0,
            octets: 0,
        }
    }

    /// Begins to play.
    pub fn play(&mut self, now: Mono) {
        self.began.get_or_insert(now);
        self.next_report = now;
    }

    /// Its synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }
    /// Sequence number of the packet to come.
    pub fn sequence(&self) -> u16 {
        self.sequence
    }
    /// Timestamp of the packet to come.
    pub fn timestamp(&self) -> u32 {
        self.first_timestamp.wrapping_add((self.sent as u32).wrapping_mul(self.ticks()))
    }

    /// When [`Track::due`] has something again; `None` before it plays.
    pub fn next(&self) -> Option<Mono> {
        self.began.map(|began| began + self.unit_time(self.sent))
    }

    /// Everything due by now, in order.
    pub fn due(&mut self, now: Mono, wall: Utc) -> Vec<Packet> {
        let mut packets = Vec::new();
        let Some(began) = self.began else { return packets };
        let late = now.since(began + self.unit_time(self.sent));
        if late > TOO_LATE {
            self.began = Some(began + late);
        }
        while self.next().is_some_and(|at| at <= now) {
            if self.next_report <= now {
                packets.push(Packet::Rtcp(self.report(now, wall)));
                self.next_report = now + REPORT_EVERY;
            }
            self.unit(&mut packets);
            self.sent += 1;
        }
        packets
    }

    fn clock_rate(&self) -> u32 {
        match self.source {
            Source::Film(..) => 90_000,
            Source::Sound(..) => 8_000,
        }
    }

    /// Ticks of a unit.
    fn ticks(&self) -> u32 {
        match self.source {
            Source::Film(..) => 90_000 / FPS,
            Source::Sound(..) => SOUND_SAMPLES as u32,
        }
    }

    fn unit_time(&self, n: u64) -> Duration {
        Duration::from_micros(n * u64::from(self.ticks()) * 1_000_000 / u64::from(self.clock_rate()))
    }

    /// The RTP packets of the next unit. A picture ends with the marker bit (RFC 6184 section 5.1).
    fn unit(&mut self, packets: &mut Vec<Packet>) {
        let (payloads, payload_type) = match &self.source {
            Source::Film(film, first) => {
                let at = (*first as u64 + self.sent) % film.pictures.len() as u64;
                let picture = &film.pictures[at as usize];
                (H264Payloader::default().payload(MTU - RTP_HEADER, &picture.annex_b).unwrap_or_default(), 96)
            }
            Source::Sound(samples, first) => {
                let at = (*first as u64 + self.sent * SOUND_SAMPLES as u64) % samples.len() as u64;
                let packet = samples.iter().cycle().skip(at as usize).take(SOUND_SAMPLES).copied().collect::<Bytes>();
                (vec![packet], 0)
            }
        };
        let is_film = payload_type == 96;
        let timestamp = self.timestamp();
        let last = payloads.len().saturating_sub(1);
        for (i, payload) in payloads.iter().enumerate() {
            let marker = u8::from(is_film && i == last) << 7;
            let mut packet = Vec::with_capacity(RTP_HEADER + payload.len());
            packet.extend([0x80, marker | payload_type]);
            packet.extend(self.sequence.to_be_bytes());
            packet.extend(timestamp.to_be_bytes());
            packet.extend(self.ssrc.to_be_bytes());
            packet.extend_from_slice(payload);
            packets.push(Packet::Rtp(packet));
            self.sequence = self.sequence.wrapping_add(1);
            self.packets = self.packets.wrapping_add(1);
            self.octets = self.octets.wrapping_add(payload.len() as u32);
        }
    }

    /// A sender report with a canonical name (RFC 3550 sections 6.4.1 and 6.5): this wall time is that timestamp.
    fn report(&self, now: Mono, wall: Utc) -> Vec<u8> {
        let played = self.began.map_or(Duration::ZERO, |began| now.since(began));
        let ticks = (played.as_micros() * u128::from(self.clock_rate()) / 1_000_000) as u32;
        let since_1970 = u64::try_from(wall.micros()).unwrap_or(0);
        let seconds = (since_1970 / 1_000_000 + NTP_1970) as u32;
        let fraction = (((since_1970 % 1_000_000) << 32) / 1_000_000) as u32;
        let mut bytes = vec![0x80, 200, 0, 6];
        for word in [self.ssrc, seconds, fraction, self.first_timestamp.wrapping_add(ticks), self.packets, self.octets]
        {
            bytes.extend(word.to_be_bytes());
        }
        // Source description: one chunk, item CNAME (1) of 6 bytes, ended by zeros to a full word.
        bytes.extend([0x81, 202, 0, 4]);
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend([1, 6]);
        bytes.extend(b"chowki");
        bytes.extend([0; 4]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::clip::Clip;

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(1_000_000 + ms))
    }

    fn film() -> Track {
        Track::new(Source::Film(Arc::new(Film::cut(Clip::Gate.h264()).unwrap()), 0), [1, 65_530, u32::MAX - 10])
    }

    fn rtp(packets: &[Packet]) -> Vec<&[u8]> {
        packets.iter().filter_map(|p| if let Packet::Rtp(b) = p { Some(b.as_slice()) } else { None }).collect()
    }

    fn run(track: &mut Track, seconds: u64) -> Vec<Packet> {
        track.play(at(0));
        let steps = seconds * 100;
        (0..steps).flat_map(|i| track.due(at(i * 10), Utc::from_micros(1_772_366_400_000_000))).collect()
    }

    #[test]
    fn time_and_sequence_go_on_when_the_clip_begins_anew() {
        let packets = run(&mut film(), 25);
        let rtp = rtp(&packets);
        let mut markers = 0;
        for pair in rtp.windows(2) {
            let number = |p: &[u8]| u16::from_be_bytes([p[2], p[3]]);
            let stamp = |p: &[u8]| u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            assert_eq!(number(pair[1]), number(pair[0]).wrapping_add(1));
            let step = stamp(pair[1]).wrapping_sub(stamp(pair[0]));
            assert_eq!(step, if pair[0][1] & 0x80 != 0 { 7_500 } else { 0 });
            markers += u32::from(pair[0][1] >> 7);
        }
        assert!((299..=300).contains(&markers), "{markers} pictures in 25 s");
        assert!(rtp.iter().all(|p| p.len() <= MTU));
        assert!(rtp.iter().any(|p| p[12] & 0x1f == 28), "key pictures travel as fragments");
    }

    #[test]
    fn sound_comes_fifty_times_a_second() {
        let mut track = Track::new(Source::Sound(Clip::Gate.ulaw(), 79_900), [1, 2, 3]);
        let packets = run(&mut track, 2);
        let rtp = rtp(&packets);
        assert_eq!(rtp.len(), 100);
        assert!(rtp.iter().all(|p| p.len() == 12 + 160 && p[1] == 0));
        assert_eq!(rtp[0][112..172], Clip::Gate.ulaw()[..60], "the sound loops");
    }

    #[test]
    fn a_sender_report_comes_first_and_every_five_seconds() {
        let packets = run(&mut film(), 16);
        assert!(matches!(packets[0], Packet::Rtcp(_)));
        let reports: Vec<_> = packets.iter().filter(|p| matches!(p, Packet::Rtcp(_))).collect();
        assert_eq!(reports.len(), 4);
        let Packet::Rtcp(first) = &packets[0] else { unreachable!() };
        assert_eq!(first.len(), 28 + 20);
        assert_eq!(first[8..12], (1_772_366_400u32.wrapping_add(2_208_988_800)).to_be_bytes());
    }

    #[test]
    fn a_machine_that_slept_does_not_send_a_burst() {
        let mut track = film();
        track.play(at(0));
        track.due(at(0), Utc::default());
        let burst = track.due(at(600_000), Utc::default());
        let pictures = rtp(&burst).iter().filter(|p| p[1] & 0x80 != 0).count();
        assert_eq!(pictures, 1);
        assert!(track.next().is_some_and(|next| next > at(600_000)));
    }
}
