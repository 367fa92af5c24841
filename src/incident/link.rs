//! What an incident's document says of its cameras: the unit's own first, then those nearby, best first. Pure.

use super::nearby::Ranked;
use crate::district::{
    ids::{CameraId, IncidentId},
    incident::{CameraRole, LinkedCamera},
    inventory::Button,
};

/// The cameras of an incident at `button`, of which `nearby` were ranked.
pub fn link(
    button: &Button,
    incident: IncidentId,
    nearby: Vec<Ranked>,
    healthy: impl Fn(&CameraId) -> bool,
) -> Vec<LinkedCamera> {
    let evidence = |id: &CameraId| format!("/v1/incidents/{incident}/cameras/{id}/index.m3u8");
    let live = |id: &CameraId| format!("/v1/cameras/{id}/whep");
    let unit = button.has_camera().then_some(()).into_iter().map(|()| {
        let id = CameraId::of_unit(&button.id);
        let healthy = healthy(&id);
        let health = if healthy { "live" } else { "no pictures when ranked" };
        LinkedCamera {
            name: format!("{}: unit", button.name),
            role: CameraRole::Unit,
            at: button.at,
            distance_m: 0.0,
            bearing_deg: 0.0,
            sees_button: true,
            healthy,
            recorded: true,
            reason: format!("the button's own camera, {health}; recorded"),
            live: Some(live(&id)),
            evidence: evidence(&id),
            id,
        }
    });
    let nearby = nearby.into_iter().map(|r| LinkedCamera {
        id: r.camera.id.clone(),
        name: r.camera.name.clone(),
        role: CameraRole::Nearby,
        at: r.camera.at,
        distance_m: (r.distance_m * 10.0).round() / 10.0,
        bearing_deg: (r.bearing.degrees() * 10.0).round() / 10.0,
        sees_button: r.sees,
        healthy: r.healthy,
        recorded: r.chosen,
        reason: r.reason,
        live: Some(live(&r.camera.id)),
        evidence: evidence(&r.camera.id),
    });
    unit.chain(nearby).collect()
}
