//! Objects to headquarters' store: `s3://bucket/prefix`, or `file:///directory` where headquarters' disk is mounted.
//!
//! A put has happened completely or not at all, may be repeated, and is durable when it returns: S3 promises so, and
//! for `file://` the file and its directories are synced before and after the rename. What S3 receives is checked by
//! it against the SHA-256 that the request is signed with; and here against what it then says it holds, see
//! [`super::held`]. Nothing is retried in here: whoever uploads decides by [`PutError`], with [`super::link::Link`] for
//! the pace.

use std::{
    error::Error as StdError,
    future::Future,
    io::ErrorKind,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};
use url::{Host, Url};

use super::{Error, answers, events::bare, held::ETags, http::Way, paced::Pacer, tls};
use crate::district::secret::Secret;

/// Bytes of an object that add a second to the patience: slower than this, a line cannot carry evidence at all.
const SLOW_LINE: u64 = 8 * 1024;

/// The patience counts on a budget being shared by at most so many objects at a time.
const SHARED: u64 = 8;

/// Where objects go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `s3://bucket[/prefix]` or `file:///directory`. The directory must exist: one that is missing may be a disk that
    /// is not mounted.
    pub url: String,
    /// For `s3://`.
    pub s3: S3,
    /// An attempt to connect takes at most this.
    pub connect_timeout: Duration,
    /// One object takes at most this, and a second more for each 8 KiB; or more for what an eighth of `bandwidth` takes.
    pub patience: Duration,
    /// Ceiling in bits a second for all that is sent, headers of the line included. For `s3://` it is kept at every
    /// moment; to a directory an object is written at once, and the next one when its time on the line has passed. Without
    /// one, to `s3://` goes what leaves the line free for events, see [`super::pace`].
    pub bandwidth: Option<u64>,
}

impl Settings {
    /// The defaults: connect timeout 5 s, patience 10 s, no ceiling.
    pub fn new(url: impl Into<String>) -> Self {
        let (connect_timeout, patience) = (Duration::from_secs(5), Duration::from_secs(10));
        Self { url: url.into(), s3: S3::default(), connect_timeout, patience, bandwidth: None }
    }
}

/// How the S3 service is reached.
#[derive(Debug, Clone, Default)]
pub struct S3 {
    /// Its URL; none for Amazon's own.
    pub endpoint: Option<String>,
    /// Its region; none: `us-east-1`, which most other services take.
    pub region: Option<String>,
    /// The access key's id and secret.
    pub access_key: Option<(String, Secret)>,
    /// The bucket as part of the host name (`bucket.endpoint`) and not of the path.
    pub virtual_hosted: bool,
    /// Whether plain HTTP may be spoken to another machine. To loopback it always may.
    pub allow_http: bool,
    /// Certificates to trust beside the system's, PEM.
    pub ca: Option<Vec<u8>>,
}

/// What to do about a store that takes nothing.
const CHECK: &str = "check objects and [headquarters.s3]: the bucket or directory, the key and its rights";

/// Why an object is not at headquarters; the variant says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The line or the store does not work now: again after a while.
    #[error("{name}: {why}; it is tried again")]
    Later {
        /// The object.
        name: String,
        /// What happened.
        why: String,
    },
    /// The store will never take this object: go on with the next one.
    #[error("{name}: the object store refuses it: {why}")]
    Refused {
        /// The object.
        name: String,
        /// What the store says.
        why: String,
    },
    /// The store takes nothing from us before somebody changes a setting, here or there: an alarm, and again slowly.
    #[error("{name}: {why}; {CHECK}")]
    Misconfigured {
        /// The object.
        name: String,
        /// What the store says.
        why: String,
    },
}

impl PutError {
    /// What headquarters' store does and why, without the object, which differs from one attempt to the next.
    pub fn of_the_store(&self) -> String {
        match self {
            PutError::Later { why, .. } => format!("fails: {why}"),
            PutError::Refused { why, .. } => format!("refuses: {why}"),
            PutError::Misconfigured { why, .. } => format!("takes nothing: {why}; {CHECK}"),
        }
    }
}

