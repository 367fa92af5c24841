//! The buttons' listener against raw sockets, mosquitto's clients and paho.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use chowki::{
    district::{
        button::ButtonStatus,
        ids::{ButtonId, IncidentId},
        inventory::{Button, ButtonCredential, Inventory, RecordPolicy, Voice},
        place::Place,
        press::{PressKind, Progress, StateMessage},
        secret::Secret,
    },
    host::scope::Scope,
    intake::{self, Event, Intake, LocalClient, Settings},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

const SOON: Duration = Duration::from_secs(10);
const A_MOMENT: Duration = Duration::from_millis(300);

// ---- the gateway's side ----

fn button(id: &str, credential: ButtonCredential) -> Button {
    Button {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        at: Place::new(34.0, 71.5).unwrap(),
        credential,
        silent_after: Duration::from_secs(90),
        unit: None,
        voice: Voice::None,
        volume: 1.0,
        half_duplex: false,
        record: RecordPolicy::default(),
    }
}

fn password(id: &str) -> String {
    format!("password of {id}")
}

fn settings() -> Settings {
    Settings {
        plain: Some("127.0.0.1:0".parse().unwrap()),
        tls: None,
        max_connections: 6_000,
        max_per_address: 6_000,
        clients: vec![
            client("siren", &["buttons/+/state"]),
            client("vms", &["buttons/+/status", "buttons/+/press", "buttons/b1/#"]),
        ],
    }
}

fn client(id: &str, may_read: &[&str]) -> LocalClient {
    LocalClient {
        id: id.parse().unwrap(),
        password: Secret::new(password(id)),
        may_read: may_read.iter().map(|f| (*f).to_owned()).collect(),
    }
}

struct Gateway {
    intake: Intake,
    scope: Scope,
    address: SocketAddr,
}

impl Gateway {
    /// With buttons `b1` to `bN`, and the events left to the test.
    async fn with(settings: Settings, buttons: usize, queue: usize) -> (Self, mpsc::Receiver<Event>) {
        let buttons = (1..=buttons)
            .map(|n| format!("b{n}"))
            .map(|id| button(&id, ButtonCredential::Password(Secret::new(password(&id)))))
            .chain([button("c1", ButtonCredential::Certificate)])
            .collect();
        let scope = Scope::new("test");
        let (sender, events) = mpsc::channel(queue);
        let inventory = Arc::new(Inventory::new(buttons, Vec::new()));
        let intake = intake::start(settings, inventory, sender, &scope).await.unwrap();
        let address = intake.addresses().0.or(intake.addresses().1).unwrap();
        (Self { intake, scope, address }, events)
    }

    /// One whose presses are all recorded at once; what happened is in the book.
    async fn recording(settings: Settings, buttons: usize) -> (Self, Book) {
        let (gateway, mut events) = Self::with(settings, buttons, 256).await;
        let book = Book::default();
        let writer = book.clone();
        gateway.scope.spawn("journal", async move {
            while let Some(event) = events.recv().await {
                writer.write(event);
            }
        });
        (gateway, book)
    }

    async fn button(&self, id: &str) -> Raw<TcpStream> {
        let mut raw = Raw::open(self.address).await;
        assert_eq!(raw.hello(&connect(id)).await, (false, 0), "{id}");
        raw
    }

    fn ended(&self, label: &str) -> u64 {
        self.intake.stats().ended.get(label).copied().unwrap_or(0)
    }

    async fn until(&self, what: &str, check: impl Fn(&intake::Stats) -> bool) {
        for _ in 0..500 {
            if check(&self.intake.stats()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: {:?}", self.intake.stats());
    }
}

/// What a recording gateway saw.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    presses: Vec<(String, Option<String>, PressKind)>,
    statuses: Vec<(String, ButtonStatus)>,
    comings: Vec<String>,
    goings: Vec<(String, Option<ButtonStatus>)>,
}

impl Book {
    fn write(&self, event: Event) {
        let mut pages = self.0.lock().unwrap();
        match event {
            Event::Press { press, accepted } => {
                pages.presses.push((press.button.to_string(), press.press.map(String::from), press.kind));
                accepted.recorded();
            }
            Event::Status { button, status, .. } => pages.statuses.push((button.to_string(), status)),
            Event::Connected { button, .. } => pages.comings.push(button.to_string()),
            Event::Disconnected { button, will, .. } => pages.goings.push((button.to_string(), will)),
            Event::Heard { .. } => {}
        }
    }
    fn read<T>(&self, f: impl FnOnce(&Pages) -> T) -> T {
        f(&self.0.lock().unwrap())
    }
    async fn until(&self, what: &str, check: impl Fn(&Pages) -> bool) {
        for _ in 0..500 {
            if self.read(&check) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("did not happen: {what}");
    }
}

fn state(progress: Progress) -> StateMessage {
    StateMessage { press: Some("p1".parse().unwrap()), incident: IncidentId::derive(1, b"k"), state: progress }
}

fn id(text: &str) -> ButtonId {
    text.parse().unwrap()
}

// ---- a client that can misbehave ----

struct Raw<S> {
    stream: S,
}

impl Raw<TcpStream> {
    async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next packet: its first byte and its body. `None` when the connection is closed.
    async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(SOON, async {
            let head = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0usize, 0);
            loop {
                let b = self.stream.read_u8().await.ok()?;
                length |= usize::from(b & 0x7f) << shift;
                shift += 7;
                if b & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((head, body))
        })
        .await
        .expect("neither a packet nor the end came in time")
    }

