//! An inventory sheet becomes `[[camera]]` sections. Pure.
//!
//! CSV (RFC 4180) or GeoJSON (RFC 7946); rows are read by the same table of keys as a config.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::Path,
};

use super::{
    assemble::twins,
    fault::{At, Code, Fault, any_error},
    host::Nowhere,
    items::{self, Around},
    json, keys,
    kinds::Names,
    mask,
    node::{Body, Entry, Node, Table},
    reader::{Reader, closest, path},
    render::count,
    section::Section as _,
};
use crate::district::ids::CameraId;

/// What kind of sheet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sheet {
    /// Comma-separated values with a header; semicolons do too.
    Csv,
    /// A GeoJSON FeatureCollection of Points. Its coordinates are `[longitude, latitude]`.
    GeoJson,
}

impl Sheet {
    /// By the file's name, or by how its text begins.
    pub fn of(path: &Path, text: &str) -> Self {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv" | "tsv" | "txt") => Self::Csv,
            Some("geojson" | "json") => Self::GeoJson,
            _ if text.trim_start().starts_with('{') => Self::GeoJson,
            _ => Self::Csv,
        }
    }
}

/// What came of a sheet.
#[derive(Debug)]
pub struct Imported {
    /// `[[camera]]` sections, ready to be put into a config.
    pub toml: String,
    /// How many.
    pub cameras: usize,
    /// What someone should look at.
    pub warnings: Vec<Fault>,
}

/// Columns and properties that are not keys of a camera as they stand.
const COLUMNS: [&str; 2] = ["lat", "lon"];

/// What sheets call the columns.
const OTHER_NAMES: [(&str, &str); 26] = [
    ("latitude", "lat"),
    ("y", "lat"),
    ("longitude", "lon"),
    ("long", "lon"),
    ("lng", "lon"),
    ("x", "lon"),
    ("camera", "id"),
    ("camera_id", "id"),
    ("label", "name"),
    ("title", "name"),
    ("camera_name", "name"),
    ("rtsp", "url"),
    ("rtsp_url", "url"),
    ("stream", "url"),
    ("main_url", "url"),
    ("rtsp_sub", "sub_url"),
    ("sub_stream", "sub_url"),
    ("substream", "sub_url"),
    ("azimuth", "facing"),
    ("bearing", "facing"),
    ("heading", "facing"),
    ("direction", "facing"),
    ("fov", "field_of_view"),
    ("hfov", "field_of_view"),
    ("distance", "range"),
    ("user", "username"),
];

/// Turns a sheet into `[[camera]]` sections. `file` is the name that faults carry. Files that rows name are not looked
/// for: `check` does that once the sections are in a config.
///
/// # Errors
/// Every fault and every warning, when there is at least one error.
pub fn import(text: &str, file: &str, sheet: Sheet) -> Result<Imported, Vec<Fault>> {
    // Spreadsheets write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(file, text, &Nowhere);
    let rows = match sheet {
        Sheet::Csv => csv_rows(&mut reader, text),
        Sheet::GeoJson => geojson_rows(&mut reader, text),
    };
    let around = Around { bounds: None, certificates: None, radius_m: None };
    let cameras: Vec<keys::Camera> = rows
        .iter()
        .map(|row| reader.section(&row.table, At { span: row.span.clone(), key: row.key.clone() }))
        .collect();
    for camera in &cameras {
        let _ = items::camera(&mut reader, camera, &around);
    }
    twins(&mut reader, "camera", cameras.iter().filter_map(|c| c.id.as_ref()), CameraId::as_str);
    if rows.is_empty() && !reader.has_fault_at("") {
        reader.error(Code::Missing, &At::default(), "there is no camera in this sheet");
    }
    let faults = reader.finish();
    if any_error(&faults) {
        return Err(faults);
    }
    let mut toml =
        format!("# {}, imported from {}\n", count(rows.len(), "camera"), file.replace(char::is_control, " "));
    for row in &rows {
        write_camera(&mut toml, &row.table);
    }
    Ok(Imported { toml, cameras: rows.len(), warnings: faults })
}

