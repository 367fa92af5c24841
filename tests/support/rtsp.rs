//! A camera that does what a test tells it: RTSP over one TCP connection at a time, RTP interleaved.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// What it offers.
pub const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=scripted\r\nt=0 0\r\na=control:*\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=64001E;\
    sprop-parameter-sets=Z2QAHqwsaoLA9puCgIKgAAADACAAAAMD0IAA,aO4xshsA\r\na=control:video\r\n";

/// What the script drives: a session that plays.
pub struct Playing {
    stream: TcpStream,
    sequence: u16,
    pub ssrc: u32,
}

impl Playing {
    /// Sends a picture, an IDR one when `key`. `false` when the client has gone.
    pub fn picture(&mut self, rtp: u32, key: bool) -> bool {
        let mut packet = vec![0x80, 0x80 | 96];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(rtp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.push(if key { 0x65 } else { 0x41 });
        packet.extend([0x88; 200]);
        self.sequence = self.sequence.wrapping_add(1);
        self.send(0, &packet)
    }

    /// Sends a sender report (RFC 3550 section 6.4.1).
    pub fn sender_report(&mut self, rtp: u32, ntp: u64) -> bool {
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(ntp.to_be_bytes());
        packet.extend(rtp.to_be_bytes());
        packet.extend([0; 8]);
        self.send(1, &packet)
    }

    /// Sends pictures at 25 a second from `rtp` on, the first a key frame and then every 25th, for `count`.
    pub fn pictures(&mut self, rtp: u32, count: u32) -> bool {
        (0..count).all(|i| {
            std::thread::sleep(Duration::from_millis(40));
            self.picture(rtp.wrapping_add(i * 3_600), i % 25 == 0)
        })
    }

    /// Leaves out packets.
    pub fn lose(&mut self, packets: u16) {
        self.sequence = self.sequence.wrapping_add(packets);
    }

    /// Sends whatever bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn send(&mut self, channel: u8, packet: &[u8]) -> bool {
        let mut framed = vec![b'$', channel];
        framed.extend((packet.len() as u16).to_be_bytes());
        framed.extend(packet);
        self.raw(&framed)
    }
}

/// A scripted camera; runs until the test's process ends.
pub struct Camera {
    pub port: u16,
    /// Connections that asked to play.
    pub played: Arc<AtomicUsize>,
}

/// Starts one. `script` is called for each session, with its number from 0; when it returns the connection closes.
pub fn camera(script: impl Fn(usize, &mut Playing) + Send + Sync + 'static) -> Camera {
    camera_that_offers(SDP, script)
}

/// One that offers something else.
pub fn camera_that_offers(sdp: &'static str, script: impl Fn(usize, &mut Playing) + Send + Sync + 'static) -> Camera {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let played = Arc::new(AtomicUsize::new(0));
    let (script, count) = (Arc::new(script), played.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (script, count) = (script.clone(), count.clone());
            std::thread::spawn(move || {
                if let Some(mut playing) = shake_hands(stream, sdp) {
                    script(count.fetch_add(1, Ordering::SeqCst), &mut playing);
                    let _ = playing.stream.shutdown(Shutdown::Both);
                }
            });
        }
    });
    Camera { port, played }
}

fn shake_hands(stream: TcpStream, sdp: &str) -> Option<Playing> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    loop {
        let request = request(&mut lines)?;
        let (method, cseq) = (request.first()?.split(' ').next()?.to_owned(), header(&request, "cseq")?);
        let url = request.first()?.split(' ').nth(1)?.to_owned();
        let extra = match method.as_str() {
            "DESCRIBE" => format!(
                "Content-Base: {url}/\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
                sdp.len()
            ),
            "SETUP" => "Session: 1;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".into(),
            _ => "Session: 1\r\n\r\n".into(),
        };
        (&stream).write_all(format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{extra}").as_bytes()).ok()?;
        if method == "PLAY" {
            let reader = stream.try_clone().ok()?;
            // Reads what the client still says, so that a full socket never stops it.
            std::thread::spawn(move || std::io::copy(&mut { reader }, &mut std::io::sink()));
            return Some(Playing { stream, sequence: 100, ssrc: 7 });
        }
    }
}

fn request(lines: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut request = Vec::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            let length = header(&request, "content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            lines.read_exact(&mut vec![0; length]).ok()?;
            return Some(request);
        }
        request.push(line.to_owned());
    }
}

fn header(request: &[String], name: &str) -> Option<String> {
    request
        .iter()
        .filter_map(|l| l.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim().to_owned())
}
