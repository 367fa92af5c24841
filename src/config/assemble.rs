//! From the sections as they were read to the settings: what one key cannot know alone. Pure.

use std::{collections::HashMap, net::SocketAddr};

use super::{
    certificate,
    fault::{At, Code},
    ground, keys, memory,
    reader::{Opened, Read, Reader},
    settings::{
        Api, Broker, BrokerClient, BrokerTls, Call, Data, District, Evidence, Headquarters, IceServer, Media, Objects,
        S3, Supervision, WebRtc, WebRtcTcp,
    },
    units::show_size,
};
use crate::{
    district::{
        inventory::{Login, RecordPolicy},
        place::{Bounds, Place},
        secret::Secret,
    },
    media::wav,
};

pub(super) fn district(keys: &keys::District) -> Option<District> {
    let id = keys.id.as_ref()?.value.clone();
    let name = keys.name.as_ref().map_or_else(|| id.to_string(), |name| name.value.clone());
    Some(District { id, name, bounds: keys.bounds.as_ref().map(|b| b.value) })
}

pub(super) fn data(reader: &mut Reader<'_>, keys: &keys::Data) -> Option<Data> {
    let (dir, quota, keep) = (keys.dir.as_ref()?, keys.media_quota.as_ref(), keys.keep_free.as_ref());
    match reader.host().disk(&dir.value) {
        Some(Err(err)) => {
            let folder = dir.value.display();
            reader
                .error(Code::Disk, &dir.at, format!("{folder} cannot be made or written: {err}"))
                .help(format!("make it for the gateway's user: `install -d -o USER -m 750 {folder}`"));
        }
        Some(Ok(disk)) => {
            if let (Some(quota), Some(keep)) = (quota, keep)
                && quota.value.saturating_add(keep.value) > disk.total
            {
                let (want, total) = (show_size(quota.value), show_size(disk.total));
                let room = disk.total.saturating_sub(keep.value) / 10 * 9;
                let what = format!(
                    "media_quota ({want}) and keep_free ({}) are more than the disk of {} has ({total})",
                    show_size(keep.value),
                    dir.value.display()
                );
                reader
                    .warning(Code::Disk, &quota.at, what)
                    .write(format!("media_quota = \"{}GiB\"", (room >> 30).max(1)));
            }
        }
        None => {}
    }
    Some(Data { dir: dir.value.clone(), media_quota: quota?.value, keep_free: keep?.value })
}

pub(super) fn broker(reader: &mut Reader<'_>, keys: &keys::Broker) -> Option<Broker> {
    if keys.listen.is_none() && keys.tls.is_none() && !reader.has_fault_at(&keys.here.key) {
        reader
            .error(Code::Missing, &keys.here, "no button can connect: there is neither listen nor [broker.tls]")
            .write("listen = \"0.0.0.0:1883\"");
    }
    let tls = keys.tls.as_ref().map(|tls| broker_tls(reader, &tls.value));
    let clients = keys.client.as_ref()?;
    twins(reader, "broker.client", clients.value.iter().filter_map(|c| c.id.as_ref()), |id| id.as_str());
    let clients = clients.value.iter().map(broker_client).collect::<Option<Vec<_>>>();
    if let (Some(all), Some(each)) = (&keys.max_connections, &keys.max_per_address)
        && each.value > all.value
        && each.at.span != keys.here.span
    {
        reader.warning(Code::NoEffect, &each.at, "max_per_address is more than max_connections");
    }
    Some(Broker {
        listen: keys.listen.as_ref().map(|l| l.value),
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        clients: clients?,
        max_connections: keys.max_connections.as_ref()?.value,
        max_per_address: keys.max_per_address.as_ref()?.value,
    })
}

fn broker_tls(reader: &mut Reader<'_>, keys: &keys::BrokerTls) -> Option<BrokerTls> {
    if let (Some(cert), Some(key)) = (&keys.cert, &keys.key) {
        certificate::check_pair(reader, cert, key);
    }
    if let Some(ca) = &keys.client_ca {
        certificate::check_authority(reader, ca);
    }
    let path = |file: &Read<Opened>| file.value.path.clone();
    Some(BrokerTls {
        listen: keys.listen.as_ref()?.value,
        cert: path(keys.cert.as_ref()?),
        key: path(keys.key.as_ref()?),
        client_ca: keys.client_ca.as_ref().map(path),
    })
}

fn broker_client(keys: &keys::BrokerClient) -> Option<BrokerClient> {
    Some(BrokerClient {
        id: keys.id.as_ref()?.value.clone(),
        password: keys.password_file.as_ref()?.value.clone(),
        may_read: keys.may_read.as_ref()?.value.iter().map(|filter| filter.value.clone()).collect(),
    })
}

