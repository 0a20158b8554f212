//! A group of batches as the journal keeps it: JSON with the field names of the rows, so that a version that knows more fields
//! reads what one that knew fewer has left.

use crate::{
    base::{
        ids::{CallId, MessageId, TenantId},
        time::Wall,
    },
    store::{Batch, CallChange, CallRow, CallStatus, JobRow, JobState, MessageRow, Sender, Write},
    vendor::{self, EndReason},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

/// A group that was acknowledged.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct Record {
    /// Its number among its writer's groups.
    pub(in crate::store) group: i64,
    /// When it was acknowledged.
    #[serde(with = "plain")]
    pub(in crate::store) at: Wall,
    /// What was acknowledged, in order.
    pub(in crate::store) entries: Vec<Entry>,
}

/// A batch of a group.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct Entry {
    /// The ids that were told for its events.
    pub(in crate::store) event_ids: Vec<i64>,
    writes: Vec<Kept>,
}

impl Entry {
    /// Takes down a batch; `None` when it holds what the database alone can decide.
    pub(in crate::store) fn new(batch: &Batch, event_ids: Vec<i64>) -> Option<Self> {
        let writes = batch.writes.iter().map(Kept::new).collect::<Option<_>>()?;
        Some(Self { event_ids, writes })
    }

    /// The batch.
    pub(in crate::store) fn batch(&self) -> Batch {
        Batch {
            writes: self.writes.iter().cloned().map(Kept::into_write).collect(),
        }
    }
}

/// A word of a closed set. By its own name, so that it is not taken for a part of the text that is read.
type Word = &'static str;

