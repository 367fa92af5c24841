//! A config and everything it names, checked: many faults at once, each with its place and its remedy; the examples
//! that stand in `config/`; real certificates, real ports, real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

mod support;

use std::{
    collections::BTreeMap,
    fs, io,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use chowki::{
    call::talkback::{Prompt, Prompts},
    cli,
    config::{self, Code, DiskSpace, Fault, FileRead, Host, Loaded, Nowhere, Objects, Ports, Severity},
    district::inventory::{ButtonCredential, RecordPolicy, Voice},
};

/// A host whose every file holds a secret, but those that are said to be otherwise.
#[derive(Default)]
struct Fake {
    files: BTreeMap<&'static str, io::ErrorKind>,
    contents: BTreeMap<&'static str, &'static [u8]>,
    exposed: Vec<&'static str>,
    disk: Option<u64>,
    memory: Option<u64>,
}

impl Host for Fake {
    fn read(&self, path: &Path) -> Option<io::Result<FileRead>> {
        let name = path.to_str().unwrap();
        Some(match self.files.get(name) {
            Some(kind) => Err((*kind).into()),
            None => {
                let bytes = self.contents.get(name).copied().unwrap_or(b"s3cret\n").to_vec();
                Ok(FileRead { bytes, world_readable: self.exposed.contains(&name) })
            }
        })
    }
    fn disk(&self, _: &Path) -> Option<io::Result<DiskSpace>> {
        self.disk.map(|total| Ok(DiskSpace { total }))
    }
    fn memory(&self) -> Option<u64> {
        self.memory
    }
}

const HEAD: &str = "[district]\nid = \"d\"\n[broker]\nlisten = \"0.0.0.0:1883\"\n";

fn faults(text: &str, host: &dyn Host) -> Vec<Fault> {
    match config::parse(text, "d.toml", host) {
        Ok(loaded) => loaded.warnings,
        Err(faults) => faults,
    }
}

fn good(text: &str) -> Loaded {
    config::parse(text, "d.toml", &Nowhere).unwrap_or_else(|f| panic!("{}", config::render_human(&f, false)))
}

/// The one fault of a config that is sound but for `rest`.
fn only(rest: &str) -> Fault {
    let mut all = faults(&format!("{HEAD}{rest}"), &Nowhere);
    all.retain(|f| f.code != Code::NoCamera);
    assert_eq!(all.len(), 1, "{}", config::render_human(&all, false));
    all.remove(0)
}

fn said(fault: &Fault) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}\n{}\n{}", fault.what, text(&fault.write), text(&fault.help))
}

const MANY: &str = r#"[district]
id = "saddar district"
bounds = [[33.99, 71.52], [34.02, 71.56]]

[data]
dir = "/var/lib/chowki"
media_quota = "80G"

[broker]
listn = "0.0.0.0:1883"
listen = "0.0.0.0:1883"
password = "hunter2"
[[broker.client]]
id = "siren"
password_file = "gone.password"
may_read = ["buttons/#/state", "buttons/saddar-1/state"]

[api]
listen = "127.0.0.1:1883"
[[api.client]]
name = "hq"
role = "operater"
token_file = "hq.token"

[headquarters]
mqtt = "http://hq.example.gov.pk"
objects = "/srv/evidence"

[evidence]
before = 30
cameras = 17
radius = -1

[[button]]
id = "saddar-01"
name = "Gate 1"
at = [71.53870, 34.00151]
password_file = "b.password"
silent_after = "90"

[[button]]
id = "saddar-01"
name = "Gate 2"
at = [34.00151, 71.53870]
password_file = "b.password"
radius = 5

[[camera]]
id = "unit-7"
name = "Mast"
at = [35.00160, 71.53850]
url = "rtsp://admin:hunter2@10.1.1.1/main"
facing = 120

[[camera]]
id = "cam-2"
at = [34.0]
url = "http://10.1.1.1/main"
fov = 90
field_of_view = 400
range = 5000
record = "everything"
"#;

