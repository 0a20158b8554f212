//! Bodies of requests: bounded in bytes and time, and JSON that holds what was asked for and nothing else.

use super::respond::Failure;
use crate::base::fault::{Fault, Kind};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};
use std::time::Duration;

/// Reads a body of at most `max` bytes within `patience`.
pub async fn read(headers: &HeaderMap, body: Body, max: usize, patience: Duration) -> Result<Bytes, Failure> {
    let too_large = || {
        Failure::from(Fault::client(
            Kind::TooLarge,
            format!("the body is larger than {max} bytes"),
        ))
    };
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|n| n > max as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(patience, Limited::new(body, max).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Fault::client(Kind::Malformed, "the body ended early").into()),
        Err(_) => Err(Failure::with_status(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

/// The fields of a JSON object, taken one by one; what nobody took is refused by name.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. No body is no fields.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Failure> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        // A form can be sent from any page without asking; JSON cannot.
        let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let kind = kind.and_then(|k| k.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Failure::with_status(status, "the body must be application/json"));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Fault::client(Kind::Malformed, "the body is not a JSON object").into()),
            Err(e) => Err(Fault::client(Kind::Malformed, format!("the body is not JSON: {e}")).into()),
        }
    }

    /// Takes the text under one of `names`, which mean the same. `null` and `""` are no text.
    pub fn text(&mut self, names: &[&str]) -> Result<Option<String>, Fault> {
        let mut found: Option<String> = None;
        for name in names {
            let value = match self.0.remove(*name) {
                None | Some(Value::Null) => continue,
                Some(Value::String(s)) if s.is_empty() => continue,
                Some(Value::String(s)) if s.len() <= 2048 => s,
                Some(Value::String(_)) => return Err(invalid(format!("{name} is longer than 2048 bytes"))),
                Some(_) => return Err(invalid(format!("{name} is not text"))),
            };
            if found.as_ref().is_some_and(|f| *f != value) {
                return Err(invalid(format!(
                    "{} are names of one field and differ",
                    names.join(" and ")
                )));
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// Takes a text that must be there.
    pub fn required(&mut self, names: &[&str]) -> Result<String, Fault> {
        let text = self.text(names)?;
        text.ok_or_else(|| invalid(format!("{} is required", names[0])))
    }

    /// Refuses what is left.
    pub fn finish(self) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        let cut = |name: &String| name.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
        let names: Vec<_> = self.0.keys().take(16).map(cut).collect();
        let s = if names.len() == 1 { "" } else { "s" };
        Err(invalid(format!("unknown field{s}: {}", names.join(", "))))
    }
}

fn invalid(message: String) -> Fault {
    Fault::client(Kind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn json(body: &str) -> Result<Fields, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        Fields::read(&headers, body.as_bytes())
    }

    #[test]
    fn fields_are_taken_by_any_of_their_names_and_the_rest_is_refused() {
        let mut f = json(r#"{"to":"+1","tenant_id":2,"status":"ended","from_number":""}"#).unwrap();
        assert_eq!(f.text(&["to_number", "to"]), Ok(Some("+1".into())));
        assert_eq!(f.text(&["from_number", "from"]), Ok(None));
        assert_eq!(f.finish().unwrap_err().message, "unknown fields: status, tenant_id");
        let mut f = json(r#"{"to":"+1","to_number":"+2"}"#).unwrap();
        assert!(f.text(&["to_number", "to"]).is_err());
        let mut f = json(r#"{"to":1}"#).unwrap();
        assert_eq!(f.text(&["to"]).unwrap_err().message, "to is not text");
        assert_eq!(
            json("").unwrap().required(&["to"]).unwrap_err().message,
            "to is required"
        );
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for body in ["[]", "{", "1", "nope"] {
            assert_eq!(json(body).unwrap_err().fault.kind, Kind::Malformed, "{body}");
        }
        let plain = Fields::read(&HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(plain.status, Some(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }

    #[tokio::test]
    async fn a_body_is_bounded_in_bytes_and_time() {
        let chunk = |n| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; n]));
        let read = async |body| read(&HeaderMap::new(), body, 100, Duration::from_millis(50)).await;
        assert_eq!(
            read(Body::from_stream(stream::iter([chunk(60), chunk(40)])))
                .await
                .unwrap()
                .len(),
            100
        );
        let big = read(Body::from_stream(stream::iter([chunk(60), chunk(41)])))
            .await
            .unwrap_err();
        assert_eq!(big.fault.kind, Kind::TooLarge);
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(slow).await.unwrap_err().status, Some(StatusCode::REQUEST_TIMEOUT));
    }
}
