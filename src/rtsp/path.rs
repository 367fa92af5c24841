//! The way of a track's packets to its client: in the RTSP connection (RFC 2326 section 10.12), or as datagrams.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use tokio::{io::ReadBuf, net::UdpSocket};

use crate::{
    host::ports,
    wire::{rtcp, transport::Wanted},
};

/// A way for a track's packets.
#[derive(Debug)]
pub(super) enum Path {
    /// On these channels of the connection.
    Interleaved {
        /// That of RTP.
        rtp: u8,
        /// That of RTCP.
        rtcp: u8,
    },
    /// From these sockets, connected to the client's.
    Datagrams {
        /// That of RTP.
        rtp: UdpSocket,
        /// That of RTCP.
        rtcp: UdpSocket,
    },
}

impl Path {
    /// Opens what a client wants, and says so as a `Transport` header does. `free`: channels for it where it names none.
    ///
    /// # Errors
    /// There are no ports.
    pub async fn open(wanted: Wanted, free: u8, local: IpAddr, peer: IpAddr) -> io::Result<(Self, String)> {
        Ok(match wanted {
            Wanted::Interleaved(channels) => {
                let (rtp, rtcp) = channels.unwrap_or((free, free + 1));
                (Self::Interleaved { rtp, rtcp }, format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}"))
            }
            Wanted::Datagrams(rtp_port, rtcp_port) => {
                let (rtp, rtcp) = ports::pair(local).await?;
                // Nowhere else than to who asked, and from nobody else.
                rtp.connect(SocketAddr::new(peer, rtp_port)).await?;
                rtcp.connect(SocketAddr::new(peer, rtcp_port)).await?;
                let ours = (rtp.local_addr()?.port(), rtcp.local_addr()?.port());
                let said =
                    format!("RTP/AVP;unicast;client_port={rtp_port}-{rtcp_port};server_port={}-{}", ours.0, ours.1);
                (Self::Datagrams { rtp, rtcp }, said)
            }
        })
    }

    /// Whether RTCP of its client comes on that channel.
    pub fn hears_on(&self, channel: u8) -> bool {
        matches!(self, Self::Interleaved { rtcp, .. } if *rtcp == channel)
    }

    /// Ready once its client has sent RTCP.
    pub fn poll_rtcp(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Datagrams { rtcp, .. } = self else { return Poll::Pending };
        loop {
            let mut bytes = [0; 1_500];
            let mut read = ReadBuf::new(&mut bytes);
            match rtcp.poll_recv(cx, &mut read) {
                Poll::Ready(Ok(())) if rtcp::is_rtcp(read.filled()) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
                // Nobody is there (any more): its session will fall silent.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
