//! What waits for one client: bounded, and honest about what did not fit.
//!
//! Live audio goes first, the oldest of it; then words that would have changed anyway; an event that does not fit ends the
//! socket, because a client that starts anew reads the state and misses nothing. Who publishes never waits.

use super::protocol::{Class, ServerMessage};
use crate::{base::ids::CallId, metrics, store::CallStatus};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Why a socket ends: a code of RFC 6455 §7.4 or of our own range, and a fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// At most 123 bytes.
    pub reason: &'static str,
}

impl Close {
    /// A close of this code for this reason.
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// One word for metrics.
    pub const fn word(self) -> &'static str {
        match self.code {
            1000 => "normal",
            1001 => "away",
            1002 => "protocol",
            1003 => "binary",
            1007 => "not_json",
            1008 => "policy",
            1009 => "too_big",
            1013 => "slow",
            4401 => "expired",
            4404 => "call",
            _ => "other",
        }
    }
}

/// A message for one client.
#[derive(Clone, Debug)]
pub struct Item {
    /// The message.
    pub text: Utf8Bytes,
    /// How it may be treated.
    pub class: Class,
    /// The call it is news of.
    pub call: Option<CallId>,
    /// Its place in the tenant's order.
    pub id: Option<i64>,
    /// The status it tells.
    pub status: Option<CallStatus>,
}

impl Item {
    /// A message that is no news of a call.
    pub fn plain(message: &ServerMessage<'_>) -> Self {
        Self {
            text: message.text().into(),
            class: message.class(),
            call: None,
            id: None,
            status: None,
        }
    }
}

/// What the socket's writer does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Send this.
    Text(Utf8Bytes),
    /// Send a ping.
    Ping,
    /// Send a close; nothing follows.
    Close(Close),
}

/// The queue. Shared by the fan-out, the client's session and its writer.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
    tell_gap: fn(u64) -> String,
    max_bytes: usize,
    max_items: usize,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// News that arrived while the client's past is being replayed.
    held: Option<VecDeque<Item>>,
    /// The last event that was replayed: the client has it and those before.
    replayed: Option<i64>,
    bytes: usize,
    dropped: u64,
    ping: bool,
    close: Option<Close>,
}

impl Outbox {
    /// An empty queue. Holds news back until [`Outbox::release`].
    pub fn new(max_bytes: usize, max_items: usize) -> Self {
        let queue = Queue {
            held: Some(VecDeque::new()),
            ..Queue::default()
        };
        Self {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            drained: Notify::new(),
            tell_gap: |dropped| ServerMessage::Gap { dropped }.text(),
            max_bytes,
            max_items,
        }
    }

