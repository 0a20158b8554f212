//! What a call cost, by the configured rates: minutes of the vendor and of recognition, characters spoken, tokens.

use super::Config;
use crate::store::{CallRow, MessageRow, Sender};
use serde_json::{Map, Value, json};

/// What a call used, and its price. A rate that is not configured is no price.
pub(super) fn of(config: &Config, call: &CallRow, messages: &[MessageRow], stt: &str, tts: &str) -> (Value, Value) {
    let seconds = call.duration.unwrap_or(0).max(0);
    let spoken = messages
        .iter()
        .filter(|m| m.sender_type == Sender::Agent && m.message_type == "tts_audio");
    let characters: usize = spoken
        .filter(|m| m.delivery != Some("failed"))
        .map(|m| m.content.chars().count())
        .sum();
    let minutes = seconds as f64 / 60.0;
    let mut lines = Map::new();
    let mut add = |of: String, amount: f64| {
        let price = config.price(&of) * amount;
        if price > 0.0 {
            lines.insert(of, json!(rounded(price)));
        }
        price
    };
    let mut total = add(format!("vendor.{}", call.vendor), minutes);
    total += add(format!("stt.{stt}"), minutes);
    total += add(format!("tts.{tts}"), characters as f64 / 1000.0);
    let tokens = call.metadata.get("llm_usage").and_then(Value::as_object);
    for (service, used) in tokens.into_iter().flatten() {
        for direction in ["input", "output"] {
            let n = used.get(direction).and_then(Value::as_u64).unwrap_or(0);
            total += add(format!("llm.{service}.{direction}"), n as f64 / 1e6);
        }
    }
    let usage = json!({
        "vendor_seconds": seconds,
        "stt_seconds": seconds,
        "tts_characters": characters,
        "llm_tokens": tokens.cloned().unwrap_or_default(),
    });
    let cost = json!({ "currency": config.currency, "total": rounded(total), "lines": lines });
    (usage, cost)
}

/// To a millionth.
fn rounded(price: f64) -> f64 {
    (price * 1e6).round() / 1e6
}
