//! Scopes: groups whose tasks may borrow from the caller's stack.
//!
//! This module has one unsafe step: a closure that lives for `'scope` is put into a group as if it
//! were `'static`. Four rules make that sound:
//!
//! 1. [`WorkerPool::scope`] does not return, by value or by unwinding, before the group reports all
//!    tasks done.
//! 2. A group counts a task as done when nothing of its closure is left, called or uncalled (rule 5
//!    of `group::state`).
//! 3. Tasks are added through a [`Scope`] only. User code never gets it by value, and the reference
//!    to it lives for `'scope`. So it is used by the body, or by a task of the scope, which is not
//!    done while it runs.
//! 4. The return value of a task and the payload of its panic are `'static`: outcomes borrow
//!    nothing. A value that borrows goes to the handle of its task through a cell. The closure owns
//!    its reference to the cell, and rule 2 ends it; the handle's type lives for `'scope` at most.
//!
//! Soundness depends on no destructor of this module, so leaking a value is harmless.
//!
//! `map` and `spawn_value` exist twice: for scopes whose tasks return `()`, and for those whose
//! tasks return a `Result`. The second has a reference to the usual receiver as its receiver, so
//! the compiler tries it last. While it does not yet know what tasks return, it takes the first,
//! and infers `()`. One method for both would leave that open, and a body that only maps would need
//! type annotations.

use std::fmt;
use std::marker::PhantomData;
#[cfg(feature = "retry")]
use std::mem;
use std::panic::Location;
use std::process;

use super::{Body, GroupInner, GroupSettings, ScopeResult, TaskResult, WaitResult};
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, Cycle, GroupError, Refusal, Refuser, TrySubmitError};
use crate::nesting;
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;
use crate::task::closure::Closure;
use crate::task::context;
use crate::task::waits::Kind;
use crate::time::deadline::Deadline;
use crate::unwind;
#[cfg(feature = "retry")]
use crate::{
    group::{Attempts, RepeatedBody},
    timer::thread::Reservation,
};

