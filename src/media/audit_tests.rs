use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{district::identity::Identity, media::proof::Draft};

const INCIDENT: &str = "01920000-0000-7000-8000-000000000001";
const CAMERAS: [&str; 2] = ["cam-1", "cam-2"];

/// Files of an incident's folder, by name.
type Files = BTreeMap<String, Vec<u8>>;

fn identity() -> Identity {
    Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap()
}

fn subject() -> String {
    format!("saddar/incidents/{INCIDENT}")
}

/// Objects of a camera, of that many bytes.
fn objects(camera: &str, bytes: usize) -> Vec<(String, Vec<u8>)> {
    let content = |n: usize| format!("{camera} {n} ").bytes().cycle().take(bytes + n).collect();
    let name = |n: usize| if n == 0 { "init.mp4".to_owned() } else { format!("{n:05}.m4s") };
    (0..4).map(|n| (name(n), content(n))).collect()
}

fn document(revision: u64, state: &str, ended: bool) -> Vec<u8> {
    let evidence = |camera: &str| {
        let objects = objects(camera, 300).into_iter().map(|(name, bytes)| {
            json!({ "name": name, "size": bytes.len(), "sha256": Sha256::of(&bytes), "delivered": true })
        });
        let objects: Vec<_> = objects.collect();
        json!({ "camera": camera, "objects": objects, "object_count": 4, "ended": ended })
    };
    let document = json!({
        "id": INCIDENT, "revision": revision, "district": "saddar", "state": state,
        "presses": [{ "press": "p-1", "at": "2026-03-01T12:00:00.000Z" }],
        "evidence": CAMERAS.map(evidence),
        "timeline": [{ "at": "a", "what": "pressed" }, { "at": "b", "what": "closed" }],
    });
    serde_json::to_vec_pretty(&document).unwrap()
}

/// Puts a proof of these names beside them.
fn sign(files: &mut Files, revision: u64, names: &[&str], identity: &Identity) {
    let mut entries = history(&files[DOCUMENT]);
    entries.extend(names.iter().map(|name| ((*name).to_owned(), Sha256::of(&files[*name]))));
    let proof = Draft { subject: subject(), revision, entries }.sign(Utc::default(), identity);
    files.insert(PROOF.into(), proof.bytes());
}

/// An incident that is closed and has all its evidence.
fn whole(identity: &Identity) -> Files {
    let mut files = Files::from([(DOCUMENT.to_owned(), document(9, "closed", true))]);
    for camera in CAMERAS {
        let mut manifest = Manifest::new(format!("{}/{camera}", subject()));
        for (name, bytes) in objects(camera, 300) {
            manifest.push(name.clone(), bytes.len() as u64, Sha256::of(&bytes).bytes(), None, None, false);
            files.insert(format!("{camera}/{name}"), bytes);
        }
        manifest.end();
        files.insert(format!("{camera}/{MANIFEST}"), serde_json::to_vec_pretty(&manifest).unwrap());
        files.insert(format!("{camera}/{PLAYLIST}"), b"#EXTM3U\n#EXT-X-ENDLIST\n".to_vec());
    }
    let lists = ["incident.json", "cam-1/manifest.json", "cam-1/index.m3u8", "cam-2/manifest.json", "cam-2/index.m3u8"];
    sign(&mut files, 9, &lists, identity);
    files
}

fn look(files: &Files, keys: Option<&[Sha256]>) -> Audit {
    look_in(INCIDENT, files, keys)
}

fn look_in(name: &str, files: &Files, keys: Option<&[Sha256]>) -> Audit {
    let file = |(name, bytes): (&String, &Vec<u8>)| {
        let text = is_text(name).then(|| bytes.clone());
        (name.clone(), Ok(File { size: bytes.len() as u64, sha256: Sha256::of(bytes), text }))
    };
    audit(&Folder { name: name.into(), files: files.iter().map(file).collect() }, keys)
}

/// Names of what is not right.
fn named(audit: &Audit) -> Vec<(&str, Kind)> {
    audit.findings.iter().map(|f| (f.name.as_str(), f.kind)).collect()
}