/// One camera of a sheet.
struct Row {
    table: Table,
    span: Range<usize>,
    key: String,
}

/// Names rows, and says what is wrong with column names, once each.
#[derive(Default)]
struct Columns {
    names: Names,
    told: HashSet<String>,
}

impl Columns {
    /// The key that a column's name stands for.
    fn key(&mut self, reader: &mut Reader<'_>, name: &str, span: Range<usize>) -> Option<&'static str> {
        let plain = name.trim().to_ascii_lowercase().replace([' ', '-'], "_");
        let meant = OTHER_NAMES.iter().find(|(other, _)| *other == plain).map_or(plain.as_str(), |(_, name)| name);
        let known = || keys::Camera::KEYS.iter().map(|k| k.name).filter(|k| *k != "at").chain(COLUMNS);
        if let Some(key) = known().find(|key| *key == meant) {
            return Some(key);
        }
        if !self.told.insert(plain.clone()) || plain.is_empty() {
            return None;
        }
        let at = At { span, key: String::new() };
        if mask::is_secret_key(&plain) {
            reader
                .error(Code::SecretInConfig, &at, format!("{name:?}: no password stands in a sheet or config"))
                .write("a column password_file with the names of files that hold them");
        } else if let Some(better) = closest(&plain, known()) {
            reader.error(Code::UnknownKey, &at, format!("{name:?} is not a column of cameras")).write(better);
        } else {
            let all = known().collect::<Vec<_>>().join(", ");
            reader
                .warning(Code::NoEffect, &at, format!("{name:?} is not a column of cameras and is left out"))
                .write(format!("one of: {all}"));
        }
        None
    }

    /// Two columns of one meaning: which of them holds what was meant is not for us to guess.
    fn twice(&mut self, reader: &mut Reader<'_>, key: &str, names: [&str; 2], span: Range<usize>) {
        let [first, second] = names;
        if self.told.insert(format!("{first}\n{second}")) {
            let at = At { span, key: String::new() };
            let what = match first == second {
                true => format!("there are two columns {first:?}"),
                false => format!("{first:?} and {second:?} both mean the column {key}"),
            };
            reader.error(Code::Duplicate, &at, what).write("one of them; take the other out, or rename it");
        }
    }

    /// A row from its cells.
    fn row(&mut self, reader: &mut Reader<'_>, mut cells: Vec<Entry>, span: Range<usize>, number: usize) -> Row {
        let mut take = |key: &str| cells.iter().position(|c| c.key == key).map(|i| cells.remove(i).node);
        let (lat, lon) = (take("lat"), take("lon"));
        let mut table = Table { entries: cells };
        let key = format!("camera[{}]", self.names.name(&table, number));
        if let Some(at) = place(reader, lat, lon, At { span: span.clone(), key: path(&key, "at") }) {
            table.entries.push(Entry { key: "at".to_owned(), span: at.span.clone(), node: at });
        }
        Row { table, span, key }
    }
}

/// A place from two cells.
fn place(reader: &mut Reader<'_>, lat: Option<Node>, lon: Option<Node>, at: At) -> Option<Node> {
    let mut fits = true;
    for (name, cell) in [("lat", &lat), ("lon", &lon)] {
        let Some(cell) = cell else {
            reader
                .error(Code::Missing, &at, format!("this camera has no {name}"))
                .write("its place in degrees, WGS-84");
            fits = false;
            continue;
        };
        if cell.number().is_none() {
            let at = At { span: cell.span.clone(), key: at.key.clone() };
            let fault = reader.error(Code::WrongType, &at, format!("{name} must be a number, and is {}", cell.kind()));
            fault.write(match &cell.body {
                Body::Text(text) if text.contains(',') => format!("{}, with a point", text.replace(',', ".")),
                _ => "degrees with a point, as in 34.00151".to_owned(),
            });
            fits = false;
        }
    }
    let (lat, lon) = (lat?, lon?);
    let span = lat.span.clone();
    fits.then(|| Node { span, body: Body::List(vec![lat, lon]) })
}

/// Keys whose cells are numbers.
fn is_number(key: &str) -> bool {
    matches!(key, "lat" | "lon" | "facing" | "field_of_view" | "range")
}

fn csv_rows(reader: &mut Reader<'_>, text: &str) -> Vec<Row> {
    let header = text.lines().next().unwrap_or("");
    let count = |c: char| header.matches(c).count();
    let delimiter = [';', '\t'].into_iter().find(|&c| count(c) > count(',')).unwrap_or(',');
    let mut csv = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());

