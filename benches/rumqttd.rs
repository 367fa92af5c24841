//! rumqttd's own server on a port of loopback, with the settings of its example config: what `scripts/bench/puback`
//! compares idle connections with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on should say so and end")]

use std::{collections::HashMap, net::Ipv4Addr};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

fn main() {
    let Some(port) = std::env::args().nth(1).and_then(|port| port.parse().ok()) else {
        // `cargo bench` runs every bench.
        return println!("rumqttd PORT: see scripts/bench/puback");
    };
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 20_480,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "bench".into(),
        listen: (Ipv4Addr::LOCALHOST, port).into(),
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let router = RouterConfig {
        max_connections: 10_010,
        max_outgoing_packet_count: 200,
        max_segment_size: 104_857_600,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let config = Config { router, v4: Some(HashMap::from([("bench".into(), server)])), ..Config::default() };
    Broker::new(config).start().expect("rumqttd does not start");
}
