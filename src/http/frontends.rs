//! The upgrade of frontends' sockets: origin, credential, handshake, a seat; then the hub has it.

use super::{
    Shared,
    auth::{self, BEARER},
    edge::{Client, check_origin, vouch},
    respond::Failure,
    upgrade::{handshake, switching},
};
use crate::{
    access::Identity,
    base::fault::{Fault, Kind, Origin},
    hub::{Seat, Wish, audio_messages::AudioSettings, call_events::EventSettings, protocol::Settings},
    metrics,
    wire::form::Form,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;

/// `GET /api/ws/telephony/stream`
pub(super) async fn telephony(State(shared): State<Shared>, request: Request) -> Response {
    let read: Read = |query| {
        let pairs = query.0.iter().map(|(n, v)| (&**n, &**v));
        Settings::from_query(pairs).map(Wish::Telephony)
    };
    upgrade(shared, request, read).await
}

/// `GET /call-events`
pub(super) async fn call_events(State(shared): State<Shared>, request: Request) -> Response {
    let read: Read = |query| EventSettings::from_query(query).map(Wish::CallEvents);
    upgrade(shared, request, read).await
}

/// `GET /frontend-audio`
pub(super) async fn frontend_audio(State(shared): State<Shared>, request: Request) -> Response {
    let read: Read = |query| AudioSettings::from_query(query).map(Wish::Audio);
    upgrade(shared, request, read).await
}

/// What a query asks for.
type Read = fn(&Form<'_>) -> Result<Wish, Fault>;

async fn upgrade(shared: Shared, request: Request, read: Read) -> Response {
    let (parts, body) = request.into_parts();
    let admitted = admit(&shared, &parts, read).await;
    let mut request = Request::from_parts(parts, body);
    let (identity, wish, seat) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => return failure.into_response(),
    };
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(refusal) => return refusal.into_response(),
    };
    // A browser that offers subprotocols wants one of them back; the token is not it.
    let protocol = auth::subprotocols(request.headers())
        .any(|p| p == BEARER)
        .then_some(BEARER);
    let upgrading = hyper::upgrade::on(&mut request);
    let hub = shared.hub.clone();
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => hub.serve(TokioIo::new(upgraded), seat, identity, wish).await,
            Err(_) => metrics::refused("frontend", "gone"),
        }
    });
    switching(accept, protocol)
}

async fn admit(shared: &Shared, parts: &http::request::Parts, read: Read) -> Result<(Identity, Wish, Seat), Failure> {
    check_origin(shared, &parts.headers)?;
    let query = Form::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let query = query.map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    let address = Client::of(&parts.extensions);
    let credential = auth::socket_credential(parts, &query)?;
    let identity = auth::identify(shared, credential, &parts.extensions).await?;
    auth::allow_socket(&identity)?;
    let wish = read(&query)?;
    vouch(&parts.extensions);
    if shared.readiness.is_draining() {
        metrics::refused("frontend", "draining");
        return Err(Fault::new(Origin::Us, Kind::Unavailable, "shutting down").into());
    }
    let seat = shared.hub.admit(address, identity.tenant)?;
    Ok((identity, wish, seat))
}
