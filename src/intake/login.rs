//! Passwords as salted hashes. Pure.
//!
//! One SHA-256 over salt and password, not a slow hash: these secrets are generated for devices, not chosen by people, so
//! there is no dictionary to slow down, and 2,000 buttons that reconnect at once must not cost minutes.

use aws_lc_rs::{constant_time, digest};

use crate::district::secret::Secret;

/// A password as it is kept in memory.
#[derive(Clone)]
pub struct Salted {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl Salted {
    /// Hashes a password with a salt of its own.
    pub fn new(password: &Secret, salt: [u8; 16]) -> Self {
        Self { salt, hash: hash(&salt, password.reveal().as_bytes()) }
    }

    /// Whether `password` is the one, in a time that does not depend on where they differ.
    pub fn is(&self, password: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.hash, &hash(&self.salt, password)).is_ok()
    }
}

fn hash(salt: &[u8; 16], password: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(password);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_taken() {
        let kept = Salted::new(&Secret::new("s3cret"), [7; 16]);
        assert!(kept.is(b"s3cret"));
        assert!(!kept.is(b"s3cret ") && !kept.is(b"") && !kept.is(b"S3cret"));
        assert_ne!(Salted::new(&Secret::new("s3cret"), [8; 16]).hash, kept.hash);
    }
}
