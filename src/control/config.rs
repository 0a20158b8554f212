//! What the operator sets about calls: limits, times, numbers, and where the world reaches us.

use crate::{
    access::{destinations::PREMIUM, members::read_prefixes},
    agent,
    base::{
        ids::TenantId,
        keyring::{Keyring, SERVICES},
        settings::Section,
    },
    vendor,
};
use std::{collections::BTreeMap, time::Duration};

/// A phone number of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// As the vendor writes it, E.164 or SIP.
    pub number: String,
    /// Name of the vendor that carries it.
    pub vendor: String,
    /// The agent that answers it; the default agent when `None`.
    pub agent: Option<String>,
    /// Whose it is.
    pub tenant: TenantId,
}

/// `[calls]` and `[[numbers]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where vendors reach us, scheme and host without a trailing slash; media sockets use the same with `ws`.
    /// Empty means the address that the daemon listens on.
    pub public_url: String,
    /// The agent of numbers that name none.
    pub default_agent: String,
    /// The tenant of calls to numbers nobody has, where those are accepted.
    pub default_tenant: TenantId,
    /// Accept media streams that no webhook announced and calls to any number (`--dev`).
    pub accept_unannounced: bool,
    /// Whether this is a developer's own machine (`--dev`): numbers need no proof of their vendor.
    pub dev: bool,
    /// The number of a vendor, by the vendor's name, that calls which name none of ours are for (`default_number` in the
    /// vendor's section).
    pub default_numbers: BTreeMap<&'static str, String>,
    /// Live calls of the process.
    pub max_calls: usize,
    /// Live calls of one tenant.
    pub max_calls_per_tenant: usize,
    /// Live calls of one tenant that were placed.
    pub max_outbound_per_tenant: usize,
    /// Live calls of one of our numbers.
    pub max_calls_per_number: usize,
    /// New calls a second, process.
    pub calls_per_second: u32,
    /// New calls at once, process.
    pub calls_burst: u32,
    /// New calls a second, one tenant.
    pub tenant_calls_per_second: u32,
    /// New calls at once, one tenant.
    pub tenant_calls_burst: u32,
    /// New calls a minute, one tenant.
    pub tenant_calls_per_minute: u32,
    /// Calls placed a minute, one tenant.
    pub tenant_outbound_per_minute: u32,
    /// Prefixes that may be called; all where there is none.
    pub destinations: Vec<String>,
    /// Prefixes that may not, unless a longer one may.
    pub blocked_destinations: Vec<String>,
    /// How long a placed call may ring.
    pub ring_timeout: Duration,
    /// How long an announced call may wait for its media stream; a placed one has the ring timeout on top.
    pub stream_timeout: Duration,
    /// How long a call whose media stream broke waits for another, where the vendor can be asked for one.
    pub media_grace: Duration,
    /// How long a stopping daemon lets live calls go on.
    pub drain_timeout: Duration,
    /// The longest call.
    pub max_length: Duration,
    /// Above what no new call is taken.
    pub strain: StrainLimits,
    /// Hosts that agents' tools may ask.
    pub tool_hosts: ToolHosts,
    /// Keys of services for calls of a tenant, before the operator's.
    pub service_keys: BTreeMap<i64, Keyring>,
    /// Our numbers.
    pub numbers: Vec<Number>,
}

/// `[tools]`: hosts that agents' tools may ask, exact or `*.example.com`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolHosts {
    /// For every tenant.
    pub everyone: Vec<String>,
    /// For one tenant more.
    pub tenants: BTreeMap<i64, Vec<String>>,
}

impl ToolHosts {
    /// Whether a tenant's tools may ask this host.
    pub fn allow(&self, tenant: i64, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let own = self.tenants.get(&tenant).into_iter().flatten();
        !host.is_empty()
            && self
                .everyone
                .iter()
                .chain(own)
                .any(|known| match known.strip_prefix('*') {
                    Some(end) => host.len() > end.len() && host.ends_with(end),
                    None => host == *known,
                })
    }

