//! When a connection that broke is made again.

use std::time::Duration;

use crate::nats::check::{self, Checked, InvalidArgument};

/// The settings that say when a broken connection is made again. Set the fields of a default value,
/// and pass it to [`ConnectionBuilder::reconnect`](crate::nats::ConnectionBuilder::reconnect).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconnectSettings {
    /// The pause before the second attempt; it doubles with each attempt. *Default: 100 ms.*
    pub delay: Duration,
    /// The longest pause. *Default: 4 s.*
    pub max_delay: Duration,
    /// How many consecutive attempts are made before the connection is given up for good. Then
    /// every call fails. *Default: no limit.*
    pub max_attempts: Option<usize>,
    /// Uses only the servers that were named, and no others of their cluster. *Default: no.*
    pub ignores_discovered_servers: bool,
    /// Tries the servers in the order in which they were named, not in a random one. *Default: no.*
    pub keeps_order: bool,
}

impl Default for ReconnectSettings {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(4),
            max_attempts: None,
            ignores_discovered_servers: false,
            keeps_order: false,
        }
    }
}

impl ReconnectSettings {
    pub(crate) fn check(&self) -> Checked {
        check::not_zero("reconnect.delay", self.delay)?;
        if self.max_delay < self.delay {
            return Err(InvalidArgument::new("reconnect.max_delay", "it is shorter than reconnect.delay"));
        }
        if self.max_attempts == Some(0) {
            return Err(InvalidArgument::new("reconnect.max_attempts", "it is zero; leave it unset for no limit"));
        }
        Ok(())
    }

    /// Returns the pause before an attempt. The first attempt is made at once.
    pub(crate) fn pause(&self, attempt: usize) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(2)).unwrap_or(u32::MAX).min(20);
        if attempt <= 1 { Duration::ZERO } else { self.delay.saturating_mul(1 << doublings).min(self.max_delay) }
    }
}
