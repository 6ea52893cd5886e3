//! The builder of scopes: settings that are made before the body is called.

use std::fmt;
use std::time::{Duration, Instant};

use super::result::ScopeResult;
use super::scope::{self, Scope};
use super::settings::GroupSettings;
use crate::cancel::token::CancellationToken;
use crate::error::GroupError;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// A builder of scopes. Returned by [`WorkerPool::scope_builder`].
///
/// [`run`](Self::run) calls the body. The other methods only store a setting.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
/// let hosts = [String::from("alpha"), String::from("beta")];
/// let scope = pool.scope_builder().limit(2).timeout(Duration::from_secs(30)).label("hosts");
/// let sizes: Result<Vec<_>, _> =
///     scope.run(|scope| scope.map(&hosts, |host| host.len()).collect())?;
/// assert_eq!(sizes?, [5, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing before `run`"]
#[derive(Clone)]
pub struct ScopeBuilder<'pool> {
    pool: &'pool WorkerPool,
    settings: GroupSettings,
    /// The time from the start of the scope to its cancellation.
    timeout: Option<Duration>,
}

impl WorkerPool {
    /// Returns a builder for a [`scope`](Self::scope) with a limit, a deadline, a parent, a
    /// label or a class.
    pub fn scope_builder(&self) -> ScopeBuilder<'_> {
        ScopeBuilder { pool: self, settings: GroupSettings::new(self.inner()), timeout: None }
    }
}

impl ScopeBuilder<'_> {
    /// Sets how many tasks of the scope may run at once; see
    /// [`TaskGroup::limit`](crate::TaskGroup::limit). *Default: as many as there are workers.*
    ///
    /// A task that another task of the scope joins or runs inline does not count, because the other
    /// task waits meanwhile. Zero counts as one.
    pub fn limit(mut self, tasks: usize) -> Self {
        self.settings.limit = tasks;
        self
    }

    /// Sets how many tasks that have not started the scope holds. At that number
    /// [`spawn`](Scope::spawn) blocks. Zero counts as one. *Default: the capacity of the pool's
    /// queue.*
    pub fn capacity(mut self, tasks: usize) -> Self {
        self.settings.capacity = tasks;
        self
    }

    /// Cancels the scope with [`CancelReason::Expired`](crate::CancelReason::Expired) at
    /// `deadline`. If it is set several times, the earliest counts.
    ///
    /// Tasks that have not started never start. Running tasks can see the cancellation in the
    /// [token](Scope::token). The scope waits for them, because a running task is never killed, and
    /// the data that it borrows must outlive it. No thread watches the clock; see
    /// [`TaskGroup::deadline`](crate::TaskGroup::deadline).
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.settings.end_by(Deadline::at(deadline));
        self
    }

    /// Sets a [`deadline`](Self::deadline) that is `timeout` after the scope starts.
    /// `Duration::MAX` means never.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(timeout, |other| other.min(timeout)));
        self
    }

    /// Cancels the scope when `token` is cancelled.
    pub fn parent(mut self, token: &CancellationToken) -> Self {
        self.settings.parent = Some(token.clone());
        self
    }

    /// Names the scope's tasks for observers and [`WorkerPool::running`].
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.settings.label = Some(label.into());
        self
    }

    /// Sets the class of the scope's tasks; see
    /// [`TaskGroup::priority`](crate::TaskGroup::priority). *Default: [`Priority::Normal`].*
    pub fn priority(mut self, priority: Priority) -> Self {
        self.settings.priority = priority;
        self
    }

    /// Calls `body` with a scope of these settings, and otherwise behaves like
    /// [`WorkerPool::scope`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::scope`].
    ///
    /// # Panics
    ///
    /// If `body` panics.
    pub fn run<'env, R, V, F>(mut self, body: F) -> Result<V, GroupError<R::Error>>
    where
        R: ScopeResult,
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env, R>) -> V,
    {
        if let Some(timeout) = self.timeout {
            self.settings.end_by(Deadline::after(timeout));
        }
        scope::run(self.pool.inner(), self.settings, body)
    }
}

impl fmt::Debug for ScopeBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeBuilder")
            .field("limit", &self.settings.limit)
            .field("capacity", &self.settings.capacity)
            .field("deadline", &self.settings.deadline)
            .field("timeout", &self.timeout)
            .field("label", &self.settings.label)
            .field("priority", &self.settings.priority)
            .finish_non_exhaustive()
    }
}
