//! What becomes of one call on the I/O thread: attempts, delays between them, an end.
//!
//! Rules:
//! 1. The time runs from the moment the call has its slot. When it is over the attempt is dropped, which resets the
//!    stream, and a delay that would end later is not begun.
//! 2. A server's word on when to try again counts more than the policy's delay, its word not to counts more than all; but
//!    only after an error that would be tried again, and never beyond the deadline, the attempts and the budget.
//! 3. Once the pool is closed no further attempt is made, nor taken out of the budget: a call that waits for its next one
//!    gives up with the error of the last.
//! 4. What applies to the call is known when its first request names its method. Until then the caller's own settings
//!    apply. The first method counts.
//! 5. An attempt that leaves a response body open is refused, and a stream whose first message was delivered is not tried
//!    again.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::details::{self, Word};
use super::end::{self, End};
use super::error::CallError;
use super::method::{MethodConfig, Terms};
use super::target::{Leg, Line, Target};
use super::wire::{self, Wire};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::io;
use crate::retry::{ErrorClass, GiveUpReason, RetryDecision, RetryState};
use crate::sync::Arc;

/// The first and the longest delay of a call that waits for a connection.
const READY_DELAYS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What the calls of one caller have in common.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) line: Arc<Line>,
    /// What this clone of the caller overrides.
    pub(super) overrides: MethodConfig,
    /// Sent with each request.
    pub(super) carried: Arc<MetadataMap>,
    /// Whether the answer is a stream.
    pub(super) is_stream: bool,
    /// Of the pool.
    pub(super) closing: CancellationToken,
}

/// The state of one call between its attempts.
struct Course {
    plan: Plan,
    started: Instant,
    /// The row of the method, once it is known.
    method: Option<usize>,
    terms: Terms,
    attempts: RetryState<Status>,
}

/// How an attempt ended, if not well.
struct Failure {
    end: End,
    /// Whether another attempt is out of the question; see rule 5.
    is_final: bool,
}

impl Plan {
    /// Makes a call. `f` makes one attempt.
    pub(super) async fn run<F, Fut, T>(self, mut f: F) -> Result<Response<T>, CallError>
    where
        F: FnMut(Target) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut course = Course::new(self);
        let mut is_again = false;
        let mut ready_delay = READY_DELAYS.0;
        let mut no_connection = None;
        loop {
            if !is_again {
                course.attempts.count();
            }
            let mut failure = match course.attempt(&mut f).await {
                Ok(response) => {
                    course.attempts.succeeded();
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            if let Some(status) = no_connection.take()
                && failure.end.is_out_of_time()
            {
                failure.end = End { status, is_connect: true, is_setup: false }; // still none, which says more
            }
            is_again = course.terms.waits_for_ready && failure.end.is_connect && !failure.end.is_setup;
            let (next, error) = if is_again {
                no_connection = Some(failure.end.status.clone());
                course.next_connection(failure.end, &mut ready_delay)
            } else {
                course.next_attempt(failure)
            };
            let delay = match next {
                RetryDecision::After(delay) => delay,
                RetryDecision::GiveUp(reason) => return Err(error.because(reason)),
            };
            if let Some(reason) = course.plan.closed_during(delay).await {
                return Err(error.because(GiveUpReason::Cancelled(reason)));
            }
        }
    }

    /// The time for a call of a method without settings of its own.
    pub(super) fn timeout(&self) -> Duration {
        self.overrides.timeout.unwrap_or(self.line.methods.timeout)
    }

    /// Waits so long, or until the pool is closed: then returns why.
    async fn closed_during(&self, delay: Duration) -> Option<CancelReason> {
        let mut closing = pin!(self.closing.cancelled());
        let mut sleep = pin!(io::sleep(delay));
        poll_fn(|context| match closing.as_mut().poll(context) {
            Poll::Ready(reason) => Poll::Ready(Some(reason)),
            Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
        })
        .await
    }
}

impl Course {
    fn new(plan: Plan) -> Self {
        let started = Instant::now();
        let terms = plan.line.methods.terms(None, &plan.overrides);
        let attempts = RetryState::new(terms.policy.clone(), started);
        Self { plan, started, method: None, terms, attempts }
    }

