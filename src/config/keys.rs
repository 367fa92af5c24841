//! Every key of a config, said once. Pure.
//!
//! The reader, the did-you-mean, the defaults and the JSON Schema come from here.

use super::{
    ground::{Point, Rectangle},
    kinds::{Choice, Each, Flag, Id, OneOrMore, Positive, Rate, Size, Sub, Text, Time, Whole, Within, Words},
    links::{File, Folder, HttpUrl, IceUrl, Listen, MqttUrl, ObjectsUrl, RtspUrl, SecretFile, Speaker},
    reader::Read,
    section::{Key, Kind, Need, Section, sections},
    settings::Role,
    topic::Filter,
};
use crate::district::{
    ids::{ButtonId, CameraId, ClientId, DistrictId},
    inventory::{RecordPolicy, Transport},
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

impl Words for Role {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("operator", Self::Operator),
        ("supervisor", Self::Supervisor),
        ("puller", Self::Puller),
        ("engineer", Self::Engineer),
    ];
}

/// That tokens and pictures may cross a network in clear; said in words, so that nobody says it by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainHttp;

impl Words for PlainHttp {
    const WORDS: &'static [(&'static str, Self)] = &[("whoever listens on this network may read along", Self)];
}

impl Words for Transport {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("udp", Self::Udp)];
}

impl Words for RecordPolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("incident", Self::Incident), ("outage", Self::Outage), ("always", Self::Always)];
}