/// A scope in which tasks may borrow from the caller's stack. Passed to the body of
/// [`WorkerPool::scope`].
///
/// - `'scope` is the time during which the tasks may run.
/// - `'env` is the lifetime of the data that they borrow.
/// - `R` is the type that they return: `()`, or `Result<(), E>` with an `E` that borrows nothing.
///   The compiler infers it from the first spawn. *Default in a type: `()`*, so a body that spawns
///   nothing can be written `|_: &Scope| ..`.
///
/// A scope may also have tasks with values, which go to their handles or to an iterator; see
/// [`spawn_value`](Self::spawn_value) and [`map`](Self::map). If one of these calls comes before
/// the first spawn, the compiler infers `()`. For tasks that fail, spawn one of them first, or name
/// the type: `|scope: &Scope<'_, '_, Result<(), io::Error>>| ..`.
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
/// fn check<'scope>(
///     scope: &'scope Scope<'scope, '_, Checked>,
///     words: &'scope [String],
///     seen: &'scope AtomicUsize,
/// ) {
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
// `R: 'env` always holds, since `R` is `'static`. It is written for the borrow checker. Without it,
// a region in `R`, as in `&'static str`, would be a second candidate for the region that outlives
// `'scope`, and the borrow checker would require borrows in the body to be `'static`.
pub struct Scope<'scope, 'env: 'scope, R: ScopeResult + 'env = ()> {
    /// The group of the scope's tasks.
    inner: Arc<GroupInner<R>>,
    /// Makes `'scope` invariant: it must neither shrink nor grow.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Makes `'env` invariant.
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope, R: ScopeResult> Scope<'scope, '_, R> {
    /// Adds a task that may borrow data that outlives the scope. Tasks may spawn on the scope as
    /// well.
    ///
    /// Blocks while the scope is at [capacity](crate::ScopeBuilder::capacity): by default, while it
    /// holds as many unstarted tasks as the pool's queue can hold. A worker of the pool makes room
    /// instead, as in [`TaskGroup::spawn`](crate::TaskGroup::spawn). After a cancellation the
    /// closure is dropped unrun.
    ///
    /// This method may block or run tasks inline: hold no [lock](crate#locks-and-submissions) that
    /// tasks take.
    #[track_caller]
    pub fn spawn<F>(&'scope self, f: F)
    where
        F: FnOnce() -> R + Send + 'scope,
    {
        let added = self.add((f, Room::Await), |f, _| f, Location::caller());
        debug_assert!(added.is_ok(), "a scope refuses no task that waits for room");
    }

    /// Adds a task if there is room now. Never blocks, and never runs a task inline.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure: `Full` if the scope is at
    /// [capacity](crate::ScopeBuilder::capacity), `ShutDown` if the scope is cancelled or the pool
    /// is shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).queue_capacity(1).build()?;
    /// let words = ["red", "wheel", "barrow"];
    /// pool.scope(|scope| {
    ///     for word in &words {
    ///         if let Err(full) = scope.try_spawn(move || println!("{word}")) {
    ///             full.into_inner()(); // print it here
    ///         }
    ///     }
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_spawn<F>(&'scope self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce() -> R + Send + 'scope,
    {
        let added = self.add((f, Room::Require), |f, _| f, Location::caller());
        added.map_err(TrySubmitError::by(Refuser::Scope))
    }

    /// Adds the task whose closure `make` returns for `source` and the task's index. Calls `make`
    /// once, unless the task is refused.
    #[inline]
    pub(super) fn add<S, F>(
        &'scope self,
        (source, room): (S, Room),
        make: impl FnOnce(S, usize) -> F,
        location: &'static Location<'static>,
    ) -> Result<(), (Refusal, S)>
    where
        F: FnOnce() -> R + Send + 'scope,
    {
        // SAFETY: the closure is called or dropped before `'scope` ends: by the rules 1 and 2 of
        // the module `scope` cannot return before that, and by rule 3 nothing is added later.
        #[allow(unsafe_code, reason = "the lifetime of a borrowing closure is forgotten; the rules above keep it")]
        let make_body = |source, index| Body::Once(unsafe { Closure::new(make(source, index)).erase_lifetime() });
        match room {
            Room::Await => {
                let _ = self.inner.spawn(|index| make_body(source, index), location);
                Ok(())
            }
            Room::Require => self.inner.try_spawn(source, make_body, location),
        }
    }

    /// Adds a task that makes attempts.
    #[cfg(feature = "retry")]
    pub(crate) fn add_repeated(
        &'scope self,
        attempts: Box<dyn Attempts<R> + 'scope>,
        reservation: Reservation,
        location: &'static Location<'static>,
    ) {
        // SAFETY: as in `add`. A body that makes attempts is dropped before its task is done (rule
        // 2).
        #[allow(unsafe_code, reason = "the lifetime of a borrowing closure is forgotten; the rules above keep it")]
        let attempts = unsafe { mem::transmute::<Box<dyn Attempts<R> + 'scope>, Box<dyn Attempts<R>>>(attempts) };
        let body = RepeatedBody { attempts, reservation: Box::new(reservation) };
        let _ = self.inner.spawn(|_| Body::Repeated(body), location);
    }

    /// Returns the group of the scope's tasks.
    pub(crate) fn group(&self) -> &Arc<GroupInner<R>> {
        &self.inner
    }

    /// Returns the token that is cancelled with the scope, for tasks to check. Cancelling the token
    /// cancels the scope.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.inner.token()
    }

    /// Cancels the tasks that have not started. Running tasks can see the cancellation in the
    /// token.
    pub fn cancel(&self) {
        self.inner.close(CancelReason::Requested);
    }
}

/// Whether a task that is added waits for room.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// It waits, or the worker makes room.
    Await,
    /// It is refused if there is none now.
    Require,
}

impl<R: ScopeResult> fmt::Debug for Scope<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("progress", &self.inner.progress()).finish()
    }
}

