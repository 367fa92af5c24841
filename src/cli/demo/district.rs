//! The demo's district as an installer would write it: a bazaar that does not exist.

use std::{fmt::Write, fs, io};

use super::{
    clip::Clip,
    place::Place,
    plug::Plug,
    rtsp::{DemoCamera, DemoCameras},
};
use crate::district::place::Place as At;

/// Login of the demo's cameras.
pub const CAMERA_USER: &str = "demo";
/// See [`CAMERA_USER`].
pub const CAMERA_PASSWORD: &str = "demo-camera";

/// A button of the demo.
pub struct DemoButton {
    /// Its id.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Metres north and east of the middle.
    at: (f64, f64),
    /// Its MQTT password.
    pub password: String,
    /// The token of its screen, where it has one; the others are a camera with a microphone.
    pub screen: Option<String>,
}

impl DemoButton {
    /// Where its screen's page is, with what opens it.
    pub fn page(&self, gateway: &str) -> Option<String> {
        let token = self.screen.as_ref()?;
        Some(format!("{}/unit/{}#{token}", gateway.trim_end_matches('/'), self.id))
    }
}

struct Mast {
    id: &'static str,
    name: &'static str,
    at: (f64, f64),
    /// Facing, field of view; `None` sees all round.
    view: Option<(f64, f64)>,
    range: f64,
    clip: Clip,
}

/// The demo's district.
pub struct District {
    /// Its buttons, in the order of the keys.
    pub buttons: Vec<DemoButton>,
    masts: Vec<Mast>,
}

/// What the config names.
pub struct Written<'a> {
    /// Where the cameras are.
    pub cameras: &'a DemoCameras,
    /// The way to headquarters.
    pub plug: &'a Plug,
    /// The page's port.
    pub page: u16,
    /// Where files go.
    pub place: &'a Place,
}

impl District {
    /// Six buttons, one of them with a screen, and seven cameras.
    pub fn new() -> Self {
        let button = |id, name, at| DemoButton { id, name, at, password: password(), screen: None };
        let mast = |id, name, at, view, range, clip| Mast { id, name, at, view, range, clip };
        Self {
            buttons: vec![
                button("saddar-01", "Saddar Bazaar, gate 1", (0.0, 0.0)),
                button("saddar-02", "Saddar Bazaar, cloth lane", (95.0, 60.0)),
                button("saddar-03", "Crossing", (-80.0, 130.0)),
                button("saddar-04", "Bus stop", (-140.0, -60.0)),
                button("saddar-05", "Girls' college, gate", (120.0, -130.0)),
                DemoButton {
                    screen: Some(password()),
                    ..button("saddar-06", "Library, help point with a screen", (20.0, -150.0))
                },
            ],
            masts: vec![
                mast("cam-0101", "Gate 1 mast", (30.0, -18.0), Some((150.0, 90.0)), 60.0, Clip::Gate),
                mast("cam-0102", "Gate 1 east", (-12.0, 42.0), Some((285.0, 80.0)), 70.0, Clip::Bazaar),
                mast("cam-0103", "Cloth lane dome", (80.0, 40.0), None, 45.0, Clip::Lane),
                mast("cam-0104", "Crossing north", (-45.0, 120.0), Some((170.0, 100.0)), 80.0, Clip::Crossing),
                mast("cam-0105", "Crossing south", (-120.0, 140.0), Some((350.0, 70.0)), 80.0, Clip::Gate),
                mast("cam-0106", "Bus stop", (-120.0, -85.0), Some((130.0, 110.0)), 60.0, Clip::BusStop),
                mast("cam-0107", "College gate", (100.0, -110.0), Some((315.0, 90.0)), 60.0, Clip::Lane),
            ],
        }
    }

    /// What the cameras and units serve.
    pub fn streams(&self) -> Vec<DemoCamera> {
        let masts = self.masts.iter().map(|m| DemoCamera { path: m.id.into(), clip: m.clip });
        let with_camera = self.buttons.iter().filter(|b| b.screen.is_none());
        let units = with_camera.map(|b| DemoCamera { path: unit(b.id), clip: Clip::Unit });
        masts.chain(units).collect()
    }