    fn read(section: &Section<'_>) -> Self {
        let hosts = |section: &Section<'_>| {
            let hosts = section.texts("hosts", &[]);
            let is_host = |h: &str| {
                let name = h.strip_prefix("*.").unwrap_or(h);
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
            };
            for host in hosts.iter().filter(|h| !is_host(h)) {
                section.fault(
                    "hosts",
                    format!("{host:?} is no host"),
                    "api.example.com or *.example.com",
                );
            }
            hosts.iter().map(|h| h.to_ascii_lowercase()).collect()
        };
        let tenants = section
            .section("tenants")
            .named()
            .into_iter()
            .filter_map(|(name, section)| {
                let Ok(tenant) = name.parse() else {
                    section.fault("hosts", format!("{name:?} is no tenant"), "[tools.tenants.1]");
                    return None;
                };
                let list = hosts(&section);
                section.finish();
                Some((tenant, list))
            });
        Self {
            tenants: tenants.collect(),
            everyone: hosts(section),
        }
    }
}

/// Above what no new call is taken. Zero lifts a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrainLimits {
    /// How late 99 of 100 ticks of the media threads may run.
    pub late: Duration,
    /// Memory of the process, in bytes; at zero 85 % of what the system allows the service, if it says.
    pub memory: usize,
    /// How long what is to be stored may wait.
    pub queue: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: String::new(),
            default_agent: "human".to_owned(),
            default_tenant: TenantId(1),
            accept_unannounced: false,
            dev: false,
            default_numbers: BTreeMap::new(),
            max_calls: 1000,
            max_calls_per_tenant: 200,
            max_outbound_per_tenant: 100,
            max_calls_per_number: 200,
            calls_per_second: 50,
            calls_burst: 100,
            tenant_calls_per_second: 10,
            tenant_calls_burst: 20,
            tenant_calls_per_minute: 600,
            tenant_outbound_per_minute: 60,
            destinations: Vec::new(),
            blocked_destinations: PREMIUM.iter().map(|p| (*p).to_owned()).collect(),
            ring_timeout: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(60),
            media_grace: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            max_length: Duration::from_secs(4 * 3600),
            strain: StrainLimits {
                late: Duration::from_millis(20),
                memory: 0,
                queue: Duration::from_secs(5),
            },
            tool_hosts: ToolHosts::default(),
            service_keys: BTreeMap::new(),
            numbers: Vec::new(),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Config {
    /// Reads `[calls]` and `[[numbers]]` below the root. Agents named here must be among `agents`.
    pub fn read(root: &Section<'_>, agents: &agent::Config) -> Self {
        let calls = root.section("calls");
        let d = Self::default();
        let config = Self {
            public_url: read_public_url(&calls, &d.public_url),
            default_agent: calls.text("default_agent", &d.default_agent),
            default_tenant: TenantId(calls.int("default_tenant", d.default_tenant.0, 1..=i64::MAX)),
            accept_unannounced: calls.bool("accept_unannounced", d.accept_unannounced),
            dev: d.dev,
            default_numbers: d.default_numbers,
            max_calls: calls.int("max_calls", d.max_calls as i64, 1..=1_000_000) as usize,
            max_calls_per_tenant: calls.int("max_calls_per_tenant", d.max_calls_per_tenant as i64, 1..=1_000_000)
                as usize,
            calls_per_second: calls.int("calls_per_second", d.calls_per_second, 1..=1_000_000),
            calls_burst: calls.int("calls_burst", d.calls_burst, 1..=1_000_000),
            tenant_calls_per_second: calls.int("tenant_calls_per_second", d.tenant_calls_per_second, 1..=1_000_000),
            tenant_calls_burst: calls.int("tenant_calls_burst", d.tenant_calls_burst, 1..=1_000_000),
            max_outbound_per_tenant: calls.int("max_outbound_per_tenant", d.max_outbound_per_tenant, 0..=1_000_000),
            max_calls_per_number: calls.int("max_calls_per_number", d.max_calls_per_number, 1..=1_000_000),
            tenant_calls_per_minute: calls.int("tenant_calls_per_minute", d.tenant_calls_per_minute, 1..=1_000_000),
            tenant_outbound_per_minute: calls.int(
                "tenant_outbound_per_minute",
                d.tenant_outbound_per_minute,
                0..=1_000_000,
            ),
            destinations: read_prefixes(&calls, "destinations", &[]),
            blocked_destinations: read_prefixes(&calls, "blocked_destinations", PREMIUM),
            ring_timeout: calls.duration("ring_timeout", d.ring_timeout, SECOND..=SECOND * 600),
            stream_timeout: calls.duration("stream_timeout", d.stream_timeout, SECOND..=SECOND * 60),
            media_grace: calls.duration("media_grace", d.media_grace, Duration::ZERO..=SECOND * 60),
            drain_timeout: calls.duration("drain_timeout", d.drain_timeout, Duration::ZERO..=HOUR),
            max_length: calls.duration("max_length", d.max_length, SECOND..=HOUR * 24),
            strain: StrainLimits {
                late: calls.duration("shed_when_late", d.strain.late, Duration::ZERO..=SECOND * 10),
                memory: calls.size("shed_memory", d.strain.memory, 0..=1 << 50),
                queue: calls.duration("shed_queue_age", d.strain.queue, Duration::ZERO..=HOUR),
            },
            tool_hosts: {
                let section = root.section("tools");
                let hosts = ToolHosts::read(&section);
                section.finish();
                hosts
            },
            service_keys: read_keys(root),
            numbers: read_numbers(root, agents),
        };
        if agents.get(&config.default_agent).is_none() {
            calls.fault(
                "default_agent",
                format!("no agent {:?}", config.default_agent),
                known(agents),
            );
        }
        calls.finish();
        config
    }

    /// Lifts the limits, as `--dev` does: any number, any stream, as many calls as come.
    pub fn lift_limits(&mut self) {
        self.accept_unannounced = true;
        self.dev = true;
        self.max_calls = usize::MAX;
        self.max_calls_per_tenant = usize::MAX;
        self.calls_per_second = u32::MAX;
        self.calls_burst = u32::MAX;
        self.tenant_calls_per_second = u32::MAX;
        self.tenant_calls_burst = u32::MAX;
        self.max_outbound_per_tenant = usize::MAX;
        self.max_calls_per_number = usize::MAX;
        self.tenant_calls_per_minute = u32::MAX;
        self.tenant_outbound_per_minute = u32::MAX;
        self.blocked_destinations = Vec::new();
    }

    /// Where media sockets reach us: the public URL with `ws` for `http`.
    pub fn stream_base(&self) -> String {
        self.public_url.replacen("http", "ws", 1)
    }
}

