//! Precedence, secrets in files, all faults at once; and `config/sidetone.toml` held equal to the code.

use super::*;
use crate::base::settings::{Item, Value, show_path};
use std::fs;

/// The file that ships: every key with its default and meaning.
const SHIPPED: &str = include_str!("../../config/sidetone.toml");

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn load(text: &str, vars: &[(&str, &str)], flags: &[Flag<'_>]) -> Result<Config, Vec<String>> {
    let written = file::parse(text).map_err(|f| said(&f))?;
    Config::from_table(&written, &env(vars), flags, Path::new("")).map_err(|f| said(&f))
}

fn said(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn faults(text: &str, vars: &[(&str, &str)]) -> Vec<String> {
    load(text, vars, &[]).err().unwrap_or_default()
}

#[test]
fn nothing_written_is_a_whole_configuration() {
    let config = load("", &[], &[]).unwrap();
    assert_eq!(config.database(), "/var/lib/sidetone/sidetone.db");
    assert_eq!(config.store, store::Config::default());
    assert_eq!(config.record, record::Config::default());
}

#[test]
fn arguments_go_over_environment_over_file() {
    let text = "state_dir = \"/file\"\n[store]\nreaders = 3\nqueue_batches = 300\n";
    let vars = [
        ("SIDETONE_STATE_DIR", "/env"),
        ("STATE_DIRECTORY", "/systemd:/other"),
        ("SIDETONE_STORE_READERS", "4"),
        ("SIDETONE_STORE_QUEUE_BYTES", "2MiB"),
    ];
    let flag = Flag {
        name: "--state",
        key: "state_dir",
        value: "/flag".into(),
    };
    let config = load(text, &vars, &[flag]).unwrap();
    assert_eq!(config.state_dir, Path::new("/flag"));
    assert_eq!((config.store.readers, config.store.queue_batches), (4, 300));
    assert_eq!(config.store.queue_bytes, 2 << 20);
    assert_eq!(load(text, &vars, &[]).unwrap().state_dir, Path::new("/env"));
    assert_eq!(load(text, &vars[1..2], &[]).unwrap().state_dir, Path::new("/systemd"));
    assert_eq!(
        load(text, &[("SIDETONE_STATE_DIR", "")], &[]).unwrap().state_dir,
        Path::new("/file")
    );
}

#[test]
fn faults_of_file_and_environment_come_together() {
    let text = "[store]\nreader = 3\nsynchronous = \"of course\"\n[stores]\n";
    let vars = [("SIDETONE_STORE_READERS", "many"), ("SIDETONE_STORE_QUEUE_BATCH", "1")];
    assert_eq!(
        faults(text, &vars),
        [
            "environment variable SIDETONE_STORE_QUEUE_BATCH: no such setting (did you mean \
             SIDETONE_STORE_QUEUE_BATCHES?)",
            "environment variable SIDETONE_STORE_READERS: store.readers: \"many\" is not a whole number",
            "line 2: store.reader: no such key (did you mean readers?)",
            "line 3: store.synchronous: \"of course\" is not known (one of full, normal)",
            "line 4: stores: no such key (did you mean store?)",
        ]
    );
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    assert_eq!(faults("", &[("HOME", "/root"), ("STORE_READERS", "x")]), [""; 0]);
}

#[test]
fn sections_are_checked_against_each_other() {
    let text = "[listen]\nmetrics = \"127.0.0.1:8080\"\n[record]\nmax_length = \"1h\"\n\
                [agents.human]\nstt = \"parrot\"\n[agents.echo]\ntts = \"of no use here\"\n";
    assert_eq!(
        faults(text, &[]),
        [
            "line 2: listen.metrics: 127.0.0.1:8080 is the main listener's address too (give it a port of its own)",
            "line 4: record.max_length: 1h is shorter than calls.max_length (at least 4h)",
            "line 6: agents.human.stt: no backend \"parrot\" (one of pocketsphinx, deepgram, elevenlabs, openai, vosk, fake)",
        ]
    );
}

#[test]
fn the_names_that_set_ups_know_are_accepted() {
    let vars = [("PORT", "3000"), ("NEXT_PUBLIC_APP_URL", "https://relay.example.com")];
    let config = load("", &vars, &[]).unwrap();
    assert_eq!(config.listen.address, "0.0.0.0:3000".parse().unwrap());
    assert_eq!(config.calls.public_url, "https://relay.example.com");
}

/// A configuration with a secret in every way there is, by the first vendor's section.
mod secrets {
    use super::*;

    const SECRET: &str = "nWm0Yf3qLr8sXv5kTz2bHd7jPc4gQe9a";

    /// The first secret of the catalogue that is not in a list: its full key.
    fn key() -> String {
        let known = Config::keys(&Table::new());
        let secret = known.iter().find(|k| k.secret).expect("there is a secret");
        show_path(&secret.path)
    }

    fn variable(key: &str) -> String {
        format!("SIDETONE_{}", key.replace('.', "_").to_uppercase())
    }

    /// What the secret's place is, taken from a fault provoked by an unreadable sibling.
    fn item<'t>(table: &'t Table, key: &str) -> Option<&'t Item> {
        let (section, key) = key.split_once('.').unwrap();
        match &table.get(section)?.value {
            Value::Table(t) => t.get(key),
            _ => None,
        }
    }

    fn resolve(text: &str, vars: &[(&str, &str)], folder: &Path) -> (Table, Vec<String>) {
        let mut table = file::parse(text).unwrap();
        let known = Config::keys(&table);
        let faults = overlay::apply(&mut table, &known, &env(vars), &[], folder);
        (table, said(&faults))
    }

    #[test]
    fn a_secret_comes_from_a_file_named_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("s"), format!("{SECRET}\r\n")).unwrap();
        let key = key();
        let (section, name) = key.split_once('.').unwrap();
        let text = format!("[{section}]\n{name}_file = \"s\"\n");
        let (table, faults) = resolve(&text, &[], folder.path());
        assert_eq!(faults, [""; 0]);
        assert_eq!(item(&table, &key).unwrap().value, Value::String(SECRET.into()));
        assert_eq!(item(&table, &format!("{key}_file")), None);

        let both = format!("{text}{name} = \"x\"\n");
        assert_eq!(resolve(&both, &[], folder.path()).1.len(), 1);
        let none = text.replace("\"s\"", "\"missing\"");
        assert!(resolve(&none, &[], folder.path()).1[0].contains("cannot be read"));
        fs::write(folder.path().join("s"), "\n").unwrap();
        assert!(resolve(&text, &[], folder.path()).1[0].contains("is empty"));
    }

    #[test]
    fn a_variable_may_name_the_file_and_goes_over_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, SECRET).unwrap();
        let key = key();
        let (section, name) = key.split_once('.').unwrap();
        let written = format!("[{section}]\n{name} = \"x\"\n");
        let file = format!("{}_FILE", variable(&key));
        let (table, faults) = resolve(&written, &[(&file, path.to_str().unwrap())], Path::new(""));
        assert_eq!(faults, [""; 0]);
        assert_eq!(item(&table, &key).unwrap().value, Value::String(SECRET.into()));

        let named = format!("[{section}]\n{name}_file = \"missing\"\n");
        let (table, faults) = resolve(&named, &[(&variable(&key), "y")], Path::new(""));
        assert_eq!(faults, [""; 0]);
        assert_eq!(item(&table, &key).unwrap().value, Value::String("y".into()));
    }

    #[test]
    fn a_credential_of_systemd_goes_over_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let key = key();
        fs::write(folder.path().join(&key), SECRET).unwrap();
        let vars = [
            ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()),
            (&variable(&key), "y"),
        ];
        let (table, faults) = resolve("", &vars, Path::new(""));
        assert_eq!(faults, [""; 0]);
        assert_eq!(item(&table, &key).unwrap().value, Value::String(SECRET.into()));
    }

    #[test]
    fn a_secret_in_a_list_has_its_file_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("s"), SECRET).unwrap();
        let text = "[[access.jwt]]\nsecret_file = \"s\"\n";
        let written = file::parse(text).unwrap();
        let config = Config::from_table(&written, &Env::new(), &[], folder.path());
        let config = config.unwrap_or_else(|f| panic!("{:?}", said(&f)));
        assert_eq!(config.access.jwt.len(), 1);
    }

    #[test]
    fn a_vendors_variable_goes_by_the_vendors_name_alone() {
        let key = Config::keys(&Table::new())
            .iter()
            .map(|k| show_path(&k.path))
            .find(|k| k.split_once('.').is_some_and(|(v, _)| vendor::by_name(v).is_some()))
            .unwrap();
        let name = key.replace('.', "_").to_uppercase();
        let (table, _) = resolve("", &[(&name, "z")], Path::new(""));
        assert_eq!(item(&table, &key).unwrap().value, Value::String("z".into()));
    }
}

