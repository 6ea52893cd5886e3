//! A pool whose tasks wait at gates, and its model.
//!
//! While every started task waits at its gate, a pool changes only by the steps of the program, and
//! workers take the oldest entries, one each. So the model predicts after each step which tasks
//! have started, how long the queue is, and the metrics.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use workcrew::{BuildError, CancelReason, JoinError, JoinHandle, WorkerPool};

use crate::gates::{Gate, Order, Started, agree};

/// One step of a program. A number selects among the existing tasks, so every program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `try_spawn` a task.
    Spawn,
    /// `try_execute` a job.
    Execute,
    /// Let a running task return.
    Succeed(u8),
    /// Let a running task panic.
    TaskPanic(u8),
    /// Cancel a task through its handle.
    Cancel(u8),
    /// Join a task that has ended, or check that one has not.
    Join(u8),
    /// Let a running task join another.
    JoinInside(u8, u8),
    /// Drop a handle.
    Detach(u8),
    /// Change the number of workers.
    Resize(u8),
    /// Close the pool.
    Close,
    /// Cancel the queued tasks.
    ShutdownNow,
}

impl Step {
    /// Makes a step from three bytes.
    #[must_use]
    pub fn from_bytes([kind, one, two]: [u8; 3]) -> Self {
        match kind % 16 {
            0..=3 => Self::Spawn,
            4 => Self::Execute,
            5 | 6 => Self::Succeed(one),
            7 => Self::TaskPanic(one),
            8 => Self::Cancel(one),
            9 => Self::Join(one),
            10..=12 => Self::JoinInside(one, two),
            13 => Self::Detach(one),
            14 => Self::Resize(one),
            _ if one > 40 => Self::Spawn,
            _ if two % 2 == 0 => Self::Close,
            _ => Self::ShutdownNow,
        }
    }
}

/// Where a task is, in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    /// On a worker. `on` is the task whose join runs it, if any.
    Running {
        on: Option<usize>,
    },
    Succeeded,
    Panicked,
    Cancelled(CancelReason),
}

/// A task in the model.
struct Task {
    state: State,
    gate: Gate,
    handle: Option<JoinHandle<usize>>,
    /// The task that it joins now.
    joins: Option<usize>,
}

/// The real pool and the model beside it.
struct Machine {
    pool: WorkerPool,
    started: Started,
    workers: usize,
    capacity: usize,
    tasks: Vec<Task>,
    /// Entries of the queue. A task that was cancelled or run by a join keeps its entry.
    queue: VecDeque<usize>,
    has_started: Vec<usize>,
    refused: u64,
    closed: bool,
    /// Workers that have started and not stopped.
    alive: Arc<AtomicUsize>,
}

/// Applies the steps to a pool and to the model.
///
/// # Errors
///
/// Returns the first difference.
pub fn run(workers: usize, capacity: usize, steps: &[Step]) -> Result<(), String> {
    let alive = Arc::new(AtomicUsize::new(0));
    let (start, stop) = (Arc::clone(&alive), Arc::clone(&alive));
    let builder = WorkerPool::builder().workers(workers).queue_capacity(capacity);
    let builder = builder.on_thread_start(move |_| {
        start.fetch_add(1, SeqCst);
    });
    let pool = builder
        .on_thread_stop(move |_| {
            stop.fetch_sub(1, SeqCst);
        })
        .build();
    let mut machine = Machine {
        pool: pool.map_err(|error| error.to_string())?,
        started: Started::default(),
        workers,
        capacity,
        tasks: Vec::new(),
        queue: VecDeque::new(),
        has_started: Vec::new(),
        refused: 0,
        closed: false,
        alive,
    };
    for (number, step) in steps.iter().enumerate() {
        let done = machine.step(*step).and_then(|()| machine.settle());
        done.map_err(|error| format!("step {number}, {step:?}: {error}"))?;
    }
    machine.end()
}

