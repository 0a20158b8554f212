//! `sidetone keys`: makes a key and the lines that make it known to the configuration, or makes, lists and revokes the keys of a
//! running daemon.

use super::remote::{self, Remote, cell, columns};
use crate::{
    access::{
        Role,
        apikey::{self, KeyHash},
        scope::Scopes,
    },
    base::{ids::KeyId, time::Wall},
};
use http::Method;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: remote::Daemon,

    /// What to do
    #[command(subcommand)]
    command: Command,
}

/// What can be done with keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key for the configuration: it is shown once, and the lines that make it known to the daemon
    New(New),
    /// Make a key in a running daemon: it is shown once
    Add(New),
    /// Show the keys of a tenant
    List {
        /// Whose; the operator's if left out
        #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
        tenant: Option<i64>,
    },
    /// Revoke a key: what it has open is closed
    Revoke {
        /// Its id, as `list` shows it
        id: KeyId,
        /// Whose; the operator's if left out
        #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
        tenant: Option<i64>,
    },
}

/// What a new key is for.
#[derive(Clone, Debug, clap::Args)]
pub struct New {
    /// Its name, seen in records as who acted
    #[arg(long, default_value = "key", value_parser = read_name)]
    pub name: String,
    /// Whose calls it opens
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub tenant: i64,
    /// What it allows: viewer, agent or admin
    #[arg(long, default_value_t = Role::Agent)]
    pub role: Role,
    /// What it is narrowed to, such as calls,ws; all that the role allows if left out
    #[arg(long = "scope", value_name = "SCOPES", default_value = "")]
    pub scopes: Scopes,
    /// When it ends, such as 2027-01-31T00:00:00Z; never if left out
    #[arg(long, value_parser = read_time)]
    pub expires: Option<Wall>,
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    if let Command::New(new) = &args.command {
        return super::told("keys", print(new, &mut io::stdout()));
    }
    remote::run(
        "keys",
        &args.remote,
        async |daemon: &Remote, out: &mut Vec<u8>| match &args.command {
            Command::New(_) => Ok(()),
            Command::Add(new) => add(daemon, new, out).await,
            Command::List { tenant } => list(daemon, *tenant, out).await,
            Command::Revoke { id, tenant } => {
                let path = of_tenant(format!("/api/keys/{id}"), *tenant);
                let revoked = daemon.ask(Method::DELETE, &path, None).await?;
                columns(out, &[row(&revoked["data"])]);
                Ok(())
            }
        },
    )
}

fn of_tenant(path: String, tenant: Option<i64>) -> String {
    match tenant {
        Some(tenant) => format!("{path}?tenant={tenant}"),
        None => path,
    }
}

async fn add(daemon: &Remote, new: &New, out: &mut Vec<u8>) -> Result<(), String> {
    // A key may be the first that there is of its tenant.
    let known = daemon
        .ask(Method::GET, &format!("/api/tenants/{}", new.tenant), None)
        .await;
    known.map_err(|what| format!("{what}: `sidetone tenants add` makes one"))?;
    let scopes: Vec<_> = new.scopes.iter().map(|s| s.as_str()).collect();
    let body = json!({
        "name": new.name, "role": new.role.as_str(), "scopes": scopes, "expiresAt": new.expires.map(|t| t.to_string()),
    });
    let path = of_tenant("/api/keys".to_owned(), Some(new.tenant));
    let made = daemon.ask(Method::POST, &path, Some(&body)).await?;
    let key = made["data"]["key"].as_str().unwrap_or_default();
    let _ = writeln!(out, "The key, shown this once:\n\n  {key}\n");
    columns(out, &[row(&made["data"])]);
    Ok(())
}

