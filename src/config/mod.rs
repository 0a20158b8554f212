//! The configuration: one typed tree, read from file, environment, secret files and arguments, with every fault told at once.
//!
//! Each module owns its `Config` beside the code it governs and reads it from its section; [`Config`] only gathers them, one
//! field and one line each. Once loaded it is never changed.

mod dev;
mod file;
pub mod log;
mod overlay;

use crate::{
    access, agent,
    base::settings::{Catalogue, Fault, Faults, Known, Place, Section, Table, show_duration},
    bus, control, http, hub, jobs, llm,
    net::listen,
    record, shard, speech, store,
    vendor::{self, Descriptor, Trunk},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Environment variables by name.
pub type Env = BTreeMap<String, String>;

/// An argument of the command line that sets a key.
#[derive(Clone, Debug)]
pub struct Flag<'a> {
    /// As typed, such as `--listen`.
    pub name: &'a str,
    /// The key, such as `http.listen`.
    pub key: &'a str,
    /// Its value as text.
    pub value: String,
}

/// Everything that can be configured.
#[derive(Clone)]
pub struct Config {
    /// Where the database, recordings and call files are, unless their paths are absolute.
    pub state_dir: PathBuf,
    /// Whether this is a developer's own machine (`--dev`).
    pub dev: bool,
    /// `[log]`: what is logged and how.
    pub log: log::Config,
    /// `[listen]`: addresses, TLS, bounds on sockets.
    pub listen: listen::Config,
    /// `[http]`: bounds of requests, origins, proxies.
    pub http: http::Config,
    /// What is served to those who look for faults.
    pub debug: http::DebugConfig,
    /// `[frontends]`: what a frontend's socket may do.
    pub frontends: hub::Config,
    /// `[access]`: tokens, API keys, rates.
    pub access: access::Config,
    /// `[agents.NAME]`: who answers calls.
    pub agents: agent::Config,
    /// `[calls]` and `[[numbers]]`: limits and times of calls, and our numbers.
    pub calls: control::Config,
    /// `[speech]`: recognisers and synthesizers.
    pub speech: speech::Config,
    /// `[after_call]` and `[cost]`: what is done after calls.
    pub jobs: jobs::Config,
    /// `[llm]`: language models.
    pub llm: llm::Config,
    /// `[nodes]`: the other nodes of a cluster.
    pub nodes: bus::Config,
    /// `[media]`: media threads and the limits of their sockets.
    pub media: shard::Config,
    /// `[record]`: recordings.
    pub record: record::Config,
    /// `[store]`: the database.
    pub store: store::Config,
    /// A section by the name of each vendor: its account.
    pub trunks: Vec<(&'static Descriptor, Arc<dyn Trunk>)>,
}

impl Config {
    /// Reads file, environment and arguments, the later over the earlier, or tells everything that is wrong with them.
    pub fn load(file: Option<&Path>, env: &Env, flags: &[Flag<'_>]) -> Result<Self, Vec<Fault>> {
        let written = file.map_or_else(|| Ok(Table::new()), file::read)?;
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        Self::from_table(&written, env, flags, folder)
    }

    fn from_table(written: &Table, env: &Env, flags: &[Flag<'_>], folder: &Path) -> Result<Self, Vec<Fault>> {
        // What overrides the file may open sections that have more keys, so look until no more keys turn up.
        let mut known = Self::keys(written);
        loop {
            let mut table = written.clone();
            let mut faults = overlay::apply(&mut table, &known, env, flags, folder);
            let more = Self::keys(&table);
            if more.len() > known.len() {
                known = more;
                continue;
            }
            let found = Faults::default();
            let config = Self::read(Section::root(&table, &found));
            faults.extend(found.take());
            faults.sort_by_key(|f| match f.place {
                Some(Place::Line(n)) => n,
                _ => 0,
            });
            return if faults.is_empty() { Ok(config) } else { Err(faults) };
        }
    }

    /// Every key that is asked for when the file says `written`.
    fn keys(written: &Table) -> Vec<Known> {
        let (faults, catalogue) = (Faults::default(), Catalogue::default());
        Self::read(Section::root(written, &faults).telling(&catalogue));
        catalogue.take()
    }

    fn read(root: Section<'_>) -> Self {
        let agents = part(&root, "agents", agent::Config::read);
        let mut calls = control::Config::read(&root, &agents);
        let trunk = |v: &&'static Descriptor| {
            let trunk = part(&root, v.name, |section| {
                let number = section.text_opt("default_number").filter(|n| !n.is_empty());
                calls.default_numbers.extend(number.map(|n| (v.name, n)));
                (v.trunk)(section)
            });
            (*v, trunk)
        };
        let trunks = vendor::all().iter().map(trunk).collect();
        let config = Self {
            state_dir: root.path("state_dir", "/var/lib/sidetone"),
            dev: false,
            log: part(&root, "log", log::Config::read),
            listen: part(&root, "listen", listen::Config::read),
            http: part(&root, "http", http::Config::read),
            debug: part(&root, "debug", http::DebugConfig::read),
            frontends: part(&root, "frontends", hub::Config::read),
            access: part(&root, "access", access::Config::read),
            calls,
            jobs: jobs::Config::read(&root),
            llm: part(&root, "llm", llm::Config::read),
            nodes: part(&root, "nodes", bus::Config::read),
            media: part(&root, "media", shard::Config::read),
            record: part(&root, "record", record::Config::read),
            speech: part(&root, "speech", speech::Config::read),
            store: part(&root, "store", store::Config::read),
            trunks,
            agents,
        };
        config.check(&root);
        root.finish();
        config
    }

    /// Fills in what follows from the address that was bound: the public URL where none was set.
    pub fn settle(&mut self, address: SocketAddr) {
        if self.calls.public_url.is_empty() {
            let scheme = if self.listen.tls.is_some() { "https" } else { "http" };
            self.calls.public_url = format!("{scheme}://{address}");
        }
    }

    /// Vendor accounts by vendor's name.
    pub fn trunks(&self) -> HashMap<&'static str, Arc<dyn Trunk>> {
        self.trunks
            .iter()
            .map(|(vendor, trunk)| (vendor.name, trunk.clone()))
            .collect()
    }

