//! Media streams by our id of their socket: which there are, and how to silence what is queued at the vendor.

use super::{
    Shared,
    body::{self, Fields},
    calls::shown,
    respond::{Answer, Failure, done, list},
};
use crate::{
    access::Identity,
    base::fault::{Fault, Kind},
    control::{LiveCall, Silence},
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, Request, State},
};
use serde_json::{Value, json};

/// A stream as REST shows it: what its call shows of it.
fn stream(call: &LiveCall) -> Option<Value> {
    let connection = call.connection?;
    let call = shown(call);
    let mut stream = json!({ "connection_id": connection });
    for key in [
        "stream_id",
        "call_id",
        "id",
        "provider",
        "direction",
        "from",
        "to",
        "status",
        "started_at",
        "encoding",
        "sample_rate",
    ] {
        stream[key] = call[key].clone();
    }
    Some(stream)
}

/// `GET /api/websocket/streams`
pub(super) async fn all(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    let calls = shared.control.active(who.tenant);
    Ok(list(calls.iter().filter_map(stream).collect(), None))
}

/// `POST /api/websocket/clear/{connection_id}`: everything that is queued or playing is dropped.
pub(super) async fn clear(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let who = identity(&parts.extensions)?;
    shared.control.silence(who.tenant, &id, Silence::Everything).await?;
    Ok(done(json!({ "connection_id": id }), "Clear message sent"))
}

/// `POST /api/websocket/interrupt/{connection_id}`: one chunk of ours is not played, by its `chunk_id` in query or body; the last one
/// when none is named. Where a vendor cannot tell chunks apart, everything is dropped.
pub(super) async fn interrupt(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let who = identity(&parts.extensions)?;
    let config = &shared.config;
    let body = body::read(&parts.headers, body, config.body_bytes, config).await?;
    let mut fields = Fields::read(&parts.headers, &body)?;
    let query = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let chunk = match fields.number("chunk_id")? {
        Some(chunk) => Some(chunk),
        None => match query.get("chunk_id").map(str::parse) {
            Some(Err(_)) => return Err(Fault::client(Kind::Invalid, "chunk_id is not a whole number").into()),
            Some(Ok(chunk)) => Some(chunk),
            None => None,
        },
    };
    fields.finish()?;
    shared.control.silence(who.tenant, &id, Silence::Chunk(chunk)).await?;
    let answer = json!({ "connection_id": id, "chunk_id": chunk });
    Ok(done(answer, "Interrupt message sent"))
}

fn identity(extensions: &http::Extensions) -> Result<Identity, Failure> {
    let who = extensions.get::<Identity>().cloned();
    Ok(who.ok_or_else(|| Fault::internal("a route that acts has no gate"))?)
}
