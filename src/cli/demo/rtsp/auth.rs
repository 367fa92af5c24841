//! Digest login (RFC 2617 section 3, MD5). Pure.

use md5::{Digest, Md5};

use crate::district::inventory::Login;

/// Who asks: the realm every challenge names.
const REALM: &str = "chowki demo";

/// What a connection is asked, once and for all its requests.
#[derive(Debug, Clone)]
pub(super) struct Challenge {
    nonce: String,
}

impl Challenge {
    /// A challenge from random bytes of this connection.
    pub fn new(random: [u8; 16]) -> Self {
        Self { nonce: hex(&random) }
    }

    /// For `WWW-Authenticate`.
    pub fn header(&self) -> String {
        format!("Digest realm=\"{REALM}\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"", self.nonce)
    }

    /// Whether an `Authorization` header proves the login for this method. With and without `qop` (section 3.2.2).
    pub fn accepts(&self, header: &str, method: &str, login: &Login) -> bool {
        let Some(fields) = header.strip_prefix("Digest ").map(fields) else { return false };
        let get = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let (Some(uri), Some(response)) = (get("uri"), get("response")) else { return false };
        if get("username") != Some(&login.username) || get("realm") != Some(REALM) || get("nonce") != Some(&self.nonce)
        {
            return false;
        }
        let who = md5(&format!("{}:{REALM}:{}", login.username, login.password.reveal()));
        let what = md5(&format!("{method}:{uri}"));
        let proof = match (get("qop"), get("nc"), get("cnonce")) {
            (None, ..) => md5(&format!("{who}:{}:{what}", self.nonce)),
            (Some("auth"), Some(nc), Some(cnonce)) => md5(&format!("{who}:{}:{nc}:{cnonce}:auth:{what}", self.nonce)),
            _ => return false,
        };
        proof.eq_ignore_ascii_case(response)
    }
}

fn md5(text: &str) -> String {
    hex(&Md5::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
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
    use super::*;
    use crate::district::secret::Secret;

    fn login(password: &str) -> Login {
        Login { username: "demo".into(), password: Secret::new(password) }
    }

    /// An `Authorization` header with this proof.
    fn answer(challenge: &Challenge, proof: &str, qop: bool) -> String {
        let extra = if qop { ", qop=auth, nc=00000001, cnonce=\"a,b\"" } else { "" };
        let nonce = &challenge.nonce;
        format!(
            "Digest username=\"demo\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"rtsp://h/gate-1\"{extra}, response=\"{proof}\""
        )
    }

    #[test]
    fn the_right_password_is_accepted_with_and_without_qop() {
        let challenge = Challenge::new([7; 16]);
        let nonce = "07".repeat(16);
        let who = md5("demo:chowki demo:right");
        let what = md5("DESCRIBE:rtsp://h/gate-1");
        let old = answer(&challenge, &md5(&format!("{who}:{nonce}:{what}")), false);
        assert!(challenge.accepts(&old, "DESCRIBE", &login("right")));
        let new = answer(&challenge, &md5(&format!("{who}:{nonce}:00000001:a,b:auth:{what}")), true);
        assert!(challenge.accepts(&new, "DESCRIBE", &login("right")));
        assert!(!challenge.accepts(&new, "PLAY", &login("right")), "a proof is for one method");
        assert!(!challenge.accepts(&new, "DESCRIBE", &login("wrong")));
        assert!(!Challenge::new([8; 16]).accepts(&new, "DESCRIBE", &login("right")), "another nonce");
    }

    #[test]
    fn headers_that_prove_nothing_are_refused() {
        let challenge = Challenge::new([7; 16]);
        for header in ["", "Basic ZGVtbzpyaWdodA==", "Digest ", "Digest username=\"demo\"", "Digest =,=,\"\"\","] {
            assert!(!challenge.accepts(header, "PLAY", &login("right")), "{header}");
        }
    }

    #[test]
    fn the_example_of_the_standard_hashes_as_printed() {
        // RFC 2617 section 3.5.
        let who = md5("Mufasa:testrealm@host.com:Circle Of Life");
        let what = md5("GET:/dir/index.html");
        let proof = md5(&format!("{who}:dcd98b7102dd2f0e8b11d0f600bfb0c093:00000001:0a4f113b:auth:{what}"));
        assert_eq!(proof, "6629fae49393a05397450978507c4ef1");
    }
}
