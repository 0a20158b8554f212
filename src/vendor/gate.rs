//! How requests of a vendor that signs nothing are told from anybody's: a secret in the URL that the vendor was given, Basic
//! credentials (RFC 7617) in it, or the address that they come from.

use super::{Admit, HookRequest, params::with_query};
use crate::{
    base::{
        fault::{Fault, Kind},
        network::{self, Network},
        secret::Secret,
        settings::Section,
    },
    wire::{
        base64,
        form::{Form, percent_encode},
    },
};
use http::{HeaderMap, header};

/// Query parameter that carries the secret.
const SECRET: &str = "secret";

/// Keys of a vendor's section that say what its requests must bring.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    /// `webhook_secret`: the value of `?secret=` in every URL that the vendor is given.
    secret: Option<Secret>,
    /// `webhook_user` and `webhook_password`: Basic credentials, for URLs that are written `https://user:password@…`.
    basic: Option<(String, Secret)>,
    /// `webhook_addresses`: networks of the vendor's. Where they are listed, requests from elsewhere are refused whatever
    /// they bring; alone they are proof enough.
    addresses: Vec<Network>,
    /// `insecure`: believe everything. Default `false`; only behind a gateway that has checked.
    insecure: bool,
}

impl Gate {
    /// Reads the keys.
    pub(super) fn read(s: &Section<'_>) -> Self {
        let user = s.text_opt("webhook_user").filter(|u| !u.is_empty());
        let password = s.secret("webhook_password");
        if user.is_some() != password.is_some() {
            s.fault(
                "webhook_user",
                "is of use only with webhook_password",
                "set both or neither",
            );
        }
        Self {
            secret: s.secret("webhook_secret"),
            basic: user.zip(password),
            addresses: read_addresses(s),
            insecure: s.bool("insecure", false),
        }
    }

    /// Whether every request is believed.
    pub(super) const fn insecure(&self) -> bool {
        self.insecure
    }

    /// Whether there is nothing that a request could bring.
    pub(super) const fn is_open(&self) -> bool {
        self.needs_nothing() && self.addresses.is_empty()
    }

    /// Whether a request need not bring anything with it.
    const fn needs_nothing(&self) -> bool {
        self.secret.is_none() && self.basic.is_none()
    }

    /// What is missing, if anything: as `Trunk::unguarded` has it.
    pub(super) fn unguarded(&self) -> Option<&'static str> {
        (self.is_open() && !self.insecure)
            .then_some("webhook_secret, webhook_addresses, or webhook_user and webhook_password")
    }

    /// Whether the request brings what it must.
    pub(super) fn check(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        if self.insecure || (self.is_open() && request.by_number) {
            return Ok(());
        }
        let refused = |why| Err(Fault::client(Kind::Forbidden, why));
        if self.is_open() {
            return refused("no webhook_secret or webhook_addresses is configured, so no request can be believed");
        }
        let is_theirs = |n: &Network| request.client.is_some_and(|address| n.contains(address));
        if !self.addresses.is_empty() && !self.addresses.iter().any(is_theirs) {
            return refused("webhook_addresses does not list the address that the request comes from");
        }
        if !self.needs_nothing() && !self.holds(request) {
            return refused("the URL lacks the right secret or credentials: give the vendor the URL with ?secret=…");
        }
        Ok(())
    }

    /// How a media socket comes in: what announced it brings a token, one URL for all streams the secret.
    pub(super) fn admit(&self, request: &HookRequest<'_>) -> Admit {
        match self.check(request) {
            Ok(()) => Admit::Proven,
            Err(_) => Admit::WithToken,
        }
    }

    fn holds(&self, request: &HookRequest<'_>) -> bool {
        let in_url = self.secret.as_ref().is_some_and(|secret| {
            let query = request.path_and_query.split_once('?').map_or("", |(_, query)| query);
            let form = Form::parse(query.as_bytes()).unwrap_or_default();
            form.get(SECRET).is_some_and(|given| secret.matches(given))
        });
        let in_header = self.basic.as_ref().is_some_and(|(user, password)| {
            let given = basic(request.headers).unwrap_or_default();
            Secret::new(format!("{user}:{}", password.expose())).matches(&given)
        });
        in_url || in_header
    }

    /// A URL of ours as the vendor is given it: with the secret, or with the credentials where there is no secret (RFC 3986
    /// §3.2.1).
    pub(super) fn sealed(&self, url: &str) -> String {
        match (&self.secret, &self.basic, url.split_once("://")) {
            (Some(secret), _, _) if !url.is_empty() => with_query(url, SECRET, secret.expose()),
            (None, Some((user, password)), Some((scheme, rest))) => {
                let (user, password) = (percent_encode(user), percent_encode(password.expose()));
                format!("{scheme}://{user}:{password}@{rest}")
            }
            _ => url.to_owned(),
        }
    }
}

fn read_addresses(s: &Section<'_>) -> Vec<Network> {
    let addresses = network::listed(s, "webhook_addresses");
    if addresses.iter().any(Network::is_all) {
        s.fault(
            "webhook_addresses",
            "lists every address there is",
            "the vendor's networks, or insecure = true behind a gateway that has checked",
        );
    }
    addresses
}

/// A URL with the secret of the account that a simulated vendor carries calls for.
pub(super) fn sealed(url: &str, secret: Option<&Secret>) -> String {
    secret.map_or_else(|| url.to_owned(), |s| with_query(url, SECRET, s.expose()))
}

