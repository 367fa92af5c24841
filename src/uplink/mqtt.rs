//! rumqttc as we use it: a fresh client and a clean session for every connection.
//!
//! rumqttc 0.25 by itself would reconnect, drop what was in flight when the broker has forgotten the session, and can
//! stop for ever on a packet id that is still taken. So one client serves one connection, and is dropped with it.

use std::{error::Error as _, io::ErrorKind, time::Duration};

use futures::stream::{self, Stream};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, QoS, StateError,
    TlsConfiguration, Transport,
};

use super::{
    events::{Address, Settings},
    lanes::MAX_PAYLOAD,
};

/// Largest packet that is read, in bytes. A larger one ends the connection.
pub(super) const MAX_INCOMING: usize = 1024 * 1024;
/// What a topic and the fixed header may add to a payload, in bytes.
const MAX_HEADER: usize = 70 * 1024;
/// rumqttc gives up a write that takes longer than this. Our own deadline comes first.
const FLUSH: Duration = Duration::from_secs(120);

/// A client for one connection; for an address with TLS, `tls_roots` must be there. Nothing is connected before the
/// event loop is polled.
pub(super) fn open(settings: &Settings, address: &Address) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(settings.client_id.clone(), address.host.clone(), address.port);
    let window = settings.window.max(1);
    options
        .set_clean_session(true)
        .set_keep_alive(settings.keep_alive.max(Duration::from_secs(1)))
        .set_max_packet_size(MAX_INCOMING, MAX_PAYLOAD + MAX_HEADER)
        // Twice our window: a broker that acknowledges out of order does not make packet ids collide.
        .set_inflight(window.saturating_mul(2))
        .set_last_will(LastWill::new(
            settings.status_topic(),
            settings.offline("connection lost"),
            QoS::AtLeastOnce,
            true,
        ));
    if let Some((user, password)) = &settings.login {
        options.set_credentials(user.clone(), password.reveal());
    }
    if let Some(config) = settings.tls_roots.as_ref().filter(|_| address.tls) {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config.clone())));
    }
    // Room for the whole window, the subscription and the farewell: `try_publish` never finds it full.
    let (client, mut eventloop) = AsyncClient::new(options, usize::from(window) + 8);
    let mut network = eventloop.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(FLUSH.as_secs());
    eventloop.set_network_options(network);
    (client, eventloop)
}

/// What happens on the connection.
///
/// `EventLoop::poll` is not safe to cancel: it loses a packet that waits for room in the socket. Polled through this
/// stream, it is resumed where it stood.
pub(super) fn packets(eventloop: EventLoop) -> impl Stream<Item = Result<Event, ConnectionError>> {
    stream::unfold(eventloop, async |mut eventloop| {
        let event = eventloop.poll().await;
        Some((event, eventloop))
    })
}

/// Whether the connection ended on a packet that we do not read.
pub(super) fn is_too_large(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::Error::PayloadSizeLimitExceeded(_)))
    )
}

/// Whether the broker ended the connection, as it does with a packet that it will not have. A line that fails shows
/// itself by silence or by other errors.
pub(super) fn is_closed(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(error) = error else { return false };
    match error {
        StateError::ConnectionAborted => true,
        StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error)) => {
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Why a connection failed, and what to do about it.
pub(super) fn reason(error: &ConnectionError) -> String {
    use ConnectReturnCode as Code;
    match error {
        ConnectionError::ConnectionRefused(Code::BadUserNamePassword | Code::NotAuthorized) => {
            "the broker refused the login; check username and password_file under [headquarters]".into()
        }
        ConnectionError::ConnectionRefused(Code::BadClientId) => "the broker refused our client id".into(),
        ConnectionError::ConnectionRefused(Code::RefusedProtocolVersion) => "the broker has no MQTT 3.1.1".into(),
        ConnectionError::ConnectionRefused(_) => "the broker says that it is out of service".into(),
        ConnectionError::Tls(error) => format!("TLS: {error}; check the broker's certificate and the CA we trust"),
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker closed the connection".into(),
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::Error::Io(error))) => error.to_string(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker did not answer a ping".into(),
        ConnectionError::NotConnAck(_) => "what answers there is not an MQTT broker".into(),
        error => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