fn known(agents: &agent::Config) -> String {
    format!("known: {}", agents.names().collect::<Vec<_>>().join(", "))
}

fn read_public_url(calls: &Section<'_>, default: &str) -> String {
    let url = calls.text("public_url", default);
    let url = url.trim_end_matches('/').to_owned();
    if url.is_empty() {
        return url;
    }
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if host.is_none_or(|h| h.is_empty() || h.contains(['?', '#', '@', ' '])) {
        let hint = "scheme and host as vendors reach us, such as https://relay.example.com";
        calls.fault("public_url", format!("{url:?} is no base URL"), hint);
    }
    url
}

/// `[service_keys.TENANT]`: a key by the name of each service.
fn read_keys(root: &Section<'_>) -> BTreeMap<i64, Keyring> {
    let section = root.section("service_keys");
    let tenants = section.named().into_iter().filter_map(|(name, section)| {
        let keys = SERVICES
            .iter()
            .filter_map(|s| Some(((*s).to_owned(), section.secret(s)?)));
        let keys: Keyring = keys.collect();
        let tenant = name.parse().ok();
        if tenant.is_none() {
            section.fault("", format!("{name:?} is no tenant"), "[service_keys.1]");
        }
        section.finish();
        Some((tenant?, keys))
    });
    let tenants = tenants.collect();
    section.finish();
    tenants
}

