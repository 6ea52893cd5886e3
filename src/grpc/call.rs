//! The run of one call on the I/O thread: its attempts, and the delays between them.
//!
//! Rules:
//! 1. The time for a call starts when the call has its slot. When the time is over, the attempt is
//!    dropped, which resets the stream. A delay that would end later is not begun.
//! 2. A server's pushback delay replaces the policy's delay, and a pushback that asks for no retry
//!    is final. Both count only after an error that would be retried, and never beyond the
//!    deadline, the number of attempts and the budget.
//! 3. Once the pool is closed, no further attempt is made, and none is withdrawn from the budget. A
//!    call that waits for its next attempt ends with the error of the last one.
//! 4. The settings of a call are known when its first request names its method. Until then the
//!    settings of the caller apply. The first method counts.
//! 5. With a rate, each attempt waits for its turn first. The wait counts towards the time for the
//!    call. A closed pool ends the wait of a retry, as rule 3 says, and not that of a first
//!    attempt.
//! 6. An attempt that leaves a response body open is refused. A stream whose first message was
//!    delivered is not retried.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::details::{self, Pushback};
use super::end::{self, End};
use super::error::CallError;
use super::method::{CallSettings, MethodConfig};
use super::rate::TooLate;
use super::target::{AttemptContext, CallerInner, Target};
use super::wire::{self, Wire};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::io;
use crate::retry::{ErrorClass, GiveUpReason, RetryDecision, RetryState};
use crate::sync::Arc;

/// The first and the longest delay between attempts to connect.
const READY_DELAYS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The configuration of the calls of one caller.
#[derive(Clone)]
pub(super) struct CallConfig {
    /// Shared by all clones of the caller.
    pub(super) inner: Arc<CallerInner>,
    /// The settings that this clone of the caller overrides.
    pub(super) overrides: MethodConfig,
    /// The metadata that is sent with each request.
    pub(super) propagated: Arc<MetadataMap>,
    /// Whether the response is a stream.
    pub(super) is_stream: bool,
    /// Cancelled when the pool is closed.
    pub(super) closing: CancellationToken,
}

/// The state of one call between its attempts.
struct Call {
    config: CallConfig,
    /// When the call got its slot.
    started: Instant,
    /// The row of the method in the table, once it is known.
    method: Option<usize>,
    /// The settings that apply to the call; see rule 4.
    settings: CallSettings,
    /// The attempts so far.
    attempts: RetryState<Status>,
}

/// The failure of an attempt.
struct Failure {
    /// How the attempt ended.
    end: End,
    /// Whether no other attempt may follow; see rule 6.
    is_final: bool,
}

impl CallConfig {
    /// Runs a call to its end. `f` makes one attempt.
    pub(super) async fn run<F, Fut, T>(self, mut f: F) -> Result<Response<T>, CallError>
    where
        F: FnMut(Target) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut call = Call::new(self);
        let mut is_reconnect = false;
        let mut ready_delay = READY_DELAYS.0;
        let mut no_connection = None;
        if call.turn().await.is_err() {
            return Err(CallError::of(End::without_turn(), 0).with_reason(GiveUpReason::Deadline));
        }
        loop {
            if !is_reconnect {
                call.attempts.count();
            }
            let mut failure = match call.attempt(&mut f).await {
                Ok(response) => {
                    call.attempts.succeeded();
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            if let Some(status) = no_connection.take()
                && failure.end.is_out_of_time()
            {
                // The missing connection says more than the timeout.
                failure.end = End { status, is_connect: true, is_misconfigured: false };
            }
            is_reconnect = call.settings.waits_for_ready && failure.end.is_connect && !failure.end.is_misconfigured;
            let (next, error) = if is_reconnect {
                no_connection = Some(failure.end.status.clone());
                call.after_no_connection(failure.end, &mut ready_delay)
            } else {
                call.after_failure(failure)
            };
            let delay = match next {
                RetryDecision::After(delay) => delay,
                RetryDecision::GiveUp(reason) => return Err(error.with_reason(reason)),
            };
            if let Some(reason) = call.delay_and_turn(delay).await {
                return Err(error.with_reason(reason));
            }
        }
    }

    /// Returns the time for a call of a method without settings of its own.
    pub(super) fn timeout(&self) -> Duration {
        self.overrides.timeout.unwrap_or(self.inner.methods.timeout)
    }

    /// Waits for `wait`. If the pool is closed before, returns the reason at once.
    async fn unless_closed<T>(&self, wait: impl Future<Output = T>) -> Result<T, CancelReason> {
        let mut closing = pin!(self.closing.cancelled());
        let mut wait = pin!(wait);
        poll_fn(|context| match closing.as_mut().poll(context) {
            Poll::Ready(reason) => Poll::Ready(Err(reason)),
            Poll::Pending => wait.as_mut().poll(context).map(Ok),
        })
        .await
    }
}

impl Call {
    fn new(config: CallConfig) -> Self {
        let started = Instant::now();
        let settings = config.inner.methods.settings(None, &config.overrides);
        let attempts = RetryState::new(settings.policy.clone(), started);
        Self { config, started, method: None, settings, attempts }
    }

    /// Waits for the turn of the next attempt; see rule 5.
    async fn turn(&self) -> Result<(), TooLate> {
        match &self.config.inner.turns {
            Some(turns) => turns.turn(self.settings.deadline(self.started)).await,
            None => Ok(()),
        }
    }

