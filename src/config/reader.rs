//! The typed reader: walks a file by the table of keys and collects every fault on its way. Pure.

use std::{
    collections::{HashMap, HashSet},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeValue;

use super::{
    fault::{At, Code, Fault, Severity, Source},
    host::Host,
    mask,
    node::{Entry, Node, Table},
    section::{Key, Kind, Need, Section},
};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Read<T> {
    /// The value.
    pub value: T,
    /// Its place; that of the table for a default.
    pub at: At,
}

/// A file that a key names.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// Its path.
    pub path: PathBuf,
    /// What is in it; `None` where the host has no files.
    pub bytes: Option<Arc<[u8]>>,
}

/// A file that several keys may name: read once, its fault told once.
struct Known {
    bytes: Option<Arc<[u8]>>,
    fault: Option<usize>,
    uses: usize,
    broken: bool,
}

/// Walks one file.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    host: &'a dyn Host,
    faults: Vec<Fault>,
    /// Keys with an error at or below them.
    faulty: HashSet<String>,
    files: HashMap<PathBuf, Known>,
}

impl<'a> Reader<'a> {
    /// A reader of a text from a file of that name.
    pub fn new(file: &'a str, text: &'a str, host: &'a dyn Host) -> Self {
        Self {
            source: Source::new(file, text),
            host,
            faults: Vec::new(),
            faulty: HashSet::new(),
            files: HashMap::new(),
        }
    }

    /// Reports an error; what to write instead can be added to it.
    pub fn error(&mut self, code: Code, at: &At, what: impl AsRef<str>) -> &mut Fault {
        self.report(Severity::Error, code, at, what.as_ref())
    }

    /// Reports a warning.
    pub fn warning(&mut self, code: Code, at: &At, what: impl AsRef<str>) -> &mut Fault {
        self.report(Severity::Warning, code, at, what.as_ref())
    }

    fn report(&mut self, severity: Severity, code: Code, at: &At, what: &str) -> &mut Fault {
        let fault = self.source.fault(severity, code, at, what);
        if severity == Severity::Error {
            self.mark_faulty(&at.key);
        }
        let i = self.faults.len();
        self.faults.push(fault);
        &mut self.faults[i]
    }

    fn mark_faulty(&mut self, key: &str) {
        for (i, _) in key.match_indices('.').chain([(key.len(), "")]) {
            self.faulty.insert(key[..i].to_owned());
        }
    }

