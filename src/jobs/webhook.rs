//! Tells somebody that a call is over: a signed POST with all that is known of it, again and again until it is taken.
//!
//! `X-Sidetone-Signature: v1=HEX`, the HMAC-SHA256 of `{timestamp}.{body}` with the shared secret, `X-Sidetone-Timestamp` in
//! Unix seconds, `X-Sidetone-Event-Id` the same on every try: who has seen the id has seen the call.

use super::{Deps, Outcome, Wishes, files};
use crate::{
    base::{secret::Secret, time::Wall},
    net::client::ApiRequest,
    store::{CallRow, JobRow},
    wire::sign::{Algorithm, MacKey},
};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::json;
use std::time::Duration;
use tracing::info;

pub(super) const KIND: &str = "webhook";

/// Sends it.
pub(super) async fn run(deps: &Deps, job: &JobRow, call: &CallRow, wishes: &Wishes) -> Outcome {
    let webhook = &deps.config.webhook;
    let (url, http) = match (&wishes.webhook_url, &webhook.url) {
        (Some(url), _) => (url, &deps.tenant_http),
        (None, Some(url)) => (url, &deps.http),
        (None, None) => return Outcome::Done(Vec::new()),
    };
    let Some(secret) = &webhook.secret else {
        return Outcome::Never("after_call.webhook_secret is not set".to_owned(), Vec::new());
    };
    let messages = match deps.store.messages(call.tenant_id, call.call_id).await {
        Ok(messages) => messages,
        Err(fault) => return Outcome::Later(fault.to_string(), Duration::ZERO),
    };
    let mut report = files::report(deps, call, &messages, wishes);
    report["conversation"] = files::conversation(&messages);
    let body = json!({ "id": job.id, "type": "call.ended", "data": report }).to_string();
    let request = ApiRequest {
        method: Method::POST,
        url: url.clone(),
        headers: headers(secret, &job.id, Wall::now().as_secs(), &body),
        body: body.into(),
        timeout: webhook.timeout,
    };
    match http.send(request).await {
        Ok(reply) if (200..300).contains(&reply.status) => {
            info!(session = call.session_id, attempt = job.attempts, "webhook_delivered");
            Outcome::Done(Vec::new())
        }
        Ok(reply) if reply.status == 410 => {
            Outcome::Never("the receiver wants no more: status 410".to_owned(), Vec::new())
        }
        Ok(reply) => {
            let wait = reply.retry_after.unwrap_or_default();
            Outcome::Later(format!("status {}", reply.status), wait)
        }
        Err(error) => Outcome::Later(error.to_string(), Duration::ZERO),
    }
}

fn headers(secret: &Secret, id: &str, timestamp: i64, body: &str) -> HeaderMap {
    let timestamp = timestamp.to_string();
    let key = MacKey::new(Algorithm::HmacSha256, secret.expose().as_bytes());
    let code = key.sign([timestamp.as_str(), ".", body]);
    let hex: String = code.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let signature = format!("v1={hex}");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, text) in [
        ("x-sidetone-event-id", id),
        ("x-sidetone-timestamp", timestamp.as_str()),
        ("x-sidetone-signature", signature.as_str()),
    ] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_over_timestamp_and_body() {
        let headers = headers(&Secret::new("key"), "webhook:1", 1_700_000_000, "{}");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        let expected = "v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(headers["x-sidetone-signature"], expected);
        assert_eq!(headers["x-sidetone-timestamp"], "1700000000");
    }
}
