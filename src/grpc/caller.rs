//! A caller, which makes calls to one target.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::call::CallConfig;
use super::error::CallError;
use super::target::{self, Target};
use crate::error::{Cycle, JoinError, Refusal, Refuser, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::io::{Driver, OnOutput};
use crate::observe::task_info::TaskOutcome;
use crate::pool::submit::WaitMode;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, thread_local};
use crate::task::handle::JoinHandle;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A hook that is called with errors that no thread waits for. User code.
pub(super) type ErrorHook = Arc<dyn Fn(CallError) + Send + Sync>;

/// How many errors in a row the error hook is called with, if the hook itself made each of those
/// calls by `notify`.
const MAX_HOOK_DEPTH: u32 = 8;

/// The result of a call.
pub(super) type CallResult<T> = Result<Response<T>, CallError>;

/// A caller of one gRPC target, with a limit of calls in flight. Built by [`Caller::builder`] and
/// [`Caller::over`].
///
/// Clones share the connection and the limit. A caller may differ from its clones in
/// [timeout](Self::with_timeout), [retries](Self::with_retry), [metadata](Self::propagate),
/// [idempotence](Self::idempotent) and [readiness](Self::wait_for_ready).
///
/// # A call
///
/// Each method takes a closure that makes *one attempt*. The closure gets a [`Target`], wraps a
/// client around it, and returns the future of the client's method. It is called for each attempt,
/// on the I/O thread, and must not block.
///
/// A call is a task of the pool, with one outcome over all attempts. While it is in flight, or
/// waits for the next attempt, it holds one of the caller's slots and no worker, and counts as
/// queued. It may outlive the task that made it. It ends by its response, by its deadline, by
/// [`JoinHandle::cancel`] (which resets the stream), or by `shutdown_now`. The pool's `shutdown`
/// waits for calls in flight, but no further attempts begin.
///
/// A call that fails counts as failed in the pool's metrics and for its
/// [`Observer`](crate::Observer), even if no thread waits for it. A panic is not retried: it ends
/// the call.
///
/// If all slots are taken, the plain methods block until one is free, `try_` methods return an
/// error at once, and [`try_call_for`](Self::try_call_for) blocks for at most its timeout. On a
/// worker of the pool, and inside a call, no method blocks. There the plain methods make the call
/// at once, and it waits for its slot on the I/O thread.
///
/// # Streams
///
/// A call ends when its future is ready, and then releases its slot. So a response stream must not
/// outlive the future: a call that returns an open stream fails with `FAILED_PRECONDITION`. Read
/// the stream inside the closure, or use [`stream`](Self::stream).
///
/// # Awaiting
///
/// The handle is a future, so an async server can `.await` the call. If the server's own request is
/// cancelled meanwhile, the call continues.
///
/// See the [module](super) for an example.
#[derive(Clone)]
pub struct Caller {
    /// Runs the calls, and has the slots.
    pub(super) driver: Arc<Driver>,
    /// The configuration of the calls.
    pub(super) config: CallConfig,
    /// Called with the errors of `notify`.
    pub(super) on_error: Option<ErrorHook>,
    /// How many messages of a stream are read ahead.
    pub(super) stream_buffer: usize,
}

thread_local! {
    /// How many error hooks in a row have led to the code that runs on this thread.
    static HOOK_DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// # Clones that differ
impl Caller {
    /// Returns the same caller with another timeout. If the [method](super::CallerBuilder::method)
    /// has its own timeout, the shorter one counts.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.config.overrides.timeout = Some(timeout);
        self
    }

    /// Returns the same caller with another policy, which also replaces those of methods.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy<Status>) -> Self {
        self.config.overrides.retry = Some(policy);
        self
    }

    /// Returns the same caller for calls that may run twice on the server. Then `DEADLINE_EXCEEDED`
    /// is retried, although the server may have acted on the attempt.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.config.overrides.is_idempotent = true;
        self
    }

    /// Returns the same caller for calls that wait for a connection, until their timeout, instead
    /// of failing without one. The time without a connection does not count as an attempt. A call
    /// tries to connect again after 20 ms, and doubles the delay each time up to one second. A
    /// wrong certificate or address still ends the call at once.
    #[must_use]
    pub fn wait_for_ready(mut self) -> Self {
        self.config.overrides.waits_for_ready = true;
        self
    }

    /// Returns the same caller, which adds the entries of `incoming` that `keys` name to each
    /// request. For example, it propagates the trace ids of the request that is being served.
    ///
    /// Keys match in any case, and all their values are sent. They replace values that were
    /// propagated for the same key before. Keys that the protocol reserves (`grpc-…`, `te`,
    /// `content-type`, `user-agent`) are not propagated. A value that a request sets itself takes
    /// precedence.
    #[must_use]
    pub fn propagate(mut self, incoming: &MetadataMap, keys: &[&str]) -> Self {
        target::propagate(Arc::make_mut(&mut self.config.propagated), incoming, keys);
        self
    }

    /// Returns how many calls may be in flight.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.driver.max_in_flight()
    }

    /// Returns how many calls are in flight, including those between two attempts. May be stale
    /// when it returns.
    ///
    /// A call that waits for its slot on the I/O thread is not counted. Nor is a call that has
    /// ended and whose [`call_then`](Self::call_then) closure or error waits for a worker, though
    /// it may still block other threads that call.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.driver.in_flight()
    }
}

