//! From a ring's frames to what is stored: sound made playable, then fragments. Pure.

use std::sync::Arc;

use super::{
    fragment::{Fragmenter, Piece, Position, Settings},
    frame::{Frame, Track},
    init::FormatError,
    opus::Transcoder,
};

/// The recording of one camera: give it frames as a ring's reader gives them, store the pieces in their order.
#[derive(Debug)]
pub struct Recording {
    transcoder: Transcoder,
    fragmenter: Fragmenter,
    /// The sound's failure has been told, and not ended since.
    mute: bool,
}

impl Recording {
    /// A recording that begins.
    pub fn new(settings: Settings) -> Self {
        Self::resume(settings, Position::default())
    }

    /// A recording that goes on where another ended.
    pub fn resume(settings: Settings, next: Position) -> Self {
        Self { transcoder: Transcoder::default(), fragmenter: Fragmenter::resume(settings, next), mute: false }
    }

    /// Where it goes on after the pieces so far; what [`Recording::resume`] takes after a restart.
    pub fn position(&self) -> Position {
        self.fragmenter.position()
    }

    /// Takes the next frame and gives what is complete by it, mostly nothing.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Vec<Piece> {
        if frame.track == Track::Video {
            return self.fragmenter.push(frame);
        }
        match self.transcoder.push(frame) {
            Ok(sound) => {
                self.mute = false;
                sound.iter().flat_map(|f| self.fragmenter.push(f)).collect()
            }
            // The pictures go on; one word about the sound is enough.
            Err(_) if self.mute => Vec::new(),
            Err(error) => {
                self.mute = true;
                vec![Piece::Refused { track: Some(Track::Audio), error: FormatError::Opus(error) }]
            }
        }
    }

    /// Frames are missing here: the ring's reader said [`super::ring::Read::Skipped`]. What is held goes out, and the
    /// recording goes on at the next key frame.
    pub fn skip(&mut self) -> Vec<Piece> {
        let mut out = self.drain();
        out.extend(self.fragmenter.skip());
        out
    }

    /// The window has ended: what is held goes out. Whoever asks for more later goes on with the very next frame, `next`
    /// where it is known already, and nothing is there twice. Sound of less than a packet waits for that.
    pub fn pause(&mut self, next: Option<&Frame>) -> Vec<Piece> {
        self.fragmenter.pause(next)
    }

    /// No frame will come any more: what is held goes out.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut out = self.drain();
        out.extend(self.fragmenter.finish());
        out
    }

    fn drain(&mut self) -> Vec<Piece> {
        let rest = self.transcoder.finish().unwrap_or_default();
        rest.iter().flat_map(|f| self.fragmenter.push(f)).collect()
    }
}