    /// Waits for `delay`, and then for the turn of another attempt. Returns why there is none.
    async fn delay_and_turn(&self, delay: Duration) -> Option<GiveUpReason> {
        let turn = async {
            io::sleep(delay).await;
            self.turn().await
        };
        match self.config.unless_closed(turn).await {
            Ok(Ok(())) => None,
            Ok(Err(TooLate)) => Some(GiveUpReason::Deadline),
            Err(reason) => Some(GiveUpReason::Cancelled(reason)),
        }
    }

    /// Makes one attempt.
    async fn attempt<F, Fut, T>(&mut self, f: &mut F) -> Result<Response<T>, Failure>
    where
        F: FnMut(Target) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let wire = Wire::new(self.method);
        let attempt_context = AttemptContext {
            inner: Arc::clone(&self.config.inner),
            wire: Arc::clone(&wire),
            propagated: Arc::clone(&self.config.propagated),
            overrides: self.config.overrides.clone(),
            is_stream: self.config.is_stream,
            previous: self.attempts.made().saturating_sub(1),
            started: self.started,
            begun: Instant::now(),
        };
        let ended = drive(&attempt_context, f(Target::new(attempt_context.clone()))).await;
        self.note_method(wire.method());
        let failure = |end, is_final| Failure { end, is_final };
        match ended {
            None => Err(failure(End::out_of_time(wire.revoke()), wire.is_delivered())),
            Some(Err(status)) => {
                let end = End::of(status, wire.sent(), wire.take_failure());
                Err(failure(end, wire.is_delivered()))
            }
            Some(Ok(_)) if wire.close() => Err(failure(End::of(wire::escaped_stream(), wire.sent(), None), true)),
            Some(Ok(response)) => Ok(response),
        }
    }

    /// Applies the settings of the method, once it is known; see rule 4.
    fn note_method(&mut self, method: Option<usize>) {
        if self.method.is_some() || method.is_none() {
            return;
        }
        self.method = method;
        if self.config.inner.methods.config(method).is_some() {
            let made = self.attempts.made();
            self.settings = self.config.inner.methods.settings(method, &self.config.overrides);
            self.attempts = RetryState::new(self.settings.policy.clone(), self.started);
            (0..made).for_each(|_| self.attempts.count());
        }
    }

    /// Decides what follows an attempt that failed.
    fn after_failure(&mut self, failure: Failure) -> (RetryDecision, CallError) {
        let class = if failure.is_final || failure.end.is_misconfigured {
            ErrorClass::Permanent
        } else {
            self.class_of(&failure.end.status)
        };
        let error = CallError::of(failure.end, self.attempts.made());
        let is_late = self.attempts.deadline().is_some_and(|deadline| deadline <= Instant::now());
        let next = if error.is_deadline() && is_late {
            RetryDecision::GiveUp(GiveUpReason::Deadline)
        } else if class != ErrorClass::Permanent
            && let Some(reason) = self.config.closing.reason()
        {
            RetryDecision::GiveUp(GiveUpReason::Cancelled(reason)) // before a retry is withdrawn from the budget
        } else {
            self.attempts.failed(class, Instant::now())
        };
        (next, error)
    }

    /// Decides what follows an attempt without a connection, for a call that waits for one.
    fn after_no_connection(&self, end: End, delay: &mut Duration) -> (RetryDecision, CallError) {
        let now = Instant::now();
        let left = self.settings.deadline(self.started).map(|deadline| deadline.saturating_duration_since(now));
        let this = left.map_or(*delay, |left| left.min(*delay));
        *delay = (*delay * 2).min(READY_DELAYS.1);
        let error = CallError::of(end, self.attempts.made());
        let next = if left == Some(Duration::ZERO) {
            RetryDecision::GiveUp(GiveUpReason::Deadline)
        } else {
            RetryDecision::After(this)
        };
        (next, error)
    }

    /// Classifies an error; see rule 2.
    fn class_of(&self, status: &Status) -> ErrorClass {
        let pushback = details::pushback(status);
        let class = if self.settings.policy.has_classifier() {
            self.attempts.classify(status)
        } else {
            self.class_of_code(status, pushback.is_some())
        };
        match (class, pushback) {
            (ErrorClass::Permanent, _) | (_, None) => class,
            (_, Some(Pushback::Never)) => ErrorClass::Permanent,
            (_, Some(Pushback::After(delay))) => ErrorClass::RetryAfter(delay),
        }
    }

    /// Classifies an error by its code, for a policy without a function that classifies errors.
    fn class_of_code(&self, status: &Status, has_pushback: bool) -> ErrorClass {
        match status.code() {
            Code::Unavailable | Code::Aborted => ErrorClass::Transient,
            // A server that sends a pushback does not mean the size.
            Code::ResourceExhausted if has_pushback || !end::is_too_large(status) => ErrorClass::Transient,
            Code::DeadlineExceeded if self.settings.is_idempotent || end::is_unsent(status) => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }
}

/// Drives an attempt to its end. Returns `None` if its deadline passed first. The deadline changes
/// when the method becomes known, and when a stream's first message is delivered.
async fn drive<Fut: Future>(attempt_context: &AttemptContext, attempt: Fut) -> Option<Fut::Output> {
    let mut attempt = pin!(attempt);
    loop {
        let known = (attempt_context.wire.method(), attempt_context.wire.is_delivered());
        let step = poll_fn(|context| match attempt.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if (attempt_context.wire.method(), attempt_context.wire.is_delivered()) != known => {
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        });
        let ended = match attempt_context.deadline() {
            Some(deadline) => io::timeout_at(deadline.into(), step).await.ok()?,
            None => step.await,
        };
        if ended.is_some() {
            return ended;
        }
    }
}