#[test]
fn every_fault_is_told_at_once_with_its_place_and_what_to_write() {
    let host = Fake { files: [("gone.password", io::ErrorKind::NotFound)].into(), ..Fake::default() };
    let all = faults(MANY, &host);
    let expected: &[(usize, usize, Code, &str, &str)] = &[
        (2, 6, Code::BadValue, "not an id", "\"saddar-district\""),
        (7, 15, Code::BadValue, "\"G\" is not a unit of a size", "\"80GiB\""),
        (10, 1, Code::UnknownKey, "`listn` is not a key of [broker]", "listen"),
        (12, 1, Code::SecretInConfig, "no secret stands in the config", "leave it out"),
        (15, 17, Code::File, "there is no file gone.password", "install -m 600"),
        (16, 13, Code::BadValue, "'#' stands only as the whole last level", "\"buttons/#\""),
        (16, 32, Code::UnknownId, "there is no button \"saddar-1\"", "\"buttons/saddar-01/state\""),
        (19, 10, Code::Conflict, "taken by broker.listen on line 11", "\"127.0.0.1:1884\""),
        (22, 8, Code::BadValue, "\"operater\" is not one of", "\"operator\""),
        (26, 8, Code::BadValue, "begins with mqtts:// or mqtt://", "mqtts://"),
        (27, 11, Code::BadValue, "neither an s3:// nor a file:// URL", "\"file:///srv/evidence\""),
        (30, 10, Code::WrongType, "a duration with its unit", "\"30s\""),
        (31, 11, Code::BadValue, "17 is not between 0 and 16", "16"),
        (32, 10, Code::BadValue, "-1 is not above 0", "a number"),
        (37, 6, Code::OutsideBounds, "latitude and longitude are swapped", "at = [34.00151, 71.5387]"),
        (38, 17, Code::Duplicate, "2 buttons and clients have this one password", "of its own"),
        (39, 16, Code::BadValue, "has no unit", "\"90s\""),
        (42, 6, Code::Duplicate, "already stands on line 35", "an id that no other has"),
        (46, 1, Code::UnknownKey, "`radius` is not a key of button saddar-01", "[evidence]"),
        (49, 6, Code::Reserved, "\"unit-\" belong to", "\"cam-7\""),
        (51, 6, Code::OutsideBounds, "outside the district's bounds (line 3)", "inside them"),
        (52, 7, Code::SecretInConfig, "holds no user name or password", "rtsp://10.1.1.1/main"),
        (53, 10, Code::Geometry, "has a field of view", "field_of_view = 90"),
        (55, 1, Code::Missing, "the key `name` is missing", "name = "),
        (57, 6, Code::WrongType, "a place has two numbers, this has 1", "[34.00151, 71.53870]"),
        (58, 7, Code::BadValue, "begins with rtsp://", "rtsp://"),
        (59, 1, Code::UnknownKey, "`fov` is not a key", "field_of_view"),
        (60, 17, Code::Geometry, "400 is not between 1 and 360", "1 and 360"),
        (61, 9, Code::Geometry, "5000 is not above 0 and at most 2000", "2000"),
        (62, 10, Code::BadValue, "\"everything\" is not one of", "\"incident\", \"outage\", \"always\""),
    ];
    let human = config::render_human(&all, false);
    for (i, (line, column, code, what, write)) in expected.iter().enumerate() {
        let fault = all.get(i).unwrap_or_else(|| panic!("fault {i} is missing\n{human}"));
        assert_eq!((fault.line, fault.column, fault.code), (*line, *column, *code), "{fault:?}\n{human}");
        assert!(fault.what.contains(what), "{fault:?}");
        assert!(said(fault).split_once('\n').unwrap().1.contains(write), "{fault:?}");
        assert_eq!(fault.file, "d.toml");
    }
    assert_eq!(all.len(), expected.len(), "{human}");
    assert!(all.iter().all(|f| f.write.is_some() || f.help.is_some()), "{human}");
    for shown in [human, config::render_json(&all), config::render_human(&all, true), format!("{all:?}")] {
        assert!(!shown.contains("hunter2"), "a password is shown: {shown}");
    }
}

#[test]
fn the_json_report_has_every_fault_for_scripts() {
    let all = faults(MANY, &Nowhere);
    let json: serde_json::Value = serde_json::from_str(&config::render_json(&all)).unwrap();
    assert_eq!(json["errors"].as_u64().unwrap() as usize, all.iter().filter(|f| f.is_error()).count());
    assert_eq!(json["faults"].as_array().unwrap().len(), all.len());
    assert_eq!(json["faults"][0]["code"], "bad-value");
    assert_eq!(json["faults"][0]["line"], 2);
}

#[test]
fn several_syntax_errors_are_told_in_one_run_without_echoes() {
    let all = faults("[district]\nid = saddar\n\n[broker]\nlisten = \n[evidence]\nbefore = \"30\"\n", &Nowhere);
    let seen: Vec<_> = all.iter().map(|f| (f.line, f.code)).collect();
    assert_eq!(
        seen,
        [(2, Code::Syntax), (5, Code::Syntax), (7, Code::BadValue)],
        "{}",
        config::render_human(&all, false)
    );
    assert!(said(&all[0]).contains("quotes"), "{:?}", all[0]);
    let twice = faults(&format!("{HEAD}[district]\nid = \"e\"\n"), &Nowhere);
    assert_eq!((twice[0].line, twice[0].code), (5, Code::Syntax));
    assert!(said(&twice[0]).contains("once"), "{:?}", twice[0]);
}

#[test]
fn an_empty_file_is_told_which_sections_it_needs() {
    let all = faults("", &Nowhere);
    let seen: Vec<_> = all.iter().map(said).collect();
    assert_eq!(all.len(), 2, "{seen:?}");
    assert!(seen[0].contains("[district]\nid = ") && seen[1].contains("[broker]"), "{seen:?}");
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let Loaded { config, inventory, warnings } = good(HEAD);
    assert!(warnings.is_empty() && inventory.buttons().is_empty());
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
    assert!(config.headquarters.is_none() && config.broker.tls.is_none());
    assert_eq!(config.district.name, "d");
    assert_eq!((config.evidence.before, config.evidence.after), (Duration::from_secs(30), Duration::from_secs(60)));
    assert_eq!((config.evidence.cameras, config.evidence.radius_m), (4, 150.0));
    assert_eq!(config.evidence.debounce, Duration::from_secs(2));
    assert_eq!((config.data.media_quota, config.data.keep_free), (80 << 30, 2 << 30));
    assert_eq!((config.broker.max_connections, config.broker.max_per_address), (4096, 64));
    assert_eq!(config.media.ring_bytes, 64 << 20);
    assert_eq!(config.supervision.low_battery, 0.2);
}

#[test]
fn cameras_are_served_by_rtsp_where_that_is_asked_for_and_on_loopback_unless_told_otherwise() {
    let read = |lines: &str| good(&format!("{HEAD}{lines}")).config;
    assert!(read("").rtsp.is_none());
    let config = read("[rtsp]\n");
    assert_eq!(config.rtsp.as_ref().unwrap().listen.to_string(), "127.0.0.1:8554");
    assert!(config.listeners().iter().any(|(key, at)| *key == "rtsp.listen" && at.port() == 8554));
    let client = "[[api.client]]\nname = \"vms\"\nrole = \"puller\"\ntoken_file = \"t\"\n";
    let guarded = format!("{HEAD}[rtsp]\nlisten = \"0.0.0.0:8554\"\n{client}");
    let warnings = faults(&guarded, &Fake::default());
    assert!(warnings.iter().all(|fault| fault.code != Code::Exposed), "{}", config::render_human(&warnings, false));
}

