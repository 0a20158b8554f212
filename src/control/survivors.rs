//! Watches over the other nodes of a cluster: what a dead one left open is closed here and told, unless another has done so.
//!
//! A node is dead when its number in the database has stood still for a while *and* it is not heard on the bus: a node that has
//! lost one of the two goes on. No clocks are compared; the while is measured here, and begins anew when this node itself could
//! not look. Which of the survivors closes the calls is the database's decision.

use super::Shared;
use crate::{
    base::time::Mono,
    bus::{Event, News, Peers},
    store::{CallStatus, ClosedCall, NodeBeat},
    vendor::EndReason,
};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tracing::{debug, error, info, warn};

/// How often this node says that it lives, and looks who else does.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A node whose number stood still for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(6);
/// A look that came so late says nothing about how long the numbers stood still.
const BLINK: Duration = Duration::from_secs(3);

/// When the numbers last moved, as seen from here. Pure.
#[derive(Debug, Default)]
struct Watch {
    seen: HashMap<String, (i64, Mono)>,
    looked: Option<Mono>,
}

impl Watch {
    /// Looks at the numbers. Returns who is dead.
    fn look(&mut self, now: Mono, beats: Vec<NodeBeat>, is_heard: impl Fn(&str) -> bool) -> Vec<NodeBeat> {
        if self.looked.is_none_or(|at| now.since(at) > BLINK) {
            self.seen.clear();
        }
        self.looked = Some(now);
        self.seen.retain(|node, _| beats.iter().any(|b| b.node == *node));
        let mut dead = Vec::new();
        for beat in beats {
            let (last, since) = self.seen.entry(beat.node.clone()).or_insert((beat.beat, now));
            if *last != beat.beat {
                (*last, *since) = (beat.beat, now);
            } else if now.since(*since) >= DEAD_AFTER && !is_heard(&beat.node) {
                dead.push(beat);
            }
        }
        dead
    }
}

/// Watches for as long as the control plane lives.
pub(super) async fn watch(shared: Weak<Shared>, peers: Peers) {
    let mut watch = Watch::default();
    let mut away = false;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        match shared.deps.store.beat().await {
            Ok(beats) => {
                if std::mem::take(&mut away) {
                    info!("the beats of nodes are seen again");
                }
                let heard = peers.heard();
                for dead in watch.look(Mono::now(), beats, |node| heard.iter().any(|h| h == node)) {
                    bury(&shared, &dead).await;
                }
            }
            Err(fault) if !away => {
                away = true;
                warn!(%fault, "the beats of nodes are not seen: a node that dies now is noticed later");
            }
            Err(fault) => debug!(%fault, "the beats of nodes are not seen"),
        }
        drop(shared);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn bury(shared: &Shared, dead: &NodeBeat) {
    match shared.deps.store.bury(dead).await {
        Ok(closed) => {
            if !closed.is_empty() {
                warn!(
                    node = dead.node,
                    calls = closed.len(),
                    "a dead node's calls were closed as interrupted"
                );
            }
            for call in closed {
                shared.deps.bus.publish(Arc::new(news(call)));
            }
        }
        Err(fault) => error!(node = dead.node, %fault, "the calls of a dead node could not be closed yet"),
    }
}

fn news(closed: ClosedCall) -> Event {
    let row = closed.row;
    Event {
        tenant: row.tenant_id,
        call: row.call_id,
        id: Some(closed.event_id),
        at: closed.at,
        news: News::Status {
            status: CallStatus::Ended.as_str(),
            end_reason: Some(EndReason::Interrupted.as_str()),
            customer_number: row.customer_number,
            organization_number: row.organization_number,
            call_sid: row.call_sid,
            inbound: row.inbound,
            duration: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Mono = Mono::from_millis(100_000);

    fn beats(of: &[(&str, i64)]) -> Vec<NodeBeat> {
        let beat = |(node, beat): &(&str, i64)| NodeBeat {
            node: (*node).to_owned(),
            beat: *beat,
        };
        of.iter().map(beat).collect()
    }

    /// Looks every second while `a` stands still and `b` does not. When was who found dead?
    fn found(watch: &mut Watch, seconds: std::ops::Range<u64>, heard: &[&str]) -> Option<(u64, Vec<NodeBeat>)> {
        seconds.into_iter().find_map(|s| {
            let now = T0 + Duration::from_secs(s);
            let dead = watch.look(now, beats(&[("a", 7), ("b", s as i64)]), |n| heard.contains(&n));
            (!dead.is_empty()).then_some((s, dead))
        })
    }

    #[test]
    fn a_node_that_stands_still_and_is_not_heard_is_dead_and_no_other() {
        assert_eq!(found(&mut Watch::default(), 0..60, &[]), Some((6, beats(&[("a", 7)]))));
        assert_eq!(found(&mut Watch::default(), 0..60, &["a"]), None);
        let mut watch = Watch::default();
        assert_eq!(found(&mut watch, 0..30, &["a"]), None);
        assert_eq!(found(&mut watch, 30..60, &[]).map(|(s, _)| s), Some(30));
    }

    #[test]
    fn who_could_not_look_himself_begins_to_wait_anew() {
        let mut watch = Watch::default();
        assert_eq!(found(&mut watch, 0..5, &[]), None);
        assert_eq!(found(&mut watch, 20..60, &[]).map(|(s, _)| s), Some(26));
    }

    #[test]
    fn a_node_that_comes_back_is_new() {
        let mut watch = Watch::default();
        assert!(found(&mut watch, 0..60, &[]).is_some());
        assert!(
            watch
                .look(T0 + Duration::from_secs(7), beats(&[("b", 7)]), |_| false)
                .is_empty()
        );
        assert_eq!(found(&mut watch, 8..60, &[]).map(|(s, _)| s), Some(14));
    }
}
