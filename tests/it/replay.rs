//! Frontends that lose their connection at any moment under load: whatever they got, put together, is all that happened, each
//! event once and in order.

use crate::house::{Frontend, House};
use serde_json::{Value, json};
use sidetone::base::ids::TenantId;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

const TENANT: i64 = 1;
/// Calls that ring, are answered and end meanwhile, by each of so many at once.
const CALLS: usize = 30;
const AT_ONCE: usize = 4;
const FRONTENDS: u64 = 6;

/// Numbers that look random and are the same on every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What one frontend has got over all its connections.
struct Seen {
    ids: Vec<i64>,
    dice: Dice,
    connections: u32,
}

impl Seen {
    fn last(&self) -> i64 {
        self.ids.last().copied().unwrap_or(0)
    }

    fn take(&mut self, message: &Value) {
        if let Some(id) = message["id"].as_i64() {
            assert!(
                id > self.last(),
                "{id} after {} on connection {}",
                self.last(),
                self.connections
            );
            self.ids.push(id);
        }
    }

    async fn connect(&mut self, house: &House) -> Frontend {
        self.connections += 1;
        let query = format!("client_type=telephony&last_event_id={}", self.last());
        house.frontend(&query).await
    }

    /// Connects, reads a little or nothing, and is gone without a word.
    async fn glimpse(&mut self, house: &House) {
        let mut frontend = self.connect(house).await;
        for _ in 0..self.dice.below(25) {
            let read = tokio::time::timeout(std::time::Duration::from_millis(50), frontend.next());
            let Ok(message) = read.await else { break };
            self.take(&message);
        }
    }

    /// Reads to that event, and makes sure that nothing follows.
    async fn settle(&mut self, house: &House, end: i64) {
        let mut frontend = self.connect(house).await;
        while self.last() < end {
            let message = frontend.next().await;
            self.take(&message);
        }
        frontend.say(&json!({"type": "ping"})).await;
        loop {
            let message = frontend.next().await;
            assert!(message["id"].is_null(), "{message} came behind the last");
            if message["type"] == "pong" {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_a_frontend_is_cut_off_it_gets_every_event_once_and_in_order() {
    let house = Arc::new(House::dev().await);
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (1..=FRONTENDS)
        .map(|seed| {
            let (house, over) = (house.clone(), over.clone());
            tokio::spawn(async move {
                let mut seen = Seen {
                    ids: Vec::new(),
                    dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                    connections: 0,
                };
                while !over.load(Relaxed) {
                    seen.glimpse(&house).await;
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (0..AT_ONCE)
        .map(|writer| {
            let house = house.clone();
            tokio::spawn(async move {
                for n in 0..CALLS {
                    let sid = format!("CA{writer}x{n}");
                    house.ring(&sid, TENANT).await;
                    house.vendor_says(&sid, TENANT, "in-progress", 1).await;
                    house.vendor_says(&sid, TENANT, "completed", 2).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Relaxed);
    let all = house.store.events(TenantId(TENANT), None, 0, 10_000).await.unwrap();
    let all: Vec<_> = all.iter().map(|e| e.id).collect();
    assert!(all.len() >= CALLS * AT_ONCE * 2, "{} events", all.len());
    for reader in readers {
        let mut seen = reader.await.unwrap();
        seen.settle(&house, *all.last().unwrap()).await;
        assert_eq!(seen.ids, all);
        assert!(seen.connections > 3, "{} connections", seen.connections);
    }
}
