//! The settings of a gateway, validated. What a config becomes once nothing is wrong with it. Pure.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::district::{
    ids::{ClientId, DistrictId},
    inventory::Login,
    place::Bounds,
    secret::Secret,
};

/// Everything but the inventory.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which district this gateway serves.
    pub district: District,
    /// The disk.
    pub data: Data,
    /// Where the buttons connect.
    pub broker: Broker,
    /// What headquarters pulls from.
    pub api: Api,
    /// How browsers reach live pictures and calls.
    pub webrtc: WebRtc,
    /// How recorders and players reach the cameras; `None`: they do not.
    pub rtsp: Option<Rtsp>,
    /// Where incidents and evidence go; `None` stands alone.
    pub headquarters: Option<Headquarters>,
    /// What is kept of an incident.
    pub evidence: Evidence,
    /// When a button's condition is an alarm.
    pub supervision: Supervision,
    /// Frames in memory.
    pub media: Media,
    /// Who is rung, and what a unit plays.
    pub call: Call,
}

/// `[district]`
#[derive(Debug, Clone)]
pub struct District {
    /// Its id, part of every topic and object name.
    pub id: DistrictId,
    /// Its name, for people; the id when none is given.
    pub name: String,
    /// Where everything stands.
    pub bounds: Option<Bounds>,
}

/// `[data]`
#[derive(Debug, Clone)]
pub struct Data {
    /// Folder of the journal and the spool.
    pub dir: PathBuf,
    /// Bytes that evidence and the outage buffer may take together.
    pub media_quota: u64,
    /// Bytes of the file system that are always left free.
    pub keep_free: u64,
}

/// `[broker]`. At least one of `listen` and `tls` is there.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Plain MQTT.
    pub listen: Option<SocketAddr>,
    /// MQTT over TLS.
    pub tls: Option<BrokerTls>,
    /// Local integrations that may read.
    pub clients: Vec<BrokerClient>,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one IP address.
    pub max_per_address: usize,
}

/// `[broker.tls]`
#[derive(Debug, Clone)]
pub struct BrokerTls {
    /// Address.
    pub listen: SocketAddr,
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority that signs buttons' certificates, PEM. Buttons must show one when it is given.
    pub client_ca: Option<PathBuf>,
}

/// `[[broker.client]]`
#[derive(Debug, Clone)]
pub struct BrokerClient {
    /// User name and client id.
    pub id: ClientId,
    /// Its password.
    pub password: Secret,
    /// Topic filters it may subscribe to, valid by MQTT 3.1.1 section 4.7.
    pub may_read: Vec<String>,
}

/// `[api]`
#[derive(Debug, Clone)]
pub struct Api {
    /// Address.
    pub listen: SocketAddr,
    /// HTTPS, when given.
    pub tls: Option<ApiTls>,
    /// Who may call; everyone when empty.
    pub clients: Vec<ApiClient>,
}

/// `[api.tls]`
#[derive(Debug, Clone)]
pub struct ApiTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority that signs clients' certificates, PEM.
    pub client_ca: Option<PathBuf>,
}

/// `[[api.client]]`
#[derive(Debug, Clone)]
pub struct ApiClient {
    /// Name, as it stands in an incident's timeline.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its bearer token (RFC 6750); this or a certificate, or both.
    pub token: Option<Secret>,
    /// The common name of its certificate.
    pub certificate: Option<String>,
    /// Which group of the call it belongs to.
    pub group: String,
}

/// What a client of the API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, answers, dispatches and closes.
    Operator,
    /// An operator who may also take a call from another.
    Supervisor,
    /// Reads incidents, evidence and recordings.
    Puller,
    /// Sees states and metrics, sends test presses.
    Engineer,
}

impl Role {
    /// Its name, as the config has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Supervisor => "supervisor",
            Self::Puller => "puller",
            Self::Engineer => "engineer",
        }
    }
}

/// `[webrtc]`
#[derive(Debug, Clone)]
pub struct WebRtc {
    /// UDP address; the API's when none is given.
    pub listen: SocketAddr,
    /// Addresses that a router forwards to it.
    pub public: Vec<SocketAddr>,
    /// TCP, for browsers that UDP does not reach.
    pub tcp: Option<WebRtcTcp>,
    /// STUN and TURN servers that browsers are told of.
    pub ice_servers: Vec<IceServer>,
}