impl Machine {
    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Spawn | Step::Execute => self.submit(step == Step::Spawn),
            Step::Succeed(which) => self.let_end(which, Order::Succeed, State::Succeeded),
            Step::TaskPanic(which) => self.let_end(which, Order::Panic, State::Panicked),
            Step::Cancel(which) => self.cancel(which),
            Step::Join(which) => self.join(which),
            Step::JoinInside(who, which) => self.join_inside(who, which),
            Step::Detach(which) => {
                if let Some(task) = self.pick_handle(which) {
                    self.tasks[task].handle = None;
                }
                Ok(())
            }
            Step::Resize(to) => self.resize(1 + usize::from(to % 3)),
            Step::Close => {
                self.pool.close();
                self.closed = true;
                Ok(())
            }
            Step::ShutdownNow => self.shutdown_now(),
        }
    }

    fn submit(&mut self, with_handle: bool) -> Result<(), String> {
        let number = self.tasks.len();
        let (gate, body) = Gate::new(number, &self.started);
        let body = move || body().unwrap_or_else(|number| number);
        let answer = if with_handle {
            self.pool.try_spawn(body).map(Some).map_err(|error| (error.is_full(), error.is_shut_down()))
        } else {
            let job = move || {
                body();
            };
            self.pool.try_execute(job).map(|()| None).map_err(|error| (error.is_full(), error.is_shut_down()))
        };
        let expected = if self.closed {
            Err((false, true))
        } else if self.queue.len() >= self.capacity {
            Err((true, false))
        } else {
            Ok(())
        };
        let found = answer.as_ref().map(|_| ()).map_err(|refusal| *refusal);
        if found != expected {
            return Err(format!("the model answers {expected:?}, the pool {found:?}"));
        }
        match answer {
            Ok(handle) => {
                self.tasks.push(Task { state: State::Queued, gate, handle, joins: None });
                self.queue.push_back(number);
            }
            Err(_) => self.refused += 1,
        }
        Ok(())
    }

    /// Ends one of the tasks that run and wait for no other.
    fn let_end(&mut self, which: u8, order: Order, state: State) -> Result<(), String> {
        let Some(task) = self.pick(which, |task| matches!(task.state, State::Running { .. }) && task.joins.is_none())
        else {
            return Ok(());
        };
        self.tasks[task].gate.order(order);
        self.tasks[task].state = state;
        self.notify_joiners(task)
    }

    /// Gives the outcome of the task to the tasks that join it.
    fn notify_joiners(&mut self, ended: usize) -> Result<(), String> {
        for joiner in 0..self.tasks.len() {
            if self.tasks[joiner].joins == Some(ended) {
                self.tasks[joiner].joins = None;
                let outcome = self.tasks[joiner].gate.joined()?;
                self.check_outcome(ended, &outcome)?;
            }
        }
        Ok(())
    }

    fn cancel(&mut self, which: u8) -> Result<(), String> {
        let Some(task) = self.pick_handle(which) else { return Ok(()) };
        let never_runs = self.tasks[task].handle.as_ref().expect("it was picked by its handle").cancel();
        let was_queued = self.tasks[task].state == State::Queued;
        if was_queued {
            self.tasks[task].state = State::Cancelled(CancelReason::Requested);
        }
        if never_runs == was_queued { Ok(()) } else { Err(format!("cancel of task {task} answers {never_runs}")) }
    }

    fn join(&mut self, which: u8) -> Result<(), String> {
        let Some(task) = self.pick_handle(which) else { return Ok(()) };
        let has_ended = !matches!(self.tasks[task].state, State::Queued | State::Running { .. });
        let handle = self.tasks[task].handle.take().expect("it was picked by its handle");
        if handle.is_finished() != has_ended || handle.wait_timeout(Duration::ZERO) != has_ended {
            return Err(format!("task {task} has ended: the model says {has_ended}"));
        }
        if has_ended {
            return self.check_outcome(task, &handle.join());
        }
        self.tasks[task].handle = Some(handle);
        Ok(())
    }

    /// Lets a running task join another: it runs it, waits for it, or gets `WouldDeadlock`.
    fn join_inside(&mut self, who: u8, which: u8) -> Result<(), String> {
        let is_free = |task: &Task| matches!(task.state, State::Running { .. }) && task.joins.is_none();
        let (Some(joiner), Some(task)) = (self.pick(who, is_free), self.pick_handle(which)) else { return Ok(()) };
        let on_this_stack = self.stack_of(joiner).contains(&task);
        if !on_this_stack && self.waits_for(task, joiner) {
            return Ok(()); // the two would wait for each other, which is the program's fault
        }
        let handle = self.tasks[task].handle.take().expect("it was picked by its handle");
        self.tasks[joiner].gate.order(Order::Join(handle));
        if on_this_stack {
            return match self.tasks[joiner].gate.joined()? {
                Err(JoinError::WouldDeadlock(_)) => Ok(()),
                other => Err(format!("task {joiner} joins {task} below it: {other:?}")),
            };
        }
        match self.tasks[task].state {
            State::Queued => {
                self.tasks[task].state = State::Running { on: Some(joiner) };
                self.tasks[joiner].joins = Some(task);
                self.has_started.push(task);
            }
            State::Running { .. } => self.tasks[joiner].joins = Some(task),
            _ => {
                let outcome = self.tasks[joiner].gate.joined()?;
                self.check_outcome(task, &outcome)?;
            }
        }
        Ok(())
    }

    fn resize(&mut self, workers: usize) -> Result<(), String> {
        match (self.pool.resize(workers), self.closed) {
            (Ok(()), false) => {
                self.workers = workers;
                Ok(())
            }
            (Err(BuildError::ShutDown), true) => Ok(()),
            (answer, _) => Err(format!("resize answers {answer:?}")),
        }
    }

    fn shutdown_now(&mut self) -> Result<(), String> {
        let queued: Vec<usize> =
            (0..self.tasks.len()).filter(|task| self.tasks[*task].state == State::Queued).collect();
        let running = self.running();
        let report = self.pool.shutdown_now();
        self.closed = true;
        self.queue.clear();
        for task in &queued {
            self.tasks[*task].state = State::Cancelled(CancelReason::ShutDown);
        }
        let expected = (running == 0 && queued.is_empty(), queued.len(), running);
        let found = (report.drained, report.tasks_cancelled, report.tasks_running);
        if found == expected { Ok(()) } else { Err(format!("the model reports {expected:?}, the pool {found:?}")) }
    }

    /// Starts all tasks that can start in the model, and waits until the pool agrees.
    fn settle(&mut self) -> Result<(), String> {
        while self.busy_workers() < self.workers {
            let Some(task) = self.queue.pop_front() else { break };
            if self.tasks[task].state == State::Queued {
                self.tasks[task].state = State::Running { on: None };
                self.has_started.push(task);
            }
        }
        self.has_started.sort_unstable();
        agree("started", &self.has_started, || self.started.sorted())?;
        agree("queue length", &self.queue.len(), || self.pool.queue_len())?;
        agree("metrics", &self.metrics(), || {
            let m = self.pool.metrics();
            let ends = [m.tasks_succeeded, m.tasks_panicked, m.tasks_cancelled];
            (m.tasks_submitted, ends, [m.tasks_queued, m.tasks_running, m.tasks_refused])
        })?;
        let quiet = self.tasks.iter().all(|task| !matches!(task.state, State::Queued | State::Running { .. }));
        agree("quiet", &quiet, || self.pool.wait_idle_timeout(Duration::ZERO))?;
        agree("workers", &self.workers, || self.pool.workers())?;
        // A surplus worker ends when it is idle, and every worker when the pool is drained.
        let alive = if self.closed && quiet { 0 } else { self.workers.max(self.busy_workers()) };
        agree("threads", &alive, || self.alive.load(SeqCst))?;
        agree("shut down", &self.closed, || self.pool.is_shut_down())
    }

    /// Ends all tasks and checks the final metrics.
    fn end(mut self) -> Result<(), String> {
        while let Some(task) = (0..self.tasks.len()).rev().find(|task| self.is_free(*task)) {
            let which = self.tasks.iter().take(task).filter(|task| is_free(task)).count();
            let which = u8::try_from(which).map_err(|error| error.to_string())?;
            self.let_end(which, Order::Succeed, State::Succeeded)?;
            self.settle()?;
        }
        self.pool.shutdown();
        self.closed = true;
        self.settle()?;
        for task in 0..self.tasks.len() {
            if let Some(handle) = self.tasks[task].handle.take() {
                self.check_outcome(task, &handle.join())?;
            }
        }
        Ok(())
    }

    fn check_outcome(&self, task: usize, outcome: &Result<usize, JoinError>) -> Result<(), String> {
        let agrees = match (outcome, self.tasks[task].state) {
            (Ok(value), State::Succeeded) => *value == task,
            (Err(JoinError::Panicked(_)), State::Panicked) => true,
            (Err(JoinError::Cancelled(found)), State::Cancelled(reason)) => *found == reason,
            _ => false,
        };
        let state = self.tasks[task].state;
        if agrees { Ok(()) } else { Err(format!("task {task} is {state:?}, its joiner learns {outcome:?}")) }
    }

    /// Returns one of the tasks for which `test` is true; `which` selects it.
    fn pick(&self, which: u8, test: impl Fn(&Task) -> bool) -> Option<usize> {
        let candidates: Vec<usize> = (0..self.tasks.len()).filter(|task| test(&self.tasks[*task])).collect();
        candidates.get(usize::from(which).checked_rem(candidates.len())?).copied()
    }

    fn pick_handle(&self, which: u8) -> Option<usize> {
        self.pick(which, |task| task.handle.is_some())
    }

    fn is_free(&self, task: usize) -> bool {
        is_free(&self.tasks[task])
    }

    /// Returns the task and those below it on its worker's stack.
    fn stack_of(&self, task: usize) -> Vec<usize> {
        let mut stack = vec![task];
        while let Some(State::Running { on: Some(below) }) = stack.last().map(|top| self.tasks[*top].state) {
            stack.push(below);
        }
        stack
    }

    /// Returns whether `task` cannot end before `other` takes a step.
    fn waits_for(&self, task: usize, other: usize) -> bool {
        let mut current = Some(task);
        while let Some(task) = current {
            if self.stack_of(other).contains(&task) {
                return true;
            }
            current = self.tasks[task].joins;
        }
        false
    }

    fn running(&self) -> usize {
        self.tasks.iter().filter(|task| matches!(task.state, State::Running { .. })).count()
    }

    /// Returns the number of workers that have a task.
    fn busy_workers(&self) -> usize {
        self.tasks.iter().filter(|task| matches!(task.state, State::Running { on: None })).count()
    }

    /// Returns the expected metrics: submitted; succeeded, panicked, cancelled; queued, running,
    /// refused.
    fn metrics(&self) -> (u64, [u64; 3], [u64; 3]) {
        let count = |test: fn(State) -> bool| self.tasks.iter().filter(|task| test(task.state)).count() as u64;
        let ends = [
            count(|state| state == State::Succeeded),
            count(|state| state == State::Panicked),
            count(|state| matches!(state, State::Cancelled(_))),
        ];
        let queued = count(|state| state == State::Queued);
        (self.tasks.len() as u64, ends, [queued, self.running() as u64, self.refused])
    }
}

/// Returns whether it runs and waits for no other.
fn is_free(task: &Task) -> bool {
    matches!(task.state, State::Running { .. }) && task.joins.is_none()
}
