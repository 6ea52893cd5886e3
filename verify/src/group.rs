//! A group whose tasks wait at gates, and its model.
//!
//! The pool runs nothing else, so the oldest tasks of the group start, as many as its limit and the
//! workers allow. Tasks end one at a time, so it is known which failure or success came first.

use std::collections::VecDeque;

use workcrew::{CancelReason, GroupError, GroupPolicy, Progress, TaskError, TaskFailure, TaskGroup, WorkerPool};

use crate::gates::{Gate, Order, Started, agree};

/// One step of a program. A number selects among the existing tasks, so every program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add a task if there is room.
    TrySpawn,
    /// Let a running task return its value.
    Succeed(u8),
    /// Let a running task return an error.
    Fail(u8),
    /// Let a running task panic.
    TaskPanic(u8),
    /// Cancel the group.
    Cancel,
    /// Cancel the group through its token.
    CancelToken,
    /// Change the number of workers.
    Resize(u8),
    /// Cancel the queued tasks of the pool.
    ShutdownNow,
}

impl Step {
    /// Makes a step from two bytes.
    #[must_use]
    pub fn from_bytes([kind, which]: [u8; 2]) -> Self {
        match kind % 16 {
            0..=7 => Self::TrySpawn,
            8..=10 => Self::Succeed(which),
            11 => Self::Fail(which),
            12 => Self::TaskPanic(which),
            13 => Self::Resize(which),
            _ if which > 60 => Self::TrySpawn,
            14 if which % 2 == 0 => Self::Cancel,
            14 => Self::CancelToken,
            _ => Self::ShutdownNow,
        }
    }
}

/// The settings of the group.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The workers of the pool.
    pub workers: usize,
    /// The maximum number of running tasks.
    pub limit: usize,
    /// The maximum number of waiting tasks.
    pub capacity: usize,
    /// When the group cancels its other tasks.
    pub policy: GroupPolicy,
}

impl Settings {
    /// Makes settings from four bytes.
    #[must_use]
    pub fn from_bytes([workers, limit, capacity, policy]: [u8; 4]) -> Self {
        Self {
            workers: 1 + usize::from(workers % 3),
            limit: [1, 2, 3, usize::MAX][usize::from(limit % 4)],
            capacity: [1, 2, 5, 64][usize::from(capacity % 4)],
            policy: [GroupPolicy::FailFast, GroupPolicy::CollectAll, GroupPolicy::FirstSuccess]
                [usize::from(policy % 3)],
        }
    }
}

/// How a task ended, in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Succeeded,
    Failed,
    Panicked,
    Cancelled(CancelReason),
}

/// The real group and the model beside it.
struct Machine {
    pool: WorkerPool,
    group: TaskGroup<Result<usize, usize>>,
    started: Started,
    settings: Settings,
    gates: Vec<Gate>,
    unstarted: VecDeque<usize>,
    running: Vec<usize>,
    ends: Vec<Option<End>>,
    has_started: Vec<usize>,
    closed: Option<CancelReason>,
    pool_closed: bool,
    /// The task that failed or panicked first, and the one that succeeded first.
    first_failure: Option<usize>,
    first_success: Option<usize>,
}

/// Applies the steps to a group and to the model. `waits` selects how it waits at the end.
///
/// # Errors
///
/// Returns the first difference.
pub fn run(settings: Settings, steps: &[Step], waits: u8) -> Result<(), String> {
    let Settings { workers, limit, capacity, policy } = settings;
    let pool = WorkerPool::builder().workers(workers).queue_capacity(1).build().map_err(|error| error.to_string())?;
    let group = pool.group().limit(limit).capacity(capacity).policy(policy);
    let _ = group.token(); // a group begins with its first use
    let mut machine = Machine {
        pool,
        group,
        started: Started::default(),
        settings,
        gates: Vec::new(),
        unstarted: VecDeque::new(),
        running: Vec::new(),
        ends: Vec::new(),
        has_started: Vec::new(),
        closed: None,
        pool_closed: false,
        first_failure: None,
        first_success: None,
    };
    for (number, step) in steps.iter().enumerate() {
        let done = machine.step(*step).and_then(|()| machine.settle());
        done.map_err(|error| format!("step {number}, {step:?}: {error}"))?;
    }
    while !machine.running.is_empty() {
        machine.let_end(0, Order::Succeed, End::Succeeded);
        machine.settle().map_err(|error| format!("at the end: {error}"))?;
    }
    machine.wait(waits)
}