/// # Scopes
impl WorkerPool {
    /// Calls `body` on this thread with a [`Scope`], and returns its value when all tasks of the
    /// scope have ended. The tasks run on the pool's workers and may borrow from this thread's
    /// stack.
    ///
    /// The first failure or panic of a task cancels the rest, as in a [group](crate::TaskGroup).
    /// The return value of `body` cancels nothing, even if it is an `Err`. Tasks return values
    /// through the data that they borrow, through the [handles](crate::ScopedHandle) of
    /// [`spawn_value`](Scope::spawn_value), or through [`map`](Scope::map).
    ///
    /// "Type annotations needed for `&Scope`" has one of two causes:
    /// - The body calls no method from which the compiler infers what tasks return. Write the type
    ///   of its argument, as in `|_: &Scope| ..`.
    /// - Tasks use `?`, and no task says which error it returns. Name it once, as in
    ///   `Ok::<(), std::io::Error>(())`.
    ///
    /// [`scope_builder`](Self::scope_builder) sets a limit, a deadline or a label.
    ///
    /// A worker of the pool runs tasks of the scope while it waits.
    ///
    /// # Errors
    ///
    /// The first failure or panic of a task, or [`GroupError::Cancelled`] if tasks were cancelled.
    /// In two cases the body is not called:
    /// - [`GroupError::Cancelled`], if the pool is shut down.
    /// - [`GroupError::WouldDeadlock`], if tasks are nested more than 64 deep on this worker.
    ///
    /// # Panics
    ///
    /// If `body` panics. The tasks that have not started are cancelled, and the panic is resumed
    /// when all tasks have ended.
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
        R: ScopeResult,
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env, R>) -> V,
    {
        run(self.inner(), GroupSettings::new(self.inner()), body)
    }
}

/// Calls `body` with a scope of these settings; see [`WorkerPool::scope`].
pub(super) fn run<'env, R, V, F>(
    pool: &Arc<PoolInner>,
    settings: GroupSettings,
    body: F,
) -> Result<V, GroupError<R::Error>>
where
    R: ScopeResult,
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env, R>) -> V,
{
    // The token rather than the task tracker, whose cache line each task writes.
    if pool.shutdown_token.is_cancelled() {
        return Err(GroupError::Cancelled(CancelReason::ShutDown));
    }
    // The wait for the end of the scope must not be refused.
    let is_too_deep = context::depth() >= context::MAX_HELP_DEPTH && context::is_worker_of(pool.id());
    if is_too_deep || !nesting::may_wait() {
        return Err(GroupError::WouldDeadlock(Cycle::default()));
    }
    let inner = GroupInner::new(Arc::clone(pool), settings);
    let scope = Scope { inner, scope: PhantomData, env: PhantomData };
    let value = unwind::catch(|| body(&scope));
    let inner = &scope.inner;
    let waited = wait_or_abort(inner, value.is_err());
    match value {
        Ok(value) => waited.map(|_| value),
        Err(payload) => {
            // Before unwinding is resumed, because a panic in a destructor would then abort the
            // process.
            unwind::discard(waited);
            unwind::resume(payload)
        }
    }
}

/// Waits until all tasks are done. Cancels the tasks that have not started if the body panicked. If
/// the wait fails, the process is aborted, because borrows would escape.
fn wait_or_abort<R: TaskResult>(inner: &Arc<GroupInner<R>>, body_panicked: bool) -> WaitResult<R> {
    let waited = unwind::catch(|| {
        if body_panicked {
            inner.close(CancelReason::Requested);
        }
        inner.wait_values(Deadline::NEVER, Kind::Unrefusable)
    });
    let Ok(Ok(Some(result))) = waited else {
        eprintln!("workcrew: the wait for a scope failed; this is a bug in workcrew");
        process::abort();
    };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_groups_are_not_registered() {
        let pool = WorkerPool::builder().workers(1).build().expect("the pool starts");
        let group = pool.group::<()>();
        group.spawn(|| ());
        assert_eq!(pool.inner().groups.len(), 1);
        group.wait().expect("no task fails");
        pool.scope(|scope| scope.spawn(|| ())).expect("no task fails");
        let inner = Arc::clone(pool.inner());
        drop(pool); // and with it the references that its worker held
        assert_eq!(inner.groups.len(), 0);
    }

    #[test]
    fn a_scope_leaves_no_ticket_behind() {
        let pool = WorkerPool::builder().workers(1).build().expect("the pool starts");
        let mut left = usize::MAX;
        let outer = pool.scope(|outer| {
            outer.spawn(|| {
                // The only worker runs this task, and runs both inner tasks while it waits.
                let inner = pool.scope(|inner| (0..2).for_each(|_| inner.spawn(|| ())));
                inner.expect("no task fails");
                left = pool.inner().queued();
            });
        });
        outer.expect("no task fails");
        assert_eq!(left, 0);
    }
}
