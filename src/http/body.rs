//! Bodies of requests: bounded in bytes and time, and JSON that holds what was asked for and nothing else.

use super::{Config, Shared, respond::Failure};
use crate::{
    access::Identity,
    base::fault::{Fault, Kind},
    wire::{form::Form, json, shape},
};
use axum::{body::Body, extract::Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a body may be late, before it is held to its rate.
const GRACE: Duration = Duration::from_secs(2);
/// Longest text in a field, in bytes.
const MAX_TEXT: usize = 2048;

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
    Ok((who, read_object(&parts.headers, &body)?))
}

/// Reads who asks and the body as a type whose fields are all optional.
pub(super) async fn of<T: DeserializeOwned + JsonSchema>(
    shared: &Shared,
    request: Request,
) -> Result<(Identity, T), Failure> {
    let (who, fields) = object(shared, request).await?;
    Ok((who, typed(fields)?.value))
}

/// A JSON object as a type, and as it came.
#[derive(Debug)]
pub(super) struct Typed<T> {
    pub(super) value: T,
    pub(super) fields: Map<String, Value>,
}

/// Reads an object as a type whose fields are all optional. What the type does not know, at any depth, is refused by name,
/// and so is what it knows as something else.
pub(super) fn typed<T: DeserializeOwned + JsonSchema>(fields: Map<String, Value>) -> Result<Typed<T>, Fault> {
    let mut unknown = Vec::new();
    let value = serde_ignored::deserialize(Value::Object(fields.clone()), |path| {
        // The path names the steps into an option, which are none in JSON.
        let name = path.to_string().replace(".?", "");
        unknown.push(name.chars().filter(|c| !c.is_control()).take(64).collect::<String>());
    });
    if !unknown.is_empty() {
        let s = if unknown.len() == 1 { "" } else { "s" };
        unknown.truncate(16);
        return Err(invalid(format!("unknown field{s}: {}", unknown.join(", "))));
    }
    match value {
        Ok(value) => Ok(Typed { value, fields }),
        Err(_) => {
            let difference = shape::difference::<T>(&Value::Object(fields), "the body");
            Err(invalid(difference.unwrap_or_else(|| {
                "the body is not as described in /api/openapi.json".to_owned()
            })))
        }
    }
}

/// The one text among fields that mean the same. An empty one is none, and a long one refused.
pub(super) fn either<const N: usize>(fields: [(&str, Option<String>); N]) -> Result<Option<String>, Fault> {
    let long = |value: &Option<String>| value.as_ref().is_some_and(|v| v.len() > MAX_TEXT);
    match fields.iter().find(|(_, value)| long(value)) {
        Some((name, _)) => Err(invalid(format!("{name} is longer than {MAX_TEXT} bytes"))),
        None => same(fields),
    }
}

/// The one text among fields that mean the same, as long as the body may be.
pub(super) fn same<const N: usize>(fields: [(&str, Option<String>); N]) -> Result<Option<String>, Fault> {
    let names = fields.each_ref().map(|(name, _)| *name).join(" and ");
    let mut found: Option<String> = None;
    for value in fields
        .into_iter()
        .filter_map(|(_, value)| value.filter(|v| !v.is_empty()))
    {
        if found.as_ref().is_some_and(|f| *f != value) {
            return Err(invalid(format!("{names} are names of one field and differ")));
        }
        found = Some(value);
    }
    Ok(found)
}

/// The same for a text that must be there, by its first name.
pub(super) fn required<const N: usize>(name: &str, fields: [(&str, Option<String>); N]) -> Result<String, Fault> {
    either(fields)?.ok_or_else(|| invalid(format!("{name} is required")))
}

/// The ids of what a request is about.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) in_query: Option<String>,
    pub(super) in_body: Option<String>,
}

