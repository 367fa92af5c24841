//! The kinds of values that lie on the ground: places and bounds. Pure.

use serde_json::{Value as Json, json};

use super::{
    fault::{At, Code},
    node::{Body, Node},
    reader::Reader,
    section::Kind,
};
use crate::district::place::{Bounds, NotAPlace, Place};

/// `[latitude, longitude]`
pub(super) struct Point;

impl Kind for Point {
    type Value = Place;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Place> {
        let example = "[latitude, longitude], as in [34.00151, 71.53870]";
        let numbers: Option<Vec<f64>> = match &node.body {
            Body::List(items) => items.iter().map(Node::number).collect(),
            _ => None,
        };
        let Some(&[lat, lon]) = numbers.as_deref() else {
            let what = match &node.body {
                Body::List(items) if numbers.is_some() => format!("a place has two numbers, this has {}", items.len()),
                Body::List(_) => "a place has two numbers, without quotes".to_owned(),
                _ => format!("this must be a place, and is {}", node.kind()),
            };
            reader.error(Code::WrongType, at, what).write(example);
            return None;
        };
        let err = match (Place::new(lat, lon), Place::new(0.0, lon)) {
            (Ok(place), _) => return Some(place),
            (Err(NotAPlace::Latitude(_)), Err(_)) => format!(
                "latitude {lat} is not between -90 and 90, and longitude {lon} not between -180 and 180 (places are \
                 [latitude, longitude])"
            ),
            (Err(err), _) => err.to_string(),
        };
        match Place::new(lon, lat) {
            Ok(swapped) => {
                reader.error(Code::BadValue, at, format!("{err}; the two look swapped")).write(show(swapped))
            }
            Err(_) => reader.error(Code::BadValue, at, err).write(example),
        };
        None
    }
    fn schema() -> Json {
        json!({
            "type": "array",
            "prefixItems": [
                { "type": "number", "minimum": -90, "maximum": 90, "title": "latitude" },
                { "type": "number", "minimum": -180, "maximum": 180, "title": "longitude" },
            ],
            "items": false,
            "minItems": 2,
        })
    }
}

/// `[[south, west], [north, east]]`
pub(super) struct Rectangle;

impl Kind for Rectangle {
    type Value = Bounds;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Bounds> {
        let Body::List(items) = &node.body else {
            reader.wrong_type(node, at, "two corners", "[[33.99, 71.52], [34.02, 71.56]]");
            return None;
        };
        let [a, b] = items.as_slice() else {
            reader
                .error(Code::WrongType, at, format!("bounds have two corners, these have {}", items.len()))
                .write("[[33.99, 71.52], [34.02, 71.56]], south-west and north-east");
            return None;
        };
        let corner = |node: &Node| At { span: node.span.clone(), key: at.key.clone() };
        let (a, b) = (Point::read(reader, a, &corner(a)), Point::read(reader, b, &corner(b)));
        let (a, b) = (a?, b?);
        if a.lat() >= b.lat() || a.lon() >= b.lon() {
            let fault = reader.error(
                Code::BadValue,
                at,
                "the first corner is the south-west one, with the smaller latitude and longitude",
            );
            let south_west = Place::new(a.lat().min(b.lat()), a.lon().min(b.lon()));
            let north_east = Place::new(a.lat().max(b.lat()), a.lon().max(b.lon()));
            if let (Ok(sw), Ok(ne)) = (south_west, north_east)
                && sw.lat() < ne.lat()
                && sw.lon() < ne.lon()
            {
                fault.write(format!("[{}, {}]", show(sw), show(ne)));
            }
            return None;
        }
        Some(Bounds { south_west: a, north_east: b })
    }
    fn schema() -> Json {
        json!({ "type": "array", "items": Point::schema(), "minItems": 2, "maxItems": 2 })
    }
}

/// A place as a config writes it.
pub(super) fn show(place: Place) -> String {
    format!("[{}, {}]", place.lat(), place.lon())
}
