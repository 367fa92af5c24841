//! One connection: requests in, answers and media out, all in one task.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::{sleep_until, timeout},
};

use super::{
    out::Out,
    sdp::Description,
    server::Server,
    session::{Next, Session},
    stage::Offer,
};
use crate::{
    district::clock::Mono,
    host::clock::{self, deadline},
    wire::{
        answer::{Answer, Status},
        digest::Challenge,
        message::{self, Incoming, MAX_BODY, MAX_HEAD, Malformed},
        rtcp,
    },
};

/// The kernel takes no more than that before it is on its way: what waits there is no longer ours to leave out.
const UNSENT: u32 = 128 << 10;
/// At the end what waits has so long to go.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of a client that sends no RTSP no more than that is read.
const HEARD_OUT: u64 = 1 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("its client closed it")]
    Closed,
    #[error("it failed: {0}")]
    Io(#[from] io::Error),
    #[error("its client: {0}")]
    Malformed(#[from] Malformed),
    #[error("its client took nothing any more")]
    Stuck,
    #[error("its client said nothing any more")]
    Silent,
    #[error("the camera's stream ended")]
    Camera,
    #[error("the camera's format is no longer what was described")]
    Changed,
    #[error("the camera is down")]
    Down,
    #[error("the server stops")]
    Stopping,
}

/// One connection.
pub(super) struct Connection {
    pub server: Arc<Server>,
    pub peer: SocketAddr,
    /// Our end of it.
    pub local: IpAddr,
    pub challenge: Challenge,
    /// The camera that was described last.
    pub described: Option<(String, Description)>,
    pub session: Option<Session>,
    socket: TcpStream,
    read: Vec<u8>,
    out: Out,
    heard: Mono,
}

impl Connection {
    /// One that has just been accepted.
    pub fn new(server: Arc<Server>, socket: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
        let (local, heard) = (socket.local_addr()?.ip(), clock::mono());
        let challenge = challenge(&server, heard)?;
        let (read, out) = (Vec::new(), Out::default());
        Ok(Self { server, peer, local, challenge, described: None, session: None, socket, read, out, heard })
    }

    /// Serves it until it ends or the server stops.
    pub async fn run(mut self, stopping: impl Future<Output = ()>) -> Ended {
        let ended = tokio::select! {
            ended = self.exchange() => ended.err().unwrap_or(Ended::Closed),
            () = stopping => Ended::Stopping,
        };
        let ended = match ended {
            Ended::Camera if self.is_down() => Ended::Down,
            ended => ended,
        };
        match ended {
            // As a camera without power: a reset, no goodbye.
            Ended::Down => _ = self.socket.set_zero_linger(),
            Ended::Closed | Ended::Io(_) | Ended::Stuck => {}
            Ended::Malformed(_) => {
                self.take_leave().await;
                self.hear_out().await;
            }
            _ => self.take_leave().await,
        }
        ended
    }

    /// Whether the camera that it plays has no power any more.
    fn is_down(&self) -> bool {
        let offer = self.session.as_ref().map(|session| self.server.stage.offer(&session.camera));
        matches!(offer, Some(Offer::Down))
    }

    async fn exchange(&mut self) -> Result<(), Ended> {
        loop {
            let now = clock::mono();
            while !self.out.waits()
                && let Some(message) = self.next_message()?
            {
                self.hear(message, now).await?;
                self.out.write(&self.socket)?;
            }
            let mut next = None;
            if let Some(session) = &mut self.session {
                session.fill(&mut self.out, now)?;
                self.out.write(&self.socket)?;
                next = session.send_datagrams(&mut self.out).await;
            }
            let patience = self.patience(now)?;
            let wake = next.map_or(patience, |next| next.min(patience));
            self.wait(wake).await?;
        }
    }

    /// Waits for the first of what there is to wait for, and takes it.
    async fn wait(&mut self, wake: Mono) -> Result<(), Ended> {
        let Self { socket, session, out, read, .. } = self;
        // What is read is taken off message by message. A client that does not take its answers is not read either.
        let interest = match (out.waits(), read.len() > MAX_HEAD + MAX_BODY) {
            (false, _) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (true, true) => Interest::WRITABLE,
        };
        let next = async {
            match session {
                Some(session) => session.next(out.is_empty()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = socket.ready(interest) => {
                let ready = ready?;
                if ready.is_writable() {
                    out.write(socket)?;
                }
                if ready.is_readable() && interest.is_readable() {
                    self.read_some()?;
                }
            }
            next = next => match (next, session) {
                (Next::Read(read), Some(session)) => session.take(read, out, clock::mono())?,
                _ => self.heard = clock::mono(),
            },
            () = sleep_until(deadline(wake)) => {}
        }
        Ok(())
    }

    fn read_some(&mut self) -> Result<(), Ended> {
        let mut some = [0; 4096];
        match self.socket.try_read(&mut some) {
            Ok(0) => Err(Ended::Closed),
            Ok(n) => {
                self.read.extend(&some[..n]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message that is whole; what is none is told so before the connection ends.
    fn next_message(&mut self) -> Result<Option<Incoming>, Ended> {
        message::take(&mut self.read).map_err(|why| {
            let status = match why {
                Malformed::TooLong => Status::RequestEntityTooLarge,
                Malformed::Line(_) => Status::BadRequest,
            };
            self.out.say(&Answer::new(status).bytes(None));
            why.into()
        })
    }

    async fn hear(&mut self, message: Incoming, now: Mono) -> Result<(), Ended> {
        match message {
            Incoming::Request(request) => {
                self.heard = now;
                let answer = self.answer(&request).await?;
                self.out.say(&answer.bytes(Some(&request)));
                if self.session.is_none() {
                    // Of one that has just been torn down.
                    self.out.datagrams.clear();
                }
            }
            Incoming::Packet(packet) => {
                let ours = self.session.as_ref().is_some_and(|session| session.hears_on(packet.channel));
                if ours && rtcp::is_rtcp(&packet.data) {
                    self.heard = now;
                }
            }
            // We ask nothing.
            Incoming::Response(_) => {}
        }
        Ok(())
    }

    /// Until when the client need not say or take anything.
    fn patience(&self, now: Mono) -> Result<Mono, Ended> {
        let silent = self.heard + self.server.limits.silence;
        let stuck = self.out.stuck().map(|since| since + self.server.limits.write);
        if stuck.is_some_and(|stuck| stuck <= now) {
            return Err(Ended::Stuck);
        }
        if silent <= now {
            return Err(Ended::Silent);
        }
        Ok(stuck.map_or(silent, |stuck| stuck.min(silent)))
    }

    /// Says goodbye.
    async fn take_leave(&mut self) {
        if let Some(session) = self.session.take() {
            session.end(&mut self.out);
        }
        let flushed = async {
            while self.out.write(&self.socket).is_ok() && self.out.waits() && self.socket.writable().await.is_ok() {}
        };
        // Whoever does not take it has gone.
        _ = timeout(LAST_WORDS, flushed).await;
    }

    /// Hears a client out to which nothing more is said: what is not read when a connection is closed would reset it, and
    /// the last answer with it.
    async fn hear_out(&mut self) {
        let heard_out = async {
            self.socket.shutdown().await?;
            tokio::io::copy(&mut (&mut self.socket).take(HEARD_OUT), &mut tokio::io::sink()).await
        };
        _ = timeout(LAST_WORDS, heard_out).await;
    }
}

/// A challenge that nobody has seen yet.
pub(super) fn challenge(server: &Server, now: Mono) -> io::Result<Challenge> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers to be had"))?;
    Ok(Challenge::new(server.stage.realm(), &random, now))
}
