//! How sound reaches a speaker: by RTSP, or by RTP to an address.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{sleep, timeout},
};

use super::{
    backchannel::{Backchannel, Sent},
    dialogue::resolve,
    failed::Failed,
    rtp_out::{Encoding, Packets},
};
use crate::{district::inventory::Source, media::sound::piece};

/// The longest that a way may take to open.
const OPEN: Duration = Duration::from_secs(10);
/// After so long without a complaint somebody is thought to listen.
const COMPLAINT: Duration = Duration::from_millis(100);

/// Where a speaker is.
#[derive(Debug, Clone)]
pub enum Way {
    /// The backchannel of the unit's own stream.
    Onvif(Box<Source>),
    /// RTP to an address, whoever listens there.
    Rtp {
        /// Name or IP address.
        host: String,
        /// UDP port.
        port: u16,
        /// What it plays.
        encoding: Encoding,
    },
}

/// An open way.
pub(super) enum Open {
    Onvif(Box<Backchannel>),
    Rtp(Plain),
}

/// RTP to an address. Nobody acknowledges it; that nobody listens is told where the peer's network says so (ICMP).
pub(super) struct Plain {
    socket: UdpSocket,
    at: SocketAddr,
}

impl Way {
    /// Opens it, and says how packets are to be made for it.
    pub(super) async fn open(&self, random: &mut fastrand::Rng) -> Result<(Open, Encoding, Packets), Failed> {
        match self {
            Self::Onvif(source) => {
                let slow = || Failed::Late { host: source.url.host_str().unwrap_or_default().to_owned(), limit: OPEN };
                let open = timeout(OPEN, Backchannel::connect(source)).await.map_err(|_| slow())??;
                let (encoding, payload_type) = (open.speaker().encoding, open.speaker().payload_type);
                Ok((Open::Onvif(Box::new(open)), encoding, Packets::new(encoding, payload_type, random)?))
            }
            Self::Rtp { host, port, encoding } => {
                let mut packets = Packets::new(*encoding, encoding.payload_type(), random)?;
                let plain = Plain::open(host, *port).await?;
                // A piece of silence, and whether anybody complains.
                let silence = packets.packet(&vec![0; piece(encoding.rate())], 0)?;
                plain.send(&silence)?;
                sleep(COMPLAINT).await;
                plain.heard()?;
                Ok((Open::Rtp(plain), *encoding, packets))
            }
        }
    }
}

impl Open {
    /// Sends a packet, or drops it. Never waits.
    pub fn send(&mut self, packet: &[u8]) -> Result<Sent, Failed> {
        match self {
            Self::Onvif(open) => open.send(packet),
            Self::Rtp(plain) => plain.send(packet),
        }
    }

    /// Keeps it open; returns only when it is lost. May be dropped and called again at any time.
    pub async fn serve(&mut self) -> Failed {
        match self {
            Self::Onvif(open) => open.serve().await,
            Self::Rtp(plain) => plain.serve().await,
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        if let Self::Onvif(open) = self {
            open.close().await;
        }
    }
}

impl Plain {
    async fn open(host: &str, port: u16) -> Result<Self, Failed> {
        let none = || Failed::Name { host: host.to_owned(), source: io::ErrorKind::NotFound.into() };
        let at = resolve(host, port).await?.into_iter().next().ok_or_else(none)?;
        let from: SocketAddr = if at.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let open = async {
            let socket = UdpSocket::bind(from).await?;
            socket.connect(at).await?;
            // Until the runtime knows that it can be written, nothing would be sent.
            socket.writable().await?;
            Ok(socket)
        };
        open.await.map(|socket| Self { socket, at }).map_err(|source| Failed::Connect { at, source })
    }

    fn send(&self, packet: &[u8]) -> Result<Sent, Failed> {
        self.heard()?;
        match self.socket.try_send(packet) {
            Ok(_) => Ok(Sent::Yes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Dropped),
            Err(source) => Err(Failed::Nobody { at: self.at, source }),
        }
    }

    /// Whether somebody complained. What comes back otherwise matters to nobody.
    fn heard(&self) -> Result<(), Failed> {
        let complaint = match self.socket.try_recv(&mut [0; 64]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Some(error),
            // A complaint alone does not make a socket readable.
            _ => self.socket.take_error().unwrap_or_else(Some),
        };
        complaint.map_or(Ok(()), |source| Err(Failed::Nobody { at: self.at, source }))
    }

    async fn serve(&self) -> Failed {
        loop {
            let ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await;
            if let Err(source) = ready {
                return Failed::Nobody { at: self.at, source };
            }
            if let Err(failed) = self.heard() {
                return failed;
            }
            // Seen: wait for the next.
            let none: io::Result<()> = Err(io::ErrorKind::WouldBlock.into());
            let _ = self.socket.try_io(Interest::ERROR, || none);
        }
    }
}
