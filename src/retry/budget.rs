//! A budget of retries that many tasks share.

use std::fmt;

use crate::sync::{Arc, Mutex};

/// The cost of one retry, in the smallest unit of the balance.
const RETRY: u64 = 1_000;
/// The default share of a retry that a success deposits.
const DEFAULT_DEPOSIT_RATIO: f64 = 0.1;

/// A limit on the retries of all tasks of a [`RetryPolicy`](crate::retry::RetryPolicy) together. It
/// keeps retries from overloading a service that fails for all of these tasks.
///
/// The budget starts with a number of retries and never holds more. A retry withdraws one, and a
/// success deposits a [share](Self::deposit_ratio) of one. While the budget holds less than one
/// retry, a failure is final. Clones share one budget, and so do clones of a policy.
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
/// assert_eq!(fails()?.join()?.unwrap_err().reason(), GiveUpReason::Attempts); // two retries
/// assert_eq!(fails()?.join()?.unwrap_err().reason(), GiveUpReason::Budget); // and one
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    /// What is left, in units of which a retry costs [`RETRY`].
    balance: Arc<Mutex<u64>>,
    /// The largest balance.
    max_balance: u64,
    /// The units that a success deposits.
    deposit: u64,
}

impl RetryBudget {
    /// Returns a budget of `retries` retries.
    #[must_use]
    pub fn new(retries: u32) -> Self {
        let max_balance = u64::from(retries) * RETRY;
        Self { balance: Arc::new(Mutex::new(max_balance)), max_balance, deposit: 0 }
            .deposit_ratio(DEFAULT_DEPOSIT_RATIO)
    }

    /// Sets the share of a retry that a success deposits, from 0 to 1 in steps of a thousandth. A
    /// number outside of that range counts as the nearest end of it, and NaN as 0. *Default: 0.1.*
    #[must_use]
    pub fn deposit_ratio(mut self, ratio: f64) -> Self {
        // The cast turns NaN into 0.
        self.deposit = (ratio.clamp(0.0, 1.0) * RETRY as f64).round() as u64;
        self
    }

    /// Returns how many whole retries are left. May be stale when it returns.
    #[must_use]
    pub fn retries_left(&self) -> u32 {
        u32::try_from(*self.balance.lock() / RETRY).unwrap_or(u32::MAX)
    }

    /// Withdraws one retry. Returns `true` if there was one.
    pub(super) fn withdraw(&self) -> bool {
        let mut balance = self.balance.lock();
        let left = balance.checked_sub(RETRY);
        *balance = left.unwrap_or(*balance);
        left.is_some()
    }

    /// Deposits the share of a success.
    pub(super) fn deposit(&self) {
        let mut balance = self.balance.lock();
        *balance = self.max_balance.min(*balance + self.deposit);
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("retries_left", &self.retries_left()).finish_non_exhaustive()
    }
}
