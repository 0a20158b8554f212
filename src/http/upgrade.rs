//! The WebSocket handshake (RFC 6455 §4.2), and the upgrade of vendors' media sockets.
//!
//! Everything that can be refused is refused before the answer: after it there are only close codes.

use super::{
    Shared,
    called::Called,
    edge::{Client, Peer, vouch},
    respond::Failure,
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        time::Wall,
    },
    metrics,
    vendor::{Admit, Descriptor, HookRequest, Upgrade},
    wire::form::Form,
};
use axum::{
    body::Body,
    extract::{RawPathParams, Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What is missing from a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAHandshake {
    /// It does not ask for a WebSocket.
    Upgrade,
    /// It asks for another version than 13.
    Version,
    /// Its key is not 16 bytes in base64.
    Key,
}

impl IntoResponse for NotAHandshake {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Upgrade => (StatusCode::UPGRADE_REQUIRED, "a WebSocket upgrade is expected here"),
            Self::Version => (StatusCode::UPGRADE_REQUIRED, "the WebSocket version is 13"),
            Self::Key => (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not one"),
        };
        let mut response = Failure::with_status(status, message).into_response();
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// Checks a handshake and returns the value of `Sec-WebSocket-Accept`.
pub(super) fn handshake(request: &Request) -> Result<HeaderValue, NotAHandshake> {
    let headers = request.headers();
    let names = |name: HeaderName, token: &str| {
        let lines = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        lines
            .flat_map(|v| v.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    };
    if request.version() != Version::HTTP_11
        || !names(header::CONNECTION, "upgrade")
        || !names(header::UPGRADE, "websocket")
    {
        return Err(NotAHandshake::Upgrade);
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(NotAHandshake::Version);
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY);
    let key = key.filter(|k| STANDARD.decode(k).is_ok_and(|bytes| bytes.len() == 16));
    let accept = key.and_then(|k| HeaderValue::try_from(derive_accept_key(k.as_bytes())).ok());
    accept.ok_or(NotAHandshake::Key)
}

fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

/// `101`, with the subprotocol that was chosen.
pub(super) fn switching(accept: HeaderValue, protocol: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// Where a media socket came.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// A vendor's own path.
    Vendor(&'static Descriptor),
    /// A number's own path, which begins so.
    Number(&'static str),
}

/// Upgrades a media socket and hands it to the media threads.
pub(super) async fn media(at: At, path: RawPathParams, State(shared): State<Shared>, mut request: Request) -> Response {
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(refusal) => return refusal.into_response(),
    };
    let (vendor, upgrade) = match admit(at, &path, &shared, &request) {
        Ok(admitted) => admitted,
        Err(fault) => {
            tracing::warn!(?at, %fault, "media socket refused");
            return Failure::from(fault).into_response();
        }
    };
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    let upgrading = hyper::upgrade::on(&mut request);
    let media = shared.media.clone();
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => media.adopt(vendor, upgrade, peer.address, upgraded),
            Err(_) => metrics::refused("media_socket", "gone"),
        }
    });
    switching(accept, None)
}

fn admit(
    at: At,
    path: &RawPathParams,
    shared: &Shared,
    request: &Request,
) -> Result<(&'static Descriptor, Upgrade), Fault> {
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let query = query.map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    let in_path = |name: &str| path.iter().find(|(n, _)| *n == name).map(|(_, text)| text);
    let token = in_path("token").or_else(|| query.get("token")).map(str::to_owned);
    let mut hook = HookRequest {
        method: request.method().as_str(),
        path_and_query: request.uri().path_and_query().map_or("", |p| p.as_str()),
        headers: request.headers(),
        body: &[],
        public_base: &shared.public_url,
        by_number: false,
        client: Some(Client::of(request.extensions())),
        received_at: Wall::now(),
    };
    let (called, path_token) = match at {
        At::Vendor(vendor) => (Called::vendor(shared, vendor)?, token),
        At::Number(prefix) => {
            let id = in_path("number").unwrap_or_default();
            Called::stream(shared, prefix, id, token, &hook)
                .inspect_err(|_| metrics::refused("media_socket", "unknown_number"))?
        }
    };
    hook.by_number = called.line.is_some();
    // The token of a call that was announced and awaits its stream.
    let known = path_token
        .as_deref()
        .is_some_and(|t| shared.control.awaited(t).is_some());
    if !known && shared.readiness.is_draining() {
        metrics::refused("media_socket", "draining");
        return Err(Fault::new(Origin::Us, Kind::Unavailable, "shutting down"));
    }
    if !shared.dev && !known {
        let in_use = called.line.is_some() || called.trunk.unguarded().is_none();
        if !in_use && !shared.control.has_number_of(called.vendor) {
            metrics::refused("media_socket", "no_account");
            return Err(Fault::not_found("account"));
        }
    }
    let proven = !shared.dev
        && called
            .trunk
            .verify_upgrade(&hook)
            .inspect_err(|_| metrics::refused("media_socket", "signature"))?
            == Admit::Proven;
    shared.media.admit()?;
    // Others are strangers until a call takes their stream.
    if proven || known || shared.dev {
        vouch(request.extensions());
    }
    let upgrade = Upgrade {
        path_token,
        query: query
            .0
            .into_iter()
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect(),
        number: called.line.map(|l| l.row.id.to_string()),
        proven,
        headers: request.headers().clone(),
        agreed: called.trunk.agreed(),
    };
    Ok((called.vendor, upgrade))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(changes: &[(&'static str, Option<&'static str>)]) -> Request {
        let mut request = Request::new(Body::empty());
        let headers = request.headers_mut();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in changes {
            headers.remove(*name);
            if let Some(value) = value {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        request
    }

    #[test]
    fn the_sample_handshake_of_the_rfc_is_accepted() {
        assert_eq!(handshake(&request(&[])).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake_is_told_what_is_missing() {
        use NotAHandshake::{Key, Upgrade, Version as OtherVersion};
        for (change, missing) in [
            (("connection", None), Upgrade),
            (("connection", Some("close")), Upgrade),
            (("upgrade", Some("h2c")), Upgrade),
            (("sec-websocket-version", Some("8")), OtherVersion),
            (("sec-websocket-version", None), OtherVersion),
            (("sec-websocket-key", None), Key),
            (("sec-websocket-key", Some("c2hvcnQ=")), Key),
            (("sec-websocket-key", Some("not base64 at all!!!!!!!")), Key),
        ] {
            assert_eq!(handshake(&request(&[change])), Err(missing), "{change:?}");
        }
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(handshake(&old), Err(Upgrade));
        let mut twice = request(&[]);
        let second = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
        twice.headers_mut().append("sec-websocket-key", second);
        assert_eq!(handshake(&twice), Err(Key));
    }

    #[test]
    fn who_asks_for_no_upgrade_is_told_the_version() {
        let refusal = NotAHandshake::Upgrade.into_response();
        assert_eq!(refusal.status(), 426);
        assert_eq!(refusal.headers()["sec-websocket-version"], "13");
        assert_eq!(NotAHandshake::Key.into_response().status(), 400);
    }
}
