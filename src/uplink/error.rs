//! What can be wrong with the settings of the way to headquarters. What goes wrong later is an event, not an error.

/// A setting that cannot work. All of these are found before anything is connected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address of an MQTT broker.
    #[error("{url:?} is not a broker's address: {why}; write mqtt://host[:1883] or mqtts://host[:8883]")]
    Address {
        /// As it was written, without a password.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not the URL of an object store.
    #[error("{url:?} is not an object store: {why}; write s3://bucket[/prefix] or file:///directory")]
    ObjectsUrl {
        /// As it was written, without a password.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `s3://` without an access key.
    #[error("{url:?} needs an access key: set the key's id and the file of its secret under [headquarters.s3]")]
    NoAccessKey {
        /// The store.
        url: String,
    },
    /// Plain HTTP to another machine, not allowed in so many words.
    #[error("{endpoint:?} sends evidence unencrypted to another machine: write https://")]
    PlainHttp {
        /// The endpoint.
        endpoint: String,
    },
    /// The object store's client would not be built from these settings.
    #[error("the object store {url:?} cannot be set up; check [headquarters.s3]")]
    Objects {
        /// The store.
        url: String,
        /// What its client says.
        source: object_store::Error,
    },
    /// A file that should hold certificates or a key does not.
    #[error("the {what} is not PEM: {why}")]
    Pem {
        /// Which one: `CA certificate`, `client certificate`, `client key`.
        what: &'static str,
        /// What the parser says.
        why: String,
    },
    /// No root certificate to trust.
    #[error("there is no CA certificate to trust: {why}; install ca-certificates, or name headquarters' own CA")]
    NoRoots {
        /// What was found.
        why: String,
    },
    /// rustls refuses the certificate or key.
    #[error("TLS cannot be set up with these certificates")]
    Tls(#[from] rustls::Error),
}
