//! Inventory sheets: what a spreadsheet or a map program writes becomes config that passes, and every fault in a sheet
//! is told with its line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

use std::{fs, process::ExitCode};

use chowki::{
    cli,
    config::{self, Code, Fault, Imported, Nowhere, Severity, Sheet},
    district::inventory::{Inventory, RecordPolicy},
};

const CSV: &str = "\
id,name,lat,lon,url,sub_url,facing,field_of_view,range,username,password_file,record
cam-1,Gate 1 mast,34.00160,71.53850,rtsp://10.1.1.1/main,rtsp://10.1.1.1/sub,120,90,60,chowki,cameras.password,outage
cam-2,\"Dome, \"\"old\"\"\",34.00235,71.54010,rtsp://10.1.1.2/main,,,,,,,incident
";

fn imported(text: &str, sheet: Sheet) -> Imported {
    config::import(text, "sheet", sheet).unwrap_or_else(|f| panic!("{}", config::render_human(&f, false)))
}

fn refused(text: &str, sheet: Sheet) -> Vec<(usize, usize, Code)> {
    places(&config::import(text, "sheet", sheet).unwrap_err())
}

fn places(faults: &[Fault]) -> Vec<(usize, usize, Code)> {
    faults.iter().map(|f| (f.line, f.column, f.code)).collect()
}

fn parsed(toml: &str) -> Inventory {
    let text = format!("[district]\nid = \"d\"\n[broker]\nlisten = \"0.0.0.0:1883\"\n{toml}");
    config::parse(&text, "d.toml", &Nowhere).unwrap_or_else(|f| panic!("{}", config::render_human(&f, false))).inventory
}

#[test]
fn a_csv_sheet_becomes_config_that_passes() {
    let sheet = imported(CSV, Sheet::Csv);
    assert_eq!((sheet.cameras, sheet.warnings.len()), (2, 0));
    let inventory = parsed(&sheet.toml);
    let [a, b] = inventory.cameras() else { panic!() };
    assert_eq!((a.id.as_str(), a.at.lat(), a.at.lon()), ("cam-1", 34.0016, 71.5385));
    let (facing, width) = a.view.sector.unwrap();
    assert_eq!((facing.degrees(), width, a.view.range_m), (120.0, 90.0, 60.0));
    assert_eq!(a.source.login.as_ref().unwrap().username, "chowki");
    assert_eq!(b.name, "Dome, \"old\"");
    assert_eq!((b.view.sector, b.record), (None, RecordPolicy::Incident));
}

#[test]
fn a_sheet_as_a_spreadsheet_in_another_language_saves_it_is_understood() {
    let text = "\u{feff}Camera ID;Name;Latitude;Longitude;RTSP URL;Azimuth;FOV;Vendor\r\ncam-1;Gate ü;34.0016;71.5385;rtsp://10.1.1.1/main;120;90;ACME\r\n;;;;;;;\r\n";
    let sheet = imported(text, Sheet::Csv);
    assert_eq!(places(&sheet.warnings), [(1, 56, Code::NoEffect)], "{:?}", sheet.warnings);
    assert_eq!(sheet.warnings[0].severity, Severity::Warning);
    let inventory = parsed(&sheet.toml);
    assert_eq!(inventory.cameras()[0].name, "Gate ü");
    assert_eq!(inventory.cameras()[0].view.sector.unwrap().1, 90.0);
}

#[test]
fn every_fault_of_a_csv_sheet_is_told_with_its_line_and_column() {
    let text = "\
id,name,lat,lon,url,facng,password
cam-1,A,\"34,0016\",71.5,rtsp://10.1.1.1/main,,
cam-1,B,34.0,,rtsp://u:hunter2@10.1.1.1/main,,
unit-3,C,134.0,71.5,http://10.1.1.3/main,,
cam 4,\"two
lines\",34.0,71.5,rtsp://10.1.1.4/main,,
cam-5,E,34.0,71.5
";
    let faults = config::import(text, "sheet.csv", Sheet::Csv).unwrap_err();
    let human = config::render_human(&faults, false);
    let expected = [
        (1, 21, Code::UnknownKey),
        (1, 27, Code::SecretInConfig),
        (2, 9, Code::WrongType),
        (3, 1, Code::Missing),
        (3, 1, Code::Duplicate),
        (3, 15, Code::SecretInConfig),
        (4, 1, Code::Reserved),
        (4, 10, Code::BadValue),
        (4, 21, Code::BadValue),
        (5, 1, Code::BadValue),
        (5, 7, Code::BadValue),
        (7, 1, Code::Syntax),
    ];
    assert_eq!(places(&faults), expected, "{human}");
    assert!(human.contains("34.0016, with a point") && !human.contains("hunter2"), "{human}");
}

const GEOJSON: &str = r#"{
  "type": "FeatureCollection",
  "features": [
    { "type": "Feature", "id": 7,
      "geometry": { "type": "Point", "coordinates": [71.5385, 34.0016, 350.0] },
      "properties": { "name": "Gate 1", "rtsp": "rtsp://10.1.1.1/main", "facing": "120", "fov": 90, "record": null } }
  ]
}"#;