    async fn expect(&mut self, head: u8, body: &[u8]) {
        assert_eq!(self.packet().await, Some((head, body.to_vec())));
    }

    async fn nothing(&mut self) {
        if let Ok(packet) = timeout(A_MOMENT, self.stream.read_u8()).await {
            panic!("silence expected, got {packet:?}");
        }
    }

    async fn closed(&mut self) {
        assert_eq!(self.packet().await, None, "the connection should be closed");
    }

    /// CONNECT; gives session present and the return code.
    async fn hello(&mut self, connect: &[u8]) -> (bool, u8) {
        self.send(connect).await;
        let (head, body) = self.packet().await.expect("a CONNACK");
        assert_eq!((head, body.len()), (0x20, 2));
        (body[0] == 1, body[1])
    }

    async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.expect(0xd0, &[]).await;
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn framed(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut n = body.len();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        out.push(if n > 0 { low | 0x80 } else { low });
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

struct Hello<'a> {
    id: &'a str,
    username: Option<&'a str>,
    password: Option<String>,
    clean: bool,
    keep_alive: u16,
    will: Option<(&'a str, &'a [u8], bool)>,
}

impl<'a> Hello<'a> {
    fn of(id: &'a str) -> Self {
        Self { id, username: Some(id), password: Some(password(id)), clean: true, keep_alive: 60, will: None }
    }
    fn packet(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut tail = Vec::new();
        text(&mut tail, self.id.as_bytes());
        if let Some((topic, payload, retain)) = self.will {
            flags |= 0x04 | 0x08 | u8::from(retain) << 5;
            text(&mut tail, topic.as_bytes());
            text(&mut tail, payload);
        }
        if let Some(name) = self.username {
            flags |= 0x80;
            text(&mut tail, name.as_bytes());
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            text(&mut tail, password.as_bytes());
        }
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.extend_from_slice(&[4, flags]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        body.extend_from_slice(&tail);
        framed(0x10, &body)
    }
}

fn connect(id: &str) -> Vec<u8> {
    Hello::of(id).packet()
}

fn publish(topic: &str, payload: &[u8], qos: u8, pid: u16, retain: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&pid.to_be_bytes());
    }
    body.extend_from_slice(payload);
    framed(0x30 | qos << 1 | u8::from(retain), &body)
}

fn subscribe(pid: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    text(&mut body, filter.as_bytes());
    body.push(qos);
    framed(0x82, &body)
}

// ---- presses and their proof ----

#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_acknowledged_only_when_it_is_recorded() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 16).await;
    let mut b1 = gateway.button("b1").await;
    assert!(matches!(events.recv().await, Some(Event::Connected { .. })));
    b1.send(&publish("buttons/b1/press", br#"{"press":"p1","kind":"fire"}"#, 1, 7, false)).await;
    let Some(Event::Press { press, accepted }) = events.recv().await else { panic!("a press") };
    assert_eq!((press.button.as_str(), press.kind), ("b1", PressKind::Fire));
    b1.nothing().await;
    accepted.recorded();
    b1.expect(0x40, &[0, 7]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_cannot_be_recorded_is_not_acknowledged_and_its_resend_is() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 16).await;
    for dropped in [true, false] {
        let mut b1 = gateway.button("b1").await;
        b1.send(&publish("buttons/b1/press", b"", 1, 7, false)).await;
        loop {
            if let Some(Event::Press { accepted, .. }) = events.recv().await {
                if dropped {
                    drop(accepted)
                } else {
                    accepted.failed()
                }
                break;
            }
        }
        b1.closed().await;
    }
    let mut b1 = gateway.button("b1").await;
    b1.send(&publish("buttons/b1/press", b"", 1, 7, false)).await;
    loop {
        if let Some(Event::Press { accepted, .. }) = events.recv().await {
            accepted.recorded();
            break;
        }
    }
    b1.expect(0x40, &[0, 7]).await;
    assert_eq!(gateway.intake.stats().withheld, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_come_in_the_order_of_the_presses() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 16).await;
    let mut b1 = gateway.button("b1").await;
    let mut bytes = Vec::new();
    for pid in 1..=5 {
        bytes.extend(publish("buttons/b1/press", b"", 1, pid, false));
    }
    b1.send(&bytes).await;
    let mut proofs = Vec::new();
    while proofs.len() < 5 {
        if let Some(Event::Press { accepted, .. }) = events.recv().await {
            proofs.push(accepted);
        }
    }
    let first = proofs.remove(0);
    proofs.into_iter().rev().for_each(|p| p.recorded());
    b1.nothing().await;
    first.recorded();
    for pid in 1..=5 {
        b1.expect(0x40, &[0, pid]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_the_connection_wait_and_loses_nothing() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 1).await;
    let mut b1 = gateway.button("b1").await;
    let mut bytes = Vec::new();
    for pid in 1..=500 {
        bytes.extend(publish("buttons/b1/press", b"", 1, pid, false));
    }
    b1.send(&bytes).await;
    sleep(A_MOMENT).await;
    assert!(gateway.intake.stats().presses <= 2, "one in the queue, one held");
    gateway.scope.spawn("journal", async move {
        while let Some(event) = events.recv().await {
            if let Event::Press { accepted, .. } = event {
                accepted.recorded();
            }
        }
    });
    for pid in 1..=500u16 {
        b1.expect(0x40, &pid.to_be_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_sixty_four_presses_of_one_button_are_in_flight() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 1024).await;
    let mut b1 = gateway.button("b1").await;
    let mut bytes = Vec::new();
    for pid in 1..=200 {
        bytes.extend(publish("buttons/b1/press", b"", 1, pid, false));
    }
    b1.send(&bytes).await;
    sleep(A_MOMENT).await;
    assert_eq!(gateway.intake.stats().presses, 64);
    gateway.scope.spawn("journal", async move {
        while let Some(event) = events.recv().await {
            if let Event::Press { accepted, .. } = event {
                accepted.recorded();
            }
        }
    });
    for pid in 1..=200u16 {
        b1.expect(0x40, &pid.to_be_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_of_quality_two_is_taken_once() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let mut b1 = gateway.button("b1").await;
    b1.send(&publish("buttons/b1/press", b"", 2, 9, false)).await;
    b1.expect(0x50, &[0, 9]).await;
    let mut again = publish("buttons/b1/press", b"", 2, 9, false);
    again[0] |= 0x08;
    b1.send(&again).await;
    b1.expect(0x50, &[0, 9]).await;
    b1.send(&[0x62, 2, 0, 9]).await;
    b1.expect(0x70, &[0, 9]).await;
    assert_eq!(book.read(|p| p.presses.len()), 1);
    b1.send(&publish("buttons/b1/press", b"", 2, 9, false)).await;
    b1.expect(0x50, &[0, 9]).await;
    assert_eq!(book.read(|p| p.presses.len()), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_payload_is_it_is_a_press() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let mut b1 = gateway.button("b1").await;
    for (pid, payload) in [&b"help"[..], b"\xff\x00", br#"{"kind":"dragons"}"#, b"{"].iter().enumerate() {
        b1.send(&publish("buttons/b1/press", payload, 1, pid as u16 + 1, false)).await;
        b1.expect(0x40, &[0, pid as u8 + 1]).await;
    }
    assert!(
        book.read(|p| p.presses.iter().all(|(b, id, kind)| b == "b1" && id.is_none() && *kind == PressKind::Panic))
    );
    assert_eq!(gateway.intake.stats().odd_payloads, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_followed_at_once_by_the_end_of_the_connection_is_still_taken() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let mut vms = Raw::open(gateway.address).await;
    assert_eq!(vms.hello(&connect("vms")).await.1, 0);
    vms.send(&subscribe(1, "buttons/+/press", 1)).await;
    vms.expect(0x90, &[0, 1, 1]).await;
    let mut b1 = Raw::open(gateway.address).await;
    let mut all = connect("b1");
    all.extend(publish("buttons/b1/press", b"{}", 0, 0, false));
    all.extend([0xe0, 0]);
    b1.send(&all).await;
    drop(b1);
    book.until("the press", |p| p.presses.len() == 1).await;
    assert_eq!(vms.packet().await.map(|p| p.0), Some(0x32), "an integration sees it too");
}

// ---- who may do what ----

#[tokio::test(flavor = "multi_thread")]
async fn a_button_cannot_publish_as_another() {
    let (gateway, book) = Gateway::recording(settings(), 2).await;
    for topic in ["buttons/b2/press", "buttons/b1/state", "buttons/b11/press", "buttons/b1/press/x", "$SYS/x"] {
        let mut b1 = gateway.button("b1").await;
        b1.send(&publish(topic, b"", 1, 1, false)).await;
        b1.closed().await;
    }
    assert_eq!(gateway.ended("forbidden"), 5);
    assert!(book.read(|p| p.presses.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_cannot_plant_a_will_elsewhere() {
    let (gateway, _book) = Gateway::recording(settings(), 2).await;
    for topic in ["buttons/b2/status", "buttons/b1/press", "buttons/b2/press"] {
        let mut b1 = Raw::open(gateway.address).await;
        let hello = Hello { will: Some((topic, b"x", false)), ..Hello::of("b1") };
        assert_eq!(b1.hello(&hello.packet()).await, (false, 5), "{topic}");
        b1.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_wrong_passwords_are_refused_alike() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let b1 = || Hello::of("b1");
    let cases = [
        (Hello { password: Some("wrong".into()), ..b1() }, 4),
        (Hello { password: None, ..b1() }, 4),
        (Hello::of("nobody"), 4),
        (Hello { password: Some(String::new()), ..Hello::of("nobody") }, 4),
        (Hello { username: None, password: None, ..b1() }, 4),
        (Hello { username: Some("b2"), ..b1() }, 2),
        (Hello { id: "", ..b1() }, 2),
        (Hello { id: "a/b", username: Some("a/b"), ..b1() }, 4),
        (Hello::of("c1"), 5),
    ];
    for (n, (hello, code)) in cases.iter().enumerate() {
        let mut raw = Raw::open(gateway.address).await;
        assert_eq!(raw.hello(&hello.packet()).await, (false, *code), "case {n}");
        raw.closed().await;
    }
    assert!(book.read(|p| p.comings.is_empty()));
    for old in [&b"\x10\x0c\0\x06MQIsdp\x03\x02\0\x3c"[..], b"\x10\x0a\0\x04MQTT\x05\x02\0\x3c"] {
        let mut raw = Raw::open(gateway.address).await;
        assert_eq!(raw.hello(old).await, (false, 1));
        raw.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_granted_only_below_the_buttons_own_name() {
    let (gateway, _book) = Gateway::recording(settings(), 2).await;
    let mut b1 = gateway.button("b1").await;
    let filters = ["buttons/b1/state", "buttons/b1/#", "buttons/b2/state", "buttons/+/state", "#"];
    for (n, (filter, granted)) in filters.iter().zip([1, 1, 0x80, 0x80, 0x80]).enumerate() {
        b1.send(&subscribe(n as u16 + 1, filter, 2)).await;
        b1.expect(0x90, &[0, n as u8 + 1, granted]).await;
    }
    b1.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_is_refused_and_nothing_dies_of_it() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    for who in ["b1", "vms"] {
        let mut raw = Raw::open(gateway.address).await;
        let hello = Hello { clean: false, ..Hello::of(who) };
        assert_eq!(raw.hello(&hello.packet()).await.1, 0);
        raw.send(&subscribe(1, "$share/g/buttons/b1/state", 1)).await;
        raw.expect(0x90, &[0, 1, 0x80]).await;
        drop(raw);
    }
    let mut siren = Raw::open(gateway.address).await;
    assert_eq!(siren.hello(&connect("siren")).await.1, 0);
    siren.send(&subscribe(1, "buttons/+/state", 1)).await;
    siren.expect(0x90, &[0, 1, 1]).await;
    gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
    assert_eq!(siren.packet().await.map(|p| p.0), Some(0x32));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_reads_only_what_it_may_and_publishes_nothing() {
    let (gateway, _book) = Gateway::recording(settings(), 2).await;
    let mut siren = Raw::open(gateway.address).await;
    assert_eq!(siren.hello(&connect("siren")).await.1, 0);
    for (n, (filter, granted)) in
        [("buttons/+/press", 0x80), ("#", 0x80), ("buttons/+/status", 0x80), ("buttons/b2/state", 1)].iter().enumerate()
    {
        siren.send(&subscribe(n as u16 + 1, filter, 1)).await;
        siren.expect(0x90, &[0, n as u8 + 1, *granted]).await;
    }
    let mut b1 = gateway.button("b1").await;
    b1.send(&publish("buttons/b1/press", b"{}", 1, 1, false)).await;
    b1.expect(0x40, &[0, 1]).await;
    gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
    siren.nothing().await;
    gateway.intake.tell(&id("b2"), &state(Progress::Recorded));
    let (head, body) = siren.packet().await.unwrap();
    assert_eq!(head, 0x32);
    assert!(body[2..].starts_with(b"buttons/b2/state"));
    siren.send(&publish("buttons/b1/press", b"", 1, 1, false)).await;
    siren.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_sees_a_press_only_after_it_is_recorded() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 16).await;
    let mut vms = Raw::open(gateway.address).await;
    assert_eq!(vms.hello(&connect("vms")).await.1, 0);
    vms.send(&subscribe(1, "buttons/+/press", 0)).await;
    vms.expect(0x90, &[0, 1, 0]).await;
    let mut b1 = gateway.button("b1").await;
    b1.send(&publish("buttons/b1/press", b"{\"press\":\"p\"}", 1, 1, true)).await;
    assert!(matches!(events.recv().await, Some(Event::Connected { .. })));
    let Some(Event::Press { accepted, .. }) = events.recv().await else { panic!("a press") };
    vms.nothing().await;
    accepted.recorded();
    let (head, body) = vms.packet().await.unwrap();
    assert_eq!(head, 0x30, "not retained, although the button said so");
    assert_eq!(&body[2..], b"buttons/b1/press{\"press\":\"p\"}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_retained_for_integrations_that_come_later() {
    let (gateway, book) = Gateway::recording(settings(), 2).await;
    let mut b1 = gateway.button("b1").await;
    b1.send(&publish("buttons/b1/status", br#"{"battery":0.9}"#, 1, 1, true)).await;
    b1.expect(0x40, &[0, 1]).await;
    sleep(A_MOMENT).await; // until the live copy has passed by
    let mut vms = Raw::open(gateway.address).await;
    assert_eq!(vms.hello(&connect("vms")).await.1, 0);
    vms.send(&subscribe(1, "buttons/+/status", 1)).await;
    vms.expect(0x90, &[0, 1, 1]).await;
    let (head, body) = vms.packet().await.unwrap();
    assert_eq!(head, 0x33, "PUBLISH, quality 1, retained");
    assert!(body.ends_with(br#"{"battery":0.9}"#));
    b1.send(&publish("buttons/b1/status", b"", 1, 2, true)).await;
    b1.expect(0x40, &[0, 2]).await;
    assert_eq!(book.read(|p| p.statuses.len()), 1, "an empty one only clears");
    assert_eq!(vms.packet().await.map(|p| p.0), Some(0x32));
    vms.send(&subscribe(2, "buttons/+/status", 1)).await;
    vms.expect(0x90, &[0, 2, 1]).await;
    vms.nothing().await;
}

// ---- state, sessions, wills, takeover ----

#[tokio::test(flavor = "multi_thread")]
async fn a_button_reads_its_state_and_a_kept_session_gets_it_later() {
    let (gateway, _book) = Gateway::recording(settings(), 2).await;
    let hello = Hello { clean: false, ..Hello::of("b1") }.packet();
    let mut b1 = Raw::open(gateway.address).await;
    assert_eq!(b1.hello(&hello).await, (false, 0));
    b1.send(&subscribe(1, "buttons/b1/state", 1)).await;
    b1.expect(0x90, &[0, 1, 1]).await;
    gateway.intake.tell(&id("b2"), &state(Progress::Recorded));
    gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
    let (head, first) = b1.packet().await.unwrap();
    assert_eq!(head, 0x32);
    drop(b1);
    gateway.until("the connection's end", |s| s.connections == 0).await;
    gateway.intake.tell(&id("b1"), &state(Progress::Seen));

    let mut b1 = Raw::open(gateway.address).await;
    assert_eq!(b1.hello(&hello).await, (true, 0));
    assert_eq!(b1.packet().await, Some((0x3a, first.clone())), "unacknowledged: again, with DUP and the same id");
    let (head, second) = b1.packet().await.unwrap();
    assert_eq!(head, 0x32);
    assert!(String::from_utf8_lossy(&second).contains(r#""state":"seen""#));
    for body in [&first, &second] {
        b1.send(&[0x40, 2, body[18], body[19]]).await;
    }
    b1.ping().await;
    drop(b1);
    gateway.until("the connection's end", |s| s.connections == 0).await;

    let mut b1 = Raw::open(gateway.address).await;
    assert_eq!(b1.hello(&hello).await, (true, 0));
    b1.nothing().await;
    let mut clean = Raw::open(gateway.address).await;
    assert_eq!(clean.hello(&connect("b1")).await, (false, 0));
    drop(clean);
    gateway.until("the connection's end", |s| s.connections == 0).await;
    let mut b1 = Raw::open(gateway.address).await;
    assert_eq!(b1.hello(&hello).await, (false, 0), "a clean session ended the kept one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_takes_over_and_nobody_is_told_that_the_button_is_offline() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let hello = Hello { will: Some(("buttons/b1/status", b"{}", true)), ..Hello::of("b1") }.packet();
    let mut first = Raw::open(gateway.address).await;
    assert_eq!(first.hello(&hello).await.1, 0);
    for _ in 0..5 {
        let mut second = Raw::open(gateway.address).await;
        assert_eq!(second.hello(&hello).await.1, 0);
        first.closed().await;
        second.ping().await;
        first = second;
    }
    gateway.until("the old connections' end", |s| s.connections == 1).await;
    assert_eq!(gateway.intake.stats().takeovers, 5);
    assert!(book.read(|p| p.goings.is_empty()));
    drop(first);
    book.until("the last one's end", |p| p.goings.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_executed_unless_the_button_says_goodbye() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let hello =
        Hello { will: Some(("buttons/b1/status", br#"{"online":false,"battery":0.2}"#, true)), ..Hello::of("b1") };
    let mut b1 = Raw::open(gateway.address).await;
    assert_eq!(b1.hello(&hello.packet()).await.1, 0);
    b1.send(&[0xe0, 0]).await;
    b1.closed().await;
    book.until("the goodbye", |p| p.goings.len() == 1).await;
    let mut b1 = Raw::open(gateway.address).await;
    assert_eq!(b1.hello(&hello.packet()).await.1, 0);
    drop(b1);
    book.until("the loss", |p| p.goings.len() == 2).await;
    let wills: Vec<_> = book.read(|p| p.goings.iter().map(|g| g.1.clone()).collect());
    assert_eq!(wills[0], None);
    assert_eq!(wills[1].as_ref().map(|w| (w.online, w.battery)), Some((false, Some(0.2))));
    let mut vms = Raw::open(gateway.address).await;
    assert_eq!(vms.hello(&connect("vms")).await.1, 0);
    vms.send(&subscribe(1, "buttons/b1/status", 0)).await;
    vms.expect(0x90, &[0, 1, 0]).await;
    assert_eq!(vms.packet().await.map(|p| p.0), Some(0x31), "the will was retained");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_a_sign_of_life() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 16).await;
    let mut b1 = gateway.button("b1").await;
    assert!(matches!(events.recv().await, Some(Event::Connected { .. })));
    let mut pings = 0;
    let heard = loop {
        b1.ping().await;
        pings += 1;
        if let Ok(event) = timeout(A_MOMENT, events.recv()).await {
            break event;
        }
    };
    assert!(matches!(heard, Some(Event::Heard { button, .. }) if button.as_str() == "b1"));
    assert!(pings > 2, "not one event for each ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_that_reads_thousands_of_messages_gets_them_all() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    let mut siren = Raw::open(gateway.address).await;
    assert_eq!(siren.hello(&connect("siren")).await.1, 0);
    siren.send(&subscribe(1, "buttons/+/state", 0)).await;
    siren.expect(0x90, &[0, 1, 0]).await;
    for n in 0..10_000 {
        gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
        if n % 100 == 99 {
            for _ in 0..100 {
                assert_eq!(siren.packet().await.map(|p| p.0), Some(0x30));
            }
        }
    }
    assert_eq!((gateway.intake.stats().dropped, gateway.intake.stats().fanout_dropped), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_that_does_not_read_loses_the_oldest_and_holds_up_nobody() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    let mut siren = Raw::open(gateway.address).await;
    let hello = Hello { clean: false, ..Hello::of("siren") }.packet();
    assert_eq!(siren.hello(&hello).await.1, 0);
    siren.send(&subscribe(1, "buttons/+/state", 1)).await;
    siren.expect(0x90, &[0, 1, 1]).await;
    drop(siren);
    gateway.until("its end", |s| s.connections == 0).await;
    for n in 0..3_000 {
        gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
        if n % 200 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    gateway.until("the oldest dropped", |s| s.dropped > 0).await;
    gateway.button("b1").await.ping().await;
    let mut siren = Raw::open(gateway.address).await;
    assert_eq!(siren.hello(&hello).await, (true, 0));
    for _ in 0..100 {
        let (head, body) = siren.packet().await.unwrap();
        assert_eq!(head, 0x32);
        siren.send(&[0x40, 2, body[18], body[19]]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_gateway_is_not_an_event_of_the_buttons() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let mut b1 = gateway.button("b1").await;
    let intake_scope = gateway.scope.clone();
    drop(gateway.intake);
    intake_scope.shutdown(Duration::from_millis(500)).await;
    b1.closed().await;
    assert!(book.read(|p| p.goings.is_empty()));
}

// ---- what devices and attackers do ----

#[tokio::test(flavor = "multi_thread")]
async fn malformed_packets_of_every_type_close_the_connection_and_are_counted() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    let malformed: &[&[u8]] = &[
        b"\x00\x00",
        b"\x20\x02\0\0",
        b"\x31\x00",
        b"\x38\x05\0\x01aXX",
        b"\x36\x05\0\x01a\0\x01",
        b"\x32\x05\0\x01a\0\0",
        b"\x30\x02\0\x09",
        b"\x30\x04\0\x02\xff\xfe",
        b"\x30\x03\0\x01#",
        b"\x40\x01\0",
        b"\x41\x02\0\x01",
        b"\x52\x02\0\x01",
        b"\x60\x02\0\x01",
        b"\x62\x02\0\0",
        b"\x72\x02\0\x01",
        b"\x80\x06\0\x01\0\x01a\0",
        b"\x82\x02\0\x01",
        b"\x82\x06\0\x01\0\x01a\x07",
        b"\x90\x03\0\x01\0",
        b"\xa2\x02\0\x01",
        b"\xa0\x05\0\x01\0\x01a",
        b"\xb0\x02\0\x01",
        b"\xc0\x01x",
        b"\xc1\x00",
        b"\xd0\x00",
        b"\xe0\x01x",
        b"\xf0\x00",
        b"\x30\xff\xff\xff\xff\x01",
    ];
    for bytes in malformed {
        let mut b1 = gateway.button("b1").await;
        b1.send(bytes).await;
        b1.closed().await;
    }
    gateway.until("all counted", |s| s.ended.get("malformed") == Some(&(malformed.len() as u64))).await;
    for (unexpected, label) in [
        (connect("b1"), "second_connect"),
        (b"\x50\x02\0\x01".to_vec(), "unexpected"),
        (b"\x70\x02\0\x01".to_vec(), "unexpected"),
    ] {
        let before = gateway.ended(label);
        let mut b1 = gateway.button("b1").await;
        b1.send(&unexpected).await;
        b1.closed().await;
        gateway.until(label, |s| s.ended.get(label) > Some(&before)).await;
    }
    for first in [
        b"\xc0\x00".to_vec(),
        subscribe(1, "a", 0),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01".to_vec(),
    ] {
        let mut raw = Raw::open(gateway.address).await;
        raw.send(&first).await;
        raw.closed().await;
    }
    gateway.button("b1").await.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_packet_is_refused_before_it_is_read() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    let mut b1 = gateway.button("b1").await;
    b1.send(b"\x32\xff\xff\xff\x7f\0\x10buttons/b1/press").await;
    b1.closed().await;
    gateway.until("counted", |s| s.ended.get("oversized") == Some(&1)).await;
    let mut b1 = gateway.button("b1").await;
    b1.send(&publish("buttons/b1/press", &[b'x'; 16_000], 1, 1, false)).await;
    b1.expect(0x40, &[0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_with_a_slash_that_connects_twice_harms_nobody() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    for _ in 0..3 {
        let mut raw = Raw::open(gateway.address).await;
        assert_eq!(raw.hello(&connect("a/b")).await.1, 4);
    }
    gateway.button("b1").await.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_that_retries_harms_nobody() {
    let (gateway, _book) = Gateway::recording(Settings { max_connections: 2, ..settings() }, 3).await;
    let mut b1 = gateway.button("b1").await;
    let b2 = gateway.button("b2").await;
    for _ in 0..20 {
        let mut b3 = Raw::open(gateway.address).await;
        let _ = b3.stream.write_all(&connect("b3")).await;
        b3.closed().await;
    }
    assert_eq!(gateway.intake.stats().over_limit, 20);
    b1.ping().await;
    drop(b2);
    gateway.until("a place is free", |s| s.connections == 1).await;
    gateway.button("b3").await.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_every_place() {
    let (gateway, _book) = Gateway::recording(Settings { max_per_address: 2, ..settings() }, 3).await;
    let _b1 = gateway.button("b1").await;
    let _b2 = gateway.button("b2").await;
    Raw::open(gateway.address).await.closed().await;
    assert_eq!(gateway.intake.stats().over_limit_address, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_followed_by_a_reset_harms_nobody() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    for hello in [connect("b1"), Vec::new(), connect("b1")[..9].to_vec()] {
        for _ in 0..20 {
            let mut raw = Raw::open(gateway.address).await;
            raw.send(&hello).await;
            #[allow(deprecated, reason = "zero does not block: it makes the close a reset")]
            raw.stream.set_linger(Some(Duration::ZERO)).unwrap();
            drop(raw);
        }
    }
    gateway.until("all gone", |s| s.connections == 0 && s.accepted == 60).await;
    gateway.button("b1").await.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_ends_after_one_and_a_half_keep_alives() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let mut b1 = Raw::open(gateway.address).await;
    let hello = Hello { keep_alive: 1, will: Some(("buttons/b1/status", b"{}", false)), ..Hello::of("b1") };
    assert_eq!(b1.hello(&hello.packet()).await.1, 0);
    for _ in 0..4 {
        sleep(Duration::from_millis(700)).await;
        b1.ping().await;
    }
    assert!(book.read(|p| p.goings.is_empty()), "a client that pings stays");
    b1.closed().await;
    book.until("its end", |p| p.goings.len() == 1 && p.goings[0].1.is_some()).await;
    assert_eq!(gateway.ended("silent"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_silence_after_a_tcp_handshake_ends() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    let mut silent = Raw::open(gateway.address).await;
    let mut slow = Raw::open(gateway.address).await;
    slow.send(&connect("b1")[..5]).await;
    gateway.button("b1").await.ping().await;
    gateway.until("both gone", |s| s.ended.contains_key("no_connect")).await;
    timeout(SOON, async { tokio::join!(silent.closed(), slow.closed()) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_storm_is_served() {
    let (gateway, book) = Gateway::recording(settings(), 200).await;
    let mut storm = tokio::task::JoinSet::new();
    for n in 1..=200 {
        let address = gateway.address;
        storm.spawn(async move {
            let id = format!("b{n}");
            for _ in 0..5 {
                let mut raw = Raw::open(address).await;
                assert_eq!(raw.hello(&connect(&id)).await.1, 0);
                raw.send(&publish(&format!("buttons/{id}/press"), b"", 1, 1, false)).await;
                raw.expect(0x40, &[0, 1]).await;
            }
        });
    }
    while let Some(done) = storm.join_next().await {
        done.unwrap();
    }
    gateway.until("all gone", |s| s.connections == 0).await;
    assert_eq!(book.read(|p| p.presses.len()), 1_000);
    assert_eq!(gateway.intake.stats().sessions, 1_000);
    let comings = book.read(|p| p.comings.len());
    assert_eq!(comings, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_buttons_stay_connected_and_cost_little() {
    raise_file_limit();
    let (gateway, _book) = Gateway::recording(settings(), 2_000).await;
    let before = resident_bytes();
    let mut buttons = Vec::new();
    for n in 1..=2_000 {
        buttons.push(gateway.button(&format!("b{n}")).await);
    }
    let each = resident_bytes().saturating_sub(before) / 2_000;
    assert_eq!(gateway.intake.stats().connections, 2_000);
    for raw in &mut buttons {
        raw.send(&[0xc0, 0]).await;
    }
    for raw in &mut buttons {
        raw.expect(0xd0, &[]).await;
    }
    println!("{each} bytes resident for each connected button, the test's own end included");
    assert!(each < 45_000, "{each} bytes for each button");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map_or(Some(10_000), |max| Some(max.min(10_000)));
    setrlimit(Resource::Nofile, limit).unwrap();
}

// ---- TLS ----

/// A certification authority, and certificates of the gateway and of two buttons, made with openssl.
fn certificates(dir: &Path) {
    let script = r#"
        set -e
        openssl ecparam -name prime256v1 -genkey -noout -out ca.key
        openssl req -x509 -new -key ca.key -subj /CN=test-ca -days 2 -out ca.pem
        for name in localhost c1 b1; do
            openssl ecparam -name prime256v1 -genkey -noout -out $name.sec1
            openssl pkcs8 -topk8 -nocrypt -in $name.sec1 -out $name.key
            openssl req -new -key $name.key -subj /CN=$name -out $name.csr
            printf 'subjectAltName=DNS:%s,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' $name > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done"#;
    let made = Command::new("sh").args(["-c", script]).current_dir(dir).stderr(Stdio::null()).status().unwrap();
    assert!(made.success(), "openssl");
}

fn tls_settings(dir: &Path, client_ca: bool) -> Settings {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let certificate = |name: &str| CertificateDer::from_pem_slice(&read(name)).unwrap();
    let builder = if client_ca {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_slice(&read("localhost.key")).unwrap();
    let config = builder.with_single_cert(vec![certificate("localhost.pem")], key).unwrap();
    let tls = intake::Tls {
        listen: "127.0.0.1:0".parse().unwrap(),
        config: tokio::sync::watch::channel(Arc::new(config)).1,
        requires_certificate: client_ca,
    };
    Settings { plain: None, tls: Some(tls), ..settings() }
}

fn mosquitto_pub(address: SocketAddr, id: &str, topic: &str, more: &[&str]) -> bool {
    let done = Command::new(support::which("mosquitto_pub"))
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-i", id, "-t", topic, "-V", "mqttv311"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    done.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_on_the_tls_port_does_not_stall_the_others() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (gateway, book) = Gateway::recording(tls_settings(dir.path(), false), 1).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Raw::open(gateway.address).await);
    }
    let ca = dir.path().join("ca.pem").display().to_string();
    let login = ["-u", "b1", "-P", &password("b1"), "--cafile", &ca, "-q", "1", "-m", "{}"].map(str::to_owned);
    let sent = gateway.scope.spawn_blocking("mosquitto", move || {
        mosquitto_pub(gateway.address, "b1", "buttons/b1/press", &login.each_ref().map(String::as_str))
    });
    assert!(timeout(Duration::from_secs(8), sent).await.unwrap().unwrap());
    assert_eq!(book.read(|p| p.presses.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_speaks_for_the_button_it_names_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (gateway, book) = Gateway::recording(tls_settings(dir.path(), true), 2).await;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (ca, c1, c1_key, b1, b1_key) = (path("ca.pem"), path("c1.pem"), path("c1.key"), path("b1.pem"), path("b1.key"));
    let address = gateway.address;
    gateway
        .scope
        .spawn_blocking("mosquitto", move || {
            let with = |id: &str, cert: &[&str], login: &[&str]| {
                let all: Vec<&str> =
                    ["--cafile", &ca, "-q", "1", "-m", "{}"].iter().chain(cert).chain(login).copied().collect();
                mosquitto_pub(address, id, &format!("buttons/{id}/press"), &all)
            };
            let (c1_cert, b1_cert) = (["--cert", &*c1, "--key", &c1_key], ["--cert", &*b1, "--key", &b1_key]);
            let (of_b1, of_b2) = (password("b1"), password("b2"));
            assert!(with("c1", &c1_cert, &[]), "its certificate alone");
            assert!(!with("c1", &b1_cert, &[]), "another's certificate");
            assert!(with("b1", &b1_cert, &["-u", "b1", "-P", &of_b1]), "password and its own certificate");
            assert!(!with("b1", &b1_cert, &[]), "a button with a password needs it");
            assert!(!with("b2", &b1_cert, &["-u", "b2", "-P", &of_b2]), "password and another's certificate");
            assert!(!with("c1", &[], &[]), "no certificate");
        })
        .await
        .unwrap();
    assert_eq!(book.read(|p| p.presses.iter().map(|p| p.0.clone()).collect::<Vec<_>>()), ["c1", "b1"]);
    gateway
        .until("counted", |s| s.ended.contains_key("handshake") && s.ended.contains_key("refused_certificate"))
        .await;
}

// ---- other people's clients ----

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_clients_press_and_read_the_state() {
    let (gateway, book) = Gateway::recording(settings(), 1).await;
    let port = gateway.address.port().to_string();
    let mut siren = tokio::process::Command::new(support::which("mosquitto_sub"))
        .args(["-h", "127.0.0.1", "-p", &port, "-i", "siren", "-u", "siren", "-P", &password("siren")])
        .args(["-t", "buttons/+/state", "-q", "1", "-C", "1", "-W", "10"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    gateway.until("the siren", |s| s.sessions == 1).await;
    let address = gateway.address;
    let pressed = gateway.scope.spawn_blocking("mosquitto", move || {
        [("0", "{}"), ("1", r#"{"press":"m1","kind":"medical"}"#), ("2", "")].iter().all(|(qos, payload)| {
            let login = password("b1");
            mosquitto_pub(address, "b1", "buttons/b1/press", &["-u", "b1", "-P", &login, "-q", qos, "-m", payload])
        })
    });
    assert!(pressed.await.unwrap());
    book.until("three presses", |p| p.presses.len() == 3).await;
    assert_eq!(book.read(|p| p.presses[1].clone()), ("b1".into(), Some("m1".into()), PressKind::Medical));
    sleep(A_MOMENT).await;
    gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
    let mut out = String::new();
    siren.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    let told: StateMessage = serde_json::from_str(&out).unwrap();
    assert_eq!(told, state(Progress::Recorded));
}

#[tokio::test(flavor = "multi_thread")]
async fn paho_resends_a_press_until_it_is_recorded() {
    let (gateway, mut events) = Gateway::with(settings(), 1, 16).await;
    let script = r#"
import sys, threading, paho.mqtt.client as mqtt
port, password = int(sys.argv[1]), sys.argv[2]
acknowledged = threading.Event()
recorded = threading.Event()
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="b1", clean_session=False, protocol=mqtt.MQTTv311)
c.username_pw_set("b1", password)
c.reconnect_delay_set(1, 1)
c.on_connect = lambda c, u, f, r, p: c.subscribe("buttons/b1/state", 1)
c.on_message = lambda c, u, m: recorded.set()
c.on_publish = lambda c, u, mid, r, p: acknowledged.set()
c.connect("127.0.0.1", port, keepalive=5)
c.loop_start()
c.publish("buttons/b1/press", '{"press":"p1"}', qos=1)
sys.exit(0 if acknowledged.wait(20) and recorded.wait(10) else 1)
"#;
    let mut paho = tokio::process::Command::new("python3")
        .args(["-c", script, &gateway.address.port().to_string(), &password("b1")])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut tries = HashMap::new();
    while tries.get("p1") != Some(&3) {
        if let Some(Event::Press { press, accepted }) = timeout(SOON, events.recv()).await.expect("paho presses again")
        {
            let n = tries.entry(press.press.unwrap().to_string()).or_insert(0);
            *n += 1;
            if *n == 3 { accepted.recorded() } else { accepted.failed() }
        }
    }
    gateway.intake.tell(&id("b1"), &state(Progress::Recorded));
    assert!(timeout(SOON, paho.wait()).await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_one_id_and_an_address_in_use_are_errors_that_say_so() {
    let (gateway, _book) = Gateway::recording(settings(), 1).await;
    let (sender, _events) = mpsc::channel(1);
    let scope = Scope::new("second");
    let inventory = || Arc::new(Inventory::new(vec![button("siren", ButtonCredential::Certificate)], Vec::new()));
    let taken = Settings { plain: Some(gateway.address), clients: Vec::new(), ..settings() };
    let error = intake::start(taken, inventory(), sender.clone(), &scope).await.err().unwrap();
    assert!(error.to_string().contains(&gateway.address.to_string()), "{error}");
    let error = intake::start(settings(), inventory(), sender.clone(), &scope).await.err().unwrap();
    assert!(error.to_string().contains("siren"), "{error}");
    let bad = Settings { clients: vec![client("x", &["buttons/#/state"])], ..settings() };
    let error = intake::start(bad, inventory(), sender, &scope).await.err().unwrap();
    assert!(error.to_string().contains("buttons/#/state"), "{error}");
}
