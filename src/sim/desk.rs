//! The REST interface of a simulated vendor: takes the daemon's requests on a real socket and lets the simulated vendor say
//! what they do.

use crate::{
    base::{secret::Secret, time::Wall},
    vendor::{HookRequest, Peer, PeerOrder},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, io, net::SocketAddr};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// The largest request that is read.
const MAX_BODY: usize = 64 * 1024;
/// Requests that may wait for the simulated vendor.
const WAITING: usize = 16;

/// The interface, open.
#[derive(Debug)]
pub struct Desk {
    address: SocketAddr,
    requests: mpsc::Receiver<Asked>,
    server: JoinHandle<()>,
}

/// A request that waits for its reply.
#[derive(Debug)]
pub struct Asked {
    head: Parts,
    body: Bytes,
    reply: oneshot::Sender<(u16, String)>,
}

impl Desk {
    /// Serves at an address. Must be called within a runtime.
    pub async fn open(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let (asked, requests) = mpsc::channel(WAITING);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let asked = asked.clone();
                let service = service_fn(move |request| take(asked.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self {
            address,
            requests,
            server,
        })
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request.
    pub async fn next(&mut self) -> Option<Asked> {
        self.requests.recv().await
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Asked {
    /// Where the request goes.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Leaves the first segment of the path away, if it is this one: several vendors may share a desk.
    pub fn enter(&mut self, segment: &str) -> bool {
        let rest = self.head.uri.path_and_query().and_then(|p| {
            let rest = p.as_str().strip_prefix('/')?.strip_prefix(segment)?;
            rest.starts_with('/').then(|| rest.parse().ok()).flatten()
        });
        match rest {
            Some(rest) => self.head.uri = rest,
            None => return false,
        }
        true
    }

    /// What it says.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Replies without asking the simulated vendor: for outages.
    pub fn refuse(self, status: u16, body: &str) {
        let _ = self.reply.send((status, body.to_owned()));
    }

    /// Lets the simulated vendor take the request, replies, and says what became of the call.
    pub fn carry_out(self, peer: &mut dyn Peer, key: Option<&Secret>) -> PeerOrder {
        let request = HookRequest {
            method: self.head.method.as_str(),
            path_and_query: self.head.uri.path_and_query().map_or("", |p| p.as_str()),
            headers: &self.head.headers,
            body: &self.body,
            public_base: "",
            by_number: false,
            client: None,
            received_at: Wall::now(),
        };
        let (reply, order) = match peer.command(&request, key) {
            Some(reply) => ((reply.status, reply.body), reply.order),
            None => ((404, String::new()), PeerOrder::Nothing),
        };
        // Whoever asked may have lost patience; what was done is done.
        let _ = self.reply.send(reply);
        order
    }
}

async fn take(asked: mpsc::Sender<Asked>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (reply, replied) = oneshot::channel();
    let (status, text) = match Limited::new(body, MAX_BODY).collect().await {
        Err(_) => (413, String::new()),
        Ok(body) => {
            let body = body.to_bytes();
            let _ = asked.send(Asked { head, body, reply }).await;
            replied.await.unwrap_or((503, String::new()))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}
