//! From a text to a checked config: the order in which things are looked at. Pure.

use toml::de::DeTable;

use super::{
    assemble, callers,
    fault::{At, Code, Fault, any_error},
    host::Host,
    items::{self, Around},
    keys, listeners,
    node::Table,
    reader::Reader,
    settings::Config,
    topic,
};
use crate::district::inventory::Inventory;

/// A config without errors.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What stands in the district.
    pub inventory: Inventory,
    /// What someone should look at, in the order of the file.
    pub warnings: Vec<Fault>,
}

/// Reads and checks the text of a config. `file` is the name that faults carry.
///
/// # Errors
/// Every fault and every warning in the order of the file, when there is at least one error.
pub fn parse(text: &str, file: &str, host: &dyn Host) -> Result<Loaded, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(file, text, host);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        syntax(&mut reader, text, error);
    }
    let table = Table::from_toml(table.get_ref());
    let root: keys::Root = reader.section(&table, At::default());
    let loaded = assemble_all(&mut reader, &root);
    let mut faults = reader.finish();
    if !errors.is_empty() {
        drop_echoes(&mut faults);
    }
    match loaded {
        Some((config, inventory)) if !any_error(&faults) => Ok(Loaded { config, inventory, warnings: faults }),
        _ if any_error(&faults) => Err(faults),
        _ => {
            faults.push(Fault::whole(Code::BadValue, file, "this config cannot be used, for no reason that is known"));
            Err(faults)
        }
    }
}

fn syntax(reader: &mut Reader<'_>, text: &str, error: &toml::de::Error) {
    let span = error.span().unwrap_or(0..0);
    let at = At { span: span.clone(), key: String::new() };
    let message = error.message().trim();
    let line = text.get(..span.start).map_or("", |before| before.rsplit('\n').next().unwrap_or(""));
    let help = if message.contains("duplicate key") {
        "write each key and each [section] once; [[button]] and [[camera]], in double brackets, repeat"
    } else if message.contains("string values must be quoted") {
        "write the text in quotes: \"...\""
    } else if line.trim().is_empty() && message.contains("key") {
        "write NAME = VALUE, or [section]"
    } else {
        "see https://toml.io for how values are written: texts in quotes, lists in [ ]"
    };
    reader.error(Code::Syntax, &at, format!("this is not TOML: {message}")).help(help);
}

/// After a syntax error the rest was read as well as it went: what seems to be missing may stand on the broken line,
/// and a second fault of that line says nothing new.
fn drop_echoes(faults: &mut Vec<Fault>) {
    let broken: Vec<usize> = faults.iter().filter(|f| f.code == Code::Syntax).map(|f| f.line).collect();
    let mut seen = Vec::new();
    faults.retain(|fault| match fault.code {
        Code::Syntax => {
            let again = seen.contains(&fault.line);
            seen.push(fault.line);
            !again
        }
        Code::Missing | Code::NoCamera | Code::NoEffect => false,
        _ => !broken.contains(&fault.line),
    });
}

fn assemble_all(reader: &mut Reader<'_>, root: &keys::Root) -> Option<(Config, Inventory)> {
    let section = |key: &str, reader: &Reader<'_>| reader.has_fault_at(key);
    let broker_keys = root.broker.as_ref().map(|b| &b.value);
    let district_keys = root.district.as_ref().map(|d| &d.value);
    let evidence_keys = root.evidence.as_ref().map(|e| &e.value);
    let media_keys = root.media.as_ref().map(|m| &m.value);

    let around = Around {
        bounds: district_keys.and_then(|d| d.bounds.as_ref()),
        certificates: broker_keys
            .filter(|_| !section("broker.tls", reader))
            .map(|b| b.tls.as_ref().is_some_and(|tls| tls.value.client_ca.is_some())),
        radius_m: evidence_keys.and_then(|e| e.radius.as_ref()).map(|r| r.value),
    };
    let district = district_keys.and_then(assemble::district);
    let data = root.data.as_ref().and_then(|data| assemble::data(reader, &data.value));
    let broker = broker_keys.and_then(|keys| assemble::broker(reader, keys));
    let call = root.call.as_ref().and_then(|call| assemble::call(reader, &call.value));
    let api = root.api.as_ref().and_then(|api| callers::api(reader, &api.value, call.as_ref()));
    let webrtc_keys = root.webrtc.as_ref();
    let webrtc = webrtc_keys.zip(api.as_ref()).map(|(keys, api)| assemble::webrtc(reader, &keys.value, api));
    let rtsp = root.rtsp.as_ref().map(|rtsp| callers::rtsp(reader, &rtsp.value, api.as_ref()));
    let headquarters =
        root.headquarters.as_ref().map(|hq| assemble::headquarters(reader, &hq.value, district.as_ref()));
    listeners::check(reader, root);

    let (no_buttons, no_cameras) = (Vec::new(), Vec::new());
    let button_keys = root.button.as_ref().map_or(&no_buttons, |b| &b.value);
    let camera_keys = root.camera.as_ref().map_or(&no_cameras, |c| &c.value);
    let buttons: Vec<_> = button_keys.iter().map(|keys| items::button(reader, keys, &around)).collect();
    let cameras: Vec<_> = camera_keys.iter().map(|keys| items::camera(reader, keys, &around)).collect();
    items::together(reader, button_keys, camera_keys, broker_keys, &around);
    if let Some(broker) = broker_keys {
        let ids: Vec<&str> = button_keys.iter().filter_map(|b| b.id.as_ref()).map(|id| id.value.as_str()).collect();
        topic::check_use(reader, broker, &ids);
    }

    let units = button_keys.iter().filter_map(|b| b.unit.as_ref()).filter(|u| u.value.url.is_some());
    let records = units.map(|u| &u.value.record).chain(camera_keys.iter().map(|c| &c.record));
    let records: Vec<_> = records.map(|record| record.as_ref().map_or_else(Default::default, |r| r.value)).collect();
    let evidence = match (evidence_keys, media_keys) {
        (Some(keys), Some(media)) => assemble::evidence(reader, keys, media, &records),
        _ => None,
    };
    let supervision = root.supervision.as_ref().and_then(|s| assemble::supervision(&s.value));
    let media = media_keys.and_then(assemble::media);

    let buttons = buttons.into_iter().collect::<Option<Vec<_>>>()?;
    let inventory = Inventory::new(buttons, cameras.into_iter().collect::<Option<Vec<_>>>()?);
    let config = Config {
        district: district?,
        data: data?,
        broker: broker?,
        api: api?,
        webrtc: webrtc?,
        rtsp: match rtsp {
            Some(rtsp) => Some(rtsp?),
            None => None,
        },
        headquarters: match headquarters {
            Some(headquarters) => Some(headquarters?),
            None => None,
        },
        evidence: evidence?,
        supervision: supervision?,
        media: media?,
        call: call?,
    };
    Some((config, inventory))
}