#[test]
fn webrtc_by_tcp_is_told_the_addresses_of_udp_unless_it_has_its_own() {
    let read = |lines: &str| good(&format!("{HEAD}[webrtc]\npublic = \"203.0.113.7:8443\"\n{lines}")).config;
    assert!(read("").webrtc.tcp.is_none());
    let public = |lines: &str| {
        let config = read(lines);
        assert!(config.listeners().iter().any(|(key, at)| *key == "webrtc.tcp" && at.port() == 8444));
        config.webrtc.tcp.unwrap().public.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(public("tcp = \"0.0.0.0:8444\"\n"), ["203.0.113.7:8444"]);
    assert_eq!(public("tcp = \"0.0.0.0:8444\"\npublic_tcp = \"203.0.113.9:443\"\n"), ["203.0.113.9:443"]);
    // UDP has ports of its own.
    assert!(good(&format!("{HEAD}[webrtc]\nlisten = \"0.0.0.0:8444\"\ntcp = \"0.0.0.0:8444\"\n")).warnings.is_empty());
}

#[test]
fn rules_between_keys_are_told_where_they_break() {
    let camera = "[[camera]]\nid = \"c\"\nname = \"C\"\nat = [34.0, 71.5]\nurl = \"rtsp://10.0.0.1/a\"\n";
    let button = "[[button]]\nid = \"b\"\nname = \"B\"\nat = [34.0, 71.5]\n";
    let hq = "[headquarters]\nmqtt = \"mqtts://hq\"\nobjects = \"file:///e\"\n";
    let s3 = hq.replace("file:///e", "s3://evidence");
    let long = "b".repeat(60);
    let plain = "plain_http = \"whoever listens on this network may read along\"\n";
    let client = "[[api.client]]\nname = \"x\"\nrole = \"puller\"\n";
    for (rest, code, words) in [
        (format!("{camera}field_of_view = 90\n"), Code::Geometry, "facing = 120"),
        (format!("{camera}facing = -90\nfield_of_view = 90\n"), Code::Geometry, "270"),
        (format!("{camera}username = \"u\"\n"), Code::Missing, "password_file"),
        (format!("{camera}password_file = \"p\"\n"), Code::Missing, "username"),
        (format!("{camera}password = \"p\"\n"), Code::SecretInConfig, "password_file"),
        (format!("{camera}password_fil = \"p\"\n"), Code::UnknownKey, "password_file"),
        (camera.replace("\"c\"", "\"..\""), Code::BadValue, "begins with a letter or digit, not with '.'"),
        (
            camera.replace("[34.0, 71.5]", "[95, 200]"),
            Code::BadValue,
            "latitude 95 is not between -90 and 90, and longitude 200",
        ),
        (
            camera.replace("[34.0, 71.5]", "[nan, inf]"),
            Code::BadValue,
            "latitude NaN is not between -90 and 90, and longitude inf",
        ),
        (camera.replace("[34.0, 71.5]", "[34.0, 200]"), Code::BadValue, "longitude 200"),
        (button.to_owned(), Code::Missing, "password_file = \"buttons/b.password\""),
        (format!("{button}password_file = \"p\"\n[button.unit]\n"), Code::Missing, "screen = true"),
        (format!("{button}password_file = \"p\"\n[button.unit]\nscreen = true\n"), Code::Missing, "token_file"),
        (
            format!(
                "{button}password_file = \"p\"\n[button.unit]\nscreen = true\ntoken_file = \"t\"\ntalkback = \"onvif\"\n"
            ),
            Code::Conflict,
            "not both",
        ),
        (
            format!(
                "{button}password_file = \"p\"\n[button.unit]\nscreen = true\ntoken_file = \"t\"\nrecord = \"always\"\n"
            ),
            Code::NoEffect,
            "without url",
        ),
        (format!("{}password_file = \"p\"\n", button.replace("\"b\"", &format!("\"{long}\""))), Code::BadValue, "59"),
        (format!("{hq}username = \"u\"\n"), Code::Missing, "password_file"),
        (format!("{s3}[headquarters.s3]\naccess_key_id = \"a\"\n"), Code::Missing, "secret_key_file"),
        (format!("{s3}[headquarters.s3]\nsecret_key = \"a\"\n"), Code::SecretInConfig, "secret_key_file"),
        (s3.clone(), Code::Missing, "access key"),
        (format!("{s3}[headquarters.s3]\nregion = \"r\"\n"), Code::Missing, "access key"),
        (format!("{hq}[headquarters.s3]\n"), Code::NoEffect, "no effect"),
        (hq.replace("file:///e", "file://evidence"), Code::BadValue, "three slashes"),
        (hq.replace("mqtts://hq", "hq:1883"), Code::BadValue, "mqtts://"),
        ("[api]\nlisten = \"0.0.0.0:8080\"\n".to_owned(), Code::Exposed, "plain_http = \"whoever listens"),
        (format!("[api]\nlisten = \"0.0.0.0:8080\"\n{plain}"), Code::Exposed, "[[api.client]]"),
        (client.to_owned(), Code::Missing, "token_file"),
        (format!("{client}certificate = \"x\"\n"), Code::Missing, "client_ca = "),
        (
            format!(
                "[api.tls]\ncert = \"/c\"\nkey = \"/k\"\nclient_ca = \"/ca\"\n{client}certificate = \"x\"\n{}certificate = \"x\"\n",
                client.replace("name = \"x\"", "name = \"y\"")
            ),
            Code::Duplicate,
            "already stands",
        ),
        ("[api]\nlisten = 8080\n".to_owned(), Code::WrongType, "\"0.0.0.0:8080\""),
        ("[api]\nlisten = \"localhost:8080\"\n".to_owned(), Code::BadValue, "127.0.0.1:8080"),
        ("[rtsp]\nlisten = \"0.0.0.0:8554\"\n".to_owned(), Code::Exposed, "watch every camera"),
        ("[rtsp]\nlisten = \"127.0.0.1:8080\"\n".to_owned(), Code::Conflict, "taken by api.listen"),
        ("[rtsp]\nlisten = 8554\n".to_owned(), Code::WrongType, "\"0.0.0.0:8554\""),
        ("[webrtc]\ntcp = \"127.0.0.1:8080\"\n".to_owned(), Code::Conflict, "taken by api.listen"),
        ("[webrtc]\ntcp = \"0.0.0.0:1883\"\n".to_owned(), Code::Conflict, "\"0.0.0.0:1884\""),
        ("[webrtc]\npublic_tcp = \"203.0.113.7:443\"\n".to_owned(), Code::NoEffect, "without tcp"),
        ("[webrtc]\ntcp = \"0.0.0.0:8444\"\npublic_tcp = \"0.0.0.0:443\"\n".to_owned(), Code::BadValue, "router"),
        ("[evidence]\nafter = \"1d\"\n".to_owned(), Code::BadValue, "\"12h\""),
        ("[evidence]\nbefore = \"3m\"\n".to_owned(), Code::Memory, "ring_bytes = \"96MiB\""),
        ("[[district]]\nid = \"x\"\n".to_owned(), Code::Syntax, ""),
        ("[evidance]\nafter = \"1m\"\n".to_owned(), Code::UnknownKey, "evidence"),
        ("[[evidence]]\nafter = \"1m\"\n".to_owned(), Code::WrongType, "single brackets"),
        ("[camera]\nid = \"c\"\n".to_owned(), Code::WrongType, "[[camera]]"),
        ("[media]\nring_bytes = 64\n".to_owned(), Code::WrongType, "\"64B\""),
        ("[supervision]\nlow_battery = 20\n".to_owned(), Code::BadValue, "between 0 and 1"),
    ] {
        let fault = only(&rest);
        assert_eq!(fault.code, code, "{rest}\n{fault:?}");
        assert!(said(&fault).contains(words), "{rest}\n{fault:?}");
    }
}

#[test]
fn a_secret_in_the_path_or_query_of_a_url_is_a_fault_and_is_not_shown() {
    let camera = "[[camera]]\nid = \"c\"\nname = \"C\"\nat = [34.0, 71.5]\nurl = \"rtsp://10.0.0.1/a\"\n";
    for secret in [
        "?user=admin&password=hunter2",
        "?channel=1&pwd=hunter2&subtype=0",
        "?pass=hunter2",
        "/user=admin_password=hunter2_channel=1_stream=0.sdp?real_stream",
        "/user=admin&Password=hunter2/ch1",
    ] {
        for text in
            [camera.replace("/a\"", &format!("{secret}\"")), format!("{camera}sub_url = \"rtsp://10.0.0.2{secret}\"\n")]
        {
            let fault = only(&text);
            assert_eq!(fault.code, Code::SecretInConfig, "{text}\n{fault:?}");
            assert!(said(&fault).contains("no secret stands in the config"), "{fault:?}");
            assert!(said(&fault).contains("username = \"...\" and password_file"), "{fault:?}");
            let shown = config::render_human(std::slice::from_ref(&fault), false) + &format!("{fault:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
    let nowhere = only(&camera.replace("rtsp://10.0.0.1/a", "10.0.0.1?password=hunter2"));
    assert!(!format!("{nowhere:?}").contains("hunter2"), "{nowhere:?}");
    for fine in ["?channel=1&subtype=0", "/user=admin&password=&channel=1", "?compass=north"] {
        assert_eq!(
            good(&format!("{HEAD}{}", camera.replace("/a\"", &format!("{fine}\"")))).warnings.len(),
            0,
            "{fine}"
        );
    }
}

#[test]
fn a_file_that_holds_no_usable_secret_is_told_with_what_is_wrong_with_it() {
    let text = format!(
        "{HEAD}[[button]]\nid = \"b\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n[button.unit]\nurl = \"rtsp://10.0.0.1/a\"\n"
    );
    for (content, what, remedy) in [
        (&b"\xef\xbb\xbfs3cret\n"[..], "begins with a byte order mark", "save it as plain UTF-8"),
        (b"\xff\xfes\0", "is not UTF-8", "save it as plain UTF-8"),
        (b"s3\0cret", "holds a NUL character", "plain UTF-8"),
        (b"s3\ncret\n", "more than one line", "on one line"),
    ] {
        let all = faults(&text, &Fake { contents: [("p", content)].into(), ..Fake::default() });
        assert_eq!(all.iter().map(|f| f.code).collect::<Vec<_>>(), [Code::File], "{all:?}");
        assert!(all[0].what.contains(what) && said(&all[0]).contains(remedy), "{all:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p"), vec![b'x'; 3 << 20]).unwrap();
    let all = faults(&text, &config::Machine::new(dir.path(), Ports::Leave));
    let large = all.iter().find(|f| f.code == Code::File).unwrap();
    assert!(said(large).contains("larger than 1 MiB") && !said(large).contains("user read it"), "{large:?}");
}

#[test]
fn one_secret_for_several_is_told_with_the_lines_of_them() {
    let client = |name: &str, role: &str| {
        format!("[[api.client]]\nname = \"{name}\"\nrole = \"{role}\"\ntoken_file = \"{name}.token\"\n")
    };
    let text = format!("{HEAD}{}{}{}", client("a", "operator"), client("b", "puller"), client("c", "engineer"));
    let host = Fake { contents: [("c.token", &b"another"[..])].into(), ..Fake::default() };
    let all = faults(&text, &host);
    assert_eq!(
        all.iter().map(|f| (f.line, f.code, f.severity)).collect::<Vec<_>>(),
        [(12, Code::Duplicate, Severity::Error)]
    );
    assert!(all[0].what.contains("on line 8 has the same token"), "{all:?}");
    let button = |i: usize| {
        format!(
            "[[button]]\nid = \"b{i}\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"{i}\"\n[button.unit]\nurl = \"rtsp://10.0.0.{i}/a\"\n"
        )
    };
    let text = format!("{HEAD}{}", (0..40).map(button).collect::<String>());
    let all = faults(&text, &Fake { contents: [("7", &b"its own"[..])].into(), ..Fake::default() });
    assert_eq!(
        all.iter().map(|f| (f.line, f.code, f.severity)).collect::<Vec<_>>(),
        [(9, Code::Duplicate, Severity::Warning)]
    );
    assert!(all[0].what.contains("39 buttons and clients") && all[0].what.contains("on line 16"), "{all:?}");
    assert!(!said(&all[0]).contains("s3cret"));
}

#[test]
fn bounds_in_the_wrong_order_are_put_right() {
    let all = faults(
        "[broker]\nlisten = \"0.0.0.0:1883\"\n[district]\nid = \"d\"\nbounds = [[34.02, 71.56], [33.99, 71.52]]\n",
        &Nowhere,
    );
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].write.as_deref(), Some("[[33.99, 71.52], [34.02, 71.56]]"));
}

#[test]
fn an_id_in_a_topic_filter_that_no_button_has_is_told_with_the_one_meant() {
    let text = format!(
        "{HEAD}[[broker.client]]\nid = \"s\"\npassword_file = \"p\"\nmay_read = [\"buttons/saddar-1/state\", \"chowki/#\"]\n\
         [[button]]\nid = \"saddar-01\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n"
    );
    let all = faults(&text, &Nowhere);
    let unknown = all.iter().find(|f| f.code == Code::UnknownId).unwrap();
    assert_eq!((unknown.line, unknown.write.as_deref()), (8, Some("\"buttons/saddar-01/state\"")));
    assert!(all.iter().any(|f| f.code == Code::NoEffect && f.severity == Severity::Warning));
}

#[test]
fn a_filter_that_matches_no_topic_is_a_warning_with_the_one_meant() {
    let client =
        |filter: &str| format!("{HEAD}[[broker.client]]\nid = \"s\"\npassword_file = \"p\"\nmay_read = \"{filter}\"\n");
    for (filter, meant) in [
        ("buttons/+/stat", "\"buttons/+/state\""),
        ("buttons/+/pres", "\"buttons/+/press\""),
        ("buttons/+/statuss", "\"buttons/+/status\""),
        ("+/+/battery", "\"buttons/+/state\""),
        ("buttons/+/state/+", "\"buttons/+/state\""),
        ("buttons/+", "\"buttons/+/state\""),
        ("buttons", "\"buttons/+/state\""),
    ] {
        let warnings = good(&client(filter)).warnings;
        assert_eq!(warnings.iter().map(|f| (f.line, f.code)).collect::<Vec<_>>(), [(8, Code::NoEffect)], "{filter}");
        assert_eq!(warnings[0].write.as_deref(), Some(meant), "{filter}");
    }
    for fine in ["#", "+/#", "buttons/#", "buttons/+/#", "buttons/+/state/#", "buttons/+/+", "+/+/press"] {
        assert!(good(&client(fine)).warnings.is_empty(), "{fine}");
    }
}

#[test]
fn many_clients_with_ids_that_no_button_has_are_checked_in_a_blink() {
    let button = |i: usize| {
        format!(
            "[[button]]\nid = \"saddar-bazaar-cloth-lane-gate-{i:05}\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n"
        )
    };
    let client = |i: usize| {
        let filter = format!("buttons/saddar-bazar-cloth-lane-gate-{i:05}/state");
        format!("[[broker.client]]\nid = \"s{i}\"\npassword_file = \"p\"\nmay_read = \"{filter}\"\n")
    };
    let text =
        format!("{HEAD}{}{}", (0..1500).map(client).collect::<String>(), (0..1500).map(button).collect::<String>());
    let began = Instant::now();
    let all = faults(&text, &Nowhere);
    let took = began.elapsed();
    let unknown: Vec<_> = all.iter().filter(|f| f.code == Code::UnknownId).collect();
    assert_eq!(unknown.len(), 1500);
    assert!(unknown[0].write.as_deref().unwrap().contains("saddar-bazaar-cloth-lane-gate-00000"), "{:?}", unknown[0]);
    assert!(unknown[1499].write.as_deref().unwrap().contains("the id of a [[button]]"), "{:?}", unknown[1499]);
    assert!(took < Duration::from_secs(5), "{took:?} in a build that is not optimised");
}

#[test]
fn a_client_cannot_have_the_account_of_a_button() {
    let text = format!(
        "{HEAD}[[broker.client]]\nid = \"b\"\npassword_file = \"p\"\nmay_read = \"#\"\n\
         [[button]]\nid = \"b\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n[[camera]]\nid = \"c\"\nname = \"C\"\nat = [34.0, 71.5]\nurl = \"rtsp://10.0.0.1/a\"\n"
    );
    let all = faults(&text, &Nowhere);
    assert_eq!(all.iter().map(|f| (f.line, f.code)).collect::<Vec<_>>(), [(6, Code::Duplicate)]);
    assert!(all[0].what.contains("line 10"), "{:?}", all[0]);
}

#[test]
fn a_button_that_no_camera_sees_is_a_warning_with_the_nearest() {
    let text = format!(
        "{HEAD}[[button]]\nid = \"b\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n\
         [[camera]]\nid = \"c\"\nname = \"C\"\nat = [34.002, 71.5]\nurl = \"rtsp://10.0.0.1/a\"\n"
    );
    let warnings = good(&text).warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].what.contains("222 m away"), "{:?}", warnings[0]);
    assert!(good(&text.replace("34.002", "34.001")).warnings.is_empty());
}

