//! A closure that is retried, with its attempts so far. Knows nothing of where the task waits.

use std::mem;

use super::attempts::{Attempt, RetryDecision, RetryState};
use super::error::{AttemptError, AttemptErrors, GiveUpReason, RetryError};
use super::policy::ErrorClass;
use crate::cancel::token::CancellationToken;
use crate::observe::task_info::TaskOutcome;
use crate::observe::worker_counters::WorkerCounters;
use crate::task::executor::{Executor, TaskMeta};
use crate::time::clock::Clock;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A closure that is retried.
pub(super) struct Retried<F, E> {
    f: F,
    /// How many attempts were made, and the policy.
    state: RetryState<E>,
    /// The errors of the attempts so far.
    errors: AttemptErrors<E>,
    /// Whether the task has a place for the timer of a delay. Without one, no attempt follows the
    /// first.
    has_timer: bool,
}

/// What follows an attempt.
pub(super) enum AfterAttempt<T> {
    Succeeded(T),
    /// Another attempt is due then.
    Again(Deadline),
    GivenUp(GiveUpReason),
}

/// The result of an attempt that did not panic.
enum AttemptResult<T, E> {
    Succeeded(T),
    Failed(E, ErrorClass),
}

impl<F, E> Retried<F, E> {
    pub(super) fn new(f: F, state: RetryState<E>) -> Self {
        Self { f, state, errors: AttemptErrors::new(), has_timer: true }
    }

    /// Sets whether the task has a place for the timer of a delay. *Default: true.*
    pub(super) fn with_timer(mut self, has_timer: bool) -> Self {
        self.has_timer = has_timer;
        self
    }

    /// Returns the closure, of which no attempt was made.
    pub(super) fn into_closure(self) -> F {
        self.f
    }

    /// Returns how many attempts were made.
    pub(super) fn made(&self) -> u32 {
        self.state.made()
    }

    /// Makes the next attempt and counts it, as the task of `meta`. Its token is a child of
    /// `token`, whose cancellation makes a failed attempt the last one.
    pub(super) fn make_attempt<T>(
        &mut self,
        executor: &Executor,
        counters: &WorkerCounters,
        meta: &TaskMeta<'_>,
        token: &CancellationToken,
        clock: &Clock,
    ) -> AfterAttempt<T>
    where
        F: FnMut(Attempt) -> Result<T, E>,
    {
        let attempt = self.state.begin(token, clock.now());
        let (f, state) = (&mut self.f, &self.state);
        let (started, result) = executor.run_attempt(counters, meta, || {
            let _guard = executor.cancel_with_pool(token);
            match f(attempt) {
                Ok(value) => AttemptResult::Succeeded(value),
                Err(error) => {
                    let class = state.classify(&error);
                    AttemptResult::Failed(error, class)
                }
            }
        });
        let (next, outcome) = match &result {
            Ok(AttemptResult::Succeeded(_)) => (None, TaskOutcome::Succeeded),
            Ok(AttemptResult::Failed(_, class)) => (Some(self.decide(*class, token, clock)), TaskOutcome::Failed),
            Err(_) => (Some(self.decide(ErrorClass::Transient, token, clock)), TaskOutcome::Panicked),
        };
        let ends = !matches!(next, Some(RetryDecision::After(_)));
        executor.finish_attempt(counters, meta, started, result.as_ref().err(), ends.then_some(outcome));
        let error = match result {
            Ok(AttemptResult::Succeeded(value)) => {
                self.state.succeeded();
                return AfterAttempt::Succeeded(value);
            }
            Ok(AttemptResult::Failed(error, _)) => AttemptError::Failed(error),
            Err(panic) => AttemptError::Panicked(panic),
        };
        unwind::discard(self.errors.add(error));
        match next {
            Some(RetryDecision::After(delay)) => AfterAttempt::Again(Deadline::after_instant(clock.now(), delay)),
            Some(RetryDecision::GiveUp(reason)) => AfterAttempt::GivenUp(reason),
            None => unreachable!("an attempt without an error has succeeded"),
        }
    }

    /// Decides whether a failed attempt is followed by another.
    fn decide(&mut self, class: ErrorClass, token: &CancellationToken, clock: &Clock) -> RetryDecision {
        match token.reason() {
            Some(reason) => RetryDecision::GiveUp(GiveUpReason::Cancelled(reason)),
            None => match self.state.failed(class, clock.now()) {
                RetryDecision::After(_) if !self.has_timer => RetryDecision::GiveUp(GiveUpReason::NoTimer),
                decision => decision,
            },
        }
    }

    /// Takes the error of a task that ends without a success; `None` if no attempt has failed.
    pub(super) fn take_error(&mut self, reason: GiveUpReason) -> Option<RetryError<E>> {
        mem::replace(&mut self.errors, AttemptErrors::new()).give_up(reason, self.state.made())
    }
}
