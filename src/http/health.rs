//! Whether the daemon lives, whether it takes new calls, and its metrics.

use super::Shared;
use crate::{control::Strain, metrics::Renderer};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether the daemon is open for new calls. Set by whoever starts and stops it.
#[derive(Debug, Default)]
pub struct Readiness {
    started: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Everything is bound and running.
    pub fn start(&self) {
        self.started.store(true, Relaxed);
    }

    /// No new calls from now on.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether live calls are the last ones.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

/// Whether the process lives.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Alive {
    /// `ok`, or `draining` while it takes no new calls and stops.
    status: &'static str,
}

/// Whether new calls are welcome.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// `ready` or `unavailable`.
    status: &'static str,
    /// Why not: starting, draining, storage, late, memory, full.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<&'static str>>,
    /// What is amiss without keeping calls away: `nodes` where the other nodes cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<&'static str>>,
}

/// `GET /health`: touches nothing, answers as long as the process does.
pub(super) async fn health(State(shared): State<Shared>) -> Response {
    let status = if shared.readiness.is_draining() {
        "draining"
    } else {
        "ok"
    };
    Json(Alive { status }).into_response()
}

/// `GET /ready`: 503 with the reasons while new calls are not welcome.
pub(super) async fn ready(State(shared): State<Shared>) -> Response {
    let mut reasons = Vec::new();
    if !shared.readiness.started.load(Relaxed) {
        reasons.push("starting");
    }
    if shared.readiness.is_draining() {
        reasons.push("draining");
    }
    let store = shared.store.health();
    if !store.writable || store.fill() > 0.8 {
        reasons.push("storage");
    }
    let strained = shared.control.strained().map(Strain::as_str);
    reasons.extend(strained.filter(|word| !reasons.contains(word)));
    if shared.media.admit().is_err() {
        reasons.push("full");
    }
    // Calls go on without the others, and where no node reached them, none would be left to take any.
    let alone = shared.control.is_cut_off();
    let warnings = alone.then(|| vec!["nodes"]);
    match reasons.as_slice() {
        [] => Json(Ready {
            status: "ready",
            reasons: None,
            warnings,
        })
        .into_response(),
        _ => {
            let body = Ready {
                status: "unavailable",
                reasons: Some(reasons),
                warnings,
            };
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// The router of the metrics listener.
pub fn metrics_router(renderer: Renderer) -> Router {
    let page = move || async move {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], renderer.render())
    };
    Router::new()
        .route("/metrics", get(page))
        .route("/health", get(async || Json(Alive { status: "ok" })))
}
