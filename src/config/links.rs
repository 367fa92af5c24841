//! The kinds of values that lead elsewhere: addresses, URLs, files. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde_json::{Value as Json, json};
use url::Url;

use super::{
    BYTE_ORDER_MARK,
    fault::{At, Code},
    mask,
    node::{Body, Node},
    reader::{Opened, Reader},
    section::Kind,
    settings::{MqttAddress, Objects},
};
use crate::district::{
    inventory::{SpeakerCodec, Voice},
    secret::Secret,
};

fn text<'n>(reader: &mut Reader<'_>, node: &'n Node, at: &At, wanted: &str, example: &str) -> Option<&'n str> {
    match &node.body {
        Body::Text(text) if !text.trim().is_empty() => Some(text),
        Body::Text(_) => {
            reader.error(Code::BadValue, at, format!("this is empty, and must be {wanted}")).write(example);
            None
        }
        _ => {
            reader.wrong_type(node, at, wanted, example);
            None
        }
    }
}

/// `address:port` to listen on.
pub(super) struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<SocketAddr> {
        if let Body::Integer(port) = node.body {
            reader.wrong_type(node, at, "an address and a port", &format!("\"0.0.0.0:{port}\""));
            return None;
        }
        let text = text(reader, node, at, "an address and a port", "\"0.0.0.0:1883\"")?;
        match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() != 0 => return Some(addr),
            Ok(addr) => {
                reader
                    .error(Code::BadValue, at, "port 0 is a different port at each start")
                    .write(format!("\"{}\"", SocketAddr::new(addr.ip(), 1883)));
            }
            Err(_) => {
                let write = match (text.parse::<IpAddr>(), text.trim_start_matches([':', '*']).parse::<u16>()) {
                    (Ok(ip), _) => format!("\"{}\"", SocketAddr::new(ip, 1883)),
                    (_, Ok(port)) => format!("\"0.0.0.0:{port}\""),
                    _ if text.starts_with("localhost:") => format!("{:?}", text.replacen("localhost", "127.0.0.1", 1)),
                    _ => "\"0.0.0.0:1883\"".to_owned(),
                };
                reader.error(Code::BadValue, at, format!("{text:?} is not an IP address and a port")).write(format!(
                    "{write}   (0.0.0.0 listens on every address, {} on this machine only)",
                    Ipv4Addr::LOCALHOST
                ));
            }
        }
        None
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$" })
    }
}

/// Reads a URL with one of these schemes, a host and no login in it.
fn url(reader: &mut Reader<'_>, node: &Node, at: &At, schemes: &[&str], example: &str) -> Option<Url> {
    let text = text(reader, node, at, "a URL", example)?;
    let wanted = schemes.iter().map(|s| format!("{s}://")).collect::<Vec<_>>().join(" or ");
    let url = match Url::parse(text.trim()) {
        Ok(url) => url,
        Err(err) => {
            let write = if text.contains("://") { example.to_owned() } else { format!("\"{}://{text}\"", schemes[0]) };
            reader.error(Code::BadValue, at, format!("this is not a URL: {err}")).write(write);
            return None;
        }
    };
    if !schemes.contains(&url.scheme()) {
        reader
            .error(Code::BadValue, at, format!("this must be a URL that begins with {wanted}, not {}:", url.scheme()))
            .write(example);
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        let mut plain = url.clone();
        let _ = (plain.set_username(""), plain.set_password(None));
        reader
            .error(Code::SecretInConfig, at, "a URL here holds no user name or password")
            .write(format!("\"{plain}\", and beside it username = \"...\" and password_file = \"...\""));
        return None;
    }
    if mask::has_secret(&url[url::Position::BeforePath..]) {
        reader
            .error(Code::SecretInConfig, at, "no secret stands in the config, and this URL carries one")
            .write("the URL without it, and beside it username = \"...\" and password_file = \"...\"");
        return None;
    }
    if url.host_str().is_none_or(str::is_empty) {
        reader.error(Code::BadValue, at, "this URL names no host").write(example);
        return None;
    }
    if url.port() == Some(0) {
        reader.error(Code::BadValue, at, "no host has a port 0").write(example);
        return None;
    }
    Some(url)
}

/// `rtsp://host[:port]/path`
pub(super) struct RtspUrl;

impl Kind for RtspUrl {
    type Value = Url;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Url> {
        url(reader, node, at, &["rtsp"], "\"rtsp://10.1.1.1/main\"")
    }
    fn schema() -> Json {
        json!({ "type": "string", "format": "uri", "pattern": "^rtsp://[^@]+$" })
    }
}

/// `http(s)://host[:port]`
pub(super) struct HttpUrl;

impl Kind for HttpUrl {
    type Value = Url;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Url> {
        url(reader, node, at, &["https", "http"], "\"https://minio.example.gov.pk:9000\"")
    }
    fn schema() -> Json {
        json!({ "type": "string", "format": "uri", "pattern": "^https?://[^@]+$" })
    }
}

/// `mqtt://host[:port]` or `mqtts://host[:port]`
pub(super) struct MqttUrl;

impl Kind for MqttUrl {
    type Value = MqttAddress;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<MqttAddress> {
        let example = "\"mqtts://hq.example.gov.pk:8883\"";
        let url = url(reader, node, at, &["mqtts", "mqtt"], example)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            reader.error(Code::BadValue, at, "a broker's URL ends after its port").write(example);
            return None;
        }
        let tls = url.scheme() == "mqtts";
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some(MqttAddress { tls, host, port: url.port().unwrap_or(if tls { 8883 } else { 1883 }) })
    }
    fn schema() -> Json {
        json!({ "type": "string", "format": "uri", "pattern": "^mqtts?://[^@/]+/?$" })
    }
}