fn changed(f: impl FnOnce(&mut Files)) -> Audit {
    let mut files = whole(&identity());
    f(&mut files);
    look(&files, None)
}

#[test]
fn a_folder_as_it_was_signed_is_whole_wherever_it_lies() {
    let own = identity();
    let files = whole(&own);
    for name in [INCIDENT, "evidence of the bazaar", ""] {
        let audit = look_in(name, &files, Some(&[own.public().fingerprint()]));
        assert_eq!((audit.verdict, named(&audit)), (Verdict::Whole, vec![]));
        assert_eq!((audit.proven, audit.unproven.len(), audit.growing), (files.len() - 1, 0, false));
        assert_eq!(audit.signed.unwrap().vouched, Some(true));
    }
    assert_eq!(look(&files, None).signed.unwrap().vouched, None);
}

#[test]
fn another_boxs_key_and_another_incidents_folder_are_found() {
    let (own, other) = (identity(), identity());
    let files = whole(&other);
    let audit = look(&files, Some(&[own.public().fingerprint()]));
    assert_eq!((audit.verdict, named(&audit)), (Verdict::Changed, vec![(PROOF, Kind::OtherKey)]));
    let audit = look_in("01920000-0000-7000-8000-000000000002", &files, None);
    assert_eq!((audit.verdict, named(&audit)), (Verdict::Changed, vec![(PROOF, Kind::Changed)]));
}

#[test]
fn a_bit_that_is_changed_in_any_byte_of_any_file_is_found_and_the_file_is_named_first() {
    let files = whole(&identity());
    for (name, bytes) in &files {
        for bit in (0..8 * bytes.len()).step_by(7) {
            let mut files = files.clone();
            files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let audit = look(&files, None);
            let known = matches!(audit.verdict, Verdict::Changed) || (name == PROOF && audit.verdict != Verdict::Whole);
            assert!(known, "bit {bit} of {name}: {audit:?}");
            assert_eq!(audit.findings[0].name, *name, "bit {bit}");
        }
    }
}

#[test]
fn what_is_cut_removed_renamed_swapped_or_added_is_found_by_its_name() {
    for name in whole(&identity()).keys() {
        let audit = changed(|files| drop(files.remove(name)));
        let kind = if name == PROOF { Kind::NoProof } else { Kind::Missing };
        assert_eq!(named(&audit), [(name.as_str(), kind)]);
        let audit = changed(|files| files.get_mut(name).unwrap().truncate(1));
        assert_eq!(named(&audit)[0], (name.as_str(), Kind::Changed));
        let audit = changed(|files| {
            let bytes = files.remove(name).unwrap();
            files.insert(format!("{name}.bak"), bytes);
        });
        assert_eq!(audit.findings[0].name, *name);
        let is_object = name.ends_with(".m4s") || name.ends_with(".mp4");
        assert!(!is_object || audit.findings[1].what.ends_with(&format!("its content is that of {name}")), "{audit:?}");
    }
    let (one, two) = ("cam-1/00001.m4s", "cam-2/00002.m4s");
    let audit = changed(|files| {
        let (a, b) = (files[one].clone(), files[two].clone());
        files.extend([(one.to_owned(), b), (two.to_owned(), a)]);
    });
    assert_eq!(named(&audit), [(one, Kind::Changed), (two, Kind::Changed)]);
    assert!(audit.findings[0].what.ends_with(&format!("302 bytes of 301; its content is that of {two}")), "{audit:?}");
    for name in ["note.txt", "cam-1/00004.m4s", "cam-3/00001.m4s", "cam-1/more/x", "incident.json.old"] {
        let audit = changed(|files| drop(files.insert(name.into(), b"new".to_vec())));
        assert_eq!((audit.verdict, named(&audit)), (Verdict::Changed, vec![(name, Kind::NotListed)]));
    }
}

