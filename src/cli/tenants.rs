//! `sidetone tenants`: lists, makes, changes and disables the tenants of a running daemon.

use super::remote::{self, Remote, cell, columns};
use crate::{access::members::Limits, base::settings::json::camel_case};
use http::Method;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: remote::Daemon,

    /// What to do
    #[command(subcommand)]
    command: Command,
}

/// What can be done with tenants.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show all tenants with what is set for each
    List,
    /// Make a tenant
    Add(Add),
    /// Change a tenant's name or limits
    Set(Set),
    /// Serve a tenant no more: its credentials open nothing, its sockets close, its numbers answer busy
    Disable {
        /// Its id
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
    /// Serve a disabled tenant again
    Enable {
        /// Its id
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
}

/// A tenant to make.
#[derive(Clone, Debug, clap::Args)]
pub struct Add {
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Its id; the next one free if left out
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    id: Option<i64>,
    /// A limit of its own, such as max_calls=20 or destinations=+91,+44
    #[arg(long = "limit", value_name = "KEY=VALUE", value_parser = read_limit)]
    limits: Vec<(String, Value)>,
}

/// What to change.
#[derive(Clone, Debug, clap::Args)]
pub struct Set {
    /// Its id
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// A limit of its own, such as max_calls=20; without a value, back to that of all
    #[arg(long = "limit", value_name = "KEY=VALUE", value_parser = read_limit)]
    limits: Vec<(String, Value)>,
}

fn read_limit(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if !Limits::NAMES.contains(&key) {
        return Err(format!("no limit {key:?}: {}", Limits::NAMES.join(", ")));
    }
    let value = match value {
        "" => Value::Null,
        list if key.ends_with("destinations") => list.split(',').collect(),
        number => json!(number.parse::<u32>().map_err(|_| format!("{key} is a whole number"))?),
    };
    Ok((camel_case(key), value))
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    remote::run("tenants", &args.remote, async |daemon: &Remote, out: &mut Vec<u8>| {
        let answer = match &args.command {
            Command::List => return list(daemon, out).await,
            Command::Add(add) => {
                let mut body = asked(&add.name, &add.limits);
                body.extend(add.id.map(|id| ("id".to_owned(), json!(id))));
                daemon
                    .ask(Method::POST, "/api/tenants", Some(&Value::Object(body)))
                    .await?
            }
            Command::Set(set) => change(daemon, set.id, asked(&set.name, &set.limits)).await?,
            Command::Disable { id } => change(daemon, *id, status("disabled")).await?,
            Command::Enable { id } => change(daemon, *id, status("active")).await?,
        };
        columns(out, &[row(&answer["data"])]);
        Ok(())
    })
}

fn asked(name: &Option<String>, limits: &[(String, Value)]) -> Map<String, Value> {
    let mut body = Map::new();
    body.extend(name.iter().map(|name| ("name".to_owned(), json!(name))));
    if !limits.is_empty() {
        let limits: Map<_, _> = limits.iter().cloned().collect();
        body.insert("limits".to_owned(), Value::Object(limits));
    }
    body
}

fn status(word: &str) -> Map<String, Value> {
    Map::from_iter([("status".to_owned(), json!(word))])
}

async fn change(daemon: &Remote, id: i64, body: Map<String, Value>) -> Result<Value, String> {
    daemon
        .ask(Method::PUT, &format!("/api/tenants/{id}"), Some(&Value::Object(body)))
        .await
}

async fn list(daemon: &Remote, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rows = vec![["ID", "NAME", "STATUS", "LIMITS"].map(str::to_owned).to_vec()];
    let mut path = "/api/tenants".to_owned();
    loop {
        let page = daemon.ask(Method::GET, &path, None).await?;
        rows.extend(page["data"].as_array().into_iter().flatten().map(row));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/tenants?cursor={cursor}"),
            None => break,
        }
    }
    columns(out, &rows);
    Ok(())
}

fn row(tenant: &Value) -> Vec<String> {
    let limits = tenant["limits"].as_object().into_iter().flatten();
    let limits: Vec<_> = limits.map(|(key, value)| format!("{key}={}", cell(value))).collect();
    let limits = if limits.is_empty() {
        "-".to_owned()
    } else {
        limits.join(" ")
    };
    vec![
        cell(&tenant["id"]),
        cell(&tenant["name"]),
        cell(&tenant["status"]),
        limits,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_their_names() {
        assert_eq!(read_limit("max_calls=20"), Ok(("maxCalls".into(), json!(20))));
        assert_eq!(read_limit("max_calls="), Ok(("maxCalls".into(), Value::Null)));
        assert_eq!(
            read_limit("destinations=+91,sip:"),
            Ok(("destinations".into(), json!(["+91", "sip:"])))
        );
        for bad in ["max_calls", "max_calls=many", "max_calls=-1", "calls=3"] {
            assert!(read_limit(bad).is_err(), "{bad}");
        }
    }
}
