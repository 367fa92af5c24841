//! A crowd of MQTT buttons on raw sockets, and headquarters' subscriber beside them: what `scripts/bench` measures with.
//! It speaks MQTT 3.1.1 by hand so that no client library is measured, needs nothing but the standard library, and
//! prints one line of JSON.
//!
//! ```text
//! load press  --to PORT --hq PORT --filter TOPIC --buttons N --rate R --seconds S   press -> headquarters, latency
//! load puback --to PORT --connections N --window W --seconds S                      press -> PUBACK, throughput
//! load idle   --to PORT --connections N --keep-alive S                              connects, says so, pings until
//!                                                                                   its input ends
//! load one    --to PORT --button ID                                                 a single press
//! ```
//! A PORT is one of this machine, or `ADDRESS:PORT`.
//! `press --spans FILE` also writes every latency, in milliseconds, one a line.
//! Buttons are called `b0000`, `b0001`, ... and log in with the password `--password` (default: `bench`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on should say so and end")]
#![allow(clippy::disallowed_methods, reason = "threads of a program of its own")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;
const PINGREQ: [u8; 2] = [0xc0, 0];

fn main() {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let mut options = Options(HashMap::new());
    while let Some(key) = words.next() {
        options.0.insert(key, words.next().unwrap_or_default());
    }
    match command.as_str() {
        "press" => press(&options),
        "puback" => puback(&options),
        "idle" => idle(&options),
        "one" => one(&options),
        // `cargo bench` runs every bench; this one needs peers, which scripts/bench starts.
        _ => println!("load press|puback|idle|one: see scripts/bench"),
    }
}

struct Options(HashMap<String, String>);

impl Options {
    fn get<T: FromStr>(&self, key: &str, default: Option<T>) -> T {
        match self.0.get(key) {
            Some(text) => text.parse().unwrap_or_else(|_| panic!("{key} {text} is not understood")),
            None => default.unwrap_or_else(|| panic!("{key} is needed")),
        }
    }
    fn text(&self, key: &str, default: &str) -> String {
        self.get(key, Some(default.to_owned()))
    }
}

// ---- the commands

