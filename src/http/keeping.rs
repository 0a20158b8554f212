//! What is kept of calls, over REST: erasure, legal holds, and how long a tenant keeps what.

use super::{
    Shared, body,
    respond::{Answer, data, done},
};
use crate::{
    access::Identity,
    base::fault::{Fault, Kind},
    jobs,
    store::{Batch, Retention, Scope, Write},
};
use axum::{
    Extension,
    extract::{Path, Request, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of an erasure.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Erased {
    /// Our id of the call.
    id: String,
    /// What of it: `audio`, `text`, `all`.
    erased: &'static str,
    /// Whether it is gone. Where not, a job goes on with it; see `/api/jobs`.
    finished: bool,
}

/// `DELETE /api/calls/{id}`
pub(super) async fn erase_call(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    erase(&shared, &who, &id, Scope::All).await
}

/// `DELETE /api/calls/{id}/recording`
pub(super) async fn erase_audio(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    erase(&shared, &who, &id, Scope::Audio).await
}

/// `DELETE /api/calls/{id}/transcript`
pub(super) async fn erase_text(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    erase(&shared, &who, &id, Scope::Text).await
}

async fn erase(shared: &Shared, who: &Identity, id: &str, scope: Scope) -> Answer {
    // As stored: what a live call has in memory is not to be erased yet.
    let call = shared.store.call(who.tenant, id).await?;
    let call = call.ok_or_else(|| Fault::not_found("call"))?;
    let finished = shared.eraser.erase(&call, scope, &who.subject).await?;
    let erased = Erased {
        id: call.call_id.to_string(),
        erased: scope.as_str(),
        finished,
    };
    let message = match finished {
        true => "Erased",
        false => "The erasure has begun",
    };
    Ok(done(erased, message))
}

/// Whether a call is under legal hold.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Held {
    /// Our id of the call.
    id: String,
    /// Whether nothing of it may be erased.
    legal_hold: bool,
}

/// `POST /api/calls/{id}/hold`
pub(super) async fn hold(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    set_hold(&shared, &who, &id, true).await
}

/// `DELETE /api/calls/{id}/hold`
pub(super) async fn release(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    set_hold(&shared, &who, &id, false).await
}

async fn set_hold(shared: &Shared, who: &Identity, id: &str, held: bool) -> Answer {
    let call = shared.store.call(who.tenant, id).await?;
    let call_id = call.ok_or_else(|| Fault::not_found("call"))?.call_id;
    let writes = vec![Write::Hold { call_id, held }];
    shared.store.commit(Batch { writes }).await?;
    tracing::info!(
        target: "sidetone::audit",
        tenant = who.tenant.0,
        call = %call_id,
        held,
        by = who.subject,
        "audit: legal hold"
    );
    let shown = Held {
        id: call_id.to_string(),
        legal_hold: held,
    };
    Ok(done(shown, if held { "Call held" } else { "Call released" }))
}

/// How long calls are kept after their end.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Retention")]
pub(super) struct Kept {
    /// Recordings: `forever`, or a time such as `90d`.
    audio: String,
    /// What was said, the same.
    text: String,
    /// `tenant` where the tenant has a rule of its own, `config` where the operator's holds.
    source: &'static str,
}

/// What is wanted of it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RetentionBody {
    /// Recordings: `forever`, or a time such as `90d`. As it is when left out.
    audio: Option<String>,
    /// What was said, the same.
    text: Option<String>,
}

/// `GET /api/retention`
pub(super) async fn retention(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    Ok(data(shown(&shared, own(&shared, &who).await?)))
}

/// `PUT /api/retention`
pub(super) async fn set_retention(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, wanted): (_, RetentionBody) = body::of(&shared, request).await?;
    let mut rule = own(&shared, &who).await?.unwrap_or(shared.retention);
    for (name, wanted, kept) in [
        ("audio", &wanted.audio, &mut rule.audio),
        ("text", &wanted.text, &mut rule.text),
    ] {
        let Some(text) = wanted else { continue };
        let invalid = || Fault::client(Kind::Invalid, format!("{name} is {}", jobs::KEPT_HINT));
        *kept = jobs::read_kept(text).ok_or_else(invalid)?;
    }
    store(&shared, &who, Some(rule)).await?;
    Ok(done(shown(&shared, Some(rule)), "Retention changed"))
}

/// `DELETE /api/retention`
pub(super) async fn reset_retention(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    store(&shared, &who, None).await?;
    Ok(done(shown(&shared, None), "The operator's retention holds"))
}

async fn own(shared: &Shared, who: &Identity) -> Result<Option<Retention>, Fault> {
    let found = shared.store.retention(Some(who.tenant)).await?;
    Ok(found.into_iter().find_map(|(_, rule)| rule))
}

async fn store(shared: &Shared, who: &Identity, retention: Option<Retention>) -> Result<(), Fault> {
    let tenant = who.tenant;
    let writes = vec![Write::Retention { tenant, retention }];
    shared.store.commit(Batch { writes }).await?;
    let Kept { audio, text, source } = shown(shared, retention);
    tracing::info!(
        target: "sidetone::audit",
        tenant = tenant.0,
        audio,
        text,
        source,
        by = who.subject,
        "audit: retention changed"
    );
    Ok(())
}

fn shown(shared: &Shared, own: Option<Retention>) -> Kept {
    let rule = own.unwrap_or(shared.retention);
    Kept {
        audio: jobs::show_kept(rule.audio),
        text: jobs::show_kept(rule.text),
        source: if own.is_some() { "tenant" } else { "config" },
    }
}
