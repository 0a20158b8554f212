//! Who asks: finds the credential of a request, proves it, and holds the request to a role and a rate.
//!
//! A missing and a bad credential get the same answer. More than one is refused: which of them counts must not be a guess.

use super::{
    Shared,
    edge::{Client, check_origin, vouch},
    respond::Failure,
};
use crate::{
    access::{Credential, Denied, Identity, Role, scope::Scope},
    base::{
        fault::{Fault, Kind},
        time::{Mono, Wall},
    },
    metrics,
    wire::form::Form,
};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, header, request::Parts};
use std::time::Duration;

/// Name of the subprotocol that is followed by a token.
pub const BEARER: &str = "bearer";

/// What a REST route asks of a credential.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The least role.
    pub role: Role,
    /// The part of the interface that it is in.
    pub scope: Option<Scope>,
}

/// Lets a REST request through whose credential allows what the route needs, with its [`Identity`]. A page must be of a
/// welcome origin too.
pub async fn require(State((shared, pass)): State<(Shared, Pass)>, mut request: Request, next: Next) -> Response {
    match prove(&shared, pass, request.headers(), request.extensions()).await {
        Ok(identity) => {
            vouch(request.extensions());
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

async fn prove(shared: &Shared, pass: Pass, headers: &HeaderMap, from: &Extensions) -> Result<Identity, Failure> {
    check_origin(shared, headers)?;
    let identity = identify(shared, header_credential(headers)?, from).await?;
    allow(&identity, pass)?;
    let paced = shared.access.may_request(identity.tenant, Mono::now());
    paced.map_err(|wait| too_many("rate", wait, "too many requests"))?;
    Ok(identity)
}

fn allow(identity: &Identity, pass: Pass) -> Result<(), Failure> {
    let refuse = |reason, message| {
        metrics::refused("request", reason);
        Err(Fault::client(Kind::Forbidden, message).into())
    };
    if identity.role < pass.role {
        let message = format!("not allowed for the role {}: {} is needed", identity.role, pass.role);
        return refuse("role", message);
    }
    if !identity.scopes.allow(pass.scope) {
        let message = format!("not allowed for a credential of the scopes {}", identity.scopes);
        return refuse("scope", message);
    }
    Ok(())
}

/// Holds a credential to the frontends' sockets.
pub fn allow_socket(identity: &Identity) -> Result<(), Failure> {
    let (role, scope) = (Role::Viewer, Some(Scope::Ws));
    allow(identity, Pass { role, scope })
}

fn too_many(reason: &'static str, wait: Duration, message: &'static str) -> Failure {
    metrics::refused("request", reason);
    Failure {
        retry_after: Some(wait.as_secs_f64().ceil().max(1.0) as u64),
        ..Fault::client(Kind::TooMany, message).into()
    }
}

/// The identity behind a credential, or the one answer for all who have none. Whoever asks, an address may ask so often.
pub async fn identify(
    shared: &Shared,
    credential: Option<Credential<'_>>,
    from: &Extensions,
) -> Result<Identity, Failure> {
    let address = Client::of(from);
    let paced = shared.access.may_ask(address, Mono::now());
    paced.map_err(|wait| too_many("address_rate", wait, "too many requests from this address"))?;
    let identified = shared.access.identify(credential, address, Mono::now(), Wall::now());
    let denied = match identified.await {
        Ok(identity) => return Ok(identity),
        Err(denied) => denied,
    };
    Err(match denied {
        Denied::Blocked(wait) => {
            metrics::refused("credential", "blocked");
            Failure {
                retry_after: Some(wait.as_secs().max(1)),
                ..Fault::client(Kind::TooMany, "too many bad credentials from this address").into()
            }
        }
        Denied::Missing | Denied::Bad(_) => {
            metrics::refused(
                "credential",
                if let Denied::Bad(why) = denied { why } else { "missing" },
            );
            Fault::client(Kind::Unauthenticated, "a valid credential is required").into()
        }
    })
}

/// The credential in a request's headers: `Authorization: Bearer …` or `X-API-Key`.
pub fn header_credential(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Failure> {
    let mut found = None;
    for value in headers.get_all(header::AUTHORIZATION) {
        // Another scheme, or something unreadable, is a credential all the same: a bad one.
        let bearer = value.to_str().ok().and_then(|text| {
            let (scheme, rest) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim_start())
        });
        only(&mut found, Credential::bearer(bearer.unwrap_or_default()))?;
    }
    for value in headers.get_all("x-api-key") {
        only(&mut found, Credential::Key(value.to_str().unwrap_or_default()))?;
    }
    Ok(found)
}

/// The credential of a socket's upgrade request: as of any request, or the query's `token`, or the subprotocol that
/// follows `bearer`. API keys live long and do not belong into a URL.
pub fn socket_credential<'a>(parts: &'a Parts, query: &'a Form<'_>) -> Result<Option<Credential<'a>>, Failure> {
    let mut found = header_credential(&parts.headers)?;
    for token in query.all("token").filter(|t| !t.is_empty()) {
        only(&mut found, Credential::Token(token))?;
    }
    let mut offered = subprotocols(&parts.headers);
    if offered.any(|p| p == BEARER)
        && let Some(token) = offered.next()
    {
        only(&mut found, Credential::Token(token))?;
    }
    Ok(found)
}

/// The subprotocols a client offers, in order.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

fn only<'a>(found: &mut Option<Credential<'a>>, one: Credential<'a>) -> Result<(), Failure> {
    if found.replace(one).is_some() {
        return Err(Fault::client(Kind::Malformed, "more than one credential").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn a_credential_is_found_wherever_it_may_be_and_only_once() {
        type Case<'a> = (
            &'a [(&'static str, &'static str)],
            &'a str,
            Result<Option<Credential<'a>>, Kind>,
        );
        let token = |t| Ok(Some(Credential::Token(t)));
        let key = |k| Ok(Some(Credential::Key(k)));
        let ambiguous = Err(Kind::Malformed);
        let cases: [Case<'_>; 16] = [
            (&[], "", Ok(None)),
            (&[], "token=&call_id=1", Ok(None)),
            (&[("authorization", "Bearer a.b.c")], "", token("a.b.c")),
            (&[("authorization", "bearer  a.b.c")], "", token("a.b.c")),
            (&[("authorization", "Bearer sk_1")], "", key("sk_1")),
            (&[("x-api-key", "sk_1")], "", key("sk_1")),
            (&[("authorization", "Basic eDp5")], "", token("")),
            (&[("authorization", "Bearer")], "", token("")),
            (&[], "token=a.b.c&call_id=1", token("a.b.c")),
            (&[], "token=sk_1", token("sk_1")),
            (&[("sec-websocket-protocol", "bearer, a.b.c")], "", token("a.b.c")),
            (&[("sec-websocket-protocol", "chat, bearer")], "", Ok(None)),
            (&[], "token=a&token=a", ambiguous),
            (&[("authorization", "Bearer a")], "token=a", ambiguous),
            (
                &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
                "",
                ambiguous,
            ),
            (&[("authorization", "Bearer a"), ("x-api-key", "sk_1")], "", ambiguous),
        ];
        for (headers, query, expected) in cases {
            let parts = parts(headers);
            let query = Form::parse(query.as_bytes()).unwrap();
            let found = socket_credential(&parts, &query).map_err(|f| f.fault.kind);
            assert_eq!(found, expected, "{headers:?} {query:?}");
        }
    }
}