/// Headquarters' object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) kind: Kind,
    url: String,
    pub(super) patience: Duration,
    /// Bytes of an object that add a second to the patience.
    slow: u64,
    /// How fast things leave.
    pacer: Option<Pacer>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Opened for each object: the disk may be mounted later, or go away.
    Directory(PathBuf),
    S3(Arc<dyn ObjectStore>, Arc<ETags>),
}

/// Checks the settings. Nothing is connected: a store that cannot be reached is no fault of the settings.
pub fn open(settings: &Settings) -> Result<Store, Error> {
    let Ok(url) = Url::parse(&settings.url) else {
        return Err(Error::ObjectsUrl { url: settings.url.clone(), why: "it is not a URL" });
    };
    let fault = |why| Error::ObjectsUrl { url: bare(&url), why };
    let mut pacer = settings.bandwidth.map(Pacer::new);
    let kind = match url.scheme() {
        "file" => Kind::Directory(url.to_file_path().map_err(|()| fault("it names no local directory"))?),
        "s3" => {
            pacer.get_or_insert_with(Pacer::finding_out);
            Kind::S3(s3(&url, settings, pacer.clone())?, Arc::default())
        }
        _ => return Err(fault("its scheme is neither s3 nor file")),
    };
    let share = settings.bandwidth.map_or(SLOW_LINE, |bits| bits / 8 / SHARED);
    Ok(Store { kind, url: bare(&url), patience: settings.patience, slow: share.clamp(1, SLOW_LINE), pacer })
}

fn s3(url: &Url, settings: &Settings, pacer: Option<Pacer>) -> Result<Arc<dyn ObjectStore>, Error> {
    let name = bare(url);
    let fault = |why| Error::ObjectsUrl { url: bare(url), why };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault("the access key belongs under [headquarters.s3]"));
    }
    let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| fault("it names no bucket"))?;
    let prefix = Path::from_url_path(url.path()).map_err(|_| fault("its prefix is not a path"))?;
    let s3 = &settings.s3;
    let (id, secret) = s3.access_key.as_ref().ok_or_else(|| Error::NoAccessKey { url: name.clone() })?;
    let unfit = |source| Error::Objects { url: name.clone(), source };
    let plain = s3.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if let Some(endpoint) = s3.endpoint.as_ref().filter(|e| plain && !s3.allow_http && !is_loopback(e)) {
        return Err(Error::PlainHttp { endpoint: endpoint.clone() });
    }
    let tls = if plain { None } else { Some(tls::http_config(s3.ca.as_deref())?) };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(s3.region.as_deref().unwrap_or("us-east-1"))
        .with_access_key_id(id)
        .with_secret_access_key(secret.reveal())
        .with_virtual_hosted_style_request(s3.virtual_hosted)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(answers::Connector(Way { tls, connect_timeout: settings.connect_timeout, pacer }))
        .with_client_options(content_types())
        .with_allow_http(plain);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let store = builder.build().map_err(unfit)?;
    Ok(if prefix.as_ref().is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) })
}

fn content_types() -> ClientOptions {
    ClientOptions::new()
        .with_content_type_for_suffix("mp4", "video/mp4")
        .with_content_type_for_suffix("m4s", "video/iso.segment")
        .with_content_type_for_suffix("m3u8", "application/vnd.apple.mpegurl")
        .with_content_type_for_suffix("json", "application/json")
}

