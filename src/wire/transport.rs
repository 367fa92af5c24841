//! How a client wants its RTP (RFC 2326 section 12.39). Pure.

/// A way for a track's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// In the RTSP connection, RTP and RTCP on these channels, where it names some.
    Interleaved(Option<(u8, u8)>),
    /// As datagrams, RTP and RTCP to these ports of the client.
    Datagrams(u16, u16),
}

/// The first of the alternatives of a `Transport` header that can be served.
pub fn wanted(header: &str) -> Option<Wanted> {
    header.split(',').find_map(|alternative| {
        let mut parts = alternative.split(';').map(str::trim);
        let profile = parts.next()?.to_ascii_uppercase();
        let parts: Vec<&str> = parts.collect();
        if parts.contains(&"multicast") {
            return None;
        }
        let pair = |name: &str| -> Option<Option<(u16, u16)>> {
            let Some(value) = parts.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('=')) else {
                return Some(None);
            };
            let (first, second) = value.split_once('-').unwrap_or((value, ""));
            let first = first.parse().ok()?;
            Some(Some((first, second.parse().ok().or_else(|| u16::checked_add(first, 1))?)))
        };
        match profile.as_str() {
            "RTP/AVP/TCP" => match pair("interleaved")? {
                Some((rtp, rtcp)) => {
                    Some(Wanted::Interleaved(Some((u8::try_from(rtp).ok()?, u8::try_from(rtcp).ok()?))))
                }
                None => Some(Wanted::Interleaved(None)),
            },
            "RTP/AVP" | "RTP/AVP/UDP" => pair("client_port")?
                .filter(|(rtp, rtcp)| *rtp > 0 && *rtcp > 0)
                .map(|(rtp, rtcp)| Wanted::Datagrams(rtp, rtcp)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_transport_that_can_be_served_is_taken() {
        let interleaved = |rtp, rtcp| Some(Wanted::Interleaved(Some((rtp, rtcp))));
        assert_eq!(wanted("RTP/AVP/TCP;unicast;interleaved=2-3"), interleaved(2, 3));
        assert_eq!(wanted("RTP/AVP/TCP;unicast"), Some(Wanted::Interleaved(None)));
        assert_eq!(wanted("RTP/AVP;unicast;client_port=5000-5001"), Some(Wanted::Datagrams(5000, 5001)));
        assert_eq!(wanted("rtp/avp/udp;unicast;client_port=5000"), Some(Wanted::Datagrams(5000, 5001)));
        assert_eq!(wanted("RTP/AVP;multicast, RTP/AVP/TCP;unicast;interleaved=0-1"), interleaved(0, 1));
        for none in [
            "",
            "RTP/AVP",
            "RTP/SAVP;unicast;client_port=5000-5001",
            "RTP/AVP/TCP;interleaved=256-257",
            "RTP/AVP/TCP;interleaved=x",
            "RTP/AVP;unicast;client_port=65535",
            "RTP/AVP;unicast;client_port=0-1",
        ] {
            assert_eq!(wanted(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_header_does_harm(words in prop::collection::vec("RTP/AVP(/TCP|/UDP)?|unicast|;|,|=|-|client_port|interleaved|[0-9]{1,6}| ", 0..20)) {
            if let Some(Wanted::Datagrams(rtp, rtcp)) = wanted(&words.concat()) {
                prop_assert!(rtp > 0 && rtcp > 0);
            }
        }
    }
}
