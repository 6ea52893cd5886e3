//! The settings of methods, and their table.

use std::fmt;
use std::time::{Duration, Instant};

use tonic::Status;

use crate::retry::RetryPolicy;

/// The settings in which one method, or all methods of a service, differ from the caller. For
/// [`CallerBuilder::method`](super::CallerBuilder::method).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::retry::RetryPolicy;
/// use workcrew::grpc::MethodConfig;
///
/// let reads = MethodConfig::new().idempotent().timeout(Duration::from_secs(2));
/// let writes = MethodConfig::new().retry(RetryPolicy::exponential().max_attempts(1));
/// assert_eq!(format!("{reads:?}").contains("2s"), true);
/// # let _ = writes;
/// ```
#[derive(Clone, Default)]
#[must_use = "a configuration does nothing by itself"]
pub struct MethodConfig {
    /// See [`retry`](Self::retry).
    pub(super) retry: Option<RetryPolicy<Status>>,
    /// See [`timeout`](Self::timeout).
    pub(super) timeout: Option<Duration>,
    /// Whether a call may run twice on the server.
    pub(super) is_idempotent: bool,
    /// Whether calls wait for a connection.
    pub(super) waits_for_ready: bool,
}

impl MethodConfig {
    /// Returns a configuration that does not differ from the caller.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets when a failed attempt is followed by another.
    pub fn retry(mut self, policy: RetryPolicy<Status>) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the time for a call, all attempts and delays together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// States that a call may run twice on the server; see
    /// [`Caller::idempotent`](super::Caller::idempotent).
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Lets calls wait for a connection; see
    /// [`Caller::wait_for_ready`](super::Caller::wait_for_ready).
    pub fn wait_for_ready(mut self) -> Self {
        self.waits_for_ready = true;
        self
    }
}

impl fmt::Debug for MethodConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MethodConfig")
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .field("idempotent", &self.is_idempotent)
            .field("wait_for_ready", &self.waits_for_ready)
            .finish()
    }
}

/// The settings for all methods, and the table of the methods that differ.
pub(super) struct MethodTable {
    pub(super) policy: RetryPolicy<Status>,
    pub(super) timeout: Duration,
    /// Sorted by the length of their names, the longest first, so that a method precedes its
    /// service.
    rows: Vec<(String, MethodConfig)>,
}

impl MethodTable {
    /// Makes the table. If there are two rows for the same name, the later one counts.
    ///
    /// # Errors
    ///
    /// The first name that is neither that of a method nor that of a service.
    pub(super) fn new(
        policy: RetryPolicy<Status>,
        timeout: Duration,
        mut rows: Vec<(String, MethodConfig)>,
    ) -> Result<Self, String> {
        if let Some((bad, _)) = rows.iter().find(|(name, _)| !is_method(name)) {
            return Err(bad.clone());
        }
        rows.reverse();
        rows.sort_by_key(|(name, _)| std::cmp::Reverse(name.len())); // stable
        Ok(Self { policy, timeout, rows })
    }

    /// Returns the row for the method at a path. Searches linearly, because there are few rows.
    pub(super) fn row(&self, path: &str) -> usize {
        let applies = |name: &str| if name.ends_with('/') { path.starts_with(name) } else { path == name };
        self.rows.iter().position(|(name, _)| applies(name)).unwrap_or(self.rows.len())
    }

    /// Returns the settings of a row, if the method has its own.
    pub(super) fn config(&self, row: Option<usize>) -> Option<&MethodConfig> {
        self.rows.get(row?).map(|(_, config)| config)
    }

    /// Returns the settings that apply to a call. The overrides of its caller take precedence over
    /// the row of the method, and that over the settings for all methods. Of two timeouts, the
    /// shorter one counts.
    pub(super) fn settings(&self, row: Option<usize>, caller: &MethodConfig) -> CallSettings {
        let config = self.config(row);
        let policy = caller.retry.as_ref().or(config.and_then(|config| config.retry.as_ref())).unwrap_or(&self.policy);
        let times = caller.timeout.into_iter().chain(config.and_then(|config| config.timeout));
        let timeout = times.min().unwrap_or(self.timeout);
        CallSettings {
            policy: policy.clone().with_timeout_at_most(timeout),
            is_idempotent: caller.is_idempotent || config.is_some_and(|config| config.is_idempotent),
            waits_for_ready: caller.waits_for_ready || config.is_some_and(|config| config.waits_for_ready),
        }
    }
}

/// Returns `true` if the name has the form `/package.Service/Method` or `/package.Service/`.
fn is_method(name: &str) -> bool {
    let mut parts = name.split('/');
    let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"?#*%".contains(c));
    let (before, service, method, after) = (parts.next(), parts.next(), parts.next(), parts.next());
    before == Some("")
        && service.is_some_and(is_word)
        && method.is_some_and(|method| method.is_empty() || is_word(method))
        && after.is_none()
}

/// The settings that apply to one call.
pub(super) struct CallSettings {
    /// The policy. Its timeout is the time for all attempts and delays of the call.
    pub(super) policy: RetryPolicy<Status>,
    /// Whether the call may run twice on the server.
    pub(super) is_idempotent: bool,
    /// Whether the call waits for a connection.
    pub(super) waits_for_ready: bool,
}

impl CallSettings {
    /// Returns when the time for the whole call is over; `None` for never.
    pub(super) fn deadline(&self, started: Instant) -> Option<Instant> {
        let (_, all) = self.policy.times();
        all.and_then(|all| started.checked_add(all))
    }

    /// Returns when an attempt is given up; `None` for never. After the first message of a stream,
    /// only the deadline of the call applies.
    pub(super) fn deadline_of_attempt(&self, started: Instant, begun: Instant, is_delivered: bool) -> Option<Instant> {
        let (one, _) = self.policy.times();
        let own = one.filter(|_| !is_delivered).and_then(|one| begun.checked_add(one));
        own.into_iter().chain(self.deadline(started)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(names: &[&str]) -> Result<MethodTable, String> {
        let rows = names
            .iter()
            .zip(1..)
            .map(|(name, n)| ((*name).into(), MethodConfig::new().timeout(Duration::from_secs(n))));
        MethodTable::new(RetryPolicy::exponential(), Duration::from_secs(99), rows.collect())
    }

    #[test]
    fn a_method_precedes_its_service_and_a_later_row_precedes_an_earlier_one() {
        let methods = methods(&["/a.B/", "/a.B/C", "/a.B/C", "/a.B.C/"]).expect("all are valid");
        let time = |path, own: Option<u64>| {
            let caller = MethodConfig { timeout: own.map(Duration::from_secs), ..MethodConfig::default() };
            methods.settings(Some(methods.row(path)), &caller).policy.times().1.map_or(0, |time| time.as_secs())
        };
        assert_eq!(["/a.B/C", "/a.B/D", "/a.B.C/C", "/a/B", "/a.B/C/"].map(|path| time(path, None)), [3, 1, 4, 99, 1]);
        assert_eq!((time("/a.B/C", Some(2)), time("/a.B/C", Some(7)), time("/x/Y", Some(100))), (2, 3, 100));
    }

    #[test]
    fn a_name_that_is_neither_a_method_nor_a_service_is_refused() {
        for bad in ["", "/", "//", "a.B/C", "/a.B", "/a.B/C/D", "/a.B/*", "/a B/C", "/a.B/C?x"] {
            assert_eq!(methods(&["/ok.Ok/", bad]).err().as_deref(), Some(bad));
        }
    }
}
