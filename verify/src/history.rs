//! Histories: concurrent calls of four threads to one pool, their answers, and their times.
//!
//! A history is *linearizable* if two things hold for some order of its calls. A call that had
//! returned before another began comes before it. A pool that runs one call at a time gives the
//! same answers in that order. The search is the algorithm of Wing and Gong, with Lowe's memory of
//! the places already visited. A sequential pool may start a task at any moment. In the order, that
//! shows as an answer after which the task must have started.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Duration;

use workcrew::{CancelReason, JoinError, JoinHandle, WorkerPool};

use crate::rng::Rng;

/// Threads that call.
pub const THREADS: usize = 4;
/// The most calls of one thread.
pub const CALLS: usize = 6;

/// A call. A task has the number of its submission in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `spawn`.
    Submit(usize),
    /// `cancel` of a handle.
    Cancel(usize),
    /// `is_finished` of a handle.
    IsFinished(usize),
    /// `wait_timeout` of a handle, with a limit that is not reached.
    WaitFor(usize),
    /// `close`.
    Close,
    /// `shutdown_now`.
    ShutdownNow,
    /// `is_shut_down`.
    IsShutDown,
    /// `wait_idle_timeout` with a timeout of zero.
    IsIdle,
    /// `wait_idle`.
    WaitIdle,
}

/// The answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call has returned without a value.
    Done,
    /// The task was accepted.
    Accepted,
    /// The task was refused, because the pool is closed.
    ShutDown,
    /// True.
    Yes,
    /// False.
    No,
}

/// One call of a history.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The call.
    pub call: Call,
    /// The answer.
    pub answer: Answer,
    /// When the call began, by a clock that ticks at each reading.
    pub began: u64,
    /// When the call had returned, by the same clock.
    pub returned: u64,
}

/// The state of a task in a sequential pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Unknown,
    /// Accepted. No answer has shown whether it has started.
    Queued,
    /// An answer has shown that it has started, or that the shutdown cancelled it.
    NotToBeCancelled,
    /// An answer has shown that it has ended.
    Ended,
    /// An answer has shown that the pool no longer counts it.
    Settled,
    /// Cancelled through its handle.
    Cancelled,
}

/// A sequential pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Spec {
    tasks: Vec<State>,
    closed: bool,
}

impl Spec {
    /// Returns the pool after the call, or `None` if it could not have given this answer. A call is
    /// `excused` if it overlaps with calls that take several steps; see [`excuses`].
    fn after(&self, event: &Event, excused: bool) -> Option<Self> {
        let mut next = self.clone();
        let possible = match (event.call, event.answer) {
            (Call::Submit(task), Answer::Accepted) => {
                next.tasks[task] = State::Queued;
                !self.closed
            }
            (Call::Submit(_), Answer::ShutDown) => self.closed,
            (Call::Cancel(task), Answer::Yes) => {
                next.tasks[task] = State::Cancelled;
                self.tasks[task] == State::Queued
            }
            (Call::Cancel(task), Answer::No) => match self.tasks[task] {
                State::Queued => {
                    next.tasks[task] = State::NotToBeCancelled;
                    true
                }
                State::Unknown => false,
                _ => true,
            },
            (Call::IsFinished(task), Answer::No) => match self.tasks[task] {
                State::Queued | State::NotToBeCancelled => true,
                State::Cancelled => excused,
                State::Unknown | State::Ended | State::Settled => false,
            },
            (Call::IsFinished(task), Answer::Yes) | (Call::WaitFor(task), Answer::Done) => next.end(task),
            (Call::Close | Call::ShutdownNow, Answer::Done) => {
                next.closed = true;
                true
            }
            (Call::IsShutDown, answer) => self.closed == (answer == Answer::Yes),
            (Call::IsIdle, Answer::No) => excused || self.tasks.iter().any(|task| task.may_be_uncounted()),
            (Call::IsIdle, Answer::Yes) | (Call::WaitIdle, Answer::Done) => {
                let uncounted = next.tasks.iter_mut().filter(|task| task.may_be_uncounted());
                uncounted.for_each(|task| *task = State::Settled);
                true
            }
            _ => false,
        };
        possible.then_some(next)
    }

    /// Records that an answer shows the end of the task.
    fn end(&mut self, task: usize) -> bool {
        match self.tasks[task] {
            State::Unknown => return false,
            State::Cancelled | State::Settled => {}
            _ => self.tasks[task] = State::Ended,
        }
        true
    }
}

impl State {
    /// Returns whether the pool may still count the task: an outcome is visible before the metrics
    /// count it.
    fn may_be_uncounted(self) -> bool {
        matches!(self, Self::Queued | Self::NotToBeCancelled | Self::Ended)
    }
}

