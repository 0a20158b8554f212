//! Webhooks: verified before they are believed, answered once what they tell is on record, counted whatever becomes of them.

use super::{
    Shared, body,
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
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use std::time::Instant;

/// Answers a webhook of `vendor`.
pub(super) async fn answer(
    vendor: &'static Descriptor,
    kind: HookKind,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let began = Instant::now();
    let patience = shared.config.hook_timeout;
    let answer = tokio::time::timeout(patience, process(vendor, kind, &shared, request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Fault::client(Kind::Unavailable, "not answered in time").into()));
    metrics::HOOK_TIME.record(began.elapsed());
    let outcome = match &answer {
        Ok(_) => "ok",
        Err(f) => f
            .status
            .map_or_else(|| super::respond::status(f.fault.kind).1, |_| "slow_body"),
    };
    metrics::counter(metrics::hooks_total, &[("vendor", vendor.name), ("outcome", outcome)]).increment(1);
    if let Err(failure) = &answer {
        tracing::warn!(vendor = vendor.name, outcome, fault = %failure.fault, "webhook refused");
    }
    answer
}

async fn process(
    vendor: &'static Descriptor,
    kind: HookKind,
    shared: &Shared,
    request: Request,
) -> Result<Response, Failure> {
    let trunk = shared
        .trunks
        .get(vendor.name)
        .ok_or_else(|| Fault::not_found("account"))?;
    let (parts, body) = request.into_parts();
    let config = &shared.config;
    let body = body::read(&parts.headers, body, config.hook_bytes, config).await?;
    let hook = HookRequest {
        method: parts.method.as_str(),
        path_and_query: parts.uri.path_and_query().map_or("", |p| p.as_str()),
        headers: &parts.headers,
        body: &body,
        public_base: &shared.public_url,
        by_number: false,
        received_at: Wall::now(),
    };
    if !shared.dev
        && let Err(fault) = trunk.verify(&hook)
    {
        // A vendor's valid requests are never held up by somebody else's bad ones from the same address.
        return Err(match shared.access.strike(Client::of(&parts.extensions), Mono::now()) {
            None => fault.into(),
            Some(wait) => Failure {
                retry_after: Some(wait.as_secs().max(1)),
                ..Fault::client(Kind::TooMany, "too many bad signatures from this address").into()
            },
        });
    }
    vouch(&parts.extensions);
    let document = match trunk.parse(kind, &hook)? {
        Hook::Call(update) => trunk.answer(&hook, &shared.control.incoming(vendor, update).await?),
        Hook::News(update) => {
            shared.control.update(vendor, update).await?;
            trunk.receipt(&hook)
        }
        Hook::Probe => trunk.receipt(&hook),
    };
    Ok(written(document))
}

fn written(document: Document) -> Response {
    let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if document.content_type.is_empty() {
        return status.into_response();
    }
    (status, [(header::CONTENT_TYPE, document.content_type)], document.body).into_response()
}
