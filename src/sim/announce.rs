//! A simulated vendor's webhook: announces a call and reads where its media socket is.

use super::{address::Address, caller::Webhook};
use crate::vendor::{Answer, ApiRequest, Descriptor, HookKind, PeerCall, WireError};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use std::fmt;

/// Why a webhook led to no media socket.
#[derive(Debug)]
pub enum AnnounceError {
    /// The vendor announces no calls.
    NotAnnounced,
    /// No answer.
    Failed(String),
    /// The daemon refused the request, with this status and body.
    Refused(u16, String),
    /// The daemon is busy.
    Busy,
    /// The daemon hung up.
    HungUp,
    /// The answer is no document of the vendor's.
    Unreadable(WireError),
}

impl fmt::Display for AnnounceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnnounced => f.write_str("this vendor announces no calls; place the call without a webhook"),
            Self::Failed(why) => write!(f, "no answer: {why}"),
            Self::Refused(status, body) => write!(f, "status {status}: {}", body.trim()),
            Self::Busy => f.write_str("the daemon is busy"),
            Self::HungUp => f.write_str("the daemon hung up"),
            Self::Unreadable(e) => write!(f, "the vendor could not read the answer: {e}"),
        }
    }
}

impl std::error::Error for AnnounceError {}

/// A fresh vendor's id for a call.
pub(super) fn new_call_sid() -> String {
    format!("sim{}", uuid::Uuid::now_v7().simple())
}

/// Where the vendor posts the announcement of a call.
pub fn hook_path(vendor: &Descriptor) -> Option<&'static str> {
    let hook = vendor.hook_paths.iter().find(|h| h.kind == HookKind::Call)?;
    Some(hook.path)
}

/// Announces `call`. Returns path and query of the media socket and keeps the token in `call`.
pub(super) async fn announce(
    vendor: &Descriptor,
    call: &mut PeerCall,
    webhook: &Webhook,
) -> Result<String, AnnounceError> {
    let peer = (vendor.peer)(call.clone());
    let request = peer
        .announce(&webhook.signed_as, webhook.secret.as_ref())
        .ok_or(AnnounceError::NotAnnounced)?;
    let (status, body) = tokio::time::timeout(request.timeout, send(&webhook.address, request))
        .await
        .map_err(|_| AnnounceError::Failed("it took too long".into()))??;
    if !(200..300).contains(&status) {
        let body = String::from_utf8_lossy(&body);
        return Err(AnnounceError::Refused(status, body.chars().take(500).collect()));
    }
    match peer.answered(&body).map_err(AnnounceError::Unreadable)? {
        Answer::Stream { url, token, .. } => {
            call.token = Some(token).filter(|t| !t.is_empty());
            let uri: http::Uri = url
                .parse()
                .map_err(|_| AnnounceError::Unreadable(WireError::Shape("url")))?;
            Ok(uri.path_and_query().map_or("/", |p| p.as_str()).to_owned())
        }
        Answer::Busy => Err(AnnounceError::Busy),
        Answer::HangUp => Err(AnnounceError::HungUp),
    }
}

/// Sends a request over a connection of its own.
async fn send(to: &Address, request: ApiRequest) -> Result<(u16, Vec<u8>), AnnounceError> {
    let failed = |e: &dyn fmt::Display| AnnounceError::Failed(e.to_string());
    let stream = to.connect().await.map_err(|e| failed(&e))?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let drive = tokio::spawn(connection);
    let mut http = http::Request::new(Full::new(request.body));
    *http.method_mut() = request.method;
    *http.uri_mut() = to.path.parse().map_err(|e: http::uri::InvalidUri| failed(&e))?;
    *http.headers_mut() = request.headers;
    let host = to
        .authority()
        .parse()
        .map_err(|e: http::header::InvalidHeaderValue| failed(&e))?;
    http.headers_mut().insert(http::header::HOST, host);
    let response = client.send_request(http).await.map_err(|e| failed(&e))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), 64 << 10)
        .collect()
        .await
        .map_err(|e| failed(&e))?;
    drive.abort();
    Ok((status, body.to_bytes().to_vec()))
}
