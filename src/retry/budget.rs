//! How much trying again is worth, over many tasks.

use std::fmt;

use crate::sync::{Arc, Mutex};

/// What one retry costs, in the smallest unit of the account.
const RETRY: u64 = 1_000;
/// What a success earns unless told otherwise: a tenth of a retry.
const DEFAULT_SHARE: f64 = 0.1;

/// Limits how often the tasks of a [`RetryPolicy`](crate::retry::RetryPolicy) are tried again, all together: when what they call
/// is down for all of them, trying again makes it worse.
///
/// The budget starts with a number of retries and never holds more. A retry takes one out, a success puts a share of one
/// back, a tenth unless [told](Self::earn) otherwise. While it is empty, a failure is final. Clones share one budget, and so
/// do clones of a policy.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::WorkerPool;
/// use workcrew::retry::{GiveUpReason, RetryBudget, RetryPolicy};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let policy = RetryPolicy::fixed(Duration::ZERO).budget(RetryBudget::new(3));
/// let fails = || pool.spawn_with_retry(policy.clone().max_attempts(3), |_| Err::<(), _>("down"));
/// assert_eq!(fails()?.join()?.unwrap_err().reason(), GiveUp::Attempts); // two retries
/// assert_eq!(fails()?.join()?.unwrap_err().reason(), GiveUp::Budget); // and one
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    account: Arc<Mutex<u64>>,
    /// The most the account holds.
    limit: u64,
    /// What a success puts in.
    share: u64,
}

impl RetryBudget {
    /// A budget of so many retries.
    #[must_use]
    pub fn new(retries: u32) -> Self {
        let limit = u64::from(retries) * RETRY;
        Self { account: Arc::new(Mutex::new(limit)), limit, share: 0 }.deposit_ratio(DEFAULT_SHARE)
    }

    /// What a success puts back, as a share of a retry; from 0 to 1, in steps of a thousandth. What lies outside, or is
    /// not a number, counts as the nearest, or as 0.
    #[must_use]
    pub fn deposit_ratio(mut self, share: f64) -> Self {
        // A cast makes 0 of what is not a number.
        self.share = (share.clamp(0.0, 1.0) * RETRY as f64).round() as u64;
        self
    }

    /// How many whole retries are left; out of date when it arrives.
    #[must_use]
    pub fn retries_left(&self) -> u32 {
        u32::try_from(*self.account.lock() / RETRY).unwrap_or(u32::MAX)
    }

    /// Takes one retry out, if there is one.
    pub(super) fn withdraw(&self) -> bool {
        let mut account = self.account.lock();
        let left = account.checked_sub(RETRY);
        *account = left.unwrap_or(*account);
        left.is_some()
    }

    /// Puts the share of a success in.
    pub(super) fn deposit(&self) {
        let mut account = self.account.lock();
        *account = self.limit.min(*account + self.share);
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("retries_left", &self.retries_left()).finish_non_exhaustive()
    }
}
