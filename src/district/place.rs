//! Places, distances and bearings on WGS-84, exact enough for a city: the haversine formula on a sphere of the mean
//! earth radius (error below 0.5 %, a metre at 200 m).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Mean earth radius in metres (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// A place: latitude and longitude in WGS-84 degrees. Written `[latitude, longitude]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
#[schemars(with = "[f64; 2]")]
pub struct Place {
    lat: f64,
    lon: f64,
}

/// A pair of numbers that is no place.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NotAPlace {
    /// Outside -90..=90, or not a number.
    #[error("latitude {0} is not between -90 and 90 (places are [latitude, longitude])")]
    Latitude(f64),
    /// Outside -180..=180, or not a number.
    #[error("longitude {0} is not between -180 and 180 (places are [latitude, longitude])")]
    Longitude(f64),
}

impl Place {
    /// A place from degrees.
    pub fn new(lat: f64, lon: f64) -> Result<Self, NotAPlace> {
        if !(-90.0..=90.0).contains(&lat) {
            return Err(NotAPlace::Latitude(lat));
        }
        if !(-180.0..=180.0).contains(&lon) {
            return Err(NotAPlace::Longitude(lon));
        }
        Ok(Self { lat, lon })
    }
    /// Degrees north.
    pub fn lat(self) -> f64 {
        self.lat
    }
    /// Degrees east.
    pub fn lon(self) -> f64 {
        self.lon
    }
    /// Great-circle distance in metres.
    pub fn distance_m(self, to: Place) -> f64 {
        let (a1, a2) = (self.lat.to_radians(), to.lat.to_radians());
        let (dlat, dlon) = (a2 - a1, (to.lon - self.lon).to_radians());
        let h = (dlat / 2.0).sin().powi(2) + a1.cos() * a2.cos() * (dlon / 2.0).sin().powi(2);
        2.0 * EARTH_RADIUS_M * h.sqrt().min(1.0).asin()
    }
    /// Initial bearing towards `to`.
    pub fn bearing_to(self, to: Place) -> Bearing {
        let (a1, a2) = (self.lat.to_radians(), to.lat.to_radians());
        let dlon = (to.lon - self.lon).to_radians();
        let y = dlon.sin() * a2.cos();
        let x = a1.cos() * a2.sin() - a1.sin() * a2.cos() * dlon.cos();
        Bearing::wrapped(y.atan2(x).to_degrees())
    }
    /// The place `north_m` and `east_m` metres away (flat-earth step; for distances within a city).
    pub fn offset_m(self, north_m: f64, east_m: f64) -> Place {
        let lat = (self.lat + (north_m / EARTH_RADIUS_M).to_degrees()).clamp(-90.0, 90.0);
        let lon = self.lon + (east_m / (EARTH_RADIUS_M * self.lat.to_radians().cos().max(1e-9))).to_degrees();
        Place { lat, lon: (lon + 540.0).rem_euclid(360.0) - 180.0 }
    }
}

impl TryFrom<[f64; 2]> for Place {
    type Error = NotAPlace;
    fn try_from([lat, lon]: [f64; 2]) -> Result<Self, NotAPlace> {
        Self::new(lat, lon)
    }
}

impl From<Place> for [f64; 2] {
    fn from(p: Place) -> Self {
        [p.lat, p.lon]
    }
}

/// A direction in degrees clockwise from true north, `0.0..360.0`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Bearing(f64);

impl Bearing {
    /// Any number of degrees, wrapped into one turn.
    pub fn wrapped(degrees: f64) -> Self {
        let turn = degrees.rem_euclid(360.0);
        Self(if turn >= 360.0 { 0.0 } else { turn })
    }
    /// Degrees, `0.0..360.0`.
    pub fn degrees(self) -> f64 {
        self.0
    }
    /// The smaller angle between two directions, `0.0..=180.0`.
    pub fn angle_to(self, other: Bearing) -> f64 {
        let d = (self.0 - other.0).abs();
        d.min(360.0 - d)
    }
}

/// A rectangle of latitudes and longitudes (not across the date line).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The corner with the smallest latitude and longitude.
    pub south_west: Place,
    /// The corner with the largest.
    pub north_east: Place,
}

impl Bounds {
    /// Whether `place` is inside or on the edge.
    pub fn contains(&self, place: Place) -> bool {
        (self.south_west.lat..=self.north_east.lat).contains(&place.lat)
            && (self.south_west.lon..=self.north_east.lon).contains(&place.lon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_metres_east_is_a_hundred_metres_at_ninety_degrees() {
        let a = Place::new(34.0, 71.5).unwrap();
        let b = a.offset_m(0.0, 100.0);
        assert!((a.distance_m(b) - 100.0).abs() < 0.1);
        assert!(a.bearing_to(b).angle_to(Bearing::wrapped(90.0)) < 0.1);
    }

    #[test]
    fn bearings_wrap_and_angles_take_the_short_way() {
        assert_eq!(Bearing::wrapped(-10.0).degrees(), 350.0);
        assert_eq!(Bearing::wrapped(350.0).angle_to(Bearing::wrapped(10.0)), 20.0);
        assert_eq!(Bearing::wrapped(-1e-20).degrees(), 0.0);
    }

    #[test]
    fn swapped_or_broken_coordinates_are_refused() {
        assert_eq!(Place::new(134.0, 71.0), Err(NotAPlace::Latitude(134.0)));
        assert!(Place::new(f64::NAN, 0.0).is_err());
        assert!(Place::new(0.0, 181.0).is_err());
    }
}
