//! Launches calls to one target.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::builder::ErrorHook;
use super::call::Plan;
use super::error::CallError;
use super::target::{self, Target};
use crate::error::{JoinError, Refusal, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::io::{Driver, Fate};
use crate::observe::observer::TaskOutcome;
use crate::pool::submit::WaitMode;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, thread_local};
use crate::task::handle::JoinHandle;
use crate::time::deadline::Deadline;

/// How many errors of `notify` in a row the error hook is told of, each made by the hook itself.
const MOST_HOOKS: u32 = 8;

/// The result of a call.
pub(super) type Called<T> = Result<Response<T>, CallError>;

/// Makes calls to one gRPC target, at most a set number at a time. From [`Caller::builder`] or [`Caller::over`].
///
/// Clones share the connection and the limit. A caller may differ from its clones in [timeout](Self::with_timeout),
/// [retries](Self::with_retry), [metadata](Self::carry), [idempotence](Self::idempotent) and
/// [readiness](Self::wait_for_ready).
///
/// # A call
///
/// Each form takes a closure that makes *one attempt*. It gets a [`Target`], wraps a client around it, and returns the
/// future of the client's method. It is called anew for each attempt, on the I/O thread, and must not block.
///
/// A call is a task of the pool, with one outcome over all attempts. While it is in flight, or waits for the next attempt,
/// it holds one of the caller's slots and no worker, and counts as queued. It outlives the task that made it. It ends by
/// its answer, by its deadline, by [`JoinHandle::cancel`] (which resets the stream), or by `shutdown_now`. The pool's
/// `shutdown` waits for calls in flight, but begins no further attempts. A call that fails counts as failed in the pool's
/// metrics and for its [`Observer`](crate::Observer), whether a thread waits for it or not. A panic is not tried again: it
/// ends the call.
///
/// When all slots are taken the plain forms block until one is free, `try_` refuses, `_timeout` blocks at most that long.
/// On a worker of the pool, and inside a call, no form blocks: the plain ones launch the call, which then waits for its
/// slot without the thread.
///
/// # Streams
///
/// A call is over when its future is ready, and gives its slot back. So a response stream must not outlive the future: a
/// call that would hand one out fails with `FAILED_PRECONDITION`. Read the stream inside the closure, or use
/// [`stream`](Self::stream).
///
/// # Awaiting
///
/// The handle is a future: an async server can `.await` the call. Its own request may be cancelled meanwhile; the call
/// goes on.
///
/// See the [module](super) for an example.
#[derive(Clone)]
pub struct Caller {
    pub(super) driver: Arc<Driver>,
    pub(super) plan: Plan,
    pub(super) on_error: Option<ErrorHook>,
    pub(super) stream_buffer: usize,
}

thread_local! {
    /// How many error hooks in a row have led to what runs on this thread.
    static HOOKS: Cell<u32> = const { Cell::new(0) };
}

/// # Clones that differ
impl Caller {
    /// Returns the same caller with another timeout. If the builder sets one for the [method](super::CallerBuilder::method)
    /// too, the shorter one counts.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.plan.overrides.timeout = Some(timeout);
        self
    }

    /// Returns the same caller with another policy, which also takes the place of those of methods.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy<Status>) -> Self {
        self.plan.overrides.retry = Some(policy);
        self
    }

    /// Returns the same caller for calls that may run twice on the server: `DEADLINE_EXCEEDED` is worth another attempt. (It
    /// cannot be known whether the server has acted on an attempt that ran out of time.)
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.plan.overrides.is_idempotent = true;
        self
    }

    /// Returns the same caller for calls that wait for a connection, until their timeout, instead of failing when there is
    /// none. The time without a connection costs no attempt. Tries to connect again after 20 ms, then after twice as long
    /// each time, up to a second. A wrong certificate or address still ends the call at once.
    #[must_use]
    pub fn wait_for_ready(mut self) -> Self {
        self.plan.overrides.waits_for_ready = true;
        self
    }

    /// Returns the same caller, which sends with each request what `keys` name in `incoming`, in any case and with all
    /// values: trace ids, say, of the request that is being served. What was carried of the same keys before gives way. What
    /// the protocol uses itself (`grpc-…`, `te`, `content-type`, `user-agent`) is not carried. What a request sets by itself
    /// comes first.
    #[must_use]
    pub fn carry(mut self, incoming: &MetadataMap, keys: &[&str]) -> Self {
        target::carry(Arc::make_mut(&mut self.plan.carried), incoming, keys);
        self
    }

    /// Returns how many calls may be in flight.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.driver.max_in_flight()
    }

    /// Returns how many calls are in flight, those between two attempts included. May be stale when it returns. A call that
    /// waits for its slot without a thread is not counted. Nor is one that has ended and whose
    /// [`call_then`](Self::call_then) or error still waits for a worker, though it may still hold up other threads that
    /// call.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.driver.in_flight()
    }
}

