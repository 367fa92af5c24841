//! The demo's buttons: each an MQTT client as a device is one, with a will, a heartbeat and the patience to resend.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;

use super::{
    district::District,
    view::{Line, Who},
};
use crate::{
    district::{clock::Mono, press::StateMessage},
    host::{clock, scope::Scope},
};

/// How often a device says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A device connects again after this long. `chowki press` takes its place for a moment, and follows its press that long.
const AGAIN: Duration = Duration::from_secs(2);

/// The devices.
#[derive(Clone)]
pub struct Devices(Arc<HashMap<&'static str, mpsc::Sender<&'static str>>>);

impl Devices {
    /// Connects one for each button.
    pub fn connect(gateway: SocketAddr, district: &District, lines: mpsc::Sender<Line>, scope: &Scope) -> Self {
        let device = |(id, password): (&'static str, String)| {
            // Presses that wait for a device; a thumb is slower.
            let (press, pressed) = mpsc::channel(16);
            let device = Device { id, password, gateway, pressed, lines: lines.clone(), at: HashMap::new() };
            let stopping = scope.stopping();
            scope.spawn("demo-button", async move {
                tokio::select! { () = device.run() => {}, () = stopping => {} }
            });
            (id, press)
        };
        Self(Arc::new(district.buttons.iter().map(|b| (b.id, b.password.clone())).map(device).collect()))
    }

    /// Presses a button. `false` when there is none of that id, or it has no hand free.
    pub fn press(&self, button: &str, kind: &'static str) -> bool {
        self.0.get(button).is_some_and(|press| press.try_send(kind).is_ok())
    }
}

struct Device {
    id: &'static str,
    password: String,
    gateway: SocketAddr,
    pressed: mpsc::Receiver<&'static str>,
    lines: mpsc::Sender<Line>,
    /// When each press was made.
    at: HashMap<String, Mono>,
}

impl Device {
    async fn run(mut self) {
        let mut options = MqttOptions::new(self.id, self.gateway.ip().to_string(), self.gateway.port());
        let status = format!("buttons/{}/status", self.id);
        options.set_credentials(self.id, &self.password).set_keep_alive(Duration::from_secs(5));
        options.set_clean_session(false);
        options.set_last_will(LastWill::new(&status, r#"{"online":false}"#, QoS::AtLeastOnce, true));
        let (client, mut link) = AsyncClient::new(options, 64);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                event = link.poll() => match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = client.try_subscribe(format!("buttons/{}/state", self.id), QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Packet::Publish(p))) => self.told(&p.payload),
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(AGAIN).await,
                },
                Some(kind) = self.pressed.recv() => self.press(&client, kind),
                _ = heartbeat.tick() => {
                    let status_now = r#"{"online":true,"battery":0.93,"rssi":-61,"firmware":"demo"}"#;
                    let _ = client.try_publish(&status, QoS::AtLeastOnce, true, status_now);
                }
            }
        }
    }

    fn press(&mut self, client: &AsyncClient, kind: &str) {
        let press = format!("{}-{}", self.id, clock::wall().unix_ms());
        let payload = serde_json::json!({ "press": press, "at": clock::wall(), "kind": kind });
        self.at.insert(press, clock::mono());
        let topic = format!("buttons/{}/press", self.id);
        let sent = client.try_publish(topic, QoS::AtLeastOnce, false, payload.to_string());
        let text = if sent.is_ok() { format!("{kind} pressed") } else { "pressed, but its queue is full".into() };
        self.say(text);
    }

    fn told(&mut self, payload: &[u8]) {
        let Ok(message) = serde_json::from_slice::<StateMessage>(payload) else { return };
        let since = message.press.as_ref().and_then(|p| self.at.get(p.as_str())).copied();
        let state = format!("{:?}", message.state).to_lowercase();
        let after = since.map(|at| format!(", {:.1} ms after the press", clock::mono().since(at).as_secs_f64() * 1e3));
        self.say(format!("is told: {state}{}", after.unwrap_or_default()));
    }

    fn say(&self, text: String) {
        let _ = self.lines.try_send(Line::new(Who::Button(self.id), text));
    }
}
