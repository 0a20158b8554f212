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

/// A body that has all that a schema describes, of the right sorts.
fn sample(openapi: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return sample(openapi, openapi.pointer(&reference[1..]).unwrap());
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    if let Some(any) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return sample(openapi, any.iter().find(|a| a["type"] != "null").unwrap());
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|k| **k != "null").unwrap(),
        kind => kind,
    };
    match kind.as_str() {
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            members
                .map(|(name, member)| (name.clone(), sample(openapi, member)))
                .collect()
        }
        Some("array") => json!([sample(openapi, &schema["items"])]),
        Some("string") => json!("+15557770009"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        _ => Value::Null,
    }
}

/// The body once with something strange in each of its objects that has members, with its place.
fn spoiled(value: &Value, at: &str, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            let mut strange = value.clone();
            strange["zz"] = json!(1);
            out.push((format!("{at}zz"), strange));
            for (name, member) in members {
                let mut inner = Vec::new();
                spoiled(member, &format!("{at}{name}."), &mut inner);
                out.extend(inner.into_iter().map(|(at, member)| {
                    let mut whole = value.clone();
                    whole[name] = member;
                    (at, whole)
                }));
            }
        }
        Value::Array(items) => {
            let mut inner = Vec::new();
            spoiled(&items[0], &format!("{at}0."), &mut inner);
            out.extend(inner.into_iter().map(|(at, item)| (at, json!([item]))));
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_body_is_read_as_strictly_as_it_is_described() {
    let house = House::dev().await;
    let mut bodies = 0;
    for (path, operations) in house.openapi["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            bodies += 1;
            let what = format!("{method} {path}");
            let mut root = schema.clone();
            root["components"] = house.openapi["components"].clone();
            let described = jsonschema::validator_for(&root).unwrap();
            let query = match method.as_str() {
                "put" if operation["parameters"].to_string().contains("\"id\"") => "?id=nobody",
                _ => "",
            };
            let place = format!(
                "{}{query}",
                path.replace("{id}", "nobody").replace("{connection_id}", "nobody")
            );
            let send = async |body: &Value| {
                let (status, answer) = house.rest(&method.to_uppercase(), &place, None, Some(body)).await;
                (
                    status,
                    answer["error"]["message"].as_str().unwrap_or_default().to_owned(),
                )
            };
            let whole = sample(&house.openapi, &json!({ "$ref": schema["$ref"] }));
            let mut strange = Vec::new();
            spoiled(&whole, "", &mut strange);
            assert!(!strange.is_empty(), "{what}: {whole}");
            for (at, body) in strange {
                assert!(!described.is_valid(&body), "{what}: {at} is described");
                let (status, said) = send(&body).await;
                let named = said.starts_with("unknown field") && said.contains(&at);
                assert!(status == 422 && named, "{what}: {at}: {status} {said}");
            }
            let names = |list: &Value| -> Vec<String> {
                list.as_array()
                    .into_iter()
                    .flatten()
                    .map(|n| n.as_str().unwrap().to_owned())
                    .collect()
            };
            let all = names(&schema["required"]);
            let one: Vec<String> = schema["anyOf"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|a| names(&a["required"]))
                .collect();
            assert_eq!(
                operation["requestBody"]["required"],
                !(all.is_empty() && one.is_empty()),
                "{what}"
            );
            // Without what is required, or with null in its place, it is refused by name.
            for name in all.iter().chain(one.first()) {
                for gone in [None, Some(Value::Null)] {
                    let mut body: Value = all.iter().map(|n| (n.clone(), whole[n].clone())).collect();
                    body.as_object_mut().unwrap().remove(name);
                    if let Some(null) = gone {
                        body[name] = null;
                    }
                    assert!(!described.is_valid(&body), "{what}: {body}");
                    let (status, said) = send(&body).await;
                    let named = said.to_lowercase().replace(' ', "").contains(&name.to_lowercase());
                    assert!(status == 422 && named, "{what}: {body}: {status} {said}");
                }
            }
            // With any one of several names it is not missed.
            for name in &one {
                let body = json!({ name: whole[name] });
                assert!(described.is_valid(&body), "{what}: {body}");
                let (_, said) = send(&body).await;
                assert!(!said.contains("is required"), "{what}: {body}: {said}");
            }
            if all.is_empty() && one.is_empty() {
                let (status, said) = send(&json!({})).await;
                assert!(status != 422, "{what}: {status} {said}");
            }
            // What is added has no id to give.
            if method == "post" && operation["requestBody"].to_string().contains("\"id\":false") {
                let body = json!({ "id": "x" });
                assert!(!described.is_valid(&body));
                let (status, said) = send(&body).await;
                assert!(status == 422 && said.starts_with("id is given"), "{what}: {said}");
            }
        }
    }
    assert!(bodies > 30, "{bodies}");
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
