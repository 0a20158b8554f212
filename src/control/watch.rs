//! Watches over the tasks of calls: one that panics ends its own call, and no other notices.

use super::{
    Shared,
    directory::{Entry, lock},
    news,
    talk::{End, Talk},
};
use crate::{
    base::{fault::Fault, time::Wall},
    bus::{Event, News},
    media::LegCommand,
    metrics,
    store::{AFTER_CALL, Batch, CallChange, CallStatus, Committed, JobRow, JobState, Write},
    vendor::EndReason,
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tracing::{debug, error, warn};

/// How long another node may take to write down that a call is its own.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Runs a call's task to its end, whatever end that is.
pub(super) async fn watch_over(shared: Arc<Shared>, entry: Arc<Entry>, mut talk: Box<Talk>) {
    let outcome = AssertUnwindSafe(talk.run()).catch_unwind().await;
    drop(talk);
    match outcome {
        Ok(End::Over) => hurry(&shared, &entry).await,
        Ok(End::Left) => {
            shared.pending.revoke(entry.call);
            shared.directory.leave(entry.call);
            return reclaim(&shared, &entry).await;
        }
        Err(_) => {
            error!("the call's task panicked: the call is ended");
            metrics::counter(metrics::panics_total, &[("kind", "call")]).increment(1);
            if let Err(fault) = bury(&shared, &entry, EndReason::Failed, None).await {
                error!(%fault, "the end of a panicked call could not be stored");
            }
        }
    }
    shared.pending.revoke(entry.call);
    shared.directory.remove(entry.call);
}

/// All of the call is on record: what is done after it need not wait any longer.
async fn hurry(shared: &Shared, entry: &Entry) {
    let Some(row) = entry.show().map(|call| call.row) else {
        return;
    };
    let now = Wall::now();
    let moved = JobRow::after_call(&row, now, now).moved(JobState::Queued, 0, now, None);
    let writes = vec![Write::JobMove(Box::new(moved))];
    if let Err(fault) = shared.deps.store.commit(Batch { writes }).await {
        debug!(%fault, "what is done after the call waits for its time");
    }
}

/// Ends a call that was let go of and that no other node has taken in time.
async fn reclaim(shared: &Shared, entry: &Entry) {
    let Some(me) = shared.deps.store.node() else { return };
    tokio::time::sleep(TAKEN_WITHIN).await;
    loop {
        let first = Write::Carry {
            call_id: entry.call,
            from: me.to_owned(),
        };
        match bury(shared, entry, EndReason::Interrupted, Some(first)).await {
            Ok(()) => {
                return warn!(call = %entry.call, "a call that was let go of was not taken by another node: it is ended");
            }
            Err(fault) if fault.retryable() => tokio::time::sleep(TAKEN_WITHIN).await,
            // Another node has it.
            Err(_) => return,
        }
    }
}

/// Ends a call without its task, behind the write of `first`: closes the socket and the record. What the task had not stored yet is
/// lost.
async fn bury(shared: &Shared, entry: &Entry, reason: EndReason, first: Option<Write>) -> Result<(), Fault> {
    if let Some(leg) = lock(&entry.leg).take() {
        let _ = leg.try_send(LegCommand::Close {
            code: 1011,
            reason: "internal error",
        });
    }
    let shown = entry.show().map(|call| call.row);
    if shown.as_ref().is_some_and(|row| row.status == CallStatus::Ended) {
        return Ok(());
    }
    let at = Wall::now();
    let answered = shown.as_ref().and_then(|row| row.answered_at).unwrap_or(at);
    let sid = shown.map_or_else(|| format!("pending:{}", entry.call), |row| row.call_sid);
    let change = CallChange {
        call_id: Some(entry.call),
        status: Some(CallStatus::Ended),
        end_reason: Some(reason),
        end_time: Some(at),
        duration: Some((at.as_secs() - answered.as_secs()).max(0)),
        ..CallChange::default()
    };
    let (ours, customer) = entry.parties.clone();
    let news = News::Status {
        status: CallStatus::Ended.as_str(),
        end_reason: Some(reason.as_str()),
        customer_number: customer,
        organization_number: ours,
        call_sid: sid,
        inbound: entry.inbound,
        duration: change.duration,
    };
    let (tenant, call) = (entry.tenant, entry.call);
    let payload = news::payload(call, at, &news).unwrap_or_default().to_string();
    let closing = [
        Write::CallChange(Box::new(change)),
        Write::Event {
            tenant,
            call_id: call,
            payload,
        },
        Write::Job(Box::new(JobRow::new(AFTER_CALL, tenant, call, at, at))),
    ];
    let writes = first.into_iter().chain(closing).collect();
    if let Committed::Done { event_ids } = shared.deps.store.commit(Batch { writes }).await? {
        let id = event_ids.first().copied();
        shared.deps.bus.publish(Arc::new(Event {
            tenant,
            call,
            id,
            at,
            news,
        }));
    }
    Ok(())
}