/// One port number for HTTP and WebRTC, unless told otherwise: one hole in a firewall.
pub(super) fn webrtc(reader: &mut Reader<'_>, keys: &keys::WebRtc, api: &Api) -> WebRtc {
    let [public, public_tcp] = [&keys.public, &keys.public_tcp].map(|all| all.iter().flat_map(|all| &all.value));
    for address in public.clone().chain(public_tcp.clone()).filter(|a| a.value.ip().is_unspecified()) {
        let what = format!("{} is every address of this machine, and none that a browser can be told", address.value);
        reader.error(Code::BadValue, &address.at, what).write("the router's own address, such as \"203.0.113.7:8443\"");
    }
    let listen = keys.listen.as_ref().map_or(api.listen, |listen| listen.value);
    let servers = keys.ice_server.iter().flat_map(|all| &all.value);
    let server = |keys: &keys::IceServer| {
        let login = login(reader, keys.username.as_ref(), keys.credential_file.as_ref(), &keys.here);
        let url = keys.url.as_ref()?;
        if login.is_none() && url.value.starts_with("turn") {
            reader
                .error(Code::Missing, &url.at, "a TURN server asks for a user name and a credential")
                .write("username = \"chowki\" and credential_file = \"turn.password\" beside it");
        }
        Some(IceServer { url: url.value.clone(), login })
    };
    let ice_servers = servers.filter_map(server).collect();
    if let (Some(public), None) = (&keys.public_tcp, &keys.tcp) {
        reader
            .warning(Code::NoEffect, &public.at, "public_tcp has no effect without tcp")
            .write("tcp = \"0.0.0.0:8444\" beside it");
    }
    let public: Vec<SocketAddr> = public.map(|address| address.value).collect();
    let tcp = keys.tcp.as_ref().map(|tcp| WebRtcTcp {
        listen: tcp.value,
        public: match keys.public_tcp {
            Some(_) => public_tcp.map(|address| address.value).collect(),
            None => public.iter().map(|address| SocketAddr::new(address.ip(), tcp.value.port())).collect(),
        },
    });
    WebRtc { listen, public, tcp, ice_servers }
}

pub(super) fn call(reader: &mut Reader<'_>, keys: &keys::Call) -> Option<Call> {
    let groups: Vec<String> = keys.groups.as_ref()?.value.iter().map(|group| group.value.clone()).collect();
    for (i, group) in keys.groups.iter().flat_map(|all| &all.value).enumerate() {
        if groups.iter().take(i).any(|earlier| *earlier == group.value) {
            reader.error(Code::Duplicate, &group.at, "this group stands in the list already");
        }
    }
    let prompts = &keys.prompts.as_ref()?.value;
    let files = [
        ("pressed", &prompts.pressed),
        ("reached", &prompts.reached),
        ("waiting", &prompts.waiting),
        ("answered", &prompts.answered),
        ("hold", &prompts.hold),
        ("lost", &prompts.lost),
        ("ended", &prompts.ended),
    ];
    for file in files.iter().filter_map(|(_, file)| file.as_ref()) {
        // A district without its own words is better than one without a gateway.
        if let Some(why) = file.value.bytes.as_ref().and_then(|bytes| wav::read(bytes).err()) {
            reader.warning(
                Code::File,
                &file.at,
                format!("cannot be played, and units play our own in its place: {why}"),
            );
        }
    }
    let prompts = files.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?.value.path.clone())));
    Some(Call { groups, escalate_after: keys.escalate_after.as_ref()?.value, prompts: prompts.collect() })
}

pub(super) fn headquarters(
    reader: &mut Reader<'_>,
    keys: &keys::Headquarters,
    district: Option<&District>,
) -> Option<Headquarters> {
    let login = login(reader, keys.username.as_ref(), keys.password_file.as_ref(), &keys.here);
    if let Some(ca) = &keys.ca {
        certificate::check_authority(reader, ca);
        if let Some(mqtt) = &keys.mqtt
            && !mqtt.value.iter().any(|address| address.value.tls)
        {
            reader.warning(Code::NoEffect, &ca.at, "ca has no effect without TLS").write("mqtt = \"mqtts://...\"");
        }
    }
    let objects = keys.objects.as_ref();
    if let (Some(s3), Some(objects)) = (&keys.s3, objects)
        && matches!(objects.value, Objects::File(_))
    {
        reader.warning(Code::NoEffect, &s3.value.here, "this section has no effect: objects is not an s3:// URL");
    }
    if let Some(objects) = objects
        && matches!(objects.value, Objects::S3 { .. })
        && lacks_access_key(reader, keys)
    {
        let write = "[headquarters.s3] with access_key_id = \"...\" and secret_key_file = \"hq-s3.secret\"";
        reader.error(Code::Missing, &objects.at, "an S3 store needs an access key").write(write);
    }
    let s3 = keys.s3.as_ref().map(|s3| s3_store(reader, &s3.value));
    let client_id = keys.client_id.as_ref().map(|id| id.value.to_string());
    Some(Headquarters {
        mqtt: keys.mqtt.as_ref()?.value.iter().map(|address| address.value.clone()).collect(),
        client_id: client_id.or_else(|| district.map(|d| format!("chowki-{}", d.id)))?,
        login,
        ca: keys.ca.as_ref().map(|ca| ca.value.path.clone()),
        objects: objects?.value.clone(),
        s3,
        bandwidth: keys.bandwidth.as_ref().map(|rate| rate.value),
    })
}

