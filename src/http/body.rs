//! Bodies of requests: bounded in bytes and time, and JSON that holds what was asked for and nothing else.

use super::{Config, Shared, respond::Failure};
use crate::{
    access::Identity,
    base::fault::{Fault, Kind},
    wire::json,
};
use axum::{body::Body, extract::Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a body may be late, before it is held to its rate.
const GRACE: Duration = Duration::from_secs(2);

/// Reads a body of at most `max` bytes, within the time and at the rate that `config` asks for.
pub async fn read(headers: &HeaderMap, mut body: Body, max: usize, config: &Config) -> Result<Bytes, Failure> {
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
    let (began, mut whole) = (Instant::now(), BytesMut::new());
    loop {
        let earned = Duration::from_secs_f64(whole.len() as f64 / f64::from(config.body_rate));
        let due = began + config.body_timeout.min(GRACE + earned);
        match timeout_at(due, body.frame()).await {
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if whole.len() + data.len() > max {
                    return Err(too_large());
                }
                whole.extend_from_slice(&data);
            }
            Ok(Some(Err(_))) => return Err(Fault::client(Kind::Malformed, "the body ended early").into()),
            Err(_) => {
                let message = "the body did not come in time";
                return Err(Failure::with_status(StatusCode::REQUEST_TIMEOUT, message));
            }
        }
    }
}

/// Reads who asks and the JSON object of the body.
pub(super) async fn object(shared: &Shared, request: Request) -> Result<(Identity, Map<String, Value>), Failure> {
    let (parts, body) = request.into_parts();
    let who = parts.extensions.get::<Identity>().cloned();
    let who = who.ok_or_else(|| Fault::internal("a route that acts has no gate"))?;
    let config = &shared.config;
    let body = read(&parts.headers, body, config.body_bytes, config).await?;
    Ok((who, Fields::read(&parts.headers, &body)?.0))
}

/// A JSON object as a type, and as it came.
pub(super) struct Typed<T> {
    pub(super) value: T,
    pub(super) fields: Map<String, Value>,
}

/// Reads an object as a type. What the type does not know, at any depth, is refused by name.
pub(super) fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<Typed<T>, Fault> {
    let mut unknown = Fields(Map::new());
    let value = serde_ignored::deserialize(Value::Object(fields.clone()), |path| {
        // The path names the steps into an option, which are none in JSON.
        unknown.0.insert(path.to_string().replace(".?", ""), Value::Null);
    });
    unknown.finish()?;
    let value = value.map_err(|e| invalid(e.to_string()))?;
    Ok(Typed { value, fields })
}

/// The id of what a request is about, from its query or its body.
pub(super) fn one_id(in_query: Option<String>, in_body: Option<String>) -> Result<String, Fault> {
    match (in_query, in_body) {
        (Some(a), Some(b)) if a != b => Err(invalid("the ids of query and body differ".to_owned())),
        (a, b) => a.or(b).ok_or_else(|| invalid("id is required".to_owned())),
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
        if !json::is_bounded(body) {
            let (depth, keys) = (json::MAX_DEPTH, json::MAX_KEYS);
            let message =
                format!("the body is nested deeper than {depth} or has more than {keys} members in an object");
            return Err(Fault::client(Kind::Malformed, message).into());
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

    /// Takes a whole number from 0, written as one or as text. `null` is none.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        let number = match self.0.remove(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(n)) => n.as_u64(),
            Some(Value::String(s)) => s.parse().ok(),
            Some(_) => None,
        };
        let none = || invalid(format!("{name} is not a whole number"));
        number.map(Some).ok_or_else(none)
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

    #[test]
    fn a_body_deeper_or_wider_than_any_of_ours_is_refused() {
        let members: Vec<_> = (0..257).map(|i| format!(r#""k{i}":1"#)).collect();
        for body in [format!("{{{}}}", members.join(",")), "[".repeat(17)] {
            assert!(
                json(&body).unwrap_err().fault.message.contains("nested deeper"),
                "{body}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_cut_off_and_a_slow_one_is_not() {
        let trickle = |every, bytes: usize| {
            stream::unfold(0, move |n| async move {
                tokio::time::sleep(Duration::from_millis(every)).await;
                (n < 40).then(|| (Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes])), n + 1))
            })
        };
        let config = Config::default();
        let read = async |body| read(&HeaderMap::new(), body, 1 << 20, &config).await;
        assert_eq!(read(Body::from_stream(trickle(200, 300))).await.unwrap().len(), 12_000);
        let began = Instant::now();
        let slow = read(Body::from_stream(trickle(200, 10))).await.unwrap_err();
        assert_eq!(slow.status, Some(StatusCode::REQUEST_TIMEOUT));
        assert!(began.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_body_is_bounded_in_bytes_and_time() {
        let chunk = |n| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; n]));
        let config = Config {
            body_timeout: Duration::from_millis(50),
            ..Config::default()
        };
        let read = async |body| read(&HeaderMap::new(), body, 100, &config).await;
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
