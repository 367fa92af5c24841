//! The one UDP port of all sessions: datagrams in with the address they came to, datagrams out in runs of equal size.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use str0m::net::Protocol;
use tokio::{io::Interest, net::UdpSocket};

use super::framing::LARGEST;

/// Datagrams read at a time.
const AT_ONCE: usize = 16;
/// Asked of the kernel for bursts: a key frame goes out at once.
const BUFFER: usize = 4 << 20;

/// A bound port.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    dropped: AtomicU64,
}

/// A datagram as it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    /// How it came.
    pub protocol: Protocol,
    /// Who sent it.
    pub from: SocketAddr,
    /// Which of our addresses it was sent to.
    pub to: SocketAddr,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Socket {
    /// Binds. Call it in a runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        // As much as the kernel lets us.
        let _ = state.set_send_buffer_size((&socket).into(), BUFFER);
        let _ = state.set_recv_buffer_size((&socket).into(), BUFFER);
        let io = UdpSocket::from_std(socket)?;
        let local = io.local_addr()?;
        Ok(Self { io, state, local, dropped: AtomicU64::new(0) })
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that the kernel had no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Most datagrams that go out together.
    pub fn run(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Waits for datagrams and hands on each.
    pub async fn receive(&self, buffer: &mut Buffer, mut each: impl FnMut(Received<'_>)) -> io::Result<()> {
        let mut slices: Vec<IoSliceMut<'_>> = buffer.bytes.chunks_mut(buffer.each).map(IoSliceMut::new).collect();
        let read = || self.state.recv((&self.io).into(), &mut slices, &mut buffer.meta);
        let count = self.io.async_io(Interest::READABLE, read).await?;
        for (meta, bytes) in buffer.meta.iter().zip(&slices).take(count) {
            let to = SocketAddr::new(meta.dst_ip.unwrap_or(self.local.ip()).to_canonical(), self.local.port());
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let whole = bytes.get(..meta.len).unwrap_or_default();
            whole
                .chunks(meta.stride.max(1))
                .for_each(|bytes| each(Received { protocol: Protocol::Udp, from, to, bytes }));
        }
        Ok(())
    }

    /// Sends datagrams of `size` bytes each, the last at most that. What the kernel has no room for is lost, as it may be
    /// anywhere on the way.
    pub fn send(&self, from: IpAddr, to: SocketAddr, bytes: &[u8], size: usize) {
        let count = bytes.len().div_ceil(size.max(1));
        let transmit = Transmit {
            destination: self.family(to),
            ecn: None,
            contents: bytes,
            segment_size: (count > 1).then_some(size),
            src_ip: (!from.is_unspecified() && self.local.ip().is_unspecified()).then_some(from),
        };
        let sent = self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), &transmit));
        if sent.is_err() {
            self.dropped.fetch_add(count as u64, Relaxed);
        }
    }

    /// An address as this socket's family writes it.
    fn family(&self, address: SocketAddr) -> SocketAddr {
        match (self.local, address) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            _ => address,
        }
    }
}

/// Room for what is read at a time.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    each: usize,
    meta: Vec<RecvMeta>,
}

impl Buffer {
    pub fn of(socket: &Socket) -> Self {
        let each = LARGEST * socket.state.gro_segments().max(1);
        Self { bytes: vec![0; AT_ONCE * each], each, meta: vec![RecvMeta::default(); AT_ONCE] }
    }
}

/// Datagrams on their way out, gathered into runs: those to one peer of one size go with one call to the kernel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    size: usize,
    count: usize,
    way: Option<(IpAddr, SocketAddr)>,
}

impl Outbox {
    /// Takes the next datagram; sends what cannot go together with it.
    pub fn push(&mut self, socket: &Socket, from: IpAddr, to: SocketAddr, datagram: &[u8]) {
        let full = self.bytes.len() == self.size * self.count;
        let fits = self.bytes.len() + datagram.len() <= usize::from(u16::MAX) - 64 && self.count < socket.run();
        let together = self.way == Some((from, to)) && full && datagram.len() <= self.size && fits;
        if !together {
            self.flush(socket);
            (self.way, self.size) = (Some((from, to)), datagram.len());
        }
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }

    /// Sends what is held.
    pub fn flush(&mut self, socket: &Socket) {
        if let Some((from, to)) = self.way.take() {
            socket.send(from, to, &self.bytes, self.size);
        }
        self.bytes.clear();
        self.count = 0;
    }
}
