//! A conversation as it lives on a lane, whichever session of whichever service is at work: its replies, what the call tells it, and what
//! it tells the call.
//!
//! A reply's audio waits until the call has said which utterance it is, then goes to the mouth as it comes; what the caller cut off
//! is told nobody any more. A reply is forgotten once its words are told and the call has said what became of it.

use super::{Asked, DuplexSpec, Memory, News, Order, Role};
use crate::{
    base::{format::AudioFormat, ids::UtteranceId},
    metrics,
    speech::{Mouth, SpeechEvent, mouth::Raw, outbox::Outbox},
};
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// Replies that are not over at once; more are dropped.
const REPLIES: usize = 16;

/// Bytes of one reply's words.
const TEXT: usize = 64 * 1024;

/// Forgotten replies whose names are kept.
const GONE: usize = 32;

/// Audio of one reply that waits for its name, in ms.
const WAITING_MS: u64 = 30_000;

/// A conversation.
pub struct Dialogue {
    pub(super) spec: DuplexSpec,
    orders: mpsc::UnboundedReceiver<Order>,
    mouth: Mouth,
    news: Outbox,
    replies: Vec<Reply>,
    /// Items of replies that are forgotten, of which nothing more is taken.
    gone: VecDeque<String>,
    /// A person has the call.
    pub(super) paused: bool,
    /// What is to be said once nothing else is being answered: how, and whether it may ask for something.
    pub(super) wanted: Option<(Option<String>, bool)>,
}

/// A reply of the service: one item of its conversation.
struct Reply {
    number: u32,
    item: String,
    place: Place,
    text: String,
    /// All of the text is known, and has been told.
    worded: bool,
    told: bool,
    heard_upto: Option<u64>,
    /// Audio received, in microseconds.
    received_us: u64,
    /// No more of its audio comes.
    whole: bool,
    over: bool,
}

enum Place {
    /// The call has not said which utterance it is.
    Waiting(Vec<Raw>),
    Named(UtteranceId),
    Dropped,
}

/// A reply that the caller cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The service's name of it.
    pub(super) item: String,
    /// How much of it was heard, never more than came.
    pub(super) heard_ms: u64,
    /// Whether its audio had come whole.
    pub(super) whole: bool,
}

impl std::fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialogue")
            .field("backend", &self.spec.backend)
            .finish_non_exhaustive()
    }
}

impl Dialogue {
    /// A conversation that speaks through `mouth`.
    pub(in crate::speech) fn new(
        spec: DuplexSpec,
        orders: mpsc::UnboundedReceiver<Order>,
        mouth: Mouth,
        events: mpsc::Sender<SpeechEvent>,
    ) -> Self {
        Self {
            spec,
            orders,
            mouth,
            news: Outbox::new(events),
            replies: Vec::new(),
            gone: VecDeque::new(),
            paused: false,
            wanted: None,
        }
    }

    /// What was said so far.
    pub(super) const fn memory(&self) -> &Memory {
        &self.spec.history
    }

    /// What the leg plays.
    pub(super) fn outbound(&self) -> AudioFormat {
        self.spec.outbound.unwrap_or(AudioFormat::ULAW_8K)
    }

