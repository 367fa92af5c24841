//! Whom we trust as headquarters, and how we show who we are.

use std::sync::Arc;

use rustls::{ClientConfig, ConfigBuilder, RootCertStore, client::WantsClientCert, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::Error;

/// A client certificate chain and its key, both PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, then its issuers.
    pub chain: &'a [u8],
    /// The private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: &'a [u8],
}

/// TLS 1.2 and 1.3 as a client that trusts the certificates of `ca` (PEM), or the system's when there is none.
pub fn client_config(ca: Option<&[u8]>, identity: Option<Identity<'_>>) -> Result<Arc<ClientConfig>, Error> {
    let roots = match ca {
        Some(pem) => own_roots(pem)?,
        None => system_roots()?,
    };
    let builder = builder(roots)?;
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("client certificate", identity.chain)?;
            let key = PrivateKeyDer::from_pem_slice(identity.key).map_err(pem("client key"))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
}

/// The same for HTTP/1.1, trusting the certificates of `ca` beside the system's.
pub fn http_config(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, Error> {
    let roots = match ca {
        None => system_roots()?,
        Some(pem) => {
            let mut roots = own_roots(pem)?;
            roots.extend(system_roots().map(|system| system.roots).unwrap_or_default());
            roots
        }
    };
    let mut config = builder(roots)?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn builder(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots))
}

fn own_roots(ca: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", ca)? {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(Error::NoRoots { why: "the CA file holds no certificate".into() });
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "the system has none".into(), ToString::to_string);
        return Err(Error::NoRoots { why });
    }
    Ok(roots)
}

fn certificates(what: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(pem(what))
}

fn pem(what: &'static str) -> impl Fn(rustls_pki_types::pem::Error) -> Error {
    move |error| Error::Pem { what, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_named() {
        let error = client_config(Some(b"not a certificate"), None).unwrap_err();
        assert!(error.to_string().contains("holds no certificate"), "{error}");
        let cut = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        let error = client_config(Some(cut), None).unwrap_err();
        assert!(error.to_string().contains("CA certificate is not PEM"), "{error}");
    }
}