    let mut columns = Columns::default();
    let mut keys: Option<Vec<Option<&'static str>>> = None;
    let mut rows = Vec::new();
    for record in csv.records() {
        let record = match record {
            Ok(record) => record,
            Err(err) => {
                let byte = err.position().map_or(0, |p| p.byte() as usize);
                let at = At { span: byte..byte + 1, key: String::new() };
                reader.error(Code::Syntax, &at, format!("this is not a row of CSV: {err}"));
                continue;
            }
        };
        let start = record.position().map_or(0, |p| p.byte() as usize);
        let spans = cell_spans(text, start, delimiter);
        let span = |i: usize| spans.get(i).cloned().unwrap_or(start..start + 1);
        let Some(keys) = &keys else {
            let meant: Vec<_> = record.iter().enumerate().map(|(i, name)| columns.key(reader, name, span(i))).collect();
            let mut names: HashMap<&str, &str> = HashMap::new();
            for (i, (key, name)) in meant.iter().zip(&record).enumerate() {
                let Some(key) = *key else { continue };
                match names.get(key) {
                    Some(first) => columns.twice(reader, key, [first, name.trim()], span(i)),
                    None => drop(names.insert(key, name.trim())),
                }
            }
            keys = Some(meant);
            continue;
        };
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        let line = span(0).start..spans.last().map_or(start + 1, |s| s.end);
        if record.len() != keys.len() {
            let at = At { span: line.clone(), key: String::new() };
            let what = format!("this row has {} cells, and the header {}", record.len(), keys.len());
            reader.error(Code::Syntax, &at, what).write("quotes around cells that hold the separator: \"a, b\"");
            continue;
        }
        let mut cells: Vec<Entry> = Vec::new();
        for (i, (cell, key)) in record.iter().zip(keys).enumerate() {
            let (Some(key), cell) = (*key, cell.trim()) else { continue };
            if cell.is_empty() || cells.iter().any(|c| c.key == key) {
                continue;
            }
            let body = match cell.parse::<f64>() {
                Ok(n) if is_number(key) && n.is_finite() => Body::Number(n),
                _ => Body::Text(cell.to_owned()),
            };
            cells.push(Entry { key: key.to_owned(), span: span(i), node: Node { span: span(i), body } });
        }
        let number = rows.len() + 1;
        rows.push(columns.row(reader, cells, line, number));
    }
    rows
}

/// Where the cells of the row that begins at `start` stand.
fn cell_spans(text: &str, start: usize, delimiter: char) -> Vec<Range<usize>> {
    let rest = text.get(start..).unwrap_or("");
    // The position of a record may be that of line ends before it.
    let skip = rest.len() - rest.trim_start_matches(['\r', '\n']).len();
    let (mut spans, mut quoted, mut begin) = (Vec::new(), false, start + skip);
    for (i, c) in rest.char_indices().skip_while(|(i, _)| *i < skip) {
        let at = start + i;
        match c {
            '"' => quoted = !quoted,
            '\n' | '\r' if !quoted => {
                spans.push(begin..at);
                return spans;
            }
            c if c == delimiter && !quoted => {
                spans.push(begin..at);
                begin = at + 1;
            }
            _ => {}
        }
    }
    spans.push(begin..text.len());
    spans
}

