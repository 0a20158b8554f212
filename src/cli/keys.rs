//! `sidetone keys new`: an API key, printed once, and the lines that make it known to the configuration.

use crate::{
    access::{
        Role,
        apikey::{self, KeyHash},
    },
    base::time::Wall,
};
use std::io::{self, Write};

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key: it is shown once, only its hash goes into the configuration
    New(New),
}

/// What a new key is for.
#[derive(Clone, Debug, clap::Args)]
pub struct New {
    /// Its name, seen in records as who acted
    #[arg(long, default_value = "key")]
    pub name: String,
    /// Whose calls it opens
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub tenant: i64,
    /// What it allows: viewer, agent or admin
    #[arg(long, default_value_t = Role::Agent)]
    pub role: Role,
    /// When it ends, such as 2027-01-31T00:00:00Z; never if left out
    #[arg(long, value_parser = read_time)]
    pub expires: Option<Wall>,
}

fn read_time(text: &str) -> Result<Wall, &'static str> {
    Wall::parse(text).ok_or("write a time such as 2027-01-31T00:00:00Z")
}

/// Prints the key and its configuration.
pub fn run(args: &Args, out: &mut impl Write) -> io::Result<()> {
    let Command::New(new) = &args.command;
    let key = apikey::generate().map_err(io::Error::other)?;
    writeln!(out, "The key, shown this once:\n\n  {}\n", key.expose())?;
    writeln!(out, "Its lines for the configuration:\n\n[[access.keys]]")?;
    writeln!(out, "name = {}", toml_edit::Value::from(new.name.as_str()))?;
    writeln!(out, "hash = \"{}\"", KeyHash::of(key.expose()))?;
    writeln!(out, "tenant = {}\nrole = \"{}\"", new.tenant, new.role)?;
    if let Some(end) = new.expires {
        writeln!(out, "expires = \"{end}\"")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_lines_know_the_printed_key() {
        let args = Args {
            command: Command::New(New {
                name: "build \"bot\"".into(),
                tenant: 9,
                role: Role::Viewer,
                expires: Some(Wall::default()),
            }),
        };
        let mut out = Vec::new();
        run(&args, &mut out).unwrap();
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
        assert_eq!(row["expires"].as_str(), Some("1970-01-01T00:00:00.000Z"));
    }
}
