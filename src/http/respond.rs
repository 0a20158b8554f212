//! The one place where a [`Fault`] becomes a status, and the shapes of REST answers.
//!
//! `{"success":true,"data":…}` and `{"success":false,"error":{"code","message"}}`.

use crate::base::fault::{Fault, Kind};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

/// What a handler returns.
pub type Answer = Result<Response, Failure>;

/// A refusal.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub fault: Fault,
    /// The status, where the fault's kind does not say it.
    pub status: Option<StatusCode>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u64>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let retry_after = fault.retry_after.map(|wait| wait.as_secs_f64().ceil() as u64);
        Self {
            fault,
            status: None,
            retry_after,
        }
    }
}

impl Failure {
    /// The whole answer as bytes, closing the connection: for where no HTTP library stands.
    pub(super) fn to_http(&self) -> Vec<u8> {
        let (status, code) = self.shown();
        let body = serde_json::to_string(&shape(code, &self.fault.message)).unwrap_or_default();
        let reason = status.canonical_reason().unwrap_or_default();
        let headers = "content-type: application/json\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close";
        let length = body.len();
        format!(
            "HTTP/1.1 {} {reason}\r\n{headers}\r\ncontent-length: {length}\r\n\r\n{body}",
            status.as_u16()
        )
        .into_bytes()
    }

    /// Status and code.
    fn shown(&self) -> (StatusCode, &'static str) {
        match self.status {
            Some(status) => (status, word(status)),
            None => status(self.fault.kind),
        }
    }

    /// Nothing is served there.
    pub(super) fn no_route() -> Self {
        Fault::client(
            Kind::NotFound,
            "no such route: /api/openapi.json describes those there are",
        )
        .into()
    }

    /// A refusal that a kind of fault has no word for.
    pub fn with_status(status: StatusCode, message: &'static str) -> Self {
        Self {
            fault: Fault::client(Kind::Malformed, message),
            status: Some(status),
            retry_after: None,
        }
    }
}

/// The status of a kind of fault, and its `code` in the body.
pub const fn status(kind: Kind) -> (StatusCode, &'static str) {
    match kind {
        Kind::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
        Kind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Kind::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Kind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        Kind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        Kind::Conflict => (StatusCode::CONFLICT, "conflict"),
        Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Kind::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
        Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Kind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        Kind::BadGateway => (StatusCode::BAD_GATEWAY, "bad_gateway"),
        Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (code_status, code) = self.shown();
        let message = match self.fault.kind {
            Kind::Internal => {
                // The sentence is ours to read; outside there is a number to quote.
                let id = uuid::Uuid::new_v4().simple().to_string();
                tracing::error!(error_id = %id, fault = %self.fault, "internal fault");
                format!("internal error {id}")
            }
            _ => self.fault.message.into_owned(),
        };
        let body = shape(code, &message);
        let mut response = (code_status, Json(body)).into_response();
        let wait = self.retry_after.or(match self.fault.kind {
            Kind::TooMany => Some(1),
            Kind::Unavailable => Some(jitter(2, 10)),
            _ => None,
        });
        if let Some(seconds) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if code_status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn shape(code: &str, message: &str) -> Refused {
    Refused {
        success: false,
        error: Error {
            code: code.to_owned(),
            message: message.to_owned(),
        },
    }
}

const fn word(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 => "not_found",
        405 => "method_not_allowed",
        408 => "timeout",
        414 => "uri_too_long",
        415 => "unsupported_media_type",
        416 => "range_not_satisfiable",
        426 => "upgrade_required",
        431 => "headers_too_large",
        _ => "malformed",
    }
}

/// A whole number of seconds from `least` to `most`, spread so that those who wait do not come back together.
fn jitter(least: u64, most: u64) -> u64 {
    let random = uuid::Uuid::new_v4().as_u128() as u64;
    least + random % (most - least + 1)
}

/// `200` with data.
pub fn data<T: Serialize>(data: T) -> Response {
    Json(Data { success: true, data }).into_response()
}

/// `200` with a list, how many are in it, and the cursor of the next page where there is one.
pub fn list<T: Serialize>(data: Vec<T>, next_cursor: Option<String>) -> Response {
    Json(List {
        success: true,
        count: data.len(),
        data,
        next_cursor,
    })
    .into_response()
}

/// `200` with data and a sentence.
pub fn done<T: Serialize>(data: T, message: &'static str) -> Response {
    Json(Done {
        success: true,
        data,
        message,
    })
    .into_response()
}

/// `200` with a sentence alone.
pub fn told(message: &'static str) -> Response {
    Json(Told { success: true, message }).into_response()
}

/// What was asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Answer")]
pub struct Data<T> {
    success: bool,
    data: T,
}

/// A list of what was asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    success: bool,
    /// How many are in this answer.
    count: usize,
    data: Vec<T>,
    /// Cursor of the next page, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What became of it, with a sentence.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Outcome")]
pub struct Done<T> {
    success: bool,
    data: T,
    message: &'static str,
}

/// A sentence.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Outcome")]
pub struct Told {
    success: bool,
    message: &'static str,
}

/// A refusal.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Refusal")]
pub struct Refused {
    success: bool,
    error: Error,
}

/// Why something was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Error {
    /// One word for programs.
    code: String,
    /// A sentence for people.
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    async fn shown(failure: Failure) -> (u16, Value, Option<String>) {
        let response = failure.into_response();
        let retry = response
            .headers()
            .get(header::RETRY_AFTER)
            .map(|v| v.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap(), retry)
    }

    #[tokio::test]
    async fn faults_have_one_shape_and_their_status() {
        let (status, body, _) = shown(Fault::not_found("call").into()).await;
        assert_eq!(status, 404);
        assert_eq!(
            body,
            json!({"success": false, "error": {"code": "not_found", "message": "call not found"}})
        );
    }

    #[tokio::test]
    async fn an_internal_fault_says_nothing_but_a_number() {
        let (status, body, _) = shown(Fault::internal("the secret path /x").into()).await;
        assert_eq!(status, 500);
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("internal error ") && message.len() == 47,
            "{message}"
        );
    }

    #[tokio::test]
    async fn who_should_come_back_is_told_when() {
        for _ in 0..50 {
            let (_, _, retry) = shown(Fault::client(Kind::Unavailable, "no").into()).await;
            assert!((2..=10).contains(&retry.unwrap().parse::<u64>().unwrap()));
        }
        let mut told = Fault::client(Kind::TooMany, "no");
        told.retry_after = Some(std::time::Duration::from_millis(6500));
        assert_eq!(shown(told.into()).await.2.as_deref(), Some("7"));
        let (_, _, retry) = shown(Fault::client(Kind::Invalid, "no").into()).await;
        assert_eq!(retry, None);
    }
}
