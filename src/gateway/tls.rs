//! Certificates and keys from files to what rustls takes.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

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

/// A server's configuration. With `client_ca` clients must show a certificate signed by it.
pub fn server(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
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
            roots.add_parsable_certificates(certificates("the buttons' authority", file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| unfit(e.to_string()))?;
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
