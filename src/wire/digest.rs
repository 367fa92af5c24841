//! Digest login (RFC 2617 section 3, RFC 7616) by MD5, which is what every player and recorder speaks. Pure.

use std::{fmt, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::{Digest, Md5};

use crate::district::{clock::Mono, hex::encode as hex};

/// A challenge can be answered for so long; whoever is later gets another one, and need not ask a person again.
pub const FRESH: Duration = Duration::from_secs(5 * 60);

/// Random bytes of a nonce.
const NONCE: usize = 16;

/// What a user name and a password come to in one realm. It stands for the password there, and is as secret.
#[derive(Clone)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Key {
    /// That of a login (`A1` of RFC 2617 section 3.2.2.2).
    pub fn new(username: &str, realm: &str, password: &str) -> Self {
        Self(md5(&format!("{username}:{realm}:{password}")))
    }

    /// One that was kept.
    pub fn kept(text: String) -> Self {
        Self(text)
    }

    /// To be kept, as a password would be.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// What an `Authorization` header claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who it says it is.
    pub username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    /// Count and the client's own nonce, where it answers with `qop=auth`.
    counted: Option<(String, String)>,
}

impl Proof {
    /// Reads a header's value. None: it is no digest.
    pub fn read(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let mut fields = fields(rest);
        let mut get = |name: &str| {
            let at = fields.iter().position(|(n, _)| n == name)?;
            Some(fields.swap_remove(at).1)
        };
        if get("algorithm").is_some_and(|a| !a.eq_ignore_ascii_case("MD5")) {
            return None;
        }
        let counted = match get("qop") {
            None => None,
            Some(qop) if qop == "auth" => Some((get("nc")?, get("cnonce")?)),
            Some(_) => return None,
        };
        Some(Self {
            username: get("username")?,
            realm: get("realm")?,
            nonce: get("nonce")?,
            uri: get("uri")?,
            response: get("response")?,
            counted,
        })
    }

    /// Whether it was made with that key for this method, compared in constant time. Not whether its nonce is one of ours:
    /// that is [`Challenge::verdict`]'s.
    pub fn is_by(&self, key: &Key, method: &str) -> bool {
        let (who, nonce, what) = (&key.0, &self.nonce, md5(&format!("{method}:{}", self.uri)));
        let right = match &self.counted {
            None => md5(&format!("{who}:{nonce}:{what}")),
            Some((nc, cnonce)) => md5(&format!("{who}:{nonce}:{nc}:{cnonce}:auth:{what}")),
        };
        let said = self.response.to_ascii_lowercase();
        verify_slices_are_equal(right.as_bytes(), said.as_bytes()).is_ok()
    }
}

/// What a connection is asked. A proof that was heard on one is none on another.
#[derive(Debug, Clone)]
pub struct Challenge {
    realm: &'static str,
    nonce: String,
    until: Mono,
}

/// What the nonce of a proof is to a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers this challenge.
    Fresh,
    /// It answers it too late, or another one.
    Stale,
    /// It is of another realm.
    Foreign,
}

impl Challenge {
    /// A challenge of random bytes, from now on.
    pub fn new(realm: &'static str, random: &[u8; NONCE], now: Mono) -> Self {
        Self { realm, nonce: hex(random), until: now + FRESH }
    }

    /// For `WWW-Authenticate`. `stale`: the proof was right, and its nonce too old.
    pub fn header(&self, stale: bool) -> String {
        let (realm, nonce, stale) = (self.realm, &self.nonce, if stale { ", stale=true" } else { "" });
        format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"{stale}")
    }

    /// Whether it can no longer be answered.
    pub fn is_over(&self, now: Mono) -> bool {
        now > self.until
    }

    /// What a proof's nonce is worth now.
    pub fn verdict(&self, proof: &Proof, now: Mono) -> Verdict {
        match (proof.realm == self.realm, proof.nonce == self.nonce && !self.is_over(now)) {
            (false, _) => Verdict::Foreign,
            (true, true) => Verdict::Fresh,
            (true, false) => Verdict::Stale,
        }
    }
}

