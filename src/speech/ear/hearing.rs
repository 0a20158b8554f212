//! What an ear has heard and its recogniser has not settled yet: a bounded backlog that outlives the recogniser's sessions.
//!
//! The lane feeds it ([`Feed`]), a recogniser's session reads it ([`Hearing`]). Samples read but not yet settled are kept,
//! so that a session that takes over from a broken one hears them again, once and in order. The backlog holds 5 s; what falls
//! out of it unread is lost and counted. It holds samples, or the vendor's G.711 codes where the recogniser takes those.

use crate::{
    audio::{codec, resample::any::AnyResampler},
    base::format::{AudioFormat, Encoding},
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
    /// One byte of a code, or the two of a sample.
    bytes: VecDeque<u8>,
    /// How many of them a sample takes.
    width: usize,
    /// In samples.
    capacity: usize,
    /// Position of the first sample kept.
    start: u64,
    /// Position of the next sample to be read.
    next: u64,
    /// The end of what an earlier session had read when it broke: below, samples are being heard for the second time.
    heard_once: u64,
}

impl Backlog {
    fn new(width: usize, capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            width,
            capacity,
            start: 0,
            next: 0,
            heard_once: 0,
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// Appends samples. Returns how many unread ones fell out at the other end.
    fn push(&mut self, samples: &[i16]) -> u64 {
        let over = (self.len() + samples.len()).saturating_sub(self.capacity);
        // No more than is kept, where growing by doubling takes up to twice that; more than that may be pushed at once.
        let (old, new) = (over.min(self.len()), over.saturating_sub(self.len()));
        self.bytes.drain(..old * self.width);
        let samples = &samples[new..];
        if self.bytes.capacity() < (self.len() + samples.len()) * self.width {
            self.bytes
                .reserve_exact((self.capacity / 4).max(samples.len()) * self.width);
        }
        for sample in samples {
            self.bytes.extend(&sample.to_le_bytes()[..self.width]);
        }
        self.start += over as u64;
        let lost = self.start.saturating_sub(self.next);
        self.next = self.next.max(self.start);
        lost
    }

    fn read(&mut self, out: &mut [i16]) -> usize {
        let at = (self.next - self.start) as usize;
        let n = out.len().min(self.len() - at);
        let mut bytes = self.bytes.range(at * self.width..);
        for out in &mut out[..n] {
            let mut sample = [0; 2];
            for byte in &mut sample[..self.width] {
                *byte = bytes.next().copied().unwrap_or_default();
            }
            *out = i16::from_le_bytes(sample);
        }
        self.next += n as u64;
        n
    }

    fn unread(&self) -> usize {
        self.len() - (self.next - self.start) as usize
    }

    /// Forgets what was read below `position`.
    fn settle(&mut self, position: u64) {
        let upto = position.min(self.next);
        let n = upto.saturating_sub(self.start);
        self.bytes.drain(..n as usize * self.width);
        self.start += n;
    }

    /// Holds other samples for the same time, `new` a second instead of `old`, none of which were read.
    fn replace(&mut self, samples: &[i16], old: u32, new: u32, width: usize, capacity: usize) {
        let scale = |position: u64| position * u64::from(new) / u64::from(old);
        let start = scale(self.start);
        let heard_once = scale(self.heard_once);
        *self = Self::new(width, capacity.max(samples.len()));
        self.push(samples);
        self.capacity = capacity;
        (self.start, self.next, self.heard_once) = (start, start, heard_once);
    }

    /// Goes back to the first sample that is not settled and was heard by one session at most, whether or not this one counts.
    fn rewind(&mut self, counts: bool) {
        if counts {
            let twice = self.heard_once.min(self.next);
            self.heard_once = self.heard_once.max(self.next);
            self.settle(twice);
        }
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
    /// What the backlog holds: samples ([`Encoding::L16Le`]), or G.711 codes, one in each place.
    format: Cell<AudioFormat>,
}

/// The lane's end.
#[derive(Debug)]
pub(super) struct Feed(Rc<Shared>);

/// A recogniser's end: the caller's audio in, news out.
#[derive(Debug)]
pub struct Hearing {
    shared: Rc<Shared>,
    events: mpsc::Sender<SpeechEvent>,
    /// Where audio is put in order for a reader of bytes.
    wide: Vec<i16>,
    /// Whether a failure was reported and no session has been ready since.
    out_of_order: bool,
    /// Whether the present session has been ready.
    ready: bool,
    /// Who listens.
    backend: &'static str,
    /// Whether that was told.
    introduced: bool,
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

/// Whether audio of this encoding is kept as codes.
fn is_codes(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Ulaw | Encoding::Alaw)
}

/// Room for what is kept of audio of this format.
const fn capacity(format: AudioFormat) -> usize {
    format.rate as usize * KEPT.as_secs() as usize
}

/// Makes the two ends for audio of this format; news goes to `events`.
pub(super) fn hearing(format: AudioFormat, events: mpsc::Sender<SpeechEvent>) -> (Feed, Hearing) {
    let shared = Rc::new(Shared {
        backlog: RefCell::new(Backlog::new(format.encoding.sample_bytes(), capacity(format))),
        changed: Notify::new(),
        ended: Cell::new(false),
        end: Notify::new(),
        format: Cell::new(format),
    });
    let hearing = Hearing {
        shared: Rc::clone(&shared),
        events,
        wide: Vec::new(),
        out_of_order: false,
        ready: false,
        backend: "",
        introduced: false,
    };
    (Feed(shared), hearing)
}

impl Feed {
    /// In what it takes audio. Changes when another recogniser takes over.
    pub(super) fn format(&self) -> AudioFormat {
        self.0.format.get()
    }

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
        self.format().rate
    }

    /// What [`Hearing::read_bytes`] gives: the vendor's own G.711 codes, or samples in [`Encoding::L16Le`].
    pub fn format(&self) -> AudioFormat {
        self.shared.format.get()
    }

    /// Waits for audio and reads up to `out.len()` samples. 0 means that the caller is gone and everything was read.
    /// Nothing is lost when the future is dropped.
    pub async fn read(&mut self, out: &mut [i16]) -> usize {
        let n = self.read_as_kept(out).await;
        let encoding = self.format().encoding;
        if is_codes(encoding) {
            codec::decode_wide(encoding, &mut out[..n]);
        }
        n
    }

    /// The same as bytes of [`Hearing::format`], appended to `out`: `most` samples at most. Returns how many samples they are.
    pub async fn read_bytes(&mut self, most: usize, out: &mut Vec<u8>) -> usize {
        let mut wide = std::mem::take(&mut self.wide);
        wide.resize(most, 0);
        let n = self.read_as_kept(&mut wide).await;
        let bytes = wide[..n].iter().flat_map(|wide| wide.to_le_bytes());
        if is_codes(self.format().encoding) {
            out.extend(bytes.step_by(2));
        } else {
            out.extend(bytes);
        }
        self.wide = wide;
        n
    }

    async fn read_as_kept(&mut self, out: &mut [i16]) -> usize {
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
        position * 1000 / u64::from(self.rate())
    }

    /// Says that the session works. Ends an outage.
    pub async fn ready(&mut self) {
        self.ready = true;
        if !std::mem::replace(&mut self.introduced, true) {
            let (kind, backend) = ("stt", self.backend);
            let _ = self.events.send(SpeechEvent::Connected { kind, backend }).await;
        }
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

    /// Reports an outage, once until [`Hearing::ready`] ends it.
    pub(in crate::speech) async fn fail(&mut self, message: &str) {
        if !std::mem::replace(&mut self.out_of_order, true) {
            let message = message.to_owned();
            let _ = self.events.send(SpeechEvent::SttFailed { message }).await;
        }
    }

    /// Tells beside a session, which borrows all of this.
    pub(super) fn teller(&self) -> Teller {
        Teller(self.events.clone())
    }

    /// A recogniser of this name listens from now on.
    pub(super) fn served_by(&mut self, backend: &'static str) {
        self.introduced &= self.backend == backend;
        self.backend = backend;
    }

    /// Begins another session after a broken one. Returns whether that one had been ready. What broke two that were is not heard a
    /// third time: it may be what broke them.
    pub(in crate::speech) fn rewind(&mut self) -> bool {
        let was_ready = std::mem::take(&mut self.ready);
        self.shared.backlog.borrow_mut().rewind(was_ready);
        was_ready
    }

    /// Keeps audio in another format from now on, for another recogniser: converts what waits. Called after
    /// [`rewind`](Self::rewind), when nothing of it counts as read.
    pub(super) fn recast(&mut self, to: AudioFormat) {
        let from = self.shared.format.replace(to);
        if from == to {
            return;
        }
        let mut backlog = self.shared.backlog.borrow_mut();
        let mut samples = vec![0; backlog.len()];
        backlog.read(&mut samples);
        if is_codes(from.encoding) {
            codec::decode_wide(from.encoding, &mut samples);
        }
        let mut converted = AnyResampler::convert(from.rate, to.rate, &samples).unwrap_or_default();
        if is_codes(to.encoding) {
            let mut codes = vec![0; converted.len()];
            codec::encode(to.encoding, &converted, &mut codes);
            converted = codes.into_iter().map(i16::from).collect();
        }
        backlog.replace(&converted, from.rate, to.rate, to.encoding.sample_bytes(), capacity(to));
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
    use crate::audio::g711;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    fn format(encoding: Encoding, rate: u32) -> AudioFormat {
        AudioFormat { encoding, rate }
    }

    #[test]
    fn codes_are_read_as_they_came_or_as_their_samples() {
        let (feed, mut hearing) = hearing(format(Encoding::Ulaw, 8000), mpsc::channel(1).0);
        feed.push(&(0..=255).collect::<Vec<i16>>());
        let mut bytes = Vec::new();
        assert_eq!(hearing.read_bytes(128, &mut bytes).now_or_never(), Some(128));
        assert!(bytes.iter().copied().eq(0..128));
        let (mut samples, mut expected) = ([0; 128], [0; 128]);
        assert_eq!(hearing.read(&mut samples).now_or_never(), Some(128));
        g711::ulaw_decode(&(128..=255).collect::<Vec<u8>>(), &mut expected);
        assert_eq!(samples, expected);
    }

    #[test]
    fn another_recogniser_hears_the_rest_in_its_own_format_at_the_same_time() {
        let (feed, mut hearing) = hearing(format(Encoding::Ulaw, 8000), mpsc::channel(1).0);
        let mut codes = [0; 1600];
        let tone: Vec<i16> = (0..1600).map(|n| if n / 8 % 2 == 0 { 4000 } else { -4000 }).collect();
        g711::ulaw_encode(&tone, &mut codes);
        feed.push(&codes.map(i16::from));
        hearing.read_bytes(1600, &mut Vec::new()).now_or_never();
        hearing.settle(800);
        hearing.rewind();
        hearing.recast(format(Encoding::L16Le, 16_000));
        assert_eq!((hearing.position(), hearing.ms(hearing.position())), (1600, 100));
        assert_eq!(feed.format().rate, 16_000);
        let mut samples = vec![0; 4000];
        let n = hearing.read(&mut samples).now_or_never().unwrap();
        assert!(n.abs_diff(1600) <= 2, "{n}");
        assert!(
            samples[100..n - 100].iter().any(|s| *s > 3500),
            "it is sound, not codes"
        );
    }

    #[test]
    fn what_was_not_settled_is_heard_again_once() {
        let mut b = Backlog::new(2, 100);
        let mut out = [0; 100];
        b.push(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(b.read(&mut out[..4]), 4);
        b.settle(2);
        b.rewind(true);
        assert_eq!(b.read(&mut out[..3]), 3);
        assert_eq!(out[..3], [3, 4, 5], "3 and 4 for the second time");
        b.rewind(true);
        assert_eq!(b.read(&mut out), 2);
        assert_eq!(out[..2], [5, 6], "3 and 4 are not heard a third time");
    }

    #[test]
    fn only_unread_samples_count_as_lost() {
        let mut b = Backlog::new(2, 4);
        assert_eq!(b.push(&[1, 2, 3]), 0);
        assert_eq!(b.read(&mut [0; 2]), 2);
        assert_eq!(b.push(&[4, 5, 6]), 0, "1 and 2 were heard");
        assert_eq!(b.push(&[7, 8]), 2);
        assert_eq!(b.unread(), 4);
    }

    proptest! {
        #[test]
        fn each_sample_is_heard_in_order_and_at_most_twice_by_sessions_that_work(ops in prop::collection::vec((0u8..5, 0usize..40), 1..300)) {
            let mut b = Backlog::new(2, 64);
            let (mut pushed, mut lost) = (0u64, 0u64);
            let (mut heard, mut ever) = (vec![0u8; 300 * 40], vec![false; 300 * 40]);
            let mut session: Vec<usize> = Vec::new();
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
                            ever[from as usize + i] = true;
                            session.push(from as usize + i);
                        }
                    }
                    2 => b.settle(b.next.saturating_sub(n as u64)),
                    3 => {
                        b.rewind(true);
                        session.clear();
                    }
                    _ => {
                        b.rewind(false);
                        session.drain(..).for_each(|at| heard[at] -= 1);
                    }
                }
                prop_assert!(b.len() <= 64);
                prop_assert!(b.start <= b.next && b.next <= pushed);
            }
            prop_assert!(heard.iter().all(|n| *n <= 2));
            let unheard = ever[..b.next as usize].iter().filter(|heard| !**heard).count() as u64;
            prop_assert!(unheard <= lost);
        }
    }
}
