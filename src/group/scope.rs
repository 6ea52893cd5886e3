//! Scopes: groups whose tasks may borrow from the caller's stack.
//!
//! The one unsafe step of the crate is here: a closure that lives for `'scope` is put into a group as if it lived for
//! ever. What makes it sound:
//!
//! 1. [`WorkerPool::scope`] does not return, by value or by unwinding, before the group reports all tasks done.
//! 2. A group counts a task as done when nothing of its closure is left, called or uncalled (rule 5 of `group::core`).
//! 3. Tasks are added through a [`Scope`] only. It is never handed out by value, and the reference to it lives for
//!    `'scope`: it is used by the body, or by a task of the scope, which is not done while it runs.
//! 4. What a task returns, and what its panic carries, is `'static`: outcomes borrow nothing.
//!
//! No value of this module has a destructor that soundness depends on, so leaking one harms nothing.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::process;

use super::{GroupInner, GroupSettings, TaskResult, Values};
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, GroupError};
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;
use crate::task::closure::Closure;
use crate::task::context;
use crate::task::waits::Kind;
use crate::time::deadline::Deadline;
use crate::unwind;

/// Spawns tasks that borrow, within [`WorkerPool::scope`].
/// `'scope` is how long the tasks may run, `'env` how long what they borrow lives, `R` what they return: `()` or
/// `Result<(), E>` with an `E` that borrows nothing.
///
/// # Examples
///
/// Tasks that fail, that spawn on the scope, and that are spawned by a function:
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use workcrew::{GroupError, Scope, WorkerPool};
///
/// type Checked = Result<(), String>;
///
/// fn check<'scope>(scope: &'scope Scope<'scope, '_, Checked>, words: &'scope [String], seen: &'scope AtomicUsize) {
///     for word in words {
///         scope.spawn(move || {
///             seen.fetch_add(1, Ordering::Relaxed);
///             if word.is_empty() { Err(String::from("an empty word")) } else { Ok(()) }
///         });
///     }
/// }
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let words = [String::from("red"), String::from("wheel"), String::new()];
/// let seen = AtomicUsize::new(0);
/// pool.scope(|scope| {
///     scope.spawn(|| {
///         check(scope, &words[..2], &seen); // a task spawns more tasks
///         Ok(())
///     });
/// })?;
/// assert_eq!(seen.load(Ordering::Relaxed), 2);
/// assert!(matches!(pool.scope(|scope| check(scope, &words, &seen)), Err(GroupError::Failed(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// `R: 'env` always holds, since `R` is `'static`. It is written for the borrow checker: a region in `R`, as in
// `&'static str`, would else be a second candidate for what outlives `'scope`, and borrows in the body would be taken
// for `'static`.
pub struct Scope<'scope, 'env: 'scope, R: TaskResult<Value = ()> + 'env> {
    core: Arc<GroupInner<R>>,
    /// Makes `'scope` invariant: it must neither shrink nor grow.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Makes `'env` invariant.
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope, R: TaskResult<Value = ()>> Scope<'scope, '_, R> {
    /// Adds a task that may borrow what lives longer than the scope. Tasks may spawn on the scope as well.
    ///
    /// Blocks while as many tasks wait as the pool's queue can hold; never on a worker of the pool (see
    /// [`TaskGroup::spawn`](crate::TaskGroup::spawn)). After a cancellation the closure is dropped unrun.
    ///
    /// May wait or run tasks in place: hold no [lock](crate#may-i-hold-a-lock-while-i-submit) that tasks take.
    #[track_caller]
    pub fn spawn<F>(&'scope self, f: F)
    where
        F: FnOnce() -> R + Send + 'scope,
    {
        // SAFETY: the closure is called or dropped before `'scope` ends: by the rules 1 and 2 of the module `scope` cannot
        // return before that, and by rule 3 nothing is added later.
        #[allow(unsafe_code, reason = "the lifetime of a borrowing closure is forgotten; the rules above keep it")]
        let make_body = || unsafe { Closure::new(f).erase_lifetime() };
        let _ = self.core.add(make_body, Location::caller());
    }

    /// The token that is cancelled with the scope, for tasks to look at; cancelling it cancels the scope.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.core.token()
    }

    /// Cancels the tasks that have not started; running ones can see it in the token.
    pub fn cancel(&self) {
        self.core.close(CancelReason::Requested);
    }
}

impl<R: TaskResult<Value = ()>> fmt::Debug for Scope<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("progress", &self.core.progress()).finish()
    }
}