#[test]
fn a_district_without_cameras_is_one_warning_however_many_buttons_it_has() {
    let button =
        |i: usize| format!("[[button]]\nid = \"b{i}\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n");
    let told = |n: usize| {
        let warnings = good(&format!("{HEAD}{}", (0..n).map(button).collect::<String>())).warnings;
        assert_eq!(warnings.iter().map(|f| (f.line, f.code)).collect::<Vec<_>>(), [(8, Code::NoCamera)]);
        warnings[0].what.clone()
    };
    assert_eq!(told(1), "no camera sees this button: there is none");
    assert_eq!(told(300), "no camera sees this button and 299 more: there is none");
}

#[test]
fn disk_and_memory_that_do_not_suffice_are_warnings() {
    let cameras: String = (0..100)
        .map(|i| format!("[[camera]]\nid = \"c{i}\"\nname = \"C\"\nat = [34.0, 71.5]\nurl = \"rtsp://10.0.0.{i}/a\"\n"))
        .collect();
    let host = Fake { disk: Some(10 << 30), memory: Some(1 << 30), ..Fake::default() };
    let all = faults(&format!("{HEAD}{cameras}"), &host);
    assert_eq!(all.iter().map(|f| f.code).collect::<Vec<_>>(), [Code::Disk, Code::Memory], "{all:?}");
    assert!(all.iter().all(|f| f.severity == Severity::Warning));
    assert!(said(&all[1]).contains("12s") && said(&all[1]).contains("record = \"incident\""), "{all:?}");

    // What cameras are kept for decides how far their rings reach: 50 s for outages, 30 s for evidence.
    let told = |record: &str, ring: &str, memory: u64| {
        let cameras = cameras.replace("/a\"\n", &format!("/a\"\nrecord = \"{record}\"\n"));
        let host = Fake { disk: Some(1 << 40), memory: Some(memory), ..Fake::default() };
        let all = faults(&format!("{HEAD}{cameras}[media]\nring_bytes = \"{ring}\"\n"), &host);
        all.iter().map(said).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(told("outage", "64MiB", 5 << 30), "");
    assert_eq!(told("incident", "64MiB", 3 << 30), "");
    let all = told("outage", "64MiB", 3 << 30);
    assert!(all.contains("50s of 100 kept for outages are about 2.3GiB"), "{all}");
    let all = told("outage", "16MiB", 5 << 30);
    assert!(all.contains("what is kept of an outage would begin later") && all.contains("32MiB"), "{all}");
    assert_eq!(told("always", "16MiB", 5 << 30), "");
}

#[test]
fn a_prompt_that_cannot_be_played_is_a_warning_where_it_is_named() {
    let text = format!("{HEAD}[call]\n[call.prompts]\nhold = \"hold.wav\"\nended = \"ended.wav\"\n");
    // Silence by mu-law, and a song in a format that no unit plays.
    let mut sound =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x07\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\x04\0\0\0".to_vec();
    sound.extend([0xff; 4]);
    let contents = BTreeMap::from([("hold.wav", &*sound.leak()), ("ended.wav", b"ID3 a song".as_slice())]);
    let all = faults(&text, &Fake { contents, ..Fake::default() });
    let told: Vec<_> = all.iter().map(|f| (f.line, f.code, f.severity)).collect();
    assert_eq!(told, [(8, Code::File, Severity::Warning)], "{all:?}");
    assert!(said(&all[0]).contains("no WAV file"), "{}", said(&all[0]));
}

#[test]
fn one_missing_file_named_by_many_cameras_is_one_fault() {
    let cameras: String = (0..50)
        .map(|i| {
            format!("[[camera]]\nid = \"c{i}\"\nname = \"C\"\nat = [34.0, 71.5]\nurl = \"rtsp://10.0.0.{i}/a\"\nusername = \"u\"\npassword_file = \"gone\"\n")
        })
        .collect();
    let gone = Fake { files: [("gone", io::ErrorKind::PermissionDenied)].into(), ..Fake::default() };
    let all = faults(&format!("{HEAD}{cameras}"), &gone);
    assert_eq!(all.len(), 1, "{}", config::render_human(&all, false));
    assert!(all[0].what.contains("50 times"), "{:?}", all[0]);
    let exposed = Fake { exposed: vec!["gone"], ..Fake::default() };
    let all = faults(&format!("{HEAD}{cameras}"), &exposed);
    assert_eq!(all.iter().map(|f| (f.code, f.severity)).collect::<Vec<_>>(), [(Code::Exposed, Severity::Warning)]);
}

#[test]
fn secrets_are_read_without_their_line_end_and_never_printed() {
    let text = format!(
        "{HEAD}[[button]]\nid = \"b\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n[button.unit]\nurl = \"rtsp://10.0.0.1/a\"\n"
    );
    let loaded = config::parse(&text, "d.toml", &Fake::default()).unwrap();
    let button = &loaded.inventory.buttons()[0];
    let ButtonCredential::Password(secret) = &button.credential else { panic!() };
    assert_eq!(secret.reveal(), "s3cret");
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The example, copied to a folder, with secrets by scripts/make-secrets.
fn installed(name: &str, dir: &Path) -> PathBuf {
    let config = dir.join(name);
    fs::copy(root("config").join(name), &config).unwrap();
    let made = Command::new("python3").arg(root("scripts/make-secrets")).arg(&config).stdout(Stdio::null()).status();
    assert!(made.unwrap().success());
    config
}

/// A self-signed certificate and its key.
fn certificate(dir: &Path, name: &str) {
    let done = Command::new(support::which("openssl"))
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=chowki", "-keyout"])
        .arg(dir.join(format!("{name}.key")))
        .arg("-out")
        .arg(dir.join(format!("{name}.pem")))
        .stderr(Stdio::null())
        .status();
    assert!(done.unwrap().success());
}

fn with_certificates(dir: &Path) -> PathBuf {
    let config = installed("district.toml", dir);
    for name in ["broker", "api", "buttons-ca", "hq-ca", "headquarters-ca"] {
        certificate(dir, name);
    }
    fs::create_dir_all(dir.join("prompts")).unwrap();
    for prompt in Prompt::ALL {
        let own = Prompts::default().file(prompt).clone();
        fs::write(dir.join(format!("prompts/{prompt}.wav")), own).unwrap();
    }
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/var/lib/chowki", dir.join("data").to_str().unwrap())).unwrap();
    config
}

#[test]
fn the_annotated_example_passes_when_its_files_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_certificates(dir.path());
    let Loaded { config, inventory, warnings } =
        config::load(&config, Ports::Leave).unwrap_or_else(|f| panic!("{}", config::render_human(&f, false)));
    // The disk of the machine that tests may be smaller than the example's.
    assert!(warnings.iter().all(|f| f.code == Code::Disk), "{}", config::render_human(&warnings, false));
    assert_eq!((inventory.buttons().len(), inventory.cameras().len()), (2, 2));
    assert_eq!(inventory.cameras()[1].record, RecordPolicy::Incident);
    let hq = config.headquarters.as_ref().unwrap();
    assert_eq!(
        (hq.mqtt[0].host.as_str(), hq.mqtt[0].port, hq.bandwidth),
        ("hq.example.gov.pk", 8883, Some(20_000_000))
    );
    assert_eq!(hq.objects, Objects::S3 { bucket: "evidence".into(), prefix: String::new() });
    assert_eq!(inventory.buttons()[0].voice, Voice::Backchannel);
    assert!(matches!(inventory.buttons()[1].voice, Voice::Screen(_)));
    assert!(matches!(inventory.buttons()[1].credential, ButtonCredential::Certificate));
}

#[test]
fn a_key_of_another_certificate_and_a_certificate_that_is_none_are_faults() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_certificates(dir.path());
    fs::copy(dir.path().join("api.key"), dir.path().join("broker.key")).unwrap();
    fs::write(dir.path().join("api.pem"), "not a certificate").unwrap();
    fs::write(dir.path().join("buttons-ca.pem"), "").unwrap();
    fs::set_permissions(dir.path().join("hq.password"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(dir.path().join("siren.password")).unwrap();
    let mut all = config::load(&config, Ports::Leave).unwrap_err();
    all.retain(|f| f.code != Code::Disk);
    let seen: Vec<_> = all.iter().map(|f| (f.key.as_str(), f.code)).collect();
    let expected = [
        ("broker.tls.key", Code::Certificate),
        ("broker.tls.client_ca", Code::File),
        ("broker.client[siren-controller].password_file", Code::File),
        ("api.tls.cert", Code::Certificate),
        ("headquarters.password_file", Code::Exposed),
    ];
    assert_eq!(seen, expected, "{}", config::render_human(&all, false));
    assert!(all[0].what.contains("does not belong"), "{:?}", all[0]);
}

#[test]
fn the_full_size_example_is_checked_in_a_blink() {
    let dir = tempfile::tempdir().unwrap();
    let config = installed("peshawar.toml", dir.path());
    let began = Instant::now();
    let loaded = config::load(&config, Ports::Leave).unwrap_or_else(|f| panic!("{}", config::render_human(&f, false)));
    let took = began.elapsed();
    assert_eq!((loaded.inventory.buttons().len(), loaded.inventory.cameras().len()), (68, 711));
    let odd: Vec<_> = loaded.warnings.iter().filter(|f| !matches!(f.code, Code::Disk | Code::Memory)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(took < Duration::from_secs(2), "{took:?} in a build that is not optimised");
    println!("checked in {took:?}");
}

#[test]
fn the_full_size_example_is_what_its_script_writes() {
    let out = Command::new("python3").arg(root("scripts/make-peshawar")).output().unwrap();
    assert!(out.status.success());
    assert_eq!(String::from_utf8(out.stdout).unwrap(), fs::read_to_string(root("config/peshawar.toml")).unwrap());
}

#[test]
fn made_secrets_are_private_and_left_alone_when_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    installed("district.toml", dir.path());
    let secret = dir.path().join("buttons/saddar-01.password");
    let first = fs::read_to_string(&secret).unwrap();
    assert_eq!(first.trim_end().len(), 32);
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    installed("district.toml", dir.path());
    assert_eq!(fs::read_to_string(&secret).unwrap(), first);
}

/// Every key below a schema, as paths.
fn schema_keys(schema: &serde_json::Value, above: &str, out: &mut Vec<String>) {
    for (name, key) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{above}.{name}");
        let inner = if key["items"]["properties"].is_object() { &key["items"] } else { key };
        out.push(path.clone());
        schema_keys(inner, &path, out);
    }
}

fn toml_keys(value: &toml::Value, above: &str, out: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, below) in table {
                let path = format!("{above}.{name}");
                out.push(path.clone());
                toml_keys(below, &path, out);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| toml_keys(item, above, out)),
        _ => {}
    }
}

