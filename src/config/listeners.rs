//! Addresses to listen on, by TCP: two that want the same port, and ports that something else has. Pure.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
};

use super::{
    fault::Code,
    keys,
    reader::{Read, Reader},
};

/// Reports every listener that cannot be.
pub(super) fn check(reader: &mut Reader<'_>, keys: &keys::Root) {
    let mut all: Vec<&Read<SocketAddr>> = Vec::new();
    if let Some(broker) = &keys.broker {
        all.extend(&broker.value.listen);
        all.extend(broker.value.tls.as_ref().and_then(|tls| tls.value.listen.as_ref()));
    }
    all.extend(keys.api.as_ref().and_then(|api| api.value.listen.as_ref()));
    all.extend(keys.webrtc.as_ref().and_then(|webrtc| webrtc.value.tcp.as_ref()));
    all.extend(keys.rtsp.as_ref().and_then(|rtsp| rtsp.value.listen.as_ref()));
    for (i, listen) in all.iter().enumerate() {
        if let Some(other) = all[..i].iter().find(|other| collide(other.value, listen.value)) {
            let what = format!("{} is taken by {} on line {}", listen.value, other.at.key, reader.line(&other.at));
            let port = free_port(listen.value.port(), &all);
            reader
                .error(Code::Conflict, &listen.at, what)
                .write(format!("\"{}\"", SocketAddr::new(listen.value.ip(), port)));
            continue;
        }
        if let Some(Err(err)) = reader.host().listen(listen.value) {
            port_fault(reader, listen, &err);
        }
    }
}

fn port_fault(reader: &mut Reader<'_>, listen: &Read<SocketAddr>, err: &std::io::Error) {
    let port = listen.value.port();
    let any = if matches!(listen.value.ip(), IpAddr::V4(_)) { "0.0.0.0" } else { "[::]" };
    let (what, help) = match err.kind() {
        ErrorKind::AddrInUse => (
            format!("another program listens on {} already", listen.value),
            format!(
                "take another port, or stop that program: `ss -ltnp 'sport = :{port}'` names it; when it is chowki itself, check with --no-ports"
            ),
        ),
        ErrorKind::AddrNotAvailable => (
            format!("this machine does not have the address {}", listen.value.ip()),
            format!("listen on \"{any}:{port}\", or give the machine that address"),
        ),
        ErrorKind::PermissionDenied => (
            format!("this user may not listen on port {port}"),
            "take a port above 1023, or set AmbientCapabilities=CAP_NET_BIND_SERVICE in the service".to_owned(),
        ),
        _ => (format!("cannot listen on {}: {err}", listen.value), "take another address or port".to_owned()),
    };
    reader.error(Code::Port, &listen.at, what).help(help);
}

fn free_port(port: u16, all: &[&Read<SocketAddr>]) -> u16 {
    (port..=u16::MAX).chain(1024..port).find(|p| all.iter().all(|l| l.value.port() != *p)).unwrap_or(port)
}

/// Whether two listeners would want the same port of the same address.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let wild = |ip: IpAddr| ip.is_unspecified();
    // `[::]` takes IPv4 too, by Linux's default of net.ipv6.bindv6only.
    let covers = |x: IpAddr, y: IpAddr| x == y || (wild(x) && (x.is_ipv6() || y.is_ipv4()));
    a.port() != 0 && a.port() == b.port() && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_where_the_kernel_says_so() {
        let at = |text: &str| text.parse().unwrap();
        for (a, b, same) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("10.0.0.1:80", "10.0.0.2:80", false),
            ("0.0.0.0:80", "0.0.0.0:81", false),
        ] {
            assert_eq!((collide(at(a), at(b)), collide(at(b), at(a))), (same, same), "{a} {b}");
        }
    }
}