    /// Makes one attempt.
    async fn attempt<F, Fut, T>(&mut self, f: &mut F) -> Result<Response<T>, Failure>
    where
        F: FnMut(Target) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let wire = Wire::new(self.method);
        let leg = Leg {
            line: Arc::clone(&self.plan.line),
            wire: Arc::clone(&wire),
            carried: Arc::clone(&self.plan.carried),
            overrides: self.plan.overrides.clone(),
            is_stream: self.plan.is_stream,
            previous: self.attempts.made().saturating_sub(1),
            started: self.started,
            begun: Instant::now(),
        };
        let ended = drive(&leg, f(Target::new(leg.clone()))).await;
        self.note_method(wire.method());
        let failure = |end, is_final| Failure { end, is_final };
        match ended {
            None => Err(failure(End::out_of_time(wire.revoke()), wire.is_delivered())),
            Some(Err(status)) => {
                let end = End::of(status, wire.sent(), wire.take_failure());
                Err(failure(end, wire.is_delivered()))
            }
            Some(Ok(_)) if wire.close() => Err(failure(End::of(wire::handed_out(), wire.sent(), None), true)),
            Some(Ok(response)) => Ok(response),
        }
    }

    /// Keeps rule 4.
    fn note_method(&mut self, method: Option<usize>) {
        if self.method.is_some() || method.is_none() {
            return;
        }
        self.method = method;
        if self.plan.line.methods.config(method).is_some() {
            let made = self.attempts.made();
            self.terms = self.plan.line.methods.terms(method, &self.plan.overrides);
            self.attempts = RetryState::new(self.terms.policy.clone(), self.started);
            (0..made).for_each(|_| self.attempts.count());
        }
    }

    /// What follows an attempt that failed.
    fn next_attempt(&mut self, failure: Failure) -> (RetryDecision, CallError) {
        let class = if failure.is_final || failure.end.is_setup {
            ErrorClass::Permanent
        } else {
            self.class_of(&failure.end.status)
        };
        let error = CallError::of(failure.end, self.attempts.made());
        let is_late = self.attempts.deadline().is_some_and(|deadline| deadline <= Instant::now());
        let next = if error.is_deadline() && is_late {
            RetryDecision::GiveUp(GiveUpReason::Deadline)
        } else if class != ErrorClass::Permanent
            && let Some(reason) = self.plan.closing.reason()
        {
            RetryDecision::GiveUp(GiveUpReason::Cancelled(reason)) // and the budget is spared
        } else {
            self.attempts.failed(class, Instant::now())
        };
        (next, error)
    }

    /// What follows an attempt that found no connection, of a call that waits for one.
    fn next_connection(&self, end: End, delay: &mut Duration) -> (RetryDecision, CallError) {
        let now = Instant::now();
        let left = self.terms.deadline(self.started).map(|deadline| deadline.saturating_duration_since(now));
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

    /// What an error means for another attempt; keeps rule 2.
    fn class_of(&self, status: &Status) -> ErrorClass {
        let word = details::word(status);
        let class = if self.terms.policy.has_classifier() {
            self.attempts.classify(status)
        } else {
            self.class_of_code(status, word.is_some())
        };
        match (class, word) {
            (ErrorClass::Permanent, _) | (_, None) => class,
            (_, Some(Word::Never)) => ErrorClass::Permanent,
            (_, Some(Word::After(delay))) => ErrorClass::RetryAfter(delay),
        }
    }

    fn class_of_code(&self, status: &Status, has_word: bool) -> ErrorClass {
        match status.code() {
            Code::Unavailable | Code::Aborted => ErrorClass::Transient,
            // A server that says when to come back does not mean the size.
            Code::ResourceExhausted if has_word || !end::is_too_large(status) => ErrorClass::Transient,
            Code::DeadlineExceeded if self.terms.is_idempotent || end::is_unsent(status) => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }
}

/// Drives an attempt until its deadline, and drops it then: `None`. The deadline changes when the method becomes known, and
/// when a stream's first message is delivered.
async fn drive<Fut: Future>(leg: &Leg, attempt: Fut) -> Option<Fut::Output> {
    let mut attempt = pin!(attempt);
    loop {
        let known = (leg.wire.method(), leg.wire.is_delivered());
        let step = poll_fn(|context| match attempt.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if (leg.wire.method(), leg.wire.is_delivered()) != known => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let ended = match leg.deadline() {
            Some(deadline) => io::timeout_at(deadline.into(), step).await.ok()?,
            None => step.await,
        };
        if ended.is_some() {
            return ended;
        }
    }
}
