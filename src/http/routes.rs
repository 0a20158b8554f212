//! Every route: method, path, and what it asks for before it answers. Vendors' routes come from their descriptors.

use super::{
    Deps, Shared, agents, ai, analytics,
    auth::{self, Pass},
    called::STREAMS,
    calls::{self, Call},
    echo, edge, export, frontends, health, hooks, jobs, keeping, keys, numbers,
    openapi::{self, Doc, Needs},
    place, recording,
    respond::{Data, Done, Failure, List, Told},
    streams, tenants,
    upgrade::{self, At},
};
use crate::{
    access::{Role, scope::Scope},
    hub::asyncapi,
    vendor,
};
use axum::{
    Extension, Router,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};
use http::{Method, StatusCode};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;
use std::{collections::HashMap, fmt, sync::Arc};

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
    /// What it is for, where it is part of the REST interface.
    pub(super) doc: Option<Doc>,
    handler: MethodRouter<Shared>,
}

impl Route {
    /// Part of the REST interface: what it does, and the type of its answer.
    fn says<T: JsonSchema>(self, summary: &'static str) -> Self {
        let doc = Doc {
            summary,
            query: &[],
            takes: None,
            needs: Needs::Nothing,
            answers: Some(SchemaGenerator::subschema_for::<T>),
            kinds: &[],
        };
        Self { doc: Some(doc), ..self }
    }

    /// Part of the REST interface: a file of one of these media types.
    fn sends(self, kinds: &'static [&'static str], summary: &'static str) -> Self {
        let doc = Doc {
            summary,
            query: &[],
            takes: None,
            needs: Needs::Nothing,
            answers: None,
            kinds,
        };
        Self { doc: Some(doc), ..self }
    }

    /// The type of its body.
    fn takes<T: JsonSchema>(mut self) -> Self {
        self.doc = self.doc.map(|doc| Doc {
            takes: Some(SchemaGenerator::subschema_for::<T>),
            ..doc
        });
        self
    }

    /// What must be in its body.
    fn needs(mut self, needs: Needs) -> Self {
        self.doc = self.doc.map(|doc| Doc { needs, ..doc });
        self
    }

    /// What may stand in its query, with what it means.
    fn asks(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.doc = self.doc.map(|doc| Doc { query, ..doc });
        self
    }
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
        doc: None,
        handler: on(filter, handler),
    }
}

/// Two routes that answer the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    method: Method,
    paths: [String; 2],
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = &self.paths;
        write!(
            f,
            "two routes answer the same requests: {} {one} and {other}",
            self.method
        )
    }
}

impl std::error::Error for Collision {}

/// A parameter of a query, and what it means.
type Asked = (&'static str, &'static str);

const USER: Asked = ("userId", "Taken and ignored: the tenant is the credential's.");

/// What finds calls.
const FILTERS: [Asked; 8] = [
    ("status", "Another status, or `all`."),
    ("from", "Calls that began at this time (RFC 3339) or later."),
    ("until", "Calls that began before this time."),
    ("number", "Calls with this number on either side."),
    ("agent", "Calls served by the agent of this name."),
    ("vendor", "Calls of this vendor."),
    ("text", "Calls in which this was said."),
    USER,
];
const HISTORY: [Asked; 10] = with([
    ("limit", "Calls on a page, at most 200."),
    ("cursor", "`next_cursor` of the page before."),
]);
const EXPORT: [Asked; 10] = with([
    ("format", "`csv` (without it) or `jsonl`."),
    ("transcript", "`true` for what was said, too."),
]);

/// The filters, and two more parameters.
const fn with(more: [Asked; 2]) -> [Asked; 10] {
    let [a, b, c, d, e, f, g, h] = FILTERS;
    let [i, j] = more;
    [a, b, c, d, e, f, g, h, i, j]
}