#[test]
fn a_geojson_map_becomes_config_that_passes() {
    let sheet = imported(GEOJSON, Sheet::GeoJson);
    let inventory = parsed(&sheet.toml);
    let camera = &inventory.cameras()[0];
    assert_eq!((camera.id.as_str(), camera.at.lat(), camera.at.lon()), ("7", 34.0016, 71.5385));
    assert_eq!(camera.view.sector.unwrap().0.degrees(), 120.0);
}

#[test]
fn every_fault_of_a_geojson_map_is_told_with_its_line() {
    let bad = GEOJSON.replace("\"fov\": 90", "\"fov\": \"wide\"").replace("71.5385, 34.0016", "34.0016, 171.5385");
    assert_eq!(refused(&bad, Sheet::GeoJson), [(5, 63, Code::BadValue), (6, 97, Code::WrongType)]);
    assert_eq!(refused(&GEOJSON.replace("Point", "Polygon"), Sheet::GeoJson), [(4, 5, Code::Syntax)]);
    assert_eq!(refused(&GEOJSON.replace("\"facing\":", "\"facing\""), Sheet::GeoJson).len(), 1);
    assert_eq!(refused("{\"type\": \"Feature\"}", Sheet::GeoJson), [(1, 1, Code::Syntax)]);
    assert_eq!(refused("{\"type\": \"FeatureCollection\", \"features\": []}", Sheet::GeoJson)[0].2, Code::Missing);
    assert_eq!(refused(&"[".repeat(10_000), Sheet::GeoJson)[0].2, Code::Syntax);
}

#[test]
fn two_columns_of_one_meaning_are_a_fault_that_names_both() {
    let text = "id,name,camera name,lat,lon,url,id\nc,A,B,34.0,71.5,rtsp://10.1.1.1/a,d\n";
    let faults = config::import(text, "sheet", Sheet::Csv).unwrap_err();
    assert_eq!(places(&faults), [(1, 9, Code::Duplicate), (1, 33, Code::Duplicate)], "{faults:?}");
    assert!(faults[0].what.contains("\"name\" and \"camera name\""), "{:?}", faults[0]);
    assert!(faults[1].what.contains("two columns \"id\""), "{:?}", faults[1]);
    let map = GEOJSON.replace("\"record\": null", "\"label\": \"Gate\"");
    let faults = config::import(&map, "map", Sheet::GeoJson).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].what.contains("\"label\"") && faults[0].what.contains("\"name\""), "{:?}", faults[0]);
    // A feature's own id beside that of its properties is no second one.
    let map = GEOJSON.replace("\"record\": null", "\"camera_id\": \"cam-1\", \"label\": \"\"");
    assert_eq!(parsed(&imported(&map, Sheet::GeoJson).toml).cameras()[0].id.as_str(), "cam-1");
}

#[test]
fn the_kind_of_a_sheet_is_seen_from_its_name_or_text() {
    assert_eq!(Sheet::of("a.CSV".as_ref(), "{"), Sheet::Csv);
    assert_eq!(Sheet::of("a.geojson".as_ref(), ""), Sheet::GeoJson);
    assert_eq!(Sheet::of("a".as_ref(), " {"), Sheet::GeoJson);
}

#[test]
fn import_never_overwrites_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (file, output) = (dir.path().join("cameras.csv"), dir.path().join("out.toml"));
    let run = || cli::import::run(&cli::import::Args { file: file.clone(), output: Some(output.clone()) });
    assert_eq!(run(), ExitCode::from(66));
    fs::write(&file, CSV).unwrap();
    assert_eq!(run(), ExitCode::from(0));
    assert_eq!(parsed(&fs::read_to_string(&output).unwrap()).cameras().len(), 2);
    assert_eq!(run(), ExitCode::from(73));
    fs::write(&file, CSV.replace("34.00160", "north")).unwrap();
    assert_eq!(run(), ExitCode::from(78));
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;

    /// Texts for cells that a sheet, JSON and TOML each would misread.
    fn cell() -> impl Strategy<Value = String> {
        "[ -~é\"',;\\\\]{1,20}".prop_filter("not blank", |t| !t.trim().is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_a_sheet_says_is_what_the_config_reads(name in cell(), lat in -89.0..89.0_f64, lon in -179.0..179.0_f64) {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            let text = format!("id,name,lat,lon,url\nc,{quoted},{lat},{lon},rtsp://10.0.0.1/a\n");
            let inventory = parsed(&imported(&text, Sheet::Csv).toml);
            let camera = &inventory.cameras()[0];
            prop_assert_eq!(camera.name.as_str(), name.trim());
            prop_assert_eq!((camera.at.lat(), camera.at.lon()), (lat, lon));
        }

        #[test]
        fn no_mutated_sheet_makes_the_reader_panic(at in 0_usize..600, cut in 0_usize..9, put in "[\\[\\]{}=\"',\\n:é0-9-]{0,5}") {
            for (text, sheet) in [(CSV, Sheet::Csv), (GEOJSON, Sheet::GeoJson)] {
                let mut text = text.to_owned();
                let floor = |i: usize| (0..=i.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
                let (from, to) = (floor(at), floor(at + cut));
                text.replace_range(from..to, &put);
                if let Ok(sheet) = config::import(&text, "sheet", sheet) {
                    prop_assert_eq!(parsed(&sheet.toml).cameras().len(), sheet.cameras);
                }
            }
        }
    }
}