    /// What no section can see alone.
    fn check(&self, root: &Section<'_>) {
        if self.listen.metrics == Some(self.listen.address) {
            root.section("listen").fault(
                "metrics",
                format!("{} is the main listener's address too", self.listen.address),
                "give it a port of its own",
            );
        }
        if self.record.max_length < self.calls.max_length {
            let (record, calls) = (self.record.max_length, self.calls.max_length);
            root.section("record").fault(
                "max_length",
                format!("{} is shorter than calls.max_length", show_duration(record)),
                format!("at least {}", show_duration(calls)),
            );
        }
        if self.nodes.is_cluster() && matches!(self.store.engine, store::Engine::Sqlite(_)) {
            root.section("nodes").fault(
                "url",
                "several nodes share one database, and SQLite is one process's own",
                "set store.url = \"postgres://…\", or leave nodes.url out",
            );
        }
        self.check_backends(&root.section("agents"));
    }

    /// Agents name speech backends that there are.
    fn check_backends(&self, agents: &Section<'_>) {
        for agent in self.agents.names().filter_map(|name| self.agents.get(name)) {
            let section = agents.section(&agent.name);
            let known = |key, wanted: &str, backends: &[(&'static str, Option<String>)]| match backends
                .iter()
                .find(|(name, _)| *name == wanted)
            {
                Some((_, None)) => {}
                Some(_) if self.calls.service_keys.values().any(|keys| keys.get(wanted).is_some()) => {}
                Some((_, Some(lacks))) => section.fault(key, format!("{wanted} cannot be used"), lacks),
                None => {
                    let names: Vec<_> = backends.iter().map(|(name, _)| *name).collect();
                    let hint = format!("one of {}", names.join(", "));
                    section.fault(key, format!("no backend {wanted:?}"), hint);
                }
            };
            let stt: Vec<_> = self.speech.stt.iter().map(|(n, e)| (*n, e.lacks())).collect();
            let tts: Vec<_> = self.speech.tts.iter().map(|(n, e)| (*n, e.lacks())).collect();
            if let Some((service, _)) = agent.service() {
                let duplex: Vec<_> = self.speech.duplex.iter().map(|(n, e)| (*n, e.lacks())).collect();
                known("realtime", service, &duplex);
                if !agent.realtime_fallback.is_empty() {
                    known("realtime_fallback", &agent.realtime_fallback, &duplex);
                }
            } else if let Some(ear) = agent.ear() {
                known("stt", &ear.backend, &stt);
                if !ear.fallback.is_empty() {
                    known("stt_fallback", &ear.fallback, &stt);
                }
            }
            if let Some(mouth) = agent.mouth() {
                known("tts", &mouth.backend, &tts);
                if !mouth.fallback.is_empty() {
                    known("tts_fallback", &mouth.fallback, &tts);
                }
            }
        }
    }

    /// Refuses numbers whose vendor nobody could tell from anybody. `--dev` does not ask.
    pub fn check_guarded(&self) -> Result<(), Vec<Fault>> {
        let has_numbers = |vendor: &Descriptor| self.calls.numbers.iter().any(|n| n.vendor == vendor.name);
        let lacking = |(vendor, trunk): &(&'static Descriptor, Arc<dyn Trunk>)| {
            let lacks = vendor::lacks(&**trunk).filter(|_| has_numbers(vendor))?;
            Some(Fault {
                key: vendor.name.to_owned(),
                place: None,
                what: "its numbers could be called by anybody who passes for it".to_owned(),
                hint: format!("set {lacks}, or insecure = true behind a gateway that has checked"),
            })
        };
        let faults: Vec<_> = self.trunks.iter().filter_map(lacking).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Where the database is: a path, or a URL without user and password.
    pub fn database(&self) -> String {
        self.store.engine.place(&self.state_dir)
    }

    /// Where recordings go.
    pub fn recordings(&self) -> PathBuf {
        self.state_dir.join(&self.record.folder)
    }
}

/// The process's environment, without what is not UTF-8.
pub fn environment() -> Env {
    std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
        .collect()
}

fn part<T>(root: &Section<'_>, name: &str, read: impl FnOnce(&Section<'_>) -> T) -> T {
    let section = root.section(name);
    let value = read(&section);
    section.finish();
    value
}

#[cfg(test)]
mod tests;