    /// Cameras on masts, in the order of the config.
    pub fn masts(&self) -> impl Iterator<Item = &'static str> {
        self.masts.iter().map(|m| m.id)
    }

    /// Writes the config and its secret files.
    pub fn write(&self, to: &Written<'_>) -> io::Result<()> {
        let mut text = head(to)?;
        let middle = middle();
        let secret = |name: &str, value: &str| write_secret(to.place, name, value);
        secret("cameras.password", CAMERA_PASSWORD)?;
        for b in &self.buttons {
            secret(&format!("{}.password", b.id), &b.password)?;
            let at = middle.offset_m(b.at.0, b.at.1);
            let _ = write!(
                text,
                "\n[[button]]\nid = {:?}\nname = {:?}\nat = [{:.6}, {:.6}]\npassword_file = \"{}.password\"\nsilent_after = \"30s\"\n\
                 [button.unit]\n",
                b.id,
                b.name,
                at.lat(),
                at.lon(),
                b.id,
            );
            match &b.screen {
                Some(token) => {
                    secret(&format!("{}.token", b.id), token)?;
                    let _ = writeln!(text, "screen = true\ntoken_file = \"{}.token\"", b.id);
                }
                None => {
                    let url = to.cameras.url(&unit(b.id));
                    let _ = writeln!(
                        text,
                        "url = {url:?}\nusername = {CAMERA_USER:?}\npassword_file = \"cameras.password\""
                    );
                }
            }
        }
        for m in &self.masts {
            let at = middle.offset_m(m.at.0, m.at.1);
            let _ = write!(
                text,
                "\n[[camera]]\nid = {:?}\nname = {:?}\nat = [{:.6}, {:.6}]\nurl = {:?}\nusername = {CAMERA_USER:?}\n\
                 password_file = \"cameras.password\"\nrange = {:.1}\n",
                m.id,
                m.name,
                at.lat(),
                at.lon(),
                to.cameras.url(m.id),
                m.range,
            );
            if let Some((facing, width)) = m.view {
                let _ = write!(text, "facing = {facing:.1}\nfield_of_view = {width:.1}\n");
            }
        }
        fs::write(to.place.config(), text)
    }
}

fn head(to: &Written<'_>) -> io::Result<String> {
    let free = || std::net::TcpListener::bind(("127.0.0.1", 0));
    // Both at once, so that they differ.
    let (broker, rtsp) = (free()?, free()?);
    let (broker, rtsp) = (broker.local_addr()?, rtsp.local_addr()?);
    let (data, objects) = (to.place.data(), to.place.objects());
    Ok(format!(
        "# The demo's district: synthetic places, films for cameras. Written by `chowki demo`.\n\
         [district]\nid = \"saddar\"\nname = \"Saddar (synthetic demo)\"\n\n\
         [data]\ndir = {data:?}\nmedia_quota = \"1GiB\"\nkeep_free = \"100MiB\"\n\n\
         [broker]\nlisten = \"{broker}\"\n\n\
         [api]\nlisten = \"127.0.0.1:{}\"\n\n\
         [rtsp]\nlisten = \"{rtsp}\"\n\n\
         [headquarters]\nmqtt = \"mqtt://{}\"\nobjects = \"file://{}\"\n\n\
         [evidence]\nbefore = \"10s\"\nafter = \"20s\"\ncameras = 3\nradius = 120\n",
        to.page,
        to.plug.address(),
        objects.display(),
    ))
}

fn write_secret(place: &Place, name: &str, value: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(place.file(name))?;
    writeln!(file, "{value}")
}

fn unit(button: &str) -> String {
    format!("unit-{button}")
}

fn password() -> String {
    let mut random = [0u8; 12];
    // It guards a demo on loopback: without randomness it is a fixed one.
    let _ = aws_lc_rs::rand::fill(&mut random);
    random.iter().map(|b| format!("{b:02x}")).collect()
}

fn middle() -> At {
    // A point in a city; the streets drawn around it do not exist.
    match At::new(34.0015, 71.5387) {
        Ok(at) => at,
        Err(_) => unreachable!("a constant place"),
    }
}
