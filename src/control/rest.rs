//! Sends a request to a vendor with the patience its 429 asks for. Whatever else fails is tried again only where the vendor
//! recognises a repetition: elsewhere only a refused request was surely not carried out.

use crate::{
    base::fault::{Fault, Kind, Origin},
    net::client::{ApiReply, ApiRequest, ClientError, HttpClient},
    vendor::{CallAction, Descriptor, Trunk},
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

/// Asks a vendor for what `request` says, and reads its reply: the vendor's id of the call, where it tells one, and the reply. A
/// fault names the vendor, in its own words where there are any.
pub(super) async fn ask(
    http: &HttpClient,
    vendor: &Descriptor,
    trunk: &dyn Trunk,
    action: &CallAction<'_>,
    request: ApiRequest,
) -> Result<(String, ApiReply), Fault> {
    // What only asks may be asked again.
    let repeatable = trunk.handling().repeatable || matches!(action, CallAction::Details);
    let reply = send(http, request, repeatable).await.map_err(|e| fault(vendor, &e))?;
    match trunk.reply(action, reply.status, &reply.body) {
        Ok(sid) => Ok((sid, reply)),
        Err(fault) => Err(Fault {
            retry_after: reply.retry_after,
            ..fault
        }),
    }
}

/// The reply, whatever its status. `repeatable` says that the vendor carries out the same request once, however often it is sent.
async fn send(http: &HttpClient, request: ApiRequest, repeatable: bool) -> Result<ApiReply, ClientError> {
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
            None => return result,
        }
        tries += 1;
    }
}

