//! A conversation with a language model over REST, in the words of the seed's clients, and whether one can be had.
//!
//! The client holds the conversation and sends all of it each time; nothing is kept here.

use super::{
    Shared,
    body::{self, Typed},
    respond::{Answer, data},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
        time::Wall,
    },
    llm::{self, Chat, ChatError, Piece, Prompt, Turn},
    store::Sender,
};
use axum::{
    Extension,
    extract::{Request, State},
};
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Turns of a conversation that are read.
const MAX_TURNS: usize = 200;
/// Longest answer that is collected, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest name of a session.
const MAX_SESSION: usize = 128;

/// What is asked.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(super) struct ConversationBody {
    /// What was said so far, oldest first. Without it, and with the `call_id` of a call, what was said on the call.
    history: Option<Vec<HistoryTurn>>,
    /// What is to be answered. Required, as this or `currentInput`.
    current_input: Option<String>,
    /// As `current_input`.
    #[serde(rename = "currentInput")]
    current_input_too: Option<String>,
    /// The call that it is about.
    call_id: Option<String>,
    /// As `call_id`.
    #[serde(rename = "callId")]
    call_id_too: Option<String>,
    /// What else the model should know.
    context: Option<Map<String, Value>>,
    /// The conversation's name; made when there is none.
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
    /// As `sessionId`.
    #[serde(rename = "session_id")]
    session_id_too: Option<String>,
    /// Another service than the configured one, such as `gemini`, or `openai/MODEL`.
    provider: Option<String>,
}

/// One side's words.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(super) struct HistoryTurn {
    /// `user` or `assistant`.
    role: Role,
    /// The words.
    content: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Conversation {
    /// The words.
    response: String,
    /// The conversation's name.
    session_id: String,
    /// The model that answered.
    model: String,
    /// What it used.
    usage: Used,
    /// When it had answered.
    #[schemars(with = "String")]
    timestamp: Wall,
}

/// Tokens of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Used {
    /// Read.
    input_tokens: u64,
    /// Written.
    output_tokens: u64,
}

/// Whether a language model can be asked.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// Whether the service is configured: its key is there, or it needs none. It is not asked, since every question costs.
    available: bool,
    /// The service.
    provider: &'static str,
    /// Its model.
    model: String,
    /// When that was found.
    #[schemars(with = "String")]
    checked_at: Wall,
}

/// `POST /api/ai/conversation`
pub(super) async fn conversation(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, fields) = body::object(&shared, request).await?;
    let Typed { value: asked, .. } = body::typed::<ConversationBody>(fields)?;
    let inputs = [
        ("current_input", asked.current_input),
        ("currentInput", asked.current_input_too),
    ];
    let input = body::same(inputs)?.filter(|input| !input.trim().is_empty());
    let input = input.ok_or_else(|| {
        let message = "current_input is required: without it there is nothing to answer";
        Fault::client(Kind::Invalid, message)
    })?;
    let sessions = [("sessionId", asked.session_id), ("session_id", asked.session_id_too)];
    let session_id = session(body::either(sessions)?)?;
    let call_id = body::either([("call_id", asked.call_id), ("callId", asked.call_id_too)])?;
    let (chat, model) = choose(&shared, who.tenant, asked.provider.as_deref(), call_id.as_deref()).await?;
    let mut turns = match asked.history {
        Some(said) if said.len() > MAX_TURNS => {
            let message = format!("history has more than {MAX_TURNS} turns");
            return Err(Fault::client(Kind::TooLarge, message).into());
        }
        Some(said) if !said.is_empty() => said.into_iter().map(turn).collect(),
        _ => said_on(&shared, who.tenant, call_id.as_deref()).await?,
    };
    turns.push(Turn::User(input));
    let prompt = Prompt {
        system: system(shared.llm.prompt(), asked.context),
        turns: tidy(turns),
        model: model.clone(),
        ..Prompt::default()
    };
    let (response, usage) = whole(&*chat, prompt).await?;
    Ok(data(Conversation {
        response,
        session_id,
        model: model.unwrap_or_else(|| chat.model()),
        usage,
        timestamp: Wall::now(),
    }))
}

/// `GET /api/ai/status`
pub(super) async fn status(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    let (chat, _) = choose(&shared, who.tenant, None, None).await?;
    Ok(data(Status {
        available: chat.ready().is_ok(),
        provider: chat.service(),
        model: chat.model(),
        checked_at: Wall::now(),
    }))
}

fn session(given: Option<String>) -> Result<String, Fault> {
    match given.filter(|s| !s.is_empty()) {
        None => Ok(format!("ai-{}", uuid::Uuid::new_v4().simple())),
        Some(s) if s.len() <= MAX_SESSION && s.bytes().all(|b| b.is_ascii_graphic()) => Ok(s),
        Some(_) => {
            let message = format!("sessionId is printable ASCII of at most {MAX_SESSION} bytes");
            Err(Fault::client(Kind::Invalid, message))
        }
    }
}

