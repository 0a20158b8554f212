//! The `[http]` section: how long a request may take, how big it may be, and whom a browser may come from.

use crate::base::{
    network::{self, Network},
    settings::Section,
};
use std::time::Duration;

/// What `[http]` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// From accepting a connection, or the first byte of a request, to its whole head.
    pub header_timeout: Duration,
    /// From an answer to the next whole request head.
    pub keep_alive: Duration,
    /// Request line and headers together, in bytes.
    pub header_bytes: usize,
    /// One header, or the request line, in bytes.
    pub line_bytes: usize,
    /// Headers of one request.
    pub headers: usize,
    /// From a request's head to the end of its body.
    pub body_timeout: Duration,
    /// Bytes of a body that must come each second at least.
    pub body_rate: u32,
    /// How long a client may take nothing of its answer.
    pub write_stall: Duration,
    /// Body of a REST request, in bytes.
    pub body_bytes: usize,
    /// Body of a webhook, in bytes.
    pub hook_bytes: usize,
    /// Time to answer a webhook; then 503, so that the vendor tries again.
    pub hook_timeout: Duration,
    /// Origins (`https://app.example.com`) whose pages may use REST and the frontend sockets, beside our own.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Default for Config {
    fn default() -> Self {
        Self {
            header_timeout: SECOND * 5,
            keep_alive: SECOND * 60,
            header_bytes: 16 * 1024,
            line_bytes: 8 * 1024,
            headers: 64,
            body_timeout: SECOND * 10,
            body_rate: 1024,
            write_stall: SECOND * 10,
            body_bytes: 64 * 1024,
            hook_bytes: 256 * 1024,
            hook_timeout: SECOND * 5,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the section.
    pub fn read(section: &Section<'_>) -> Self {
        let d = Self::default();
        let time = |key, default| section.duration(key, default, SECOND / 100..=SECOND * 3600);
        let size = |key, default: usize, range| section.int(key, default, range);
        Self {
            header_timeout: time("header_timeout", d.header_timeout),
            keep_alive: time("keep_alive", d.keep_alive),
            header_bytes: size("header_bytes", d.header_bytes, 1024..=1 << 20),
            line_bytes: size("line_bytes", d.line_bytes, 256..=1 << 20),
            headers: size("headers", d.headers, 16..=1024),
            body_timeout: time("body_timeout", d.body_timeout),
            body_rate: section.int("body_bytes_per_s", d.body_rate, 1..=1 << 30),
            write_stall: time("write_stall", d.write_stall),
            body_bytes: size("body_bytes", d.body_bytes, 1024..=1 << 30),
            hook_bytes: size("hook_bytes", d.hook_bytes, 1024..=1 << 30),
            hook_timeout: time("hook_timeout", d.hook_timeout),
            origins: read_origins(section),
            trusted_proxies: network::listed(section, "trusted_proxies"),
        }
    }
}

fn read_origins(section: &Section<'_>) -> Vec<String> {
    let origins = section.texts("origins", &[]);
    for origin in origins.iter().filter(|o| !is_origin(o)) {
        let hint = "write scheme, host and port as a browser sends them: https://app.example.com";
        section.fault("origins", format!("{origin:?} is not an origin"), hint);
    }
    origins
}

/// Whether the text is what a browser puts into `Origin`: no path, no user, no wildcard.
fn is_origin(text: &str) -> bool {
    let host = ["http://", "https://"].iter().find_map(|s| text.strip_prefix(s));
    host.is_some_and(|h| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':' | '[' | ']');
        !h.is_empty() && h.chars().all(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/",
            "https://u@a.example",
            "https://*.example",
            "https://A.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
