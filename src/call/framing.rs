//! Datagrams in a stream of bytes: two bytes of length before each (RFC 4571 section 2). Pure.

/// Largest datagram that is taken: whatever is longer is not WebRTC's.
pub(super) const LARGEST: usize = 2048;
/// Bytes of the length.
const HEAD: usize = 2;
/// Bytes that are read at a time: some datagrams of the largest kind.
const ROOM: usize = 4 * (HEAD + LARGEST);

/// A datagram is announced that is longer than [`LARGEST`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What has come of a stream and was not taken yet.
#[derive(Debug)]
pub(super) struct Unframed {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Default for Unframed {
    fn default() -> Self {
        Self { bytes: vec![0; ROOM].into(), from: 0, to: 0 }
    }
}

impl Unframed {
    /// Where the next bytes go. Never empty once everything that is whole was taken.
    pub fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        self.bytes.get_mut(self.to..).unwrap_or_default()
    }

    /// So many bytes are there now, of the room that was given last.
    pub fn filled(&mut self, count: usize) {
        self.to = (self.to + count).min(self.bytes.len());
    }

    /// The next datagram, when all of it is there.
    pub fn take(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let held = self.bytes.get(self.from..self.to).unwrap_or_default();
        let Some((head, rest)) = held.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > LARGEST {
            return Err(TooLong);
        }
        let whole = rest.get(..length);
        self.from += whole.map_or(0, |datagram| HEAD + datagram.len());
        Ok(whole)
    }
}

/// Bytes that a datagram takes in a stream.
pub(super) fn framed(datagram: &[u8]) -> usize {
    HEAD + datagram.len()
}

/// Puts a datagram at the end of a stream. One that is longer than a length can say is left out.
pub(super) fn frame(datagram: &[u8], stream: &mut Vec<u8>) {
    if let Ok(length) = u16::try_from(datagram.len()) {
        stream.extend_from_slice(&length.to_be_bytes());
        stream.extend_from_slice(datagram);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn read(stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, TooLong> {
        let (mut unframed, mut datagrams, mut at) = (Unframed::default(), Vec::new(), 0);
        let mut sizes = pieces.iter().copied().cycle();
        while at < stream.len() {
            let room = unframed.room();
            let count = room.len().min(sizes.next().unwrap_or(ROOM)).min(stream.len() - at);
            room[..count].copy_from_slice(&stream[at..at + count]);
            unframed.filled(count);
            at += count;
            while let Some(datagram) = unframed.take()? {
                datagrams.push(datagram.to_vec());
            }
            assert!(!unframed.room().is_empty());
        }
        Ok(datagrams)
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_datagrams_are_the_same(
            datagrams in vec(vec(any::<u8>(), 0..=LARGEST), 0..12),
            pieces in vec(1_usize..3000, 1..20),
        ) {
            let mut stream = Vec::new();
            datagrams.iter().for_each(|datagram| frame(datagram, &mut stream));
            prop_assert_eq!(stream.len(), datagrams.iter().map(|datagram| framed(datagram)).sum::<usize>());
            prop_assert_eq!(read(&stream, &pieces).unwrap(), datagrams);
        }

        #[test]
        fn whatever_is_said_is_read_without_harm(stream in vec(any::<u8>(), 0..10_000), pieces in vec(1_usize..3000, 1..20)) {
            let _ = read(&stream, &pieces);
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_is_told_before_it_is_there() {
        let length = u16::try_from(LARGEST + 1).unwrap().to_be_bytes();
        assert_eq!(read(&length, &[1]), Err(TooLong));
        assert_eq!(read(&[0], &[1]), Ok(vec![]));
        let mut stream = Vec::new();
        frame(&vec![0; usize::from(u16::MAX) + 1], &mut stream);
        assert!(stream.is_empty());
    }
}