fn read_numbers(root: &Section<'_>, agents: &agent::Config) -> Vec<Number> {
    let mut numbers: Vec<Number> = Vec::new();
    for section in root.sections("numbers") {
        let number = Number {
            number: section.text("number", "").trim().to_owned(),
            vendor: section.text("vendor", ""),
            agent: section.text_opt("agent"),
            tenant: TenantId(section.int("tenant", 1, 1..=i64::MAX)),
        };
        if number.number.is_empty() {
            section.fault(
                "number",
                "a number is missing",
                "E.164, such as +14155550100, or a SIP address",
            );
        }
        if vendor::by_name(&number.vendor).is_none() {
            let names: Vec<_> = vendor::all().iter().map(|v| v.name).collect();
            section.fault(
                "vendor",
                format!("no vendor {:?}", number.vendor),
                format!("one of {}", names.join(", ")),
            );
        }
        if let Some(agent) = number.agent.as_deref().filter(|a| agents.get(a).is_none()) {
            section.fault("agent", format!("no agent {agent:?}"), known(agents));
        }
        if numbers
            .iter()
            .any(|n| n.vendor == number.vendor && n.number == number.number)
        {
            section.fault(
                "number",
                format!("{} is listed twice", number.number),
                "a number belongs to one tenant",
            );
        }
        section.finish();
        numbers.push(number);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    fn table(pairs: Vec<(&str, Value)>) -> Table {
        let item = |value| Item {
            value,
            place: Place::Line(3),
        };
        pairs.into_iter().map(|(k, v)| (k.to_owned(), item(v))).collect()
    }

    fn read(root: &Table) -> (Config, Vec<String>) {
        let faults = Faults::default();
        let section = Section::root(root, &faults);
        let config = Config::read(&section, &agent::Config::default());
        section.finish();
        (config, faults.take().iter().map(ToString::to_string).collect())
    }

    fn text(t: &str) -> Value {
        Value::String(t.into())
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        let (config, faults) = read(&Table::new());
        assert_eq!(config, Config::default());
        assert!(faults.is_empty(), "{faults:?}");
    }

    #[test]
    fn media_sockets_use_the_public_url_with_another_scheme() {
        let calls = |url| table(vec![("calls", Value::Table(table(vec![("public_url", text(url))])))]);
        let (config, faults) = read(&calls("https://http.example.com/"));
        assert_eq!(config.stream_base(), "wss://http.example.com");
        assert!(faults.is_empty(), "{faults:?}");
        for bad in ["relay.example.com", "https://", "ftp://x", "https://x/?a=b"] {
            assert_eq!(read(&calls(bad)).1.len(), 1, "{bad}");
        }
    }

    #[test]
    fn numbers_are_checked_against_vendors_agents_and_each_other() {
        let number = |vendor| {
            let number = table(vec![
                ("number", text("+14155550100")),
                ("vendor", text(vendor)),
                ("agent", text("nobody")),
            ]);
            Item {
                value: Value::Table(number),
                place: Place::Line(9),
            }
        };
        let root = table(vec![("numbers", Value::Array(vec![number("none"), number("none")]))]);
        let (config, faults) = read(&root);
        assert_eq!(config.numbers.len(), 2);
        for part in ["no vendor \"none\"", "no agent \"nobody\"", "listed twice"] {
            assert!(faults.iter().any(|f| f.contains(part)), "{part}: {faults:?}");
        }
    }
}
