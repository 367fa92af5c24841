//! `chowki pull`: what headquarters has afterwards is what the gateway holds, and nothing is fetched twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/s3.rs"]
mod s3;
mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gateway::{Site, quiet_port};
use mqtt::{Button, Headquarters};
use serde_json::Value;
use support::{cameras, eventually, mosquitto};

fn pull(into: &str, args: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_chowki")).args(["pull", "--json", "--into", into]).args(args).output();
    run.unwrap()
}

fn report(run: &Output) -> Value {
    let text = String::from_utf8_lossy(&run.stdout);
    serde_json::from_str(text.lines().next().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&run.stderr)))
}

/// All files below a folder.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(name, bytes)| (path.join(name), bytes)));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    let within = |path: PathBuf| path.strip_prefix(dir).map(Path::to_owned).unwrap_or(path);
    all.into_iter().map(|(path, bytes)| (within(path), bytes)).collect()
}

/// A line to a gateway that breaks after so many bytes of answers, once for each of them.
fn breaking(to: u16, after: Vec<u64>) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, carried) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let total = carried.clone();
    std::thread::spawn(move || {
        let after = Arc::new(std::sync::Mutex::new(after));
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
            let (mut up, mut out) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up, &mut out));
            let (after, total) = (after.clone(), total.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 8_192];
                while let Ok(n @ 1..) = server.read(&mut bytes) {
                    let now = total.fetch_add(n as u64, Relaxed) + n as u64;
                    let mut after = after.lock().unwrap();
                    if after.first().is_some_and(|limit| now > *limit) {
                        after.remove(0);
                        let _ = (client.shutdown(std::net::Shutdown::Both), server.shutdown(std::net::Shutdown::Both));
                        return;
                    }
                    drop(after);
                    if client.write_all(&bytes[..n]).is_err() {
                        return;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (port, carried)
}

#[test]
fn what_is_pulled_is_what_headquarters_was_sent_and_a_line_that_breaks_costs_only_what_was_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().headquarters(broker.port).window(3, 3).buttons(1);
    let site = site.camera("c1", 10, &url).with("record = \"always\"\n");
    let site = site
        .secret("puller.token", "token-of-puller")
        .with("[api]\n[[api.client]]\nname = \"puller\"\nrole = \"puller\"\ntoken_file = \"puller.token\"\n");
    let gateway = site.start();
    std::thread::sleep(Duration::from_secs(4));
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    let incident = hq.incident("all evidence of the press", Duration::from_secs(40), evidence::all_there);
    let token = site.dir.path().join("puller.token").display().to_string();
    let address = format!("http://127.0.0.1:{}", gateway.api);

    // One that is down, and one that is not.
    let into = dir.path().join("mirror");
    let dead = format!("http://127.0.0.1:{}", quiet_port());
    let run = pull(into.to_str().unwrap(), &["--token-file", &token, &address, &dead]);
    assert_eq!(run.status.code(), Some(1), "something was not had");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let reports: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |address: &str| reports.iter().find(|r| r["gateway"] == address).unwrap();
    assert_eq!(of(&address)["failed"].as_array().unwrap().len(), 0, "{said}");
    assert_eq!(of(&dead)["failed"].as_array().unwrap().len(), 1, "{said}");
    let folder = format!("saddar/incidents/{}", incident.id);
    let (sent, pulled) = (files(&site.objects().join(&folder)), files(&into.join(&folder)));
    let of = |all: &BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<PathBuf, Vec<u8>> {
        let media = |name: &Path| name.extension().is_some_and(|ending| ending == "m4s" || ending == "mp4");
        all.iter().filter(|(name, _)| media(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    };
    assert!(of(&sent).len() > 3 && of(&sent) == of(&pulled), "{:?}", pulled.keys());
    assert!(pulled.contains_key(Path::new("incident.json")) && pulled.contains_key(Path::new("c1/manifest.json")));
    evidence::decodes(&into.join(&folder).join("c1/index.m3u8"));
    evidence::proven(&into.join(&folder).join("c1"));

    // What was pulled is signed, and proves itself.
    let key =
        gateway.get_as("token-of-puller", "/v1/status").json()["identity"]["fingerprint"].as_str().unwrap().to_owned();
    let verified =
        Command::new(env!("CARGO_BIN_EXE_chowki")).args(["verify", "--key", &key]).arg(&into).output().unwrap();
    assert!(
        verified.status.success(),
        "{}{}",
        String::from_utf8_lossy(&verified.stdout),
        String::from_utf8_lossy(&verified.stderr)
    );

    // Again: nothing is fetched. A damaged object is mended once its incident changes.
    let again = report(&pull(into.to_str().unwrap(), &["--token-file", &token, &address]));
    assert_eq!((&again["fetched"], &again["incidents"]), (&0.into(), &0.into()), "{again}");
    let victim = into.join(&folder).join("c1/00001.m4s");
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let step = gateway.post(Some("token-of-puller"), &format!("/v1/incidents/{}/seen", incident.id), "");
    assert_eq!(step.status, 403);
    button.press("p-2", "panic");
    button.until("p-2", "recorded");
    let mended = eventually(Duration::from_secs(30), "it changed", || {
        let again = report(&pull(into.to_str().unwrap(), &["--token-file", &token, &address]));
        (again["incidents"].as_u64()? > 0).then_some(again)
    });
    assert!(mended["kept"].as_u64().unwrap() > 2, "{mended}");
    assert_eq!(std::fs::read(&victim).unwrap(), of(&sent)[Path::new("c1/00001.m4s")]);

    // Recordings, over a line that breaks three times: each byte comes once.
    let until = chowki::host::clock::wall().before(Duration::from_secs(2));
    let from = until.before(Duration::from_secs(8));
    // A busy machine may write a little later.
    eventually(Duration::from_secs(20), "all of it is on disk", || {
        let held = gateway.get_as("token-of-puller", &format!("/v1/cameras/c1/coverage?from={from}&to={until}")).json();
        let to = held["intervals"].as_array()?.last()?["to"].as_str()?.parse::<chowki::district::clock::Utc>().ok()?;
        (until.since(to) < Duration::from_millis(5)).then_some(())
    });
    let (port, carried) = breaking(gateway.api, vec![300_000, 900_000, 1_500_000]);
    let interval = [format!("--from={from}"), format!("--until={until}")];
    let interval: Vec<&str> = interval.iter().map(String::as_str).collect();
    let args = [&["--token-file", &token, "--no-incidents", "--recordings", "--camera", "c1"], &interval[..]].concat();
    let video = dir.path().join("video");
    let run = pull(video.to_str().unwrap(), &[&args[..], &[&format!("http://127.0.0.1:{port}")]].concat());
    assert_eq!(run.status.code(), Some(0), "{}", report(&run));
    let all = files(&video);
    let recording: Vec<_> = all.iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "mp4")).collect();
    assert_eq!(recording.len(), 1, "{:?}", all.keys());
    assert!(!all.keys().any(|name| name.to_str().unwrap().contains(".part")), "{:?}", all.keys());
    let (name, bytes) = recording[0];
    evidence::decodes(&video.join(name));
    let whole = gateway.get_as("token-of-puller", &format!("/v1/cameras/c1/recording.mp4?from={from}&to={until}"));
    assert!(whole.body == *bytes, "byte for byte");
    let more = carried.load(Relaxed) - bytes.len() as u64;
    assert!(more < bytes.len() as u64 / 4, "{more} bytes more than the {} of the file", bytes.len());
    assert!(all.keys().any(|name| name.to_str().unwrap().contains("coverage_")), "{:?}", all.keys());
    let again = report(&pull(video.to_str().unwrap(), &[&args[..], &[&address]].concat()));
    assert_eq!((&again["fetched"], &again["kept"]), (&0.into(), &1.into()), "{again}");
}