/// The service that was asked for, with its model where that was named; else the configured one. Rules are those of the
/// agent of the call that it is about, or of the tenant's most recent agent that has some.
async fn choose(
    shared: &Shared,
    tenant: TenantId,
    asked: Option<&str>,
    call: Option<&str>,
) -> Result<(Arc<dyn Chat>, Option<String>), Fault> {
    let name = asked.unwrap_or(shared.llm.default_name());
    if name == llm::SCRIPTED {
        let row = match call.filter(|id| !id.is_empty()) {
            Some(id) => shared.store.call(tenant, id).await?,
            None => None,
        };
        let script = shared.control.script(tenant, row.as_ref().map(|row| &*row.agent));
        return Ok((shared.llm.rules(&script), None));
    }
    let (service, model) = llm::split(name);
    let model = model.filter(|_| llm::is_known(name));
    let chat = shared
        .llm
        .service(service, &shared.control.service_keys(tenant))
        .ok_or_else(|| {
            let message = format!("provider is none of {}", llm::names());
            Fault::client(Kind::Invalid, message)
        })?;
    Ok((chat, model.map(str::to_owned)))
}

fn turn(said: HistoryTurn) -> Turn {
    match said.role {
        Role::User => Turn::User(said.content),
        Role::Assistant => Turn::assistant(said.content),
    }
}

/// What was said on a call of the tenant; nothing where there is none.
async fn said_on(shared: &Shared, tenant: TenantId, call: Option<&str>) -> Result<Vec<Turn>, Fault> {
    let Some(id) = call.filter(|id| !id.is_empty()) else {
        return Ok(Vec::new());
    };
    let Some(row) = shared.store.call(tenant, id).await? else {
        return Ok(Vec::new());
    };
    let messages = shared.store.messages(tenant, row.call_id).await?;
    let skip = messages.len().saturating_sub(MAX_TURNS);
    let turns = messages.into_iter().skip(skip).map(|m| match m.sender_type {
        Sender::Customer => Turn::User(m.content),
        Sender::Agent => Turn::assistant(m.content),
    });
    Ok(turns.collect())
}

/// Without empty turns, those of one side in a row joined.
fn tidy(turns: Vec<Turn>) -> Vec<Turn> {
    let mut tidy: Vec<Turn> = Vec::new();
    for turn in turns {
        match (tidy.last_mut(), turn) {
            (_, Turn::User(text)) if text.trim().is_empty() => {}
            (_, Turn::Assistant { text, .. }) if text.trim().is_empty() => {}
            (Some(Turn::User(before)), Turn::User(text)) => *before = format!("{before}\n{text}"),
            (Some(Turn::Assistant { text: before, .. }), Turn::Assistant { text, .. }) => {
                *before = format!("{before}\n{text}");
            }
            (_, turn) => tidy.push(turn),
        }
    }
    tidy
}

fn system(prompt: &str, context: Option<Map<String, Value>>) -> String {
    match context.filter(|c| !c.is_empty()) {
        Some(context) => format!("{prompt}\n\nContext: {}", Value::Object(context)),
        None => prompt.to_owned(),
    }
}

/// The whole answer.
async fn whole(chat: &dyn Chat, prompt: Prompt) -> Result<(String, Used), Fault> {
    let (mut response, mut answer) = (String::new(), chat.ask(prompt));
    while let Some(piece) = answer.next().await {
        match piece.map_err(ChatError::fault)? {
            Piece::Text(text) => response.push_str(&text),
            Piece::Call(_) => {}
            Piece::End { usage, .. } => {
                let usage = Used {
                    input_tokens: usage.input,
                    output_tokens: usage.output,
                };
                return Ok((response, usage));
            }
        }
        if response.len() > MAX_ANSWER {
            return Err(ChatError::Garbled("the answer is longer than 64 KiB").fault());
        }
    }
    Err(ChatError::Garbled("the answer broke off").fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_one_side_are_joined_and_empty_ones_dropped() {
        let user = |t: &str| Turn::User(t.into());
        let turns = vec![
            user("a"),
            user(" "),
            user("b"),
            Turn::assistant(""),
            Turn::assistant("c"),
            user("d"),
        ];
        assert_eq!(tidy(turns), [user("a\nb"), Turn::assistant("c"), user("d")]);
    }

    #[test]
    fn a_session_is_kept_or_made_and_never_runs_away() {
        assert_eq!(session(Some("s-1".into())).unwrap(), "s-1");
        assert_ne!(session(None).unwrap(), session(Some(String::new())).unwrap());
        for bad in ["a b", &"x".repeat(200), "\n"] {
            assert!(session(Some(bad.into())).is_err(), "{bad:?}");
        }
    }
}
