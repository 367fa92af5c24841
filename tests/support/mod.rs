//! Real peers for the tests, started on loopback and stopped when dropped.
#![allow(dead_code, reason = "each test binary uses some of them")]
#![allow(clippy::disallowed_methods, reason = "tests wait by the real clock")]

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The folder of the tests' equipment.
pub fn rig() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig")
}

/// A free TCP port on loopback.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until something accepts on a port of loopback; panics with `what` after ten seconds.
pub fn wait_for_port(port: u16, what: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
        assert!(Instant::now() < until, "{what} did not open port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `check` gives something; panics with `what` after `limit`.
pub fn eventually<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "did not happen in {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Opens a port of loopback that leads to another one, until the process ends.
pub fn lead(port: u16, to: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
            let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (mut near, mut far) = (near, far);
            std::thread::spawn(move || std::io::copy(&mut a, &mut far));
            std::thread::spawn(move || std::io::copy(&mut b, &mut near));
        }
    });
}

/// A child process that dies with its owner.
pub struct Peer {
    pub child: Child,
    pub port: u16,
}

impl Peer {
    /// Sends a signal by name: `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// mosquitto as headquarters' broker on `port` (0: any free one); `lines` go into its configuration.
pub fn mosquitto(port: u16, dir: &Path, lines: &str) -> Peer {
    let port = if port == 0 { free_port() } else { port };
    let conf = dir.join(format!("mosquitto-{port}.conf"));
    std::fs::write(&conf, format!("listener {port} 127.0.0.1\nallow_anonymous true\n{lines}\n")).unwrap();
    let child = Command::new(which("mosquitto"))
        .arg("-c")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto (apt-get install mosquitto)");
    let peer = Peer { child, port };
    wait_for_port(port, "mosquitto");
    peer
}

/// A TURN server (coturn) for user `turn` with the password `relay`, that relays on loopback; its files are in `dir`.
pub fn turn_server(dir: &Path) -> Peer {
    let port = free_port();
    let words = "-n --listening-ip 127.0.0.1 --relay-ip 127.0.0.1 --lt-cred-mech --user turn:relay --realm chowki \
                 --allow-loopback-peers --no-tls --no-dtls --no-cli --log-file stdout --listening-port";
    let child = Command::new(which("turnserver"))
        .args(words.split_whitespace())
        .arg(port.to_string())
        .args(["--pidfile", "turn.pid", "--userdb", "turn.db"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("turnserver (apt-get install coturn)");
    let peer = Peer { child, port };
    wait_for_port(port, "turnserver");
    peer
}

/// Finds a program on PATH or in the sbin folders that Debian leaves out of it.
pub fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|d| d.join(name))
        .find(|p| p.exists())
        .unwrap_or_else(|| panic!("{name} is not installed; ./scripts/test installs what the tests need"))
}

/// GStreamer's RTSP server with digest auth `admin:test`; see `rig/cameras.py` for its mounts.
/// Started in a session of its own, so that it can be stopped (SIGSTOP) and continued.
pub fn cameras(port: u16, n: usize) -> Peer {
    cameras_with(port, n, &[])
}

/// The same with more arguments for `cameras.py`.
pub fn cameras_with(port: u16, n: usize, extra: &[&str]) -> Peer {
    let port = if port == 0 { free_port() } else { port };
    let media = media();
    let mut child = Command::new("setsid")
        .arg("/usr/bin/python3")
        .arg(rig().join("cameras.py"))
        .args(["--port", &port.to_string(), "--n", &n.to_string(), "--media"])
        .arg(&media)
        .args(extra)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("setsid and python3");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ready") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "cameras.py ended; ./scripts/test installs what it needs");
    }
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    Peer { child, port }
}

/// The clips that the cameras serve, made once.
pub fn media() -> PathBuf {
    let dir = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/chowki-rig/media");
    let made = Command::new("sh").arg(rig().join("media.sh")).arg(&dir).status().unwrap();
    assert!(made.success(), "media.sh (needs ffmpeg)");
    dir
}