/// User and password as they stand in the header, decoded.
pub(super) fn basic(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, code) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    String::from_utf8(base64::decode_vec(code.trim().as_bytes(), 1024).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{account::tests::configured, params::tests::asked},
        *,
    };
    use http::HeaderValue;

    fn gate(secret: Option<&str>, basic: Option<(&str, &str)>) -> Gate {
        Gate {
            secret: secret.map(Secret::new),
            basic: basic.map(|(u, p)| (u.to_owned(), Secret::new(p))),
            addresses: Vec::new(),
            insecure: false,
        }
    }

    #[test]
    fn a_secret_in_the_url_opens_and_a_wrong_one_does_not() {
        let gate = gate(Some("a b&c"), None);
        let url = gate.sealed("/hook?x=1");
        for (path, believed) in [
            (&*url, true),
            ("/hook?x=1", false),
            ("/hook?secret=a", false),
            ("/a%20b%26c", false),
        ] {
            asked("GET", path, "", "", |r| {
                assert_eq!(gate.check(r).is_ok(), believed, "{path}");
                assert_eq!(gate.admit(r) == Admit::Proven, believed, "{path}");
                let by_number = HookRequest { by_number: true, ..*r };
                assert_eq!(
                    gate.check(&by_number).is_ok(),
                    believed,
                    "a secret that is set is asked for"
                );
            });
        }
        assert_eq!((gate.unguarded(), gate.sealed("").as_str()), (None, ""));
    }

    #[test]
    fn urls_that_we_hand_out_bring_what_the_gate_asks_for() {
        let url = "https://relay.example.com/hook?x=1";
        let credentials = Some(("relay", "p:w/"));
        for (gate, sealed) in [
            (gate(None, None), url),
            (
                gate(Some("s"), credentials),
                "https://relay.example.com/hook?x=1&secret=s",
            ),
            (
                gate(None, credentials),
                "https://relay:p%3Aw%2F@relay.example.com/hook?x=1",
            ),
        ] {
            assert_eq!(gate.sealed(url), sealed);
            assert_eq!(gate.sealed(""), "");
        }
    }

    #[test]
    fn basic_credentials_open_too() {
        let gate = gate(None, Some(("relay", "p:w")));
        asked("POST", "/hook", "", "", |r| {
            for (value, believed) in [
                ("Basic cmVsYXk6cDp3", true),
                ("basic cmVsYXk6cDp3", true),
                ("Basic cmVsYXk6cA==", false),
                ("Bearer cmVsYXk6cDp3", false),
                ("Basic %%%", false),
            ] {
                let mut headers = r.headers.clone();
                headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
                let request = HookRequest {
                    headers: &headers,
                    ..*r
                };
                assert_eq!(gate.check(&request).is_ok(), believed, "{value}");
            }
        });
    }

    #[test]
    fn an_address_that_is_listed_is_proof_and_another_is_none_whatever_it_brings() {
        let addresses = vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let alone = Gate {
            addresses: addresses.clone(),
            ..gate(None, None)
        };
        let both = Gate {
            addresses,
            ..gate(Some("s"), None)
        };
        asked("POST", "/hook?secret=s", "", "", |r| {
            for (address, listed) in [
                (Some("203.0.113.9"), true),
                (Some("::ffff:203.0.113.9"), true),
                (Some("2001:db8::7"), true),
                (Some("203.0.114.9"), false),
                (Some("127.0.0.1"), false),
                (None, false),
            ] {
                let client = address.map(|a| a.parse().unwrap());
                for by_number in [false, true] {
                    let request = HookRequest {
                        client,
                        by_number,
                        ..*r
                    };
                    assert_eq!(alone.check(&request).is_ok(), listed, "{address:?}");
                    assert_eq!(alone.admit(&request) == Admit::Proven, listed);
                    assert_eq!(both.check(&request).is_ok(), listed);
                    let bare = HookRequest {
                        path_and_query: "/hook",
                        ..request
                    };
                    assert!(both.check(&bare).is_err(), "the secret is asked for too");
                }
            }
        });
        assert!(alone.unguarded().is_none());
    }

    #[test]
    fn a_list_that_is_none_or_holds_everybody_is_told() {
        let read = |text: &str| configured(&[("webhook_addresses", text)], Gate::read).1;
        assert_eq!(read("203.0.113.0/24, 2001:db8::/32"), [""; 0]);
        for (bad, hint) in [
            ("203.0.113.0/33", "203.0.113.0/24"),
            ("host", "203.0.113.7"),
            ("0.0.0.0/0", "insecure = true"),
        ] {
            let faults = read(bad);
            assert!(faults.len() == 1 && faults[0].contains(hint), "{bad}: {faults:?}");
        }
    }

    #[test]
    fn without_anything_configured_only_a_numbers_own_path_is_believed() {
        let open = gate(None, None);
        asked("POST", "/hook?secret=", "", "", |r| {
            assert!(open.check(r).is_err());
            assert!(open.check(&HookRequest { by_number: true, ..*r }).is_ok());
            let insecure = Gate {
                insecure: true,
                ..open.clone()
            };
            assert!(insecure.check(r).is_ok() && insecure.unguarded().is_none());
        });
        assert!(open.unguarded().is_some());
    }
}
