//! All metrics, read where they are counted and rendered when they are asked for (OpenMetrics 1.0).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::{Atomic, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::{Registry, Unit},
};

use super::facade::Shared;
use crate::{
    district::{button::Presence, camera::CameraState},
    host::clock,
    uplink::link::Backhaul,
};

/// Renders every metric.
pub(super) fn render(shared: &Shared) -> String {
    let mut page = Page(Registry::with_prefix("chowki"));
    gateway(&mut page, shared);
    intake(&mut page, shared);
    journal(&mut page, shared);
    cameras(&mut page, shared);
    live(&mut page, shared);
    rtsp(&mut page, shared);
    uplink(&mut page, shared);
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &page.0);
    text
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CameraLabel {
    camera: String,
}

struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register(name, help, gauge);
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register_with_unit(name, help, Unit::Bytes, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) {
        let gauge: Gauge<f64, AtomicU64> = Gauge::default();
        gauge.set(value.as_secs_f64());
        self.0.register_with_unit(name, help, Unit::Seconds, gauge);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, counted(value));
    }

    fn states(&mut self, name: &str, help: &str, values: &[(&'static str, u64)]) {
        let family = Family::<Label, Gauge>::default();
        for (state, value) in values {
            family.get_or_create(&Label { state }).set(i64::try_from(*value).unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }
}

fn counted(value: u64) -> Counter {
    let counter: Counter = Counter::default();
    Atomic::inc_by(counter.inner(), value);
    counter
}

fn gateway(page: &mut Page, shared: &Shared) {
    let up = clock::mono().since(shared.started);
    page.seconds("uptime", "Time since the gateway started", up);
    page.gauge("incidents_open", "Incidents that are not closed", shared.progress.open_incidents.load(Relaxed));
    page.counter("presses", "Presses on disk and acknowledged", shared.progress.presses.load(Relaxed));
    let idle = clock::mono().since(shared.progress.last_turn());
    page.seconds("desk_idle", "Time since the engine's task last turned", idle);
    let presence = |p: Presence| {
        let conditions = shared.inventory.buttons().iter().filter_map(|b| shared.board.condition_of(&b.id));
        conditions.filter(|c| c.presence == p).count() as u64
    };
    let states = [
        ("unknown", presence(Presence::Unknown)),
        ("online", presence(Presence::Online)),
        ("offline", presence(Presence::Offline)),
        ("silent", presence(Presence::Silent)),
    ];
    page.states("buttons", "Buttons by presence", &states);
}

fn intake(page: &mut Page, shared: &Shared) {
    let i = shared.intake.stats();
    page.gauge("mqtt_connections", "TCP connections to the buttons' listener now", i.connections);
    page.counter("mqtt_accepted", "TCP connections accepted", i.accepted);
    page.counter("mqtt_refused", "TCP connections over a limit, closed at once", i.over_limit + i.over_limit_address);
    page.counter("mqtt_sessions", "MQTT sessions that began", i.sessions);
    page.counter("mqtt_takeovers", "Sessions that took over from an older connection of their identity", i.takeovers);
    page.counter("mqtt_presses", "Presses received, repeats included", i.presses);
    page.counter("mqtt_presses_withheld", "Presses that got no acknowledgement", i.withheld);
    page.counter("mqtt_odd_payloads", "Payloads that were odd and taken all the same", i.odd_payloads);
    page.counter("mqtt_messages_dropped", "Messages dropped because a client's queue was full", i.dropped);
    let ended = Family::<Label, Counter<u64, AtomicU64>>::default();
    for (state, count) in i.ended {
        ended.get_or_create(&Label { state }).inc_by(count);
    }
    page.0.register("mqtt_ended", "Connections that ended, by why", ended);
}

fn journal(page: &mut Page, shared: &Shared) {
    let j = shared.journal.stats();
    page.counter("journal_entries", "Journal entries made durable", j.entries);
    page.counter("journal_syncs", "Times the journal was synced to disk", j.commits);
    page.counter("journal_errors", "Writes and syncs that the journal's disk refused", j.errors);
    page.bytes("journal_written", "Bytes written to the journal since the start", j.written_bytes);
    page.bytes("journal_queued", "Bytes that wait for the journal's disk", j.queued_bytes);
    let last = Duration::from_micros(j.last_commit_us);
    page.seconds("journal_last_sync", "Duration of the last write and sync", last);
    page.gauge(
        "journal_lost_entries",
        "Entries that were synced and were gone when the journal was opened",
        shared.lost,
    );
    let m = shared.media.stats();
    page.bytes("media_used", "Bytes of evidence and buffer on disk", m.used_bytes);
    page.gauge("media_objects", "Media objects held", m.objects);
    page.gauge("media_objects_undelivered", "Media objects that headquarters has not confirmed", m.undelivered);
    let set_aside = shared.counts.set_aside.load(Relaxed);
    page.gauge("media_objects_set_aside", "Media objects that headquarters' store refuses for now", set_aside);
    page.bytes("media_dropped", "Bytes of recordings that made room before headquarters had them", m.dropped_bytes);
    let late = shared.watched.late(clock::mono()).len() as u64;
    page.gauge("cameras_not_recorded", "Cameras that should be recorded now and are not", late);
}

fn cameras(page: &mut Page, shared: &Shared) {
    let all: Vec<_> = shared.feeds.handles().iter().map(|h| (h.camera().to_string(), h.stats())).collect();
    let count = |s: CameraState| all.iter().filter(|(_, c)| c.state == s).count() as u64;
    let states = [
        ("connecting", count(CameraState::Connecting)),
        ("live", count(CameraState::Live)),
        ("stalled", count(CameraState::Stalled)),
        ("unreachable", count(CameraState::Unreachable)),
        ("wrong-password", count(CameraState::WrongPassword)),
        ("unusable", count(CameraState::Unusable)),
    ];
    page.states("cameras", "Cameras by state, units included", &states);
    let held: u64 = shared.feeds.rings().map(|(_, r)| r.held().bytes as u64).sum();
    page.bytes("ring", "Bytes of frames in memory, all cameras", held);
    let frames = Family::<CameraLabel, Counter<u64, AtomicU64>>::default();
    let received = Family::<CameraLabel, Counter<u64, AtomicU64>>::default();
    let lost = Family::<CameraLabel, Counter<u64, AtomicU64>>::default();
    let reconnects = Family::<CameraLabel, Counter<u64, AtomicU64>>::default();
    for (camera, stats) in all {
        let label = CameraLabel { camera };
        frames.get_or_create(&label).inc_by(stats.frames);
        received.get_or_create(&label).inc_by(stats.bytes);
        lost.get_or_create(&label).inc_by(stats.lost_packets);
        reconnects.get_or_create(&label).inc_by(stats.reconnects);
    }
    page.0.register("camera_frames", "Pictures received", frames);
    page.0.register_with_unit("camera_received", "Media received", Unit::Bytes, received);
    page.0.register("camera_lost_packets", "RTP packets that never came", lost);
    page.0.register("camera_reconnects", "Tries to connect beyond the first", reconnects);
}

fn live(page: &mut Page, shared: &Shared) {
    let Some(calls) = shared.exchange.calls() else { return };
    let stats = calls.stats();
    page.gauge("webrtc_sessions", "Browsers that are shown live pictures", stats.sessions as u64);
    page.counter("webrtc_dropped_datagrams", "Datagrams to browsers that found no room", stats.dropped);
}

fn rtsp(page: &mut Page, shared: &Shared) {
    let counted = shared.spectators.counted();
    page.gauge("rtsp_sessions", "Recorders and players that watch by RTSP", counted.sessions);
    page.counter("rtsp_begun", "Sessions by RTSP that began to play", counted.begun);
    page.counter("rtsp_skipped_frames", "Frames left out for clients that were too slow", counted.skipped);
    page.counter("rtsp_dropped_datagrams", "Datagrams to clients by RTSP that could not be sent", counted.lost);
}

fn uplink(page: &mut Page, shared: &Shared) {
    let counts = &shared.counts;
    page.counter("objects_delivered", "Evidence objects that headquarters has confirmed", counts.objects.load(Relaxed));
    let bytes: Counter = counted(counts.bytes.load(Relaxed));
    page.0.register_with_unit("objects_delivered", "Evidence that headquarters has confirmed", Unit::Bytes, bytes);
    page.counter("objects_failures", "Uploads that failed and are tried again", counts.failures.load(Relaxed));
    let Some(events) = shared.hq.events() else { return };
    let e = events.stats();
    let unsent = shared.progress.documents_unsent.load(Relaxed);
    page.gauge("documents_waiting", "Documents that wait for headquarters", e.held.waiting as u64 + unsent);
    page.gauge("documents_flying", "Documents sent and not yet acknowledged", e.held.flying as u64);
    page.counter("documents_delivered", "PUBACKs of headquarters' broker", e.delivered);
    page.counter("documents_resent", "Documents sent again after a broken connection", e.resent);
    page.counter("uplink_connections", "Connections that headquarters' broker accepted", e.connections);
    page.counter("uplink_failures", "Connections and attempts that failed", e.failures);
    page.counter("commands", "Commands of headquarters", e.commands);
    let is = |b: Backhaul| u64::from(e.backhaul == Some(b));
    let states = [("up", is(Backhaul::Up)), ("degraded", is(Backhaul::Degraded)), ("down", is(Backhaul::Down))];
    page.states("backhaul", "State of the way to headquarters: 1 for the one that holds", &states);
}
