//! The jobs of the drill: good ones, and four bad ones.

use std::time::Duration;

/// The name of the stream.
pub(crate) const QUEUE: &str = "DRILL";
/// The name of the consumer that all workers share.
pub(crate) const CONSUMER: &str = "worker";
/// The subject of every job.
pub(crate) const SUBJECT: &str = "drill.a";
/// The time limit of an answer.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The attempts that the policy allows.
pub(crate) const ATTEMPTS: u32 = 3;
/// How often a job may be begun that ends its process, or whose process is killed: past the
/// policy's attempts it runs alone, three times at most.
pub(crate) const MAX_BEGUN: u32 = ATTEMPTS + 3;
/// After how long a job that does not return is given up.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(2);
/// When the server delivers a job again of which it hears nothing.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(4);
/// How many jobs a worker process has in flight.
pub(crate) const SLOTS: usize = 4;
/// How long a good job takes.
pub(crate) const WORK: Duration = Duration::from_millis(15);
/// How long a drain of a worker may take.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Never returns.
pub(crate) const HANGING: &str = "hanging";
/// Aborts its process.
pub(crate) const ABORTING: &str = "aborting";
/// Fails for good, and its letter does not fit the server's limit.
pub(crate) const OVERSIZED: &str = "oversized";
/// Has a header that no client library reads.
pub(crate) const UNPARSABLE: &str = "unparsable";
/// All bad ones.
pub(crate) const BAD: [&str; 4] = [HANGING, ABORTING, OVERSIZED, UNPARSABLE];

/// The id of a good job.
pub(crate) fn good(number: usize) -> String {
    format!("good-{number}")
}

/// The number of a good job.
pub(crate) fn number(id: &str) -> Option<usize> {
    id.strip_prefix("good-")?.parse().ok()
}