/// # Scopes
impl WorkerPool {
    /// Calls `body` on this thread with a [`Scope`], whose tasks run on the pool's workers and may borrow from this
    /// thread's stack, and returns its value when all tasks have ended.
    /// The first failure or panic of a task cancels the rest, as in a [group](crate::TaskGroup); what `body` returns,
    /// an `Err` included, cancels nothing. Values of tasks go through what they borrow. A body that spawns nothing
    /// leaves the type of the tasks open: `scope::<(), _, _>`. On a worker of the pool this helps while it waits.
    ///
    /// # Errors
    ///
    /// The first failure or panic of a task, or that tasks were cancelled. If the pool is shut down
    /// ([`GroupError::Cancelled`]), or tasks are nested more than 64 deep on this worker
    /// ([`GroupError::WouldDeadlock`]), the body is not called.
    ///
    /// # Panics
    ///
    /// If `body` panics: what has not started is cancelled, and the panic goes on when all tasks have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let text = String::from("so much depends upon a red wheel barrow");
    /// let mut lengths = [0; 8];
    /// pool.scope(|scope| {
    ///     for (length, word) in lengths.iter_mut().zip(text.split(' ')) {
    ///         scope.spawn(move || *length = word.len());
    ///     }
    /// })?;
    /// assert_eq!(lengths, [2, 4, 7, 4, 1, 3, 5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Tasks cannot outlive what they borrow:
    ///
    /// ```compile_fail,E0373
    /// let pool = workcrew::WorkerPool::new().unwrap();
    /// pool.scope(|scope| {
    ///     let inside = 1; // dropped when the body returns, before the tasks have ended
    ///     scope.spawn(|| assert_eq!(inside, 1));
    /// });
    /// ```
    pub fn scope<'env, R, V, F>(&self, body: F) -> Result<V, GroupError<R::Error>>
    where
        R: TaskResult<Value = ()>,
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env, R>) -> V,
    {
        let engine = self.inner();
        // Not the books: they change with each task.
        if engine.shutdown_token.is_cancelled() {
            return Err(GroupError::Cancelled(CancelReason::ShutDown));
        }
        if context::depth() >= context::MAX_HELP_DEPTH && context::is_worker_of(engine.id()) {
            return Err(GroupError::WouldDeadlock);
        }
        let core = GroupInner::new(Arc::clone(engine), GroupSettings::new(engine));
        let scope = Scope { core, scope: PhantomData, env: PhantomData };
        let value = unwind::catch(|| body(&scope));
        let core = &scope.core;
        let ended = wait_or_abort(core, value.is_err());
        match value {
            Ok(value) => ended.map(|_| value),
            Err(payload) => {
                // Before the unwinding goes on: a panic in a destructor would then end the process.
                unwind::discard(ended);
                core.discard_outcomes();
                unwind::resume(payload)
            }
        }
    }
}

/// Waits until nothing of any task is left, after cancelling what has not started if the body panicked. If that failed,
/// borrows would escape: then the process ends here.
fn wait_or_abort<R: TaskResult>(core: &Arc<GroupInner<R>>, body_panicked: bool) -> Values<R> {
    let waited = unwind::catch(|| {
        if body_panicked {
            core.close(CancelReason::Requested);
        }
        core.wait_values(Deadline::NEVER, Kind::Unrefusable)
    });
    let Ok(Ok(Some(ended))) = waited else {
        eprintln!("workcrew: the wait for a scope failed; this is a bug in workcrew");
        process::abort();
    };
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_gone_have_no_seats() {
        let pool = WorkerPool::builder().workers(1).build().expect("the pool starts");
        let group = pool.group::<()>();
        group.spawn(|| ());
        assert_eq!(pool.inner().groups.len(), 1);
        group.wait().expect("no task fails");
        pool.scope(|scope| scope.spawn(|| ())).expect("no task fails");
        let engine = Arc::clone(pool.inner());
        drop(pool); // And with it what its worker held.
        assert_eq!(engine.groups.len(), 0);
    }

    #[test]
    fn a_scope_leaves_no_ticket_behind() {
        let pool = WorkerPool::builder().workers(1).build().expect("the pool starts");
        let mut left = usize::MAX;
        let outer = pool.scope(|outer| {
            outer.spawn(|| {
                // The only worker is here, and runs both tasks while it waits.
                let inner = pool.scope(|inner| (0..2).for_each(|_| inner.spawn(|| ())));
                inner.expect("no task fails");
                left = pool.inner().queued();
            });
        });
        outer.expect("no task fails");
        assert_eq!(left, 0);
    }
}
