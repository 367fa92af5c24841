//! Which cameras see a press: an R*-tree over the district, ranked by what each can show. Pure.
//!
//! Rank: live cameras before dead ones; among each, those whose field of view covers the button before those that
//! only stand near; among each, the closer first. Every camera closer than the last one chosen is in the result, with
//! the reason why it ranks where it does.

use std::sync::Arc;

use rstar::{RTree, primitives::GeomWithData};

use crate::district::{
    ids::CameraId,
    inventory::Camera,
    place::{Bearing, Place},
};

/// How to choose.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// At most this many are recorded.
    pub cameras: usize,
    /// Metres around the button.
    pub radius_m: f64,
}

/// A camera near a button.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Which.
    pub camera: Arc<Camera>,
    /// Metres to the button.
    pub distance_m: f64,
    /// From the camera to the button.
    pub bearing: Bearing,
    /// Whether the button lies in its sector and range.
    pub sees: bool,
    /// Whether frames are arriving.
    pub healthy: bool,
    /// Whether it is among the chosen.
    pub chosen: bool,
    /// Why, in words.
    pub reason: String,
}

type Point = GeomWithData<[f64; 2], usize>;

/// The cameras of a district, by place.
#[derive(Debug)]
pub struct Nearby {
    cameras: Vec<Arc<Camera>>,
    tree: RTree<Point>,
    origin: Place,
}

/// Cameras farther than the chosen ones that are still named, so that an operator can switch to one.
const ALSO_NAMED: usize = 4;

impl Nearby {
    /// An index of these cameras. Bulk-loaded: 100,000 take some tens of milliseconds.
    pub fn new(cameras: &[Arc<Camera>]) -> Self {
        let n = cameras.len().max(1) as f64;
        let lat = cameras.iter().map(|c| c.at.lat()).sum::<f64>() / n;
        let lon = cameras.iter().map(|c| c.at.lon()).sum::<f64>() / n;
        let origin = Place::new(lat, lon).or_else(|_| Place::new(0.0, 0.0));
        let Ok(origin) = origin else { unreachable!("0,0 is a place") };
        let points = cameras.iter().enumerate().map(|(i, c)| Point::new(plane(origin, c.at), i)).collect();
        Self { cameras: cameras.to_vec(), tree: RTree::bulk_load(points), origin }
    }

    /// The cameras for a press at `button`, best first: the chosen, then every closer one that was passed over and a
    /// few more.
    pub fn rank(&self, button: Place, choice: Choice, healthy: impl Fn(&CameraId) -> bool) -> Vec<Ranked> {
        let mut near: Vec<Ranked> = self
            .within(button, choice.radius_m)
            .map(|camera| {
                let healthy = healthy(&camera.id);
                assess(camera, button, healthy)
            })
            .collect();
        near.sort_by(|a, b| {
            (!a.healthy, !a.sees)
                .cmp(&(!b.healthy, !b.sees))
                .then(a.distance_m.total_cmp(&b.distance_m))
                .then_with(|| a.camera.id.cmp(&b.camera.id))
        });
        let farthest = near.iter().take(choice.cameras).map(|r| r.distance_m).fold(0.0, f64::max);
        let mut named = 0;
        let mut place = 0;
        near.retain_mut(|r| {
            place += 1;
            r.chosen = place <= choice.cameras;
            named += usize::from(!r.chosen && r.distance_m > farthest);
            r.chosen || r.distance_m <= farthest || named <= ALSO_NAMED
        });
        for r in &mut near {
            r.reason = reason(r);
        }
        near
    }

    fn within(&self, button: Place, radius_m: f64) -> impl Iterator<Item = &Arc<Camera>> {
        // The plane stretches east-west away from its origin's latitude: search a little wider, measure exactly.
        let reach = radius_m * 1.05 + 1.0;
        self.tree
            .locate_within_distance(plane(self.origin, button), reach * reach)
            .map(|p| &self.cameras[p.data])
            .filter(move |c| c.at.distance_m(button) <= radius_m)
    }
}

/// Metres east and north of `origin`, on a plane touching there.
fn plane(origin: Place, at: Place) -> [f64; 2] {
    const METRES_A_DEGREE: f64 = 111_195.08;
    let east = (at.lon() - origin.lon()) * METRES_A_DEGREE * origin.lat().to_radians().cos();
    [east, (at.lat() - origin.lat()) * METRES_A_DEGREE]
}

/// Within this many metres a camera's own position is not known well enough to speak of a direction.
const AT_THE_MAST_M: f64 = 2.0;

fn assess(camera: &Arc<Camera>, button: Place, healthy: bool) -> Ranked {
    let distance_m = camera.at.distance_m(button);
    let bearing = camera.at.bearing_to(button);
    let in_sector = match camera.view.sector {
        None => true,
        Some((facing, width)) => distance_m <= AT_THE_MAST_M || facing.angle_to(bearing) <= width / 2.0,
    };
    Ranked {
        camera: camera.clone(),
        distance_m,
        bearing,
        sees: in_sector && distance_m <= camera.view.range_m,
        healthy,
        chosen: false,
        reason: String::new(),
    }
}