impl Machine {
    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::TrySpawn => self.try_spawn()?,
            Step::Succeed(which) => self.let_end(which, Order::Succeed, End::Succeeded),
            Step::Fail(which) => self.let_end(which, Order::Fail, End::Failed),
            Step::TaskPanic(which) => self.let_end(which, Order::Panic, End::Panicked),
            Step::Cancel => {
                self.group.cancel();
                self.close(CancelReason::Requested);
            }
            Step::CancelToken => {
                self.group.token().cancel();
                self.close(CancelReason::Requested);
            }
            Step::Resize(to) => {
                let workers = 1 + usize::from(to % 3);
                // A worker that leaves may take one more task on its way, so a pool shrinks here
                // only when it is full.
                if workers >= self.settings.workers && self.pool.resize(workers).is_ok() {
                    self.settings.workers = workers;
                }
            }
            Step::ShutdownNow => {
                self.pool.shutdown_now();
                self.pool_closed = true;
                self.close(CancelReason::ShutDown);
            }
        }
        Ok(())
    }

    fn try_spawn(&mut self) -> Result<(), String> {
        let number = self.gates.len();
        let (gate, body) = Gate::new(number, &self.started);
        let found = self.group.try_spawn(body).map_err(|error| (error.is_full(), error.is_shut_down()));
        let expected = if self.pool_closed || self.closed.is_some() {
            Err((false, true))
        } else if self.unstarted.len() >= self.settings.capacity {
            Err((true, false))
        } else {
            Ok(())
        };
        if found.is_ok() {
            self.gates.push(gate);
            self.ends.push(None);
            self.unstarted.push_back(number);
        }
        if found == expected { Ok(()) } else { Err(format!("the model answers {expected:?}, the group {found:?}")) }
    }

    fn let_end(&mut self, which: u8, order: Order, end: End) {
        let Some(place) = usize::from(which).checked_rem(self.running.len()) else { return };
        let task = self.running.remove(place);
        self.gates[task].order(order);
        self.ends[task] = Some(end);
        if end == End::Succeeded {
            self.first_success.get_or_insert(task);
        } else {
            self.first_failure.get_or_insert(task);
        }
        let decides = match self.settings.policy {
            GroupPolicy::FailFast => end != End::Succeeded,
            GroupPolicy::FirstSuccess => end == End::Succeeded,
            _ => false,
        };
        if decides {
            self.close(CancelReason::GroupEnded);
        }
    }

    fn close(&mut self, reason: CancelReason) {
        if self.closed.is_none() {
            self.closed = Some(reason);
            for task in self.unstarted.drain(..) {
                self.ends[task] = Some(End::Cancelled(reason));
            }
        }
    }

    /// Starts all tasks that can start in the model, and waits until the group agrees.
    fn settle(&mut self) -> Result<(), String> {
        while self.running.len() < self.settings.limit.min(self.settings.workers) {
            let Some(task) = self.unstarted.pop_front() else { break };
            self.running.push(task);
            self.has_started.push(task);
        }
        agree("started", &self.has_started, || self.started.sorted())?;
        let done = self.ends.iter().flatten().count();
        agree("progress", &(done, self.gates.len()), || {
            let Progress { done, total, .. } = self.group.progress();
            (done, total)
        })?;
        agree("cancelled", &self.closed, || self.group.token().reason())?;
        agree("quiet", &(done == self.gates.len()), || self.pool.wait_idle_timeout(std::time::Duration::ZERO))
    }

    fn wait(self, waits: u8) -> Result<(), String> {
        let Self { group, ends, pool, settings, first_failure, first_success, .. } = self;
        let ends: Vec<End> = ends.into_iter().flatten().collect();
        match waits % 4 {
            0 => check_all(&ends, &group.wait_all())?,
            1 => check_wait(&ends, settings.policy, first_failure, first_success, &group.wait_with_task())?,
            2 => match (group.wait_any(), first_success) {
                (Ok(value), Some(first)) if value == first => {}
                (Err(_), None) => {}
                (answer, first) => return Err(format!("wait_any: the model says {first:?}, the group {answer:?}")),
            },
            _ => {
                let mut group = group;
                let mut seen: Vec<_> = group.completions().collect();
                seen.sort_by_key(|(index, _)| *index);
                if !seen.iter().map(|(index, _)| *index).eq(0..ends.len()) {
                    return Err(format!("completions: {seen:?}"));
                }
                check_all(&ends, &seen.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>())?;
            }
        }
        pool.shutdown();
        let metrics = pool.metrics();
        let count = |end: fn(&End) -> bool| ends.iter().filter(|other| end(other)).count() as u64;
        let expected = [
            count(|end| *end == End::Succeeded),
            count(|end| *end == End::Failed),
            count(|end| *end == End::Panicked),
            count(|end| matches!(end, End::Cancelled(_))),
        ];
        agree("books", &expected, || {
            [metrics.tasks_succeeded, metrics.tasks_failed, metrics.tasks_panicked, metrics.tasks_cancelled]
        })
    }
}