/// Why there is no reply.
fn fault(vendor: &Descriptor, error: &ClientError) -> Fault {
    let (kind, to_do) = match error {
        ClientError::Url => (Kind::BadGateway, "check base_url"),
        ClientError::Connect { .. } => (
            Kind::Unavailable,
            "nothing was sent: check base_url and the network, or try again",
        ),
        ClientError::NotPublic { .. } => (Kind::Conflict, "correct the base URL of the number's account"),
        ClientError::Timeout { .. } => (Kind::Timeout, "nobody knows whether it was done"),
        ClientError::Broken { .. } | ClientError::TooLarge { .. } => {
            (Kind::BadGateway, "nobody knows whether it was done")
        }
    };
    let message = format!("{}: {error}: {to_do}", vendor.title);
    Fault {
        in_doubt: error.was_sent(),
        ..Fault::new(Origin::Vendor, kind, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::settings::{Faults, Item, Place, Section, Table, Value},
        vendor::{Answer, VENDORS},
    };
    use std::sync::Arc;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// The reply of a server, whole; `None` never comes, and an empty one is a connection that ends.
    async fn server(reply: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let reply = reply.clone();
                tokio::spawn(async move {
                    let mut head = vec![0; 16 * 1024];
                    let _ = socket.read(&mut head).await;
                    match reply {
                        Some(reply) => drop(socket.write_all(reply.as_bytes()).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        base
    }

    fn account(vendor: &Descriptor, base: &str) -> Arc<dyn Trunk> {
        let item = |text: &str| Item {
            value: Value::String(text.replace("{base}", base)),
            place: Place::Line(1),
        };
        let table: Table = vendor
            .simulated
            .iter()
            .map(|(k, v)| ((*k).to_owned(), item(v)))
            .collect();
        let faults = Faults::default();
        let section = Section::root(&table, &faults);
        let trunk = (vendor.trunk)(&section);
        assert!(faults.take().is_empty(), "{}", vendor.title);
        trunk
    }

    async fn dialled(vendor: &Descriptor, reply: Option<String>) -> Fault {
        let trunk = account(vendor, &server(reply).await);
        let answer = Answer::Stream {
            url: "wss://relay.example.com/s".into(),
            token: "t".into(),
            status_url: String::new(),
            session_id: "s".into(),
        };
        let action = CallAction::Dial {
            call: "1",
            agent: "human",
            to: "+15550102",
            from: "+15550101",
            answer: &answer,
            answer_url: "https://relay.example.com/h",
            status_url: "https://relay.example.com/st",
            ring: Duration::from_secs(30),
        };
        let mut request = trunk.request("", &action).unwrap();
        request.timeout = Duration::from_millis(300);
        let asked = ask(&HttpClient::new(), vendor, &*trunk, &action, request).await;
        asked.expect_err("a call that was not placed")
    }

    fn http(status: u16, body: &str) -> Option<String> {
        let length = body.len();
        Some(format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nretry-after: 17\r\nconnection: close\r\n\r\n{body}"
        ))
    }

    /// Errors as the vendors write them, all in one.
    const IN_JSON: &str = r#"{"code":"4711","message":"No luck","errors":[{"code":"4711","detail":"No luck"}],
        "RestException":{"Code":"4711","Message":"No luck"}}"#;
    const IN_XML: &str = "<response><status>error</status><message>No luck</message></response>";

    #[tokio::test]
    async fn whatever_a_vendor_says_is_told_with_its_name_its_words_and_what_to_do() {
        for vendor in VENDORS {
            for (status, kind, in_doubt, to_do) in [
                (302, Kind::BadGateway, false, "check base_url"),
                (400, Kind::Invalid, false, ""),
                (401, Kind::BadGateway, false, "check "),
                (403, Kind::BadGateway, false, "check "),
                (404, Kind::BadGateway, false, "base_url"),
                (422, Kind::Invalid, false, ""),
                (429, Kind::TooMany, false, "try again later"),
                (500, Kind::BadGateway, true, "may have been placed"),
                (502, Kind::BadGateway, true, "may have been placed"),
                (503, Kind::BadGateway, false, "try again in a moment"),
            ] {
                let mut heard = Vec::new();
                for body in [IN_JSON, IN_XML, "<html>oh no</html>", "\u{7}{", ""] {
                    let fault = dialled(vendor, http(status, body)).await;
                    let message = &*fault.message;
                    let told = format!("{} {status} {body:?}: {fault:?}", vendor.title);
                    assert_eq!((fault.kind, fault.in_doubt), (kind, in_doubt), "{told}");
                    assert_eq!(fault.origin, Origin::Vendor, "{told}");
                    assert_eq!(fault.retry_after, Some(Duration::from_secs(17)), "{told}");
                    assert!(message.starts_with(&format!("{}: ", vendor.title)), "{told}");
                    assert!(message.contains(to_do) && !message.contains('\u{7}'), "{told}");
                    assert!(
                        message.contains(&format!("status {status}")) || message.contains("4711"),
                        "{told}"
                    );
                    heard.push(message.contains("No luck"));
                }
                assert!(heard[0] || heard[1], "{}'s own words are passed on", vendor.title);
                assert_eq!(heard[2..], [false; 3]);
            }
            for garbage in ["", "{}", "<html>welcome</html>"] {
                let fault = dialled(vendor, http(200, garbage)).await;
                assert_eq!(fault.kind, Kind::BadGateway, "{fault:?}");
                assert!(
                    fault.message.contains(vendor.title) && fault.message.contains("base_url"),
                    "{fault:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_vendor_that_says_nothing_is_named_and_nobody_claims_to_know_what_it_did() {
        for vendor in VENDORS {
            for (reply, kind) in [
                (None, Kind::Timeout),
                (Some(String::new()), Kind::BadGateway),
                (Some("no http\r\n\r\n".to_owned()), Kind::BadGateway),
            ] {
                let fault = dialled(vendor, reply.clone()).await;
                let message = &*fault.message;
                assert_eq!((fault.kind, fault.in_doubt), (kind, true), "{reply:?} {fault:?}");
                assert!(message.starts_with(&format!("{}: ", vendor.title)), "{message}");
                assert!(message.ends_with("nobody knows whether it was done"), "{message}");
            }
            let gone = account(vendor, "http://127.0.0.1:1");
            let request = gone.request("c", &CallAction::Details);
            if let Some(request) = request {
                let asked = ask(&HttpClient::new(), vendor, &*gone, &CallAction::Details, request).await;
                let fault = asked.unwrap_err();
                assert_eq!((fault.kind, fault.in_doubt), (Kind::Unavailable, false), "{fault:?}");
                assert!(fault.message.contains("nothing was sent"), "{fault:?}");
            }
        }
    }
}
