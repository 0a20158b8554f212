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
    #[arg(long, default_value = "key", value_parser = read_name)]
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
