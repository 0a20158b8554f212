//! News on its way to a reader that may be slow, for a task that must not wait for it.

use super::SpeechEvent;
use crate::metrics;
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// Chunks of audio that wait at most; words about an utterance are never dropped and are few.
const AUDIO_WAITING: usize = 64;

/// Keeps the order of events and drops nothing but audio chunks, counted.
#[derive(Debug)]
pub(super) struct Outbox {
    events: mpsc::Sender<SpeechEvent>,
    waiting: VecDeque<SpeechEvent>,
}

impl Outbox {
    pub(super) const fn new(events: mpsc::Sender<SpeechEvent>) -> Self {
        Self {
            events,
            waiting: VecDeque::new(),
        }
    }

    /// Sends now or later.
    pub(super) fn put(&mut self, event: SpeechEvent) {
        use mpsc::error::TrySendError::{Closed, Full};
        let event = if self.waiting.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(Closed(_)) => return,
                Err(Full(event)) => event,
            }
        } else {
            event
        };
        if self.waiting.len() >= AUDIO_WAITING && matches!(event, SpeechEvent::Audio { last: false, .. }) {
            metrics::dropped("tts_chunk", "slow_reader", 1);
            return;
        }
        self.waiting.push_back(event);
    }

    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits until one waiting event is taken.
    pub(super) async fn flush(&mut self) {
        match self.events.reserve().await {
            Ok(place) => {
                if let Some(event) = self.waiting.pop_front() {
                    place.send(event);
                }
            }
            Err(_) => self.waiting.clear(),
        }
    }
}