impl Ids {
    /// Reads the `id` of a query. The frontends' `userId` is ignored, anything else refused.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self, Fault> {
        let query = Form::parse(query.unwrap_or_default().as_bytes());
        let query = query.map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
        let mut in_query = None;
        for (name, value) in query.0 {
            match &*name {
                "id" => in_query = Some(value.into_owned()).filter(|id| !id.is_empty()),
                "userId" => {}
                other => {
                    let name: String = other.chars().filter(|c| !c.is_control()).take(64).collect();
                    return Err(invalid(format!("unknown parameter: {name}")));
                }
            }
        }
        Ok(Self {
            in_query,
            ..Self::default()
        })
    }

    /// What is added names none in its body.
    pub(super) fn none_of_new(self, what: &str) -> Result<(), Fault> {
        match self.in_body {
            None => Ok(()),
            Some(_) => Err(invalid(format!(
                "id is given to {what}, not by it: leave it out, or PUT"
            ))),
        }
    }

    /// The one.
    pub(super) fn one(self) -> Result<String, Fault> {
        match (self.in_query, self.in_body) {
            (Some(a), Some(b)) if a != b => Err(invalid("the ids of query and body differ".to_owned())),
            (a, b) => a.or(b).ok_or_else(|| invalid("id is required".to_owned())),
        }
    }
}

/// Reads the JSON object of a body. No body is an object without members.
fn read_object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Failure> {
    if body.is_empty() {
        return Ok(Map::new());
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
        let message = format!("the body is nested deeper than {depth} or has more than {keys} members in an object");
        return Err(Fault::client(Kind::Malformed, message).into());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Fault::client(Kind::Malformed, "the body is not a JSON object").into()),
        Err(e) => {
            let message = format!(
                "the body is not JSON: it breaks at line {}, column {}",
                e.line(),
                e.column()
            );
            Err(Fault::client(Kind::Malformed, message).into())
        }
    }
}

fn invalid(message: String) -> Fault {
    Fault::client(Kind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn json(body: &str) -> Result<Map<String, Value>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        read_object(&headers, body.as_bytes())
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    struct Sent {
        to: Option<String>,
        to_number: Option<String>,
        list: Option<Vec<Inner>>,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    struct Inner {
        #[serde(rename = "a")]
        _a: Option<u8>,
    }

    #[test]
    fn a_body_holds_what_its_type_knows_and_nothing_else() {
        let read = |body: &str| typed::<Sent>(json(body).unwrap());
        let refused = |body: &str| read(body).unwrap_err().message.into_owned();
        assert_eq!(
            refused(r#"{"to":"+1","tenant_id":2,"status":"ended","list":[{"b":1}]}"#),
            "unknown fields: list.0.b, status, tenant_id"
        );
        for (body, why) in [
            (r#"{"to":1}"#, "to must be a string, not a number"),
            (r#"{"list":{}}"#, "list must be a list, not an object"),
            (
                r#"{"list":[{"a":1},{"a":true}]}"#,
                "list.1.a must be a whole number from 0 to 255, not true or false",
            ),
            (
                r#"{"list":[{"a":-1}]}"#,
                "list.0.a must be a whole number from 0 to 255, not -1",
            ),
        ] {
            assert_eq!(refused(body), why, "{body}");
        }
        let body = read(r#"{"to":"","to_number":"+1","list":[{"a":null}]}"#).unwrap().value;
        assert_eq!(body.list.map(|l| l.len()), Some(1));
        assert_eq!(
            either([("to_number", body.to_number), ("to", body.to)]),
            Ok(Some("+1".into()))
        );
    }

    #[test]
    fn fields_that_mean_the_same_may_not_differ() {
        let some = |t: &str| Some(t.to_owned());
        assert_eq!(either([("a", some("x")), ("b", some("x"))]), Ok(some("x")));
        assert_eq!(either([("a", some("")), ("b", None)]), Ok(None));
        let differ = either([("a", some("x")), ("b", some("y"))]).unwrap_err();
        assert_eq!(differ.message, "a and b are names of one field and differ");
        assert_eq!(required("a", [("a", None)]).unwrap_err().message, "a is required");
        assert!(either([("a", some(&"x".repeat(2049)))]).is_err());
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for (body, why) in [
            ("[]", "the body is not a JSON object"),
            ("1", "the body is not a JSON object"),
            ("{", "the body is not JSON: it breaks at line 1, column 1"),
            ("{\n nope}", "the body is not JSON: it breaks at line 2, column 2"),
        ] {
            let refused = json(body).unwrap_err().fault;
            assert_eq!((refused.kind, &*refused.message), (Kind::Malformed, why), "{body}");
        }
        let plain = read_object(&HeaderMap::new(), b"{}").unwrap_err();
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
