//! Whether cameras' latest frames find room: in their rings, and those in this machine. Pure.

use std::time::Duration;

use super::{
    fault::{At, Code},
    reader::{Read, Reader},
    units::{show_duration, show_size},
};
use crate::district::inventory::RecordPolicy;

/// What a camera sends in a second when nothing is known of it: 4 Mbit/s, as 1080p at 30 frames usually is.
const USUAL_BYTES_PER_SECOND: u64 = 500_000;

/// The share of memory that rings may take without a warning.
const RING_SHARE: f64 = 0.6;

/// Warns where evidence that begins `before` a press, or what is kept of these `cameras` for outages, needs more than rings
/// of that size hold, or all rings more than this machine has.
pub(super) fn check(reader: &mut Reader<'_>, before: &Read<Duration>, ring: &Read<u64>, cameras: &[RecordPolicy]) {
    let reach = cameras.iter().map(|record| record.reach(before.value)).max().unwrap_or_default();
    if usual(before.value) > ring.value {
        too_small(reader, &before.at, before.value, ring.value, "evidence");
    } else if usual(reach) > ring.value {
        too_small(reader, &ring.at, reach, ring.value, "what is kept of an outage");
    }
    machine_holds(reader, before, ring.value, cameras);
}

/// A camera's usual bytes in that time.
fn usual(span: Duration) -> u64 {
    span.as_secs().saturating_mul(USUAL_BYTES_PER_SECOND)
}

fn too_small(reader: &mut Reader<'_>, at: &At, span: Duration, ring: u64, what: &str) {
    let needed = usual(span);
    let what = format!(
        "{} of 4 Mbit/s are {}, and a ring holds {}: {what} would begin later",
        show_duration(span),
        show_size(needed),
        show_size(ring)
    );
    let mib = needed.div_ceil(1 << 20).next_multiple_of(16);
    reader.warning(Code::Memory, at, what).write(format!("ring_bytes = \"{mib}MiB\" under [media]"));
}

/// Whether this machine has memory for all rings.
fn machine_holds(reader: &mut Reader<'_>, before: &Read<Duration>, ring: u64, cameras: &[RecordPolicy]) {
    let Some(memory) = reader.host().memory() else { return };
    let rings = cameras.iter().map(|record| usual(record.reach(before.value)).min(ring)).sum::<u64>();
    if rings as f64 <= memory as f64 * RING_SHARE {
        return;
    }
    let kept = cameras.iter().filter(|record| **record == RecordPolicy::Outage).count();
    let reach = RecordPolicy::Outage.reach(before.value);
    let of_outages =
        if kept == 0 { String::new() } else { format!(", {} of {kept} kept for outages", show_duration(reach)) };
    let n = cameras.len();
    let what = format!(
        "{} of {n} cameras at 4 Mbit/s{of_outages} are about {}, and this machine has {}",
        show_duration(before.value),
        show_size(rings),
        show_size(memory)
    );
    let fits = (memory as f64 * RING_SHARE / n.max(1) as f64 / USUAL_BYTES_PER_SECOND as f64) as u64;
    let record = if kept == 0 || fits >= reach.as_secs() { "" } else { " and record = \"incident\" for each camera" };
    let fits = fits.min(before.value.as_secs());
    reader.warning(Code::Memory, &before.at, what).write(format!("before = \"{fits}s\"{record}, or more memory"));
}
