//! The WebSocket handshake (RFC 6455 §4.2), and the upgrade of vendors' media sockets.
//!
//! Everything that can be refused is refused before the answer: after it there are only close codes.

use super::{Shared, edge::Peer, respond::Failure};
use crate::{
    base::fault::{Fault, Kind},
    metrics,
    vendor::{Descriptor, HookRequest, Upgrade},
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

/// Checks a handshake and returns the value of `Sec-WebSocket-Accept`, or the refusal.
pub(super) fn handshake(request: &Request) -> Result<HeaderValue, Response> {
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
        return Err(upgrade_required("a WebSocket upgrade is expected here"));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(upgrade_required("the WebSocket version is 13"));
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY);
    let key = key.filter(|k| STANDARD.decode(k).is_ok_and(|bytes| bytes.len() == 16));
    let accept = key.and_then(|k| HeaderValue::try_from(derive_accept_key(k.as_bytes())).ok());
    accept.ok_or_else(|| Failure::with_status(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not one").into_response())
}

fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

fn upgrade_required(message: &'static str) -> Response {
    let mut response = Failure::with_status(StatusCode::UPGRADE_REQUIRED, message).into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
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

/// Upgrades a media socket of `vendor` and hands it to the media threads.
pub(super) async fn media(
    vendor: &'static Descriptor,
    path: RawPathParams,
    State(shared): State<Shared>,
    mut request: Request,
) -> Response {
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(refusal) => return refusal,
    };
    let upgrade = match admit(vendor, &path, &shared, &request) {
        Ok(upgrade) => upgrade,
        Err(fault) => {
            tracing::warn!(vendor = vendor.name, %fault, "media socket refused");
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
    vendor: &'static Descriptor,
    path: &RawPathParams,
    shared: &Shared,
    request: &Request,
) -> Result<Upgrade, Fault> {
    let trunk = shared
        .trunks
        .get(vendor.name)
        .ok_or_else(|| Fault::not_found("account"))?;
    let hook = HookRequest {
        method: request.method().as_str(),
        path_and_query: request.uri().path_and_query().map_or("", |p| p.as_str()),
        headers: request.headers(),
        body: &[],
        public_base: &shared.public_url,
    };
    if !shared.dev {
        trunk
            .verify_upgrade(&hook)
            .inspect_err(|_| metrics::refused("media_socket", "signature"))?;
    }
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let query = query.map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    shared.media.admit()?;
    Ok(Upgrade {
        path_token: path
            .iter()
            .find(|(name, _)| *name == "token")
            .map(|(_, token)| token.to_owned()),
        query: query
            .0
            .into_iter()
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect(),
    })
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
        for (change, status) in [
            (("connection", None), 426),
            (("connection", Some("close")), 426),
            (("upgrade", Some("h2c")), 426),
            (("sec-websocket-version", Some("8")), 426),
            (("sec-websocket-version", None), 426),
            (("sec-websocket-key", None), 400),
            (("sec-websocket-key", Some("c2hvcnQ=")), 400),
            (("sec-websocket-key", Some("not base64 at all!!!!!!!")), 400),
        ] {
            let refusal = handshake(&request(&[change])).unwrap_err();
            assert_eq!(refusal.status().as_u16(), status, "{change:?}");
            if status == 426 {
                assert_eq!(refusal.headers()["sec-websocket-version"], "13");
            }
        }
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(handshake(&old).unwrap_err().status(), 426);
        let mut twice = request(&[]);
        let second = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
        twice.headers_mut().append("sec-websocket-key", second);
        assert_eq!(handshake(&twice).unwrap_err().status(), 400);
    }
}