fn is_loopback(endpoint: &str) -> bool {
    match Url::parse(endpoint).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

impl Store {
    /// One whose service is a test.
    #[cfg(test)]
    pub fn of(service: Arc<dyn ObjectStore>) -> Self {
        let patience = Duration::from_secs(10);
        Self {
            kind: Kind::S3(service, Arc::default()),
            url: "s3://test".into(),
            patience,
            slow: SLOW_LINE,
            pacer: None,
        }
    }

    /// Where objects go, without secrets.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How fast things may leave. Whoever sends beside it on the same line tells it what; and whoever hears from
    /// headquarters' broker, how long that took.
    pub fn pacer(&self) -> Option<Pacer> {
        self.pacer.clone()
    }

    /// Stores an object under `name` (parts divided by `/`), in place of what was there, and proves that headquarters
    /// holds these bytes: see [`super::held`].
    ///
    /// For `file://` a disk that hangs is given up by the deadline, but holds one of the runtime's blocking threads
    /// until it answers: do not put many at once.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), PutError> {
        let path = parse(name)?;
        let size = bytes.len() as u64;
        if let (Kind::Directory(_), Some(pacer)) = (&self.kind, &self.pacer) {
            tokio::time::sleep(pacer.take(bytes.len())).await;
        }
        let work = async {
            let store = self.store(name).await?;
            let put = store.put(&path, bytes.clone().into()).await;
            put.map_err(|error| classify(name, &error))
        };
        let answer = self.within(name, size, work).await?;
        match &self.kind {
            Kind::S3(_, etags) => self.prove(name, &bytes, &answer, etags).await,
            Kind::Directory(dir) => self.within(name, size, self.prove_file(name, dir, &path, &bytes)).await,
        }
    }

    /// Reads an object back, whole. None: there is none of this name, or not even a bucket.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, PutError> {
        let path = parse(name)?;
        let Some(size) = self.head(name).await? else { return Ok(None) };
        let work = async {
            match self.store(name).await?.get(&path).await {
                Ok(found) => found.bytes().await.map(Some).map_err(|error| classify(name, &error)),
                Err(error) => none_if_missing(name, &error),
            }
        };
        self.within(name, size, work).await
    }

    /// The size in bytes of an object at headquarters. None: there is none of this name, or not even a bucket.
    pub async fn head(&self, name: &str) -> Result<Option<u64>, PutError> {
        let path = parse(name)?;
        let work = async {
            match self.store(name).await?.head(&path).await {
                Ok(found) => Ok(Some(found.size)),
                Err(error) => none_if_missing(name, &error),
            }
        };
        self.within(name, 0, work).await
    }

    /// Does one thing with the store, within the deadline for so many bytes.
    pub(super) async fn within<T>(
        &self,
        name: &str,
        bytes: u64,
        work: impl Future<Output = Result<T, PutError>>,
    ) -> Result<T, PutError> {
        let deadline = self.patience + Duration::from_secs(bytes / self.slow);
        tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            let why = format!("{} did not answer within {deadline:?}", self.url);
            Err(PutError::Later { name: name.to_owned(), why })
        })
    }

    pub(super) async fn store(&self, name: &str) -> Result<Arc<dyn ObjectStore>, PutError> {
        match &self.kind {
            Kind::S3(store, _) => Ok(store.clone()),
            Kind::Directory(dir) => Ok(Arc::new(directory(name, dir).await?)),
        }
    }
}

/// The directory, if it is there.
pub(super) async fn directory(name: &str, dir: &FilePath) -> Result<LocalFileSystem, PutError> {
    let missing = |why: String| PutError::Misconfigured {
        name: name.to_owned(),
        why: format!("the directory {} is not there ({why}); is it mounted?", dir.display()),
    };
    let found = tokio::fs::metadata(dir).await.map_err(|error| missing(error.to_string()))?;
    if !found.is_dir() {
        return Err(missing("something else is".into()));
    }
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|error| missing(chain(&error)))?;
    Ok(store.with_fsync(true))
}

pub(super) fn parse(name: &str) -> Result<Path, PutError> {
    match Path::parse(name) {
        Ok(path) if !path.as_ref().is_empty() => Ok(path),
        Ok(_) => Err(PutError::Refused { name: name.to_owned(), why: "it has no name".into() }),
        Err(error) => Err(PutError::Refused { name: name.to_owned(), why: error.to_string() }),
    }
}

