//! Sends a request to a vendor with the patience its 429 asks for. Nothing else is tried again: only a refused request was surely not carried out.

use crate::{
    base::fault::{Fault, Kind, Origin},
    net::client::{ApiReply, ApiRequest, ClientError, HttpClient},
};
use std::time::Duration;

/// Requests sent in all when the vendor says "too many".
const TRIES: u32 = 3;
/// Waited when the vendor does not say how long.
const WAIT: Duration = Duration::from_secs(1);
/// Nobody waits longer than this for one more try.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The reply, whatever its status. A fault of kind `Timeout` means that nobody knows what the vendor did; one that may be tried
/// again, that the vendor never heard of it.
pub(super) async fn send(http: &HttpClient, request: ApiRequest) -> Result<ApiReply, Fault> {
    for _ in 1..TRIES {
        let reply = http.send(request.clone()).await.map_err(fault)?;
        let wait = reply.retry_after.unwrap_or(WAIT);
        if reply.status != 429 || wait > MAX_WAIT {
            return Ok(reply);
        }
        tokio::time::sleep(wait).await;
    }
    http.send(request).await.map_err(fault)
}

fn fault(error: ClientError) -> Fault {
    let kind = match error {
        ClientError::Url => Kind::BadGateway,
        ref error if error.was_sent() => Kind::Timeout,
        _ => Kind::Unavailable,
    };
    Fault::new(Origin::Vendor, kind, error.to_string())
}