    /// Tells what was left out in these words.
    pub fn telling_gaps_by(mut self, tell_gap: fn(u64) -> String) -> Self {
        self.tell_gap = tell_gap;
        self
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues news of a call, behind what is being replayed.
    pub fn news(&self, item: Item) {
        self.push(item, true);
    }

    /// Queues an answer, a snapshot or a replayed event.
    pub fn answer(&self, item: Item) {
        self.push(item, false);
    }

    fn push(&self, item: Item, behind: bool) {
        let mut q = self.queue();
        if q.close.is_some() || (behind && q.has_seen(&item)) {
            return;
        }
        let size = item.text.len();
        while q.bytes + size > self.max_bytes || q.len() + 1 > self.max_items {
            if q.shed(Class::Audio) || (item.class != Class::Audio && q.shed(Class::Interim)) {
                continue;
            }
            if item.class == Class::Event {
                let close = Close::new(1013, "too slow, reconnect");
                metrics::refused("frontend", close.word());
                q.end(close);
            } else {
                q.count_drop(item.class);
            }
            drop(q);
            self.filled.notify_one();
            return;
        }
        q.bytes += size;
        match q.held.as_mut().filter(|_| behind) {
            Some(held) => held.push_back(item),
            None => q.items.push_back(item),
        }
        drop(q);
        self.filled.notify_one();
    }

    /// Holds news back again, as when a client asks for another call.
    pub fn hold(&self) {
        self.queue().held.get_or_insert_default();
    }

    /// Lets held news follow, without what the client has been told by replay (ids up to `replayed`) or by snapshot
    /// (`told`: a status that is not ahead of it).
    pub fn release(&self, replayed: Option<i64>, told: &HashMap<CallId, CallStatus>) {
        let mut q = self.queue();
        q.replayed = q.replayed.max(replayed);
        for item in q.held.take().unwrap_or_default() {
            let seen = q.has_seen(&item);
            let known = item.call.and_then(|c| told.get(&c)).copied();
            let stale = item.status.is_some_and(|s| known.is_some_and(|k| s <= k));
            if seen || stale {
                q.bytes -= item.text.len();
            } else {
                q.items.push_back(item);
            }
        }
        drop(q);
        self.filled.notify_one();
    }

    /// Forgets news that waits, as when a client asks for another call.
    pub fn forget_news(&self) {
        let mut q = self.queue();
        let q = &mut *q;
        let gone = |item: &Item| item.call.is_some();
        let held = q.held.iter_mut().flat_map(std::mem::take);
        q.bytes -= held.map(|i| i.text.len()).sum::<usize>();
        q.bytes -= q.items.iter().filter(|i| gone(i)).map(|i| i.text.len()).sum::<usize>();
        q.items.retain(|i| !gone(i));
    }

    /// Asks for a ping.
    pub fn ping(&self) {
        self.queue().ping = true;
        self.filled.notify_one();
    }

    /// Ends the socket once what waits has been sent. The first reason stands.
    pub fn close(&self, close: Close) {
        self.queue().close.get_or_insert(close);
        self.filled.notify_one();
    }

    /// The next thing to write.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.filled.notified().await;
        }
    }

    fn try_next(&self) -> Option<Next> {
        let mut q = self.queue();
        if std::mem::take(&mut q.ping) {
            return Some(Next::Ping);
        }
        if q.dropped > 0 {
            let dropped = std::mem::take(&mut q.dropped);
            return Some(Next::Text((self.tell_gap)(dropped).into()));
        }
        if let Some(item) = q.items.pop_front() {
            q.bytes -= item.text.len();
            let low = q.bytes <= self.max_bytes / 4 && q.len() <= self.max_items / 4;
            drop(q);
            if low {
                self.drained.notify_one();
            }
            return Some(Next::Text(item.text));
        }
        q.close.map(Next::Close)
    }

    /// Waits until there is room for a page of replayed events. Returns at once on a socket that ends.
    pub async fn room(&self) {
        loop {
            {
                let q = self.queue();
                let low = q.bytes <= self.max_bytes / 4 && q.len() <= self.max_items / 4;
                if low || q.items.is_empty() || q.close.is_some() {
                    return;
                }
            }
            self.drained.notified().await;
        }
    }

    /// Whether the socket ends.
    pub fn is_closing(&self) -> bool {
        self.queue().close.is_some()
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.items.len() + self.held.as_ref().map_or(0, VecDeque::len)
    }

    fn has_seen(&self, item: &Item) -> bool {
        item.id.is_some_and(|id| self.replayed.is_some_and(|last| id <= last))
    }

    /// Drops the oldest message of a class.
    fn shed(&mut self, class: Class) -> bool {
        let take = |q: &mut VecDeque<Item>| q.remove(q.iter().position(|i| i.class == class)?);
        let oldest = take(&mut self.items).or_else(|| self.held.as_mut().and_then(take));
        if let Some(item) = &oldest {
            self.bytes -= item.text.len();
            self.count_drop(class);
        }
        oldest.is_some()
    }

    fn count_drop(&mut self, class: Class) {
        let kind = if class == Class::Audio {
            "frontend_audio"
        } else {
            "frontend_interim"
        };
        metrics::dropped(kind, "slow", 1);
        self.dropped += 1;
    }

    /// Nothing that waits is worth sending any more.
    fn end(&mut self, close: Close) {
        self.items.clear();
        self.held = None;
        self.bytes = 0;
        self.dropped = 0;
        self.close = Some(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    fn item(name: &str, class: Class) -> Item {
        Item {
            text: name.into(),
            class,
            call: None,
            id: None,
            status: None,
        }
    }

    fn open(max_bytes: usize, max_items: usize) -> Outbox {
        let outbox = Outbox::new(max_bytes, max_items);
        outbox.release(None, &HashMap::new());
        outbox
    }

    fn drain(outbox: &Outbox) -> Vec<String> {
        std::iter::from_fn(|| match outbox.try_next() {
            Some(Next::Text(t)) => Some(t.to_string()),
            Some(Next::Ping) => Some("ping".into()),
            Some(Next::Close(c)) => {
                outbox.queue().close = None;
                Some(format!("close {}", c.code))
            }
            None => None,
        })
        .collect()
    }

    #[test]
    fn the_oldest_audio_goes_first_then_interims_and_events_stay() {
        let outbox = open(1000, 4);
        for (name, class) in [
            ("a1", Class::Audio),
            ("e1", Class::Event),
            ("i1", Class::Interim),
            ("a2", Class::Audio),
        ] {
            outbox.news(item(name, class));
        }
        outbox.news(item("e2", Class::Event));
        outbox.news(item("e3", Class::Event));
        outbox.news(item("e4", Class::Event));
        assert_eq!(
            drain(&outbox),
            [r#"{"type":"gap","dropped":3}"#, "e1", "e2", "e3", "e4"]
        );
    }

    #[test]
    fn audio_never_pushes_out_words() {
        let outbox = open(1000, 2);
        outbox.news(item("i1", Class::Interim));
        outbox.news(item("e1", Class::Event));
        outbox.news(item("a1", Class::Audio));
        assert_eq!(drain(&outbox), [r#"{"type":"gap","dropped":1}"#, "i1", "e1"]);
    }

    #[test]
    fn an_event_that_does_not_fit_ends_the_socket() {
        let outbox = open(10, 100);
        outbox.news(item("event-1", Class::Event));
        outbox.news(item("event-2", Class::Event));
        outbox.news(item("event-3", Class::Event));
        assert_eq!(drain(&outbox), ["close 1013"]);
    }

    #[test]
    fn bytes_are_counted_both_ways() {
        let outbox = open(100, 100);
        for _ in 0..1000 {
            outbox.news(item(&"x".repeat(60), Class::Event));
            assert_eq!(drain(&outbox).len(), 1);
        }
        assert_eq!(outbox.queue().bytes, 0);
    }

    #[test]
    fn a_close_waits_for_what_was_queued_and_the_first_reason_stands() {
        let outbox = open(100, 100);
        outbox.answer(item("why", Class::Event));
        outbox.close(Close::new(4404, "call not found"));
        outbox.close(Close::new(1001, "drain"));
        outbox.answer(item("late", Class::Event));
        assert_eq!(drain(&outbox), ["why", "close 4404"]);
    }

    #[test]
    fn held_news_follows_the_replay_once_and_never_moves_a_call_back() {
        let call = CallId::new();
        let news = |id, status| Item {
            text: format!("{id}").into(),
            class: Class::Event,
            call: Some(call),
            id: Some(id),
            status,
        };
        let outbox = Outbox::new(1000, 100);
        outbox.news(news(8, None));
        outbox.news(news(9, Some(CallStatus::Answered)));
        outbox.news(news(10, Some(CallStatus::Ended)));
        outbox.answer(item("7", Class::Event));
        outbox.answer(item("8", Class::Event));
        outbox.release(Some(8), &HashMap::from([(call, CallStatus::InProgress)]));
        outbox.news(news(11, None));
        outbox.news(news(8, None));
        assert_eq!(drain(&outbox), ["7", "8", "10", "11"]);
        assert_eq!(outbox.queue().bytes, 0);
    }

    #[test]
    fn news_of_another_subscription_is_forgotten() {
        let news = |text: &str| Item {
            call: Some(CallId::new()),
            ..item(text, Class::Event)
        };
        let outbox = open(1000, 100);
        outbox.news(news("old"));
        outbox.hold();
        outbox.news(news("held"));
        outbox.answer(item("answer", Class::Event));
        outbox.forget_news();
        outbox.release(None, &HashMap::new());
        assert_eq!(drain(&outbox), ["answer"]);
        assert_eq!(outbox.queue().bytes, 0);
    }

    #[tokio::test]
    async fn room_is_there_once_three_quarters_are_read() {
        let outbox = open(100, 1000);
        for _ in 0..9 {
            outbox.answer(item("0123456789", Class::Event));
        }
        let mut room = std::pin::pin!(outbox.room());
        let mut waits = async || std::future::poll_fn(|cx| Poll::Ready(room.as_mut().poll(cx).is_pending())).await;
        assert!(waits().await);
        for _ in 0..6 {
            outbox.try_next();
        }
        assert!(waits().await);
        outbox.try_next();
        assert!(!waits().await);
    }
}
