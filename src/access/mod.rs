//! Who may do what, and how often: tokens, API keys, roles, and rate limits, for `http` and `hub` alike.
//!
//! Time is an argument everywhere. Nothing here reads a header or opens a socket; what is refused is refused with a small
//! reason for metrics, and the outside hears the same sentence for all of them.

use crate::base::{
    ids::TenantId,
    time::{Mono, Wall},
};
use std::{fmt, net::IpAddr, time::Duration};

pub mod apikey;
mod config;
pub mod destinations;
pub mod jwt;
pub mod limit;
pub mod members;
pub mod registry;
pub mod scope;

pub use config::Config;

use crate::net::client::HttpClient;
use jwt::keyset::KeySet;
use members::Members;
use scope::Scopes;
use std::sync::Arc;

/// What a credential allows, each including the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees and hears.
    Viewer,
    /// Also speaks, places, moves and ends calls.
    #[default]
    Agent,
    /// Also changes what the tenant owns.
    Admin,
}

impl Role {
    /// All roles, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Agent, Self::Admin];

    /// The word in tokens, configuration and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Agent => "agent",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::parse(word).ok_or("viewer, agent or admin expected")
    }
}

/// Who asks, as a credential proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose calls.
    pub tenant: TenantId,
    /// What is allowed.
    pub role: Role,
    /// To what it is narrowed.
    pub scopes: Scopes,
    /// A person, or the name of an API key.
    pub subject: String,
    /// When the credential ends; `None` for keys without an end.
    pub expires: Option<Wall>,
    /// The key that proved it, where it is one that can be revoked.
    pub key: Option<apikey::KeyHash>,
}

