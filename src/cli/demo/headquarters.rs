//! The demo's headquarters: a broker that nobody here wrote, and an operator who reads what comes and says what is done.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;

use super::view::{Line, Who};
use crate::{
    district::{ids::IncidentId, incident::Incident},
    host::scope::Scope,
};

/// Starts the broker on a free port, in a thread of its own that lives as long as the process.
pub fn broker() -> Result<SocketAddr, String> {
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    let listen = free.map_err(|e| format!("no free port on 127.0.0.1: {e}"))?;
    let connections = rumqttd::ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 512 * 1024,
        max_inflight_count: 200,
        auth: None,
        external_auth: None,
        dynamic_filters: false,
    };
    let server = rumqttd::ServerSettings {
        name: "headquarters".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let router = rumqttd::RouterConfig {
        max_connections: 64,
        max_outgoing_packet_count: 200,
        max_segment_size: 8 << 20,
        max_segment_count: 4,
        ..Default::default()
    };
    let config = rumqttd::Config {
        router,
        v4: Some(HashMap::from([("headquarters".to_owned(), server)])),
        ..Default::default()
    };
    let run = move || {
        if let Err(e) = rumqttd::Broker::new(config).start() {
            tracing::error!(error = %e, "the demo's headquarters broker ended");
        }
    };
    std::thread::Builder::new().name("headquarters".into()).spawn(run).map_err(|e| e.to_string())?;
    Ok(listen)
}

/// The operator's side.
#[derive(Clone)]
pub struct Hq {
    client: AsyncClient,
    /// Where commands go, once a document has said which district it is; the newest incident that is not closed.
    newest: Arc<Mutex<Option<IncidentId>>>,
}

impl Hq {
    /// Subscribes to everything the gateway says, and tells it line by line.
    pub fn connect(broker: SocketAddr, lines: mpsc::Sender<Line>, scope: &Scope) -> Self {
        let mut options = MqttOptions::new("headquarters-operator", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(10)).set_max_packet_size(512 * 1024, 512 * 1024);
        let (client, mut link) = AsyncClient::new(options, 64);
        let newest = Arc::new(Mutex::new(None));
        let (subscriber, latest, stopping) = (client.clone(), newest.clone(), scope.stopping());
        scope.spawn("headquarters", async move {
            tokio::pin!(stopping);
            loop {
                let event = tokio::select! { event = link.poll() => event, () = &mut stopping => return };
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        // The bounded queue is empty right after connecting.
                        let _ = subscriber.try_subscribe("chowki/#", QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Packet::Publish(p))) => {
                        if let Some(line) = read(&p.topic, &p.payload, &latest) {
                            // A view that cannot keep up misses lines, never the gateway.
                            let _ = lines.try_send(line);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Self { client, newest }
    }

    /// The operator's next step on the newest open incident. `false` when there is none.
    pub fn step(&self, verb: &str) -> bool {
        let Some(incident) = *self.newest.lock().unwrap_or_else(PoisonError::into_inner) else { return false };
        let id = format!("{verb}-{}", crate::host::clock::wall().unix_ms());
        let command = serde_json::json!({ "command": verb, "incident": incident, "by": "operator", "id": id });
        let sent = self.client.try_publish("chowki/saddar/commands", QoS::AtLeastOnce, false, command.to_string());
        sent.is_ok()
    }
}

fn read(topic: &str, payload: &[u8], newest: &Mutex<Option<IncidentId>>) -> Option<Line> {
    let kind = topic.split('/').nth(2)?;
    match kind {
        "incidents" => {
            let incident: Incident = serde_json::from_slice(payload).ok()?;
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            let open = incident.state != crate::district::press::Progress::Closed;
            match *newest {
                Some(known) if known == incident.id && !open => *newest = None,
                Some(known) if known > incident.id => {}
                _ if open => *newest = Some(incident.id),
                _ => {}
            }
            Some(Line::new(Who::Headquarters, describe(&incident)))
        }
        "buttons" => {
            let text = serde_json::from_slice::<serde_json::Value>(payload).ok()?;
            let name = text["button"].as_str()?.to_owned();
            Some(Line::new(Who::Headquarters, format!("{name} is {}", text["presence"].as_str()?)))
        }
        _ => None,
    }
}

fn describe(i: &Incident) -> String {
    let held: usize = i.evidence.iter().map(|e| e.objects.iter().filter(|o| o.delivered).count()).sum();
    let all: usize = i.evidence.iter().map(|e| e.objects.len()).sum();
    let complete = i.evidence.iter().filter(|e| e.complete).count();
    let test = if i.test { "TEST " } else { "" };
    let id = i.id.to_string();
    let short = &id[id.len() - 6..];
    let state = format!("{:?}", i.state).to_lowercase();
    format!(
        "{test}incident …{short} {} revision {}: {state}, {} cameras, evidence {held}/{all} objects, {complete}/{} complete",
        i.button.id,
        i.revision,
        i.cameras.iter().filter(|c| c.recorded).count(),
        i.evidence.len(),
    )
}