#[test]
fn objects_and_lists_that_were_changed_together_are_found() {
    let other = b"another fragment".to_vec();
    let forged = |files: &mut Files| {
        let mut manifest: Manifest = serde_json::from_slice(&files["cam-1/manifest.json"]).unwrap();
        let objects = std::mem::take(&mut manifest.objects);
        for object in objects {
            let is = object.name == "00002.m4s";
            let bytes = if is { &other } else { &files[&format!("cam-1/{}", object.name)] };
            manifest.push(object.name, bytes.len() as u64, Sha256::of(bytes).bytes(), None, None, false);
        }
        files.insert("cam-1/manifest.json".into(), serde_json::to_vec_pretty(&manifest).unwrap());
        files.insert("cam-1/00002.m4s".into(), other.clone());
    };
    let audit = changed(forged);
    assert_eq!(
        named(&audit),
        [("cam-1/manifest.json", Kind::Changed), ("cam-1/00002.m4s", Kind::Changed)],
        "the document still names what was signed"
    );
    // Whoever signs it anew needs the key.
    let (own, forger) = (identity(), identity());
    let mut files = whole(&own);
    forged(&mut files);
    let text = String::from_utf8(files[DOCUMENT].clone()).unwrap();
    let of = |bytes: &[u8]| Sha256::of(bytes).to_string();
    let real = objects("cam-1", 300)[2].1.clone();
    let text = text.replace(&of(&real), &of(&other)).replacen("\"size\": 302", "\"size\": 16", 1);
    files.insert(DOCUMENT.into(), text.into_bytes());
    let lists = ["incident.json", "cam-1/manifest.json", "cam-1/index.m3u8", "cam-2/manifest.json", "cam-2/index.m3u8"];
    sign(&mut files, 9, &lists, &forger);
    assert_eq!(look(&files, None).verdict, Verdict::Whole, "without a key nobody can know");
    assert_eq!(look(&files, Some(&[own.public().fingerprint()])).verdict, Verdict::Changed);
}

#[test]
fn an_older_proof_beside_a_newer_document_is_found_and_so_is_the_entry_that_was_changed() {
    let audit = changed(|files| drop(files.insert(DOCUMENT.into(), document(10, "closed", true))));
    assert_eq!(named(&audit), [(DOCUMENT, Kind::Changed)]);
    assert!(audit.findings[0].what.contains("revision 10, and revision 9 was signed"), "{audit:?}");
    let edit = |from: &'static str, to: &'static str| {
        changed(move |files| {
            let text = String::from_utf8(files[DOCUMENT].clone()).unwrap();
            files.insert(DOCUMENT.into(), text.replacen(from, to, 1).into_bytes());
        })
    };
    let audit = edit("\"closed\"", "\"seen\"");
    assert_eq!(named(&audit), [(DOCUMENT, Kind::Changed)], "no entry of its history");
    let audit = edit("\"pressed\"", "\"pressed twice\"");
    assert_eq!(named(&audit), [(DOCUMENT, Kind::Changed), ("incident.json#/timeline/0", Kind::Changed)]);
    let audit = edit("\"timeline\": [", "\"timeline\": [ {}, ");
    let wanted = [
        (DOCUMENT, Kind::Changed),
        ("incident.json#/timeline/0", Kind::Changed),
        ("incident.json#/timeline/1", Kind::Changed),
        ("incident.json#/timeline/2", Kind::NotListed),
    ];
    assert_eq!(named(&audit), wanted);
}

#[test]
fn while_an_incident_grows_what_the_document_lists_is_proven_and_what_came_since_is_not_yet() {
    let own = identity();
    let mut files = Files::from([(DOCUMENT.to_owned(), document(3, "delivered", false))]);
    for camera in CAMERAS {
        files.extend(objects(camera, 300).into_iter().map(|(name, bytes)| (format!("{camera}/{name}"), bytes)));
        files.insert(format!("{camera}/{PLAYLIST}"), b"#EXTM3U\n".to_vec());
    }
    sign(&mut files, 3, &[DOCUMENT], &own);
    files.insert("cam-1/00004.m4s".into(), b"new".to_vec());
    let audit = look(&files, None);
    assert_eq!((audit.verdict, audit.growing, audit.proven), (Verdict::Whole, true, 9), "{audit:?}");
    assert_eq!(audit.unproven, ["cam-1/00004.m4s", "cam-1/index.m3u8", "cam-2/index.m3u8"]);
    files.insert("cam-3/00001.m4s".into(), b"of no camera".to_vec());
    files.get_mut("cam-2/00001.m4s").unwrap()[7] ^= 1;
    let wanted = [("cam-2/00001.m4s", Kind::Changed), ("cam-3/00001.m4s", Kind::NotListed)];
    assert_eq!(named(&look(&files, None)), wanted);
}

