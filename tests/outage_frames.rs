//! Every frame that cameras sent around an outage is at headquarters, by hash and to the tick: the real program,
//! GStreamer's cameras, mosquitto and moto's S3 behind a line that is broken. What was sent and what is held are
//! compared by `rig/units.py`, with nothing of the gateway's own. `scripts/prove/outage` does the same for ten minutes
//! in network namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/s3.rs"]
mod s3;
mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use gateway::{Site, quiet_port};
use serde_json::{Value, json};
use support::{cameras_with, eventually, mosquitto};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
const AROUND_US: i64 = 30_000_000;

/// The backhaul. While it is broken, connections stay as they are and nothing gets through, not even their end.
#[derive(Default, Clone)]
struct Line(Arc<(Mutex<bool>, Condvar)>);

impl Line {
    /// A port of loopback that leads to another one, over this line.
    fn lead(&self, to: u16) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, line) = (listener.local_addr().unwrap().port(), self.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (line, from, to) = (line.clone(), from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || line.carry(from, to));
                }
            }
        });
        port
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut part = vec![0; 64 * 1024];
        loop {
            let n = from.read(&mut part).unwrap_or(0);
            drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |broken| *broken).unwrap());
            if n == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if to.write_all(&part[..n]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    fn set_broken(&self, broken: bool) {
        *self.0.0.lock().unwrap() = broken;
        self.0.1.notify_all();
    }
}

/// What `rig/units.py` says of cameras (id, mount) in this window.
fn compared(dir: &Path, store: u16, cameras: &[(&str, &str)], window: (i64, i64)) -> Output {
    let camera = |(id, mount): &(&str, &str)| json!({"id": id, "mount": mount, "windows": [[window.0, window.1]]});
    let plan = json!({
        "sent": dir.join("sent"), "work": dir, "district": "saddar",
        "store": format!("http://127.0.0.1:{store}/evidence"),
        "cameras": cameras.iter().map(camera).collect::<Vec<_>>(),
    });
    let file = dir.join("plan.json");
    std::fs::write(&file, plan.to_string()).unwrap();
    Command::new("python3").arg(support::rig().join("units.py")).arg(file).output().expect("python3")
}

#[test]
fn every_frame_that_cameras_sent_around_an_outage_is_at_headquarters_by_hash_and_to_the_tick() {
    let dir = tempfile::tempdir().unwrap();
    let sent = dir.path().join("sent");
    std::fs::create_dir(&sent).unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let store = s3::moto(quiet_port(), None).expect("moto_server; ./scripts/test installs what the tests need");
    s3::make_bucket(store.port);
    let rig = cameras_with(quiet_port(), 1, &["--log", sent.to_str().unwrap()]);
    let line = Line::default();
    let (mqtt, objects) = (line.lead(broker.port), line.lead(store.port));
    let url = |mount: &str| format!("rtsp://127.0.0.1:{}/{mount}", rig.port);
    let site = Site::new().buttons(1).secret("s3.password", "test").with(&format!(
        "[headquarters]\nmqtt = \"mqtt://127.0.0.1:{mqtt}\"\nobjects = \"s3://evidence\"\n[headquarters.s3]\n\
         endpoint = \"http://127.0.0.1:{objects}\"\nregion = \"us-east-1\"\naccess_key_id = \"test\"\n\
         secret_key_file = \"s3.password\"\npath_style = true\n"
    ));
    let site = site.camera("g711", 10, &url("cam0")).camera("aac", 20, &url("aac"));
    let gateway = site.start();
    let backhaul = |state: &str| {
        eventually(LONG, state, || (gateway.get("/v1/status").json()["backhaul"] == state).then_some(()));
    };
    backhaul("up");
    gateway.cameras_settled(2, Duration::ZERO);
    let from = now_us();
    std::thread::sleep(5 * SECOND);

    line.set_broken(true);
    backhaul("down");
    std::thread::sleep(3 * SECOND);
    line.set_broken(false);
    let works = now_us();
    eventually(2 * LONG, "the outage's recordings end", || {
        (gateway.log().matches("the outage's recording ended").count() == 2).then_some(())
    });
    // The status is looked at once a second.
    std::thread::sleep(2 * SECOND);
    eventually(LONG, "they are at headquarters, and listed", || {
        (gateway.get("/v1/status").json()["pending_objects"] == 0).then_some(())
    });

    let window = (from, works + AROUND_US);
    let said = compared(dir.path(), store.port, &[("g711", "cam0"), ("aac", "aac")], window);
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{text}");
    let found: Value = serde_json::from_slice(&said.stdout).unwrap();
    for camera in found.as_array().unwrap() {
        assert!(camera["video"]["there"].as_u64().unwrap() > 30 * 30, "{text}");
    }
    assert!(found[1]["audio"]["there"].as_u64().unwrap() > 30 * 15, "{text}");

    // The comparison tells: of another camera's frames not one is there.
    let said = compared(dir.path(), store.port, &[("aac", "cam0")], window);
    assert_eq!(said.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(found[0]["video"]["there"], 0);
    assert_eq!(found[0]["video"]["missing"], found[0]["video"]["sent"]);
}

/// Microseconds since 1970.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