/// Returns which calls may see the single steps of another one. A cancellation claims the task,
/// drops the closure, and then publishes the outcome. A submission that a closing pool refuses was
/// admitted for a moment, or for as long as it waited for room.
fn excuses(events: &[Event]) -> Vec<bool> {
    let at_the_same_time = |one: &Event, two: &Event| one.began < two.returned && two.began < one.returned;
    let takes_steps = |seen: Call, other: &Event| match (other.call, other.answer) {
        (Call::Cancel(task), Answer::Yes) => matches!(seen, Call::IsIdle) || seen == Call::IsFinished(task),
        (Call::Submit(_), Answer::ShutDown) => matches!(seen, Call::IsIdle),
        _ => false,
    };
    let excused =
        |event: &Event| events.iter().any(|other| takes_steps(event.call, other) && at_the_same_time(event, other));
    events.iter().map(excused).collect()
}

/// Returns whether there is an order in which a sequential pool gives the same answers.
#[must_use]
pub fn is_linearizable(events: &[Event]) -> bool {
    assert!(events.len() <= 64, "a set of calls is a word");
    let tasks = events.len();
    let start = Spec { tasks: vec![State::Unknown; tasks], closed: false };
    let excused = excuses(events);
    let mut seen = HashSet::new();
    let mut places = vec![(0_u64, start)];
    while let Some((done, spec)) = places.pop() {
        if done.count_ones() as usize == events.len() {
            return true;
        }
        let left = || events.iter().enumerate().filter(|(place, _)| done & (1 << place) == 0);
        let first_return = left().map(|(_, event)| event.returned).min().unwrap_or(u64::MAX);
        for (place, event) in left() {
            if event.began > first_return {
                continue; // another call had returned before this one began
            }
            if let Some(next) = spec.after(event, excused[place]) {
                let place = (done | 1 << place, next);
                if seen.insert(place.clone()) {
                    places.push(place);
                }
            }
        }
    }
    false
}

/// The state that the threads of one history share.
struct Stage {
    pool: WorkerPool,
    clock: AtomicU64,
    /// The handle of each task that was accepted.
    handles: Vec<OnceLock<JoinHandle<usize>>>,
    /// The number of tasks submitted so far.
    submitted: AtomicUsize,
    ran: Vec<AtomicUsize>,
}

/// Records one history.
///
/// # Panics
///
/// Panics if a task ran twice, or ran and was cancelled, or has an outcome without a reason.
#[must_use]
pub fn record(seed: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed);
    let workers = 1 + rng.below(3);
    let pool = WorkerPool::builder().workers(workers).queue_capacity(rng.pick(&[1, 2, 64])).build();
    let places = THREADS * CALLS;
    let stage = Arc::new(Stage {
        pool: pool.expect("a small pool can be built"),
        clock: AtomicU64::new(0),
        handles: (0..places).map(|_| OnceLock::new()).collect(),
        submitted: AtomicUsize::new(0),
        ran: (0..places).map(|_| AtomicUsize::new(0)).collect(),
    });
    let start = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (stage, start, mut rng) = (Arc::clone(&stage), Arc::clone(&start), rng.fork());
            thread::spawn(move || {
                start.wait();
                (0..1 + rng.below(CALLS)).filter_map(|_| call(&stage, &mut rng)).collect::<Vec<_>>()
            })
        })
        .collect();
    let events: Vec<Event> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    check_outcomes(stage, &events);
    events
}

/// Makes one call and records it. Returns `None` if there is no task to call for.
fn call(stage: &Arc<Stage>, rng: &mut Rng) -> Option<Event> {
    let known = stage.submitted.load(SeqCst).min(stage.handles.len());
    let call = match rng.below(14) {
        0..=4 => Call::Submit(stage.submitted.fetch_add(1, SeqCst)),
        5 | 6 => Call::Cancel(rng.below(known.max(1))),
        7 => Call::IsFinished(rng.below(known.max(1))),
        8 => Call::WaitFor(rng.below(known.max(1))),
        9 => rng.pick(&[Call::Close, Call::ShutdownNow, Call::IsShutDown]),
        10 => Call::IsShutDown,
        11 | 12 => Call::IsIdle,
        _ => Call::WaitIdle,
    };
    let handle = match call {
        Call::Cancel(task) | Call::IsFinished(task) | Call::WaitFor(task) => Some(stage.handles[task].get()?),
        _ => None,
    };
    let yes = |yes: bool| if yes { Answer::Yes } else { Answer::No };
    let began = stage.clock.fetch_add(1, SeqCst);
    let answer = match (call, handle) {
        (Call::Submit(task), _) => {
            let inner = Arc::clone(stage);
            let job = move || {
                inner.ran[task].fetch_add(1, SeqCst);
                task
            };
            match stage.pool.spawn(job) {
                Ok(handle) => {
                    // Other threads may use the handle before this call has returned in the history.
                    // That is fine, since the call has taken effect.
                    let first = stage.handles[task].set(handle).is_ok();
                    assert!(first, "each task is submitted once");
                    Answer::Accepted
                }
                Err(_) => Answer::ShutDown,
            }
        }
        (Call::Cancel(_), Some(handle)) => yes(handle.cancel()),
        (Call::IsFinished(_), Some(handle)) => yes(handle.is_finished()),
        (Call::WaitFor(_), Some(handle)) => {
            assert!(handle.wait_timeout(Duration::from_secs(60)), "a task does not end");
            Answer::Done
        }
        (Call::Close, _) => {
            stage.pool.close();
            Answer::Done
        }
        (Call::ShutdownNow, _) => {
            stage.pool.shutdown_now();
            Answer::Done
        }
        (Call::IsShutDown, _) => yes(stage.pool.is_shut_down()),
        (Call::IsIdle, _) => yes(stage.pool.wait_idle_timeout(Duration::ZERO)),
        _ => {
            stage.pool.wait_idle();
            Answer::Done
        }
    };
    let returned = stage.clock.fetch_add(1, SeqCst);
    Some(Event { call, answer, began, returned })
}

