//! Keys of services, each by the service's name, that go before the operator's own: a tenant's, or an agent's.

use super::secret::Secret;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Services that may be given a key: for everything of them that a call uses.
pub const SERVICES: [&str; 5] = ["anthropic", "deepgram", "elevenlabs", "gemini", "openai"];

/// Keys by service. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring(Option<Arc<BTreeMap<String, Secret>>>);

impl Keyring {
    /// The key for a service.
    pub fn get(&self, service: &str) -> Option<&Secret> {
        self.0.as_ref()?.get(service)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The services that there are keys for.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|keys| keys.keys().map(String::as_str))
    }

    /// These keys, and `others` where these have none.
    pub fn or(&self, others: &Self) -> Self {
        match (&self.0, &others.0) {
            (None, _) => others.clone(),
            (_, None) => self.clone(),
            (Some(own), Some(others)) => others
                .iter()
                .chain(own.iter())
                .map(|(service, key)| (service.clone(), key.clone()))
                .collect(),
        }
    }
}

impl FromIterator<(String, Secret)> for Keyring {
    fn from_iter<T: IntoIterator<Item = (String, Secret)>>(keys: T) -> Self {
        let keys: BTreeMap<_, _> = keys.into_iter().filter(|(_, key)| !key.is_empty()).collect();
        Self((!keys.is_empty()).then(|| Arc::new(keys)))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_key_goes_before_its_tenants_and_none_is_printed() {
        let ring = |keys: &[(&str, &str)]| -> Keyring {
            keys.iter().map(|(s, k)| ((*s).to_owned(), Secret::new(*k))).collect()
        };
        let both =
            ring(&[("deepgram", "agent's"), ("openai", "")]).or(&ring(&[("deepgram", "x"), ("openai", "tenant's")]));
        assert_eq!(both.get("deepgram").unwrap().expose(), "agent's");
        assert_eq!(both.get("openai").unwrap().expose(), "tenant's");
        assert!(both.get("gemini").is_none() && ring(&[("openai", "")]).is_empty());
        assert_eq!(format!("{both:?}"), r#"{"deepgram", "openai"}"#);
    }
}
