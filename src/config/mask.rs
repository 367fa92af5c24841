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

/// A line of a config without the values of secret keys and without logins in URLs.
pub(super) fn mask_line(line: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    for (i, _) in line.match_indices(['=', ':']) {
        let before = line[..i].trim_end().trim_end_matches(['"', '\'']);
        let start = before.char_indices().rev().take_while(|&(_, c)| word(c)).last().map_or(before.len(), |(i, _)| i);
        if is_secret_key(&before[start..]) {
            return format!("{} {MASK}", &line[..=i]);
        }
    }
    mask_urls(line)
}

/// A text without the logins of URLs in it: `rtsp://user:password@host` becomes `rtsp://[redacted]@host`.
pub(super) fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(i) = rest.find("://") {
        let (head, tail) = rest.split_at(i + 3);
        out.push_str(head);
        // A password may itself hold '/', '?' or '@': everything up to the last '@' of the word goes.
        let end = tail.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',')).unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(at) => {
                out.push_str(MASK);
                rest = &tail[at..];
            }
            None => rest = tail,
        }
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
        assert_eq!(mask_urls("see mqtts://hq:8883 and rtsp://10.0.0.1/x"), "see mqtts://hq:8883 and rtsp://10.0.0.1/x");
    }
}
