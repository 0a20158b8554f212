//! The description of the REST interface, held to real requests and answers: [`check`] looks at each one of every test.

use crate::house::{BASICS, House};
use serde_json::{Value, json};
use sidetone::http::routes::{Gate, Route, assemble, table};

/// Panics where an answer, or a body that was taken, is not as described.
pub(crate) fn check(openapi: &Value, method: &str, path: &str, body: Option<&Value>, status: u16, answer: &Value) {
    let Some(template) = template(openapi, method, path) else {
        return;
    };
    let operation = [template.as_str(), &method.to_lowercase()];
    let described = &openapi["paths"][operation[0]][operation[1]];
    let key = status.to_string();
    let key = if described["responses"].get(&key).is_some() {
        &key
    } else {
        "default"
    };
    if described["responses"].get(key).is_none() || answer.is_null() {
        return;
    }
    let at = |rest: &[&str]| {
        let steps = ["paths"].iter().chain(&operation).chain(rest);
        let steps: Vec<_> = steps.map(|s| s.replace('~', "~0").replace('/', "~1")).collect();
        steps.join("/")
    };
    let answered = at(&["responses", key, "content", "application/json", "schema"]);
    hold(
        openapi,
        &answered,
        answer,
        &format!("{method} {path} answered {status}"),
    );
    if let Some(body) = body.filter(|_| status == 200) {
        let taken = at(&["requestBody", "content", "application/json", "schema"]);
        hold(openapi, &taken, body, &format!("{method} {path} took"));
    }
}

fn hold(openapi: &Value, pointer: &str, value: &Value, what: &str) {
    let schema = openapi.pointer(&format!("/{pointer}")).filter(|s| s.is_object());
    let Some(mut schema) = schema.cloned() else {
        return;
    };
    // References lead from the root of the document.
    schema["components"] = openapi["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> = validator
        .iter_errors(value)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{what} {value}\nagainst its description: {faults:#?}"
    );
}

/// The described path that a request's path is one of; the one with the fewest variable segments.
fn template(openapi: &Value, method: &str, path: &str) -> Option<String> {
    let path: Vec<_> = path.split('?').next()?.split('/').collect();
    let paths = openapi["paths"].as_object()?;
    let fits = |template: &&String| {
        let segments: Vec<_> = template.split('/').collect();
        let same = |(t, p): (&&str, &&str)| t.starts_with('{') || t == p;
        let described = paths[*template].get(method.to_lowercase()).is_some();
        described && segments.len() == path.len() && segments.iter().zip(&path).all(same)
    };
    let found = paths.keys().filter(fits);
    found.min_by_key(|t| t.matches('{').count()).cloned()
}

#[tokio::test]
async fn every_route_of_the_rest_interface_is_described_with_shapes_that_are_there() {
    let house = House::new().await;
    let openapi = &house.openapi;
    assert_eq!(openapi["openapi"], "3.1.0");
    for (method, path, gate) in &house.routes {
        let described = openapi["paths"][path].get(method.to_lowercase());
        match gate {
            Gate::Role(role) => {
                let described = described.unwrap_or_else(|| panic!("{method} {path} is not described"));
                assert_eq!(described["description"], format!("Needs the role {role}."));
                assert!(described["responses"]["200"]["content"].is_object(), "{method} {path}");
            }
            Gate::Open => assert!(described.is_some(), "{method} {path}"),
            Gate::Frontend | Gate::Vendor => assert!(described.is_none(), "{method} {path} is not REST"),
        }
    }
    let mut refs = Vec::new();
    references(openapi, &mut refs);
    assert!(refs.len() > 30, "{refs:?}");
    for reference in refs {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(openapi.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn two_routes_that_answer_the_same_requests_are_refused_at_start_and_named() {
    let deps = House::furnish(BASICS, true).await.deps;
    let mut routes = table(&deps);
    let path = |routes: &[Route], start: &str| routes.iter().position(|r| r.path.starts_with(start)).unwrap();
    let number = path(&routes, "/ws/{number}");
    routes[number].path = "/api/agents".into();
    let refused = assemble(deps, routes).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "two routes answer the same requests: GET /api/agents and /api/agents"
    );
    let deps = House::furnish(BASICS, true).await.deps;
    let mut routes = table(&deps);
    let mut more = table(&deps);
    let mut twin = more.swap_remove(path(&more, "/api/calls/{id}/status"));
    twin.path = "/api/calls/{call}/status".into();
    routes.push(twin);
    let refused = assemble(deps, routes).err().unwrap();
    let (one, other) = ("/api/calls/{id}/status", "/api/calls/{call}/status");
    assert_eq!(
        refused.to_string(),
        format!("two routes answer the same requests: GET {one} and {other}")
    );
}

#[tokio::test]
async fn shapes_have_names_that_say_what_they_are() {
    let house = House::new().await;
    let shapes = house.openapi["components"]["schemas"].as_object().unwrap();
    for name in shapes.keys() {
        let plain = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphabetic());
        assert!(plain, "{name}: two shapes of one name, or none at all");
    }
    for name in [
        "CallAnswer",
        "CallList",
        "PlacedCallOutcome",
        "AgentList",
        "Refusal",
        "DialBody",
    ] {
        assert!(shapes.contains_key(name), "{name}");
    }
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            out.extend(members.get("$ref").and_then(|r| r.as_str()).map(str::to_owned));
            members.values().for_each(|v| references(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

#[tokio::test]
#[should_panic(expected = "against its description")]
async fn an_answer_that_is_not_as_described_is_noticed() {
    let house = House::new().await;
    let answer = json!({"success": true, "count": "none", "data": []});
    check(&house.openapi, "GET", "/api/calls/active", None, 200, &answer);
}
