//! Retention: looks for calls that are older than their tenant keeps them, and erases what is too old. One erasure after the
//! other, each durable by itself, so a look that dies half way leaves nothing undone that the next one does not do.

use super::{Deps, Eraser};
use crate::{
    base::{fault::Kind, ids::TenantId, time::Wall},
    metrics,
    store::{Expired, Scope},
};
use std::time::Duration;
use tracing::{info, warn};

/// Calls of one tenant that are erased before it is the next one's turn.
const PAGE: usize = 100;
/// What the audit names as the cause.
const BY: &str = "retention";

/// Erases what is too old until it is dropped.
pub(super) async fn run(deps: &Deps) {
    let eraser = Eraser::of(deps);
    loop {
        // Somewhere a page was full: there is more.
        while look(deps, &eraser, Wall::now()).await {}
        tokio::time::sleep(deps.config.retention_every).await;
    }
}

/// Erases a page of each tenant's calls. Whether there is more that can be erased now.
async fn look(deps: &Deps, eraser: &Eraser, now: Wall) -> bool {
    let tenants = match deps.store.retention(None).await {
        Ok(tenants) => tenants,
        Err(fault) => {
            warn!(%fault, "what is too old could not be looked for");
            return false;
        }
    };
    let mut more = false;
    for (tenant, own) in tenants {
        let rule = own.unwrap_or(deps.config.retention);
        for scope in [Scope::Audio, Scope::Text] {
            if let Some(kept) = rule.of(scope) {
                more |= erase_page(deps, eraser, tenant, scope, before(now, kept)).await;
            }
        }
    }
    more
}

async fn erase_page(deps: &Deps, eraser: &Eraser, tenant: TenantId, scope: Scope, before: Wall) -> bool {
    let which = Expired {
        tenant,
        scope,
        before,
        limit: PAGE,
    };
    let calls = match deps.store.expired(which).await {
        Ok(calls) => calls,
        Err(fault) => {
            warn!(%fault, "what is too old could not be looked for");
            return false;
        }
    };
    let mut erased = 0;
    for call in &calls {
        match eraser.erase(call, scope, BY).await {
            Ok(true) => erased += 1,
            Ok(false) => {}
            // Another daemon was first, or a person wants it held.
            Err(fault) if fault.kind == Kind::Conflict => {}
            Err(fault) => {
                warn!(%fault, "what is too old could not be erased");
                return false;
            }
        }
    }
    if erased > 0 {
        metrics::counter(metrics::erased_total, &[("scope", scope.as_str())]).increment(erased);
        info!(
            tenant = tenant.0,
            scope = scope.as_str(),
            calls = erased,
            "what was too old is erased"
        );
    }
    // Where nothing could be erased, more would come to the same.
    erased > 0 && calls.len() == PAGE
}

fn before(now: Wall, kept: Duration) -> Wall {
    Wall::from_micros(now.as_micros().saturating_sub(kept.as_micros() as i64))
}

/// Reads how long something is kept: a time, or `forever`.
pub fn read_kept(text: &str) -> Option<Option<Duration>> {
    if text == FOREVER {
        return Some(None);
    }
    let kept = crate::base::settings::parse_duration(text)?;
    (SHORTEST..=LONGEST).contains(&kept).then_some(Some(kept))
}

/// Shows how long something is kept.
pub fn show_kept(kept: Option<Duration>) -> String {
    kept.map_or_else(|| FOREVER.to_owned(), crate::base::settings::show_duration)
}

/// Without an end.
const FOREVER: &str = "forever";
/// The shortest time something may be kept: whatever is done after a call is done by then, or given up.
const SHORTEST: Duration = Duration::from_secs(3600);
/// The longest: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// What `forever` and times are told as.
pub const KEPT_HINT: &str = "forever, or a time from 1h to 36500d, such as 90d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_something_is_kept_is_read_as_it_is_shown() {
        for text in ["forever", "1h", "90d", "36500d"] {
            assert_eq!(show_kept(read_kept(text).unwrap()), text);
        }
        for text in ["", "0s", "59m", "36501d", "ever", "90"] {
            assert_eq!(read_kept(text), None, "{text}");
        }
    }
}
