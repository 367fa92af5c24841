//! The RTSP dialogue with a unit (RFC 2326): requests, their answers, and the proof of who we are, on one connection that
//! carries interleaved sound too.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use http_auth::{PasswordClient, PasswordParams};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

use super::{
    failed::{ANSWER, Failed},
    rtsp,
};
use crate::{
    district::{
        clock::Mono,
        inventory::{Login, Source},
    },
    host::clock,
    wire::message::{self, Incoming, Response},
};

/// For who we are.
const AGENT: (&str, &str) = ("User-Agent", concat!("chowki/", env!("CARGO_PKG_VERSION")));
/// Bytes that the kernel may keep for us: half a second of sound with all that the kernel adds.
const SEND_BUFFER: u32 = 8 << 10;

/// The RTSP connection.
pub(super) struct Dialogue {
    stream: TcpStream,
    pub at: SocketAddr,
    login: Option<Login>,
    proof: Option<PasswordClient>,
    number: u32,
    /// The session, once there is one.
    pub session: Option<String>,
    read: Vec<u8>,
    /// Not taken by the kernel yet; at most a packet and a request.
    pub unsent: Vec<u8>,
    /// Since when something waits there.
    pub stuck: Option<Mono>,
}

impl Dialogue {
    /// Connects to a unit, by the first of its addresses that answers.
    pub async fn connect(source: &Source) -> Result<Self, Failed> {
        let host = source.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = source.url.port().unwrap_or(554);
        let addresses = resolve(host, port).await?;
        let mut last = None;
        for at in addresses {
            match timeout(ANSWER, connect(at)).await {
                Ok(Ok(stream)) => {
                    let login = source.login.clone();
                    let (read, unsent) = (Vec::new(), Vec::new());
                    let (proof, session, stuck) = (None, None, None);
                    return Ok(Self { stream, at, login, proof, number: 0, session, read, unsent, stuck });
                }
                Ok(Err(source)) => last = Some(Failed::Connect { at, source }),
                Err(_) => last = Some(Failed::Connect { at, source: io::ErrorKind::TimedOut.into() }),
            }
        }
        let none = || Failed::Name { host: host.to_owned(), source: io::ErrorKind::NotFound.into() };
        Err(last.unwrap_or_else(none))
    }

    /// Our end of the connection.
    pub fn local_ip(&self) -> io::Result<IpAddr> {
        self.stream.local_addr().map(|at| at.ip())
    }

    /// Asks, and waits for the answer; proves who we are when that is wanted.
    pub async fn ask(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Response, Failed> {
        for is_last in [false, true] {
            let number = self.send_request(method, uri, headers)?;
            let answer = timeout(ANSWER, self.answer(number)).await;
            let answer = answer.map_err(|_| Failed::Slow { at: self.at, what: method.to_owned() })??;
            if answer.status != 401 {
                return Ok(answer);
            }
            if is_last {
                break;
            }
            self.challenged(&answer)?;
        }
        Err(Failed::Login { at: self.at })
    }

    /// An answer that says yes.
    pub fn accepted(&self, what: &str, answer: Response) -> Result<Response, Failed> {
        match answer.status {
            200..=299 => Ok(answer),
            status => {
                let (what, reason) = (what.to_owned(), answer.reason.chars().take(80).collect());
                Err(Failed::Refused { at: self.at, what, status, reason })
            }
        }
    }

    /// Takes what the unit wants as a proof of who we are.
    pub fn challenged(&mut self, answer: &Response) -> Result<(), Failed> {
        let at = self.at;
        if self.login.is_none() {
            return Err(Failed::NoLogin { at });
        }
        let all = answer.headers.all("www-authenticate");
        let proof = all.fold(PasswordClient::builder(), |builder, one| builder.challenges(one)).build();
        self.proof = Some(proof.map_err(|why| Failed::Challenge { at, why })?);
        Ok(())
    }

    /// Sends a request; its number.
    pub fn send_request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<u32, Failed> {
        self.number += 1;
        let number = self.number.to_string();
        let mut all = vec![("CSeq", number.as_str()), AGENT];
        let proof = match (&mut self.proof, &self.login) {
            (Some(proof), Some(Login { username, password })) => {
                let params = PasswordParams { username, password: password.reveal(), uri, method, body: Some(&[]) };
                Some(proof.respond(&params).map_err(|why| Failed::Challenge { at: self.at, why })?)
            }
            _ => None,
        };
        all.extend(proof.as_deref().map(|proof| ("Authorization", proof)));
        all.extend(self.session.as_deref().map(|session| ("Session", session)));
        all.extend(headers);
        self.unsent.extend(rtsp::request(method, uri, &all));
        self.write_some()?;
        Ok(self.number)
    }

    async fn answer(&mut self, number: u32) -> Result<Response, Failed> {
        loop {
            while let Some(message) = self.next()? {
                if let Incoming::Response(answer) = message
                    && answer.headers.number().is_none_or(|n| n == number)
                {
                    return Ok(answer);
                }
            }
            self.ready().await?;
        }
    }

    /// The next message that has been read. Requests of the unit's own are told that we do nothing for it.
    pub fn next(&mut self) -> Result<Option<Incoming>, Failed> {
        let at = self.at;
        let message = message::take(&mut self.read).map_err(|source| Failed::Malformed { at, source })?;
        if let Some(Incoming::Request(request)) = &message
            && let Some(number) = request.headers.number()
            && self.unsent.is_empty()
        {
            self.unsent.extend(format!("RTSP/1.0 501 Not Implemented\r\nCSeq: {number}\r\n\r\n").into_bytes());
            self.write_some()?;
        }
        Ok(message)
    }

    /// Waits until something could be read or written, and does it.
    pub async fn ready(&mut self) -> Result<(), Failed> {
        let at = self.at;
        let broke = |source| Failed::Broke { at, source };
        let interest =
            if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(interest).await.map_err(broke)?;
        if ready.is_writable() {
            self.write_some()?;
        }
        if ready.is_readable() {
            let mut some = [0; 4096];
            match self.stream.try_read(&mut some) {
                Ok(0) => return Err(Failed::Closed { at }),
                // What is read is taken off message by message, and none may be longer than 80 KiB.
                Ok(n) => self.read.extend(&some[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(broke(source)),
            }
        }
        Ok(())
    }

    /// Writes what the kernel takes now.
    pub fn write_some(&mut self) -> Result<(), Failed> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(clock::mono);
                    return Ok(());
                }
                Err(source) => return Err(Failed::Broke { at: self.at, source }),
            }
        }
        self.stuck = None;
        Ok(())
    }

    /// Writes all that waits.
    pub async fn flush(&mut self) -> Result<(), Failed> {
        while !self.unsent.is_empty() {
            self.ready().await?;
        }
        Ok(())
    }
}

/// The addresses of a name.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failed> {
    let unknown = |source| Failed::Name { host: host.to_owned(), source };
    match timeout(ANSWER, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(source)) => Err(unknown(source)),
        Err(_) => Err(unknown(io::ErrorKind::TimedOut.into())),
    }
}

async fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_nodelay(true)?;
    socket.connect(at).await
}
