//! Ranking 4 of 100,000 cameras for a press: `cargo bench --bench nearby`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on should say so and end")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::{hint::black_box, sync::Arc, time::Instant};

use chowki::{
    district::{
        inventory::{Camera, RecordPolicy, Source, Transport, View},
        place::{Bearing, Place},
    },
    incident::nearby::{Choice, Nearby},
};

/// A city of some 30 km by 30 km.
const CAMERAS: usize = 100_000;
const ROUNDS: usize = 20_000;

fn main() {
    let centre = Place::new(34.0, 71.5).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut somewhere = |span: f64| {
        let (north, east) = ((random.f64() - 0.5) * span, (random.f64() - 0.5) * span);
        (centre.offset_m(north, east), random.f64() * 360.0)
    };
    let cameras: Vec<_> = (0..CAMERAS).map(|i| camera(i, somewhere(30_000.0))).collect();
    let begun = Instant::now();
    let nearby = Nearby::new(&cameras);
    let built = begun.elapsed();

    let choice = Choice { cameras: 4, radius_m: 150.0 };
    let mut took = Vec::with_capacity(ROUNDS);
    let mut named = 0;
    for _ in 0..ROUNDS {
        let (button, _) = somewhere(28_000.0);
        let begun = Instant::now();
        let ranked = black_box(nearby.rank(black_box(button), choice, |_| true));
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        named += ranked.len();
    }
    took.sort_by(f64::total_cmp);
    let at = |q: f64| took[((ROUNDS - 1) as f64 * q) as usize];
    println!("### Ranking 4 of {CAMERAS} cameras\n");
    println!("| index built, ms | p50 µs | p99 µs | max µs | cameras named |\n| ---: | ---: | ---: | ---: | ---: |");
    let (built, named) = (built.as_secs_f64() * 1e3, named as f64 / ROUNDS as f64);
    println!("| {built:.0} | {:.1} | {:.1} | {:.1} | {named:.1} |\n", at(0.5), at(0.99), at(1.0));
}

fn camera(number: usize, (at, facing): (Place, f64)) -> Arc<Camera> {
    Arc::new(Camera {
        id: format!("cam-{number}").parse().unwrap(),
        name: format!("Camera {number}"),
        at,
        view: View { sector: Some((Bearing::wrapped(facing), 90.0)), range_m: 60.0 },
        source: Source {
            url: "rtsp://127.0.0.1/x".parse().unwrap(),
            sub_url: None,
            login: None,
            transport: Transport::Tcp,
        },
        record: RecordPolicy::Outage,
    })
}
