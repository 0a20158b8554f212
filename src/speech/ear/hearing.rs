//! What an ear has heard and its recogniser has not settled yet: a bounded backlog that outlives the recogniser's sessions.
//!
//! The lane feeds it ([`Feed`]), a recogniser's session reads it ([`Hearing`]). Samples read but not yet settled are kept,
//! so that a session that takes over from a broken one hears them again, once and in order. The backlog holds 5 s; what falls
//! out of it unread is lost and counted.

use crate::{
    metrics,
    speech::{SpeechEvent, Transcript},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// How much audio waits for a recogniser that is being restarted.
const KEPT: Duration = Duration::from_secs(5);

/// Samples with their positions since the ear opened. Pure.
#[derive(Debug)]
struct Backlog {
    samples: VecDeque<i16>,
    capacity: usize,
    /// Position of the first sample kept.
    start: u64,
    /// Position of the next sample to be read.
    next: u64,
    /// The end of what an earlier session had read when it broke: below, samples are being heard for the second time.
    heard_once: u64,
}

impl Backlog {
    fn new(capacity: usize) -> Self {
        Self {
            samples: VecDeque::new(),
            capacity,
            start: 0,
            next: 0,
            heard_once: 0,
        }
    }

    /// Appends samples. Returns how many unread ones fell out at the other end.
    fn push(&mut self, samples: &[i16]) -> u64 {
        self.samples.extend(samples);
        let over = self.samples.len().saturating_sub(self.capacity);
        self.samples.drain(..over);
        self.start += over as u64;
        let lost = self.start.saturating_sub(self.next);
        self.next = self.next.max(self.start);
        lost
    }

    fn read(&mut self, out: &mut [i16]) -> usize {
        let at = (self.next - self.start) as usize;
        let n = out.len().min(self.samples.len() - at);
        for (out, sample) in out.iter_mut().zip(self.samples.range(at..at + n)) {
            *out = *sample;
        }
        self.next += n as u64;
        n
    }

    fn unread(&self) -> usize {
        self.samples.len() - (self.next - self.start) as usize
    }

    /// Forgets what was read below `position`.
    fn settle(&mut self, position: u64) {
        let upto = position.min(self.next);
        let n = upto.saturating_sub(self.start);
        self.samples.drain(..n as usize);
        self.start += n;
    }

    /// Goes back to the first sample that is not settled and was heard by one session at most.
    fn rewind(&mut self) {
        let twice = self.heard_once.min(self.next);
        self.heard_once = self.heard_once.max(self.next);
        self.settle(twice);
        self.next = self.start;
    }
}

#[derive(Debug)]
struct Shared {
    backlog: RefCell<Backlog>,
    changed: Notify,
    ended: Cell<bool>,
    /// Rung when `ended` becomes true, for [`Hearing::overdue`].
    end: Notify,
    rate: u32,
}

/// The lane's end.
#[derive(Debug)]
pub(super) struct Feed(Rc<Shared>);

/// A recogniser's end: the caller's audio in, news out.
#[derive(Debug)]
pub struct Hearing {
    shared: Rc<Shared>,
    events: mpsc::Sender<SpeechEvent>,
    /// Whether a failure was reported and no session has been ready since.
    out_of_order: bool,
    /// Whether the present session has been ready.
    ready: bool,
}

/// Tells of a request that was refused while recognition goes on as before.
#[derive(Debug)]
pub(super) struct Teller(mpsc::Sender<SpeechEvent>);

impl Teller {
    /// Tells why.
    pub(super) async fn refuse(&self, message: &str) {
        let message = message.to_owned();
        let _ = self.0.send(SpeechEvent::SttFailed { message }).await;
        let _ = self.0.send(SpeechEvent::SttRecovered).await;
    }
}

/// Makes the two ends for audio at `rate` Hz; news goes to `events`.
pub(super) fn hearing(rate: u32, events: mpsc::Sender<SpeechEvent>) -> (Feed, Hearing) {
    let capacity = rate as usize * KEPT.as_secs() as usize;
    let shared = Rc::new(Shared {
        backlog: RefCell::new(Backlog::new(capacity)),
        changed: Notify::new(),
        ended: Cell::new(false),
        end: Notify::new(),
        rate,
    });
    let hearing = Hearing {
        shared: Rc::clone(&shared),
        events,
        out_of_order: false,
        ready: false,
    };
    (Feed(shared), hearing)
}

impl Feed {
    /// Appends what the caller said.
    pub(super) fn push(&self, samples: &[i16]) {
        let lost = self.0.backlog.borrow_mut().push(samples);
        if lost > 0 {
            metrics::dropped("stt_samples", "recogniser_away", lost);
        }
        self.0.changed.notify_one();
    }

    /// The caller is gone.
    fn end(&self) {
        self.0.ended.set(true);
        self.0.changed.notify_one();
        self.0.end.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end();
    }
}

impl Hearing {
    /// Sample rate in Hz: what [`Stt::rate`](crate::speech::stt::Stt::rate) asked for.
    pub fn rate(&self) -> u32 {
        self.shared.rate
    }

    /// Waits for audio and reads up to `out.len()` samples. 0 means that the caller is gone and everything was read.
    /// Nothing is lost when the future is dropped.
    pub async fn read(&mut self, out: &mut [i16]) -> usize {
        loop {
            let n = self.shared.backlog.borrow_mut().read(out);
            if n > 0 || out.is_empty() || self.is_over() {
                return n;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Position of the next sample to be read, counted from the opening of the ear.
    pub fn position(&self) -> u64 {
        self.shared.backlog.borrow().next
    }

    /// Says that samples before `position` need never be heard again: they were silence, or their words have been told.
    pub fn settle(&self, position: u64) {
        self.shared.backlog.borrow_mut().settle(position);
    }

    /// A position in milliseconds since the ear opened.
    pub fn ms(&self, position: u64) -> u64 {
        position * 1000 / u64::from(self.shared.rate)
    }

    /// Says that the session works. Ends an outage.
    pub async fn ready(&mut self) {
        self.ready = true;
        if std::mem::take(&mut self.out_of_order) {
            let _ = self.events.send(SpeechEvent::SttRecovered).await;
        }
    }

    /// Says that speech began.
    pub fn started(&self) {
        self.try_tell(SpeechEvent::Started);
    }

    /// Tells words. Finals wait until they are taken; interims are dropped when nobody keeps up with them.
    pub async fn transcript(&self, transcript: Transcript) {
        let is_final = transcript.is_final;
        let event = SpeechEvent::Transcript(transcript);
        if is_final {
            let _ = self.events.send(event).await;
        } else {
            self.try_tell(event);
        }
    }

    fn try_tell(&self, event: SpeechEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            metrics::dropped("stt_event", "slow_reader", 1);
        }
    }

    /// Reports the outage that the end of a session begins, once.
    pub(super) async fn fail(&mut self, message: &str) {
        if !std::mem::replace(&mut self.out_of_order, true) {
            let message = message.to_owned();
            let _ = self.events.send(SpeechEvent::SttFailed { message }).await;
        }
    }

    /// Tells beside a session, which borrows all of this.
    pub(super) fn teller(&self) -> Teller {
        Teller(self.events.clone())
    }

    /// Begins another session after a broken one. Returns whether that one had been ready.
    pub(super) fn rewind(&mut self) -> bool {
        self.shared.backlog.borrow_mut().rewind();
        std::mem::take(&mut self.ready)
    }

    /// Whether nothing more will come: the caller is gone, or nobody wants the words.
    pub(super) fn is_over(&self) -> bool {
        self.shared.ended.get() || self.events.is_closed()
    }

    /// Whether there is something left to be read.
    pub(super) fn has_unread(&self) -> bool {
        self.shared.backlog.borrow().unread() > 0
    }

    /// Resolves `grace` after the caller is gone. Independent of the borrow of `self`.
    pub(super) fn overdue(&self, grace: Duration) -> impl Future<Output = ()> + use<> {
        let shared = Rc::clone(&self.shared);
        async move {
            if !shared.ended.get() {
                shared.end.notified().await;
            }
            tokio::time::sleep(grace).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_not_settled_is_heard_again_once() {
        let mut b = Backlog::new(100);
        let mut out = [0; 100];
        b.push(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(b.read(&mut out[..4]), 4);
        b.settle(2);
        b.rewind();
        assert_eq!(b.read(&mut out[..3]), 3);
        assert_eq!(out[..3], [3, 4, 5], "3 and 4 for the second time");
        b.rewind();
        assert_eq!(b.read(&mut out), 2);
        assert_eq!(out[..2], [5, 6], "3 and 4 are not heard a third time");
    }

    #[test]
    fn only_unread_samples_count_as_lost() {
        let mut b = Backlog::new(4);
        assert_eq!(b.push(&[1, 2, 3]), 0);
        assert_eq!(b.read(&mut [0; 2]), 2);
        assert_eq!(b.push(&[4, 5, 6]), 0, "1 and 2 were heard");
        assert_eq!(b.push(&[7, 8]), 2);
        assert_eq!(b.unread(), 4);
    }

    proptest! {
        #[test]
        fn each_sample_is_heard_in_order_and_at_most_twice(ops in prop::collection::vec((0u8..4, 0usize..40), 1..300)) {
            let mut b = Backlog::new(64);
            let (mut pushed, mut lost) = (0u64, 0u64);
            let mut heard = vec![0u8; 300 * 40];
            for (op, n) in ops {
                match op {
                    0 => {
                        let samples: Vec<i16> = (0..n as u64).map(|i| (pushed + i) as i16).collect();
                        pushed += n as u64;
                        lost += b.push(&samples);
                    }
                    1 => {
                        let mut out = [0; 40];
                        let from = b.next;
                        let got = b.read(&mut out[..n]);
                        for (i, sample) in out[..got].iter().enumerate() {
                            prop_assert_eq!(*sample, (from + i as u64) as i16);
                            heard[from as usize + i] += 1;
                        }
                    }
                    2 => b.settle(b.next.saturating_sub(n as u64)),
                    _ => b.rewind(),
                }
                prop_assert!(b.samples.len() <= 64);
                prop_assert!(b.start <= b.next && b.next <= pushed);
            }
            prop_assert!(heard.iter().all(|n| *n <= 2));
            let unheard = heard[..b.next as usize].iter().filter(|n| **n == 0).count() as u64;
            prop_assert!(unheard <= lost);
        }
    }
}