/// # Calling
impl Caller {
    /// Makes a call, and returns a handle to wait for the response. Dropping the handle does not
    /// affect the call; to learn of errors without a handle, use [`notify`](Self::notify).
    ///
    /// May block until there is a slot: hold no [lock](crate#locks-and-submissions) that
    /// the calls take.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is shut down.
    #[track_caller]
    pub fn call<F, Fut, T>(&self, f: F) -> Result<JoinHandle<CallResult<T>>, SubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_call(WaitMode::Policy, Location::caller(), f).map_err(SubmitError::by(Refuser::Caller))
    }

    /// Makes a call as [`call`](Self::call) does, but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if all slots are taken or the pool is shut down.
    #[track_caller]
    pub fn try_call<F, Fut, T>(&self, f: F) -> Result<JoinHandle<CallResult<T>>, TrySubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_call(WaitMode::Never, Location::caller(), f).map_err(TrySubmitError::by(Refuser::Caller))
    }

    /// Makes a call as [`call`](Self::call) does, but blocks for at most `timeout` until there is a
    /// slot. `Duration::MAX` means forever. (For the time of the call itself, see
    /// [`with_timeout`](Self::with_timeout).)
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if no slot became free in time or the pool is shut
    /// down.
    #[track_caller]
    pub fn try_call_for<F, Fut, T>(
        &self,
        timeout: Duration,
        f: F,
    ) -> Result<JoinHandle<CallResult<T>>, SubmitTimeoutError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let wait_mode = WaitMode::Until(Deadline::after(timeout));
        self.spawn_call(wait_mode, Location::caller(), f).map_err(SubmitTimeoutError::by(Refuser::Caller))
    }

    /// Makes a call and blocks until it has ended. On a worker this holds the worker.
    ///
    /// # Errors
    ///
    /// [`CallError`], also if the pool is shut down, or the call panicked or was cancelled. Inside
    /// a call it returns [`JoinError::WouldDeadlock`](crate::JoinError) in
    /// [`CallError::join_error`].
    #[track_caller]
    pub fn call_blocking<F, Fut, T>(&self, f: F) -> CallResult<T>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        if self.driver.io().is_here() {
            return Err(CallError::join(JoinError::WouldDeadlock(Cycle::default())));
        }
        let call = self.spawn_call(WaitMode::Policy, Location::caller(), f).map_err(|_| CallError::shut_down())?;
        call.join().unwrap_or_else(|error| Err(CallError::join(error)))
    }

    /// Makes a call, and then calls `then` with its result on a worker. The value of `then` is that
    /// of the handle, which may be dropped.
    ///
    /// Until a worker runs `then`, the call counts towards the limit for other threads that call,
    /// though not in [`in_flight`](Self::in_flight). A worker that joins or polls the handle waits
    /// for the response and runs `then` itself.
    ///
    /// If the call fails, the task still counts as succeeded, because `then` has received the
    /// error. If the call is cancelled, `then` is dropped.
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
        C: FnOnce(CallResult<T>) -> U + Send + 'static,
        U: Send + 'static,
    {
        let config = self.config.clone();
        let make = |(f, then)| {
            let on_output =
                OnOutput { f: then, on_worker: Some(|_: &_| true), outcome_of: |_: &_| TaskOutcome::Succeeded };
            (config.run(f), on_output)
        };
        self.driver
            .spawn_with(WaitMode::Policy, Location::caller(), (f, then), make)
            .map_err(SubmitError::by(Refuser::Caller))
    }

    /// Makes a call without a handle. If it fails, [`on_error`](super::CallerBuilder::on_error) is
    /// called on a worker, and the task counts as failed.
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
        self.spawn_notify(WaitMode::Policy, Location::caller(), f).map_err(SubmitError::by(Refuser::Caller))
    }

    /// Makes a call as [`notify`](Self::notify) does, but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if all slots are taken or the pool is shut down.
    #[track_caller]
    pub fn try_notify<F, Fut, T>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_notify(WaitMode::Never, Location::caller(), f).map_err(TrySubmitError::by(Refuser::Caller))
    }

    /// Spawns a call whose result is that of the handle.
    fn spawn_call<F, Fut, T>(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        f: F,
    ) -> Result<JoinHandle<CallResult<T>>, (Refusal, F)>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let config = self.config.clone();
        let make = |f| {
            let unchanged: fn(CallResult<T>) -> CallResult<T> = |result| result;
            let outcome_of: fn(&CallResult<T>) -> TaskOutcome =
                |result| if result.is_ok() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            (config.run(f), OnOutput { f: unchanged, on_worker: None, outcome_of })
        };
        self.driver.spawn_with(wait_mode, location, f, make)
    }

    /// Spawns a call whose error goes to the error hook.
    fn spawn_notify<F, Fut, T>(
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
        let (config, on_error, depth) = (self.config.clone(), self.on_error.clone(), HOOK_DEPTH.get());
        let make = |f| {
            let report = move |result: CallResult<T>| {
                let error = result.err()?;
                if let Some(on_error) = on_error
                    && depth < MAX_HOOK_DEPTH
                {
                    let _depth = DepthGuard(HOOK_DEPTH.replace(depth + 1));
                    on_error(error);
                }
                Some(())
            };
            let outcome_of: fn(&Option<()>) -> TaskOutcome =
                |failed| if failed.is_none() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            (config.run(f), OnOutput { f: report, on_worker: Some(CallResult::<T>::is_err as _), outcome_of })
        };
        self.driver.spawn_with(wait_mode, location, f, make).map(drop)
    }
}

/// A guard that restores the previous depth, also after a panic.
struct DepthGuard(u32);

impl Drop for DepthGuard {
    fn drop(&mut self) {
        HOOK_DEPTH.set(self.0);
    }
}

unwind::safe!(Caller);

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("driver", &self.driver)
            .field("timeout", &self.config.timeout())
            .finish_non_exhaustive()
    }
}