/// Presses at a steady rate, one button after the other, and the time until the subscriber at headquarters reads each.
fn press(options: &Options) {
    let (port, hq): (String, String) = (options.get("--to", None), options.get("--hq", None));
    let (buttons, seconds): (usize, f64) = (options.get("--buttons", Some(1000)), options.get("--seconds", Some(10.0)));
    let rate: f64 = options.get("--rate", None);
    let filter = options.text("--filter", "chowki/+/incidents/+");
    let mark = mark();
    let presses = (rate * seconds) as usize;
    let log = Arc::new(Log::new(presses));

    let crowd: Vec<Button> = (0..buttons).map(|i| Button::connect(&port, i, options, true)).collect();
    let writers: Vec<_> = crowd.iter().map(|b| b.socket.clone()).collect();
    let last_pid: Vec<_> = crowd.iter().map(|b| b.last.clone()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads: Vec<_> = crowd.into_iter().map(|b| small(move |log| b.answer(log), &log)).collect();
    threads.push({
        let (mark, stop) = (mark.clone(), stop.clone());
        let mut hq = connect(&hq, "bench-hq", None, 60);
        hq.write_all(&subscribe(&filter)).unwrap();
        small(move |log| watch(hq, &mark, log, &stop), &log)
    });
    // Retained documents and the sessions' own beginnings are not measured.
    thread::sleep(Duration::from_millis(500));

    let begun = Instant::now();
    for i in 0..presses {
        let due = begun + Duration::from_secs_f64(i as f64 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (button, pid) = (i % buttons, (i / buttons) as u16 + 1);
        let packet = press_packet(button, pid, &format!("{mark}{i:07}"));
        let socket = writers[button].lock().unwrap();
        last_pid[button].store(i as u64 + 1, Relaxed);
        log.sent[i].store(log.now(), Relaxed);
        (&*socket).write_all(&packet).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while log.missing(presses) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    stop.store(true, Relaxed);
    for socket in &writers {
        let _ = socket.lock().unwrap().shutdown(Shutdown::Both);
    }
    let seen = spans(&log.sent, &log.seen);
    let acked = spans(&log.sent, &log.acked);
    if let Some(file) = options.0.get("--spans") {
        std::fs::write(file, seen.iter().map(|ms| format!("{ms:.4}\n")).collect::<String>()).unwrap();
    }
    println!(
        "{{\"presses\":{presses},\"lost\":{},\"documents\":{},\"bytes\":{},\"p50_ms\":{:.3},\"p90_ms\":{:.3},\"p99_ms\":{:.3},\
         \"max_ms\":{:.3},\"puback_p50_ms\":{:.3},\"puback_p99_ms\":{:.3}}}",
        log.missing(presses),
        log.documents.load(Relaxed),
        log.bytes.load(Relaxed),
        quantile(&seen, 0.5),
        quantile(&seen, 0.9),
        quantile(&seen, 0.99),
        quantile(&seen, 1.0),
        quantile(&acked, 0.5),
        quantile(&acked, 0.99),
    );
    std::process::exit(0);
}

/// As many presses as are acknowledged, a window of them under way on each connection.
fn puback(options: &Options) {
    let port: String = options.get("--to", None);
    let connections: usize = options.get("--connections", Some(50));
    let window: usize = options.get("--window", Some(50));
    let seconds: f64 = options.get("--seconds", Some(5.0));
    let warm: f64 = options.get("--warm", Some(1.0));
    let mark = mark();
    let acked = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    for i in 0..connections {
        let button = Button::connect(&port, i, options, false);
        let (acked, stop, mark) = (acked.clone(), stop.clone(), mark.clone());
        thread::spawn(move || button.pump(i, window, &mark, &acked, &stop));
    }
    thread::sleep(Duration::from_secs_f64(warm));
    let (before, begun) = (acked.load(Relaxed), Instant::now());
    thread::sleep(Duration::from_secs_f64(seconds));
    let (count, took) = (acked.load(Relaxed) - before, begun.elapsed().as_secs_f64());
    stop.store(true, Relaxed);
    println!("{{\"acknowledged\":{count},\"seconds\":{took:.3},\"per_second\":{:.0}}}", count as f64 / took);
    std::process::exit(0);
}

/// Connections that only say that they are there.
fn idle(options: &Options) {
    let port: String = options.get("--to", None);
    let connections: usize = options.get("--connections", Some(2000));
    let keep_alive: u16 = options.get("--keep-alive", Some(60));
    let sockets: Vec<TcpStream> = (0..connections)
        .map(|i| {
            let button = Button::connect(&port, i, options, true);
            let socket = button.socket.lock().unwrap().try_clone().unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    println!("{{\"connected\":{connections}}}");
    let over = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let over = over.clone();
        move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            over.store(true, Relaxed);
        }
    });
    // Each pings twice in a keep-alive, all of them spread evenly over it.
    let gap = Duration::from_secs_f64(f64::from(keep_alive) / 2.0 / connections as f64);
    let begun = Instant::now();
    let mut lost = 0;
    for turn in 0u32.. {
        if over.load(Relaxed) {
            break;
        }
        thread::sleep((begun + gap * turn).saturating_duration_since(Instant::now()));
        let mut socket = &sockets[turn as usize % connections];
        lost += u32::from(socket.write_all(&PINGREQ).is_err());
        // The answer to the ping before.
        let mut answer = [0; 64];
        match socket.read(&mut answer) {
            Ok(0) => lost += 1,
            Err(e) if e.kind() != ErrorKind::WouldBlock => lost += 1,
            _ => {}
        }
    }
    println!("{{\"lost\":{lost}}}");
}

/// One press, acknowledged.
fn one(options: &Options) {
    let id = options.text("--button", "b0000");
    let mut socket = connect(&options.text("--to", ""), &id, Some(&options.text("--password", "bench")), 60);
    let payload = format!("{{\"press\":\"{}\"}}", mark());
    socket.write_all(&publish(&format!("buttons/{id}/press"), 1, payload.as_bytes())).unwrap();
    let mut packets = Packets::new(socket);
    while packets.next().expect("the connection ended without a PUBACK").0 & 0xf0 != PUBACK {}
    println!("{{\"acknowledged\":1}}");
}

// ---- one button

struct Button {
    socket: Arc<Mutex<TcpStream>>,
    /// Number of its last press, from 1; 0 before the first.
    last: Arc<AtomicU64>,
}

impl Button {
    fn connect(port: &str, number: usize, options: &Options, listens: bool) -> Self {
        let id = format!("b{number:04}");
        let keep_alive = options.get("--keep-alive", Some(60));
        let mut socket = connect(port, &id, Some(&options.text("--password", "bench")), keep_alive);
        if listens {
            socket.write_all(&subscribe(&format!("buttons/{id}/state"))).unwrap();
            let granted = Packets::new(socket.try_clone().unwrap()).next().expect("no SUBACK");
            assert_eq!(granted.0 & 0xf0, SUBACK, "not a SUBACK");
        }
        Self { socket: Arc::new(Mutex::new(socket)), last: Arc::default() }
    }

    /// Reads what comes down: notes acknowledgements, acknowledges states.
    fn answer(&self, log: &Log) {
        let mut packets = Packets::new(self.socket.lock().unwrap().try_clone().unwrap());
        while let Some((kind, body)) = packets.next() {
            match kind & 0xf0 {
                PUBACK => {
                    let last = self.last.load(Relaxed) as usize;
                    if last > 0 {
                        // At these rates a button has one press under way at a time.
                        let _ = log.acked[last - 1].compare_exchange(0, log.now(), Relaxed, Relaxed);
                    }
                }
                PUBLISH if kind & 6 == 2 => {
                    let pid = pid_of(&body);
                    let _ = (&*self.socket.lock().unwrap()).write_all(&[PUBACK, 2, pid[0], pid[1]]);
                }
                _ => {}
            }
        }
    }

    /// Keeps `window` presses under way.
    fn pump(&self, number: usize, window: usize, mark: &str, acked: &AtomicU64, stop: &AtomicBool) {
        let mut socket = self.socket.lock().unwrap();
        let mut packets = Packets::new(socket.try_clone().unwrap());
        let (mut sent, mut free, mut out) = (0u32, window, Vec::new());
        while !stop.load(Relaxed) {
            out.clear();
            for _ in 0..free {
                sent += 1;
                let pid = (sent % 65_000 + 1) as u16;
                out.extend(press_packet(number, pid, &format!("{mark}{number:03}{sent:07}")));
            }
            socket.write_all(&out).unwrap();
            free = 0;
            // Everything that is here already is one answer.
            while free == 0 || packets.has_more() {
                let Some((kind, _)) = packets.next() else { return };
                free += usize::from(kind & 0xf0 == PUBACK);
            }
            acked.fetch_add(free as u64, Relaxed);
        }
    }
}

/// Headquarters: notes when each press is first read in whatever document.
fn watch(mut socket: TcpStream, mark: &str, log: &Log, stop: &AtomicBool) {
    let mut packets = Packets::new(socket.try_clone().unwrap());
    while let Some((kind, body)) = packets.next() {
        if kind & 0xf0 != PUBLISH {
            continue;
        }
        let now = log.now();
        log.documents.fetch_add(1, Relaxed);
        log.bytes.fetch_add(body.len() as u64, Relaxed);
        for at in finds(&body, mark.as_bytes()) {
            let digits = body.get(at + mark.len()..at + mark.len() + 7);
            let number = digits.and_then(|d| std::str::from_utf8(d).ok()?.parse::<usize>().ok());
            if let Some(seen) = number.and_then(|n| log.seen.get(n)) {
                let _ = seen.compare_exchange(0, now, Relaxed, Relaxed);
            }
        }
        if kind & 6 == 2 {
            let pid = pid_of(&body);
            socket.write_all(&[PUBACK, 2, pid[0], pid[1]]).unwrap();
        }
    }
    assert!(stop.load(Relaxed), "headquarters' broker hung up");
}

// ---- what is noted

/// Nanoseconds since the start, 0 for never.
struct Log {
    start: Instant,
    sent: Vec<AtomicU64>,
    acked: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    documents: AtomicU64,
    bytes: AtomicU64,
}

impl Log {
    fn new(presses: usize) -> Self {
        let zeros = || (0..presses).map(|_| AtomicU64::new(0)).collect();
        let (documents, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { start: Instant::now(), sent: zeros(), acked: zeros(), seen: zeros(), documents, bytes }
    }
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
    fn missing(&self, presses: usize) -> usize {
        presses - self.seen.iter().filter(|s| s.load(Relaxed) > 0).count()
    }
}

/// Milliseconds from one to the other, sorted; those that never came are left out.
fn spans(from: &[AtomicU64], to: &[AtomicU64]) -> Vec<f64> {
    let both = from.iter().zip(to).map(|(a, b)| (a.load(Relaxed), b.load(Relaxed)));
    let mut spans: Vec<f64> = both.filter(|(_, b)| *b > 0).map(|(a, b)| (b - a) as f64 / 1e6).collect();
    spans.sort_by(f64::total_cmp);
    spans
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Presses of one run begin with the same letters, those of another with others.
fn mark() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("p{:012x}-", now.as_micros() & 0xffff_ffff_ffff)
}

fn small(work: impl FnOnce(&Log) + Send + 'static, log: &Arc<Log>) -> thread::JoinHandle<()> {
    let log = log.clone();
    thread::Builder::new().stack_size(128 * 1024).spawn(move || work(&log)).unwrap()
}

// ---- MQTT 3.1.1

fn connect(port: &str, id: &str, password: Option<&str>, keep_alive: u16) -> TcpStream {
    let at = if port.contains(':') { port.to_owned() } else { format!("127.0.0.1:{port}") };
    let mut socket = TcpStream::connect(at).expect("nobody listens");
    socket.set_nodelay(true).unwrap();
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([4, if password.is_some() { 0xc2 } else { 0x02 }]);
    body.extend(keep_alive.to_be_bytes());
    text(&mut body, id);
    if let Some(password) = password {
        text(&mut body, id);
        text(&mut body, password);
    }
    socket.write_all(&packet(0x10, &body)).unwrap();
    let answer = Packets::new(socket.try_clone().unwrap()).next();
    assert!(matches!(&answer, Some((CONNACK, body)) if body[1] == 0), "{id} is not let in: {answer:?}");
    socket
}

fn press_packet(button: usize, pid: u16, id: &str) -> Vec<u8> {
    publish(&format!("buttons/b{button:04}/press"), pid, format!("{{\"press\":\"{id}\"}}").as_bytes())
}

fn publish(topic: &str, pid: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend(pid.to_be_bytes());
    body.extend(payload);
    packet(PUBLISH | 2, &body)
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut rest = body.len();
    loop {
        let more = if rest > 127 { 0x80 } else { 0 };
        out.push((rest & 127) as u8 | more);
        rest >>= 7;
        if more == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// The packet identifier of a PUBLISH of quality 1.
fn pid_of(body: &[u8]) -> [u8; 2] {
    let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    [body[at], body[at + 1]]
}

fn finds<'a>(hay: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let starts = hay.iter().enumerate().filter(|(_, b)| **b == needle[0]).map(|(i, _)| i);
    starts.filter(|i| hay[*i..].starts_with(needle))
}

/// A socket cut into packets.
struct Packets(BufReader<TcpStream>);

impl Packets {
    fn new(socket: TcpStream) -> Self {
        Self(BufReader::with_capacity(4096, socket))
    }

    /// Type byte and body; nothing when the connection ends.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let kind = self.byte()?;
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            len |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).ok()?;
        Some((kind, body))
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.0.fill_buf().ok()?.first()?;
        self.0.consume(1);
        Some(byte)
    }

    /// Whether a packet has been read from the socket already.
    fn has_more(&self) -> bool {
        self.0.buffer().len() >= 2
    }
}