    /// The next thing that the call wants; for ever when it is gone. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Order {
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => return order,
                    None => std::future::pending().await,
                },
                () = self.news.flush(), if !self.news.is_empty() => {}
            }
        }
    }

    /// Waits until all news is taken.
    pub(super) async fn told(&mut self) {
        while !self.news.is_empty() {
            self.news.flush().await;
        }
    }

    pub(super) fn tell(&mut self, news: News) {
        self.news.put(SpeechEvent::Duplex(news));
    }

    fn find(&mut self, item: &str) -> Option<&mut Reply> {
        self.replies.iter_mut().find(|r| r.item == item)
    }

    /// Whether replies are being heard, or wait to be.
    pub(super) fn is_speaking(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Audio of a reply, which begins with it: `samples` of `rate`.
    pub(super) fn audio(&mut self, item: &str, raw: Raw, us: u64) {
        if self.find(item).is_none() {
            self.open(item);
        }
        let Some(at) = self.replies.iter().position(|r| r.item == item) else {
            return metrics::dropped("reply", "over", 1);
        };
        let reply = &mut self.replies[at];
        if reply.over || reply.whole {
            return metrics::dropped("reply", "cut_off", 1);
        }
        reply.received_us += us;
        match &mut reply.place {
            Place::Waiting(_) if reply.received_us > WAITING_MS * 1000 => metrics::dropped("reply", "no_name", 1),
            Place::Waiting(held) => held.push(raw),
            Place::Named(utterance) => {
                if !self.mouth.speak(*utterance, raw, false) {
                    metrics::dropped("reply", "mouth_full", 1);
                }
            }
            Place::Dropped => {}
        }
    }

    fn open(&mut self, item: &str) {
        if self.replies.len() >= REPLIES || self.gone.iter().any(|gone| gone == item) {
            return;
        }
        let number = self.memory().lock().next_reply();
        self.replies.push(Reply {
            number,
            item: item.to_owned(),
            place: Place::Waiting(Vec::new()),
            text: String::new(),
            worded: false,
            told: false,
            heard_upto: None,
            received_us: 0,
            whole: false,
            over: false,
        });
        self.tell(News::Begins { reply: number });
    }

    /// More words of a reply whose audio has begun, or is about to.
    pub(super) fn words(&mut self, item: &str, more: &str) {
        if self.find(item).is_none() {
            self.open(item);
        }
        let Some(reply) = self.replies.iter_mut().find(|r| r.item == item && !r.worded) else {
            return;
        };
        let room = TEXT.saturating_sub(reply.text.len());
        reply.text.push_str(&more[..more.floor_char_boundary(room)]);
        if let (Place::Named(utterance), true) = (&reply.place, self.news.is_empty()) {
            let (utterance, text) = (*utterance, reply.text.clone());
            self.tell(News::Words {
                utterance,
                text,
                last: false,
            });
        }
    }

    /// All words of a reply are known: `text`, or those that came.
    pub(super) fn worded(&mut self, item: &str, text: Option<String>) {
        let Some(reply) = self.find(item).filter(|r| !r.worded) else {
            return;
        };
        if let Some(text) = text {
            reply.text = text;
        }
        reply.worded = true;
        let (number, text) = (reply.number, reply.text.clone());
        let cut = reply.heard_upto.map(|heard| (heard, reply.received_us / 1000));
        {
            let mut history = self.spec.history.lock();
            history.replied(number, &text);
            if let Some((heard_ms, of_ms)) = cut {
                history.cut(number, heard_ms, of_ms);
            }
        }
        self.tell_words();
    }

    /// No more audio of a reply comes.
    pub(super) fn whole(&mut self, item: &str) {
        let Some(reply) = self.replies.iter_mut().find(|r| r.item == item && !r.whole) else {
            return;
        };
        reply.whole = true;
        if let Place::Named(utterance) = reply.place {
            self.mouth.speak(utterance, Raw::Samples(Vec::new(), 8000), true);
        }
    }

    /// Nothing more comes of any reply, for whatever reason: each ends where it stands.
    pub(super) fn break_off(&mut self) {
        let items: Vec<_> = self.replies.iter().map(|r| r.item.clone()).collect();
        for item in items {
            let broken = self.find(&item).is_some_and(|r| !r.whole && !r.over);
            self.whole(&item);
            self.worded(&item, None);
            if broken {
                self.memory().lock().broke();
            }
        }
    }

    /// The service wants something done.
    pub(super) fn wants(&mut self, asked: Asked) {
        self.tell(News::Wants(asked));
    }

    /// A reply is this utterance.
    pub(super) fn name(&mut self, number: u32, utterance: Option<UtteranceId>) {
        let Some(reply) = self.replies.iter_mut().find(|r| r.number == number) else {
            return;
        };
        let Place::Waiting(held) = std::mem::replace(&mut reply.place, Place::Dropped) else {
            return;
        };
        match utterance {
            None => reply.over = true,
            Some(utterance) => {
                reply.place = Place::Named(utterance);
                let last = reply.whole;
                for raw in held {
                    if !self.mouth.speak(utterance, raw, false) {
                        metrics::dropped("reply", "mouth_full", 1);
                    }
                }
                if last {
                    self.mouth.speak(utterance, Raw::Samples(Vec::new(), 8000), true);
                }
            }
        }
        self.tell_words();
    }

    /// A reply is over. What the service must know, where it was cut off.
    pub(super) fn over(&mut self, number: u32, whole: bool, heard_ms: u32) -> Option<Cut> {
        let reply = self.replies.iter_mut().find(|r| r.number == number && !r.over)?;
        reply.over = true;
        let received_ms = reply.received_us / 1000;
        let heard_ms = u64::from(heard_ms).min(received_ms);
        let cut = (!whole).then(|| Cut {
            item: reply.item.clone(),
            heard_ms,
            whole: reply.whole,
        });
        if !whole {
            reply.heard_upto = Some(heard_ms);
            if reply.worded {
                self.spec.history.lock().cut(number, heard_ms, received_ms);
            }
        }
        self.forget();
        cut
    }

    /// Tells the words of replies that are complete and named, in order.
    fn tell_words(&mut self) {
        let mut complete = Vec::new();
        for reply in self.replies.iter_mut().filter(|r| r.worded && !r.told) {
            match reply.place {
                Place::Waiting(_) => {}
                Place::Dropped => reply.told = true,
                Place::Named(utterance) => {
                    reply.told = true;
                    complete.push((utterance, std::mem::take(&mut reply.text)));
                }
            }
        }
        for (utterance, text) in complete {
            self.tell(News::Words {
                utterance,
                text,
                last: true,
            });
        }
        self.forget();
    }

    fn forget(&mut self) {
        for reply in self.replies.extract_if(.., |r| r.over && r.told) {
            self.gone.push_back(reply.item);
        }
        while self.gone.len() > GONE {
            self.gone.pop_front();
        }
    }

    /// What a person said, or came of something that was asked for.
    pub(super) fn note(&mut self, role: Role, text: &str) {
        self.memory().lock().push(role, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::format::Encoding, speech::mouth::Shared};
    use std::sync::Arc;

    const U: UtteranceId = UtteranceId(7);

    struct Bench {
        dialogue: Dialogue,
        mouth: mpsc::UnboundedReceiver<crate::speech::mouth::Order>,
        events: mpsc::Receiver<SpeechEvent>,
    }

    impl Bench {
        fn new() -> Self {
            let (sender, mouth) = mpsc::unbounded_channel();
            let shared = Arc::<Shared>::default();
            let (tx, events) = mpsc::channel(64);
            let orders = mpsc::unbounded_channel().1;
            let spoken = Mouth { shared, orders: sender };
            Self {
                dialogue: Dialogue::new(DuplexSpec::default(), orders, spoken, tx),
                mouth,
                events,
            }
        }

        fn audio(&mut self, item: &str, code: u8) {
            let raw = Raw::Codes(vec![code; 800], Encoding::Ulaw);
            self.dialogue.audio(item, raw, 100_000);
        }

        /// What the mouth was given: the utterance, the first code of each piece, and whether it ends.
        fn spoken(&mut self) -> Vec<(UtteranceId, Option<u8>, bool)> {
            std::iter::from_fn(|| self.mouth.try_recv().ok())
                .map(|order| match order {
                    crate::speech::mouth::Order::Play {
                        utterance, raw, last, ..
                    } => match raw {
                        Raw::Codes(codes, _) => (utterance, codes.first().copied(), last),
                        Raw::Samples(..) => (utterance, None, last),
                    },
                    order => panic!("{order:?}"),
                })
                .collect()
        }

        fn news(&mut self) -> Vec<News> {
            std::iter::from_fn(|| self.events.try_recv().ok())
                .map(|event| match event {
                    SpeechEvent::Duplex(news) => news,
                    event => panic!("{event:?}"),
                })
                .collect()
        }

        fn turns(&self) -> Vec<String> {
            let history = self.dialogue.memory().lock();
            history.turns().map(|(_, text)| text.to_owned()).collect()
        }
    }

    fn words(text: &str, last: bool) -> News {
        News::Words {
            utterance: U,
            text: text.to_owned(),
            last,
        }
    }

    #[test]
    fn audio_and_words_wait_for_the_name_of_their_reply() {
        let mut b = Bench::new();
        b.audio("a", 1);
        b.dialogue.words("a", "one ");
        assert_eq!((b.news(), b.spoken()), (vec![News::Begins { reply: 1 }], vec![]));
        b.dialogue.name(1, Some(U));
        b.audio("a", 2);
        b.dialogue.words("a", "two");
        b.dialogue.whole("a");
        b.dialogue.worded("a", Some("one two.".to_owned()));
        b.audio("a", 3);
        let expected = [(U, Some(1), false), (U, Some(2), false), (U, None, true)];
        assert_eq!(b.spoken(), expected);
        assert_eq!(b.news(), [words("one two", false), words("one two.", true)]);
        assert_eq!(b.dialogue.over(1, true, 200), None);
        assert!(!b.dialogue.is_speaking());
        assert_eq!(b.turns(), ["one two."]);
    }

    #[test]
    fn what_was_cut_off_is_measured_by_what_came_and_nothing_of_it_follows() {
        let mut b = Bench::new();
        b.audio("a", 1);
        b.audio("a", 1);
        b.dialogue.name(1, Some(U));
        b.spoken();
        let cut = Cut {
            item: "a".to_owned(),
            heard_ms: 100,
            whole: false,
        };
        assert_eq!(b.dialogue.over(1, false, 100), Some(cut));
        assert_eq!(b.dialogue.over(1, false, 100), None, "once");
        b.audio("a", 9);
        assert_eq!(b.spoken(), []);
        b.dialogue.worded("a", Some("first second third".to_owned()));
        assert_eq!(b.turns(), ["first"]);
        assert!(!b.dialogue.is_speaking());
        b.news();
        b.audio("a", 9);
        b.dialogue.words("a", "late");
        assert_eq!((b.spoken(), b.news()), (vec![], vec![]), "it does not begin anew");
        b.audio("b", 1);
        let cut = b.dialogue.over(2, false, 999);
        assert_eq!(cut.map(|c| c.heard_ms), Some(100), "never more than came");
    }

    #[test]
    fn a_reply_that_breaks_off_ends_where_it_stands() {
        let mut b = Bench::new();
        b.audio("a", 1);
        b.dialogue.name(1, Some(U));
        b.dialogue.words("a", "half of");
        b.spoken();
        b.dialogue.break_off();
        assert_eq!(b.spoken(), [(U, None, true)]);
        assert_eq!(b.news().last(), Some(&words("half of", true)));
        assert!(b.dialogue.memory().lock().take_broken());
        b.dialogue.over(1, true, 100);
        b.audio("b", 1);
        b.dialogue.name(2, None);
        b.audio("b", 1);
        b.dialogue.break_off();
        assert_eq!(
            (b.spoken(), b.dialogue.is_speaking()),
            (vec![], false),
            "nobody can hear it"
        );
    }
}