fn md5(text: &str) -> String {
    hex(&Md5::digest(text))
}

/// `name=value` and `name="value"`, separated by commas. Quoted commas stay inside.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut quoted = false;
    text.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .filter_map(|field| field.split_once('='))
    .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned()))
    .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REALM: &str = "chowki";

    fn at(seconds: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(seconds))
    }

    /// An `Authorization` header with this proof.
    fn proof(nonce: &str, response: &str, more: &str) -> Option<Proof> {
        Proof::read(&format!(
            "Digest username=\"a,b\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"rtsp://h/gate-1\"{more}, \
             response=\"{response}\""
        ))
    }

    #[test]
    fn the_right_password_is_accepted_with_and_without_qop_for_one_method() {
        let (right, wrong) = (Key::new("a,b", REALM, "right"), Key::new("a,b", REALM, "wrong"));
        let what = md5("DESCRIBE:rtsp://h/gate-1");
        let old = proof("07", &md5(&format!("{}:07:{what}", right.0)), "").unwrap();
        let counted = ", qop=auth, nc=00000001, cnonce=\"c,d\"";
        let new = proof("07", &md5(&format!("{}:07:00000001:c,d:auth:{what}", right.0)), counted).unwrap();
        for proof in [old, new] {
            assert!(proof.is_by(&right, "DESCRIBE") && proof.username == "a,b");
            assert!(!proof.is_by(&right, "PLAY"), "a proof is for one method");
            assert!(!proof.is_by(&wrong, "DESCRIBE"));
        }
    }

    #[test]
    fn a_nonce_is_good_for_its_connection_and_for_a_time() {
        let challenge = Challenge::new(REALM, &[7; 16], at(0));
        let own = proof(&"07".repeat(16), "", "").unwrap();
        assert_eq!(challenge.verdict(&own, at(1)), Verdict::Fresh);
        assert_eq!(challenge.verdict(&own, at(FRESH.as_secs() + 1)), Verdict::Stale);
        let other = Challenge::new(REALM, &[8; 16], at(0));
        assert_eq!(other.verdict(&own, at(1)), Verdict::Stale, "another connection's");
        assert_eq!(Challenge::new("demo", &[7; 16], at(0)).verdict(&own, at(1)), Verdict::Foreign);
        assert!(challenge.header(true).ends_with(", stale=true") && !challenge.header(false).contains("stale"));
    }

    #[test]
    fn headers_that_prove_nothing_are_none() {
        let odd = "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x\"";
        assert!(Proof::read(odd).is_some());
        for header in [
            "",
            "Basic ZGVtbzpyaWdodA==",
            "Digest ",
            "Digest username=\"demo\"",
            "Digest =,=,\"\"\",",
            &format!("{odd}, qop=auth-int"),
            &format!("{odd}, qop=auth"),
            &format!("{odd}, algorithm=SHA-256"),
        ] {
            assert_eq!(Proof::read(header), None, "{header}");
        }
    }

    #[test]
    fn the_example_of_the_standard_hashes_as_printed() {
        // RFC 2617 section 3.5.
        let header = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, \
            cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\"";
        let key = Key::new("Mufasa", "testrealm@host.com", "Circle Of Life");
        assert!(Proof::read(header).unwrap().is_by(&key, "GET"));
        assert_eq!(format!("{key:?}"), "[redacted]");
    }

    proptest! {
        #[test]
        fn no_header_does_harm_or_proves_anything(
            names in prop::collection::vec("username|realm|nonce|uri|response|qop|nc|cnonce|x", 0..12), value in "[ -~é]{0,12}"
        ) {
            let fields: Vec<_> = names.iter().map(|name| format!("{name}=\"{value}\"")).collect();
            for header in [format!("Digest {}", fields.join(",")), format!("Digest {value}"), value] {
                let key = Key::new("a", REALM, "b");
                prop_assert!(!Proof::read(&header).is_some_and(|proof| proof.is_by(&key, "PLAY")));
            }
        }
    }
}
