//! The bus of one process: a list of bounded queues.

use super::{Bus, Event};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Events a subscriber may lag behind before it is cut off.
const QUEUE: usize = 8192;

/// Delivers within the process.
#[derive(Debug, Default)]
pub struct LocalBus {
    subscribers: Mutex<Vec<Sender<Arc<Event>>>>,
}

impl LocalBus {
    /// A bus nobody listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every subscription: its holder begins another and finds out what it missed.
    pub(super) fn interrupt(&self) {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Bus for LocalBus {
    fn publish(&self, event: Arc<Event>) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|s| s.try_send(event.clone()).is_ok());
    }

    fn subscribe(&self) -> Receiver<Arc<Event>> {
        let (tx, rx) = mpsc::channel(QUEUE);
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(tx);
        rx
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{ids::*, time::Wall},
        bus::News,
    };

    fn event(n: char) -> Arc<Event> {
        Arc::new(Event {
            tenant: TenantId(1),
            call: CallId::new(),
            id: None,
            at: Wall::default(),
            news: News::Dtmf(n),
        })
    }

    #[test]
    fn a_subscriber_that_never_reads_is_cut_off_and_the_others_are_not() {
        let bus = LocalBus::new();
        let (mut slow, mut quick) = (bus.subscribe(), bus.subscribe());
        for _ in 0..=QUEUE {
            bus.publish(event('1'));
            assert!(quick.try_recv().is_ok());
        }
        let mut seen = 0;
        while slow.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, QUEUE);
        assert!(slow.is_closed());
        bus.publish(event('2'));
        assert!(quick.try_recv().is_ok());
    }
}
