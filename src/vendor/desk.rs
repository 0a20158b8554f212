//! How the REST interfaces of simulated vendors read requests: every field known, none missing, the key right.

use super::{HookRequest, PeerOrder, PeerReply, gate};
use crate::base::secret::Secret;

/// What is wrong with the fields of a request, in words. An optional field that ends in `*` stands for all that begin so.
pub(super) fn wrong<'a>(
    given: impl Iterator<Item = &'a str> + Clone,
    required: &[&str],
    optional: &[&str],
) -> Option<String> {
    let missing = required.iter().find(|name| !given.clone().any(|g| g == **name));
    if let Some(name) = missing {
        return Some(format!("{name} is missing"));
    }
    let known = |name: &str| {
        required.contains(&name)
            || optional.iter().any(|o| match o.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *o == name,
            })
    };
    let unknown = given.clone().find(|name| !known(name));
    unknown.map(|name| format!("{name} is not known"))
}

/// Whether the request brings these Basic credentials; any password is right when `key` is `None`.
pub(super) fn knocks(request: &HookRequest<'_>, user: Option<&str>, key: Option<&Secret>) -> bool {
    let Some(given) = gate::basic(request.headers) else {
        return false;
    };
    let Some((name, password)) = given.split_once(':') else {
        return false;
    };
    user.is_none_or(|user| user == name) && key.is_none_or(|key| key.matches(password))
}

/// A reply that changes nothing.
pub(super) const fn refusal(status: u16, body: String) -> PeerReply {
    PeerReply {
        status,
        body,
        order: PeerOrder::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_all_there_and_all_known() {
        let wrong = |given: &[&str]| wrong(given.iter().copied(), &["to", "from"], &["ring", "events[*"]);
        assert_eq!(wrong(&["to", "from"]), None);
        assert_eq!(wrong(&["from", "events[1]", "to", "ring"]), None);
        assert_eq!(wrong(&["to"]).as_deref(), Some("from is missing"));
        assert_eq!(wrong(&["to", "from", "fro"]).as_deref(), Some("fro is not known"));
    }
}
