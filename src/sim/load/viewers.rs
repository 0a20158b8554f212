//! Frontends that listen on `/frontend-audio` while calls are measured, each to one call, in the vendor's own format. What they
//! are sent is counted and not read further.

use super::Plan;
use crate::{
    base::time::Mono,
    net::client::{ApiRequest, HttpClient},
    sim::frames::{self, CLOSE, PING, PONG, TEXT},
};
use bytes::{Buf, BytesMut};
use http::{HeaderMap, Method};
use memchr::memmem;
use serde::Deserialize;
use std::{cell::RefCell, io, rc::Rc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// How long calls may take until the daemon lists all of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where in a message its kind is.
const HEAD: usize = 200;

/// What all viewers were sent.
#[derive(Debug, Default)]
pub(super) struct Viewed {
    /// Whether this is the window that is measured.
    pub(super) counts: bool,
    /// Messages with audio, within the window.
    pub(super) media: u64,
    /// Messages that say that audio was left out.
    pub(super) gaps: u64,
    /// Sockets that broke.
    pub(super) broken: u64,
}

/// Connects the viewers, spread over the live calls. Needs a daemon that asks for no credentials.
pub(super) async fn open(plan: &Plan) -> io::Result<Rc<RefCell<Viewed>>> {
    let viewed = Rc::new(RefCell::new(Viewed::default()));
    if plan.viewers == 0 {
        return Ok(viewed);
    }
    let calls = live_calls(plan).await?;
    for call in calls.iter().cycle().take(plan.viewers) {
        let mut stream = plan.daemon.connect().await?;
        let path = format!("/frontend-audio?call_id={call}&format=native");
        let inbox = frames::connect(&mut stream, &plan.daemon.authority(), &path).await?;
        tokio::task::spawn_local(watch(stream, inbox, viewed.clone()));
    }
    Ok(viewed)
}

/// The ids of the calls, once all of them stream.
async fn live_calls(plan: &Plan) -> io::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Live>,
    }
    #[derive(Deserialize)]
    struct Live {
        id: String,
    }
    let client = HttpClient::new();
    let deadline = Mono::now() + PATIENCE;
    loop {
        let request = ApiRequest {
            method: Method::GET,
            url: plan.daemon.at("http", "/api/calls/active"),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            timeout: PATIENCE,
        };
        let reply = client.send(request).await.map_err(io::Error::other)?;
        let list: List = serde_json::from_slice(&reply.body)
            .map_err(|e| io::Error::other(format!("/api/calls/active (status {}): {e}", reply.status)))?;
        if list.data.len() >= plan.calls {
            return Ok(list.data.into_iter().map(|live| live.id).collect());
        }
        if Mono::now() > deadline {
            let (n, of) = (list.data.len(), plan.calls);
            return Err(io::Error::other(format!("the daemon lists {n} live calls of {of}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Counts what one viewer is sent, until its socket ends.
async fn watch(mut stream: TcpStream, mut inbox: BytesMut, viewed: Rc<RefCell<Viewed>>) {
    // A socket that breaks is counted; when it is only closed, the call was over.
    if read(&mut stream, &mut inbox, &viewed).await.is_err() {
        viewed.borrow_mut().broken += 1;
    }
}

async fn read(stream: &mut TcpStream, inbox: &mut BytesMut, viewed: &RefCell<Viewed>) -> io::Result<()> {
    let mut pong = BytesMut::new();
    loop {
        while let Some(frame) = frames::next(inbox)? {
            let payload = &inbox[frame.begin..frame.end];
            match frame.opcode {
                TEXT => {
                    let head = &payload[..payload.len().min(HEAD)];
                    let mut viewed = viewed.borrow_mut();
                    if memmem::find(head, br#""event":"media""#).is_some() {
                        viewed.media += u64::from(viewed.counts);
                    } else if memmem::find(head, br#""event":"gap""#).is_some() {
                        viewed.gaps += 1;
                    }
                }
                PING => frames::put(&mut pong, PONG, payload, Some(super::MASK)),
                CLOSE => return Ok(()),
                _ => {}
            }
            inbox.advance(frame.end);
        }
        if !pong.is_empty() {
            stream.write_all(&pong).await?;
            pong.clear();
        }
        inbox.reserve(4096);
        stream.readable().await?;
        match stream.try_read_buf(inbox) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}
