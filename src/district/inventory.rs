//! What stands in a district: buttons, their units, cameras. Validated once by `config`, immutable afterwards.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    call::UnitKind,
    ids::{ButtonId, CameraId},
    place::{Bearing, Place},
    secret::Secret,
};

/// How a button proves who it is.
#[derive(Debug, Clone)]
pub enum ButtonCredential {
    /// A password, over plain MQTT or TLS.
    Password(Secret),
    /// A client certificate whose common name is the button's id.
    Certificate,
}

/// A button and the post it sits in.
#[derive(Debug, Clone)]
pub struct Button {
    /// Its id.
    pub id: ButtonId,
    /// Its name, for people.
    pub name: String,
    /// Where it stands.
    pub at: Place,
    /// How it proves who it is.
    pub credential: ButtonCredential,
    /// No sign of life for this long is an alarm.
    pub silent_after: Duration,
    /// The unit's own camera, when it has one that is read by RTSP: its id is [`CameraId::of_unit`].
    pub unit: Option<Source>,
    /// What is kept of that camera beside evidence.
    pub record: RecordPolicy,
    /// How an operator speaks there.
    pub voice: Voice,
    /// How loud that is: 1.0 as it was said.
    pub volume: f64,
    /// The unit hears its own speaker.
    pub half_duplex: bool,
}

impl Button {
    /// Whether its unit sends pictures, from a camera or from the browser of its screen.
    pub fn has_camera(&self) -> bool {
        self.unit.is_some() || matches!(self.voice, Voice::Screen(_))
    }

    /// What its unit can do in a call.
    pub fn kind(&self) -> UnitKind {
        match self.voice {
            Voice::Screen(_) => UnitKind::Screen,
            Voice::Backchannel | Voice::Rtp { .. } => UnitKind::Speaker,
            Voice::None if self.unit.is_some() => UnitKind::Camera,
            Voice::None => UnitKind::None,
        }
    }
}

/// How an operator's voice reaches a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Voice {
    /// Not at all.
    #[default]
    None,
    /// By the RTSP backchannel of its own stream (ONVIF Streaming Specification section 5.3).
    Backchannel,
    /// By plain RTP to an address.
    Rtp {
        /// Name or IP address.
        host: String,
        /// UDP port.
        port: u16,
        /// What it plays.
        codec: SpeakerCodec,
    },
    /// By the browser of its screen, which shows the kiosk page with this token.
    Screen(Secret),
}

/// What a speaker plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpeakerCodec {
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// Opus.
    Opus,
}

/// Login for a camera.
#[derive(Debug, Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// How RTP travels from a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Interleaved in the RTSP connection (RFC 2326 section 10.12).
    #[default]
    Tcp,
    /// Datagrams of their own.
    Udp,
}

/// An RTSP stream to read.
#[derive(Debug, Clone)]
pub struct Source {
    /// `rtsp://host[:port]/path`, without credentials.
    pub url: url::Url,
    /// A lighter stream of the same picture.
    pub sub_url: Option<url::Url>,
    /// Login, when the camera wants one.
    pub login: Option<Login>,
    /// How RTP travels.
    pub transport: Transport,
}

/// What a camera can see: a sector, or all round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Where it looks and how wide, in degrees; `None` sees all round.
    pub sector: Option<(Bearing, f64)>,
    /// How far a person can be made out, in metres.
    pub range_m: f64,
}

/// What the spool keeps of a camera beside evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordPolicy {
    /// Evidence only.
    Incident,
    /// Everything while the backhaul is down.
    #[default]
    Outage,
    /// Everything.
    Always,
}

impl RecordPolicy {
    /// How long before the backhaul last worked, and after it works again, a camera is kept for an outage.
    pub const AROUND: Duration = Duration::from_secs(30);

    /// How long it may take until an outage is found out: what must still be in memory then, beside [`Self::AROUND`]. An
    /// idle line is asked every 5 s, given up 10 s later.
    pub const FOUND_OUT: Duration = Duration::from_secs(20);

    /// How far a camera's memory reaches back, where evidence begins so long `before` a press.
    pub fn reach(self, before: Duration) -> Duration {
        match self {
            Self::Incident | Self::Always => before,
            Self::Outage => before.max(Self::AROUND + Self::FOUND_OUT),
        }
    }
}

/// A camera on a mast or wall.
#[derive(Debug, Clone)]
pub struct Camera {
    /// Its id.
    pub id: CameraId,
    /// Its name, for people.
    pub name: String,
    /// Where it stands.
    pub at: Place,
    /// What it sees.
    pub view: View,
    /// How to read it.
    pub source: Source,
    /// What is kept of it beside evidence.
    pub record: RecordPolicy,
}

/// A camera that is read by RTSP, of a unit or on a mast.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    /// Its id.
    pub id: CameraId,
    /// How to read it.
    pub source: &'a Source,
    /// What is kept of it beside evidence.
    pub record: RecordPolicy,
}

/// Everything that stands in the district.
#[derive(Debug, Default)]
pub struct Inventory {
    buttons: Vec<Arc<Button>>,
    cameras: Vec<Arc<Camera>>,
    button_index: HashMap<ButtonId, usize>,
    camera_index: HashMap<CameraId, usize>,
}

impl Inventory {
    /// An inventory of these. Of two with one id the first counts; `config` reports such twins before it comes here.
    pub fn new(buttons: Vec<Button>, cameras: Vec<Camera>) -> Self {
        let mut inventory = Self::default();
        for button in buttons {
            if !inventory.button_index.contains_key(&button.id) {
                inventory.button_index.insert(button.id.clone(), inventory.buttons.len());
                inventory.buttons.push(Arc::new(button));
            }
        }
        for camera in cameras {
            if !inventory.camera_index.contains_key(&camera.id) {
                inventory.camera_index.insert(camera.id.clone(), inventory.cameras.len());
                inventory.cameras.push(Arc::new(camera));
            }
        }
        inventory
    }
    /// All buttons, in the order of the config.
    pub fn buttons(&self) -> &[Arc<Button>] {
        &self.buttons
    }
    /// All cameras, in the order of the config; units are not among them.
    pub fn cameras(&self) -> &[Arc<Camera>] {
        &self.cameras
    }
    /// All cameras that are read, units' first: the person who presses stands before one.
    pub fn streams(&self) -> impl Iterator<Item = Stream<'_>> {
        let units = self
            .buttons
            .iter()
            .filter_map(|b| Some(Stream { id: CameraId::of_unit(&b.id), source: b.unit.as_ref()?, record: b.record }));
        let masts = self.cameras.iter().map(|c| Stream { id: c.id.clone(), source: &c.source, record: c.record });
        units.chain(masts)
    }
    /// The button of that id.
    pub fn button(&self, id: &ButtonId) -> Option<&Arc<Button>> {
        self.button_index.get(id).map(|&i| &self.buttons[i])
    }
    /// The camera of that id.
    pub fn camera(&self, id: &CameraId) -> Option<&Arc<Camera>> {
        self.camera_index.get(id).map(|&i| &self.cameras[i])
    }
}
