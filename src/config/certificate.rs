//! Whether certificates and keys can be used together. Pure.

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{
    fault::Code,
    reader::{Opened, Read, Reader},
};
use crate::district::clock::Utc;

/// Reports what is wrong with a server's certificate and key.
pub(super) fn check_pair(reader: &mut Reader<'_>, cert: &Read<Opened>, key: &Read<Opened>) {
    let chain = chain(reader, cert);
    let Some(bytes) = &key.value.bytes else { return };
    let file = key.value.path.display();
    let Ok(private) = PrivateKeyDer::from_pem_slice(bytes) else {
        reader
            .error(Code::Certificate, &key.at, format!("{file} holds no private key in PEM that this reads"))
            .write("a file with -----BEGIN PRIVATE KEY-----, not encrypted");
        return;
    };
    let signing = match any_supported_type(&private) {
        Ok(signing) => signing,
        Err(err) => {
            reader
                .error(Code::Certificate, &key.at, format!("the key in {file} cannot be used: {err}"))
                .write("an ECDSA P-256 key: `openssl ecparam -name prime256v1 -genkey -noout`");
            return;
        }
    };
    let Some(chain) = chain else { return };
    if CertifiedKey::new(chain, signing).keys_match().is_err() {
        let what = format!("the key in {file} does not belong to the certificate in {}", cert.value.path.display());
        let begins = "the gateway's own certificate comes first in its file, those of the authorities after it";
        reader.error(Code::Certificate, &key.at, what).help(format!("name the key of that certificate; {begins}"));
    }
}

/// Reports what is wrong with the certificates of an authority.
pub(super) fn check_authority(reader: &mut Reader<'_>, ca: &Read<Opened>) {
    let Some(chain) = chain(reader, ca) else { return };
    let mut roots = rustls::RootCertStore::empty();
    let (_, refused) = roots.add_parsable_certificates(chain);
    if refused > 0 {
        let file = ca.value.path.display();
        reader.error(Code::Certificate, &ca.at, format!("{refused} of the certificates in {file} cannot be used"));
    }
}

/// The certificates of a file; warns of the first one's dates.
fn chain(reader: &mut Reader<'_>, cert: &Read<Opened>) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = cert.value.bytes.as_ref()?;
    let file = cert.value.path.display();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok).collect();
    let Some(first) = chain.first() else {
        reader
            .error(Code::Certificate, &cert.at, format!("{file} holds no certificate in PEM"))
            .write("a file with -----BEGIN CERTIFICATE-----");
        return None;
    };
    let parsed = match x509_parser::parse_x509_certificate(first) {
        Ok((_, parsed)) => parsed,
        Err(err) => {
            reader.error(Code::Certificate, &cert.at, format!("the certificate in {file} cannot be read: {err}"));
            return None;
        }
    };
    let validity = parsed.validity();
    if let Some(now) = reader.host().now() {
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let seconds = now.micros().div_euclid(1_000_000);
        let show = |seconds: i64| Utc::from_micros(seconds.saturating_mul(1_000_000)).to_string();
        // Warnings: it may be the clock that is wrong, before the time source is reached.
        if seconds > to {
            reader
                .warning(Code::Certificate, &cert.at, format!("the certificate in {file} expired at {}", show(to)))
                .help("put a new certificate into that file");
        } else if seconds < from {
            reader
                .warning(Code::Certificate, &cert.at, format!("the certificate in {file} begins at {}", show(from)))
                .help("set this machine's clock, or take a certificate that is valid already");
        }
    }
    Some(chain)
}
