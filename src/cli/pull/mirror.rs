//! One gateway, mirrored: incidents with their evidence as they change, then recordings of an interval, then what is held.
//!
//! What is pulled lies as the gateway itself puts it to headquarters' object store, so that both can be verified alike. An
//! incident's document is put last: where it is, everything that it speaks of is there too.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;

use super::{
    Wanted,
    client::{Gateway, Unpulled, next},
    place::Place,
};
use crate::{
    district::{clock::Utc, hex},
    media::manifest::{Manifest, sha256},
};

/// How often a recording is tried while nothing more of it comes.
const TRIES: u32 = 5;

/// Incidents in a page.
const PAGE: usize = 50;

/// The document's name.
const DOCUMENT: &str = "incident.json";

/// Where is kept how far incidents were pulled.
const CURSOR: &str = "pulled.json";

/// What was pulled of a gateway.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Its address.
    pub gateway: String,
    /// Its district.
    pub district: Option<String>,
    /// Incidents that are new or have changed.
    pub incidents: u64,
    /// Objects and files that were fetched.
    pub fetched: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects and files that were there already, and whole.
    pub kept: u64,
    /// What was not had, and why.
    pub failed: Vec<String>,
}

/// A mirror at work.
pub(super) struct Mirror<'a> {
    pub gateway: &'a Gateway,
    pub place: &'a Place,
    pub wanted: &'a Wanted,
    pub bar: ProgressBar,
    pub report: Report,
}