/// A [`Write`] of a call's step.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kept {
    Call(#[serde(with = "CallDef")] CallRow),
    Change(#[serde(with = "ChangeDef")] CallChange),
    Message(#[serde(with = "MessageDef")] MessageRow),
    Delivery {
        #[serde(with = "plain")]
        message_id: MessageId,
        #[serde(deserialize_with = "delivery")]
        delivery: Word,
        heard_ms: u32,
    },
    Seen {
        #[serde(deserialize_with = "vendor_name")]
        vendor: Word,
        key: String,
    },
    Event {
        tenant: i64,
        #[serde(with = "plain")]
        call_id: CallId,
        payload: String,
    },
    Job(#[serde(with = "JobDef")] JobRow),
}

impl Kept {
    fn new(write: &Write) -> Option<Self> {
        Some(match write {
            Write::Call(row) => Self::Call((**row).clone()),
            Write::CallChange(change) => Self::Change((**change).clone()),
            Write::Message(row) => Self::Message((**row).clone()),
            Write::Delivery {
                message_id,
                delivery,
                heard_ms,
            } => Self::Delivery {
                message_id: *message_id,
                delivery,
                heard_ms: *heard_ms,
            },
            Write::Seen { vendor, key } => Self::Seen {
                vendor,
                key: key.clone(),
            },
            Write::Event {
                tenant,
                call_id,
                payload,
            } => Self::Event {
                tenant: tenant.0,
                call_id: *call_id,
                payload: payload.clone(),
            },
            Write::Job(row) => Self::Job((**row).clone()),
            // Numbers, agents, tenants and keys are each there once in all the database, and a job is moved by one of all the
            // daemons.
            Write::Number(_)
            | Write::NumberGone(_)
            | Write::Agent(_)
            | Write::AgentGone(_)
            | Write::NewTenant(_)
            | Write::Tenant(_)
            | Write::ApiKey(_)
            | Write::ApiKeyGone(_)
            | Write::JobMove(_) => return None,
            // Whether a call is held, and who carries it, is for the database to say.
            Write::Carry { .. } => return None,
            Write::Hold { .. } | Write::Erase { .. } | Write::Erased { .. } | Write::Retention { .. } => return None,
        })
    }

    fn into_write(self) -> Write {
        match self {
            Self::Call(row) => Write::Call(Box::new(row)),
            Self::Change(change) => Write::CallChange(Box::new(change)),
            Self::Message(row) => Write::Message(Box::new(row)),
            Self::Job(row) => Write::Job(Box::new(row)),
            Self::Delivery {
                message_id,
                delivery,
                heard_ms,
            } => Write::Delivery {
                message_id,
                delivery,
                heard_ms,
            },
            Self::Seen { vendor, key } => Write::Seen { vendor, key },
            Self::Event {
                tenant,
                call_id,
                payload,
            } => Write::Event {
                tenant: TenantId(tenant),
                call_id,
                payload,
            },
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CallRow")]
struct CallDef {
    #[serde(with = "plain")]
    call_id: CallId,
    call_sid: String,
    session_id: String,
    vendor: String,
    inbound: bool,
    customer_number: String,
    organization_number: String,
    #[serde(with = "plain")]
    status: CallStatus,
    #[serde(with = "plain_opt", default)]
    end_reason: Option<EndReason>,
    #[serde(with = "plain")]
    start_time: Wall,
    #[serde(with = "plain_opt", default)]
    answered_at: Option<Wall>,
    #[serde(with = "plain_opt", default)]
    end_time: Option<Wall>,
    duration: Option<i64>,
    #[serde(with = "plain")]
    tenant_id: TenantId,
    agent: String,
    recording: Option<String>,
    #[serde(default)]
    legal_hold: bool,
    metadata: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CallChange")]
struct ChangeDef {
    #[serde(with = "plain_opt", default)]
    call_id: Option<CallId>,
    call_sid: Option<String>,
    session_id: Option<String>,
    #[serde(with = "plain_opt", default)]
    status: Option<CallStatus>,
    #[serde(with = "plain_opt", default)]
    end_reason: Option<EndReason>,
    #[serde(with = "plain_opt", default)]
    answered_at: Option<Wall>,
    #[serde(with = "plain_opt", default)]
    end_time: Option<Wall>,
    duration: Option<i64>,
    recording: Option<String>,
    metadata: Option<Value>,
    agent: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MessageRow")]
struct MessageDef {
    #[serde(with = "plain")]
    message_id: MessageId,
    #[serde(with = "plain")]
    call_id: CallId,
    seq: i64,
    #[serde(deserialize_with = "message_type")]
    message_type: Word,
    content: String,
    #[serde(with = "plain")]
    sender_type: Sender,
    sender_name: Option<String>,
    confidence: Option<f32>,
    detected_language: Option<String>,
    #[serde(deserialize_with = "delivery_opt", default)]
    delivery: Option<Word>,
    heard_ms: Option<u32>,
    #[serde(with = "plain")]
    created_at: Wall,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "JobRow")]
struct JobDef {
    id: String,
    #[serde(with = "plain")]
    tenant_id: TenantId,
    kind: String,
    #[serde(with = "plain")]
    call_id: CallId,
    payload: Value,
    #[serde(with = "plain")]
    state: JobState,
    attempts: u32,
    #[serde(with = "plain")]
    due_at: Wall,
    error: Option<String>,
    #[serde(with = "plain")]
    created_at: Wall,
}

/// What is kept as a number or a word.
trait Plain: Sized {
    /// Its shape in JSON.
    type Kept: Serialize + DeserializeOwned;
    fn show(&self) -> Self::Kept;
    fn read(kept: Self::Kept) -> Option<Self>;
}

macro_rules! plain {
    ($($type:ty as $kept:ty: $show:expr, $read:expr;)*) => {$(
        impl Plain for $type {
            type Kept = $kept;
            fn show(&self) -> $kept { $show(self) }
            fn read(kept: $kept) -> Option<Self> { $read(kept) }
        }
    )*};
}

plain! {
    CallId as String: |v: &Self| v.to_string(), |s: String| s.parse().ok();
    MessageId as String: |v: &Self| v.to_string(), |s: String| s.parse().ok();
    TenantId as i64: |v: &Self| v.0, |n| Some(TenantId(n));
    Wall as i64: |v: &Self| v.as_micros(), |n| Some(Wall::from_micros(n));
    CallStatus as String: |v: &Self| v.as_str().to_owned(), |s: String| CallStatus::parse(&s);
    JobState as String: |v: &Self| v.as_str().to_owned(), |s: String| JobState::parse(&s);
    EndReason as String: |v: &Self| v.as_str().to_owned(), |s: String| EndReason::parse(&s);
    Sender as String: |v: &Self| v.as_str().to_owned(), |s: String| Sender::parse(&s);
}

mod plain {
    use super::*;

    pub(super) fn serialize<T: Plain, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        value.show().serialize(s)
    }

    pub(super) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        T::read(T::Kept::deserialize(d)?).ok_or_else(|| D::Error::custom("not a value of its kind"))
    }
}

mod plain_opt {
    use super::*;

    pub(super) fn serialize<T: Plain, S: Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::show).serialize(s)
    }

    pub(super) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        let read = |kept| T::read(kept).ok_or_else(|| D::Error::custom("not a value of its kind"));
        Option::<T::Kept>::deserialize(d)?.map(read).transpose()
    }
}

fn one_of<'de, D: Deserializer<'de>>(
    d: D,
    read: impl FnOnce(&str) -> Option<&'static str>,
) -> Result<&'static str, D::Error> {
    let word = String::deserialize(d)?;
    read(&word).ok_or_else(|| D::Error::custom("not a word of its kind"))
}

fn message_type<'de, D: Deserializer<'de>>(d: D) -> Result<&'static str, D::Error> {
    one_of(d, MessageRow::type_word)
}

