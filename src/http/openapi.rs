//! `GET /api/openapi.json`: the REST interface, described (OpenAPI 3.1). Paths come from the table of routes, shapes from
//! the types that the handlers read and write. Beside it `GET /api/asyncapi.json`: the frontends' sockets, as the hub
//! describes them.

use super::{
    respond::Refused,
    routes::{Gate, Route},
};
use crate::hub::asyncapi;
use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::header;
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value, json};

/// What a route is for.
#[derive(Clone, Copy)]
pub(super) struct Doc {
    pub(super) summary: &'static str,
    /// Parameters of the query and what they mean.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// The type of the body.
    pub(super) takes: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// What must be in the body, beyond what its type says.
    pub(super) needs: Needs,
    /// The type of the answer; a file of one of these `kinds` when `None`.
    pub(super) answers: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// Media types of the answer, where it is a file.
    pub(super) kinds: &'static [&'static str],
}

/// What must be in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// All these texts.
    All(&'static [&'static str]),
    /// One of these texts, which are names of one thing.
    One(&'static [&'static str]),
    /// All these texts, and no id: it is given.
    New(&'static [&'static str]),
}

impl Needs {
    /// Adds them to the schema of the type.
    fn narrow(self, mut schema: Value) -> Value {
        let text = |name: &&str| ((*name).to_owned(), json!({ "type": "string" }));
        match self {
            Self::Nothing => {}
            Self::All(names) | Self::New(names) => {
                schema["required"] = json!(names);
                let mut properties: Map<String, Value> = names.iter().map(text).collect();
                if matches!(self, Self::New(_)) {
                    properties.insert("id".to_owned(), false.into());
                }
                schema["properties"] = properties.into();
            }
            Self::One(names) => {
                let alternative = |name| json!({ "required": [name], "properties": Map::from_iter([text(name)]) });
                schema["anyOf"] = names.iter().map(alternative).collect();
            }
        }
        schema
    }
}

/// Readers of bodies refuse what they do not know, at any depth.
fn strict(schema: &mut Schema) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
}

/// The documents as they are sent.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    openapi: Bytes,
    asyncapi: Bytes,
}

impl Documents {
    /// Describes the routes that are part of the REST interface, and the frontends' sockets.
    pub(super) fn of(routes: &[Route], public_url: &str) -> Self {
        Self {
            openapi: describe(routes, public_url).to_string().into(),
            asyncapi: describe_sockets(public_url).to_string().into(),
        }
    }
}

/// `GET /api/openapi.json`
pub(super) async fn openapi(Extension(documents): Extension<Documents>) -> Response {
    sent(documents.openapi)
}

/// `GET /api/asyncapi.json`
pub(super) async fn asyncapi(Extension(documents): Extension<Documents>) -> Response {
    sent(documents.asyncapi)
}

fn sent(document: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

fn describe_sockets(public_url: &str) -> Value {
    let mut document = asyncapi::document();
    // `https` is `wss` here.
    if let Some((scheme, host)) = public_url.split_once("://") {
        let protocol = scheme.replacen("http", "ws", 1);
        document["servers"] = json!({ "daemon": { "host": host, "protocol": protocol } });
    }
    document
}

fn describe(routes: &[Route], public_url: &str) -> Value {
    // What is read and what is written may differ: a field that may be left out of a body is always in an answer.
    let settings = || {
        SchemaSettings::draft2020_12().with(|s| {
            s.definitions_path = "/components/schemas".into();
            s.meta_schema = None;
        })
    };
    let mut bodies = settings().with_transform(RecursiveTransform(strict)).into_generator();
    let mut answers = settings().for_serialize().into_generator();
    let mut paths = Map::new();
    for route in routes {
        let Some(doc) = &route.doc else { continue };
        let operation = operation(route, doc, &mut bodies, &mut answers);
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation;
    }
    let mut schemas = bodies.take_definitions(true);
    // No name is both a body's and an answer's: a test holds every shape to real requests and answers.
    schemas.extend(answers.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sidetone",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": public_url }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A JWT or an API key." },
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
        },
    })
}

fn operation(route: &Route, doc: &Doc, bodies: &mut SchemaGenerator, answers: &mut SchemaGenerator) -> Value {
    let json_of = |schema: Schema| json!({ "application/json": { "schema": schema } });
    let content = match doc.answers {
        Some(answer) => json_of(answer(answers)),
        None => doc
            .kinds
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({})))
            .collect::<Map<_, _>>()
            .into(),
    };
    let in_path = route
        .path
        .split('/')
        .filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({ "type": "string" });
    let parameter = |(name, place, required, description): (&str, &str, bool, &str)| json!({ "name": name, "in": place, "required": required, "description": description, "schema": text });
    let in_path = in_path.map(|name| (name, "path", true, "Which one, by any of its ids."));
    let in_query = doc.query.iter().map(|(name, means)| (*name, "query", false, *means));
    let parameters: Vec<_> = in_path.chain(in_query).map(parameter).collect();
    let refused = json_of(answers.subschema_for::<Refused>());
    let mut operation = json!({
        "operationId": format!("{} {}", route.method, route.path),
        "summary": doc.summary,
        "parameters": parameters,
        "responses": { "200": { "description": doc.summary, "content": content } },
    });
    // What is open refuses nobody, but may say in the same words that it is not so.
    let (status, otherwise) = match route.gate {
        Gate::Open => ("503", json!({ "description": "Not so", "content": content })),
        _ => ("default", json!({ "description": "Refused", "content": refused })),
    };
    operation["responses"][status] = otherwise;
    if let Some(body) = doc.takes {
        let schema = doc.needs.narrow(body(bodies).to_value());
        let content = json!({ "application/json": { "schema": schema } });
        operation["requestBody"] = json!({ "content": content, "required": doc.needs != Needs::Nothing });
    }
    if let Gate::Role(role) = route.gate {
        operation["security"] = json!([{ "bearer": [] }, { "key": [] }]);
        operation["description"] = format!("Needs the role {role}.").into();
    }
    operation
}