/// All routes there are with these trunks.
pub fn table(deps: &Deps) -> Vec<Route> {
    const VIEW: Gate = Gate::Role(Role::Viewer);
    const ACT: Gate = Gate::Role(Role::Agent);
    const OWN: Gate = Gate::Role(Role::Admin);
    let (get, post, put, delete) = (&Method::GET, &Method::POST, &Method::PUT, &Method::DELETE);
    const TO: Needs = Needs::One(&["to_number", "to"]);
    const TENANT: (&str, &str) = ("tenant", "Whose, for the operator; without it the credential's.");
    const ID: (&str, &str) = ("id", "Which one.");
    let mut all = vec![
        route(get, "/health", Gate::Open, health::health).says::<health::Alive>("Whether the process lives"),
        route(get, "/ready", Gate::Open, health::ready).says::<health::Ready>("Whether new calls are welcome"),
        route(get, "/api/openapi.json", Gate::Open, openapi::openapi).says::<Value>("This document"),
        route(get, "/api/asyncapi.json", Gate::Open, openapi::asyncapi).says::<Value>("The frontends' sockets"),
        route(get, asyncapi::TELEPHONY, Gate::Frontend, frontends::telephony),
        route(get, asyncapi::CALL_EVENTS, Gate::Frontend, frontends::call_events),
        route(get, asyncapi::FRONTEND_AUDIO, Gate::Frontend, frontends::frontend_audio),
        route(get, "/api/calls/active", VIEW, calls::active).says::<List<Call>>("Live calls, newest first"),
        route(get, "/api/calls/history", VIEW, calls::history)
            .says::<List<Call>>("Ended calls, newest first")
            .asks(&HISTORY),
        route(get, "/api/calls/export", VIEW, export::export)
            .sends(&["text/csv", "application/x-ndjson"], "The history as a file")
            .asks(&EXPORT),
        route(get, "/api/analytics", VIEW, analytics::of_calls)
            .says::<Data<analytics::Analytics>>("Figures of ended calls")
            .asks(&FILTERS),
        route(get, "/api/calls/{id}/analytics", VIEW, analytics::of_call)
            .says::<Data<analytics::CallAnalytics>>("Figures and cost of a call"),
        route(delete, "/api/calls/{id}", OWN, keeping::erase_call)
            .says::<Done<keeping::Erased>>("Erase a call and all that is kept of it"),
        route(delete, "/api/calls/{id}/recording", OWN, keeping::erase_audio)
            .says::<Done<keeping::Erased>>("Erase the recording of a call"),
        route(delete, "/api/calls/{id}/transcript", OWN, keeping::erase_text)
            .says::<Done<keeping::Erased>>("Erase what was said on a call"),
        route(post, "/api/calls/{id}/hold", OWN, keeping::hold)
            .says::<Done<keeping::Held>>("Hold a call: nothing of it is erased"),
        route(delete, "/api/calls/{id}/hold", OWN, keeping::release)
            .says::<Done<keeping::Held>>("Release a call that is held"),
        route(get, "/api/retention", OWN, keeping::retention).says::<Data<keeping::Kept>>("How long calls are kept"),
        route(put, "/api/retention", OWN, keeping::set_retention)
            .says::<Done<keeping::Kept>>("Change how long calls are kept")
            .takes::<keeping::RetentionBody>(),
        route(delete, "/api/retention", OWN, keeping::reset_retention)
            .says::<Done<keeping::Kept>>("Keep calls for as long as the operator says"),
        route(get, "/api/calls/{id}", VIEW, calls::one).says::<Data<Call>>("A call, by either id"),
        route(get, "/api/calls/{id}/status", VIEW, calls::status).says::<Data<calls::Standing>>("Where a call stands"),
        route(get, "/api/calls/{id}/details", ACT, calls::details)
            .says::<Data<calls::Told>>("What the vendor tells of a call"),
        route(get, "/api/calls/{id}/messages", VIEW, calls::messages)
            .says::<List<calls::Said>>("What was said on a call, in order"),
        route(get, "/api/calls/{id}/transcript", VIEW, calls::transcript)
            .says::<Data<calls::Transcript>>("Who said what on a call"),
        route(get, "/api/calls/{id}/recording", VIEW, recording::recording)
            .sends(&["audio/wav", "audio/ogg"], "The recording of a call"),
        route(post, "/api/calls/{id}/recording/pause", ACT, recording::pause)
            .says::<Data<recording::Standing>>("Stop the recording of a live call"),
        route(post, "/api/calls/{id}/recording/resume", ACT, recording::resume)
            .says::<Data<recording::Standing>>("Let the recording of a live call go on"),
        route(post, "/api/calls/initiate", ACT, place::initiate)
            .says::<Done<place::Placed>>("Place a call")
            .takes::<place::DialBody>()
            .needs(TO),
        route(post, "/api/calls/simulate", ACT, place::simulate)
            .says::<Data<Call>>("Simulate an incoming call")
            .takes::<place::SimulateBody>(),
        route(post, "/api/calls/{id}/takeover", ACT, place::take_over)
            .says::<Done<place::Named>>("Take a call from its agent: a person speaks"),
        route(post, "/api/calls/{id}/handback", ACT, place::hand_back)
            .says::<Done<place::Named>>("Hand a call back to its agent"),
        route(post, "/api/ai/conversation", ACT, ai::conversation)
            .says::<Data<ai::Conversation>>("Ask a language model")
            .takes::<ai::ConversationBody>()
            .needs(Needs::One(&["current_input", "currentInput"])),
        route(get, "/api/ai/status", VIEW, ai::status)
            .says::<Data<ai::Status>>("Whether a language model can be asked"),
        route(get, "/api/websocket/streams", VIEW, streams::all).says::<List<streams::Stream>>("Live media streams"),
        route(
            post,
            "/api/websocket/interrupt/{connection_id}",
            ACT,
            streams::interrupt,
        )
        .says::<Done<streams::Interrupted>>("Do not play a chunk of ours")
        .asks(&[("chunk_id", "Which chunk, where the body names none.")])
        .takes::<streams::InterruptBody>(),
        route(post, "/api/websocket/clear/{connection_id}", ACT, streams::clear)
            .says::<Done<streams::Cleared>>("Drop everything that is queued or playing"),
        // Whoever knows a number's id can pass for a vendor that signs nothing.
        route(get, "/api/phone-numbers", ACT, numbers::list)
            .says::<numbers::PhoneNumbers>("Phone numbers")
            .asks(&[USER]),
        route(post, "/api/phone-numbers", OWN, numbers::add)
            .says::<numbers::OnePhoneNumber>("Add a phone number")
            .asks(&[USER])
            .takes::<numbers::PhoneNumberBody>()
            .needs(Needs::New(&["phoneNumber", "provider"])),
        route(put, "/api/phone-numbers", OWN, numbers::change)
            .says::<numbers::OnePhoneNumber>("Change a phone number")
            .asks(&[ID, USER])
            .takes::<numbers::PhoneNumberBody>(),
        route(delete, "/api/phone-numbers", OWN, numbers::remove)
            .says::<Told>("Delete a phone number")
            .asks(&[ID, USER]),
        route(get, "/api/jobs", OWN, jobs::list)
            .says::<List<jobs::Job>>("What is done after calls")
            .asks(&[("state", "`queued`, `done`, `buried` (without it), or `all`.")]),
        route(post, "/api/jobs/{id}/replay", OWN, jobs::replay).says::<Done<jobs::Job>>("Queue a buried job again"),
        route(get, "/api/agents", VIEW, agents::list)
            .says::<List<agents::ShownAgent>>("Agents")
            .asks(&[ID, USER]),
        route(post, "/api/agents", OWN, agents::add)
            .says::<Done<agents::ShownAgent>>("Add an agent")
            .takes::<agents::AgentBody>()
            .needs(Needs::New(&["name"])),
        route(put, "/api/agents", OWN, agents::change)
            .says::<Done<agents::ShownAgent>>("Change an agent")
            .asks(&[ID, USER])
            .takes::<agents::AgentBody>(),
        route(get, "/api/keys", OWN, keys::list)
            .says::<List<keys::ShownKey>>("API keys")
            .asks(&[TENANT]),
        route(post, "/api/keys", OWN, keys::add)
            .says::<Done<keys::NewKey>>("Make an API key")
            .asks(&[TENANT])
            .takes::<keys::KeyBody>()
            .needs(Needs::All(&["name"])),
        route(delete, "/api/keys/{id}", OWN, keys::revoke)
            .says::<Done<keys::ShownKey>>("Revoke an API key, and close what it has open")
            .asks(&[TENANT]),
        route(get, "/api/tenants", OWN, tenants::list)
            .says::<List<tenants::ShownTenant>>("Tenants")
            .asks(&[("cursor", "`next_cursor` of the page before.")]),
        route(post, "/api/tenants", OWN, tenants::add)
            .says::<Done<tenants::ShownTenant>>("Make a tenant")
            .takes::<tenants::TenantBody>(),
        route(get, "/api/tenants/{id}", OWN, tenants::one).says::<Data<tenants::ShownTenant>>("A tenant"),
        route(put, "/api/tenants/{id}", OWN, tenants::change)
            .says::<Done<tenants::ShownTenant>>("Change or disable a tenant")
            .takes::<tenants::TenantBody>(),
        route(delete, "/api/agents", OWN, agents::remove)
            .says::<Told>("Delete an agent that no number is linked to")
            .asks(&[ID, USER]),
    ];
    for vendor in vendor::all()
        .iter()
        .copied()
        .filter(|v| deps.trunks.contains_key(v.name))
    {
        let rest = |what| format!("/api/calls/{}/{what}", vendor.name);
        all.push(
            route(post, rest("initiate"), ACT, move |s, r| {
                place::initiate_by(vendor, s, r)
            })
            .says::<Done<place::Placed>>("Place a call with this vendor")
            .takes::<place::DialBody>()
            .needs(TO),
        );
        all.push(
            route(post, rest("end"), ACT, move |s, r| place::end(vendor, s, r))
                .says::<Done<place::Ended>>("End a call")
                .takes::<place::EndBody>()
                .needs(Needs::One(&place::CALL_IDS)),
        );
        for (what, on, summary) in [
            ("{id}/mute", true, "Mute a call at the relay"),
            ("{id}/unmute", false, "Unmute a call"),
        ] {
            let mute = move |p, s, r| place::mute(vendor, on, p, s, r);
            all.push(
                route(post, rest(what), ACT, mute)
                    .says::<Done<place::Muted>>(summary)
                    .takes::<place::MuteBody>(),
            );
        }
        all.push(
            route(post, rest("{id}/digits"), ACT, move |p, s, r| {
                place::digits(vendor, p, s, r)
            })
            .says::<Done<place::Named>>("Send keys to the far end")
            .takes::<place::DigitsBody>()
            .needs(Needs::All(&["digits"])),
        );
        all.push(
            route(post, rest("{id}/transfer"), ACT, move |p, s, r| {
                place::transfer(vendor, p, s, r)
            })
            .says::<Done<place::Named>>("Hand a call to a number")
            .takes::<place::TransferBody>()
            .needs(TO),
        );
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
    if deps.debug.ws_echo {
        all.push(route(get, "/debug/echo", Gate::Open, echo::echo));
    }
    all
}

/// The router of the main listener.
pub fn router(deps: Deps) -> Result<Router, Collision> {
    let routes = table(&deps);
    assemble(deps, routes)
}

/// The router of these routes. Fails where two answer the same requests.
pub fn assemble(deps: Deps, routes: Vec<Route>) -> Result<Router, Collision> {
    collisions(&routes)?;
    let shared: Shared = Arc::new(deps);
    let described = Extension(openapi::Documents::of(&routes, &shared.public_url));
    let mut router = Router::new();
    for Route {
        path, gate, handler, ..
    } in routes
    {
        let handler = match gate {
            Gate::Role(role) => {
                let pass = Pass {
                    role,
                    scope: scope(&path),
                };
                handler.route_layer(from_fn_with_state((shared.clone(), pass), auth::require))
            }
            Gate::Open | Gate::Frontend | Gate::Vendor => handler,
        };
        router = router.route(&path, handler);
    }
    Ok(router
        .fallback(async || Failure::no_route())
        .method_not_allowed_fallback(async || {
            Failure::with_status(
                StatusCode::METHOD_NOT_ALLOWED,
                "no such method here: the Allow header names those there are",
            )
        })
        .layer(described)
        .layer(from_fn_with_state(shared.clone(), edge::every_request))
        .with_state(shared))
}

/// The part of the interface that a path is in, for credentials that are narrowed to some.
fn scope(path: &str) -> Option<Scope> {
    Some(match path.strip_prefix("/api/")?.split('/').next()? {
        "calls" | "analytics" | "websocket" => Scope::Calls,
        "phone-numbers" => Scope::Numbers,
        "agents" => Scope::Agents,
        "ai" => Scope::Ai,
        "jobs" => Scope::Jobs,
        "keys" => Scope::Keys,
        "tenants" => Scope::Tenants,
        _ => return None,
    })
}

/// Refuses two routes of the same method whose paths differ in the names of variable segments at most.
fn collisions(routes: &[Route]) -> Result<(), Collision> {
    let shape = |path: &str| {
        let segments = path.split('/').map(|s| if s.starts_with('{') { "{}" } else { s });
        segments.collect::<Vec<_>>().join("/")
    };
    let mut seen = HashMap::new();
    for route in routes {
        if let Some(other) = seen.insert((&route.method, shape(&route.path)), &route.path) {
            return Err(Collision {
                method: route.method.clone(),
                paths: [other.clone(), route.path.clone()],
            });
        }
    }
    Ok(())
}
