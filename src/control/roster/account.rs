//! A number's own account: JSON settings read by the vendor's own reader, and parted into what may be shown and what is sealed.

use super::invalid;
use crate::{
    base::{
        fault::{Fault, Kind},
        ids::NumberId,
        settings::{
            self, Catalogue, Faults, Section, Step,
            json::{camel_case, snake_case},
        },
    },
    store::seal::{Seal, SealError},
    vendor::{Descriptor, Trunk},
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Ends of names that are kept secret although an operator's file may hold them openly.
const SECRETS: [&str; 4] = ["api_key", "token", "secret", "password"];

/// An account as read.
pub(super) struct Account {
    pub(super) trunk: Arc<dyn Trunk>,
    /// What may be shown.
    pub(super) open: Map<String, Value>,
    /// What may not.
    pub(super) secret: Map<String, Value>,
}

/// Keys as the configuration writes them, `null`s left in.
pub(super) fn normal(settings: Map<String, Value>) -> Map<String, Value> {
    settings.into_iter().map(|(k, v)| (snake_case(&k), v)).collect()
}

/// Reads an account from settings with keys as the configuration writes them.
pub(super) fn own_account(vendor: &'static Descriptor, mut settings: Map<String, Value>) -> Result<Account, Fault> {
    let name = |key: &str| format!("{}Config.{}", vendor.name, camel_case(key));
    let table = settings::json::table(&settings).map_err(|what| invalid(name(&what)))?;
    let (faults, catalogue) = (Faults::default(), Catalogue::default());
    let section = Section::root(&table, &faults).telling(&catalogue);
    let trunk = (vendor.trunk)(&section);
    section.finish();
    let faults: Vec<_> = faults.take().iter().map(|f| say(&name(&f.key), f)).collect();
    if !faults.is_empty() {
        return Err(invalid(faults.join("; ")));
    }
    settings.retain(|_, value| !value.is_null());
    let known = catalogue.take();
    let is_secret = |key: &String| {
        let first = |path: &[Step]| matches!(path.first(), Some(Step::Key(k)) if k == key);
        SECRETS.iter().any(|end| key.ends_with(end)) || known.iter().any(|k| k.secret && first(&k.path))
    };
    let (secret, open) = settings.into_iter().partition(|(key, _)| is_secret(key));
    Ok(Account { trunk, open, secret })
}

fn say(key: &str, fault: &settings::Fault) -> String {
    let hint = if fault.hint.is_empty() {
        String::new()
    } else {
        format!(" ({})", fault.hint)
    };
    format!("{key}: {}{hint}", fault.what)
}

/// Seals the secrets of a number; nothing where there are none.
pub(super) fn seal(seal: &Seal, id: NumberId, secret: &Map<String, Value>) -> Result<Option<String>, Fault> {
    if secret.is_empty() {
        return Ok(None);
    }
    let text = Value::Object(secret.clone()).to_string();
    seal.seal(id.as_str(), &text).map(Some).map_err(|e| match e {
        SealError::NoKey => Fault::client(
            Kind::Conflict,
            "secrets cannot be kept: the operator has configured no store.seal_key (openssl rand -base64 32)",
        ),
        other => Fault::internal(other.to_string()),
    })
}

/// Opens the secrets of a number.
pub(super) fn open(seal: &Seal, id: NumberId, sealed: Option<&str>) -> Result<Map<String, Value>, SealError> {
    let Some(sealed) = sealed else { return Ok(Map::new()) };
    let text = seal.open(id.as_str(), sealed)?;
    serde_json::from_str(text.expose()).map_err(|_| SealError::Broken)
}
