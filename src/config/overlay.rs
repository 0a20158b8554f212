//! What overrides the file: environment variables, secrets in files of their own, arguments of the command line.
//!
//! Which variables there are follows from the keys that the modules ask for: `[store] queue_bytes` is `SIDETONE_STORE_QUEUE_BYTES`,
//! and a key of a vendor's section goes by the vendor's name alone too. A variable that begins with `SIDETONE_` and
//! belongs to no key is a fault, as an unknown key in the file is.

use super::{Env, Flag};
use crate::{
    base::settings::{Fault, Item, Known, Place, Step, Table, Value, nearest, show_path},
    vendor,
};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

const PREFIX: &str = "SIDETONE_";
/// Where systemd puts credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Secrets are short; more is a mistaken path.
const MAX_SECRET: u64 = 64 * 1024;

/// A variable that others set or that set-ups know by another name.
struct Alias {
    name: &'static str,
    key: &'static str,
    /// The value of the key that the variable's text stands for.
    read: fn(&str) -> String,
}

const ALIASES: &[Alias] = &[
    // systemd may name several, parted by colons.
    Alias {
        name: "STATE_DIRECTORY",
        key: "state_dir",
        read: |text| text.split(':').next().unwrap_or_default().to_owned(),
    },
    Alias {
        name: "NEXT_PUBLIC_APP_URL",
        key: "calls.public_url",
        read: str::to_owned,
    },
    Alias {
        name: "LOG_LEVEL",
        key: "log.level",
        read: str::to_lowercase,
    },
    Alias {
        name: "WS_CALL_EVENTS_PORT",
        key: "listen.call_events",
        read: str::to_owned,
    },
    Alias {
        name: "WS_AUDIO_STREAM_PORT",
        key: "listen.audio_stream",
        read: str::to_owned,
    },
    Alias {
        name: "WS_FRONTEND_AUDIO_PORT",
        key: "listen.frontend_audio",
        read: str::to_owned,
    },
    Alias {
        name: "DEEPGRAM_API_KEY",
        key: "speech.stt.deepgram.key",
        read: str::to_owned,
    },
    Alias {
        name: "DEEPGRAM_API_KEY",
        key: "speech.tts.deepgram.key",
        read: str::to_owned,
    },
    Alias {
        name: "ELEVENLABS_API_KEY",
        key: "speech.tts.elevenlabs.key",
        read: str::to_owned,
    },
    Alias {
        name: "OPENAI_API_KEY",
        key: "speech.stt.openai.key",
        read: str::to_owned,
    },
    Alias {
        name: "OPENAI_API_KEY",
        key: "speech.tts.openai.key",
        read: str::to_owned,
    },
    Alias {
        name: "ELEVENLABS_API_KEY",
        key: "speech.stt.elevenlabs.key",
        read: str::to_owned,
    },
    // Whoever sets a port alone wants to be reached from outside.
    Alias {
        name: "PORT",
        key: "listen.address",
        read: |text| format!("0.0.0.0:{text}"),
    },
    Alias {
        name: "ANTHROPIC_API_KEY",
        key: "llm.anthropic.api_key",
        read: str::to_owned,
    },
    Alias {
        name: "OPENAI_API_KEY",
        key: "speech.duplex.openai.key",
        read: str::to_owned,
    },
    Alias {
        name: "OPENAI_API_KEY",
        key: "llm.openai.api_key",
        read: str::to_owned,
    },
    Alias {
        name: "GEMINI_API_KEY",
        key: "llm.gemini.api_key",
        read: str::to_owned,
    },
];

/// Puts into `table` what overrides it, for the keys in `known`. Relative paths of secrets begin at `folder`.
pub(super) fn apply(table: &mut Table, known: &[Known], env: &Env, flags: &[Flag<'_>], folder: &Path) -> Vec<Fault> {
    let mut overlay = Overlay {
        table,
        env,
        folder,
        faults: Vec::new(),
        names: Vec::new(),
    };
    for known in known {
        overlay.environment(known);
    }
    for known in known.iter().filter(|k| k.secret) {
        overlay.secret_file(known);
        overlay.credential(known);
    }
    for flag in flags {
        let path: Vec<_> = flag.key.split('.').map(|k| Step::Key(k.to_owned())).collect();
        overlay.put(&path, flag.value.clone(), Place::Flag(flag.name.to_owned()));
    }
    overlay.unknown_variables();
    overlay.faults
}

struct Overlay<'a> {
    table: &'a mut Table,
    env: &'a Env,
    folder: &'a Path,
    faults: Vec<Fault>,
    /// Every variable that would be read.
    names: Vec<String>,
}

