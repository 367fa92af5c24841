//! Which requests a gateway without clients takes, when a browser may have been talked into them. Pure.
//!
//! Without tokens, being able to reach the gateway is the only proof there is, and a browser on this machine or network
//! lends its reach to every page it shows. Two ways are closed here: a page of another origin that posts (cross-site
//! request forgery; Fetch standard, "Origin header"), and a name of the attacker's that is made to point at us (DNS
//! rebinding), after which its page is of our origin. Programs that are no browsers send no `Origin` and pass.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, StatusCode, header};

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// Called by a name, which anybody's DNS can point at us.
    #[error("without an [[api.client]] the gateway answers to its IP address and to localhost only; call it by that")]
    Name,
    /// A page of another origin asks for a change.
    #[error("a page from elsewhere may not do this; open the gateway's own page, or configure an [[api.client]]")]
    Origin,
}

impl Stranger {
    /// What it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Name => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }
}

/// Whether the request may be taken.
///
/// # Errors
/// [`Stranger`], when it may not.
pub fn admit(method: &Method, headers: &HeaderMap) -> Result<(), Stranger> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        // HTTP/1.0, which no browser speaks.
        (None, _) => "",
        (Some(host), None) => host.to_str().ok().filter(|h| is_ours(h)).ok_or(Stranger::Name)?,
        (Some(_), Some(_)) => return Err(Stranger::Name),
    };
    if matches!(*method, Method::GET | Method::HEAD) {
        // Its answer is hidden from other origins by the browser itself.
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    let own_origin = |origin: &str| origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
    let own_site = |site: &str| matches!(site, "same-origin" | "none");
    if text("origin").is_none_or(own_origin) && text("sec-fetch-site").is_none_or(own_site) {
        Ok(())
    } else {
        Err(Stranger::Origin)
    }
}

/// Whether a request that a browser sends with a cookie comes from this gateway's own page: it says so itself, as every
/// browser does of what changes something.
///
/// # Errors
/// [`Stranger`], when it does not.
pub fn from_own_page(headers: &HeaderMap) -> Result<(), Stranger> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let host = text("host").unwrap_or_default();
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    if text("origin").is_some_and(own) && site { Ok(()) } else { Err(Stranger::Origin) }
}

/// Whether a `Host` is an IP address or localhost, with or without a port.
fn is_ours(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = without_port.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(without_port);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (header::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    #[test]
    fn the_gateways_own_page_and_programs_are_taken() {
        for host in ["127.0.0.1:8480", "localhost:8480", "LOCALHOST", "[::1]:8480", "10.0.0.7", "[2001:db8::1]"] {
            assert_eq!(admit(&Method::GET, &headers(&[("host", host)])), Ok(()), "{host}");
            assert_eq!(admit(&Method::POST, &headers(&[("host", host)])), Ok(()), "{host}");
            let origin = format!("http://{host}");
            let own = headers(&[("host", host), ("origin", &origin), ("sec-fetch-site", "same-origin")]);
            assert_eq!(admit(&Method::POST, &own), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_page_from_elsewhere_cannot_post() {
        let origins =
            ["http://evil.example", "null", "", "http://127.0.0.1:9999", "http://127.0.0.1:8480.evil.example"];
        for origin in origins {
            let from = headers(&[("host", "127.0.0.1:8480"), ("origin", origin)]);
            assert_eq!(admit(&Method::POST, &from), Err(Stranger::Origin), "{origin}");
            assert_eq!(admit(&Method::DELETE, &from), Err(Stranger::Origin), "{origin}");
        }
        let cross = headers(&[("host", "127.0.0.1:8480"), ("sec-fetch-site", "cross-site")]);
        assert_eq!(admit(&Method::POST, &cross), Err(Stranger::Origin));
    }

    #[test]
    fn a_name_that_was_made_to_point_at_us_reads_nothing() {
        for host in ["evil.example:8480", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "", "x:y", "a:80"]
        {
            assert_eq!(admit(&Method::GET, &headers(&[("host", host)])), Err(Stranger::Name), "{host}");
        }
        let mut two = headers(&[("host", "127.0.0.1")]);
        two.append("host", "evil.example".parse().unwrap());
        assert_eq!(admit(&Method::GET, &two), Err(Stranger::Name));
    }
}