/// `s3://bucket[/prefix]` or `file:///folder`
pub(super) struct ObjectsUrl;

impl Kind for ObjectsUrl {
    type Value = Objects;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Objects> {
        let example = "\"s3://evidence\" or \"file:///srv/evidence\"";
        let text = text(reader, node, at, "a URL", example)?;
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if bucket.len() < 3 || !bucket.chars().all(fits) {
                reader
                    .error(Code::BadValue, at, "a bucket's name has at least 3 of a-z, 0-9, '-' and '.'")
                    .write("\"s3://evidence\"");
                return None;
            }
            return Some(Objects::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() });
        }
        if text.starts_with("file:") {
            let folder =
                Url::parse(text).ok().filter(|_| text.starts_with("file:///")).and_then(|u| u.to_file_path().ok());
            if folder.is_none() {
                reader
                    .error(Code::BadValue, at, "a file:// URL has three slashes and a whole path")
                    .write("\"file:///srv/evidence\"");
            }
            return folder.map(Objects::File);
        }
        let write = if text.starts_with('/') { format!("\"file://{text}\"") } else { example.to_owned() };
        reader.error(Code::BadValue, at, "this is neither an s3:// nor a file:// URL").write(write);
        None
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(s3://.+|file:///.+)$" })
    }
}

/// `onvif` or `rtp://host:port?codec=pcmu`
pub(super) struct Speaker;

impl Kind for Speaker {
    type Value = Voice;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Voice> {
        let example = "\"onvif\" or \"rtp://10.1.0.11:5004?codec=pcmu\"";
        if text(reader, node, at, "\"onvif\" or an rtp:// URL", example)? == "onvif" {
            return Some(Voice::Backchannel);
        }
        let url = url(reader, node, at, &["rtp"], example)?;
        let Some(port) = url.port() else {
            reader.error(Code::BadValue, at, "an rtp:// URL needs a port").write(example);
            return None;
        };
        let codec = url.query_pairs().find(|(name, _)| name == "codec").map(|(_, codec)| codec.into_owned());
        let codec = match codec.as_deref() {
            None | Some("pcmu") => SpeakerCodec::Pcmu,
            Some("pcma") => SpeakerCodec::Pcma,
            Some("opus") => SpeakerCodec::Opus,
            Some(other) => {
                reader
                    .error(Code::BadValue, at, format!("the codec {other:?} is none of pcmu, pcma and opus"))
                    .write("codec=pcmu, codec=pcma or codec=opus");
                return None;
            }
        };
        Some(Voice::Rtp { host: url.host_str()?.trim_matches(['[', ']']).to_owned(), port, codec })
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(onvif|rtp://.+:[0-9]+([?]codec=(pcm[ua]|opus))?)$" })
    }
}

/// `stun:host:port`, `turn:host:port` or `turns:host:port` (RFC 7064, RFC 7065).
pub(super) struct IceUrl;

impl Kind for IceUrl {
    type Value = String;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<String> {
        let example = "\"turn:turn.hq.example.gov.pk:3478\"";
        let text = text(reader, node, at, "a stun:, turn: or turns: URL", example)?;
        let rest = ["stun:", "stuns:", "turn:", "turns:"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let plain = |host: &str| !host.is_empty() && !host.contains(['/', '@', ' ']);
        if !rest.is_some_and(plain) {
            reader.error(Code::BadValue, at, "this is not the URL of a STUN or TURN server").write(example);
            return None;
        }
        Some(text.to_owned())
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(stun|turn)s?:[^/@ ]+$" })
    }
}

/// A file that holds a secret: its first line.
pub(super) struct SecretFile;

impl Kind for SecretFile {
    type Value = Secret;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Secret> {
        let name = text(reader, node, at, "a file name", "\"NAME.password\"")?;
        let opened = reader.open(name, at, true)?;
        let Some(bytes) = opened.bytes else { return Some(Secret::new("")) };
        match secret(&bytes) {
            Ok(secret) => Some(secret),
            Err((what, remedy)) => {
                reader.error(Code::File, at, format!("{} {what}", opened.path.display())).help(remedy);
                None
            }
        }
    }
    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// The secret that stands in a file; otherwise what is wrong with the file, and what to do.
fn secret(bytes: &[u8]) -> Result<Secret, (&'static str, &'static str)> {
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(("begins with a byte order mark", "save it as plain UTF-8"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(("is not UTF-8 text", "save it as plain UTF-8")) };
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.contains('\0') {
        return Err(("holds a NUL character", "put the secret alone into it, as plain UTF-8 text"));
    }
    if secret.contains(['\n', '\r']) {
        return Err(("has more than one line", "put the secret alone into it, on one line"));
    }
    Ok(Secret::new(secret))
}

/// A file that must be there; `SECRET`: others must not read it.
pub(super) struct File<const SECRET: bool>;

impl<const SECRET: bool> Kind for File<SECRET> {
    type Value = Opened;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Opened> {
        let name = text(reader, node, at, "a file name", "\"NAME.pem\"")?;
        reader.open(name, at, SECRET)
    }
    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A folder, which need not be there yet.
pub(super) struct Folder;

impl Kind for Folder {
    type Value = PathBuf;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<PathBuf> {
        let name = text(reader, node, at, "a folder", "\"/var/lib/chowki\"")?;
        Some(reader.host().resolve(name))
    }
    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}
