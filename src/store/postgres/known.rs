//! What this daemon knows of the database without asking: enough to answer for a batch while the database is away.
//!
//! The ids of events go on from where they stood, and webhooks that it has seen itself are recognised. What only the database
//! can know comes out when it is back: another daemon may have taken an id, or seen a webhook first.

use crate::{
    base::ids::TenantId,
    store::{Batch, Write},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
};

/// Webhooks that are remembered.
const SEEN: usize = 100_000;

/// The last event of every tenant, and the latest webhooks.
#[derive(Debug, Default)]
pub(super) struct Known {
    last_event: HashMap<TenantId, i64>,
    hasher: RandomState,
    seen: HashSet<u64>,
    /// The same, oldest first.
    order: VecDeque<u64>,
}

impl Known {
    /// The last event of a tenant, from the database.
    pub(super) fn set_last_event(&mut self, tenant: TenantId, id: i64) {
        self.last_event.insert(tenant, id);
    }

    /// A batch was applied, and its events got these ids.
    pub(super) fn learn(&mut self, batch: &Batch, event_ids: &[i64]) {
        let mut ids = event_ids.iter();
        for write in &batch.writes {
            match write {
                Write::Event { tenant, .. } => {
                    if let Some(id) = ids.next() {
                        let last = self.last_event.entry(*tenant).or_default();
                        *last = (*last).max(*id);
                    }
                }
                Write::Seen { vendor, key } => self.remember(vendor, key),
                _ => {}
            }
        }
    }

    /// Answers for a batch: the ids of its events, which are theirs from now on, or `None` where a webhook was seen before.
    pub(super) fn judge(&mut self, batch: &Batch) -> Option<Vec<i64>> {
        let again = |write: &Write| match write {
            Write::Seen { vendor, key } => self.seen.contains(&self.hasher.hash_one((vendor, key))),
            _ => false,
        };
        if batch.writes.iter().any(again) {
            return None;
        }
        let mut next = HashMap::new();
        let mut number = |write: &Write| match write {
            Write::Event { tenant, .. } => {
                let last = next
                    .entry(*tenant)
                    .or_insert_with(|| self.last_event.get(tenant).copied().unwrap_or(0));
                *last += 1;
                Some(*last)
            }
            _ => None,
        };
        let ids: Vec<i64> = batch.writes.iter().filter_map(&mut number).collect();
        self.learn(batch, &ids);
        Some(ids)
    }

    fn remember(&mut self, vendor: &str, key: &str) {
        let hash = self.hasher.hash_one((vendor, key));
        if self.seen.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > SEEN {
            self.order.pop_front().map(|oldest| self.seen.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{batch, call, event};

    fn seen(key: &str) -> Write {
        Write::Seen {
            vendor: "acme",
            key: key.into(),
        }
    }

    #[test]
    fn ids_go_on_for_each_tenant_from_where_they_stood() {
        let mut known = Known::default();
        known.set_last_event(TenantId(1), 41);
        let (a, b) = (call(TenantId(1)), call(TenantId(2)));
        let mixed = batch([event(&a, "1"), event(&b, "2"), event(&a, "3")]);
        assert_eq!(known.judge(&mixed), Some(vec![42, 1, 43]));
        known.learn(&batch([event(&a, "4")]), &[44]);
        assert_eq!(known.judge(&mixed), Some(vec![45, 2, 46]));
    }

    #[test]
    fn a_webhook_seen_before_takes_no_ids() {
        let mut known = Known::default();
        let row = call(TenantId(1));
        known.learn(&batch([seen("a")]), &[]);
        assert_eq!(known.judge(&batch([event(&row, "1"), seen("a")])), None);
        assert_eq!(known.judge(&batch([seen("b"), event(&row, "2")])), Some(vec![1]));
        assert_eq!(known.judge(&batch([seen("b")])), None);
    }

    #[test]
    fn the_oldest_webhooks_are_forgotten() {
        let mut known = Known::default();
        for n in 0..=SEEN {
            known.learn(&batch([seen(&n.to_string())]), &[]);
        }
        assert_eq!(known.judge(&batch([seen("1")])), None);
        assert_eq!(known.judge(&batch([seen("0")])), Some(vec![]));
        assert_eq!(known.seen.len(), known.order.len());
    }
}
