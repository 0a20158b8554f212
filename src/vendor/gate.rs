//! How requests of a vendor that signs nothing are told from anybody's: a secret in the URL that the vendor was given, or
//! Basic credentials (RFC 7617) in it.

use super::{Admit, HookRequest, params::with_query};
use crate::{
    base::{
        fault::{Fault, Kind},
        secret::Secret,
        settings::Section,
    },
    wire::{base64, form::Form},
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
            insecure: s.bool("insecure", false),
        }
    }

    /// Whether every request is believed.
    pub(super) const fn insecure(&self) -> bool {
        self.insecure
    }

    /// Whether there is nothing that a request could bring.
    pub(super) const fn is_open(&self) -> bool {
        self.secret.is_none() && self.basic.is_none()
    }

    /// What is missing, if anything: as `Trunk::unguarded` has it.
    pub(super) fn unguarded(&self) -> Option<&'static str> {
        (self.is_open() && !self.insecure).then_some("webhook_secret, or webhook_user and webhook_password")
    }

    /// Whether the request brings what it must.
    pub(super) fn check(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        if self.insecure || (self.is_open() && request.by_number) || self.holds(request) {
            return Ok(());
        }
        Err(Fault::client(
            Kind::Forbidden,
            match self.is_open() {
                true => "no webhook_secret is configured, so no request can be believed",
                false => "the URL lacks the right secret or credentials: give the vendor the URL with ?secret=…",
            },
        ))
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

    /// A URL of ours as the vendor is given it.
    pub(super) fn sealed(&self, url: &str) -> String {
        match &self.secret {
            Some(secret) if !url.is_empty() => with_query(url, SECRET, secret.expose()),
            _ => url.to_owned(),
        }
    }
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
    use super::{super::params::tests::asked, *};
    use http::HeaderValue;

    fn gate(secret: Option<&str>, basic: Option<(&str, &str)>) -> Gate {
        Gate {
            secret: secret.map(Secret::new),
            basic: basic.map(|(u, p)| (u.to_owned(), Secret::new(p))),
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