    /// The host that the config is for.
    pub fn host(&self) -> &'a dyn Host {
        self.host
    }

    /// Whether a key, or one below it, is already known to be faulty. Then nothing is said about it twice.
    pub fn has_fault_at(&self, key: &str) -> bool {
        self.faulty.contains(key)
    }

    /// The line something stands on, from 1.
    pub fn line(&self, at: &At) -> usize {
        self.source.line(at.span.start)
    }

    /// All faults, in the order of the file.
    pub fn finish(mut self) -> Vec<Fault> {
        for known in self.files.values() {
            if let Some(fault) = known.fault.and_then(|i| self.faults.get_mut(i))
                && known.uses > 1
            {
                fault.what = format!("{} (named {} times)", fault.what, known.uses);
            }
        }
        self.faults.sort_by_key(|f| (f.line, f.column));
        self.faults
    }

    /// Reads a whole section; keys that it does not know are faults.
    pub fn section<S: Section>(&mut self, table: &Table, here: At) -> S {
        for entry in &table.entries {
            if !S::KEYS.iter().any(|key| key.name == entry.key) {
                self.unknown(entry, S::KEYS, &here);
            }
        }
        S::read(self, table, here)
    }

    /// Reads one key of a section.
    pub fn key<K: Kind>(&mut self, table: &Table, here: &At, key: &'static Key) -> Option<Read<K::Value>> {
        if let Some(node) = table.get(key.name) {
            let at = At { span: node.span.clone(), key: path(&here.key, key.name) };
            return K::read(self, node, &at).map(|value| Read { value, at });
        }
        let at = At { span: here.span.clone(), key: path(&here.key, key.name) };
        match key.need {
            Need::Optional => None,
            Need::Required if self.has_fault_at(&at.key) => None,
            Need::Required => {
                self.missing::<K>(&at, key);
                None
            }
            Need::Default => {
                let node = match key.example.and_then(|text| DeValue::parse(text).ok()) {
                    Some(value) => Node { span: here.span.clone(), ..Node::from_toml(&value) },
                    None => Node { span: here.span.clone(), body: K::nothing() },
                };
                K::read(self, &node, &at).map(|value| Read { value, at })
            }
        }
    }

    fn missing<K: Kind>(&mut self, at: &At, key: &Key) {
        let (what, write) = if K::below().is_empty() {
            (format!("the key `{}` is missing", key.name), format!("{} = {}", key.name, key.example.unwrap_or("...")))
        } else {
            let keys = K::below().iter().filter(|k| k.need == Need::Required);
            let keys: String = keys.map(|k| format!("\n{} = {}", k.name, k.example.unwrap_or("..."))).collect();
            (format!("the section [{}] is missing", at.key), format!("[{}]{keys}", at.key))
        };
        let doc = key.doc.trim();
        self.error(
            Code::Missing,
            at,
            format!("{what}: {}", doc.split(". ").next().unwrap_or(doc).trim_end_matches('.')),
        )
        .write(write);
    }

    fn unknown(&mut self, entry: &Entry, keys: &'static [Key], here: &At) {
        let at = At { span: entry.span.clone(), key: path(&here.key, &entry.key) };
        let misspelt = misspelt_file_key(&entry.key, keys);
        if misspelt.is_none() && mask::is_secret_key(&entry.key) {
            let file = secret_file_key(&entry.key, keys);
            let what = format!("`{}`: no secret stands in the config itself", entry.key);
            let fault = self.error(Code::SecretInConfig, &at, what);
            match file {
                Some(file) => fault
                    .write(format!("{file} = \"NAME.{}\"", entry.key))
                    .help("put the secret into that file, mode 0600"),
                None => fault.help("leave it out"),
            };
            return;
        }
        let what = match here.key.as_str() {
            "" => format!("`{}` is not a section or key of this file", entry.key),
            section => format!("`{}` is not a key of {}", entry.key, show_section(section)),
        };
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        let near = misspelt.or_else(|| closest(&entry.key, names.iter().copied()));
        let write = match (near, elsewhere(&entry.key)) {
            (Some(name), _) => name.to_owned(),
            (None, Some(section)) => format!("it under [{section}], where `{}` belongs", entry.key),
            (None, None) => format!("one of: {}", names.join(", ")),
        };
        self.error(Code::UnknownKey, &at, what).write(write);
    }

    /// A value of the wrong type.
    pub fn wrong_type(&mut self, node: &Node, at: &At, wanted: &str, example: &str) {
        self.error(Code::WrongType, at, format!("this must be {wanted}, and is {}", node.kind())).write(example);
    }

    /// Opens the file that a key names.
    pub fn open(&mut self, name: &str, at: &At, private: bool) -> Option<Opened> {
        let path = self.host.resolve(name);
        if let Some(known) = self.files.get_mut(&path) {
            known.uses += 1;
            let opened = (!known.broken).then(|| Opened { path, bytes: known.bytes.clone() });
            if opened.is_none() {
                self.mark_faulty(&at.key);
            }
            return opened;
        }
        let before = self.faults.len();
        let bytes = self.open_first(&path, at, private);
        let fault = (self.faults.len() > before).then_some(before);
        let broken = self.faults[before..].iter().any(Fault::is_error);
        self.files.insert(path.clone(), Known { bytes: bytes.clone(), fault, uses: 1, broken });
        (!broken).then_some(Opened { path, bytes })
    }

    fn open_first(&mut self, path: &Path, at: &At, private: bool) -> Option<Arc<[u8]>> {
        let shown = path.display();
        let file = match self.host.read(path)? {
            Ok(file) => file,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let fault = self.error(Code::File, at, format!("there is no file {shown}"));
                if private {
                    fault.help(format!("put the secret into it: `install -m 600 /dev/stdin {shown}`"));
                } else {
                    fault.write("the name of a file that is there, relative to this config");
                }
                return None;
            }
            Err(err) => {
                let remedy = match err.kind() {
                    ErrorKind::FileTooLarge => "name the file that was meant: one of this kind is far smaller",
                    ErrorKind::InvalidInput => "name a regular file",
                    _ => "let the gateway's user read it, and enter the folders above it",
                };
                self.error(Code::File, at, format!("{shown} cannot be read: {err}")).help(remedy);
                return None;
            }
        };
        if file.bytes.iter().all(u8::is_ascii_whitespace) {
            self.error(Code::File, at, format!("{shown} is empty")).help("put into it what belongs there");
            return None;
        }
        if private && file.world_readable {
            self.warning(Code::Exposed, at, format!("every user of this machine can read {shown}"))
                .help(format!("`chmod o= {shown}`"));
        }
        Some(file.bytes.into())
    }
}