sections! {
    /// The configuration of a chowki gateway: one city district, its panic buttons and its cameras.
    Root {
        /// Which district this gateway serves.
        Required district: Sub<District>;
        /// The disk.
        Default data: Sub<Data>;
        /// Where the buttons connect.
        Required broker: Sub<Broker>;
        /// What headquarters pulls from.
        Default api: Sub<Api>;
        /// How browsers reach live pictures and calls, by WebRTC.
        Default webrtc: Sub<WebRtc>;
        /// How recorders and players reach the cameras, by RTSP. Without it they do not.
        Optional rtsp: Sub<Rtsp>;
        /// Who is rung, and what a unit plays.
        Default call: Sub<Call>;
        /// Where incidents and evidence go. Without it the gateway stands alone.
        Optional headquarters: Sub<Headquarters>;
        /// What is kept of an incident.
        Default evidence: Sub<Evidence>;
        /// When the condition of a button is an alarm.
        Default supervision: Sub<Supervision>;
        /// Frames in memory.
        Default media: Sub<Media>;
        /// The panic buttons.
        Default button: Each<Button>;
        /// The cameras on masts and walls. A button's own camera stands under its unit.
        Default camera: Each<Camera>;
    }

    /// Which district this gateway serves.
    District {
        /// Its id, part of every topic and object name. Never change it once the gateway is in use.
        Required id: Id<DistrictId> = "saddar";
        /// Its name, for people. The id when left out.
        Optional name: Text = "Saddar, Peshawar";
        /// South-west and north-east corner as [latitude, longitude]. An item outside is a fault.
        Optional bounds: Rectangle = [[33.99, 71.52], [34.02, 71.56]];
    }

    /// The disk.
    Data {
        /// Folder of the journal and of all media; made when it is not there.
        Default dir: Folder = "/var/lib/chowki";
        /// What evidence and the outage buffer may take together.
        Default media_quota: Size<{ 64 * MIB }, { u64::MAX }> = "80GiB";
        /// The gateway never takes the file system below this.
        Default keep_free: Size<0, { u64::MAX }> = "2GiB";
    }

    /// Where the buttons connect, by MQTT 3.1.1.
    Broker {
        /// Plain MQTT. Leave it out to have TLS only.
        Optional listen: Listen = "0.0.0.0:1883";
        /// MQTT over TLS.
        Optional tls: Sub<BrokerTls>;
        /// Local integrations: they may read, not press.
        Default client: Each<BrokerClient>;
        /// Connections in all. More are refused.
        Default max_connections: Whole<1, 1_000_000> = 4096;
        /// Connections from one IP address. More are refused.
        Default max_per_address: Whole<1, 1_000_000> = 64;
    }

    /// MQTT over TLS.
    BrokerTls {
        /// Address and port.
        Required listen: Listen = "0.0.0.0:8883";
        /// Certificate chain, PEM, the gateway's own certificate first.
        Required cert: File<false> = "broker.pem";
        /// Its private key, PEM.
        Required key: File<true> = "broker.key";
        /// The authority that signs the buttons' certificates, PEM. With it buttons must show a certificate.
        Optional client_ca: File<false> = "buttons-ca.pem";
    }

    /// A local integration, such as a siren controller.
    BrokerClient {
        /// Its MQTT user name and client id.
        Required id: Id<ClientId> = "siren-controller";
        /// File that holds its password.
        Required password_file: SecretFile = "siren.password";
        /// Topic filters it may subscribe to.
        Required may_read: OneOrMore<Filter> = ["buttons/+/state"];
    }

    /// What headquarters pulls from, by HTTP.
    Api {
        /// Address and port.
        Default listen: Listen = "127.0.0.1:8080";
        /// HTTPS.
        Optional tls: Sub<ApiTls>;
        /// Why it may be HTTP without TLS on an address that others reach. Without these words it may not.
        Optional plain_http: Choice<PlainHttp> = "whoever listens on this network may read along";
        /// Who may call. Everyone when there is none, and no token was issued.
        Default client: Each<ApiClient>;
    }

    /// HTTPS.
    ApiTls {
        /// Certificate chain, PEM, the gateway's own certificate first.
        Required cert: File<false> = "api.pem";
        /// Its private key, PEM.
        Required key: File<true> = "api.key";
        /// The authority that signs clients' certificates, PEM. Who shows none needs a token.
        Optional client_ca: File<false> = "headquarters-ca.pem";
    }

    /// A client of the API.
    ApiClient {
        /// Its name, as it appears in an incident's timeline.
        Required name: Text = "hq-console";
        /// What it may do: an operator answers and closes, a supervisor may also take a call over, a puller reads, an
        /// engineer sees states and tests.
        Required role: Choice<Role> = "operator";
        /// File that holds its bearer token. Without one it needs a certificate.
        Optional token_file: SecretFile = "hq-console.token";
        /// The common name of the certificate that it shows.
        Optional certificate: Text = "hq-console";
        /// Which group of the call it belongs to. The first when left out.
        Optional group: Text = "operators";
    }

    /// How browsers reach live pictures and calls, by WebRTC.
    WebRtc {
        /// UDP address and port of all of it. The address and port of the API when left out.
        Optional listen: Listen = "0.0.0.0:8443";
        /// Addresses that a router forwards to that port, for browsers beyond it.
        Optional public: OneOrMore<Listen> = ["203.0.113.7:8443"];
        /// TCP address and port, for browsers behind firewalls that let no UDP through. None when left out.
        Optional tcp: Listen = "0.0.0.0:8444";
        /// Addresses that a router forwards to the port of tcp. Those of public, with the port of tcp, when left out.
        Optional public_tcp: OneOrMore<Listen> = ["203.0.113.7:443"];
        /// STUN and TURN servers that browsers are told of.
        Default ice_server: Each<IceServer>;
    }

    /// A STUN or TURN server (RFC 7064, RFC 7065).
    IceServer {
        /// Where: stun:HOST:PORT, turn:HOST:PORT or turns:HOST:PORT.
        Required url: IceUrl = "turn:turn.hq.example.gov.pk:3478";
        /// User name there.
        Optional username: Text = "chowki";
        /// File that holds its password.
        Optional credential_file: SecretFile = "turn.password";
    }

    /// How recorders and players reach the cameras, by RTSP: rtsp://GATEWAY:8554/CAMERA, for the clients of the API.
    Rtsp {
        /// Address and port.
        Default listen: Listen = "127.0.0.1:8554";
    }

    /// Who is rung, and what a unit plays.
    Call {
        /// The groups that ring, one after another: a client of the API belongs to one.
        Default groups: OneOrMore<Text> = ["operators"];
        /// Unanswered for so long, the next group rings too.
        Default escalate_after: Time<{ SECOND }, { HOUR }> = "20s";
        /// WAV files to be played at a unit in place of our own.
        Default prompts: Sub<Prompts>;
    }

    /// WAV files to be played at a unit: 8 to 48 kHz, PCM or G.711. What each is for stands in docs/call.md.
    Prompts {
        /// When a press arrives.
        Optional pressed: File<false> = "prompts/pressed.wav";
        /// When headquarters has it.
        Optional reached: File<false> = "prompts/reached.wav";
        /// While nobody at headquarters knows of it.
        Optional waiting: File<false> = "prompts/waiting.wav";
        /// When an operator answers.
        Optional answered: File<false> = "prompts/answered.wav";
        /// While the operator has the unit wait.
        Optional hold: File<false> = "prompts/hold.wav";
        /// When the operator was lost.
        Optional lost: File<false> = "prompts/lost.wav";
        /// When the call is over.
        Optional ended: File<false> = "prompts/ended.wav";
    }

    /// Where incidents and evidence go.
    Headquarters {
        /// Its MQTT broker, or a list of them in order of preference. Ports 1883 and 8883 need not be written.
        Required mqtt: OneOrMore<MqttUrl> = "mqtts://hq.example.gov.pk:8883";
        /// MQTT client id there. chowki- and the district's id when left out.
        Optional client_id: Id<ClientId> = "chowki-saddar";
        /// User name there.
        Optional username: Text = "saddar";
        /// File that holds its password.
        Optional password_file: SecretFile = "hq.password";
        /// The authority that signed the broker's certificate, PEM. The system's own when left out.
        Optional ca: File<false> = "hq-ca.pem";
        /// Where evidence goes: s3://bucket[/prefix] or file:///folder.
        Required objects: ObjectsUrl = "s3://evidence";
        /// Options of the S3 store.
        Optional s3: Sub<S3>;
        /// Ceiling for media to the object store. Found out for S3 when left out, none for a directory.
        Optional bandwidth: Rate<64_000> = "20Mbit/s";
    }

    /// Options of the S3 store.
    S3 {
        /// Its address. Amazon's own when left out.
        Optional endpoint: HttpUrl = "https://s3.hq.example.gov.pk:9000";
        /// Its region.
        Optional region: Text = "ap-south-1";
        /// Access key id.
        Optional access_key_id: Text = "chowki-saddar";
        /// File that holds its secret access key.
        Optional secret_key_file: SecretFile = "hq-s3.secret";
        /// Bucket in the path instead of the host name: MinIO and Ceph want true.
        Default path_style: Flag = false;
    }

    /// What is kept of an incident.
    Evidence {
        /// Kept from this long before the press.
        Default before: Time<0, { 10 * MINUTE }> = "30s";
        /// Until this long after it.
        Default after: Time<SECOND, { 12 * HOUR }> = "60s";
        /// At most this many linked cameras record. 0 records the unit's own camera only.
        Default cameras: Whole<0, 16> = 4;
        /// Cameras within this many metres of the button are linked.
        Default radius: Positive<5_000> = 150;
        /// While nobody answers the call, evidence goes on for so long at most; once it is answered, until it ends.
        Default ringing: Time<0, { 24 * HOUR }> = "10m";
        /// Presses without an id within this time are one press.
        Default debounce: Time<0, MINUTE> = "2s";
    }

    /// When the condition of a button is an alarm.
    Supervision {
        /// Charge, from 0.0 to 1.0, at or below which a battery is low.
        Default low_battery: Within<0, 1> = 0.2;
    }

    /// Frames in memory.
    Media {
        /// What one camera's latest frames may take. It bounds how far back evidence can reach.
        Default ring_bytes: Size<MIB, { 4096 * MIB }> = "64MiB";
    }

    /// A panic button.
    Button {
        /// Its id, and its MQTT user name and client id. Unique, never used again for another button.
        Required id: Id<ButtonId> = "saddar-01";
        /// Its name, as an operator reads it.
        Required name: Text = "Saddar Bazaar, gate 1";
        /// Where it stands, [latitude, longitude].
        Required at: Point = [34.00151, 71.53870];
        /// File that holds its password. Without it the button shows a certificate with its id as the common name.
        Optional password_file: SecretFile = "buttons/saddar-01.password";
        /// No heartbeat for this long is an alarm.
        Default silent_after: Time<{ 5 * SECOND }, { 7 * DAY }> = "90s";
        /// The post it sits in: camera, microphone, speaker.
        Optional unit: Sub<Unit>;
    }

    /// The post a button sits in: camera, microphone, speaker.
    Unit {
        /// Stream of its camera and microphone.
        Optional url: RtspUrl = "rtsp://10.1.0.11/av";
        /// A lighter H.264 stream of the same picture, for thin links and browsers.
        Optional sub_url: RtspUrl = "rtsp://10.1.0.11/sub";
        /// User name of its camera.
        Optional username: Text = "chowki";
        /// File that holds the password of its camera.
        Optional password_file: SecretFile = "units.password";
        /// How RTP travels: tcp within the RTSP connection, udp beside it.
        Default transport: Choice<Transport> = "tcp";
        /// What the spool keeps of its camera beside evidence: nothing, what is sent around an outage of the backhaul, or
        /// everything.
        Default record: Choice<RecordPolicy> = "outage";
        /// Its speaker: onvif for the backchannel of its RTSP stream, or rtp://host:port?codec=pcmu.
        Optional talkback: Speaker = "onvif";
        /// How loud its speaker is: 1 plays what was said as it was.
        Default volume: Within<0, 8> = 1;
        /// The unit hears its own speaker: while the operator speaks, its sound is kept from her.
        Default half_duplex: Flag = false;
        /// The unit has a screen and shows the gateway's kiosk page.
        Default screen: Flag = false;
        /// File that holds the token of its kiosk page.
        Optional token_file: SecretFile = "units/saddar-01.token";
    }

    /// A camera on a mast or wall.
    Camera {
        /// Its id, part of object names. Unique.
        Required id: Id<CameraId> = "cam-0101";
        /// Its name, as an operator reads it.
        Required name: Text = "Gate 1 mast";
        /// Where it stands, [latitude, longitude].
        Required at: Point = [34.00160, 71.53850];
        /// Its stream.
        Required url: RtspUrl = "rtsp://10.1.1.1/main";
        /// A lighter H.264 stream of the same picture, for thin links and browsers.
        Optional sub_url: RtspUrl = "rtsp://10.1.1.1/sub";
        /// User name.
        Optional username: Text = "chowki";
        /// File that holds its password.
        Optional password_file: SecretFile = "cameras.password";
        /// How RTP travels: tcp within the RTSP connection, udp beside it.
        Default transport: Choice<Transport> = "tcp";
        /// Where it looks, degrees clockwise from true north. Leave facing and field_of_view out for an all-round dome.
        Optional facing: Within<0, 360> = 120;
        /// How wide it sees, in degrees.
        Optional field_of_view: Within<1, 360> = 90;
        /// How far it makes out a person, in metres.
        Default range: Positive<2_000> = 60;
        /// What the spool keeps beside evidence: nothing, what is sent around an outage of the backhaul, or everything.
        Default record: Choice<RecordPolicy> = "outage";
    }
}
