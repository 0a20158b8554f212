//! Sends a request to a vendor with the patience its 429 asks for. Whatever else fails is tried again only where the vendor
//! recognises a repetition: elsewhere only a refused request was surely not carried out.

use crate::{
    base::fault::{Fault, Kind, Origin},
    net::client::{ApiReply, ApiRequest, ClientError, HttpClient},
};
use std::time::Duration;

/// Requests sent in all when the vendor says "too many".
const TRIES: u32 = 3;
/// Waited when the vendor does not say how long.
const WAIT: Duration = Duration::from_secs(1);
/// Waited before a request that may have been carried out is repeated.
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// Nobody waits longer than this for one more try.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The reply, whatever its status. A fault of kind `Timeout` means that nobody knows what the vendor did; one that may be tried
/// again, that the vendor never heard of it. `repeatable` says that the vendor carries out the same request once, however
/// often it is sent.
pub(super) async fn send(http: &HttpClient, request: ApiRequest, repeatable: bool) -> Result<ApiReply, Fault> {
    let mut tries = 1;
    loop {
        let result = http.send(request.clone()).await;
        let wait = match &result {
            Ok(reply) if reply.status == 429 => Some(reply.retry_after.unwrap_or(WAIT)),
            Ok(reply) if repeatable && reply.status >= 500 => Some(reply.retry_after.unwrap_or(SHORT_WAIT)),
            Err(error) if repeatable && error.was_sent() => Some(SHORT_WAIT),
            _ => None,
        };
        match wait.filter(|wait| tries < TRIES && *wait <= MAX_WAIT) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return result.map_err(fault),
        }
        tries += 1;
    }
}

fn fault(error: ClientError) -> Fault {
    let kind = match error {
        ClientError::Url => Kind::BadGateway,
        ref error if error.was_sent() => Kind::Timeout,
        _ => Kind::Unavailable,
    };
    Fault::new(Origin::Vendor, kind, error.to_string())
}
