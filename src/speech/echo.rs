//! The echo of a leg that is heard in one encoding and spoken to in Opus: encoding has no place on its media thread, so what the
//! caller says makes its turn here.

use super::outlet::Outlet;
use crate::{audio::ring::UplinkRx, base::ids::UtteranceId, metrics};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often the rings are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// What waits for longer than this many milliseconds is left out: an echo must not grow later and later.
const LATE_MS: usize = 300;

/// Gives back what the caller says, until the leg is gone. Both rings have one rate.
pub(super) async fn echo(mut from: UplinkRx, mut to: Outlet) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !from.is_closed() && !to.is_closed() {
        looks.tick().await;
        turn(&mut from, &mut to);
    }
}

fn turn(from: &mut UplinkRx, to: &mut Outlet) {
    let mut samples = [0; 960];
    let mut late = from.queued().saturating_sub(from.rate() as usize * LATE_MS / 1000);
    metrics::dropped("echo", "late", late as u64);
    while late > 0 {
        let n = late.min(samples.len());
        late -= from.pop(&mut samples[..n]);
    }
    loop {
        let room = to.room().min(samples.len());
        let n = from.pop(&mut samples[..room]);
        if n == 0 {
            return;
        }
        to.push(UtteranceId::default(), &samples[..n], false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::ring::{downlink_of_packets, uplink};

    #[test]
    fn what_is_heard_goes_back_in_packets_and_what_is_late_is_left_out() {
        let (mut up, mut from) = uplink(8000, 8000, None);
        let (tx, mut rx) = downlink_of_packets(8000, 8000, 64, 16_000);
        let mut to = Outlet::new(tx);
        assert!(up.push(&[1; 400]));
        turn(&mut from, &mut to);
        assert_eq!((rx.queued(), from.queued()), (320, 0));
        let (mut samples, mut packet) = ([0; 160], [0; 640]);
        assert!(matches!(rx.pop_packet(&mut samples, &mut packet), (160, 1.., false)));
        assert_eq!(samples, [1; 160]);
        assert!(up.push(&[2; 8000]));
        turn(&mut from, &mut to);
        assert_eq!(rx.queued(), 160 + 2400, "300 ms, the 80 samples that waited among them");
    }
}
