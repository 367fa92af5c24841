//! Floor 1. TOML as an installer writes it -> validated settings and inventory; every fault with file, line, column and what to write instead.
//!
//! [`load`] reads a file, [`parse()`] a text for any [`Host`]. Both report every fault at once. All keys stand in one
//! table (`keys.rs`), which the reader, the did-you-mean, the defaults and the JSON [`schema()`] come from.

mod assemble;
mod callers;
mod certificate;
mod fault;
mod ground;
mod host;
mod import;
mod items;
mod json;
mod keys;
mod kinds;
mod links;
mod listeners;
mod machine;
mod mask;
mod memory;
mod node;
mod parse;
mod reader;
mod render;
mod schema;
mod section;
mod settings;
mod topic;
mod units;

use std::path::Path;

pub use fault::{Code, Fault, Severity, any_error};
pub use host::{DiskSpace, FileRead, Host, Nowhere};
pub use import::{Imported, Sheet, import};
pub use machine::{Machine, Ports, credentials};
pub use parse::{Loaded, parse};
pub use render::{count, render_human, render_json};
pub use schema::schema;
pub use settings::{
    Api, ApiClient, ApiTls, Broker, BrokerClient, BrokerTls, Call, Config, Data, District, Evidence, Headquarters,
    IceServer, Media, MqttAddress, Objects, Role, Rtsp, S3, Supervision,
};
pub use topic::{NotAFilter, check as check_filter};
pub use units::{NotAQuantity, duration, rate, show_duration, show_rate, show_size, size};

/// The largest config that is read, in bytes: a hundred thousand cameras have room in it.
const LARGEST_CONFIG: u64 = 64 << 20;

/// What some editors and spreadsheets begin a text with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads and checks a config and every file that it names.
///
/// # Errors
/// Every fault and every warning, when there is at least one error. When the file itself cannot be read, the one
/// fault is [`Code::Unreadable`].
pub fn load(path: &Path, ports: Ports) -> Result<Loaded, Vec<Fault>> {
    let name = path.display().to_string();
    let text = read_text(path)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    parse(&text, &name, &Machine::new(dir, ports))
}

/// Reads a text file that an installer wrote; a byte order mark is left out.
///
/// # Errors
/// [`Code::Unreadable`] with the system's reason; [`Code::Syntax`] when it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Vec<Fault>> {
    use std::io::Read as _;
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST_CONFIG + 1).read_to_end(&mut bytes));
    if let Err(err) = read {
        let mut fault = Fault::whole(Code::Unreadable, &name, format!("cannot be read: {err}"));
        fault.help("name a file that is there and that this user can read");
        return Err(vec![fault]);
    }
    if bytes.len() as u64 > LARGEST_CONFIG {
        return Err(vec![Fault::whole(Code::Unreadable, &name, "is larger than 64 MiB")]);
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|err| {
        let line = err.as_bytes()[..err.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        let mut fault = Fault::whole(Code::Syntax, &name, format!("is not UTF-8 text on line {line}"));
        fault.line = line;
        fault.help("save it as UTF-8");
        vec![fault]
    })
}