fn geojson_rows(reader: &mut Reader<'_>, text: &str) -> Vec<Row> {
    let root = match json::parse(text) {
        Ok(root) => root,
        Err((span, why)) => {
            reader.error(Code::Syntax, &At { span, key: String::new() }, format!("this is not JSON: {why}"));
            return Vec::new();
        }
    };
    let features = match &root.body {
        Body::Table(table) if table.text("type") == Some("FeatureCollection") => table.get("features"),
        _ => None,
    };
    let Some(Body::List(features)) = features.map(|f| &f.body) else {
        reader
            .error(
                Code::Syntax,
                &At { span: root.span.start..root.span.start + 1, key: String::new() },
                "this is not a FeatureCollection",
            )
            .write("{ \"type\": \"FeatureCollection\", \"features\": [...] } (RFC 7946 section 3.3)");
        return Vec::new();
    };
    let mut columns = Columns::default();
    let mut rows = Vec::new();
    for feature in features {
        if let Some(row) = feature_row(reader, &mut columns, feature, rows.len() + 1) {
            rows.push(row);
        }
    }
    rows
}

fn feature_row(reader: &mut Reader<'_>, columns: &mut Columns, node: &Node, number: usize) -> Option<Row> {
    let span = node.span.start..node.span.start + 1;
    let mut refuse = |what: &str| {
        reader
            .error(Code::Syntax, &At { span: span.clone(), key: String::new() }, what)
            .write("{ \"type\": \"Feature\", \"geometry\": { \"type\": \"Point\", \"coordinates\": [71.5387, 34.0015] }, \"properties\": {...} }");
        None
    };
    let Body::Table(feature) = &node.body else { return refuse("this is not a Feature") };
    let Some(Body::Table(geometry)) = feature.get("geometry").map(|g| &g.body) else {
        return refuse("this feature has no geometry");
    };
    if geometry.text("type") != Some("Point") {
        return refuse("a camera is a Point");
    }
    let Some(Body::List(coordinates)) = geometry.get("coordinates").map(|c| &c.body) else {
        return refuse("this point has no coordinates");
    };
    let [lon, lat, ..] = coordinates.as_slice() else { return refuse("a point has [longitude, latitude]") };
    let mut cells = Vec::new();
    let properties = match feature.get("properties").map(|p| &p.body) {
        Some(Body::Table(table)) => table.entries.as_slice(),
        _ => &[],
    };
    let own_id = feature.entries.iter().filter(|e| e.key == "id");
    let mut names: HashMap<&str, &str> = HashMap::new();
    for (i, entry) in properties.iter().chain(own_id).enumerate() {
        let Some(key) = columns.key(reader, &entry.key, entry.span.clone()) else { continue };
        let blank = matches!(&entry.node.body, Body::Text(text) if text.trim().is_empty());
        // The geometry is the place.
        if blank || COLUMNS.contains(&key) {
            continue;
        }
        if let Some(first) = names.get(key) {
            // A feature's own id counts when its properties have none.
            if i < properties.len() {
                columns.twice(reader, key, [first, &entry.key], entry.span.clone());
            }
            continue;
        }
        let body = match &entry.node.body {
            Body::Text(text) if is_number(key) => text.parse().map_or(entry.node.body.clone(), Body::Number),
            Body::Integer(n) if key == "id" => Body::Text(n.to_string()),
            body => body.clone(),
        };
        names.insert(key, &entry.key);
        cells.push(Entry {
            key: key.to_owned(),
            span: entry.span.clone(),
            node: Node { span: entry.node.span.clone(), body },
        });
    }
    for (key, node) in [("lat", lat), ("lon", lon)] {
        cells.push(Entry { key: key.to_owned(), span: node.span.clone(), node: node.clone() });
    }
    Some(columns.row(reader, cells, span, number))
}

/// A camera as TOML, its keys in the order of the table of keys.
fn write_camera(out: &mut String, table: &Table) {
    out.push_str("\n[[camera]]\n");
    for key in keys::Camera::KEYS {
        if let Some(node) = table.get(key.name) {
            out.push_str(&format!("{} = {}\n", key.name, toml_of(node)));
        }
    }
}

fn toml_of(node: &Node) -> String {
    match &node.body {
        Body::Text(text) => toml::Value::String(text.clone()).to_string(),
        Body::Integer(n) => n.to_string(),
        Body::Number(n) => n.to_string(),
        Body::Flag(flag) => flag.to_string(),
        Body::List(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Body::Other(_) | Body::Table(_) => "\"\"".to_owned(),
    }
}
