//! Random programs of tasks that wait for each other, checked against a model: some wait is refused exactly if the
//! waits of the model can never end, and no program hangs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/rng.rs"]
mod rng;

use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Counter, Gate, pool, quiet_panics, with_watchdog};
use rng::Rng;
use workcrew::{GroupError, JoinHandle, TaskGroup, WorkerPool};

/// What a task of a program does once all have started.
#[derive(Clone, Debug)]
enum Wait {
    /// Ends at once.
    Ends,
    /// Joins a task.
    Join(usize),
    /// Waits for a group with one member for each of these tasks; the member joins the task.
    All(Vec<usize>),
    /// The same, for the first of them.
    First(Vec<usize>),
    /// The same, for the next outcome.
    Next(Vec<usize>),
}

impl Wait {
    /// Returns a random wait of the task `own` of `tasks` tasks.
    fn random(rng: &mut Rng, own: usize, tasks: usize) -> Self {
        let others = |rng: &mut Rng| {
            let number = 1 + rng.below(3);
            let mut others: Vec<usize> = (0..number).map(|_| rng.below(tasks)).filter(|other| *other != own).collect();
            others.sort_unstable();
            others.dedup();
            others
        };
        let others = others(rng);
        match (rng.below(8), &*others) {
            (0, _) | (_, []) => Self::Ends,
            (1 | 2, [one, ..]) => Self::Join(*one),
            (3, _) => Self::All(others),
            (4 | 5, _) => Self::First(others),
            _ => Self::Next(others),
        }
    }

    /// Returns the tasks that members of a group join.
    fn members(&self) -> &[usize] {
        match self {
            Self::Ends | Self::Join(_) => &[],
            Self::All(others) | Self::First(others) | Self::Next(others) => others,
        }
    }

    /// Returns `true` if the wait ends once these tasks have ended.
    fn can_end(&self, ended: &[bool]) -> bool {
        match self {
            Self::Ends => true,
            Self::Join(other) => ended[*other],
            Self::All(others) => others.iter().all(|other| ended[*other]),
            Self::First(others) | Self::Next(others) => others.iter().any(|other| ended[*other]),
        }
    }
}

/// Returns `true` if every task of the program can end.
fn ends(program: &[Wait]) -> bool {
    let mut ended = vec![false; program.len()];
    loop {
        let before = ended.clone();
        for (own, wait) in program.iter().enumerate() {
            ended[own] |= wait.can_end(&before);
        }
        if ended == before {
            return ended.iter().all(|ended| *ended);
        }
    }
}

/// The tasks of a program, which any of them may join.
type Handles = Arc<common::Mutex<Vec<Arc<JoinHandle<()>>>>>;

/// What the tasks share.
#[derive(Clone)]
struct Run {
    /// The pool of the members.
    members: WorkerPool,
    handles: Handles,
    refused: Counter,
}

impl Run {
    fn join(&self, task: usize) -> Result<(), ()> {
        let handle = Arc::clone(&self.handles.lock().unwrap()[task]);
        let ended = handle.wait_timeout(Duration::MAX);
        if !ended {
            self.refused.add();
        }
        if ended { Ok(()) } else { Err(()) }
    }

    /// Returns a group with a member for each task, which joins the task. The member passes the gate first.
    fn group(&self, tasks: &[usize], gate: &Gate) -> TaskGroup<Result<(), ()>> {
        let group = self.members.group().policy(workcrew::GroupPolicy::CollectAll);
        for task in tasks.iter().copied() {
            let (run, gate) = (self.clone(), gate.clone());
            group.spawn(move || {
                gate.pass();
                run.join(task)
            });
        }
        group
    }

    fn wait(&self, wait: &Wait, mut group: TaskGroup<Result<(), ()>>) {
        let note = |error: GroupError<()>| {
            if matches!(error, GroupError::WouldDeadlock(_)) {
                self.refused.add();
            }
        };
        match wait {
            Wait::Ends => {}
            Wait::Join(task) => drop(self.join(*task)),
            Wait::All(_) => drop(group.wait().map_err(note)),
            Wait::First(_) => drop(group.wait_any().map_err(note)),
            Wait::Next(_) => {
                let next = panic::catch_unwind(panic::AssertUnwindSafe(|| group.completions().next()));
                if next.is_err() {
                    self.refused.add();
                }
            }
        }
    }
}

/// Runs a program with these workers, and returns how many waits were refused. If `starts` is `true`, all tasks and
/// members have started before the first waits, so no worker helps.
fn run(program: &[Wait], homes: &[WorkerPool], members: &WorkerPool, starts: bool) -> usize {
    let run = Run { members: members.clone(), handles: Handles::default(), refused: Counter::new() };
    let gate = Gate::new();
    for (own, wait) in program.iter().enumerate() {
        let (inside, wait, gate) = (run.clone(), wait.clone(), gate.clone());
        let body = move || {
            let group = inside.group(wait.members(), &gate);
            gate.pass();
            inside.wait(&wait, group);
        };
        let handle = homes[own % homes.len()].spawn(body).unwrap();
        run.handles.lock().unwrap().push(Arc::new(handle));
    }
    if starts {
        gate.wait_started(program.iter().map(|wait| 1 + wait.members().len()).sum());
    }
    gate.open();
    let handles = run.handles.lock().unwrap().clone();
    for handle in handles {
        assert!(handle.wait_timeout(common::LIMIT), "a task hangs");
    }
    run.handles.lock().unwrap().clear();
    members.wait_idle();
    run.refused.get()
}

/// Fault 502.
#[test]
fn a_wait_of_a_random_program_is_refused_exactly_if_its_tasks_can_never_end() {
    const TASKS: usize = 5;
    quiet_panics();
    let homes = [pool(TASKS, 64), pool(TASKS, 64)];
    let members = pool(4 * TASKS, 64);
    let asked = rng::asked_seed();
    let mut seeds = Rng::new(rng::fresh_seed());
    let (since, mut knots, mut programs) = (Instant::now(), 0, 0);
    while programs < 400 && since.elapsed() < Duration::from_secs(2) {
        let seed = asked.unwrap_or_else(|| seeds.number() >> 16);
        let mut rng = Rng::new(seed);
        let program: Vec<_> = (0..TASKS).map(|own| Wait::random(&mut rng, own, TASKS)).collect();
        let refused = with_watchdog(|| run(&program, &homes, &members, true));
        let ends = ends(&program);
        assert_eq!(refused == 0, ends, "{refused} refused; again: WORKCREW_SEED={seed}; {program:?}");
        knots += usize::from(!ends);
        programs += 1;
    }
    assert!(asked.is_some() || knots > 0 && knots < programs, "{knots} of {programs}");
}

/// Fault 502.
#[test]
fn no_random_program_of_waits_hangs_with_too_few_workers() {
    quiet_panics();
    let asked = rng::asked_seed();
    let mut seeds = Rng::new(rng::fresh_seed());
    let since = Instant::now();
    for (workers, pools) in [(1, 1), (1, 3), (2, 1), (2, 2), (8, 1)].into_iter().cycle().take(200) {
        if since.elapsed() > Duration::from_secs(2) {
            break;
        }
        let seed = asked.unwrap_or_else(|| seeds.number() >> 16);
        let mut rng = Rng::new(seed);
        let pools: Vec<_> = (0..pools).map(|_| pool(workers, 64)).collect();
        let program: Vec<_> = (0..6).map(|own| Wait::random(&mut rng, own, 6)).collect();
        with_watchdog(|| run(&program, &pools, &pools[0], false));
    }
}
