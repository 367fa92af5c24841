//! Certificates and keys from files to what rustls takes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::host::scope::Scope;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is not there, not readable, or not PEM.
    #[error("cannot read {what} from {file}: {why}; `chowki check` says what is expected there")]
    Pem {
        /// Certificate, key or authority.
        what: &'static str,
        /// Which file.
        file: String,
        /// Why.
        why: String,
    },
    /// Certificate and key do not go together, or the authority is empty.
    #[error("TLS with {file} cannot be served: {why}; `chowki check` says what is expected")]
    Unfit {
        /// The certificate's file.
        file: String,
        /// Why.
        why: String,
    },
}

/// The files of a server.
#[derive(Debug, Clone)]
pub struct Files {
    /// Its certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority that signs clients' certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show one.
    pub demanded: bool,
}

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(5);

/// A server's configuration, made anew whenever its files have changed and go together: connections that begin then have
/// the new certificate. While they do not, the one of before stays.
///
/// # Errors
/// [`Error`], when they do not go together at the beginning.
pub fn serve(files: Files, scope: &Scope) -> Result<watch::Receiver<Arc<ServerConfig>>, Error> {
    let mut stamps = files.stamps();
    let (current, served) = watch::channel(files.load()?);
    scope.every("certificates", LOOK, move || {
        let now = files.stamps();
        // Said once for each change: the files may be half written.
        if std::mem::replace(&mut stamps, now.clone()) == now {
            return;
        }
        match files.load() {
            Ok(config) => {
                info!("the certificate was changed; it is served from now on");
                current.send_replace(config);
            }
            Err(error) => warn!(%error, "the certificate was changed and cannot be served; the one of before stays"),
        }
    });
    Ok(served)
}

impl Files {
    fn load(&self) -> Result<Arc<ServerConfig>, Error> {
        server(&self.cert, &self.key, self.client_ca.as_deref(), self.demanded)
    }

    /// When each was last changed, and its length.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten().map(stamp).collect()
    }
}

/// A server's configuration. With `client_ca` clients may show a certificate signed by it, or must.
fn server(cert: &Path, key: &Path, client_ca: Option<&Path>, demanded: bool) -> Result<Arc<ServerConfig>, Error> {
    let chain = certificates("the certificate", cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| pem("the private key", key, e))?;
    let unfit = |why: String| Error::Unfit { file: cert.display().to_string(), why };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| unfit(e.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("the clients' authority", file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if demanded { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|e| unfit(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, private).map(Arc::new).map_err(|e| unfit(e.to_string()))
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|e| pem(what, file, e))?.collect();
    let chain = chain.map_err(|e| pem(what, file, e))?;
    if chain.is_empty() {
        return Err(Error::Pem { what, file: file.display().to_string(), why: "no certificate in it".into() });
    }
    Ok(chain)
}

fn pem(what: &'static str, file: &Path, why: impl std::fmt::Display) -> Error {
    Error::Pem { what, file: file.display().to_string(), why: why.to_string() }
}