#[test]
fn the_annotated_example_has_every_key_of_the_schema_and_no_other() {
    let (mut known, mut shown) = (Vec::new(), Vec::new());
    schema_keys(&config::schema(), "", &mut known);
    let text = fs::read_to_string(root("config/district.toml")).unwrap();
    toml_keys(&toml::Value::Table(text.parse().unwrap()), "", &mut shown);
    known.sort();
    shown.sort();
    shown.dedup();
    assert_eq!(known, shown);
    assert!(known.len() > 80, "{}", known.len());
}

#[test]
fn a_port_that_is_taken_is_told_by_check_and_left_alone_without() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("d.toml");
    let (port, free) = (taken.local_addr().unwrap().port(), support::free_port());
    let text = format!(
        "[district]\nid = \"d\"\n[data]\ndir = \"data\"\nmedia_quota = \"64MiB\"\nkeep_free = \"1MiB\"\n\
         [broker]\nlisten = \"127.0.0.1:{port}\"\n[api]\nlisten = \"127.0.0.1:{free}\"\n"
    );
    fs::write(&config, text).unwrap();
    let all = config::load(&config, Ports::Try).unwrap_err();
    assert_eq!(all.iter().map(|f| (f.line, f.code)).collect::<Vec<_>>(), [(8, Code::Port)], "{all:?}");
    assert!(said(&all[0]).contains("--no-ports"), "{:?}", all[0]);
    let loaded = config::load(&config, Ports::Leave).unwrap();
    assert_eq!(loaded.config.data.dir, dir.path().join("data"));
    assert!(!dir.path().join("data").exists(), "a check makes nothing");
}

