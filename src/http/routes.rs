//! Every route: method, path, and what it asks for before it answers. Vendors' routes come from their descriptors.

use super::{
    Deps, Shared, agents, auth,
    called::STREAMS,
    calls, edge, frontends, health, hooks, numbers, place, recording,
    respond::Failure,
    streams,
    upgrade::{self, At},
};
use crate::{access::Role, vendor};
use axum::{
    Router,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};
use http::{Method, StatusCode};
use std::{fmt, sync::Arc};

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing.
    Open,
    /// A credential in the headers that allows this role.
    Role(Role),
    /// A credential in headers, query or subprotocol, and a welcome origin.
    Frontend,
    /// The vendor's proof that it is the vendor.
    Vendor,
}

/// One route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{names}` of its variable segments.
    pub path: String,
    /// What it asks for.
    pub gate: Gate,
    handler: MethodRouter<Shared>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.method, self.path, self.gate)
    }
}

fn route<H, T>(method: &Method, path: impl Into<String>, gate: Gate, handler: H) -> Route
where
    H: Handler<T, Shared>,
    T: 'static,
{
    let filter = match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    Route {
        method: method.clone(),
        path: path.into(),
        gate,
        handler: on(filter, handler),
    }
}

/// Two routes that answer the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision(String);

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two routes answer {}", self.0)
    }
}

impl std::error::Error for Collision {}

/// All routes there are with these trunks.
pub fn table(deps: &Deps) -> Vec<Route> {
    const VIEW: Gate = Gate::Role(Role::Viewer);
    const ACT: Gate = Gate::Role(Role::Agent);
    const OWN: Gate = Gate::Role(Role::Admin);
    let (get, post, put, delete) = (&Method::GET, &Method::POST, &Method::PUT, &Method::DELETE);
    let mut all = vec![
        route(get, "/health", Gate::Open, health::health),
        route(get, "/ready", Gate::Open, health::ready),
        route(get, "/api/ws/telephony/stream", Gate::Frontend, frontends::telephony),
        route(get, "/call-events", Gate::Frontend, frontends::call_events),
        route(get, "/frontend-audio", Gate::Frontend, frontends::frontend_audio),
        route(get, "/api/calls/active", VIEW, calls::active),
        route(get, "/api/calls/history", VIEW, calls::history),
        route(get, "/api/calls/{id}", VIEW, calls::one),
        route(get, "/api/calls/{id}/status", VIEW, calls::status),
        route(get, "/api/calls/{id}/messages", VIEW, calls::messages),
        route(get, "/api/calls/{id}/transcript", VIEW, calls::transcript),
        route(get, "/api/calls/{id}/recording", VIEW, recording::recording),
        route(post, "/api/calls/initiate", ACT, place::initiate),
        route(post, "/api/calls/simulate", ACT, place::simulate),
        route(get, "/api/websocket/streams", VIEW, streams::all),
        route(
            post,
            "/api/websocket/interrupt/{connection_id}",
            ACT,
            streams::interrupt,
        ),
        route(post, "/api/websocket/clear/{connection_id}", ACT, streams::clear),
        // Whoever knows a number's id can pass for a vendor that signs nothing.
        route(get, "/api/phone-numbers", ACT, numbers::list),
        route(post, "/api/phone-numbers", OWN, numbers::add),
        route(put, "/api/phone-numbers", OWN, numbers::change),
        route(delete, "/api/phone-numbers", OWN, numbers::remove),
        route(get, "/api/agents", VIEW, agents::list),
        route(post, "/api/agents", OWN, agents::add),
        route(put, "/api/agents", OWN, agents::change),
        route(delete, "/api/agents", OWN, agents::remove),
    ];
    for vendor in vendor::all()
        .iter()
        .copied()
        .filter(|v| deps.trunks.contains_key(v.name))
    {
        let rest = |what| format!("/api/calls/{}/{what}", vendor.name);
        all.push(route(post, rest("initiate"), ACT, move |s, r| {
            place::initiate_by(vendor, s, r)
        }));
        all.push(route(post, rest("end"), ACT, move |s, r| place::end(vendor, s, r)));
        for (what, on) in [("{id}/mute", true), ("{id}/unmute", false)] {
            all.push(route(post, rest(what), ACT, move |p, s, r| {
                place::mute(vendor, on, p, s, r)
            }));
        }
        all.push(route(post, rest("{id}/digits"), ACT, move |p, s, r| {
            place::digits(vendor, p, s, r)
        }));
        all.push(route(post, rest("{id}/transfer"), ACT, move |p, s, r| {
            place::transfer(vendor, p, s, r)
        }));
        for hook in vendor.hook_paths {
            for method in [get, post] {
                let answer = move |s, r| hooks::answer(vendor, hook.kind, s, r);
                all.push(route(method, hook.path, Gate::Vendor, answer));
            }
        }
        let upgrade = move |p, s, r| upgrade::media(At::Vendor(vendor), p, s, r);
        if !vendor.stream_path.is_empty() {
            all.push(route(get, vendor.stream_path, Gate::Vendor, upgrade));
        }
        // Behind a number's alias a token is told from a number.
        if !vendor.stream_path.is_empty() && !STREAMS.contains(&vendor.stream_path) {
            all.push(route(
                get,
                format!("{}/{{token}}", vendor.stream_path),
                Gate::Vendor,
                upgrade,
            ));
        }
    }
    for rest in ["{number}", "{number}/{what}"] {
        for method in [get, post] {
            let path = format!("{}/{rest}", vendor::NUMBER_HOOK);
            all.push(route(method, path, Gate::Vendor, hooks::answer_number));
        }
    }
    for prefix in STREAMS {
        for rest in ["{number}", "{number}/{token}"] {
            let upgrade = move |p, s, r| upgrade::media(At::Number(prefix), p, s, r);
            all.push(route(get, format!("{prefix}/{rest}"), Gate::Vendor, upgrade));
        }
    }
    all
}

/// The router of the main listener. Fails where two routes answer the same requests.
pub fn router(deps: Deps) -> Result<Router, Collision> {
    let shared: Shared = Arc::new(deps);
    let routes = table(&shared);
    collisions(&routes)?;
    let mut router = Router::new();
    for Route {
        path, gate, handler, ..
    } in routes
    {
        let handler = match gate {
            Gate::Role(role) => handler.route_layer(from_fn_with_state((shared.clone(), role), auth::require)),
            Gate::Open | Gate::Frontend | Gate::Vendor => handler,
        };
        router = router.route(&path, handler);
    }
    Ok(router
        .fallback(async || Failure::with_status(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            Failure::with_status(StatusCode::METHOD_NOT_ALLOWED, "no such method here")
        })
        .layer(from_fn_with_state(shared.clone(), edge::every_request))
        .with_state(shared))
}

/// Refuses two routes of the same method whose paths differ in the names of variable segments at most.
fn collisions(routes: &[Route]) -> Result<(), Collision> {
    let shape = |path: &str| {
        let segments = path.split('/').map(|s| if s.starts_with('{') { "{}" } else { s });
        segments.collect::<Vec<_>>().join("/")
    };
    let mut seen = std::collections::HashSet::new();
    for route in routes {
        let same = format!("{} {}", route.method, shape(&route.path));
        if !seen.insert(same.clone()) {
            return Err(Collision(same));
        }
    }
    Ok(())
}
