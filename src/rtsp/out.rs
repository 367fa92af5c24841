//! What waits to go out on one connection: answers and interleaved packets in one stream, and datagrams.

use std::{collections::VecDeque, io};

use tokio::net::TcpStream;

use super::{
    path::Path,
    track::{HEADER, Packet},
};
use crate::{district::clock::Mono, host::clock, media::frame::Track};

/// No further frame is taken while so much waits.
const TOGETHER: usize = 64 << 10;
/// A buffer that one frame has made larger than this is given back after it.
const KEPT: usize = 1 << 20;

/// A datagram that waits.
#[derive(Debug)]
pub(super) struct Datagram {
    /// By whose way it goes.
    pub track: Track,
    /// RTP; otherwise RTCP.
    pub is_rtp: bool,
    pub bytes: Vec<u8>,
}

/// What waits to go out. It holds one batch of frames and the answers beside it: no frame is added while datagrams or much
/// else waits, and no request is read while anything does that its client does not take.
#[derive(Debug, Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    /// So many of them are gone.
    at: usize,
    /// Since when the kernel takes nothing.
    stuck: Option<Mono>,
    pub datagrams: VecDeque<Datagram>,
}

impl Out {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.datagrams.is_empty()
    }

    /// Whether something waits in the stream.
    pub fn waits(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Since when the client takes nothing.
    pub fn stuck(&self) -> Option<Mono> {
        self.stuck
    }

    /// Whether another frame may be added.
    pub fn has_room(&self) -> bool {
        self.bytes.len() < TOGETHER && self.datagrams.is_empty()
    }

    /// Adds an answer.
    pub fn say(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Adds a packet.
    pub fn packet(&mut self, track: Track, path: &Path, packet: Packet<'_>) {
        let (is_rtp, head, body): (_, &[u8], _) = match packet {
            Packet::Rtp(header, payload) => (true, header, payload),
            Packet::Rtcp(report) => (false, &[], report),
        };
        match path {
            Path::Interleaved { rtp, rtcp } => {
                // Packets are made to fit into datagrams.
                let [high, low] = ((head.len() + body.len()) as u16).to_be_bytes();
                self.bytes.reserve(4 + HEADER + body.len());
                self.bytes.extend([b'$', if is_rtp { *rtp } else { *rtcp }, high, low]);
                self.bytes.extend(head);
                self.bytes.extend(body);
            }
            Path::Datagrams { .. } => {
                self.datagrams.push_back(Datagram { track, is_rtp, bytes: [head, body].concat() });
            }
        }
    }

    /// Writes what the kernel takes now.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, socket: &TcpStream) -> io::Result<()> {
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            match socket.try_write(rest) {
                Ok(written) => {
                    self.at += written;
                    self.stuck = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(clock::mono);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        (self.at, self.stuck) = (0, None);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        Ok(())
    }
}