/// A credential as presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A JWT.
    Token(&'a str),
    /// An API key.
    Key(&'a str),
}

impl<'a> Credential<'a> {
    /// What follows `Bearer`: API keys are told from tokens by their prefix.
    pub fn bearer(text: &'a str) -> Self {
        if text.starts_with(apikey::PREFIX) {
            Self::Key(text)
        } else {
            Self::Token(text)
        }
    }
}

/// Why nobody is let in. The outside hears one answer for [`Denied::Missing`] and [`Denied::Bad`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential was presented.
    Missing,
    /// The credential proves nothing; the word says why, for metrics.
    Bad(&'static str),
    /// Too many bad credentials came from this address; try again after so long.
    Blocked(Duration),
}

/// The gate. One for the process.
pub struct Access {
    tokens: jwt::Verifier,
    set: Option<Arc<KeySet>>,
    keys: apikey::Keys,
    members: Arc<Members>,
    operator: Option<TenantId>,
    failures: limit::Strikes,
    /// Webhooks that prove nothing, apart: who forges a vendor's requests must not shut out people behind the same address.
    forgeries: limit::Strikes,
    addresses: limit::Buckets<IpAddr>,
    requests: limit::Buckets<TenantId>,
    anonymous: Option<Identity>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// A gate for this configuration and these members. With `dev`, whoever presents nothing is an admin of tenant 1, and no rate limits apply.
    pub fn new(config: &Config, dev: bool, members: Arc<Members>) -> Self {
        let unless_dev = |rate| if dev { limit::Rate::UNLIMITED } else { rate };
        let set = config
            .jwks
            .clone()
            .map(|source| Arc::new(KeySet::new(source, HttpClient::new())));
        Self {
            tokens: config.verifier().with_set(set.clone()),
            set,
            keys: apikey::Keys::new(&config.keys),
            members,
            operator: config.operator,
            addresses: limit::Buckets::new(unless_dev(config.address_requests)),
            failures: limit::Strikes::new(unless_dev(config.failures), config.block),
            forgeries: limit::Strikes::new(unless_dev(config.failures), config.block),
            requests: limit::Buckets::new(unless_dev(config.requests)),
            anonymous: dev.then(|| Identity {
                tenant: TenantId(1),
                role: Role::Admin,
                scopes: Scopes::ALL,
                subject: "dev".to_owned(),
                expires: None,
                key: None,
            }),
        }
    }

    /// The keys of tokens that somebody else keeps, where they are configured.
    pub const fn key_set(&self) -> Option<&Arc<KeySet>> {
        self.set.as_ref()
    }

    /// Tenants and their keys.
    pub const fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Whether somebody may change what tenants are allowed: an admin of the operator's own tenant.
    pub fn is_operator(&self, who: &Identity) -> bool {
        who.role == Role::Admin && Some(who.tenant) == self.operator
    }

    /// The configured keys of a tenant.
    pub fn configured_keys(&self, tenant: TenantId) -> Vec<&apikey::ApiKey> {
        self.keys.of(tenant)
    }

    /// Proves who asks. A bad credential counts against `address`; a missing one does not, nor does that of a tenant who is
    /// disabled. Waits where a token names a key that has to be looked for first.
    pub async fn identify(
        &self,
        credential: Option<Credential<'_>>,
        address: IpAddr,
        now: Mono,
        wall: Wall,
    ) -> Result<Identity, Denied> {
        let Some(credential) = credential else {
            return self.anonymous.clone().ok_or(Denied::Missing);
        };
        if let Some(wait) = self.failures.blocked(address, now) {
            return Err(Denied::Blocked(wait));
        }
        let mut known = self.prove(credential, wall);
        if known == Err(jwt::Refusal::UnknownKey.word())
            && let Some(set) = &self.set
            && set.look_again(now).await
        {
            known = self.prove(credential, wall);
        }
        match known {
            Ok(who) if self.members.stands(&who, wall) => Ok(who),
            Ok(_) => Err(Denied::Bad("disabled")),
            Err(why) => {
                self.failures.strike(address, now);
                Err(Denied::Bad(why))
            }
        }
    }

    fn prove(&self, credential: Credential<'_>, wall: Wall) -> Result<Identity, &'static str> {
        match credential {
            Credential::Token(token) => self.tokens.verify(token, wall).map_err(jwt::Refusal::word),
            Credential::Key(key) if key.len() > apikey::MAX_KEY => Err("key"),
            Credential::Key(key) => {
                let stored = || self.members.identify(apikey::KeyHash::of(key), wall);
                self.keys.identify(key, wall).or_else(stored).ok_or("key")
            }
        }
    }

    /// Takes one request of the tenant, or says after how long there will be one.
    pub fn may_request(&self, tenant: TenantId, now: Mono) -> Result<(), Duration> {
        let own = self.members.limits(tenant).requests();
        self.requests.ask(tenant, own.unwrap_or(self.requests.rate()), now)
    }

    /// Takes one request of the address, whoever asks, or says after how long there will be one.
    pub fn may_ask(&self, address: IpAddr, now: Mono) -> Result<(), Duration> {
        self.addresses.ask(limit::network(address), self.addresses.rate(), now)
    }

    /// Counts a webhook that has not proven itself: ask only after its proof was looked at, since a vendor may share the address
    /// of whoever passes for it. `Some` says how long such ones are told to stay away; credentials are counted apart.
    pub fn forged(&self, address: IpAddr, now: Mono) -> Option<Duration> {
        self.forgeries.strike(address, now);
        self.forgeries.blocked(address, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(dev: bool) -> Access {
        let mut config = Config::default();
        config.add_ephemeral_key();
        Access::new(&config, dev, Arc::default())
    }

    #[test]
    fn roles_are_ordered_and_read_what_they_write() {
        assert!(Role::Viewer < Role::Agent && Role::Agent < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!(Role::parse("Admin"), None);
    }

    #[tokio::test]
    async fn without_a_credential_only_dev_lets_in() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let ask = async |dev| gate(dev).identify(None, ip, Mono::ZERO, Wall::default()).await;
        assert_eq!(ask(false).await, Err(Denied::Missing));
        assert_eq!(
            ask(true).await.map(|i| (i.tenant, i.role)),
            Ok((TenantId(1), Role::Admin))
        );
    }

    #[tokio::test]
    async fn a_bad_credential_is_refused_even_in_dev() {
        let bad = Some(Credential::bearer("nonsense"));
        let gate = gate(true);
        let got = gate.identify(bad, IpAddr::from([127, 0, 0, 1]), Mono::ZERO, Wall::default());
        assert_eq!(got.await, Err(Denied::Bad("parts")));
    }

    #[tokio::test]
    async fn forged_webhooks_and_bad_credentials_are_counted_apart() {
        let gate = gate(false);
        let (ip, now) = (IpAddr::from([192, 0, 2, 1]), Mono::from_millis(1000));
        let told = (0..50).filter_map(|_| gate.forged(ip, now)).count();
        assert_eq!(told, 30, "all beyond the first twenty");
        let ask = || gate.identify(Some(Credential::Key("sk_x")), ip, now, Wall::default());
        for n in 0..21 {
            assert_eq!(ask().await, Err(Denied::Bad("key")), "{n}");
        }
        assert!(matches!(ask().await, Err(Denied::Blocked(_))));
        let other = IpAddr::from([192, 0, 2, 2]);
        for _ in 0..21 {
            let asked = gate.identify(Some(Credential::Key("sk_x")), other, now, Wall::default());
            assert_eq!(asked.await, Err(Denied::Bad("key")));
        }
        assert_eq!(gate.forged(other, now), None);
    }

    #[tokio::test]
    async fn twenty_bad_credentials_block_their_address_for_a_minute_and_no_other() {
        let gate = gate(false);
        let (bad, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let ask = async |ip, now| {
            gate.identify(Some(Credential::Key("sk_x")), ip, now, Wall::default())
                .await
        };
        let start = Mono::from_millis(1000);
        for n in 0..21 {
            assert_eq!(ask(bad, start).await, Err(Denied::Bad("key")), "{n}");
        }
        assert!(matches!(ask(bad, start).await, Err(Denied::Blocked(_))));
        assert_eq!(ask(other, start).await, Err(Denied::Bad("key")));
        assert_eq!(ask(bad, start + Duration::from_secs(61)).await, Err(Denied::Bad("key")));
    }
}
