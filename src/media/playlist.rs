//! HLS playlists of a recording (RFC 8216 and its revision, protocol version 7). Pure.
//!
//! The playlist grows at its end only. A gap is a comment and a discontinuity: `EXT-X-GAP` would need segments of at most
//! the target duration that do not exist, and players that do not know it would ask for them.

use std::{fmt::Write, time::Duration};

use super::fragment::{Fragment, init_name};
use crate::district::{clock::Utc, evidence::Gap};

/// One fragment's line in a playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the init segment it needs.
    pub init: String,
    /// Its own name, relative to the playlist.
    pub name: String,
    /// How long it lasts.
    pub duration: Duration,
    /// When it was captured.
    pub from: Utc,
    /// Whether decoding can begin here.
    pub key: bool,
    /// Whether it does not go on where the one before it ended.
    pub discontinuity: bool,
}

impl From<&Fragment> for Entry {
    fn from(f: &Fragment) -> Self {
        Self {
            init: init_name(f.init),
            name: f.name(),
            duration: f.duration,
            from: f.from,
            key: f.key,
            discontinuity: f.discontinuity,
        }
    }
}

/// An `index.m3u8` that grows.
#[derive(Debug, Clone)]
pub struct Playlist {
    target: u64,
    body: String,
    init: String,
    entries: u64,
    independent: bool,
    /// Whether the next entry stands after a gap.
    gap: bool,
    ended: bool,
}

impl Playlist {
    /// An empty playlist of fragments that last at most `longest`
    /// ([`Settings::longest`](super::fragment::Settings::longest)).
    pub fn new(longest: Duration) -> Self {
        Self {
            // Each duration, rounded to the nearest second, is at most this (RFC 8216 section 4.3.3.1).
            target: (longest + Duration::from_millis(500)).as_secs().max(1),
            body: String::new(),
            init: String::new(),
            entries: 0,
            independent: true,
            gap: false,
            ended: false,
        }
    }

    /// Adds a fragment.
    pub fn push(&mut self, entry: &Entry) {
        let body = &mut self.body;
        let broken = self.entries > 0 && (entry.discontinuity || self.gap || entry.init != self.init);
        if broken {
            body.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if entry.init != self.init {
            let _ = writeln!(body, "#EXT-X-MAP:URI=\"{}\"", entry.init);
            self.init.clone_from(&entry.init);
        }
        let (seconds, micros) = (entry.duration.as_secs(), entry.duration.subsec_micros());
        let _ =
            write!(body, "#EXT-X-PROGRAM-DATE-TIME:{}\n#EXTINF:{seconds}.{micros:06},\n{}\n", entry.from, entry.name);
        self.entries += 1;
        self.independent &= entry.key;
        self.gap = false;
    }

    /// Says that nobody holds what comes next.
    pub fn gap(&mut self, gap: &Gap) {
        let reason = serde_json::to_string(&gap.reason).unwrap_or_default();
        let _ = writeln!(self.body, "# gap from {} to {}: {}", gap.from, gap.to, reason.trim_matches('"'));
        self.gap = true;
    }

    /// Says that no fragment will come any more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// How many fragments it has.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The file as it is now.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.body.len() + 192);
        let _ = write!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:EVENT\n",
            self.target
        );
        if self.ended && self.independent {
            // Only now is it known, and nothing said before may be taken back.
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        text.push_str(&self.body);
        if self.ended {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::district::evidence::GapReason;

    fn entry(number: u32, init: u32, discontinuity: bool, key: bool) -> Entry {
        Entry {
            init: init_name(init),
            name: format!("{number:05}.m4s"),
            duration: Duration::from_nanos(2_002_000_000),
            from: Utc::from_micros(1_772_366_400_123_456),
            key,
            discontinuity,
        }
    }

    #[test]
    fn a_playlist_reads_as_the_standard_wants_it() {
        let mut list = Playlist::new(Duration::from_millis(4_500));
        list.push(&entry(1, 0, false, true));
        list.push(&entry(2, 0, false, true));
        let from = Utc::from_micros(1_772_366_402_000_000);
        list.gap(&Gap { from, to: from.after(Duration::from_secs(9)), reason: GapReason::CameraDown });
        list.push(&entry(3, 1, true, true));
        list.end();
        assert_eq!(
            list.text(),
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n\
             #EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"init.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.123Z\n#EXTINF:2.002000,\n00001.m4s\n\
             #EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.123Z\n#EXTINF:2.002000,\n00002.m4s\n\
             # gap from 2026-03-01T12:00:02.000Z to 2026-03-01T12:00:11.000Z: camera-down\n\
             #EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-2.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.123Z\n#EXTINF:2.002000,\n00003.m4s\n#EXT-X-ENDLIST\n"
        );
    }

    #[test]
    fn a_playlist_only_grows_at_its_end_until_it_ends() {
        let mut list = Playlist::new(Duration::from_secs(4));
        let mut before = list.text();
        for number in 1..20 {
            list.push(&entry(number, number / 7, number % 5 == 0, number % 3 != 0));
            let now = list.text();
            assert!(now.starts_with(&before) && !now.contains("ENDLIST"));
            before = now;
        }
        list.end();
        assert!(!list.text().contains("INDEPENDENT"));
        assert_eq!(list.text(), before + "#EXT-X-ENDLIST\n");
    }
}