impl Mirror<'_> {
    /// Everything that is wanted. What fails is in the report, and does not end the rest.
    pub async fn run(&mut self) {
        let district = match self.gateway.json("/v1/district").await {
            Ok(said) => said["district"]["id"].as_str().map(str::to_owned),
            Err(error) => return self.failed("the gateway", &error),
        };
        // It becomes the name of a folder.
        let Some(district) = district.filter(|id| is_name(id)) else {
            return self.failed("the gateway", &Unpulled::Wrong("it does not say of which district it is".into()));
        };
        self.bar.set_prefix(district.clone());
        self.report.district = Some(district.clone());
        if self.wanted.incidents
            && let Err(error) = self.incidents(&district).await
        {
            self.failed("incidents", &error);
        }
        let cameras = match self.cameras().await {
            Ok(cameras) => cameras,
            Err(error) => return self.failed("cameras", &error),
        };
        if let Some((from, until)) = self.wanted.interval {
            for camera in &cameras {
                self.camera(&district, camera, from, until).await;
            }
        }
    }

    fn failed(&mut self, what: &str, error: &Unpulled) {
        self.report.failed.push(format!("{what}: {error}"));
    }

    /// Incidents that changed since the last time. The cursor goes on only behind what was had whole.
    async fn incidents(&mut self, district: &str) -> Result<(), Unpulled> {
        let cursor = format!("{district}/{CURSOR}");
        let known = self.place.get(&cursor).await?;
        let known = known.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let mut since = known.and_then(|known| known["since"].as_u64()).unwrap_or(0);
        loop {
            let page = self.gateway.json(&format!("/v1/incidents?since={since}&limit={PAGE}")).await?;
            let incidents = page["incidents"].as_array().cloned().unwrap_or_default();
            if incidents.is_empty() {
                return Ok(());
            }
            let before = self.report.failed.len();
            for incident in &incidents {
                self.incident(district, incident).await;
            }
            if self.report.failed.len() > before {
                // They come again the next time.
                return Ok(());
            }
            since =
                page["next"].as_u64().ok_or_else(|| Unpulled::Wrong("a page of incidents without a cursor".into()))?;
            let said = serde_json::json!({ "since": since }).to_string();
            self.place.put(&cursor, said.into()).await?;
        }
    }

    async fn incident(&mut self, district: &str, incident: &Value) {
        let Some(id) = incident["id"].as_str().filter(|id| is_name(id)) else { return };
        self.bar.set_message(format!("incident {id}"));
        let folder = format!("{district}/incidents/{id}");
        let before = self.report.failed.len();
        let evidence = incident["evidence"].as_array().into_iter().flatten();
        let cameras: Vec<_> =
            evidence.filter_map(|e| e["camera"].as_str()).filter(|id| is_name(id)).map(str::to_owned).collect();
        for camera in cameras {
            if let Err(error) = self.evidence(&folder, id, &camera).await
                && !error.is_nothing()
            {
                self.failed(&format!("evidence of {camera} for {id}"), &error);
            }
        }
        if self.report.failed.len() > before {
            return;
        }
        let put = async {
            for (name, bytes) in self.signed(id).await? {
                self.place.put(&format!("{folder}/{name}"), bytes).await?;
            }
            Ok::<_, Unpulled>(())
        };
        if let Err(error) = put.await {
            return self.failed(&format!("the document of {id}"), &error);
        }
        self.report.incidents += 1;
    }

    /// An incident's document and the proof of this very document; without a proof where the gateway signs nothing.
    async fn signed(&self, id: &str) -> Result<Vec<(&'static str, Bytes)>, Unpulled> {
        let mut tried = 0;
        loop {
            tried += 1;
            let document = self.gateway.get(&format!("/v1/incidents/{id}")).await?;
            let proof = match self.gateway.get(&format!("/v1/incidents/{id}/proof.json")).await {
                Err(error) if error.is_nothing() => return Ok(vec![(DOCUMENT, document)]),
                other => other?,
            };
            let said: Value = serde_json::from_slice(&proof).unwrap_or_default();
            let of = said["entries"].as_array().into_iter().flatten().find(|entry| entry["name"] == DOCUMENT);
            if of.is_some_and(|entry| entry["sha256"] == hex::encode(&sha256(&document))) {
                return Ok(vec![(DOCUMENT, document), ("proof.json", proof)]);
            }
            // It has changed between the two.
            if tried == 5 {
                return Err(Unpulled::Wrong("it changes so often that no proof is of it; pull again".into()));
            }
        }
    }

    /// A camera's evidence: its objects by the manifest, checked, then the lists.
    async fn evidence(&mut self, folder: &str, id: &str, camera: &str) -> Result<(), Unpulled> {
        let address = format!("/v1/incidents/{id}/cameras/{camera}");
        let lists = ["manifest.json", "index.m3u8"];
        let mut bytes = BTreeMap::new();
        for list in lists {
            bytes.insert(list, self.gateway.get(&format!("{address}/{list}")).await?);
        }
        let manifest: Manifest = serde_json::from_slice(&bytes["manifest.json"])
            .map_err(|e| Unpulled::Wrong(format!("the manifest cannot be read: {e}")))?;
        let (gateway, place) = (self.gateway, self.place);
        let objects = manifest.objects.into_iter().filter(|object| is_name(&object.name)).map(|object| {
            let (address, name) = (format!("{address}/{}", object.name), format!("{folder}/{camera}/{}", object.name));
            async move {
                let wanted = hex::decode(&object.sha256).unwrap_or_default();
                if place.holds(&name, object.size, &wanted).await? {
                    return Ok(None);
                }
                let bytes = gateway.get(&address).await?;
                if bytes.len() as u64 != object.size || sha256(&bytes) != wanted {
                    return Err(Unpulled::Wrong(format!(
                        "{} came with other bytes than the manifest says",
                        object.name
                    )));
                }
                let size = bytes.len() as u64;
                place.put(&name, bytes).await?;
                Ok(Some(size))
            }
        });
        let mut objects = stream::iter(objects).buffer_unordered(self.wanted.streams);
        let mut first = None;
        while let Some(done) = objects.next().await {
            match done {
                Ok(Some(size)) => {
                    (self.report.fetched, self.report.bytes) = (self.report.fetched + 1, self.report.bytes + size);
                    self.bar.inc(size);
                }
                Ok(None) => self.report.kept += 1,
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        drop(objects);
        if let Some(error) = first {
            return Err(error);
        }
        for (list, bytes) in bytes {
            self.place.put(&format!("{folder}/{camera}/{list}"), bytes).await?;
        }
        Ok(())
    }

    /// Those of which recordings are wanted.
    async fn cameras(&self) -> Result<Vec<String>, Unpulled> {
        if !self.wanted.cameras.is_empty() {
            return Ok(self.wanted.cameras.clone());
        }
        let said = self.gateway.json("/v1/cameras").await?;
        let ids = said["cameras"].as_array().into_iter().flatten().filter_map(|camera| camera["id"].as_str());
        Ok(ids.filter(|id| is_name(id)).map(str::to_owned).collect())
    }

    /// What is held of a camera in an interval, and why not the rest; then the recordings, hour by hour.
    async fn camera(&mut self, district: &str, camera: &str, from: Utc, until: Utc) {
        let folder = format!("{district}/recordings/{camera}");
        let asked = format!("/v1/cameras/{camera}/coverage?from={from}&to={until}");
        let put = match self.gateway.get(&asked).await {
            Ok(bytes) => {
                self.place.put(&format!("{folder}/coverage_{}_{}.json", stamp(from), stamp(until)), bytes).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = put {
            return self.failed(&format!("coverage of {camera}"), &error);
        }
        if !self.wanted.recordings {
            return;
        }
        let mut at = from;
        while at < until {
            let end = at.micros().div_euclid(self.place.piece_us()).saturating_add(1) * self.place.piece_us();
            let end = Utc::from_micros(end).min(until);
            let name = format!("{folder}/{}_{}.mp4", stamp(at), stamp(end));
            self.bar.set_message(format!("{camera} {at}"));
            match self.recording(camera, &name, at, end).await {
                Ok(()) => {}
                // Nothing of it is held: the coverage says why.
                Err(error) if error.is_nothing() => {}
                Err(error) => self.failed(&format!("recording of {camera} from {at}"), &error),
            }
            at = end;
        }
    }

    /// A recording, from the byte where it stopped the last time, unless it has changed since.
    async fn recording(&mut self, camera: &str, name: &str, from: Utc, to: Utc) -> Result<(), Unpulled> {
        let path = format!("/v1/cameras/{camera}/recording.mp4?from={from}&to={to}");
        let mut tried = 0;
        loop {
            tried += 1;
            let mut file = self.place.partial(name).await?;
            let mut more = Vec::new();
            if let Some(tag) = &file.whole {
                more.push(("if-none-match", tag.clone()));
            } else if let (Some(tag), true) = (&file.tag, file.len > 0) {
                more.push(("range", format!("bytes={}-", file.len)));
                more.push(("if-range", tag.clone()));
            }
            let mut answer = match self.gateway.open(&path, &more).await {
                // It has as many bytes as are here.
                Err(Unpulled::Refused { status: 416, .. }) if tried == 1 => {
                    file.restart("").await?;
                    continue;
                }
                other => other?,
            };
            if answer.status().as_u16() == 304 {
                self.report.kept += 1;
                return Ok(());
            }
            let header =
                |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            let (tag, length) = (header("etag"), header("content-length").parse::<u64>().ok());
            if answer.status().as_u16() != 206 {
                file.restart(&tag).await?;
            } else if !header("content-range").starts_with(&format!("bytes {}-", file.len)) {
                return Err(Unpulled::Wrong("another part came than was asked for".into()));
            }
            let begun = file.len;
            let wanted = length.map(|length| file.len + length);
            let read = async {
                while let Some(bytes) = next(answer.body_mut()).await? {
                    self.bar.inc(bytes.len() as u64);
                    self.report.bytes += bytes.len() as u64;
                    file.append(&bytes).await?;
                }
                Ok::<_, Unpulled>(())
            };
            match read.await {
                Ok(()) if wanted.is_none_or(|wanted| wanted == file.len) => {
                    file.finish(&tag).await?;
                    self.report.fetched += 1;
                    return Ok(());
                }
                Ok(()) => {}
                Err(error @ Unpulled::Place(_)) => return Err(error),
                Err(_) => {}
            }
            file.pause().await?;
            // A line that breaks but carries something in between gets there in the end.
            if self.place.resumes() && file.len > begun {
                tried = 0;
            } else if tried == TRIES {
                return Err(Unpulled::Line("the line broke again and again".into()));
            }
        }
    }
}

/// `2026-11-27T101500Z`: a time in a file's name.
fn stamp(at: Utc) -> String {
    at.to_string().replace([':', '.'], "").replace("000Z", "Z")
}

/// Whether what a gateway calls something can be the name of a file or folder: nothing that leads elsewhere.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && Path::new(name).components().count() == 1
}
