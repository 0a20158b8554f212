//! What reaches a call from outside: news of its vendor, its media socket, news of its leg.

use super::{Ask, Call, Done, Effect, Leg, MAX_SEEN, Now, Teller, Timer, WARN_BEFORE};
use crate::{
    bus::News,
    media::{LegEnd, LegEvent},
    store::{CallChange, CallStatus},
    vendor::{CallNews, CallUpdate},
};

impl Call {
    /// News from the vendor. `done` is told when what it changed is durable; a repetition changes nothing.
    pub(in crate::control) fn vendor(&mut self, now: Now, update: &CallUpdate, done: Done) {
        self.learn_sid(&update.call_sid);
        if self.is_first(&update.dedup_key) {
            match update.news {
                CallNews::Ringing => self.advance(now, CallStatus::Ringing),
                CallNews::Answered => {
                    self.advance(now, CallStatus::Answered);
                    self.vendor_answered();
                }
                CallNews::Ended(reason) => self.vendor_ended(now, reason, update.duration_s),
                CallNews::StreamFailed => self.stream_failed(now, update.why.as_deref()),
                CallNews::Key(key) => self.pressed(now, Teller::Webhook, key),
                CallNews::Initiated | CallNews::Other => {}
            }
        }
        self.when_durable(done);
    }

    /// Asks for the media stream of a call that was taken without one.
    pub(super) fn vendor_answered(&mut self) {
        let wanted = self.terms.handling.stream_after_answer && self.row.inbound;
        if wanted && self.leg == Leg::Awaited && !self.is_ended() {
            self.ask(Ask::StartStream);
        }
    }

    /// The caller pressed a key.
    fn pressed(&mut self, now: Now, teller: Teller, key: char) {
        if self.is_ended() || !self.keys.press(teller, key) {
            return;
        }
        match self.outbox.is_full() {
            true => self.lose(),
            false => self.keep(now, [], News::Dtmf(key), []),
        }
    }

    pub(super) fn is_first(&mut self, key: &str) -> bool {
        if self.seen.iter().any(|seen| seen == key) {
            return false;
        }
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(key.to_owned());
        true
    }

    /// A media socket carries the call from now on; `speaks` says whether words reach the caller over it.
    pub(in crate::control) fn attached(&mut self, now: Now, call_sid: &str, stream_id: &str, speaks: bool) {
        self.leg = Leg::Live;
        let first = self.facts.stream_id.replace(stream_id.to_owned()).is_none();
        self.learn_sid(call_sid);
        self.timers.clear(Timer::Stream);
        if first {
            self.timers.set(Timer::Length, now.mono + self.terms.max_length);
            if let Some(before) = self.terms.max_length.checked_sub(WARN_BEFORE).filter(|d| !d.is_zero()) {
                self.timers.set(Timer::LengthWarning, now.mono + before);
            }
        }
        self.advance(now, CallStatus::Answered);
        self.advance(now, CallStatus::InProgress);
        let held = self.held.take().unwrap_or_default();
        if speaks {
            let speak = |(utterance, text, language)| Effect::Speak {
                utterance,
                text,
                language,
            };
            self.effects.extend(held.into_iter().map(speak));
        } else {
            self.settle_rest(now);
        }
    }

    /// The file of the call's recording, or of what followed a lost stream.
    pub(in crate::control) fn recorded_to(&mut self, file: String) {
        if self.row.recording.is_some() {
            return self.facts.more_recordings.push(file);
        }
        self.row.recording = Some(file.clone());
        self.change(CallChange {
            recording: Some(file),
            ..CallChange::default()
        });
    }

    /// News from the leg.
    pub(in crate::control) fn leg(&mut self, now: Now, event: LegEvent) {
        match event {
            LegEvent::Dtmf(key) => self.pressed(now, Teller::Stream, key),
            LegEvent::Complaint(code) => self.complained(now, code),
            LegEvent::Playing(utterance) => self.ledger.playing(utterance),
            LegEvent::Played {
                utterance,
                heard_ms,
                whole,
            } => {
                let settled = self.ledger.played(utterance, heard_ms, whole);
                self.over(now, utterance, (whole, heard_ms), settled);
            }
            LegEvent::BargedIn => self.cut(now),
            LegEvent::Ended { end, accounting } => {
                self.facts.accounting = Some(*accounting);
                self.facts.closed_without_stop = end == LegEnd::ClosedWithoutStop;
                self.leg_ended(now, end);
            }
        }
    }
}