#[test]
fn a_data_folder_that_cannot_be_made_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("d.toml");
    fs::write(dir.path().join("file"), "").unwrap();
    fs::write(&config, format!("{HEAD}[data]\ndir = \"file/data\"\n")).unwrap();
    let all = config::load(&config, Ports::Leave).unwrap_err();
    assert_eq!(all.iter().map(|f| (f.line, f.code)).collect::<Vec<_>>(), [(6, Code::Disk)], "{all:?}");
}

/// The exit status of `chowki check`, as a number.
fn status(code: ExitCode) -> u8 {
    (0..=255).find(|n| code == ExitCode::from(*n)).unwrap()
}

#[test]
fn check_exits_by_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.toml");
    let check = |json| status(cli::check::run(&cli::check::Args { file: file.clone(), json, no_ports: true }));
    assert_eq!(check(false), 66);
    fs::write(&file, "[district").unwrap();
    assert_eq!(check(true), 78);
    fs::write(&file, b"\xff\xfe").unwrap();
    assert_eq!(check(true), 78);
    fs::write(&file, format!("{HEAD}[data]\ndir = \"data\"\n")).unwrap();
    assert_eq!(check(false), 0);
}

/// The program with these arguments, its result going to a device that takes nothing.
fn to_a_full_disk(arguments: &[&str]) -> (Option<i32>, String) {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_chowki")).args(arguments).stdout(full).output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_reader_that_went_away_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let sheet = file("cameras.csv", "id,name,lat,lon,url\nc,C,34.0,71.5,rtsp://10.0.0.1/a\n");
    let config = file("d.toml", &format!("{HEAD}[data]\ndir = \"data\"\n"));
    for arguments in [
        &["completions", "bash"][..],
        &["schema", "config"],
        &["import", &sheet],
        &["check", "--no-ports", &config],
        &["check", "--no-ports", "--json", &config],
    ] {
        let (code, why) = to_a_full_disk(arguments);
        assert_eq!(code, Some(73), "{arguments:?}: {why}");
        assert!(why.contains("standard output cannot be written: No space left"), "{arguments:?}: {why}");
        // Nobody reads it: the reader's end is closed before the program writes.
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let out = Command::new(env!("CARGO_BIN_EXE_chowki")).args(arguments).stdout(writer).output().unwrap();
        let why = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success() && !why.contains("panicked") && !why.contains("error:"), "{arguments:?}: {why}");
    }
}

