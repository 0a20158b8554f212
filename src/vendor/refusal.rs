//! What a vendor's REST interface said when it did not do as it was asked, as a fault that says who said what, and what to do.

use super::{CallAction, params::words};
use crate::base::fault::{Fault, Kind, Origin};

/// A reply that is no success.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusal<'a> {
    /// The vendor, as people write it.
    pub(super) vendor: &'static str,
    /// The HTTP status.
    pub(super) status: u16,
    /// The vendor's own code, where it tells one.
    pub(super) code: Option<&'a str>,
    /// The vendor's own words, where it says any.
    pub(super) words: Option<&'a str>,
    /// What the vendor knows us by: keys of the configuration.
    pub(super) keys: &'static str,
    /// What to do, where the status alone does not tell.
    pub(super) hint: Option<&'static str>,
    /// The sort, where the status alone does not tell.
    pub(super) kind: Option<Kind>,
}

impl Refusal<'_> {
    /// The fault of whoever asked for `action`. Who reads it cannot mend a vendor's trouble or our credentials, so those are
    /// `BadGateway`; that a call is not there concerns only who asked about one.
    pub(super) fn fault(self, action: &CallAction<'_>) -> Fault {
        let dials = matches!(action, CallAction::Dial { .. });
        let kind = self.kind.unwrap_or(match self.status {
            429 => Kind::TooMany,
            404 | 410 if !dials => Kind::NotFound,
            409 => Kind::Conflict,
            401 | 403 | 404 | 410 => Kind::BadGateway,
            400..500 => Kind::Invalid,
            _ => Kind::BadGateway,
        });
        let said = words(self.words.unwrap_or_default());
        let code = match self.code.map(str::trim).filter(|c| !c.is_empty()) {
            Some(code) => format!("code {}", words(code)),
            None => format!("status {}", self.status),
        };
        let (vendor, keys) = (self.vendor, self.keys);
        // 503 is said before a request is looked at; the others may come after the phone began to ring.
        let in_doubt = dials && self.status >= 500 && self.status != 503;
        let to_do = match (self.hint, kind, self.status) {
            (Some(hint), ..) => hint.to_owned(),
            (_, Kind::TooMany, _) => "ask less often, and try again later".to_owned(),
            (_, Kind::NotFound, _) => "the vendor does not know the call, or no longer".to_owned(),
            (.., 401 | 403) => format!("check {keys}"),
            (.., 404 | 410) => format!("check the account and where its API is: {keys}, base_url"),
            (.., 300..=399) => "a redirect is not followed: check base_url".to_owned(),
            (.., 500..) if in_doubt => {
                format!("the trouble is {vendor}'s, and the call may have been placed: look before trying again")
            }
            (.., 500..) => format!("the trouble is {vendor}'s: try again in a moment"),
            _ => String::new(),
        };
        let colon = if to_do.is_empty() { "" } else { ": " };
        let mut fault = Fault::new(Origin::Vendor, kind, format!("{vendor}: {said} ({code}){colon}{to_do}"));
        fault.in_doubt |= in_doubt;
        fault
    }
}

/// A call was taken, and nothing in the reply tells its id.
pub(super) fn nameless(vendor: &'static str, status: u16) -> Fault {
    let message = format!(
        "{vendor}: the call was taken and no id told for it (status {status}): check that base_url is {vendor}'s API"
    );
    Fault::new(Origin::Vendor, Kind::BadGateway, message)
}
