//! An agent's own keys of services: sealed in its row, write-only over REST, for all that its calls use of the service.

use super::invalid;
use crate::{
    base::{
        fault::{Fault, Kind},
        ids::AgentId,
        keyring::{Keyring, SERVICES},
        secret::Secret,
    },
    store::seal::{Seal, SealError},
};
use serde_json::{Map, Value};

/// The setting that holds them, as a sealed text.
pub(super) const SETTING: &str = "keys";

/// Longest key.
const MAX_KEY: usize = 512;

/// The keys as they shall be: those named are replaced, `null` removes one, and all where it stands for all.
pub(super) fn changed(known: Keyring, given: Option<Value>) -> Result<Keyring, Fault> {
    let given = match given {
        None => return Ok(known),
        Some(Value::Null) => return Ok(Keyring::default()),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(invalid("keys is an object: a key by the name of each service")),
    };
    let mut keys: Vec<_> = known
        .services()
        .filter(|service| !given.contains_key(*service))
        .filter_map(|service| Some((service.to_owned(), known.get(service)?.clone())))
        .collect();
    for (service, key) in given {
        if !SERVICES.contains(&service.as_str()) {
            return Err(invalid(format!(
                "keys has no service {service:?}: one of {}",
                SERVICES.join(", ")
            )));
        }
        let fits = |key: &str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        match key {
            Value::Null => {}
            Value::String(key) if fits(&key) => keys.push((service, Secret::new(key))),
            _ => {
                return Err(invalid(format!(
                    "keys.{service} is no key: printable ASCII without spaces"
                )));
            }
        }
    }
    Ok(keys.into_iter().collect())
}

/// Seals the keys of an agent; nothing where there are none.
pub(super) fn seal(seal: &Seal, agent: AgentId, keys: &Keyring) -> Result<Option<String>, Fault> {
    if keys.is_empty() {
        return Ok(None);
    }
    let texts: Map<String, Value> = keys
        .services()
        .filter_map(|service| Some((service.to_owned(), keys.get(service)?.expose().into())))
        .collect();
    let text = Value::Object(texts).to_string();
    seal.seal(agent.as_str(), &text).map(Some).map_err(|e| match e {
        SealError::NoKey => Fault::client(
            Kind::Conflict,
            "keys cannot be kept: the operator has configured no store.seal_key (openssl rand -base64 32)",
        ),
        other => Fault::internal(other.to_string()),
    })
}

/// Opens the keys of an agent.
pub(super) fn open(seal: &Seal, agent: AgentId, sealed: Option<&Value>) -> Result<Keyring, Fault> {
    let Some(sealed) = sealed.and_then(Value::as_str) else {
        return Ok(Keyring::default());
    };
    let broken = |e: SealError| Fault::internal(format!("the agent's keys cannot be opened: {e}"));
    let text = seal.open(agent.as_str(), sealed).map_err(broken)?;
    let texts: std::collections::BTreeMap<String, String> =
        serde_json::from_str(text.expose()).map_err(|_| broken(SealError::Broken))?;
    Ok(texts
        .into_iter()
        .map(|(service, key)| (service, Secret::new(key)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_added_replaced_and_removed_by_name() {
        let none = Keyring::default();
        let two = changed(none, Some(json!({ "deepgram": "d1", "openai": "o1" }))).unwrap();
        let next = changed(
            two.clone(),
            Some(json!({ "deepgram": "d2", "openai": null, "gemini": "g" })),
        )
        .unwrap();
        assert_eq!(next.services().collect::<Vec<_>>(), ["deepgram", "gemini"]);
        assert_eq!(next.get("deepgram").unwrap().expose(), "d2");
        assert_eq!(changed(two.clone(), None).unwrap(), two);
        assert!(changed(two.clone(), Some(Value::Null)).unwrap().is_empty());
        for wrong in [
            json!({ "vosk": "x" }),
            json!({ "openai": "a b" }),
            json!({ "openai": 7 }),
            json!(["x"]),
        ] {
            let fault = changed(two.clone(), Some(wrong)).unwrap_err().to_string();
            assert!(!fault.contains("o1") && !fault.contains("a b"), "{fault}");
        }
    }

    #[test]
    fn sealed_keys_open_for_their_agent_alone_and_are_not_readable() {
        let sealer = Seal::new(Some(&Secret::new("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")), None);
        let (agent, other) = (AgentId::new(), AgentId::new());
        let keys = changed(Keyring::default(), Some(json!({ "deepgram": "dg-secret" }))).unwrap();
        let sealed = Value::String(seal(&sealer, agent, &keys).unwrap().unwrap());
        assert!(!sealed.to_string().contains("dg-secret"));
        assert_eq!(open(&sealer, agent, Some(&sealed)).unwrap(), keys);
        assert!(open(&sealer, other, Some(&sealed)).is_err());
        assert_eq!(seal(&sealer, agent, &Keyring::default()).unwrap(), None);
    }
}
