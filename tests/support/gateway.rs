//! The real program, with a config of its own, started, killed and started again.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use chowki::district::incident::Incident;
use serde_json::Value;
use tempfile::TempDir;

use super::support::eventually;

/// A gateway in a debug build on a busy machine takes this long at most to do what it does at once.
pub const SOON: Duration = Duration::from_secs(20);

/// A TCP port that stays free between two starts: outside the range that outgoing connections take theirs from.
pub fn quiet_port() -> u16 {
    let mut at = std::process::id()
        .wrapping_mul(2_654_435_761)
        .wrapping_add(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos());
    loop {
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let port = 12_000 + ((at >> 8) % 20_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// What a gateway is configured to be: a folder with its config, secrets and data.
pub struct Site {
    pub dir: TempDir,
    pub mqtt: u16,
    pub api: u16,
    data: PathBuf,
    head: String,
    sections: String,
}

impl Site {
    /// A district without anything in it, `saddar`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (mqtt, api) = (quiet_port(), quiet_port());
        Self { dir, mqtt, api, data, head: "keep_free = \"0MiB\"\n".into(), sections: String::new() }
    }

    /// Another folder for the data, and more lines under `[data]`.
    pub fn data(mut self, dir: &Path, lines: &str) -> Self {
        self.data = dir.to_owned();
        self.head = format!("{lines}\n");
        self
    }

    /// More of the config.
    pub fn with(mut self, toml: &str) -> Self {
        self.sections.push_str(toml);
        self.sections.push('\n');
        self
    }

    /// A file of one line beside the config.
    pub fn secret(self, name: &str, content: &str) -> Self {
        let path = self.dir.path().join(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        writeln!(file, "{content}").unwrap();
        self
    }

    /// A button whose password is [`password`], with more lines.
    pub fn button(self, id: &str, lines: &str) -> Self {
        let toml = format!(
            "[[button]]\nid = \"{id}\"\nname = \"Button {id}\"\nat = [34.0, 71.5]\npassword_file = \"{id}.password\"\n{lines}"
        );
        self.secret(&format!("{id}.password"), &password(id)).with(&toml)
    }

    /// Several buttons without more: `b1` to `bN`.
    pub fn buttons(self, n: usize) -> Self {
        (1..=n).fold(self, |site, i| site.button(&format!("b{i}"), ""))
    }

    /// A camera `metres` north of every button, of the rig.
    pub fn camera(self, id: &str, metres: u32, url: &str) -> Self {
        let lat = 34.0 + f64::from(metres) / 111_195.0;
        let toml = format!(
            "[[camera]]\nid = \"{id}\"\nname = \"Camera {id}\"\nat = [{lat:.7}, 71.5]\nurl = \"{url}\"\n\
             username = \"admin\"\npassword_file = \"cameras.password\"\nrange = 200\n"
        );
        self.secret("cameras.password", "test").with(&toml)
    }

    /// Headquarters: a broker on a port of loopback, and a directory for the evidence.
    pub fn headquarters(self, broker: u16) -> Self {
        let objects = self.objects();
        std::fs::create_dir_all(&objects).unwrap();
        let toml = format!(
            "[headquarters]\nmqtt = \"mqtt://127.0.0.1:{broker}\"\nobjects = \"file://{}\"\n",
            objects.display()
        );
        self.with(&toml)
    }

    /// Seconds of evidence before and after a press.
    pub fn window(self, before: u32, after: u32) -> Self {
        self.with(&format!("[evidence]\nbefore = \"{before}s\"\nafter = \"{after}s\"\nringing = \"0s\"\n"))
    }

    /// Where headquarters' directory is.
    pub fn objects(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    /// Where the gateway keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Where the logs of all starts are.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn write(&self) -> PathBuf {
        let (mqtt, api, data, head) = (self.mqtt, self.api, self.data.display(), &self.head);
        let toml = format!(
            "[district]\nid = \"saddar\"\n[data]\ndir = \"{data}\"\n{head}\n[broker]\nlisten = \"127.0.0.1:{mqtt}\"\n\
             max_per_address = 4000\n{}\n",
            self.sections
        );
        // `[api]` is written last, so that a test's own `[[api.client]]` stands where it may.
        let toml = match toml.contains("[api]") {
            true => toml.replace("[api]", &format!("[api]\nlisten = \"127.0.0.1:{api}\"")),
            false => format!("{toml}[api]\nlisten = \"127.0.0.1:{api}\"\n"),
        };
        let path = self.dir.path().join("district.toml");
        std::fs::write(&path, toml).unwrap();
        path
    }

    /// Checks what a gateway left on its disk: `chowki fsck` finds nothing but notes.
    pub fn assert_clean(&self) {
        let out = Command::new(env!("CARGO_BIN_EXE_chowki")).args(["fsck", "--json"]).arg(&self.data).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let why = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let index = log.lines().filter(|line| line.contains("index")).collect::<Vec<_>>().join("\n");
            panic!(
                "fsck finds more than notes ({}): {why}{said}\nwhat the gateway said of its index:\n{index}",
                out.status
            );
        }
    }

    /// Whether it has ever kept something.
    pub fn has_spool(&self) -> bool {
        self.data.join("journal").is_dir() && self.data.join("media").is_dir()
    }

    /// Starts it, and waits until it is ready.
    pub fn start(&self) -> Gateway<'_> {
        let gateway = self.spawn(&[]);
        gateway.ready();
        gateway
    }

    /// Starts it with more in its environment, and does not wait.
    pub fn spawn(&self, environment: &[(&str, &str)]) -> Gateway<'_> {
        let config = self.write();
        let log = OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_chowki"))
            .args(["run", "--config"])
            .arg(config)
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Gateway { child, mqtt: self.mqtt, api: self.api, site: self }
    }
}

