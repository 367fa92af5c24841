//! From the config to what each room is told.

use tracing::error;

use super::{Error, tls};
use crate::{
    call::{
        self,
        talkback::{Prompt, Prompts},
    },
    config::{Config, Objects},
    host::{clock, scope::Scope},
    incident::{
        engine::{Calls, Settings as EngineSettings},
        nearby::Choice,
    },
    intake,
    spool::MediaSettings,
    uplink::{self, events, objects},
};

/// Live sessions at a time: a wall of screens and some operators. Each costs what its pictures cost.
const SESSIONS: usize = 256;

/// How much of the disk media may use.
pub(super) fn media(config: &Config) -> MediaSettings {
    MediaSettings { quota: config.data.media_quota, keep_free: config.data.keep_free, ..MediaSettings::default() }
}

/// How the engine decides.
pub(super) fn engine(config: &Config) -> EngineSettings {
    EngineSettings {
        district: config.district.id.clone(),
        boot: clock::boot_id().to_owned(),
        before: config.evidence.before,
        after: config.evidence.after,
        choice: Choice { cameras: config.evidence.cameras, radius_m: config.evidence.radius_m },
        debounce: config.evidence.debounce,
        low_battery: config.supervision.low_battery,
        alone: config.headquarters.is_none(),
        calls: Calls {
            groups: config.call.groups.clone(),
            escalate_after: config.call.escalate_after,
            ringing: config.evidence.ringing,
        },
    }
}

/// Where buttons connect, and who else.
pub(super) fn intake(config: &Config, scope: &Scope) -> Result<intake::Settings, Error> {
    let broker = &config.broker;
    let tls = broker.tls.as_ref().map(|tls| {
        let requires_certificate = tls.client_ca.is_some();
        let (cert, key, client_ca) = (tls.cert.clone(), tls.key.clone(), tls.client_ca.clone());
        let config = tls::serve(tls::Files { cert, key, client_ca, demanded: requires_certificate }, scope)?;
        Ok::<_, Error>(intake::Tls { listen: tls.listen, config, requires_certificate })
    });
    let client = |c: &crate::config::BrokerClient| intake::LocalClient {
        id: c.id.clone(),
        password: c.password.clone(),
        may_read: c.may_read.clone(),
    };
    Ok(intake::Settings {
        plain: broker.listen,
        tls: tls.transpose()?,
        max_connections: broker.max_connections,
        max_per_address: broker.max_per_address,
        clients: broker.clients.iter().map(client).collect(),
    })
}

/// How browsers reach live pictures.
pub(super) fn calls(config: &Config) -> call::Settings {
    let webrtc = &config.webrtc;
    let tcp = webrtc.tcp.as_ref().map(|tcp| call::Tcp { listen: tcp.listen, public: tcp.public.clone() });
    call::Settings { listen: webrtc.listen, public: webrtc.public.clone(), tcp, sessions: SESSIONS }
}

/// The ways to headquarters.
pub(super) fn headquarters(
    hq: &crate::config::Headquarters,
    config: &Config,
) -> Result<(events::Settings, objects::Store), Error> {
    let address = |a: &crate::config::MqttAddress| events::Address { host: a.host.clone(), port: a.port, tls: a.tls };
    let ca = hq.ca.as_ref().map(|file| std::fs::read(file).map_err(|e| Error::File(file.display().to_string(), e)));
    let ca = ca.transpose()?;
    let url = match &hq.objects {
        Objects::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        Objects::File(dir) => format!("file://{}", dir.display()),
    };
    let s3 = hq.s3.clone().unwrap_or_default();
    let objects = objects::Settings {
        s3: objects::S3 {
            endpoint: s3.endpoint.map(|u| u.to_string()),
            region: s3.region,
            access_key: s3.access_key,
            virtual_hosted: !s3.path_style,
            allow_http: false,
            ca: ca.clone(),
        },
        bandwidth: hq.bandwidth,
        ..objects::Settings::new(url)
    };
    let objects = objects::open(&objects)?;
    let mqtt = events::Settings {
        login: hq.login.as_ref().map(|l| (l.username.clone(), l.password.clone())),
        client_id: hq.client_id.clone(),
        tls_roots: match &ca {
            Some(pem) => Some(uplink::tls::client_config(Some(pem), None)?),
            None => None,
        },
        pacer: objects.pacer(),
        ..events::Settings::new(config.district.id.clone(), hq.mqtt.iter().map(address).collect())
    };
    Ok((mqtt, objects))
}

/// What units play: our own prompts, and the district's in their place.
pub(super) fn prompts(config: &Config) -> Prompts {
    config.call.prompts.iter().fold(Prompts::default(), |prompts, (name, path)| {
        let Some(prompt) = Prompt::named(name) else { return prompts };
        let read = std::fs::read(path).map_err(|e| e.to_string());
        let own = read.and_then(|file| prompts.clone().with(prompt, file.into()).map_err(|e| e.to_string()));
        own.unwrap_or_else(|why| {
            error!(prompt = name, file = %path.display(), why, "cannot be played; units play our own in its place");
            prompts
        })
    })
}
