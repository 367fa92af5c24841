//! What the API is, as an OpenAPI 3.1 document: each route says what it takes and gives where it is made, and the router and
//! the document are made from the same.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{Json, http::Method, routing::MethodRouter};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Api, Problem, routes};
use crate::gateway::access::Right;

/// Who a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Everybody, even who is nobody.
    Anybody,
    /// Who has that right; noted where it is media or a step.
    Right(Right, Noted),
    /// The screen of a unit, by its own token.
    Units,
}

/// Whether it is written down who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// In the audit log.
    Yes,
    /// No.
    No,
}

/// A path, what answers there, and what that is.
pub(super) struct Route {
    pub path: &'static str,
    pub answers: MethodRouter<Api>,
    operations: Vec<Operation>,
}

/// What one method of a path does.
pub(super) struct Operation {
    method: Method,
    summary: &'static str,
    query: Vec<Value>,
    headers: Vec<Value>,
    body: Option<Value>,
    responses: BTreeMap<u16, Value>,
}

/// A route of one method or of several.
pub(super) fn route(path: &'static str, answers: MethodRouter<Api>, operations: impl Into<Vec<Operation>>) -> Route {
    Route { path, answers, operations: operations.into() }
}

/// What a method does, in a line.
pub(super) fn does(method: Method, summary: &'static str) -> Operation {
    Operation { method, summary, query: Vec::new(), headers: Vec::new(), body: None, responses: BTreeMap::new() }
}

impl Operation {
    /// What may stand behind the question mark: the fields of this.
    pub fn query<T: JsonSchema>(mut self) -> Self {
        let schema = schema_of::<T>();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let mut schema = schema.clone();
            // What is left out is left out; null is no text of a query.
            if let Some(kinds) = schema["type"].as_array() {
                schema["type"] = kinds.iter().find(|kind| **kind != "null").cloned().unwrap_or_default();
            }
            let description = schema.as_object_mut().and_then(|fields| fields.remove("description"));
            self.query.push(json!({
                "name": name, "in": "query", "required": required.contains(&name.as_str()), "schema": schema,
                "description": description.unwrap_or_default(),
            }));
        }
        self
    }

    /// A header that is heeded.
    pub fn heeds(mut self, name: &str, description: &str) -> Self {
        self.headers.push(json!({
            "name": name, "in": "header", "required": false, "schema": { "type": "string" }, "description": description,
        }));
        self
    }

    /// A body of this, as JSON.
    pub fn takes<T: JsonSchema>(self, required: bool) -> Self {
        self.takes_as("application/json", schema_of::<T>(), required)
    }

    /// A body of another kind.
    pub fn takes_as(mut self, kind: &str, schema: Value, required: bool) -> Self {
        self.body = Some(json!({ "required": required, "content": { kind: { "schema": schema } } }));
        self
    }

    /// Answers with this, as JSON.
    pub fn gives<T: JsonSchema>(self, description: &str) -> Self {
        self.gives_as(200, JSON, schema_of::<T>(), description)
    }

    /// Answers with an object of these fields, whatever they are.
    pub fn gives_fields(self, fields: &[&str], description: &str) -> Self {
        self.gives_as(200, "application/json", json!({ "type": "object", "required": fields }), description)
    }

    /// Answers with another kind of thing.
    pub fn gives_as(mut self, status: u16, kind: &str, schema: Value, description: &str) -> Self {
        // One status may come with things of several kinds.
        let answer =
            self.responses.entry(status).or_insert_with(|| json!({ "description": description, "content": {} }));
        answer["content"][kind] = json!({ "schema": schema });
        self
    }

    /// Answers with a status alone.
    pub fn says(mut self, status: u16, description: &str) -> Self {
        self.responses.insert(status, json!({ "description": description }));
        self
    }

    /// Refuses with a problem document.
    pub fn refuses(self, refusals: &[(u16, &str)]) -> Self {
        refusals.iter().fold(self, |all, (status, description)| all.gives_as(*status, PROBLEM, problem(), description))
    }

    fn document(&self, path: &str, whose: For) -> Value {
        let mut responses = self.responses.clone();
        if self.method == Method::GET && responses.get(&200).is_some_and(|answer| !answer["content"][JSON].is_null()) {
            let known = json!({ "description": "as the caller knows it, by If-None-Match" });
            responses.entry(304).or_insert(known);
        }
        let mut refuse = |status: u16, why: &str| {
            let answer = json!({ "description": why, "content": { PROBLEM: { "schema": problem() } } });
            responses.entry(status).or_insert(answer);
        };
        let parameters: Vec<_> =
            path_parameters(path).chain(self.query.iter().cloned()).chain(self.headers.iter().cloned()).collect();
        if !parameters.is_empty() || self.body.is_some() {
            refuse(400, "what was sent cannot be understood");
        }
        if self.body.is_some() {
            refuse(413, "the body is too large");
            refuse(415, "the body is of another kind");
        }
        refuse(408, "it took too long");
        refuse(503, "the gateway cannot do it now");
        let security = match whose {
            For::Anybody => json!([]),
            For::Units => json!([{ "unit": [] }]),
            For::Right(..) => json!([{ "token": [] }, { "session": [] }, { "certificate": [] }]),
        };
        if whose != For::Anybody {
            refuse(401, "nobody that is known");
        }
        if matches!(whose, For::Right(..)) {
            refuse(403, "not for this role");
            refuse(421, "without clients the gateway answers to its address only");
            refuse(429, "too much or too often");
        }
        let responses: Map<_, _> = responses.into_iter().map(|(status, answer)| (status.to_string(), answer)).collect();
        let mut said = json!({
            "summary": self.summary, "parameters": parameters, "responses": responses, "security": security,
            "operationId": operation_id(&self.method, path),
        });
        if let Some(body) = &self.body {
            said["requestBody"] = body.clone();
        }
        if let For::Right(right, _) = whose {
            said["description"] = format!("For: {}.", right.roles()).into();
        }
        said
    }
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

