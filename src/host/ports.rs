//! UDP ports for RTP.

use std::{io, net::IpAddr};

use tokio::net::UdpSocket;

/// Tries before there is none.
const TRIES: usize = 64;

/// Two sockets on neighbouring ports, the first even: RTP and its RTCP (RFC 3550 section 11).
///
/// # Errors
/// No such two are free, or the address is none of this machine's.
pub async fn pair(ip: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let rtp = UdpSocket::bind((ip, 0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 1 {
            continue;
        }
        // An even port is never the last one.
        match UdpSocket::bind((ip, port + 1)).await {
            Ok(rtcp) => return Ok((rtp, rtcp)),
            Err(why) => failed = why,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_has_neighbouring_ports_the_first_even() {
        let (rtp, rtcp) = pair([127, 0, 0, 1].into()).await.unwrap();
        let [rtp, rtcp] = [rtp, rtcp].map(|socket| socket.local_addr().unwrap().port());
        assert!(rtp % 2 == 0 && rtcp == rtp + 1);
    }
}
