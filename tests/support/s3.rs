//! An S3 service as headquarters' object store.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and end")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use chowki::{district::secret::Secret, uplink::objects};

use crate::support::{Peer, wait_for_port};

/// moto's S3 on loopback, without a bucket; none when it is not installed.
pub fn moto(port: u16, tls: Option<&Path>) -> Option<Peer> {
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(dir) = tls {
        command.arg("-s").arg("-c").arg(dir.join("server.pem")).arg("-k").arg(dir.join("server.key"));
    }
    let Ok(child) = command.spawn() else {
        eprintln!("SKIPPED: moto_server is not installed (pip install 'moto[server]')");
        return None;
    };
    let peer = Peer { child, port };
    wait_for_port(port, "moto_server");
    Some(peer)
}

/// The bucket `evidence`.
pub fn make_bucket(port: u16) {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(
        socket,
        "PUT /evidence HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// How it is reached; objects are below `gateways/`.
pub fn s3(bucket: &str, endpoint: String) -> objects::Settings {
    let mut settings = objects::Settings::new(format!("s3://{bucket}/gateways"));
    settings.s3.endpoint = Some(endpoint);
    settings.s3.access_key = Some(("test".into(), Secret::new("test")));
    settings.patience = Duration::from_secs(5);
    settings
}
