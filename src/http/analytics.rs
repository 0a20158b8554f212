//! Figures over REST: of one call, as the work after it left them, and of all calls that a filter finds.
//!
//! Figures of many calls are summed a page at a time, over at most [`MOST`] calls: what is said then is said to be incomplete.

use super::{
    Shared,
    calls::read_filter,
    respond::{Answer, data},
};
use crate::{
    access::Identity,
    base::{fault::Fault, time::Wall},
    store::{CallFilter, CallRow},
};
use axum::{
    Extension,
    extract::{Path, RawQuery, State},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Calls that are read at once.
const PAGE: usize = 200;
/// The most calls that are summed up.
const MOST: u64 = 50_000;
/// Latencies beyond it are counted as it.
const SLOWEST_MS: u64 = 60_000;
/// Names of one sort that are told apart.
const MOST_NAMES: usize = 200;
/// Stands for the names beyond them.
const OTHERS: &str = "(others)";
/// How far back is looked unless `from` says otherwise.
const DAYS: i64 = 30;

/// Figures of a call.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CallAnalytics {
    /// Our id.
    id: String,
    /// The vendor's id.
    call_id: String,
    /// Seconds from answer to end.
    duration: Option<i64>,
    /// Talk time each way, latencies, questions and answers; null until the work after the call is done.
    analytics: Value,
    /// What was used.
    usage: Value,
    /// What it cost, by the configured rates.
    cost: Value,
    /// Data in what was said, by the agent's schema.
    extracted: Value,
    /// Why something is missing in it.
    extraction: Value,
}

/// `GET /api/calls/{id}/analytics`
pub(super) async fn of_call(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    let row = shared.store.call(who.tenant, &id).await?;
    let row = row.ok_or_else(|| Fault::not_found("call"))?;
    let kept = |key: &str| row.metadata.get(key).cloned().unwrap_or_default();
    Ok(data(CallAnalytics {
        id: row.call_id.to_string(),
        call_id: row.call_sid.clone(),
        duration: row.duration,
        analytics: kept("analytics"),
        usage: kept("usage"),
        cost: kept("cost"),
        extracted: kept("extracted"),
        extraction: kept("extraction"),
    }))
}

/// Figures of many calls.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Analytics {
    /// Calls that began at this time or later.
    from: Option<Wall>,
    /// Calls that began before this time.
    until: Option<Wall>,
    /// Whether they are all in it: the newest 50,000 are.
    complete: bool,
    /// How many there are.
    calls: u64,
    /// How many of them came to us.
    inbound: u64,
    /// How many were answered.
    answered: u64,
    /// Seconds from answer to end, of all of them.
    duration_s: i64,
    /// Of the longest.
    longest_s: i64,
    /// How they ended.
    end_reasons: BTreeMap<String, u64>,
    /// Who carried them.
    providers: BTreeMap<String, u64>,
    /// Who served them.
    agents: BTreeMap<String, u64>,
    /// How long each side spoke.
    talk_ms: Talk,
    /// From the end of what the caller said to the answer that they heard.
    latency_ms: Latency,
    /// What they cost, by currency.
    cost: BTreeMap<String, f64>,
}

/// Milliseconds that each side spoke.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Talk {
    customer: u64,
    agent: u64,
}

/// How long callers waited for answers.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Latency {
    /// Answers.
    turns: u64,
    /// Half of them took no longer.
    median: Option<u64>,
    /// 95 of 100 took no longer.
    p95: Option<u64>,
    /// The slowest.
    worst: Option<u64>,
}

/// `GET /api/analytics?from&until&number&agent&vendor&text`
pub(super) async fn of_calls(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let mut filter = read_filter(query.as_deref().unwrap_or_default(), &[])?;
    filter.limit = PAGE;
    let past = || Wall::from_micros(Wall::now().as_micros() - DAYS * 86_400_000_000);
    filter.from = filter.from.or_else(|| Some(past()));
    Ok(data(sum(&shared, &who, filter).await?))
}