/// Checks the result of every join against the answers of the history.
fn check_outcomes(stage: Arc<Stage>, events: &[Event]) {
    stage.pool.shutdown();
    let answered = |call: Call, answer: Answer| events.iter().any(|event| event.call == call && event.answer == answer);
    let was_shut_down_now = answered(Call::ShutdownNow, Answer::Done);
    for (task, handle) in stage.handles.iter().enumerate() {
        let runs = stage.ran[task].load(SeqCst);
        let Some(handle) = handle.get() else {
            assert_eq!(runs, 0, "task {task} was refused and ran");
            continue;
        };
        assert!(handle.is_finished());
        let cancelled = answered(Call::Cancel(task), Answer::Yes);
        assert!(runs <= usize::from(!cancelled), "task {task} ran {runs} times, cancelled: {cancelled}");
        assert!(runs == 1 || cancelled || was_shut_down_now, "task {task} was lost");
    }
    // The closures hold the stage; all of them are dropped now.
    let stage = Arc::into_inner(stage).expect("every closure is gone");
    for (task, handle) in stage.handles.into_iter().enumerate() {
        let Some(handle) = handle.into_inner() else { continue };
        match handle.join() {
            Ok(value) => assert!(value == task && stage.ran[task].load(SeqCst) == 1),
            Err(JoinError::Cancelled(CancelReason::Requested)) => assert!(answered(Call::Cancel(task), Answer::Yes)),
            Err(JoinError::Cancelled(CancelReason::ShutDown)) => assert!(was_shut_down_now),
            Err(other) => panic!("task {task}: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(call: Call, answer: Answer, began: u64, returned: u64) -> Event {
        Event { call, answer, began, returned }
    }

    #[test]
    fn overlapping_calls_may_take_either_order_and_others_may_not() {
        let accepted = event(Call::Submit(0), Answer::Accepted, 0, 3);
        let closed = event(Call::Close, Answer::Done, 1, 2);
        assert!(is_linearizable(&[accepted, closed]));
        let late = event(Call::Submit(0), Answer::Accepted, 4, 5);
        assert!(!is_linearizable(&[closed, late]));
        let refused = event(Call::Submit(0), Answer::ShutDown, 4, 5);
        assert!(is_linearizable(&[closed, refused]));
    }

    #[test]
    fn a_task_is_cancelled_once_and_not_after_it_was_seen_to_end() {
        let accepted = event(Call::Submit(0), Answer::Accepted, 0, 1);
        let cancelled = |began| event(Call::Cancel(0), Answer::Yes, began, began + 1);
        assert!(is_linearizable(&[accepted, cancelled(2)]));
        assert!(!is_linearizable(&[accepted, cancelled(2), cancelled(4)]));
        let ended = event(Call::IsFinished(0), Answer::Yes, 2, 3);
        assert!(!is_linearizable(&[accepted, ended, cancelled(4)]));
        assert!(is_linearizable(&[accepted, cancelled(2), event(Call::WaitFor(0), Answer::Done, 4, 5)]));
    }

    #[test]
    fn idle_means_that_accepted_tasks_have_ended() {
        let accepted = event(Call::Submit(0), Answer::Accepted, 0, 1);
        let idle = event(Call::WaitIdle, Answer::Done, 2, 3);
        let unfinished = event(Call::IsFinished(0), Answer::No, 4, 5);
        assert!(!is_linearizable(&[accepted, idle, unfinished]));
        let early = event(Call::IsFinished(0), Answer::No, 1, 3);
        assert!(is_linearizable(&[accepted, early, idle]));
        assert!(!is_linearizable(&[accepted, idle, event(Call::IsIdle, Answer::No, 4, 5)]));
        assert!(!is_linearizable(&[
            event(Call::IsIdle, Answer::No, 0, 1),
            event(Call::Submit(0), Answer::Accepted, 2, 3)
        ]));
    }
}