/// The password of a button or a client of the tests.
pub fn password(id: &str) -> String {
    format!("password-of-{id}")
}

/// The program, running. Killed when dropped; its log is shown when the test fails.
pub struct Gateway<'a> {
    pub child: Child,
    pub mqtt: u16,
    pub api: u16,
    site: &'a Site,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

impl Gateway<'_> {
    /// Waits until the API answers: it is served once everything else is.
    pub fn ready(&self) {
        eventually(SOON, "the gateway is ready", || self.try_http("GET", "/healthz", &[], "").map(drop));
    }

    /// A request; `None` when nobody answers.
    pub fn try_http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let mut stream = self.request(method, path, headers, body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
        let headers = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = headers.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, headers, body: answer[end + 4..].to_vec() })
    }

    /// A request whose answer is read by the caller, head first.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<TcpStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.api));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        // HTTP 1.0: the answer ends with the connection and comes in one piece.
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).ok()?;
        Some(stream)
    }

    /// `GET`, whatever the status.
    pub fn get(&self, path: &str) -> Answer {
        self.try_http("GET", path, &[], "").unwrap_or_else(|| panic!("no answer to GET {path}"))
    }

    /// `GET` as the client with this token.
    pub fn get_as(&self, token: &str, path: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.try_http("GET", path, &[("Authorization", &bearer)], "").expect("an answer")
    }

    /// `POST` as the client with this token, or as nobody.
    pub fn post(&self, token: Option<&str>, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {}", token.unwrap_or_default());
        let headers: &[_] = if token.is_some() { &[("Authorization", bearer.as_str())] } else { &[] };
        self.try_http("POST", path, headers, body).expect("an answer")
    }

    /// Every incident, newest first.
    pub fn incidents(&self) -> Vec<Incident> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/incidents?limit=500{after}")).json();
            all.extend(serde_json::from_value::<Vec<Incident>>(page["incidents"].clone()).unwrap());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// Waits until the incident that is asked about reads as wanted.
    pub fn incident(&self, what: &str, wanted: impl Fn(&Incident) -> bool) -> Incident {
        eventually(SOON, what, || self.incidents().into_iter().find(|i| wanted(i)))
    }

    /// Waits until that many cameras send pictures, and have for as long as `before`.
    pub fn cameras_live(&self, n: u64, before: Duration) {
        eventually(SOON, "cameras live", || {
            let status = self.get("/v1/status").json();
            (status["cameras"]["good"].as_u64() == Some(n)).then_some(())
        });
        std::thread::sleep(before);
    }

    /// Waits until that many cameras send pictures and their clocks are known, and for as long as `before` from then on:
    /// a recording of that time has no break. A camera's first sender report comes within 3.1 s (half the least interval
    /// of RFC 3550 section 6.2, times 1.5, over e - 1.5); what it corrects waits for a key frame, 2 s apart in the rig.
    pub fn cameras_settled(&self, n: u64, before: Duration) {
        self.cameras_live(n, before + Duration::from_secs(6));
    }

    /// Everything it has logged, in all starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.site.log()).unwrap()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not end within {SOON:?} of SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it as a cut of power to the process would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut log = String::new();
            let _ = File::open(self.site.log()).and_then(|mut f| f.read_to_string(&mut log));
            let lines: Vec<_> = log.lines().collect();
            eprintln!("---- the gateway's log\n{}", lines[lines.len().saturating_sub(150)..].join("\n"));
        }
    }
}