fn reason(r: &Ranked) -> String {
    let view = match (r.sees, r.camera.view.sector) {
        (true, None) => "sees all round".to_owned(),
        (true, Some((facing, width))) => format!("looks {:.0}° with a view of {width:.0}°", facing.degrees()),
        (false, _) if r.distance_m > r.camera.view.range_m => {
            format!("too far for its range of {:.0} m", r.camera.view.range_m)
        }
        (false, Some((facing, _))) => format!("looks away, {:.0}°", facing.degrees()),
        (false, None) => "does not reach".to_owned(),
    };
    let sees = if r.sees { "sees the button" } else { "does not see the button" };
    let health = if r.healthy { "live" } else { "no pictures when ranked" };
    let chosen = if r.chosen { "recorded" } else { "not recorded: others rank higher" };
    format!("{sees} ({view}), {:.0} m away at {:.0}°, {health}; {chosen}", r.distance_m, r.bearing.degrees())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::district::inventory::{RecordPolicy, Source, Transport, View};

    pub(crate) fn camera(id: &str, at: Place, sector: Option<(f64, f64)>, range_m: f64) -> Arc<Camera> {
        Arc::new(Camera {
            id: id.parse().unwrap(),
            name: id.into(),
            at,
            view: View { sector: sector.map(|(f, w)| (Bearing::wrapped(f), w)), range_m },
            source: Source {
                url: "rtsp://127.0.0.1/x".parse().unwrap(),
                sub_url: None,
                login: None,
                transport: Transport::Tcp,
            },
            record: RecordPolicy::Outage,
        })
    }

    fn button() -> Place {
        Place::new(34.0, 71.5).unwrap()
    }

    #[test]
    fn a_camera_that_looks_at_the_button_beats_a_closer_one_that_looks_away_and_the_closer_one_is_not_forgotten() {
        let b = button();
        let cameras = [
            camera("away", b.offset_m(10.0, 0.0), Some((0.0, 90.0)), 60.0),
            camera("looks", b.offset_m(-40.0, 0.0), Some((0.0, 90.0)), 60.0),
            camera("far", b.offset_m(500.0, 0.0), None, 60.0),
        ];
        let ranked = Nearby::new(&cameras).rank(b, Choice { cameras: 1, radius_m: 150.0 }, |_| true);
        let ids: Vec<_> = ranked.iter().map(|r| (r.camera.id.as_str(), r.sees, r.chosen)).collect();
        assert_eq!(ids, [("looks", true, true), ("away", false, false)]);
        assert!(ranked[1].reason.contains("looks away"), "{}", ranked[1].reason);
    }

    #[test]
    fn a_dead_camera_does_not_take_the_place_of_a_live_one() {
        let b = button();
        let cameras =
            [camera("dead", b.offset_m(5.0, 0.0), None, 60.0), camera("live", b.offset_m(30.0, 0.0), None, 60.0)];
        let nearby = Nearby::new(&cameras);
        let ranked = nearby.rank(b, Choice { cameras: 1, radius_m: 150.0 }, |id| id.as_str() == "live");
        assert_eq!(ranked[0].camera.id.as_str(), "live");
        assert_eq!(ranked[1].camera.id.as_str(), "dead");
    }

    proptest! {
        #[test]
        fn the_ranking_is_the_one_that_a_full_scan_gives(
            spots in prop::collection::vec((-300.0f64..300.0, -300.0f64..300.0, 0.0f64..360.0, 20.0f64..360.0, 10.0f64..200.0, any::<bool>()), 0..80),
            k in 0usize..6,
        ) {
            let b = button();
            let cameras: Vec<_> = spots.iter().enumerate()
                .map(|(i, &(n, e, f, w, r, _))| camera(&format!("c{i}"), b.offset_m(n, e), Some((f, w)), r)).collect();
            let live = |id: &CameraId| spots[id.as_str()[1..].parse::<usize>().unwrap()].5;
            let ranked = Nearby::new(&cameras).rank(b, Choice { cameras: k, radius_m: 150.0 }, live);
            let mut all: Vec<_> = cameras.iter().filter(|c| c.at.distance_m(b) <= 150.0).map(|c| assess(c, b, live(&c.id))).collect();
            all.sort_by(|x, y| (!x.healthy, !x.sees).cmp(&(!y.healthy, !y.sees)).then(x.distance_m.total_cmp(&y.distance_m)));
            let want: Vec<_> = all.iter().take(k).map(|r| r.camera.id.clone()).collect();
            let got: Vec<_> = ranked.iter().filter(|r| r.chosen).map(|r| r.camera.id.clone()).collect();
            prop_assert_eq!(&got, &want);
            let farthest = ranked.iter().filter(|r| r.chosen).map(|r| r.distance_m).fold(0.0, f64::max);
            for r in all.iter().filter(|r| r.distance_m < farthest) {
                prop_assert!(ranked.iter().any(|x| x.camera.id == r.camera.id), "a closer camera was forgotten");
            }
        }
    }
}