#[test]
fn without_a_proof_nothing_is_whole_but_what_was_changed_is_still_named() {
    let audit = changed(|files| drop(files.remove(PROOF)));
    assert_eq!((audit.verdict, audit.proven), (Verdict::Unknown, 0));
    let audit = changed(|files| {
        files.remove(PROOF);
        files.get_mut("cam-1/00003.m4s").unwrap()[0] ^= 1;
    });
    assert_eq!((audit.verdict, named(&audit)[1]), (Verdict::Changed, ("cam-1/00003.m4s", Kind::Changed)));
    let newer = changed(|files| {
        let text = String::from_utf8(files[PROOF].clone()).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
        files.insert(PROOF.into(), text.into_bytes());
    });
    assert_eq!((newer.verdict, named(&newer)), (Verdict::Unknown, vec![(PROOF, Kind::Unreadable)]));
    assert_eq!(look(&Files::new(), None).verdict, Verdict::Unknown);
}

#[test]
fn a_file_that_cannot_be_read_is_not_called_changed() {
    let files = whole(&identity());
    let file = |(name, bytes): (&String, &Vec<u8>)| {
        let text = is_text(name).then(|| bytes.clone());
        (name.clone(), Ok(File { size: bytes.len() as u64, sha256: Sha256::of(bytes), text }))
    };
    let mut folder = Folder { name: INCIDENT.into(), files: files.iter().map(file).collect() };
    folder.files.insert("cam-1/00002.m4s".into(), Err("no right to".into()));
    let found = audit(&folder, None);
    assert_eq!((found.verdict, named(&found)), (Verdict::Unknown, vec![("cam-1/00002.m4s", Kind::Unreadable)]));
    // A whole folder.
    folder.files.retain(|name, _| !name.starts_with("cam-1/"));
    folder.files.insert("cam-1".into(), Err("no right to".into()));
    let found = audit(&folder, None);
    assert_eq!((found.verdict, found.findings.len()), (Verdict::Unknown, 7), "{found:?}");
    folder.files = BTreeMap::from([(String::new(), Err("no right to".into()))]);
    assert_eq!(audit(&folder, None).verdict, Verdict::Unknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is done to a folder, unless it is nothing, is found.
    #[test]
    fn no_meddling_goes_unseen(ops in prop::collection::vec((0usize..6, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 1..4)) {
        let before = whole(&identity());
        let mut files = before.clone();
        for (op, at, byte, bit) in ops {
            let names: Vec<String> = files.keys().cloned().collect();
            if names.is_empty() {
                continue;
            }
            let (name, other) = (at.get(&names).clone(), byte.get(&names).clone());
            let bytes = files[&name].clone();
            match op {
                0 if !bytes.is_empty() => files.get_mut(&name).unwrap()[byte.index(bytes.len())] ^= 1 << bit,
                1 if !bytes.is_empty() => files.get_mut(&name).unwrap().truncate(byte.index(bytes.len())),
                2 => drop(files.remove(&name)),
                3 => {
                    let moved = files.insert(other, bytes).unwrap();
                    files.insert(name, moved);
                }
                4 => drop(files.insert(format!("{name}{bit}"), bytes)),
                _ => files.get_mut(&name).unwrap().push(bit),
            }
        }
        let audit = look(&files, None);
        prop_assert_eq!(audit.verdict == Verdict::Whole, files == before, "{:?}", audit);
    }
}
