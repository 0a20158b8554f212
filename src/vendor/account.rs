//! What accounts at several vendors are configured with in the same way.

use crate::base::settings::Section;
use http::Uri;

/// The base URL of a REST interface under `key`, without a trailing slash; `default` unless written.
pub(super) fn endpoint(s: &Section<'_>, key: &str, default: &str) -> String {
    let Some(url) = s.text_opt(key).filter(|t| !t.is_empty()) else {
        return default.to_owned();
    };
    let is_base = url.parse::<Uri>().is_ok_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https"))
            && u.host().is_some_and(|h| !h.is_empty())
            && u.authority().is_some_and(|a| !a.as_str().contains('@'))
            && u.query().is_none()
    });
    if !is_base || url.contains('#') {
        s.fault(
            key,
            format!("{url:?} is not a base URL"),
            "http:// or https://, a host, no user, no query",
        );
    }
    url.trim_end_matches('/').to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    /// What `read` makes of a section with these texts, and the faults.
    pub(in crate::vendor) fn configured<T>(
        pairs: &[(&str, &str)],
        read: impl FnOnce(&Section<'_>) -> T,
    ) -> (T, Vec<String>) {
        let item = |v: &str| Item {
            value: Value::String(v.to_owned()),
            place: Place::Env("X".to_owned()),
        };
        let table: Table = pairs.iter().map(|(k, v)| ((*k).to_owned(), item(v))).collect();
        let faults = Faults::default();
        let section = Section::root(&table, &faults);
        let config = read(&section);
        section.finish();
        (config, faults.take().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_a_base_url_is_one() {
        let read = |url: &str| configured(&[("base_url", url)], |s| endpoint(s, "base_url", "d"));
        assert_eq!(read("https://h:1/v1/"), ("https://h:1/v1".to_owned(), vec![]));
        assert_eq!(configured(&[], |s| endpoint(s, "base_url", "d")).0, "d");
        for bad in ["h", "ftp://h", "https://u:p@h", "https://h?x=1", "https://h#x"] {
            assert_eq!(read(bad).1.len(), 1, "{bad}");
        }
    }
}
