//! The call detail record: what is known of a call beside its row, and how long it lasted.

use crate::{
    base::time::{Mono, Wall},
    control::waterfall::Turns,
    llm::Usage,
    media::{Accounting, LegEnd},
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `metadata` of a call's record. Fields that say nothing are left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Facts {
    /// The stream closed without a `stop`.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) closed_without_stop: bool,
    /// The call reached the longest length.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) length_limit: bool,
    /// No webhook announced the call: it was made from its stream (`--dev`).
    #[serde(skip_serializing_if = "is_false")]
    pub(super) unannounced: bool,
    /// The call was made by the test panel, or placed to a simulated phone.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) simulated: bool,
    /// Seconds as the vendor counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vendor_duration_s: Option<u32>,
    /// The vendor's id of the media stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream_id: Option<String>,
    /// The number the call was handed on to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transferred_to: Option<String>,
    /// Who served the call before whom, and why that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) handoffs: Vec<Handoff>,
    /// Outages of recognition.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) stt_faults: u32,
    /// Utterances that could not be spoken.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) tts_faults: u32,
    /// Questions that no language model answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) llm_faults: u32,
    /// How long the caller talked, as far as the recogniser said.
    #[serde(skip_serializing_if = "is_none")]
    pub(super) customer_talk_ms: u64,
    /// Tokens by service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) llm_usage: BTreeMap<&'static str, Usage>,
    /// What was read out of the conversation so far, by the agent's schema, and what is missing.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) extracted: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) extraction: Value,
    /// Where the time of each turn went.
    #[serde(skip_serializing_if = "Turns::is_empty")]
    pub(super) turns: Turns,
    /// Requests the vendor refused.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) vendor_faults: u32,
    /// Messages that storage did not keep up with.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) messages_lost: u32,
    /// How many media streams broke while the call went on.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) streams_lost: u32,
    /// The last of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost_streams: Vec<LostStream>,
    /// Recordings of the streams after the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) more_recordings: Vec<String>,
    /// Where every frame of the leg went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) accounting: Option<Accounting>,
}

/// A media stream that broke.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LostStream {
    pub(super) at: Wall,
    pub(super) stream_id: Option<String>,
    pub(super) end: LegEnd,
    /// Where its frames went.
    pub(super) accounting: Option<Accounting>,
}

/// One change of the agent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Handoff {
    pub(super) at: Wall,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) why: &'static str,
    /// Who wanted it, where a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
}

const fn is_false(b: &bool) -> bool {
    !*b
}

const fn is_none(n: &u64) -> bool {
    *n == 0
}

const fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Facts {
    /// The JSON that is stored.
    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Whole seconds from answer to end on the monotonic clock, which no correction of the time of day disturbs.
/// 0 for a call that was never answered.
pub(super) fn duration_s(answered: Option<Mono>, ended: Mono) -> i64 {
    answered.map_or(0, |at| ended.since(at).as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_something_is_stored() {
        assert_eq!(Facts::default().to_json(), serde_json::json!({}));
        let facts = Facts {
            closed_without_stop: true,
            stt_faults: 2,
            ..Facts::default()
        };
        assert_eq!(
            facts.to_json(),
            serde_json::json!({ "closed_without_stop": true, "stt_faults": 2 })
        );
    }

    #[test]
    fn a_call_lasts_from_its_answer_in_whole_seconds() {
        assert_eq!(duration_s(None, Mono::from_millis(5000)), 0);
        assert_eq!(duration_s(Some(Mono::from_millis(1000)), Mono::from_millis(3999)), 2);
    }
}
