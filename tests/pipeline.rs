//! Maps with a concurrency and a window of their own, and maps of maps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{Counter, DropCounter, Gate, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog};
use workcrew::{JoinError, WorkerPool};

/// The error of a stage, or of a task.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Stage(usize),
    Panicked,
    Cancelled,
}

impl From<JoinError> for Failed {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Panicked(_) => Self::Panicked,
            _ => Self::Cancelled,
        }
    }
}

/// The number of calls at once, and the most there were.
#[derive(Clone, Default)]
struct Busy(Arc<(AtomicUsize, AtomicUsize)>);

impl Busy {
    fn pass<T>(&self, f: impl FnOnce() -> T) -> T {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        let _leaves = Leaves(self);
        thread::yield_now();
        f()
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Counts the end of a call, also by a panic.
struct Leaves<'a>(&'a Busy);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An item that counts its drop.
struct Item {
    number: usize,
    #[allow(dead_code, reason = "counts its drop")]
    drop: DropCounter,
}

/// What a stage does with an item.
type Step = fn(usize, Item) -> Result<Item, Failed>;

/// Fault 538.
#[test]
fn places_that_become_free_are_filled_while_the_first_result_is_awaited() {
    for (workers, limit) in [(2, 2), (8, 3)] {
        let pool = pool(workers, 64);
        let (gate, ran) = (Gate::new(), Counter::new());
        let (passed, counted) = (gate.clone(), ran.clone());
        let f = move |number: usize| {
            if number == 0 {
                passed.pass();
            }
            counted.add();
            number
        };
        let mut results = pool.map(0..100, f).window(10).concurrency(limit);
        let opens = thread::spawn(move || {
            with_watchdog(|| {
                while ran.get() < 9 {
                    thread::yield_now();
                }
            });
            let others = ran.get();
            gate.open();
            others
        });
        assert_eq!(results.next().unwrap().unwrap(), 0);
        assert_eq!(opens.join().unwrap(), 9, "the window of ten is full, and one of them waits");
        assert!(results.map(Result::unwrap).eq(1..100));
    }
}

/// Fault 538.
#[test]
fn the_tasks_of_a_scope_fill_places_and_keep_their_limit() {
    on_grid(|pool| {
        for limit in [0, 1, 3] {
            let (busy, numbers) = (Busy::default(), (0..60).collect::<Vec<usize>>());
            let sum: Result<usize, _> = pool
                .scope(|scope| {
                    let first = scope.map(&numbers, |number| busy.pass(|| *number)).concurrency(limit).window(20);
                    scope.map(first, |number| number.map(|number| 2 * number)).concurrency(2).flatten().sum()
                })
                .unwrap();
            assert_eq!(sum.unwrap(), 59 * 60);
            assert!(busy.most() <= limit.max(1), "{} of {limit}", busy.most());
        }
        assert_counts_add_up(&pool);
    });
}

/// Runs a pipeline of three stages over an endless source until the first error. Returns the numbers
/// before it, and the error. Checks what the stages may not exceed.
fn run(pool: &WorkerPool, [first, second, third]: [Step; 3]) -> (Vec<usize>, Failed) {
    const LIMITS: [usize; 3] = [1, 3, 2];
    const WINDOWS: [usize; 3] = [4, 8, 3];
    let busy: [Busy; 3] = Default::default();
    let (taken, dropped) = (Cell::new(0), Counter::new());
    let live_most = Cell::new(0);
    let mut numbers = Vec::new();
    let source = (1..).inspect(|_| {
        taken.set(taken.get() + 1);
        live_most.set(live_most.get().max(taken.get() - dropped.get()));
    });
    let source = source.map(|number| Item { number, drop: DropCounter(dropped.clone()) });
    let stage = |index: usize, step: Step| {
        let busy = busy[index].clone();
        move |item: Result<Item, Failed>| busy.pass(|| item.and_then(|item| step(item.number, item)))
    };
    let flat = |item: Result<Result<Item, Failed>, JoinError>| item.map_err(Failed::from).and_then(|item| item);
    let stages = pool.map(source.map(Ok), stage(0, first)).concurrency(LIMITS[0]).window(WINDOWS[0]);
    let stages = pool.map(stages.map(flat), stage(1, second)).concurrency(LIMITS[1]).window(WINDOWS[1]);
    let stages = pool.map(stages.map(flat), stage(2, third)).concurrency(LIMITS[2]).window(WINDOWS[2]);
    let mut results = stages.map(flat);
    assert_eq!(taken.get(), 0, "no item is taken before the first is asked for");
    let error = loop {
        match results.next().unwrap() {
            Ok(item) => numbers.push(item.number),
            Err(error) => break error,
        }
    };
    drop(results);
    pool.wait_idle();
    // One more in each stage: the item that a stage takes, or holds back.
    let bound = WINDOWS.iter().sum::<usize>() + 3;
    assert!(live_most.get() <= bound, "{} items of {bound} at once", live_most.get());
    assert!(taken.get() <= numbers.len() + 1 + bound, "the source was read on: {}", taken.get());
    assert_eq!(dropped.get(), taken.get(), "nothing is left of any item");
    for (busy, limit) in busy.iter().zip(LIMITS) {
        assert!(busy.most() <= limit, "{} of {limit}", busy.most());
    }
    (numbers, error)
}

fn pass(_: usize, item: Item) -> Result<Item, Failed> {
    Ok(item)
}

fn fail<const STAGE: usize>(number: usize, item: Item) -> Result<Item, Failed> {
    if number.is_multiple_of(40) { Err(Failed::Stage(STAGE)) } else { Ok(item) }
}

fn panic_in(number: usize, item: Item) -> Result<Item, Failed> {
    assert!(number != 40, "the item {number} panics");
    Ok(item)
}

/// Fault 538.
#[test]
fn the_first_error_of_any_stage_ends_a_pipeline_whose_memory_is_bounded() {
    quiet_panics();
    let cases: [([Step; 3], Failed); 5] = [
        ([fail::<1>, pass, pass], Failed::Stage(1)),
        ([pass, fail::<2>, pass], Failed::Stage(2)),
        ([pass, pass, fail::<3>], Failed::Stage(3)),
        ([panic_in, pass, pass], Failed::Panicked),
        ([pass, panic_in, fail::<3>], Failed::Panicked),
    ];
    on_grid(|pool| {
        for (steps, expected) in &cases {
            let (numbers, error) = with_watchdog(|| run(&pool, *steps));
            assert_eq!((numbers, &error), ((1..40).collect(), expected));
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 538.
#[test]
fn a_pipeline_within_a_task_and_one_that_meets_the_end_of_the_pool_do_not_hang() {
    on_grid(|pool| {
        let inside = pool.clone();
        let sum = pool.spawn(move || {
            let first = inside.map(1..=50_u32, |n| n).concurrency(2).window(8);
            inside.map(first, |n| n.unwrap() * 2).concurrency(3).window(8).map(Result::unwrap).sum::<u32>()
        });
        assert_eq!(with_watchdog(|| sum.unwrap().join().unwrap()), 2_550);
        let (gate, passed) = (Gate::new(), Gate::new());
        let (opened, reached) = (gate.clone(), passed.clone());
        let mut results = pool.map(0.., move |n: u32| {
            if n == 3 {
                reached.pass();
            }
            opened.pass();
            n
        });
        gate.open();
        let mut results = {
            assert_eq!(results.next().unwrap().unwrap(), 0);
            results.concurrency(2).window(4)
        };
        let ends = pool.clone();
        let ends = thread::spawn(move || {
            passed.wait_started(1);
            ends.close();
            passed.open();
        });
        let cancelled = results.find_map(Result::err).unwrap();
        assert!(matches!(cancelled, JoinError::Cancelled(_)), "{cancelled:?}");
        ends.join().unwrap();
    });
}