impl Overlay<'_> {
    fn environment(&mut self, known: &Known) {
        let Some(keys) = keys(&known.path) else { return };
        let mut names = vec![format!("{PREFIX}{}", variable(&keys))];
        if keys.len() > 1 && vendor::by_name(keys[0]).is_some() {
            names.push(variable(&keys));
        }
        if known.secret {
            let with_file = with_suffix(&known.path, "_file");
            for name in &names {
                let file = format!("{name}_FILE");
                if let Some(path) = self.variable(&file) {
                    self.remove(&known.path);
                    self.put(&with_file, path, Place::Env(file.clone()));
                }
                self.names.push(file);
            }
        }
        let found = names.iter().find_map(|name| Some((name, self.variable(name)?)));
        if let Some((name, text)) = found {
            if known.secret {
                self.remove(&with_suffix(&known.path, "_file"));
            }
            self.put(&known.path, text, Place::Env(name.clone()));
        } else if let Some((alias, text)) = ALIASES
            .iter()
            .filter(|a| a.key == show_path(&known.path))
            .find_map(|a| Some((a, self.variable(a.name)?)))
        {
            self.put(&known.path, (alias.read)(&text), Place::Env(alias.name.to_owned()));
        }
        self.names.extend(names);
    }

    /// The text of a variable; an empty one counts as not set.
    fn variable(&self, name: &str) -> Option<String> {
        self.env.get(name).filter(|text| !text.is_empty()).cloned()
    }

    /// Replaces `key_file` by `key` with what the file holds.
    fn secret_file(&mut self, known: &Known) {
        let Some(item) = self.remove(&with_suffix(&known.path, "_file")) else {
            return;
        };
        let key = show_path(&known.path);
        let fault = |what: String, hint: &str| Fault {
            key: format!("{key}_file"),
            place: Some(item.place.clone()),
            what,
            hint: hint.to_owned(),
        };
        let Value::String(path) = &item.value else {
            self.faults.push(fault("not a path".to_owned(), ""));
            return;
        };
        let written = parent(self.table, &known.path).is_some_and(|t| t.contains_key(last(&known.path)));
        if written {
            let hint = "keep one of them";
            self.faults.push(fault(format!("{key} is written too"), hint));
            return;
        }
        let path = self.folder.join(path);
        match read_secret(&path) {
            Ok(text) => self.put(&known.path, text, Place::File(path.display().to_string())),
            Err(what) => self.faults.push(fault(what, "")),
        }
    }

    /// A credential has the name of its key: `LoadCredential=section.key:/path`.
    fn credential(&mut self, known: &Known) {
        let (Some(folder), Some(_)) = (self.env.get(CREDENTIALS), keys(&known.path)) else {
            return;
        };
        let path = PathBuf::from(folder).join(show_path(&known.path));
        if !path.exists() {
            return;
        }
        match read_secret(&path) {
            Ok(text) => self.put(&known.path, text, Place::File(path.display().to_string())),
            Err(what) => self.faults.push(Fault {
                key: show_path(&known.path),
                place: Some(Place::File(path.display().to_string())),
                what,
                hint: String::new(),
            }),
        }
    }

    fn unknown_variables(&mut self) {
        for name in self.env.keys().filter(|n| n.starts_with(PREFIX)) {
            if self.names.contains(name) {
                continue;
            }
            let near = nearest(name, self.names.iter().map(String::as_str));
            self.faults.push(Fault {
                key: String::new(),
                place: Some(Place::Env(name.clone())),
                what: "no such setting".to_owned(),
                hint: near.map_or_else(
                    || format!("it is {PREFIX}SECTION_KEY"),
                    |near| format!("did you mean {near}?"),
                ),
            });
        }
    }

    /// Writes a value as text, making the tables on the way. Where the file has something else, that is a fault of its own.
    fn put(&mut self, path: &[Step], text: String, place: Place) {
        if let Some(keys) = keys(path) {
            make_tables(self.table, &keys[..keys.len() - 1], &place);
        }
        if let Some(table) = parent(self.table, path) {
            let value = Value::String(text);
            table.insert(last(path).to_owned(), Item { value, place });
        }
    }

    fn remove(&mut self, path: &[Step]) -> Option<Item> {
        parent(self.table, path)?.remove(last(path))
    }
}

fn make_tables(table: &mut Table, keys: &[&str], place: &Place) {
    let Some((key, rest)) = keys.split_first() else { return };
    let item = table.entry((*key).to_owned()).or_insert_with(|| Item {
        value: Value::Table(Table::new()),
        place: place.clone(),
    });
    if let Value::Table(below) = &mut item.value {
        make_tables(below, rest, place);
    }
}

/// The table that holds the last step of a path.
fn parent<'t>(table: &'t mut Table, path: &[Step]) -> Option<&'t mut Table> {
    match path {
        [Step::Key(_)] => Some(table),
        [Step::Key(key), rest @ ..] => parent_in(&mut table.get_mut(key)?.value, rest),
        _ => None,
    }
}

fn parent_in<'t>(value: &'t mut Value, path: &[Step]) -> Option<&'t mut Table> {
    match (value, path) {
        (Value::Table(table), _) => parent(table, path),
        (Value::Array(items), [Step::At(n), rest @ ..]) => parent_in(&mut items.get_mut(*n)?.value, rest),
        _ => None,
    }
}

fn last(path: &[Step]) -> &str {
    match path.last() {
        Some(Step::Key(key)) => key,
        _ => "",
    }
}

fn with_suffix(path: &[Step], suffix: &str) -> Vec<Step> {
    let mut path = path.to_vec();
    if let Some(Step::Key(key)) = path.last_mut() {
        key.push_str(suffix);
    }
    path
}

/// The keys of a path that leads through tables alone.
fn keys(path: &[Step]) -> Option<Vec<&str>> {
    path.iter()
        .map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::At(_) => None,
        })
        .collect()
}

/// `["store", "queue_bytes"]` as `STORE_QUEUE_BYTES`.
fn variable(keys: &[&str]) -> String {
    let upper = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    keys.join("_").chars().map(upper).collect()
}

fn read_secret(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(MAX_SECRET + 1)
            .read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    if text.len() as u64 > MAX_SECRET {
        return Err(format!("{} is too long for a secret", path.display()));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
pub(super) fn alias_keys() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|a| a.key)
}