#[test]
fn check_counts_one_thing_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("d.toml");
    fs::write(dir.path().join("p"), "s3cret").unwrap();
    let button = "[[button]]\nid = \"b\"\nname = \"B\"\nat = [34.0, 71.5]\npassword_file = \"p\"\n";
    fs::write(&config, format!("{HEAD}[data]\ndir = \"data\"\n{button}")).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_chowki")).args(["check", "--no-ports"]).arg(&config).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.ends_with(": no errors; 1 button, 0 cameras\n"), "{said}");
}

#[test]
fn a_demo_is_refused_a_port_that_is_taken_when_it_was_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, dir) = (taken.local_addr().unwrap().port().to_string(), tempfile::tempdir().unwrap());
    let out = Command::new(env!("CARGO_BIN_EXE_chowki"))
        .args(["demo", "--port", &port, "--for", "1"])
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let why = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{why}");
    assert!(why.contains(&format!("cannot have port {port} of 127.0.0.1")), "{why}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

        #[test]
        fn no_mutated_config_makes_the_reader_panic(
            edits in prop::collection::vec((0_usize..4_000, 0_usize..12, "[\\[\\]{}=\"'.,#\\n0-9a-z/+é\u{0} -]{0,6}"), 1..12),
        ) {
            let mut text = MANY.to_owned();
            for (at, cut, put) in edits {
                let floor = |i: usize| (0..=i.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
                let (from, to) = (floor(at % (text.len() + 1)), floor(at % (text.len() + 1) + cut));
                text.replace_range(from..to, &put);
            }
            let all = faults(&text, &Fake::default());
            let lines = text.split('\n').count();
            prop_assert!(all.iter().all(|f| f.line >= 1 && f.line <= lines && f.column >= 1));
            let _ = (config::render_human(&all, true), config::render_json(&all));
        }
    }
}
