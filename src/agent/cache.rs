//! Answers to common questions, kept for a while: per agent, by the normal form of the words. Bounded; the oldest go first.

use crate::{
    base::{ids::TenantId, time::Mono},
    llm::scripted::normalise,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Answers kept in all.
const MAX_ANSWERS: usize = 1000;

type Key = (TenantId, String, String);

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Key, (String, Mono)>,
    order: VecDeque<Key>,
}

/// The answers of all agents.
#[derive(Debug, Default)]
pub struct Replies(Mutex<Kept>);

impl Replies {
    /// The answer to the same question, unless it is older than `ttl`.
    pub fn find(&self, now: Mono, tenant: TenantId, agent: &str, question: &str, ttl: Duration) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, at) = kept.answers.get(&key(tenant, agent, question))?;
        (now.since(*at) < ttl).then(|| answer.clone())
    }

    /// Keeps an answer.
    pub fn keep(&self, now: Mono, tenant: TenantId, agent: &str, question: &str, answer: &str) {
        let key = key(tenant, agent, question);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.answers.insert(key.clone(), (answer.to_owned(), now)).is_none() {
            kept.order.push_back(key);
        }
        if kept.order.len() > MAX_ANSWERS
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.answers.remove(&oldest);
        }
    }
}

fn key(tenant: TenantId, agent: &str, question: &str) -> Key {
    (tenant, agent.to_owned(), normalise(question))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_by_its_agent_and_question_until_it_is_old() {
        let (replies, ttl) = (Replies::default(), Duration::from_secs(60));
        let (now, later) = (Mono::from_millis(1000), Mono::from_millis(61_000));
        replies.keep(now, TenantId(1), "desk", "When are you open?", "From nine.");
        let find = |at, tenant, agent, question| replies.find(at, TenantId(tenant), agent, question, ttl);
        assert_eq!(find(now, 1, "desk", "when are you open").as_deref(), Some("From nine."));
        for other in [
            find(now, 2, "desk", "when are you open"),
            find(now, 1, "sales", "when are you open"),
        ] {
            assert_eq!(other, None);
        }
        assert_eq!(find(later, 1, "desk", "when are you open"), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let replies = Replies::default();
        for n in 0..MAX_ANSWERS + 50 {
            replies.keep(Mono::ZERO, TenantId(1), "desk", &format!("question {n}"), "x");
        }
        assert_eq!(replies.0.lock().unwrap().answers.len(), MAX_ANSWERS);
    }
}
