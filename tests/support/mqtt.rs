//! MQTT peers: a button that does exactly what a test says, and headquarters' subscriber (mosquitto_sub).
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use chowki::district::{incident::Incident, press::StateMessage};

use super::support::{eventually, which};

/// What came down a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// PUBACK of a packet id.
    Ack(u16),
    /// A message: topic and payload.
    Message(String, Vec<u8>),
    /// SUBACK, PINGRESP.
    Other(u8),
    /// The connection ended.
    End,
}

/// A button's connection. What comes down is gathered by a thread of its own, messages acknowledged.
pub struct Button {
    stream: TcpStream,
    down: Arc<(Mutex<Vec<Down>>, Condvar)>,
    id: String,
    next: u16,
}

impl Button {
    /// Connects with the password of the tests and subscribes to its own state; `Err` when it is not let in.
    pub fn connect(port: u16, id: &str) -> io::Result<Self> {
        Self::connect_with(port, id, 60, &format!("buttons/{id}/state"))
    }

    /// The same with a keep-alive in seconds and a filter to subscribe to (none when empty).
    pub fn connect_with(port: u16, id: &str, keep_alive: u16, filter: &str) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend([4, 0b1100_0010]);
        body.extend(keep_alive.to_be_bytes());
        for part in [id, id, &super::gateway::password(id)] {
            text(&mut body, part);
        }
        stream.write_all(&framed(0x10, &body))?;
        match packet(&mut stream)? {
            (0x20, answer) if answer.get(1) == Some(&0) => {}
            other => return Err(io::Error::other(format!("not let in: {other:?}"))),
        }
        stream.set_read_timeout(None)?;
        let down = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        std::thread::spawn({
            let (stream, down) = (stream.try_clone()?, down.clone());
            move || gather(stream, &down)
        });
        let mut this = Self { stream, down, id: id.to_owned(), next: 0 };
        if !filter.is_empty() {
            let mut body = this.pid().to_be_bytes().to_vec();
            text(&mut body, filter);
            body.push(1);
            this.stream.write_all(&framed(0x82, &body))?;
            this.wait("SUBACK", Duration::from_secs(10), |d| *d == Down::Other(0x90));
        }
        Ok(this)
    }

    fn pid(&mut self) -> u16 {
        self.next = if self.next == u16::MAX { 1 } else { self.next + 1 };
        self.next
    }

    /// Publishes at QoS 1; gives the packet id.
    pub fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> io::Result<u16> {
        let pid = self.pid();
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend(pid.to_be_bytes());
        body.extend(payload.as_bytes());
        self.stream.write_all(&framed(0x32 | u8::from(retain), &body))?;
        Ok(pid)
    }

    /// Sends a press and does not wait.
    pub fn send_press(&mut self, press: &str, kind: &str) -> io::Result<u16> {
        let payload = format!(r#"{{"press":"{press}","kind":"{kind}"}}"#);
        self.publish(&format!("buttons/{}/press", self.id), &payload, false)
    }

    /// Presses, and waits for the PUBACK.
    pub fn press(&mut self, press: &str, kind: &str) {
        let pid = self.send_press(press, kind).unwrap();
        self.wait("PUBACK of the press", Duration::from_secs(20), |d| *d == Down::Ack(pid));
    }

    /// Reports its status and waits for the PUBACK.
    pub fn status(&mut self, json: &str) {
        let pid = self.publish(&format!("buttons/{}/status", self.id), json, true).unwrap();
        self.wait("PUBACK of the status", Duration::from_secs(20), |d| *d == Down::Ack(pid));
    }

    /// Everything that came down so far.
    pub fn down(&self) -> Vec<Down> {
        self.down.0.lock().unwrap().clone()
    }

    /// Whether something has come down.
    pub fn has(&self, wanted: impl FnMut(&Down) -> bool) -> bool {
        self.down.0.lock().unwrap().iter().any(wanted)
    }

    /// Waits for something; panics after `limit`.
    pub fn wait(&self, what: &str, limit: Duration, mut wanted: impl FnMut(&Down) -> bool) {
        let until = Instant::now() + limit;
        let mut down = self.down.0.lock().unwrap();
        while !down.iter().any(&mut wanted) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not in {limit:?}: {what}; came down: {down:?}");
            down = self.down.1.wait_timeout(down, left).unwrap().0;
        }
    }

    /// What came down after the first `read`, which is moved on; waits for something, at most `limit`.
    pub fn next(&self, read: &mut usize, limit: Duration) -> Vec<Down> {
        let down = self.down.0.lock().unwrap();
        let (down, _) = self.down.1.wait_timeout_while(down, limit, |d| d.len() <= *read).unwrap();
        let new = down[*read..].to_vec();
        *read = down.len();
        new
    }

    /// The states it was told, in order.
    pub fn states(&self) -> Vec<StateMessage> {
        let state = |d: &Down| match d {
            Down::Message(topic, payload) if topic.ends_with("/state") => serde_json::from_slice(payload).ok(),
            _ => None,
        };
        self.down().iter().filter_map(state).collect()
    }

    /// The names of the states it was told of a press, in order.
    pub fn told(&self, press: &str) -> Vec<String> {
        let of = |s: &StateMessage| s.press.as_ref().is_some_and(|p| p.to_string() == press);
        self.states().iter().filter(|s| of(s)).map(|s| name(&s.state)).collect()
    }

    /// Waits until it was told that of a press.
    pub fn until(&self, press: &str, state: &str) {
        eventually(super::gateway::SOON, &format!("{press} {state}"), || {
            self.told(press).iter().any(|s| s == state).then_some(())
        });
    }

    /// Ends without DISCONNECT.
    pub fn cut(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Button {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A progress as it is written.
pub fn name(state: &impl serde::Serialize) -> String {
    serde_json::to_value(state).unwrap().as_str().unwrap().to_owned()
}

fn gather(mut stream: TcpStream, down: &(Mutex<Vec<Down>>, Condvar)) {
    loop {
        let came = match packet(&mut stream) {
            Ok((0x40, body)) => Down::Ack(u16::from_be_bytes([body[0], body[1]])),
            Ok((head, body)) if head >> 4 == 3 => {
                let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8_lossy(&body[2..end]).into_owned();
                let mut payload = &body[end..];
                if head & 0x06 != 0 {
                    let _ = stream.write_all(&[0x40, 2, payload[0], payload[1]]);
                    payload = &payload[2..];
                }
                Down::Message(topic, payload.to_vec())
            }
            Ok((head, _)) => Down::Other(head),
            Err(_) => Down::End,
        };
        let end = came == Down::End;
        down.0.lock().unwrap().push(came);
        down.1.notify_all();
        if end {
            return;
        }
    }
}

fn packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let head = byte[0];
    let (mut length, mut shift) = (0usize, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn framed(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut n = body.len();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        out.push(if n > 0 { low | 0x80 } else { low });
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// A message at headquarters.
#[derive(Debug, Clone)]
pub struct Heard {
    pub retained: bool,
    pub topic: String,
    pub payload: String,
}

/// Headquarters: mosquitto_sub with a persistent session. It comes back by itself when the broker does.
pub struct Headquarters {
    child: Child,
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Headquarters {
    /// Subscribes to everything of every gateway.
    pub fn subscribe(port: u16) -> Self {
        Self::subscribe_as("hq", port)
    }

    /// The same with a session of its own.
    pub fn subscribe_as(session: &str, port: u16) -> Self {
        // Line by line: into a pipe, it would keep its first words to itself.
        let mut child = Command::new("stdbuf")
            .arg("-oL")
            .arg(which("mosquitto_sub"))
            .args(["-V", "mqttv311", "-d", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-c", "-i", session])
            .args(["-t", "chowki/#", "-F", "GOT %r %t %p"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub (apt-get install mosquitto-clients)");
        let heard = Arc::new(Mutex::new(Vec::<Heard>::new()));
        let subscribed = Arc::new(Mutex::new(false));
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn({
            let (heard, subscribed) = (heard.clone(), subscribed.clone());
            move || {
                // Whether the broker says of the message that comes next that it has delivered it before (MQTT 3.1.1 section
                // 3.3.1.1). It never says so because the gateway did.
                let mut again = false;
                for line in out.lines().map_while(Result::ok) {
                    if line.starts_with("Subscribed") {
                        *subscribed.lock().unwrap() = true;
                    } else if line.contains(" received PUBLISH (d") {
                        again = line.contains(" received PUBLISH (d1,");
                    } else if let Some(got) = line.strip_prefix("GOT ") {
                        let mut parts = got.splitn(3, ' ').map(str::to_owned);
                        let retained = parts.next().unwrap_or_default() == "1";
                        let (topic, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                        let mut heard = heard.lock().unwrap();
                        // Of a broker's word that its reader has not acknowledged, to the letter, there is no second one.
                        let is_known = again && heard.iter().any(|h| h.topic == topic && h.payload == payload);
                        if !std::mem::take(&mut again) || !is_known {
                            heard.push(Heard { retained, topic, payload });
                        }
                    }
                }
            }
        });
        eventually(Duration::from_secs(10), "headquarters is subscribed", || subscribed.lock().unwrap().then_some(()));
        Self { child, port, heard }
    }

    /// Everything it has heard, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Every revision of every incident's document, in the order of arrival.
    pub fn documents(&self) -> Vec<Incident> {
        let of_incident = |h: &Heard| h.topic.starts_with("chowki/saddar/incidents/");
        let parse =
            |h: &Heard| serde_json::from_str(&h.payload).unwrap_or_else(|e| panic!("{e} in a document: {}", h.payload));
        self.heard().iter().filter(|h| of_incident(h)).map(parse).collect()
    }

    /// The highest revision of each incident.
    pub fn latest(&self) -> BTreeMap<String, Incident> {
        let mut latest: BTreeMap<String, Incident> = BTreeMap::new();
        for document in self.documents() {
            let known = latest.get(&document.id.to_string()).map_or(0, |d| d.revision);
            if document.revision >= known {
                latest.insert(document.id.to_string(), document);
            }
        }
        latest
    }

    /// Waits until an incident's latest document reads as wanted.
    pub fn incident(&self, what: &str, limit: Duration, wanted: impl Fn(&Incident) -> bool) -> Incident {
        eventually(limit, what, || self.latest().into_values().find(|i| wanted(i)))
    }

    /// What it has heard on one topic.
    pub fn on(&self, topic: &str) -> Vec<String> {
        self.heard().into_iter().filter(|h| h.topic == topic).map(|h| h.payload).collect()
    }

    /// Publishes a command.
    pub fn command(&self, json: &str) {
        publish(self.port, "chowki/saddar/commands", json);
    }
}

/// Publishes as headquarters does, with mosquitto_pub.
pub fn publish(port: u16, topic: &str, payload: &str) {
    let done = Command::new(which("mosquitto_pub"))
        .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic, "-m", payload])
        .status()
        .expect("mosquitto_pub (apt-get install mosquitto-clients)");
    assert!(done.success());
}

impl Drop for Headquarters {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that no incident's revision went back on its way, repeats allowed.
pub fn assert_revisions_never_go_back(documents: &[Incident]) {
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for document in documents {
        let known = newest.entry(document.id.to_string()).or_default();
        let all = || documents.iter().filter(|d| d.id == document.id).map(|d| d.revision).collect::<Vec<_>>();
        assert!(document.revision >= *known, "{}: {} after {known}, of {:?}", document.id, document.revision, all());
        *known = document.revision;
    }
}

/// Asserts that no two incidents hold one press, and gives all presses with their incident.
pub fn presses(incidents: &[Incident]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for incident in incidents {
        for press in incident.presses.iter().filter_map(|p| p.press.as_ref()) {
            let key = format!("{} {press}", incident.button.id);
            if all.insert(key.clone(), incident.id.to_string()).is_some() {
                twice.insert(key);
            }
        }
    }
    assert!(twice.is_empty(), "presses in more than one place: {twice:?}");
    all
}