async fn sum(shared: &Shared, who: &Identity, mut filter: CallFilter) -> Result<Analytics, Fault> {
    let mut figures = Figures::default();
    figures.shown.from = filter.from;
    figures.shown.until = filter.until;
    loop {
        let page = shared.store.calls(who.tenant, filter.clone()).await?;
        page.calls.iter().for_each(|call| figures.add(call));
        filter.after = page.next;
        figures.shown.complete = filter.after.is_none();
        if figures.shown.complete || figures.shown.calls >= MOST {
            return Ok(figures.finish());
        }
    }
}

/// Figures in the making.
#[derive(Debug, Default)]
struct Figures {
    shown: Analytics,
    /// How many answers took how many milliseconds.
    latencies: BTreeMap<u64, u64>,
}

impl Figures {
    fn add(&mut self, call: &CallRow) {
        let s = &mut self.shown;
        s.calls += 1;
        s.inbound += u64::from(call.inbound);
        s.answered += u64::from(call.answered_at.is_some());
        let seconds = call.duration.unwrap_or(0).max(0);
        s.duration_s += seconds;
        s.longest_s = s.longest_s.max(seconds);
        if let Some(reason) = call.end_reason {
            count(&mut s.end_reasons, reason.as_str());
        }
        count(&mut s.providers, &call.vendor);
        count(&mut s.agents, &call.agent);
        let at = |path| call.metadata.pointer(path);
        let ms = |path| at(path).and_then(Value::as_u64).unwrap_or(0);
        s.talk_ms.customer += ms("/analytics/talk_ms/customer");
        s.talk_ms.agent += ms("/analytics/talk_ms/agent");
        let turns = at("/turns").and_then(Value::as_array).into_iter().flatten();
        for total in turns.filter_map(|t| t["total_ms"].as_u64()) {
            *self.latencies.entry(total.min(SLOWEST_MS)).or_default() += 1;
        }
        if let (Some(total), Some(currency)) = (
            at("/cost/total").and_then(Value::as_f64),
            at("/cost/currency").and_then(Value::as_str),
        ) && (s.cost.contains_key(currency) || s.cost.len() < MOST_NAMES)
        {
            *s.cost.entry(currency.to_owned()).or_default() += total;
        }
    }

    fn finish(mut self) -> Analytics {
        let turns: u64 = self.latencies.values().sum();
        let at = |part: u64| {
            let (mut left, target) = (self.latencies.iter(), (turns * part).div_ceil(100).max(1));
            let mut seen = 0;
            left.find_map(|(ms, n)| {
                seen += n;
                (seen >= target).then_some(*ms)
            })
        };
        self.shown.latency_ms = Latency {
            turns,
            median: at(50),
            p95: at(95),
            worst: at(100),
        };
        for total in self.shown.cost.values_mut() {
            *total = (*total * 1e6).round() / 1e6;
        }
        self.shown
    }
}

fn count(of: &mut BTreeMap<String, u64>, name: &str) {
    let known = of.contains_key(name) || of.len() < MOST_NAMES;
    *of.entry(if known { name } else { OTHERS }.to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_the_turns_in_order() {
        let mut figures = Figures::default();
        for ms in 1..=100 {
            *figures.latencies.entry(ms).or_default() += 1;
        }
        let shown = figures.finish().latency_ms;
        assert_eq!(
            (shown.turns, shown.median, shown.p95, shown.worst),
            (100, Some(50), Some(95), Some(100))
        );
        let none = Figures::default().finish().latency_ms;
        assert_eq!((none.turns, none.median, none.worst), (0, None, None));
    }

    #[test]
    fn names_without_end_are_counted_together() {
        let mut names = BTreeMap::new();
        for n in 0..1000 {
            count(&mut names, &format!("agent {n}"));
        }
        assert_eq!((names.len(), names[OTHERS]), (MOST_NAMES + 1, 800));
    }
}
