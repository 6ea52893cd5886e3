//! Launches calls to one target.

use std::fmt;
use std::future::Future;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Response, Status};

use super::course::Plan;
use super::error::CallError;
use super::target::{self, Target};
use crate::deadline::Deadline;
use crate::engine::Patience;
use crate::error::{JoinError, Refusal, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::handle::JoinHandle;
use crate::io::{Driver, DriverError, Fate};
use crate::observer::Outcome;
use crate::pool::WorkerPool;
use crate::retry::RetryPolicy;
use crate::sync::Arc;

/// Calls in flight unless told otherwise: what servers commonly grant one connection.
const DEFAULT_IN_FLIGHT: usize = 100;
/// The time for a call unless told otherwise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// What a call comes to.
type Called<T> = Result<Response<T>, CallError>;

/// Makes calls to one gRPC target, so many at a time. From [`Caller::builder`].
///
/// Clones share the connection and the limit. A caller may differ from its clones in [deadline](Self::with_deadline),
/// [metadata](Self::carry) and [idempotence](Self::idempotent).
///
/// # A call
///
/// Each form takes a closure that makes *one attempt*: it gets a [`Target`], wraps a client around it, and returns the
/// future of the client's method. It is called anew for each attempt, on the I/O thread, and must not block.
///
/// A call is a task of the pool, with one fate over all attempts. While it is in flight, or waits for the next attempt, it
/// holds one of the caller's slots and no worker, and counts as queued. It outlives whoever made it: it ends by its answer
/// or its deadline, by [`JoinHandle::cancel`] (which resets the stream), or by `shutdown_now`. The pool's `shutdown` waits
/// for calls in flight, but begins no further attempts. A call that fails counts as failed in the pool's metrics and
/// for its [`Observer`](crate::Observer), whether somebody waits for it or not. A panic is not tried again: it ends the call.
///
/// When all slots are taken the plain forms block until one is free, `try_` refuses, `_timeout` blocks at most so long. On
/// a worker of the pool, and inside a call, no form blocks: the plain ones launch the call, which then waits for its slot
/// without the thread.
///
/// # Awaiting
///
/// The handle is a future: an async server can `.await` the call. Its own request may be cancelled meanwhile; the call
/// goes on.
///
/// See the [module](super) for an example.
#[derive(Clone)]
pub struct Caller {
    driver: Arc<Driver>,
    plan: Plan,
    on_error: Option<ErrorHook>,
}

/// Told of errors that nobody waits for.
type ErrorHook = Arc<dyn Fn(CallError) + Send + Sync>;

/// Configures a caller. From [`Caller::builder`]. Setters only store; [`build`](Self::build) checks.
#[must_use = "a builder does nothing until `build` is called"]
pub struct CallerBuilder {
    endpoint: Endpoint,
    max_in_flight: usize,
    deadline: Duration,
    policy: RetryPolicy<Status>,
    label: Option<Arc<str>>,
    on_error: Option<ErrorHook>,
}

impl CallerBuilder {
    /// How many calls may be in flight, 1 to 1,048,576; those that wait for their next attempt count. Unless set, 100.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// The time for a call, all attempts and delays together, from the moment it has its slot. The server is told what
    /// is left of it. Unless set, 30 seconds. `Duration::MAX` means for ever.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// When a failed attempt is followed by another. Unless set, [`RetryPolicy::exponential`].
    ///
    /// A policy that does not say which errors are worth it gets the usual answer: `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and
    /// `ABORTED`; `DEADLINE_EXCEEDED` too, of calls that are [idempotent](Caller::idempotent). The server's
    /// `grpc-retry-pushback-ms` counts in any case. The deadline of the policy, if it is earlier than the caller's, takes
    /// its place. The policy's attempt deadline is the time for one attempt.
    ///
    /// What the policy was given to judge errors by is called on the I/O thread, so it must not block; its panic ends the call.
    pub fn retry(mut self, policy: RetryPolicy<Status>) -> Self {
        self.policy = policy;
        self
    }

    /// What observers see of the calls. Unless set, the endpoint's address.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Is told, on a worker, of each [`notify`](Caller::notify) that failed. A panic of `f` is one of the call.
    pub fn on_error(mut self, f: impl Fn(CallError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(f));
        self
    }

    /// A caller whose calls are tasks of `pool`. Does not connect: the first call does, and any later one that finds the
    /// connection broken.
    ///
    /// # Errors
    ///
    /// [`DriverError`], if the limit is out of range or the I/O thread could not be started.
    pub fn build(self, pool: &WorkerPool) -> Result<Caller, DriverError> {
        let label = self.label.unwrap_or_else(|| self.endpoint.uri().to_string().into());
        let driver = Driver::new(pool, self.max_in_flight)?.label(label);
        let channel = {
            let _runtime = driver.io().runtime().enter();
            self.endpoint.connect_lazy()
        };
        let plan = Plan {
            channel,
            policy: self.policy,
            deadline: self.deadline,
            is_idempotent: false,
            carried: MetadataMap::new(),
            closing: driver.engine().closing.clone(),
        };
        Ok(Caller { driver: Arc::new(driver), plan, on_error: self.on_error })
    }
}

impl Caller {
    /// Configures a caller of the server at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> CallerBuilder {
        CallerBuilder {
            endpoint,
            max_in_flight: DEFAULT_IN_FLIGHT,
            deadline: DEFAULT_DEADLINE,
            policy: RetryPolicy::exponential(),
            label: None,
            on_error: None,
        }
    }

    /// The same caller with another deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.plan.deadline = deadline;
        self
    }

    /// The same caller for calls that may run twice on the server: `DEADLINE_EXCEEDED` is worth another attempt. (Nobody
    /// can know whether the server has acted on an attempt that ran out of time.)
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.plan.is_idempotent = true;
        self
    }

    /// The same caller, which sends with each request what `keys` name in `incoming`, in any case and with all values: trace
    /// ids, say, of the request that is being served. What was carried of the same keys before gives way. What the protocol
    /// uses itself (`grpc-…`, `te`, `content-type`, `user-agent`) is not carried. What a request sets by itself comes first.
    #[must_use]
    pub fn carry(mut self, incoming: &MetadataMap, keys: &[&str]) -> Self {
        target::carry(&mut self.plan.carried, incoming, keys);
        self
    }

    /// How many calls may be in flight.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.driver.max_in_flight()
    }

    /// How many calls are in flight, those between two attempts included; out of date when it arrives. A call that waits for
    /// its slot without a thread is not counted, nor is one that has ended and whose [`call_then`](Self::call_then) or error
    /// still waits for a worker, though it may still hold up other threads that call.
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
        self.launch(Patience::Policy, Location::caller(), f).map_err(|(_, f)| SubmitError::new(f))
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
        self.launch(Patience::Try, Location::caller(), f).map_err(|(refusal, f)| TrySubmitError::new(refusal, f))
    }

    /// Like [`call`](Self::call), but blocks at most `timeout` for a slot; `Duration::MAX` means for ever. (For the call
    /// itself see [`with_deadline`](Self::with_deadline).)
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
        let patience = Patience::Until(Deadline::after(timeout));
        self.launch(patience, Location::caller(), f).map_err(|(refusal, f)| SubmitTimeoutError::new(refusal, f))
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
        let call = self.launch(Patience::Policy, Location::caller(), f).map_err(|_| CallError::shut_down())?;
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
            let fate = Fate { f: then, on_worker: Some(|_: &_| true), outcome_of: |_: &_| Outcome::Succeeded };
            (plan.run(f), fate)
        };
        self.driver
            .launch(Patience::Policy, Location::caller(), (f, then), make)
            .map_err(|(_, both)| SubmitError::new(both))
    }

    /// Makes a call whose answer nobody waits for. An error goes to [`CallerBuilder::on_error`], on a worker, and to the
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
        self.launch_unheard(Patience::Policy, Location::caller(), f).map_err(|(_, f)| SubmitError::new(f))
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
        self.launch_unheard(Patience::Try, Location::caller(), f)
            .map_err(|(refusal, f)| TrySubmitError::new(refusal, f))
    }

    fn launch<F, Fut, T>(
        &self,
        patience: Patience,
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
            let outcome_of: fn(&Called<T>) -> Outcome =
                |called| if called.is_ok() { Outcome::Succeeded } else { Outcome::Failed };
            (plan.run(f), Fate { f: unchanged, on_worker: None, outcome_of })
        };
        self.driver.launch(patience, location, f, make)
    }

    fn launch_unheard<F, Fut, T>(
        &self,
        patience: Patience,
        location: &'static Location<'static>,
        f: F,
    ) -> Result<(), (Refusal, F)>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<T>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let (plan, on_error) = (self.plan.clone(), self.on_error.clone());
        let make = |f| {
            let tell = move |called: Called<T>| {
                let error = called.err()?;
                if let Some(on_error) = on_error {
                    on_error(error);
                }
                Some(())
            };
            let outcome_of: fn(&Option<()>) -> Outcome =
                |failed| if failed.is_none() { Outcome::Succeeded } else { Outcome::Failed };
            (plan.run(f), Fate { f: tell, on_worker: Some(Called::<T>::is_err as _), outcome_of })
        };
        self.driver.launch(patience, location, f, make).map(drop)
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for Caller {}
impl RefUnwindSafe for Caller {}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("driver", &self.driver)
            .field("deadline", &self.plan.deadline)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CallerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerBuilder")
            .field("endpoint", &self.endpoint)
            .field("max_in_flight", &self.max_in_flight)
            .field("deadline", &self.deadline)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