/// Returns every outcome, in the order of spawning.
fn check_all(ends: &[End], outcomes: &[Result<usize, TaskError<usize>>]) -> Result<(), String> {
    for (index, (end, outcome)) in ends.iter().zip(outcomes).enumerate() {
        let agrees = match (end, outcome) {
            (End::Succeeded, Ok(value)) => *value == index,
            (End::Failed, Err(TaskError::Failed(value))) => *value == index,
            (End::Panicked, Err(TaskError::Panicked(_))) => true,
            (End::Cancelled(reason), Err(TaskError::Cancelled(found))) => reason == found,
            _ => false,
        };
        if !agrees {
            return Err(format!("task {index}: the model says {end:?}, the group {outcome:?}"));
        }
    }
    if ends.len() == outcomes.len() { Ok(()) } else { Err(format!("{} outcomes", outcomes.len())) }
}

/// Checks for all values, or the first failure.
fn check_wait(
    ends: &[End],
    policy: GroupPolicy,
    first_failure: Option<usize>,
    first_success: Option<usize>,
    answer: &Result<Vec<usize>, GroupError<TaskFailure<usize>>>,
) -> Result<(), String> {
    let values: Vec<usize> = (0..ends.len()).filter(|task| ends[*task] == End::Succeeded).collect();
    let is_success = values.len() == ends.len() || (policy == GroupPolicy::FirstSuccess && first_success.is_some());
    let agrees = match answer {
        Ok(found) => is_success && *found == values,
        Err(GroupError::Failed(failure)) => {
            let task = failure.error;
            !is_success
                && first_failure == Some(task)
                && ends[task] == End::Failed
                && failure.task().index() == Some(task)
        }
        Err(GroupError::Panicked(_)) => !is_success && first_failure.is_some_and(|task| ends[task] == End::Panicked),
        Err(GroupError::Cancelled(reason)) => {
            !is_success && first_failure.is_none() && ends.contains(&End::Cancelled(*reason))
        }
        Err(_) => false,
    };
    if agrees { Ok(()) } else { Err(format!("wait: the model says {ends:?}, the group {answer:?}")) }
}