/// # Calling
impl Caller {
    /// Makes a call, and returns the handle to wait for the answer. Dropping the handle leaves the call alone; to learn
    /// of its errors then, use [`notify`](Self::notify). May wait for a slot: hold no [lock](crate#may-i-hold-a-lock-while-i-submit)
    /// that the calls take.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is shut down.
    #[track_caller]
    pub fn call<F, Fut, T>(&self, f: F) -> Result<JoinHandle<Called<T>>, SubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.launch(WaitMode::Policy, Location::caller(), f).map_err(|(_, f)| SubmitError::new(f))
    }

    /// Like [`call`](Self::call), but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure: full, if all slots are taken; or the pool is shut down.
    #[track_caller]
    pub fn try_call<F, Fut, T>(&self, f: F) -> Result<JoinHandle<Called<T>>, TrySubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.launch(WaitMode::Never, Location::caller(), f).map_err(|(refusal, f)| TrySubmitError::new(refusal, f))
    }

    /// Like [`call`](Self::call), but blocks at most `timeout` for a slot; `Duration::MAX` means forever. (For the call
    /// itself see [`with_timeout`](Self::with_timeout).)
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if no slot came free in time or the pool is shut down.
    #[track_caller]
    pub fn call_timeout<F, Fut, T>(
        &self,
        f: F,
        timeout: Duration,
    ) -> Result<JoinHandle<Called<T>>, SubmitTimeoutError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let wait_mode = WaitMode::Until(Deadline::after(timeout));
        self.launch(wait_mode, Location::caller(), f).map_err(|(refusal, f)| SubmitTimeoutError::new(refusal, f))
    }

    /// Makes a call and blocks until it has ended. On a worker this holds the worker.
    ///
    /// # Errors
    ///
    /// [`CallError`], also if the pool is shut down, the call panicked or was cancelled. Inside a call it answers
    /// [`JoinError::WouldDeadlock`](crate::JoinError) in [`CallError::join_error`].
    #[track_caller]
    pub fn call_blocking<F, Fut, T>(&self, f: F) -> Called<T>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        if self.driver.io().is_here() {
            return Err(CallError::join(JoinError::WouldDeadlock));
        }
        let call = self.launch(WaitMode::Policy, Location::caller(), f).map_err(|_| CallError::shut_down())?;
        call.join().unwrap_or_else(|error| Err(CallError::join(error)))
    }

    /// Makes a call and hands what it comes to to `then`, which runs on a worker. The value of `then` is that of the handle,
    /// which may be dropped. Until a worker comes to `then`, it counts towards the limit of other threads that call, though not
    /// in [`in_flight`](Self::in_flight). A worker that
    /// joins or polls the handle waits for the answer and runs `then` itself.
    ///
    /// Whatever `then` makes of an error, the task counts as succeeded: it has been told. If the call is cancelled, `then`
    /// is dropped.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with both closures, if the pool is shut down.
    #[track_caller]
    pub fn call_then<F, Fut, T, C, U>(&self, f: F, then: C) -> Result<JoinHandle<U>, SubmitError<(F, C)>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
        C: FnOnce(Called<T>) -> U + Send + 'static,
        U: Send + 'static,
    {
        let plan = self.plan.clone();
        let make = |(f, then)| {
            let fate = Fate { f: then, on_worker: Some(|_: &_| true), outcome_of: |_: &_| TaskOutcome::Succeeded };
            (plan.run(f), fate)
        };
        self.driver
            .launch(WaitMode::Policy, Location::caller(), (f, then), make)
            .map_err(|(_, both)| SubmitError::new(both))
    }

    /// Makes a call and waits for no answer. An error goes to [`on_error`](super::CallerBuilder::on_error), on a worker, and to the
    /// pool's observer as a task that failed.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is shut down.
    #[track_caller]
    pub fn notify<F, Fut, T>(&self, f: F) -> Result<(), SubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.launch_unheard(WaitMode::Policy, Location::caller(), f).map_err(|(_, f)| SubmitError::new(f))
    }

    /// Like [`notify`](Self::notify), but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure: full, if all slots are taken; or the pool is shut down.
    #[track_caller]
    pub fn try_notify<F, Fut, T>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.launch_unheard(WaitMode::Never, Location::caller(), f)
            .map_err(|(refusal, f)| TrySubmitError::new(refusal, f))
    }

    fn launch<F, Fut, T>(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        f: F,
    ) -> Result<JoinHandle<Called<T>>, (Refusal, F)>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let plan = self.plan.clone();
        let make = |f| {
            let unchanged: fn(Called<T>) -> Called<T> = |called| called;
            let outcome_of: fn(&Called<T>) -> TaskOutcome =
                |called| if called.is_ok() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            (plan.run(f), Fate { f: unchanged, on_worker: None, outcome_of })
        };
        self.driver.launch(wait_mode, location, f, make)
    }

    fn launch_unheard<F, Fut, T>(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        f: F,
    ) -> Result<(), (Refusal, F)>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let (plan, on_error, hooks) = (self.plan.clone(), self.on_error.clone(), HOOKS.get());
        let make = |f| {
            let tell = move |called: Called<T>| {
                let error = called.err()?;
                if let Some(on_error) = on_error
                    && hooks < MOST_HOOKS
                {
                    let _depth = Depth(HOOKS.replace(hooks + 1));
                    on_error(error);
                }
                Some(())
            };
            let outcome_of: fn(&Option<()>) -> TaskOutcome =
                |failed| if failed.is_none() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            (plan.run(f), Fate { f: tell, on_worker: Some(Called::<T>::is_err as _), outcome_of })
        };
        self.driver.launch(wait_mode, location, f, make).map(drop)
    }
}

/// Puts back, after a panic too, how many hooks there were before.
struct Depth(u32);

impl Drop for Depth {
    fn drop(&mut self) {
        HOOKS.set(self.0);
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for Caller {}
impl RefUnwindSafe for Caller {}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("driver", &self.driver)
            .field("timeout", &self.plan.timeout())
            .finish_non_exhaustive()
    }
}
