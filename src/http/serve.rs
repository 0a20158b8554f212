//! One connection: HTTP/1.1 with its times and sizes held, upgrades included.

use super::{Config, Guarded, Peer};
use crate::net::listen::Permit;
use axum::{Router, body::Body};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves a connection until it is done, upgraded or idle too long. An upgraded connection goes on as
/// `TokioIo<Guarded<I>>` with whoever took it, `permit` included, which is vouched for once a request proves who it is from. When `drain` is
/// done, the request at hand is the last.
pub async fn connection<I>(
    io: I,
    router: Router,
    config: &Config,
    peer: Peer,
    permit: Option<Permit>,
    drain: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answered = Arc::new(AtomicUsize::new(0));
    let io = Guarded::new(io, config, answered.clone(), permit.clone());
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(permit) = &permit {
            request.extensions_mut().insert(permit.clone());
        }
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let answer = hyper::service::Service::call(&routes, request.map(Body::new));
        let answered = answered.clone();
        async move {
            let mut answer = answer.await;
            answered.fetch_add(1, Relaxed);
            // Whoever asked for another protocol and did not get it starts anew.
            if let Ok(answer) = &mut answer
                && upgrade
                && answer.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                answer
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // To the library, waiting for the next request is reading its head.
        .header_read_timeout(config.keep_alive.max(config.header_timeout))
        .max_headers(config.headers)
        .max_header_size(config.header_bytes)
        .max_buf_size(config.header_bytes.max(16 * 1024) * 2)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();

    let (mut connection, mut drain) = (pin!(connection), pin!(drain));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain.as_mut() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
