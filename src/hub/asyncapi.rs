//! The frontends' sockets, described (AsyncAPI 3.0): every message both ways, with the schema of the type that reads or
//! writes it. Whoever serves the description adds where the server is.

use super::{
    audio_messages::{AudioMessage, AudioSettings},
    call_events::{self, EventSettings},
    protocol::{self, Settings},
    viewer::{Notice, Request, Voice},
};
use schemars::{
    JsonSchema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

/// Path of the telephony socket.
pub const TELEPHONY: &str = "/api/ws/telephony/stream";
/// Path of the socket that tells what happens to calls.
pub const CALL_EVENTS: &str = "/call-events";
/// Path of the socket that plays calls.
pub const FRONTEND_AUDIO: &str = "/frontend-audio";

/// One socket.
struct Channel {
    name: &'static str,
    address: &'static str,
    description: &'static str,
    query: &'static [(&'static str, &'static str)],
    /// The member that says what a message is.
    tag: &'static str,
    /// What the daemon reads.
    takes: Vec<Message>,
    /// What it writes.
    tells: Vec<Message>,
}

/// One message: its name and its schema.
struct Message {
    name: String,
    schema: Map<String, Value>,
}

fn channels() -> [Channel; 3] {
    let viewer = |name, address, description, query, voice: Voice, mut tells: Vec<Message>| {
        let retagged = |m| retagged(m, voice.tag());
        tells.extend(
            messages::<Notice<'_>>(Contract::Serialize, "type")
                .into_iter()
                .map(retagged),
        );
        Channel {
            name,
            address,
            description,
            query,
            tag: voice.tag(),
            takes: messages::<Request>(Contract::Deserialize, "type")
                .into_iter()
                .map(retagged)
                .collect(),
            tells,
        }
    };
    [
        Channel {
            name: "telephony",
            address: TELEPHONY,
            description: "To see calls live, speak to callers and steer calls.",
            query: Settings::QUERY,
            tag: "type",
            takes: messages::<protocol::Written<'_>>(Contract::Deserialize, "type"),
            tells: messages::<protocol::ServerMessage<'_>>(Contract::Serialize, "type"),
        },
        viewer(
            "call_events",
            CALL_EVENTS,
            "To see what happens to calls, in the same names whichever vendor carries them.",
            EventSettings::QUERY,
            Voice::Events,
            messages::<call_events::Written<'_>>(Contract::Serialize, "type"),
        ),
        viewer(
            "frontend_audio",
            FRONTEND_AUDIO,
            "To listen to calls.",
            AudioSettings::QUERY,
            Voice::Audio,
            messages::<AudioMessage<'_>>(Contract::Serialize, "event"),
        ),
    ]
}

/// The description, but for its servers.
pub fn document() -> Value {
    let (mut described, mut operations) = (Map::new(), Map::new());
    for channel in channels() {
        let at = format!("#/channels/{}", channel.name);
        for (action, messages) in [("receive", &channel.takes), ("send", &channel.tells)] {
            let reference = |m: &Message| json!({ "$ref": format!("{at}/messages/{}", m.key(action)) });
            let scheme = |name: &str| json!({ "$ref": format!("#/components/securitySchemes/{name}") });
            let operation = json!({
                "action": action,
                "channel": { "$ref": at },
                "messages": messages.iter().map(reference).collect::<Vec<_>>(),
                "security": [scheme("query"), scheme("bearer")],
            });
            operations.insert(format!("{}.{action}", channel.name), operation);
        }
        described.insert(channel.name.to_owned(), channel.describe());
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "sidetone: the frontends' sockets",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Unknown members of a message are ignored, both ways.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "channels": described,
        "operations": operations,
        "components": {
            "securitySchemes": {
                "query": { "type": "httpApiKey", "in": "query", "name": "token", "description": "A JWT." },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A JWT; browsers send it as the subprotocol after `bearer`.",
                },
            },
        },
    })
}

impl Channel {
    fn describe(&self) -> Value {
        let messages: Map<_, _> = [("receive", &self.takes), ("send", &self.tells)]
            .into_iter()
            .flat_map(|(action, messages)| messages.iter().map(move |m| (m.key(action), m.describe())))
            .collect();
        let parameter =
            |(name, means): &(&str, &str)| ((*name).to_owned(), json!({ "type": "string", "description": means }));
        let query: Map<_, _> = self.query.iter().map(parameter).collect();
        json!({
            "address": self.address,
            "title": self.address,
            "description": format!("{} `{}` says what a message is.", self.description, self.tag),
            "messages": messages,
            "bindings": { "ws": { "method": "GET", "query": { "type": "object", "properties": query } } },
        })
    }
}

impl Message {
    /// Its key in the channel: both sides may have a message of one name.
    fn key(&self, action: &str) -> String {
        format!("{action}.{}", self.name)
    }

    fn describe(&self) -> Value {
        let mut payload = self.schema.clone();
        let summary = payload.remove("description").unwrap_or_default();
        json!({ "name": self.name, "summary": summary, "payload": payload })
    }
}

/// The messages of a type that is told apart by `tag`: one for each of its variants.
fn messages<T: JsonSchema>(contract: Contract, tag: &str) -> Vec<Message> {
    let settings = SchemaSettings::draft07().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
        s.contract = contract;
    });
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    let Value::Object(mut all) = schema else {
        return Vec::new();
    };
    all.remove("title");
    let Some(Value::Array(variants)) = all.remove("oneOf") else {
        return Vec::new();
    };
    let each = variants.into_iter().filter_map(|variant| {
        let name = variant["properties"][tag]["const"].as_str()?.to_owned();
        let mut schema = all.clone();
        join(&mut schema, variant);
        Some(Message { name, schema })
    });
    each.collect()
}

/// Adds what one schema of an object asks for to another.
fn join(schema: &mut Map<String, Value>, more: Value) {
    let Value::Object(more) = more else { return };
    for (name, more) in more {
        match (schema.get_mut(&name), more) {
            (Some(Value::Object(members)), Value::Object(more)) => members.extend(more),
            (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
            (_, more) => {
                schema.insert(name, more);
            }
        }
    }
}

/// The message with another name for its `type`.
fn retagged(mut message: Message, tag: &str) -> Message {
    if let Some(Value::Object(members)) = message.schema.get_mut("properties")
        && let Some(kind) = members.remove("type")
    {
        members.insert(tag.to_owned(), kind);
    }
    let required = message.schema.get_mut("required").and_then(Value::as_array_mut);
    for name in required.into_iter().flatten().filter(|name| *name == "type") {
        *name = tag.into();
    }
    message
}