/// Whether no part of an access key is there; half of one is told by [`s3_store`], a faulty one where it stands.
fn lacks_access_key(reader: &Reader<'_>, keys: &keys::Headquarters) -> bool {
    let Some(s3) = &keys.s3 else { return !reader.has_fault_at(&format!("{}.s3", keys.here.key)) };
    let at = |key| format!("{}.{key}", s3.value.here.key);
    let faulty = ["access_key_id", "secret_key_file", "secret_key"].iter().any(|key| reader.has_fault_at(&at(key)));
    s3.value.access_key_id.is_none() && s3.value.secret_key_file.is_none() && !faulty
}

fn s3_store(reader: &mut Reader<'_>, keys: &keys::S3) -> S3 {
    let access_key = match (&keys.access_key_id, &keys.secret_key_file) {
        (Some(id), Some(secret)) => Some((id.value.clone(), secret.value.clone())),
        (Some(id), None) if !reader.has_fault_at(&format!("{}.secret_key_file", keys.here.key)) => {
            reader
                .error(Code::Missing, &id.at, "access_key_id needs its secret key")
                .write("secret_key_file = \"hq-s3.secret\"");
            None
        }
        (None, Some(secret)) => {
            reader
                .error(Code::Missing, &secret.at, "secret_key_file needs its access_key_id")
                .write("access_key_id = \"...\"");
            None
        }
        _ => None,
    };
    S3 {
        endpoint: keys.endpoint.as_ref().map(|url| url.value.clone()),
        region: keys.region.as_ref().map(|region| region.value.clone()),
        access_key,
        path_style: keys.path_style.as_ref().is_some_and(|flag| flag.value),
    }
}

pub(super) fn evidence(
    reader: &mut Reader<'_>,
    keys: &keys::Evidence,
    media: &keys::Media,
    cameras: &[RecordPolicy],
) -> Option<Evidence> {
    let before = keys.before.as_ref()?;
    if let Some(ring) = &media.ring_bytes {
        memory::check(reader, before, ring, cameras);
    }
    Some(Evidence {
        before: before.value,
        after: keys.after.as_ref()?.value,
        cameras: keys.cameras.as_ref()?.value,
        radius_m: keys.radius.as_ref()?.value,
        ringing: keys.ringing.as_ref()?.value,
        debounce: keys.debounce.as_ref()?.value,
    })
}

pub(super) fn supervision(keys: &keys::Supervision) -> Option<Supervision> {
    Some(Supervision { low_battery: keys.low_battery.as_ref()?.value })
}

pub(super) fn media(keys: &keys::Media) -> Option<Media> {
    Some(Media { ring_bytes: keys.ring_bytes.as_ref()?.value })
}

/// A user name and the password that belongs to it. One without the other is a fault.
pub(super) fn login(
    reader: &mut Reader<'_>,
    username: Option<&Read<String>>,
    password: Option<&Read<Secret>>,
    here: &At,
) -> Option<Login> {
    match (username, password) {
        (Some(username), Some(password)) => {
            Some(Login { username: username.value.clone(), password: password.value.clone() })
        }
        (Some(username), None) if !reader.has_fault_at(&format!("{}.password_file", here.key)) => {
            reader
                .error(Code::Missing, &username.at, "a username needs a password")
                .write("password_file = \"NAME.password\" beside it");
            None
        }
        (None, Some(password)) if !reader.has_fault_at(&format!("{}.username", here.key)) => {
            reader
                .error(Code::Missing, &password.at, "a password needs a user name")
                .write("username = \"...\" beside it");
            None
        }
        _ => None,
    }
}

/// Reports every id that was used before, with the line of the first use.
pub(super) fn twins<'k, T: 'k>(
    reader: &mut Reader<'_>,
    kind: &str,
    ids: impl Iterator<Item = &'k Read<T>>,
    text: impl Fn(&T) -> &str,
) {
    let mut first: HashMap<&str, &At> = HashMap::new();
    for id in ids {
        let name = text(&id.value);
        if let Some(earlier) = first.get(name) {
            let what = format!("a {kind} {name:?} already stands on line {}", reader.line(earlier));
            reader.error(Code::Duplicate, &id.at, what).write("an id that no other has");
        } else {
            first.insert(name, &id.at);
        }
    }
}

/// A place outside the district.
pub(super) fn outside(reader: &mut Reader<'_>, at: &Read<Place>, bounds: &Read<Bounds>) {
    if bounds.value.contains(at.value) {
        return;
    }
    let swapped = Place::new(at.value.lon(), at.value.lat());
    let line = reader.line(&bounds.at);
    match swapped {
        Ok(swapped) if bounds.value.contains(swapped) => {
            reader
                .error(
                    Code::OutsideBounds,
                    &at.at,
                    "this lies outside the district: latitude and longitude are swapped",
                )
                .write(format!("at = {}", ground::show(swapped)));
        }
        _ => {
            let what = format!("this lies outside the district's bounds (line {line})");
            reader.error(Code::OutsideBounds, &at.at, what).write("[latitude, longitude] inside them, or wider bounds");
        }
    }
}
