//! Webhooks: verified before they are believed, answered once what they tell is on record, counted whatever becomes of them.

use super::{
    Shared, body,
    called::Called,
    edge::{Client, vouch},
    respond::{Answer, Failure},
};
use crate::{
    base::{
        fault::{Fault, Kind},
        time::{Mono, Wall},
    },
    metrics,
    vendor::{Descriptor, Document, Hook, HookKind, HookRequest},
};
use axum::{
    extract::{RawPathParams, Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header, request::Parts};
use std::time::Instant;

/// Where a webhook came.
enum At {
    /// A vendor's own path.
    Vendor(&'static Descriptor, HookKind),
    /// A number's own path: its record says whose dialect it is. What follows the id says what it is about.
    Number { id: String, what: Option<String> },
}

/// Answers a webhook at a path of `vendor`.
pub(super) async fn answer(
    vendor: &'static Descriptor,
    kind: HookKind,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    in_time(&shared, vendor.name, At::Vendor(vendor, kind), request).await
}

/// Answers a webhook at a number's own path.
pub(super) async fn answer_number(path: RawPathParams, State(shared): State<Shared>, request: Request) -> Answer {
    let of = |name: &str| path.iter().find(|(n, _)| *n == name).map(|(_, text)| text.to_owned());
    let (id, what) = (of("number").unwrap_or_default(), of("what"));
    let vendor = shared.control.line(&id).map_or("unknown", |line| line.vendor.name);
    in_time(&shared, vendor, At::Number { id, what }, request).await
}

async fn in_time(shared: &Shared, vendor: &'static str, at: At, request: Request) -> Answer {
    let began = Instant::now();
    let patience = shared.config.hook_timeout;
    let answer = tokio::time::timeout(patience, process(at, shared, request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Fault::client(Kind::Unavailable, "not answered in time").into()));
    metrics::HOOK_TIME.record(began.elapsed());
    let outcome = match &answer {
        Ok(_) => "ok",
        Err(f) => f
            .status
            .map_or_else(|| super::respond::status(f.fault.kind).1, |_| "slow_body"),
    };
    metrics::counter(metrics::hooks_total, &[("vendor", vendor), ("outcome", outcome)]).increment(1);
    if let Err(failure) = &answer {
        tracing::warn!(vendor, outcome, fault = %failure.fault, "webhook refused");
    }
    answer
}

async fn process(at: At, shared: &Shared, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let config = &shared.config;
    let body = body::read(&parts.headers, body, config.hook_bytes, config).await?;
    let mut hook = HookRequest {
        method: parts.method.as_str(),
        path_and_query: parts.uri.path_and_query().map_or("", |p| p.as_str()),
        headers: &parts.headers,
        body: &body,
        public_base: &shared.public_url,
        by_number: false,
        client: Some(Client::of(&parts.extensions)),
        received_at: Wall::now(),
    };
    let (called, kind) = match at {
        At::Vendor(vendor, kind) => (Called::vendor(shared, vendor)?, kind),
        At::Number { id, what } => {
            let called = Called::number(shared, &id, &hook).map_err(|fault| strike(shared, &parts, fault))?;
            let kind = match what.as_deref() {
                Some("status") => HookKind::Status,
                _ => called.vendor.number_hook,
            };
            (called, kind)
        }
    };
    let Called { vendor, trunk, line } = called;
    hook.by_number = line.is_some();
    if !shared.dev
        && let Err(fault) = trunk.verify(&hook)
    {
        return Err(strike(shared, &parts, fault));
    }
    vouch(&parts.extensions);
    let control = &shared.control;
    let parsed = trunk.parse(kind, &hook);
    // On a developer's own machine a call's document may be asked for without saying of which call.
    let says_nothing = hook.body.is_empty() && !hook.path_and_query.contains('?');
    if shared.dev
        && parsed.is_err()
        && says_nothing
        && kind == HookKind::Call
        && line.is_none()
        && let Some(answer) = control.unnamed(vendor)
    {
        return Ok(written(trunk.answer(&hook, &answer)));
    }
    let document = match (parsed?, &line) {
        (Hook::Call(update), Some(line)) => trunk.answer(&hook, &control.incoming_to(line, update).await?),
        (Hook::Call(update), None) => trunk.answer(&hook, &control.incoming(vendor, update).await?),
        (Hook::News(update), line) => {
            match line {
                Some(line) => control.update_of(line, update).await?,
                None => control.update(vendor, update).await?,
            }
            trunk.receipt(&hook)
        }
        (Hook::Probe, _) => trunk.receipt(&hook),
    };
    Ok(written(document))
}

/// Counts a request that proves nothing against its address. A vendor's valid requests are never held up by somebody
/// else's bad ones from the same address.
fn strike(shared: &Shared, parts: &Parts, fault: Fault) -> Failure {
    match shared.access.forged(Client::of(&parts.extensions), Mono::now()) {
        None => fault.into(),
        Some(wait) => Failure {
            retry_after: Some(wait.as_secs().max(1)),
            ..Fault::client(Kind::TooMany, "too many bad signatures from this address").into()
        },
    }
}

fn written(document: Document) -> Response {
    let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if document.content_type.is_empty() {
        return status.into_response();
    }
    (status, [(header::CONTENT_TYPE, document.content_type)], document.body).into_response()
}