fn none_if_missing<T>(name: &str, error: &object_store::Error) -> Result<Option<T>, PutError> {
    if matches!(error, object_store::Error::NotFound { .. }) { Ok(None) } else { Err(classify(name, error)) }
}

/// What an error of the store means for the upload. By kinds; what is not known to be final is tried again.
pub(super) fn classify(name: &str, error: &object_store::Error) -> PutError {
    use object_store::Error as E;
    let (name, why) = (name.to_owned(), chain(error));
    // Some services say with 403 that a quota is used up: nothing is wrong with the key.
    if why.contains("<Code>QuotaExceeded</Code>") {
        return PutError::Later { name, why: format!("{why}; it is full: make room there, or raise its quota") };
    }
    match error {
        E::NotFound { .. }
        | E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => PutError::Misconfigured { name, why },
        E::InvalidPath { .. } => PutError::Refused { name, why },
        error => {
            let cause = causes(error).find_map(|cause| {
                let answer = cause.downcast_ref::<answers::Final>().map(|answer| answer.object);
                answer.or_else(|| cause.downcast_ref::<std::io::Error>().and_then(|error| of_disk(error.kind())))
            });
            match cause {
                Some(true) => PutError::Refused { name, why },
                Some(false) => PutError::Misconfigured { name, why },
                None => PutError::Later { name, why },
            }
        }
    }
}

/// Whether an error of headquarters' disk is final, and then whether it is about this object only.
fn of_disk(kind: ErrorKind) -> Option<bool> {
    match kind {
        ErrorKind::InvalidFilename | ErrorKind::IsADirectory | ErrorKind::FileTooLarge => Some(true),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => Some(false),
        _ => None,
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// An error with its causes, each said once, on one line: a store's answer is XML of several, and what to do about it
/// comes after.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let line = |cause: &(dyn StdError + 'static)| cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    causes(error).map(line).fold(String::new(), |said, cause| {
        if said.contains(&cause) {
            said
        } else if said.is_empty() {
            cause
        } else {
            format!("{said}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(url: &str, endpoint: &str) -> Settings {
        let mut settings = Settings::new(url);
        settings.s3.access_key = Some(("id".into(), Secret::new("secret")));
        settings.s3.endpoint = Some(endpoint.into());
        settings
    }

    #[test]
    fn a_store_that_cannot_work_is_found_before_anything_is_sent() {
        for (url, what) in [
            ("evidence", "not a URL"),
            ("https://evidence", "neither s3 nor file"),
            ("s3://", "no bucket"),
            ("s3://evidence", "access key"),
            ("s3://id:hunter2@evidence", "under [headquarters.s3]"),
            ("file://host/evidence", "no local directory"),
        ] {
            let error = open(&Settings::new(url)).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn what_a_store_says_on_several_lines_is_said_on_one() {
        let inner = std::io::Error::other("<?xml version=\"1.0\"?>\n<Error>\r\n  <Code>AccessDenied</Code>");
        let outer = object_store::Error::Generic { store: "S3", source: Box::new(inner) };
        let PutError::Later { why, .. } = classify("a", &outer) else { panic!("it is tried again") };
        assert!(why.contains("?> <Error> <Code>AccessDenied") && !why.contains('\n'), "{why}");
    }

    #[test]
    fn evidence_does_not_leave_the_machine_unencrypted_unless_told_to() {
        let error = open(&with_key("s3://evidence", "http://192.0.2.1:9000")).unwrap_err().to_string();
        assert!(error.contains("unencrypted"), "{error}");
        for endpoint in ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000", "https://192.0.2.1"] {
            open(&with_key("s3://evidence/district", endpoint)).unwrap();
        }
        let mut allowed = with_key("s3://evidence", "http://192.0.2.1:9000");
        allowed.s3.allow_http = true;
        open(&allowed).unwrap();
    }

    #[test]
    fn a_secret_key_is_not_printed() {
        let settings = with_key("s3://evidence", "https://192.0.2.1");
        assert!(!format!("{settings:?} {:?}", open(&settings).unwrap()).contains("\"secret\""));
    }
}