fn delivery<'de, D: Deserializer<'de>>(d: D) -> Result<&'static str, D::Error> {
    one_of(d, MessageRow::delivery_word)
}

fn delivery_opt<'de, D: Deserializer<'de>>(d: D) -> Result<Option<&'static str>, D::Error> {
    let word = Option::<String>::deserialize(d)?;
    let read = |w: String| MessageRow::delivery_word(&w).ok_or_else(|| D::Error::custom("not a word of its kind"));
    word.map(read).transpose()
}

fn vendor_name<'de, D: Deserializer<'de>>(d: D) -> Result<&'static str, D::Error> {
    // A name that is no vendor's any more is kept for as long as the process lives: there are few of those.
    one_of(d, |word| {
        let known = vendor::all().iter().map(|v| v.name).find(|name| *name == word);
        Some(known.unwrap_or_else(|| Box::leak(Box::from(word))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::ids::{AgentId, NumberId},
        store::{
            Scope,
            contract::{batch, call, change, event, message, new_call},
        },
    };

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut row = call(TenantId(7));
        row.answered_at = Some(Wall::from_micros(1_704_110_400_000_007));
        row.end_reason = Some(EndReason::MediaLost);
        let mut said = message(row.call_id, 1);
        said.delivery = Some("cut");
        let whole = batch([
            Write::Seen {
                vendor: "acme",
                key: "k".into(),
            },
            new_call(&row),
            change(row.call_id, |c| {
                c.status = Some(CallStatus::Ended);
                c.end_time = Some(Wall::from_micros(5));
                c.metadata = Some(serde_json::json!({"a": 1}));
            }),
            Write::Message(Box::new(said.clone())),
            Write::Delivery {
                message_id: said.message_id,
                delivery: "heard",
                heard_ms: 40,
            },
            event(&row, "{}"),
            Write::Job(Box::new(JobRow::after_call(
                &row,
                Wall::from_micros(6),
                Wall::from_micros(7),
            ))),
        ]);
        let record = Record {
            group: 3,
            at: Wall::from_micros(9),
            entries: vec![Entry::new(&whole, vec![11]).unwrap()],
        };
        let bytes = serde_json::to_vec(&record).unwrap();
        let back: Record = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((back.group, back.at, back.entries.len()), (3, Wall::from_micros(9), 1));
        let entry = back.entries.into_iter().next().unwrap();
        assert_eq!(entry.event_ids, [11]);
        assert_eq!(format!("{:?}", entry.batch()), format!("{whole:?}"));
    }

    #[test]
    fn what_the_database_alone_can_decide_is_not_taken_down() {
        let call_id = call(TenantId(1)).call_id;
        let scope = Scope::Text;
        for write in [
            Write::NumberGone(NumberId::new()),
            Write::AgentGone(AgentId::new()),
            Write::Hold { call_id, held: true },
            Write::Erase { call_id, scope },
            Write::Erased { call_id, scope },
        ] {
            assert!(Entry::new(&batch([event(&call(TenantId(1)), "{}"), write]), vec![1]).is_none());
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        for bytes in [
            "",
            "{}",
            r#"{"group":1,"at":0,"entries":[{"event_ids":[],"writes":[{"Nothing":{}}]}]}"#,
        ] {
            assert!(serde_json::from_str::<Record>(bytes).is_err(), "{bytes}");
        }
    }
}