/// `tcp` and `public_tcp` of `[webrtc]`
#[derive(Debug, Clone)]
pub struct WebRtcTcp {
    /// Address.
    pub listen: SocketAddr,
    /// Addresses that a router forwards to it.
    pub public: Vec<SocketAddr>,
}

/// `[[webrtc.ice_server]]`
#[derive(Debug, Clone)]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` (RFC 7064, RFC 7065).
    pub url: String,
    /// Login there, for TURN.
    pub login: Option<Login>,
}

/// `[rtsp]`
#[derive(Debug, Clone)]
pub struct Rtsp {
    /// Address.
    pub listen: SocketAddr,
}

/// `[call]`
#[derive(Debug, Clone)]
pub struct Call {
    /// Who rings, one group after another; never empty.
    pub groups: Vec<String>,
    /// Unanswered for so long, the next group rings too.
    pub escalate_after: Duration,
    /// WAV files to be played in place of our own, by the prompt's name.
    pub prompts: Vec<(&'static str, PathBuf)>,
}

/// `[headquarters]`
#[derive(Debug, Clone)]
pub struct Headquarters {
    /// Its brokers, in order of preference; never empty.
    pub mqtt: Vec<MqttAddress>,
    /// MQTT client id; `chowki-{district}` when none is given.
    pub client_id: String,
    /// Login at the broker.
    pub login: Option<Login>,
    /// Authority that signed its certificate, PEM; the system's own when none is given.
    pub ca: Option<PathBuf>,
    /// Where evidence goes.
    pub objects: Objects,
    /// Options of an S3 store; `None` for the defaults and for `file://`.
    pub s3: Option<S3>,
    /// Ceiling for everything but calls, in bits per second.
    pub bandwidth: Option<u64>,
}

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttAddress {
    /// `mqtts://`
    pub tls: bool,
    /// Name or IP address, an IPv6 address without brackets.
    pub host: String,
    /// Port: 1883, with TLS 8883, when none is given.
    pub port: u16,
}

/// Where objects go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objects {
    /// `s3://bucket[/prefix]`
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix of every name, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `file:///folder`
    File(PathBuf),
}

/// `[headquarters.s3]`
#[derive(Debug, Clone, Default)]
pub struct S3 {
    /// `http(s)://host[:port]`; Amazon's own when none is given.
    pub endpoint: Option<url::Url>,
    /// Region.
    pub region: Option<String>,
    /// Access key id and its secret.
    pub access_key: Option<(String, Secret)>,
    /// `endpoint/bucket/name` instead of `bucket.endpoint/name`: MinIO, Ceph.
    pub path_style: bool,
}

/// `[evidence]`
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Kept from this long before the press.
    pub before: Duration,
    /// Until this long after it.
    pub after: Duration,
    /// At most this many linked cameras record.
    pub cameras: usize,
    /// Cameras within this many metres are linked.
    pub radius_m: f64,
    /// While nobody answers the call, evidence goes on for so long at most.
    pub ringing: Duration,
    /// Presses without an id within this time are one press.
    pub debounce: Duration,
}

/// `[supervision]`
#[derive(Debug, Clone)]
pub struct Supervision {
    /// Charge at or below which a battery is low, 0.0 to 1.0.
    pub low_battery: f64,
}

/// `[media]`
#[derive(Debug, Clone)]
pub struct Media {
    /// Bytes of frames that one camera's ring may hold.
    pub ring_bytes: u64,
}

impl Config {
    /// Every TCP listener of the gateway, with the key that names it.
    pub fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let plain = self.broker.listen.map(|at| ("broker.listen", at));
        let tls = self.broker.tls.as_ref().map(|tls| ("broker.tls.listen", tls.listen));
        let webrtc = self.webrtc.tcp.as_ref().map(|tcp| ("webrtc.tcp", tcp.listen));
        let rtsp = self.rtsp.as_ref().map(|rtsp| ("rtsp.listen", rtsp.listen));
        plain.into_iter().chain(tls).chain([("api.listen", self.api.listen)]).chain(webrtc).chain(rtsp).collect()
    }
}
