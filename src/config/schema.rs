//! The JSON Schema of a config, for editors: made from the same table of keys that the reader walks. Pure.

use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::{
    keys::Root,
    node::{Body, Node},
    section::{Need, Section},
};

/// JSON Schema (draft 2020-12) of a config file.
pub fn schema() -> Json {
    let mut schema = section_schema::<Root>();
    if let Json::Object(map) = &mut schema {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("chowki"));
    }
    schema
}

/// JSON Schema of one section.
pub(super) fn section_schema<S: Section>() -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in S::KEYS {
        let mut schema = (key.schema)();
        if let Json::Object(map) = &mut schema {
            map.insert("description".into(), json!(key.doc.trim()));
            match (key.example.and_then(example), key.need) {
                (Some(example), Need::Default) => map.insert("default".into(), example),
                (Some(example), _) => map.insert("examples".into(), json!([example])),
                (None, _) => None,
            };
        }
        if key.need == Need::Required {
            required.push(key.name);
        }
        properties.insert(key.name.to_owned(), schema);
    }
    json!({
        "type": "object",
        "description": S::DOC.trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// An example of the table of keys, as JSON.
fn example(toml: &str) -> Option<Json> {
    fn json_of(node: &Node) -> Json {
        match &node.body {
            Body::Text(text) => json!(text),
            Body::Integer(n) => json!(n),
            Body::Number(n) => json!(n),
            Body::Flag(flag) => json!(flag),
            Body::Other(_) => Json::Null,
            Body::List(items) => items.iter().map(json_of).collect(),
            Body::Table(table) => table.entries.iter().map(|e| (e.key.clone(), json_of(&e.node))).collect(),
        }
    }
    DeValue::parse(toml).ok().map(|value| json_of(&Node::from_toml(&value)))
}
