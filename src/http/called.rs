//! Whom a vendor's request concerns: the account that verifies it, and the number it came to, where its path says one.

use super::Shared;
use crate::{
    base::fault::{Fault, Kind},
    control::Line,
    vendor::{self, Descriptor, HookRequest, Trunk},
    wire::form::Form,
};
use std::sync::Arc;

/// Prefixes of the paths of numbers' media sockets; the second is an alias.
pub(super) const STREAMS: [&str; 2] = [vendor::NUMBER_STREAM, "/ws"];

/// What a vendor's request came to.
pub(super) struct Called {
    pub(super) vendor: &'static Descriptor,
    pub(super) trunk: Arc<dyn Trunk>,
    /// The number that its path names.
    pub(super) line: Option<Arc<Line>>,
}

impl Called {
    /// One of a vendor's own paths: the account of the configuration.
    pub(super) fn vendor(shared: &Shared, vendor: &'static Descriptor) -> Result<Self, Fault> {
        let trunk = shared.trunks.get(vendor.name).cloned();
        Ok(Self {
            vendor,
            trunk: trunk.ok_or_else(|| Fault::not_found("account"))?,
            line: None,
        })
    }

    /// A number's own path. Under `--dev` an id that nobody has will do; the request's marks tell the dialect.
    pub(super) fn number(shared: &Shared, id: &str, request: &HookRequest<'_>) -> Result<Self, Fault> {
        match shared.control.line(id) {
            Some(line) => Self::line(shared, line),
            None if shared.dev => Self::vendor(shared, guess(request)?),
            None => Err(Fault::not_found("phone number")),
        }
    }

    fn line(shared: &Shared, line: Arc<Line>) -> Result<Self, Fault> {
        let of_config = || {
            let theirs = line.row.settings.is_null();
            theirs.then(|| shared.trunks.get(line.vendor.name).cloned()).flatten()
        };
        let trunk = line.account.clone().or_else(of_config);
        Ok(Self {
            vendor: line.vendor,
            trunk: trunk.ok_or_else(|| Fault::client(Kind::Unavailable, "the number's account cannot be used now"))?,
            line: Some(line),
        })
    }

    /// The path of a number's media socket: `id`, and the token that followed it or came in the query. A call that awaits
    /// the token goes before the number, because its stream is sure to be of that dialect. On the alias a token may stand
    /// where the id does. Returns the token with whom it concerns.
    pub(super) fn stream(
        shared: &Shared,
        prefix: &str,
        id: &str,
        token: Option<String>,
        request: &HookRequest<'_>,
    ) -> Result<(Self, Option<String>), Fault> {
        let awaited = |token: &str| {
            let (vendor, trunk) = shared.control.awaited(token)?;
            let line = shared.control.line(id).filter(|l| l.vendor.name == vendor.name);
            Some(Self {
                vendor,
                trunk: trunk?,
                line,
            })
        };
        if let Some(called) = token.as_deref().and_then(awaited) {
            return Ok((called, token));
        }
        if token.is_none() {
            if let Some(called) = awaited(id) {
                return Ok((called, Some(id.to_owned())));
            }
            let of_vendor = || vendor::all().iter().copied().find(|v| v.stream_path == prefix);
            if !shared.dev
                && shared.control.line(id).is_none()
                && let Some(vendor) = of_vendor()
            {
                return Ok((Self::vendor(shared, vendor)?, Some(id.to_owned())));
            }
        }
        Ok((Self::number(shared, id, request)?, token))
    }
}

/// Whose dialect a request is that names a number nobody has: what `?provider=` says, else whoever claims it most.
fn guess(request: &HookRequest<'_>) -> Result<&'static Descriptor, Fault> {
    let query = request.path_and_query.split_once('?').map_or("", |(_, q)| q);
    let query = Form::parse(query.as_bytes()).map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    if let Some(name) = query.get("provider") {
        let unknown = || Fault::client(Kind::Invalid, "provider is not known");
        return vendor::by_name(name).ok_or_else(unknown);
    }
    vendor::claimed(request).ok_or_else(|| {
        let message = "no number has this id, and the request does not show whose it is: add ?provider= to the URL";
        Fault::client(Kind::NotFound, message)
    })
}
