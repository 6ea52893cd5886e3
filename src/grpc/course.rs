//! What becomes of one call on the I/O thread: attempts, delays between them, an end.
//!
//! Rules:
//! 1. The time runs from the moment the call has its slot. When it is over the attempt is dropped, which resets the
//!    stream, and a delay that would end later is not begun.
//! 2. A server's word on when to try again counts more than the policy's delay, its word not to counts more than all; but
//!    only after an error that would be tried again, and never beyond the deadline, the attempts and the budget.
//! 3. Once the pool is closed no further attempt is made, nor taken out of the budget: who waits for one gives up with the
//!    error of the last.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::error::CallError;
use super::target::{Outfit, Target};
use crate::cancel::CancellationToken;
use crate::error::CancelReason;
use crate::io;
use crate::retry::{Attempts, ErrorClass, GiveUp, Next, RetryPolicy};

/// A server's word on when to try again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What the calls of one caller have in common.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) channel: Channel,
    pub(super) policy: RetryPolicy<Status>,
    /// For all attempts and delays of a call together.
    pub(super) deadline: Duration,
    /// Whether an attempt that ran out of time may be made again.
    pub(super) is_idempotent: bool,
    /// Sent with each request.
    pub(super) carried: MetadataMap,
    /// Of the pool.
    pub(super) closing: CancellationToken,
}

impl Plan {
    /// Makes a call. `f` makes one attempt.
    pub(super) async fn run<F, Fut, T>(self, mut f: F) -> Result<Response<T>, CallError>
    where
        F: FnMut(Target) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let policy = self.policy.clone().within(self.deadline);
        let mut attempts = Attempts::new(policy, Instant::now());
        let root = CancellationToken::new();
        loop {
            let deadline = attempts.begin(&root, Instant::now()).token().deadline();
            let target = self.target(attempts.made() - 1, deadline);
            let error = match in_time(deadline, f(target)).await {
                Ok(Ok(response)) => {
                    attempts.succeeded();
                    return Ok(response);
                }
                Ok(Err(status)) => CallError::of(status, attempts.made()),
                Err(OutOfTime) => CallError::of(out_of_time(), attempts.made()),
            };
            if error.is_deadline() && attempts.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(error.because(GiveUp::Deadline));
            }
            let class = self.class_of(&attempts, error.status());
            if class != ErrorClass::Permanent
                && let Some(reason) = self.closing.reason()
            {
                return Err(error.because(GiveUp::Cancelled(reason))); // and the budget is spared
            }
            match attempts.failed(class, Instant::now()) {
                Next::GiveUp(reason) => return Err(error.because(reason)),
                Next::After(delay) => {
                    if let Some(reason) = self.closed_during(delay).await {
                        return Err(error.because(GiveUp::Cancelled(reason)));
                    }
                }
            }
        }
    }

    fn target(&self, previous: u32, deadline: Option<Instant>) -> Target {
        let outfit = Outfit { carried: self.carried.clone(), previous, deadline };
        InterceptedService::new(self.channel.clone(), outfit)
    }

    /// What an error means for another attempt; keeps rule 2.
    fn class_of(&self, attempts: &Attempts<Status>, status: &Status) -> ErrorClass {
        let class =
            if self.policy.has_classifier() { attempts.classify(status) } else { self.class_of_code(status.code()) };
        let mut words = status.metadata().get_all(PUSHBACK).iter();
        match (class, words.next(), words.next()) {
            (ErrorClass::Permanent, ..) | (_, None, _) => class,
            // Several words are none.
            (_, _, Some(_)) => ErrorClass::Permanent,
            (_, Some(word), None) => {
                let delay = word.to_str().ok().and_then(|text| text.parse::<u64>().ok());
                // Whatever is no number, a negative one included, asks not to try again.
                delay.map_or(ErrorClass::Permanent, |delay| ErrorClass::RetryAfter(Duration::from_millis(delay)))
            }
        }
    }

    fn class_of_code(&self, code: Code) -> ErrorClass {
        match code {
            Code::Unavailable | Code::ResourceExhausted | Code::Aborted => ErrorClass::Transient,
            Code::DeadlineExceeded if self.is_idempotent => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
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

/// The time was over.
struct OutOfTime;

/// What stands for the answer that did not come.
fn out_of_time() -> Status {
    Status::deadline_exceeded("the deadline passed")
}

/// Drives a future until the deadline, and drops it then.
async fn in_time<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, OutOfTime> {
    match deadline {
        Some(deadline) => io::timeout_at(deadline.into(), future).await.map_err(|_| OutOfTime),
        None => Ok(future.await),
    }
}
