//! Asking a running daemon: where it is, as whom, and what its refusals mean for a person at a terminal.

use super::check_config::{self, EX_CONFIG};
use crate::{
    access::{Role, jwt::Grant, scope::Scopes},
    base::{ids::TenantId, secret::Secret, time::Wall},
    config::{self, Config},
    net::client::{ApiRequest, HttpClient},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// The variable that holds a key or token, where the configuration's secret is not at hand.
pub const VARIABLE: &str = "SIDETONE_API_KEY";
/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct Daemon {
    /// The daemon's configuration file: where it listens, and the secret that proves us its operator
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Where the daemon is, if not where the configuration says
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
}

/// A daemon to ask.
#[derive(Debug)]
pub struct Remote {
    base: String,
    credential: Option<Secret>,
}

/// Does something with the daemon and prints what came of it: 0, 78 where the configuration is bad, 1 where the daemon did not do
/// as asked.
pub fn run(
    command: &str,
    args: &Daemon,
    work: impl AsyncFnOnce(&Remote, &mut Vec<u8>) -> Result<(), String>,
) -> ExitCode {
    let config = match Config::load(args.config.as_deref(), &config::environment(), &[]) {
        Ok(config) => config,
        Err(faults) => {
            let _ = check_config::report(args.config.as_deref(), &faults, &mut io::stderr());
            return ExitCode::from(EX_CONFIG);
        }
    };
    let remote = Remote::new(&config, args.url.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut out = Vec::new();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(work(&remote, &mut out)),
        Err(e) => Err(e.to_string()),
    };
    let _ = io::stdout().write_all(&out);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("sidetone {command}: {what}");
            ExitCode::FAILURE
        }
    }
}

impl Remote {
    fn new(config: &Config, url: Option<&str>) -> Self {
        let listens = config.listen.address;
        let here = match listens.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let base = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            // A certificate is for the public name.
            None if config.listen.tls.is_some() => config.calls.public_url.clone(),
            None => format!("http://{}", std::net::SocketAddr::new(here, listens.port())),
        };
        let given = std::env::var(VARIABLE)
            .ok()
            .filter(|text| !text.is_empty())
            .map(Secret::new);
        let minted = || {
            let grant = Grant {
                tenant: config.access.operator.unwrap_or(TenantId(1)),
                role: Role::Admin,
                // A key opens no more than what makes it.
                scopes: Scopes::ALL,
                subject: "cli".to_owned(),
                ttl: Duration::from_secs(60),
            };
            config.access.verifier().mint(&grant, Wall::now()).ok()
        };
        Self {
            base,
            // A daemon on `--dev` asks for none.
            credential: given.or_else(minted),
        }
    }

    /// The daemon's answer, or its refusal as a sentence.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut headers = HeaderMap::new();
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(credential) = &self.credential {
            let value = HeaderValue::try_from(format!("Bearer {}", credential.expose()));
            let value = value.map_err(|_| format!("{VARIABLE} is no key and no token"))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let request = ApiRequest {
            method,
            url: format!("{}{path}", self.base),
            headers,
            body: body.map_or_else(Bytes::new, |b| b.to_string().into()),
            timeout: PATIENCE,
        };
        let reply = HttpClient::new().send(request).await;
        let reply = reply.map_err(|e| format!("{e}: is the daemon running, and is --config or --url right?"))?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        match reply.status {
            200 => Ok(answer),
            401 if self.credential.is_none() => Err(format!(
                "the daemon wants a credential: name its --config, or set {VARIABLE} to an admin's key"
            )),
            status => Err(match answer["error"]["message"].as_str() {
                Some(message) => message.to_owned(),
                None => format!("the daemon answered {status}"),
            }),
        }
    }
}

/// Writes rows in columns.
pub fn columns(out: &mut Vec<u8>, rows: &[Vec<String>]) {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |n: usize| {
        rows.iter()
            .filter_map(|r| Some(r.get(n)?.chars().count()))
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// A member of an answer for a column: a dash where there is none.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_daemon_is_where_its_configuration_says() {
        let mut config = Config::load(None, &config::Env::new(), &[]).unwrap();
        config.listen.address = "0.0.0.0:9000".parse().unwrap();
        assert_eq!(Remote::new(&config, None).base, "http://127.0.0.1:9000");
        config.listen.address = "[::]:9000".parse().unwrap();
        assert_eq!(Remote::new(&config, None).base, "http://[::1]:9000");
        config.listen.tls = Some(("c".into(), "k".into()));
        config.calls.public_url = "https://relay.example".into();
        assert_eq!(Remote::new(&config, None).base, "https://relay.example");
        assert_eq!(Remote::new(&config, Some("http://x/")).base, "http://x");
    }

    #[test]
    fn rows_are_aligned() {
        let mut out = Vec::new();
        let rows = [json!([1, "böt", null]), json!([20, "x", ["a", "b"]])];
        let rows: Vec<Vec<_>> = rows
            .iter()
            .map(|r| r.as_array().unwrap().iter().map(cell).collect())
            .collect();
        columns(&mut out, &rows);
        assert_eq!(String::from_utf8(out).unwrap(), "1   böt  -\n20  x    a,b\n");
    }
}