/// The path of a key below another.
pub(super) fn path(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// The known name that was probably meant.
pub(super) fn closest<'n>(written: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let written = plain(written);
    let meant = SYNONYMS.iter().find(|(other, _)| *other == written).map(|(_, name)| *name);
    let allowed = (written.chars().count() / 3).max(1);
    let scored = known.map(|name| match meant {
        Some(meant) if meant == name => (0, name),
        _ => (strsim::damerau_levenshtein(&written, &plain(name)), name),
    });
    scored.filter(|&(distance, _)| distance <= allowed).min_by_key(|&(distance, _)| distance).map(|(_, name)| name)
}

/// What people call things that have another name here.
const SYNONYMS: [(&str, &str); 22] = [
    ("fov", "field_of_view"),
    ("angle", "field_of_view"),
    ("direction", "facing"),
    ("bearing", "facing"),
    ("azimuth", "facing"),
    ("heading", "facing"),
    ("position", "at"),
    ("location", "at"),
    ("coordinates", "at"),
    ("distance", "range"),
    ("user", "username"),
    ("login", "username"),
    ("rtsp", "url"),
    ("stream", "url"),
    ("substream", "sub_url"),
    ("address", "listen"),
    ("bind", "listen"),
    ("certificate", "cert"),
    ("private_key", "key"),
    ("ca_cert", "ca"),
    ("path", "dir"),
    ("quota", "media_quota"),
];

/// The key that takes the file of a secret: `password_file` for `password`.
fn secret_file_key(written: &str, keys: &'static [Key]) -> Option<&'static str> {
    let files = || keys.iter().map(|key| key.name).filter(|name| name.ends_with("_file"));
    files().find(|name| *name == format!("{written}_file")).or_else(|| files().next())
}

/// The key of a secret's file that was misspelt by a letter or two: `password_fil` names a file and is no secret itself.
fn misspelt_file_key(written: &str, keys: &'static [Key]) -> Option<&'static str> {
    let near = |name: &&str| strsim::damerau_levenshtein(written, name) <= 2;
    keys.iter().map(|key| key.name).filter(|name| name.ends_with("_file")).find(near)
}

/// The section that a key of this name belongs in.
fn elsewhere(name: &str) -> Option<String> {
    fn search(keys: &'static [Key], above: &str, name: &str) -> Option<String> {
        keys.iter().find_map(|key| {
            let below = (key.below)();
            let here = path(above, key.name);
            if below.iter().any(|k| k.name == name) { Some(here) } else { search(below, &here, name) }
        })
    }
    search(super::keys::Root::KEYS, "", name)
}

/// A section's path as people know it: `[broker.tls]`, `button "saddar-01"`.
fn show_section(key: &str) -> String {
    match key.split_once('[') {
        Some((kind, rest)) => {
            let (id, below) = rest.split_once(']').unwrap_or((rest, ""));
            let below = below.trim_start_matches('.');
            let of = if below.is_empty() { String::new() } else { format!("[{kind}.{below}] of ") };
            format!("{of}{kind} {id}")
        }
        None => format!("[{key}]"),
    }
}
