//! Media streams by our id of their socket: which there are, and how to silence what is queued at the vendor.

use super::{
    Shared, body,
    calls::shown,
    respond::{Answer, Failure, done, list},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        time::Wall,
    },
    control::{LiveCall, Silence},
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, Request, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stream, with what its call shows of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Stream {
    /// Our id of its socket.
    connection_id: String,
    /// The vendor's id of it.
    stream_id: Option<String>,
    /// The vendor's id of its call.
    call_id: String,
    /// Our id of its call.
    id: String,
    /// Who carries it.
    provider: String,
    /// `inbound` or `outbound`.
    direction: &'static str,
    /// The calling number.
    from: String,
    /// The called number.
    to: String,
    /// Where its call stands.
    status: &'static str,
    /// When its call was announced or placed.
    started_at: Wall,
    /// Media type of the caller's audio, such as `audio/l16`.
    encoding: Option<&'static str>,
    /// Its sample rate in Hz.
    sample_rate: Option<u32>,
}

fn stream(call: &LiveCall) -> Option<Stream> {
    let connection = call.connection?;
    let call = shown(call);
    Some(Stream {
        connection_id: connection.to_string(),
        stream_id: call.stream_id,
        call_id: call.standing.ids.call_id,
        id: call.standing.ids.id,
        provider: call.provider,
        direction: call.direction,
        from: call.from,
        to: call.to,
        status: call.standing.status,
        started_at: call.standing.started_at,
        encoding: call.encoding,
        sample_rate: call.sample_rate,
    })
}

/// A stream whose queue was cleared.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ClearedStream")]
pub(super) struct Cleared {
    /// Our id of its socket.
    connection_id: String,
}

/// What is not to be played.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct InterruptBody {
    /// Which chunk of ours; the last one when none is named.
    chunk_id: Option<Chunk>,
}

/// A chunk's number, as a number or as text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Chunk {
    Number(u64),
    Text(String),
}

/// A stream of which something is not played.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "InterruptedStream")]
pub(super) struct Interrupted {
    /// Our id of its socket.
    connection_id: String,
    /// Which chunk, if one was named.
    chunk_id: Option<u64>,
}

/// `GET /api/websocket/streams`
pub(super) async fn all(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    let calls = shared.control.active_everywhere(who.tenant).await?;
    Ok(list(calls.iter().filter_map(stream).collect(), None))
}

/// `POST /api/websocket/clear/{connection_id}`: everything that is queued or playing is dropped.
pub(super) async fn clear(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let who = identity(&parts.extensions)?;
    shared.control.silence(who.tenant, &id, Silence::Everything).await?;
    Ok(done(Cleared { connection_id: id }, "Clear message sent"))
}

/// `POST /api/websocket/interrupt/{connection_id}`: one chunk of ours is not played, by its `chunk_id` in query or body; the last one
/// when none is named. Where a vendor cannot tell chunks apart, everything is dropped.
pub(super) async fn interrupt(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let query = Form::parse(query.as_bytes()).unwrap_or_default();
    let (who, body) = body::of::<InterruptBody>(&shared, request).await?;
    let number = |text: &str| {
        let none = || Fault::client(Kind::Invalid, "chunk_id is not a whole number");
        text.parse().map_err(|_| none())
    };
    let chunk: Option<u64> = match body.chunk_id {
        Some(Chunk::Number(chunk)) => Some(chunk),
        Some(Chunk::Text(text)) => Some(number(&text)?),
        None => query.get("chunk_id").map(number).transpose()?,
    };
    shared.control.silence(who.tenant, &id, Silence::Chunk(chunk)).await?;
    let answer = Interrupted {
        connection_id: id,
        chunk_id: chunk,
    };
    Ok(done(answer, "Interrupt message sent"))
}

fn identity(extensions: &http::Extensions) -> Result<Identity, Failure> {
    let who = extensions.get::<Identity>().cloned();
    Ok(who.ok_or_else(|| Fault::internal("a route that acts has no gate"))?)
}