#[test]
fn an_object_store_is_filled_too_and_what_is_wrong_is_said() {
    let store = s3::moto(quiet_port(), None).expect("moto_server; ./scripts/test installs what the tests need");
    s3::make_bucket(store.port);
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().buttons(1).window(2, 2).camera("c1", 10, &url).with("record = \"always\"\n");
    let gateway = site.start();
    std::thread::sleep(Duration::from_secs(3));
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    std::thread::sleep(Duration::from_secs(5));
    std::fs::write(site.dir.path().join("secret"), "test").unwrap();
    let (endpoint, secret) =
        (format!("http://127.0.0.1:{}", store.port), site.dir.path().join("secret").display().to_string());
    let to_store = ["--s3-endpoint", &endpoint, "--s3-key-id", "test", "--s3-secret-file", &secret];
    let address = format!("http://127.0.0.1:{}", gateway.api);
    let from = chowki::host::clock::wall().before(Duration::from_secs(5)).to_string();
    let args = [&to_store[..], &["--recordings", "--from", &from, &address]].concat();
    let first = pull("s3://evidence", &args);
    assert_eq!(first.status.code(), Some(0), "{}", report(&first));
    let first = report(&first);
    assert!(first["incidents"] == 1 && first["fetched"].as_u64().unwrap() > 3, "{first}");
    let again = report(&pull("s3://evidence", &[&to_store[..], &[&address]].concat()));
    assert_eq!((&again["fetched"], again["failed"].as_array().unwrap().len()), (&0.into(), 0), "{again}");

    let into = site.dir.path().join("x").display().to_string();
    for (args, status) in [
        (vec![], 2),
        (vec!["ftp://10.0.0.1"], 2),
        (vec!["--token-file", "/nowhere", "http://127.0.0.1:1"], 66),
        (vec!["--gateways", "/nowhere"], 66),
        (vec!["--every", "soon", "http://127.0.0.1:1"], 2),
    ] {
        let run = pull(&into, &args);
        assert_eq!(run.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
        assert!(String::from_utf8_lossy(&run.stderr).len() > 20, "{args:?}");
    }
}