#[test]
fn every_key_has_a_variable_of_its_own() {
    let mut names: Vec<_> = keys(&Table::new())
        .into_keys()
        .map(|k| k.replace(['.', '-'], "_").to_uppercase())
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn aliases_stand_for_keys_that_exist() {
    let keys = keys(&Table::new());
    for alias in overlay::alias_keys() {
        assert!(keys.contains_key(alias), "{alias}");
    }
}

fn keys(table: &Table) -> BTreeMap<String, Option<String>> {
    let known = Config::keys(table).into_iter();
    known.map(|k| (show_path(&k.path), k.default)).collect()
}

/// The shipped file with its commented lines live: the settings and headers that `keep` wants, by full key.
///
/// A line that begins with `#` and no space is a setting left out; `# ` begins prose.
fn uncomment(keep: impl Fn(&str) -> bool) -> String {
    let (mut out, mut section) = (String::new(), String::new());
    for line in SHIPPED.lines() {
        let live = line
            .strip_prefix('#')
            .filter(|l| !l.is_empty() && !l.starts_with([' ', '#']));
        let setting = live.unwrap_or(line);
        if setting.starts_with('[') {
            section = setting
                .split('#')
                .next()
                .unwrap_or_default()
                .trim_matches(['[', ']', ' '])
                .to_owned();
        }
        let key = setting.split('=').next().unwrap_or_default().trim();
        let full = if section.is_empty() {
            key.to_owned()
        } else {
            format!("{section}.{key}")
        };
        match live {
            Some(setting) if keep(if setting.starts_with('[') { &section } else { &full }) => out += setting,
            Some(_) => {}
            None => out += line,
        }
        out.push('\n');
    }
    out
}

fn leaves(path: &str, table: &Table, out: &mut BTreeMap<String, Value>) {
    for (key, item) in table {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        leaf(path, &item.value, out);
    }
}

fn leaf(path: String, value: &Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(t) => leaves(&path, t, out),
        Value::Array(items) if items.iter().any(|i| matches!(i.value, Value::Table(_))) => {
            for (n, i) in items.iter().enumerate() {
                leaf(format!("{path}[{n}]"), &i.value, out);
            }
        }
        _ => drop(out.insert(path, value.clone())),
    }
}