fn problem() -> Value {
    json!({ "$ref": "#/components/schemas/Problem" })
}

/// A schema with everything in it, so that it stands anywhere.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// What stands in braces in a path, each with what it may be.
fn path_parameters(path: &str) -> impl Iterator<Item = Value> + '_ {
    let is_incident = path.starts_with("/v1/incidents/");
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(move |name| {
        let schema = match name {
            "id" if is_incident => json!({ "type": "string", "format": "uuid" }),
            "id" | "camera" => schema_of::<crate::district::ids::CameraId>(),
            "button" => schema_of::<crate::district::ids::ButtonId>(),
            "what" => json!({ "type": "string", "enum": ["speak", "hold", "resume"] }),
            "file" => json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\\.mp4$" }),
            _ => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    })
}

fn operation_id(method: &Method, path: &str) -> String {
    let words = path.split(['/', '.', '-']).filter(|word| !word.is_empty() && *word != "v1");
    let words: Vec<_> = words.map(|word| word.trim_matches(['{', '}'])).collect();
    format!("{}_{}", method.as_str().to_ascii_lowercase(), words.join("_"))
}

/// `GET /v1/openapi.json`.
pub(super) async fn openapi() -> Json<&'static Value> {
    // Made once: it says nothing of this gateway.
    static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
    Json(&DOCUMENT)
}

/// The document.
fn document() -> Value {
    let mut paths = Map::new();
    for (whose, routes) in routes::all() {
        for route in routes {
            let entry = paths.entry(route.path).or_insert_with(|| json!({}));
            for operation in &route.operations {
                entry[operation.method.as_str().to_ascii_lowercase()] = operation.document(route.path, whose);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "chowki", "version": env!("CARGO_PKG_VERSION"),
            "description": "The edge gateway of a city district: incidents, evidence, recordings, live pictures and calls.",
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": { "Problem": schema_of::<Problem>() },
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "of an [[api.client]], or by `chowki token new`" },
                "session": { "type": "apiKey", "in": "cookie", "name": "chowki-session", "description": "by POST /v1/session" },
                "certificate": { "type": "mutualTLS", "description": "of an [[api.client]]" },
                "unit": { "type": "http", "scheme": "bearer", "description": "of a unit with a screen" },
            },
        },
    })
}
