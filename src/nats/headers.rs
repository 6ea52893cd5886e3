//! The headers of a message: names, each with its values.

use std::fmt;

use async_nats::HeaderMap;

use super::check::{self, InvalidArgument};
use crate::task::executor::Executor;

/// The prefix of headers that the server executes.
pub(crate) const SERVER_PREFIX: &str = "Nats-";
/// The prefix of headers that this crate writes.
pub(crate) const OWN_PREFIX: &str = "Workcrew-";

/// The headers of a message or job: names, each with one or more values.
///
/// Names are case-sensitive, and consist of visible ASCII characters other than the colon. Values
/// are text without control characters, and without blanks at their ends. Headers are checked when
/// a message is sent; [`append`](Self::append) only stores.
///
/// # Examples
///
/// ```
/// use workcrew::nats::Headers;
///
/// let headers = Headers::new().append("Trace", "t1").append("Tag", "a").append("Tag", "b");
/// assert_eq!(headers.get("Trace"), Some("t1"));
/// assert_eq!(headers.iter().filter(|(name, _)| *name == "Tag").count(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// In the order in which they were appended.
    entries: Vec<(String, String)>,
}

impl Headers {
    /// Creates an empty set of headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value to the header of this name.
    #[must_use]
    pub fn append(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.entries.push((name.into(), value.into()));
        self
    }

    /// Returns the first value of a header. Names are case-sensitive.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// Iterates over all names and values; a name appears once for each of its values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns `true` if there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks the headers and converts them for the client library.
    pub(crate) fn to_map(&self) -> Result<HeaderMap, InvalidArgument> {
        let mut map = HeaderMap::new();
        let mut bytes = 0_usize;
        for (name, value) in self.iter() {
            check::header_name(name)?;
            check::header_value("header value", value)?;
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(4);
            map.append(name, value);
        }
        check::header_bytes(bytes)?;
        Ok(map)
    }

    /// Like [`to_map`](Self::to_map), for a job: reserved names are refused.
    pub(crate) fn to_job_map(&self) -> Result<HeaderMap, InvalidArgument> {
        if self.iter().any(|(name, _)| is_reserved(name)) {
            return Err(InvalidArgument::new("header name", "names that begin with Nats- and Workcrew- are reserved"));
        }
        self.to_map()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { entries: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}

/// Adds the headers that carry the context of this thread, for the hook of the pool. Those that the
/// message has, and those that may not be sent, are left out.
pub(crate) fn add_context(executor: &Executor, map: &mut HeaderMap) {
    for (name, value) in executor.headers_to_send() {
        let is_valid = check::header_name(&name).is_ok() && check::header_value("header value", &value).is_ok();
        if is_valid && !is_reserved(&name) && map.get(name.as_str()).is_none() {
            map.append(name, value);
        }
    }
}

/// Returns `true` if only the server and this crate write headers of this name.
fn is_reserved(name: &str) -> bool {
    let has = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    has(SERVER_PREFIX) || has(OWN_PREFIX)
}

/// Returns the first value of a header of a message.
pub(crate) fn first<'a>(map: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    map?.get(name).map(async_nats::HeaderValue::as_str)
}

/// Returns all names and values of a message, sorted by name; a name appears once for each of its
/// values.
pub(crate) fn pairs(map: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &str)> {
    let mut names: Vec<_> = map.into_iter().flat_map(HeaderMap::iter).collect();
    names.sort_by(|one, two| AsRef::<str>::as_ref(one.0).cmp(two.0.as_ref()));
    names.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_would_break_the_protocol_are_refused() {
        for (name, value) in [("", "v"), ("a b", "v"), ("a:", "v"), ("é", "v"), ("a\r\nb", "v"), ("a", "v\r\nb: c")] {
            assert!(Headers::new().append(name, value).to_map().is_err(), "{name:?} {value:?}");
        }
        for value in ["\0", " a", "a ", "\n"] {
            assert!(Headers::new().append("a", value).to_map().is_err(), "{value:?}");
        }
        assert!(Headers::new().append("a", "x".repeat(60_000)).to_map().is_err());
        assert!(Headers::new().append("Trace", "été").append("Empty", "").to_map().is_ok());
        for name in ["Nats-Msg-Id", "nats-rollup", "Workcrew-Id"] {
            assert!(Headers::new().append(name, "v").to_job_map().is_err(), "{name}");
        }
    }
}