async fn list(daemon: &Remote, tenant: Option<i64>, out: &mut Vec<u8>) -> Result<(), String> {
    let keys = daemon
        .ask(Method::GET, &of_tenant("/api/keys".to_owned(), tenant), None)
        .await?;
    let head = ["ID", "PREFIX", "NAME", "ROLE", "SCOPES", "EXPIRES", "REVOKED"].map(str::to_owned);
    let rows = keys["data"].as_array().into_iter().flatten().map(row);
    columns(out, &std::iter::once(head.to_vec()).chain(rows).collect::<Vec<_>>());
    Ok(())
}

fn row(key: &Value) -> Vec<String> {
    let id = match key["source"].as_str() {
        Some("config") => "(config)".to_owned(),
        _ => cell(&key["id"]),
    };
    let rest = ["prefix", "name", "role", "scopes", "expiresAt", "revokedAt"];
    std::iter::once(id).chain(rest.map(|name| cell(&key[name]))).collect()
}

fn read_name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("write a name of one line, without control characters");
    }
    Ok(text.to_owned())
}

fn read_time(text: &str) -> Result<Wall, &'static str> {
    match Wall::parse(text) {
        None => Err("write a time such as 2027-01-31T00:00:00Z"),
        Some(end) if end <= Wall::now() => Err("that time has passed: the key would open nothing"),
        Some(end) => Ok(end),
    }
}

/// Prints a new key and its configuration.
fn print(new: &New, out: &mut impl Write) -> io::Result<()> {
    let key = apikey::generate().map_err(io::Error::other)?;
    writeln!(out, "The key, shown this once:\n\n  {}\n", key.expose())?;
    writeln!(out, "Its lines for the configuration:\n\n[[access.keys]]")?;
    writeln!(out, "name = {}", toml_edit::Value::from(new.name.as_str()))?;
    writeln!(out, "hash = \"{}\"", KeyHash::of(key.expose()))?;
    writeln!(out, "tenant = {}\nrole = \"{}\"", new.tenant, new.role)?;
    if new.scopes != Scopes::ALL {
        let scopes: Vec<_> = new.scopes.iter().map(|s| format!("\"{}\"", s.as_str())).collect();
        writeln!(out, "scopes = [{}]", scopes.join(", "))?;
    }
    if let Some(end) = new.expires {
        writeln!(out, "expires = \"{end}\"")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_could_open_nothing_or_break_its_line_is_refused() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            new: New,
        }
        let read =
            |line: [&str; 2]| <Cli as clap::Parser>::try_parse_from(["new"].into_iter().chain(line)).map(|c| c.new);
        for bad in [
            ["--expires", "2001-01-31T00:00:00Z"],
            ["--expires", "soon"],
            ["--name", "a\nb"],
            ["--name", "\u{1b}[2J"],
            ["--name", ""],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(read(["--expires", "2999-01-31T00:00:00Z"]).unwrap().expires.is_some());
        assert_eq!(read(["--name", "böt 1"]).unwrap().name, "böt 1");
    }

    #[test]
    fn the_printed_lines_know_the_printed_key() {
        let new = New {
            name: "build \"bot\"".into(),
            tenant: 9,
            role: Role::Viewer,
            scopes: "ws calls".parse().unwrap(),
            expires: Some(Wall::default()),
        };
        let mut out = Vec::new();
        print(&new, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let key = out.lines().find_map(|l| l.trim().strip_prefix("sk_")).unwrap();
        let toml: toml_edit::DocumentMut = out[out.find("[[").unwrap()..].parse().unwrap();
        let row = &toml["access"]["keys"][0];
        assert_eq!(
            row["hash"].as_str().unwrap().parse(),
            Ok(KeyHash::of(&format!("sk_{key}")))
        );
        assert_eq!(row["name"].as_str(), Some("build \"bot\""));
        assert_eq!(
            (row["tenant"].as_integer(), row["role"].as_str()),
            (Some(9), Some("viewer"))
        );
        assert_eq!(row["scopes"].to_string().trim(), r#"["calls", "ws"]"#);
        assert_eq!(row["expires"].as_str(), Some("1970-01-01T00:00:00.000Z"));
    }
}
