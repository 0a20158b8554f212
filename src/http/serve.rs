//! One connection: HTTP/1.1 with its times and sizes held, upgrades included.

use super::{Config, Peer};
use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

/// Why a connection ended otherwise than by its peer's leave.
#[derive(Debug)]
pub enum ServeError {
    /// No whole request head came in time.
    Slow,
    /// What came was no HTTP, or the connection broke.
    Http(hyper::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow => f.write_str("no request in time"),
            Self::Http(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves a connection until it is done, upgraded or idle too long. An upgraded connection goes on as
/// `TokioIo<I>` with whoever took it. When `drain` is done, the request at hand is the last.
pub async fn connection<I>(
    io: I,
    router: Router,
    config: &Config,
    peer: Peer,
    drain: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicBool::new(false));
    let routes = TowerToHyperService::new(router);
    let service = {
        let begun = begun.clone();
        service_fn(move |mut request: Request<Incoming>| {
            begun.store(true, Relaxed);
            request.extensions_mut().insert(peer);
            hyper::service::Service::call(&routes, request.map(Body::new))
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // To the library, waiting for the next request is reading its head.
        .header_read_timeout(config.keep_alive.max(config.header_timeout))
        .max_headers(config.headers)
        .max_header_size(config.header_bytes)
        .max_buf_size(config.header_bytes.max(16 * 1024) * 2)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();

    let (mut connection, mut drain, mut first) = (pin!(connection), pin!(drain), pin!(sleep(config.header_timeout)));
    let (mut draining, mut waited) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(ServeError::Http),
            () = first.as_mut(), if !waited => {
                waited = true;
                if !begun.load(Relaxed) {
                    return Err(ServeError::Slow);
                }
            }
            () = drain.as_mut(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
