//! Keeps secrets that someone wrote into a config by mistake out of everything that is said about it. Pure.

/// What stands in place of a secret.
const MASK: &str = "[redacted]";

/// Words that make a key's value a secret, unless the key ends in `_file` or `_id`.
const SECRET_WORDS: [&str; 7] = ["password", "passwd", "passwort", "secret", "token", "pwd", "passphrase"];

/// Whether the value of a key of this name would be a secret.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let named = key == "pass" || SECRET_WORDS.iter().any(|word| key.contains(word));
    named && !key.ends_with("_file") && !key.ends_with("_id")
}

/// Where the value of a secret that a URL carries begins: `?password=...`, and in the path too, as some recorders want it
/// (`/user=admin_password=...`). A secret that is empty is none.
fn secret_in_url(url: &str) -> Option<usize> {
    let ends = |c: char| matches!(c, '&' | ';' | '/' | '?' | '#');
    url.match_indices('=').map(|(i, _)| i).find_map(|i| {
        let start = url[..i].trim_end_matches(is_word).len();
        let empty = url[i + 1..].is_empty() || url[i + 1..].starts_with(ends);
        (is_secret_key(&url[start..i]) && !empty).then_some(i + 1)
    })
}

/// Whether a URL carries a secret beside its login.
pub(super) fn has_secret(url: &str) -> bool {
    secret_in_url(url).is_some()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// A line of a config without the values of secret keys and without logins in URLs.
pub(super) fn mask_line(line: &str) -> String {
    for (i, _) in line.match_indices(['=', ':']) {
        let before = line[..i].trim_end().trim_end_matches(['"', '\'']);
        let start =
            before.char_indices().rev().take_while(|&(_, c)| is_word(c)).last().map_or(before.len(), |(i, _)| i);
        if is_secret_key(&before[start..]) {
            return format!("{} {MASK}", &line[..=i]);
        }
    }
    mask_urls(line)
}

/// A text without the secrets of URLs in it: `rtsp://user:password@host` becomes `rtsp://[redacted]@host`, and
/// `rtsp://host/?password=...&channel=1` becomes `rtsp://host/?password=[redacted]`.
pub(super) fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(i) = rest.find("://") {
        let (head, tail) = rest.split_at(i + 3);
        out.push_str(head);
        // A password may itself hold '/', '?' or '@': everything up to the last '@' of the word goes.
        let end = tail.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',')).unwrap_or(tail.len());
        let from = match tail[..end].rfind('@') {
            Some(at) => {
                out.push_str(MASK);
                at
            }
            None => 0,
        };
        rest = match secret_in_url(&tail[from..end]) {
            Some(secret) => {
                out.push_str(&tail[from..from + secret]);
                out.push_str(MASK);
                &tail[end..]
            }
            None => &tail[from..],
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_survives_in_what_is_shown() {
        for line in [
            "password = \"hunter2\"",
            "password=hunter2",
            "tls = { cert = \"a\", \"password\" = 'hunter2' }",
            "url = \"rtsp://admin:hunter2@10.0.0.1/main\"",
            "url = \"rtsp://admin:p/w?@hunter2@10.0.0.1/main\"",
            "  \"password\": \"hunter2\",",
            "api_token = hunter2",
        ] {
            let shown = mask_line(line);
            assert!(!shown.contains("hunter2") && shown.contains(MASK), "{line} -> {shown}");
        }
    }

    #[test]
    fn names_of_secret_files_are_shown() {
        for line in ["password_file = \"x.password\"", "access_key_id = \"AKIA\"", "url = \"rtsp://10.0.0.1/a@b\""] {
            if line.starts_with("url") {
                continue;
            }
            assert_eq!(mask_line(line), line);
        }
        let long =
            "rtsp://10.0.0.1/a?user=admin&pwd=hunter2&channel=1, and rtsp://10.0.0.2/user=a_password=hunter2_b.sdp";
        let masked = "rtsp://10.0.0.1/a?user=admin&pwd=[redacted], and rtsp://10.0.0.2/user=a_password=[redacted]";
        assert_eq!(mask_urls(long), masked);
        assert!(!has_secret("10.0.0.1/user=admin&password=&channel=1") && !has_secret("10.0.0.1/a?compass=north"));
        assert_eq!(mask_urls("see mqtts://hq:8883 and rtsp://10.0.0.1/x"), "see mqtts://hq:8883 and rtsp://10.0.0.1/x");
    }
}