/// Lines are not compared.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(|i| plain(&i.value) + ",").collect(),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_shipped_file_is_valid_as_it_is() {
    assert_eq!(faults(SHIPPED, &[]), [""; 0]);
}

#[test]
fn the_shipped_file_has_every_key_and_no_other() {
    let everything = file::parse(&uncomment(|_| true)).unwrap_or_else(|f| panic!("{:?}", said(&f)));
    let mut written = BTreeMap::new();
    leaves("", &everything, &mut written);
    let known = keys(&everything);
    let missing: Vec<_> = known.keys().filter(|k| !written.contains_key(*k)).collect();
    assert!(missing.is_empty(), "not in config/sidetone.toml: {missing:#?}");
    let unknown: Vec<_> = written.keys().filter(|k| !known.contains_key(*k)).collect();
    assert!(
        unknown.is_empty(),
        "in config/sidetone.toml and nowhere else: {unknown:#?}"
    );
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    let defaults = keys(&Table::new());
    let everything = file::parse(&uncomment(|_| true)).unwrap();
    let mut written = BTreeMap::new();
    leaves("", &everything, &mut written);
    for (key, default) in &defaults {
        let Some(default) = default else { continue };
        let parsed = file::parse(&format!("x = {default}")).unwrap();
        let shown = written.get(key).unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!(plain(shown), plain(&parsed["x"].value), "{key}");
    }
    let only_defaults = uncomment(|key| defaults.get(key).is_some_and(Option::is_some));
    assert_eq!(faults(&only_defaults, &[]), [""; 0]);
}

#[test]
fn every_setting_of_the_shipped_file_is_explained() {
    let mut explained = false;
    for (n, line) in (1..).zip(SHIPPED.lines()) {
        let setting = line.strip_prefix('#').unwrap_or(line);
        let is_setting = !line.starts_with("# ") && setting.contains('=') && !setting.starts_with([' ', '[']);
        assert!(!is_setting || explained, "line {n} has no comment above: {line}");
        explained = line.starts_with("# ");
    }
}

#[test]
fn what_is_opened_for_development_has_no_bound_on_calls_that_a_user_would_meet() {
    let mut config = load("", &[], &[]).unwrap();
    config.open_for_dev().unwrap();
    let c = &config.calls;
    let bounds = [
        c.max_calls,
        c.max_calls_per_tenant,
        c.max_calls_per_number,
        c.max_outbound_per_tenant,
        c.calls_per_second as usize,
        c.tenant_calls_per_second as usize,
        c.tenant_calls_per_minute as usize,
        c.tenant_outbound_per_minute as usize,
    ];
    assert!(bounds.iter().all(|n| *n >= 1_000_000), "{bounds:?}");
}
