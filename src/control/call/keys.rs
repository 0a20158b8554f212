//! Keys that the caller pressed, of which the media stream and the vendor's webhooks may both tell: each press counts once.
//!
//! Neither tells all, in order or in time, and nothing in their words joins one to the other. So presses of a key are counted by
//! teller: one that takes its teller's count past the other's is news, every other one is known.

/// Who tells of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Teller {
    /// The media stream.
    Stream,
    /// A webhook.
    Webhook,
}

/// All keys of a telephone.
const KEYS: &str = "0123456789*#ABCD";

/// What was told of a call's keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys([[u32; 2]; KEYS.len()]);

impl Keys {
    /// Takes note of a press. Returns whether nobody told of it before.
    pub(super) fn press(&mut self, teller: Teller, key: char) -> bool {
        let Some(told) = KEYS.find(key).and_then(|at| self.0.get_mut(at)) else {
            return false;
        };
        let [stream, webhook] = told;
        let (own, other) = match teller {
            Teller::Stream => (stream, webhook),
            Teller::Webhook => (webhook, stream),
        };
        *own = own.saturating_add(1);
        *own > *other
    }
}

#[cfg(test)]
mod tests {
    use super::{Teller::*, *};
    use proptest::prelude::*;

    #[test]
    fn a_press_of_which_both_tell_counts_once_whoever_is_first() {
        let mut keys = Keys::default();
        for (teller, key, news) in [
            (Stream, '1', true),
            (Webhook, '1', false),
            (Webhook, '2', true),
            (Stream, '2', false),
            (Stream, '1', true),
            (Stream, '1', true),
            (Webhook, '1', false),
            (Webhook, '1', false),
            (Webhook, '#', true),
            (Webhook, '#', true),
            (Stream, '#', false),
            (Stream, 'D', true),
            (Stream, 'x', false),
        ] {
            assert_eq!(keys.press(teller, key), news, "{teller:?} {key}");
        }
    }

    proptest! {
        #[test]
        fn as_many_presses_count_as_the_better_teller_told(order in prop::collection::vec((any::<bool>(), 0..3_usize), 0..60)) {
            let mut keys = Keys::default();
            let (mut told, mut counted) = ([[0; 2]; 3], [0; 3]);
            for (by_stream, key) in order {
                let teller = if by_stream { Stream } else { Webhook };
                told[key][usize::from(by_stream)] += 1;
                counted[key] += usize::from(keys.press(teller, ['1', '*', 'A'][key]));
            }
            for (told, counted) in told.into_iter().zip(counted) {
                prop_assert_eq!(told[0].max(told[1]), counted);
            }
        }
    }
}
