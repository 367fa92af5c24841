//! What tests of this room share.

/// An ICE check of the session `name`: user name, priority and a proof that nobody here looks at (RFC 8489 sections 5 and
/// 14, RFC 8445 section 7.1.1).
pub(super) fn check(name: &str) -> Vec<u8> {
    let user = format!("{name}:them");
    let mut attributes = Vec::new();
    for (kind, value) in [(0x06, user.as_bytes()), (0x24, &[0, 0, 0, 1]), (0x08, &[0; 20])] {
        attributes.extend([0, kind, 0, value.len() as u8]);
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    let head = [0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xa4, 0x42];
    [&head[..], &[7; 12], &attributes].concat()
}
