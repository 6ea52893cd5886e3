//! Observers and panic hooks that submit tasks.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{BlockedWorkers, Counter, assert_counts_add_up, quiet_panics};
use crate::{DEPTH, Reach, in_processes, on_small_stack, on_small_stacks};
use workcrew::{Observer, Overflow, TaskInfo, TaskOutcome, WeakWorkerPool, WorkerPool, WorkerPoolBuilder};

/// Fault 171.
#[test]
fn observers_and_panic_hooks_that_submit_are_nested_sixteen_deep_and_then_skipped_and_counted() {
    in_processes(&[
        "observers::child_submits_when_a_task_is_submitted",
        "observers::child_submits_when_a_task_is_refused",
        "observers::child_submits_when_a_task_ends",
        "observers::child_panics_a_task_in_the_panic_hook",
        "observers::child_panics_tasks_on_its_own_stack",
    ]);
}

/// Calls a function at each step that it names.
struct Calls {
    step: &'static str,
    call: Box<dyn Fn() + Send + Sync>,
}

impl Calls {
    fn at(&self, step: &str) {
        if self.step == step {
            (self.call)();
        }
    }
}

impl Observer for Calls {
    fn task_submitted(&self, _: &TaskInfo<'_>) {
        self.at("submitted");
    }

    fn task_refused(&self, _: &TaskInfo<'_>) {
        self.at("refused");
    }

    fn task_ended(&self, _: &TaskInfo<'_>, _: TaskOutcome) {
        self.at("ended");
    }
}

/// A pool whose observer calls `call` at each such step.
fn observed(builder: WorkerPoolBuilder, step: &'static str, call: fn(&WorkerPool, usize)) -> (WorkerPool, Counter) {
    let (slot, calls): Reach = (Arc::default(), Counter::new());
    let (reach, counted) = (Arc::clone(&slot), calls.clone());
    let call = move || {
        counted.add();
        if let Some(pool) = reach.get().and_then(WeakWorkerPool::upgrade) {
            call(&pool, counted.get());
        }
    };
    let pool = builder.observer(Calls { step, call: Box::new(call) }).build().unwrap();
    slot.set(pool.downgrade()).unwrap();
    (pool, calls)
}

/// Fault 598.
#[test]
fn several_observers_that_submit_are_called_a_bounded_number_of_times() {
    const OBSERVERS: usize = 3;
    let (slot, calls): Reach = (Arc::default(), Counter::new());
    let observer = |_| {
        let (reach, counted) = (Arc::clone(&slot), calls.clone());
        let call = move || {
            counted.add();
            if let Some(pool) = reach.get().and_then(WeakWorkerPool::upgrade) {
                let _ = pool.try_execute(|| ());
            }
        };
        Calls { step: "submitted", call: Box::new(call) }
    };
    let builder = WorkerPool::builder().workers(1).queue_capacity(1);
    let pool = (0..OBSERVERS).map(observer).fold(builder, WorkerPoolBuilder::observer).build().unwrap();
    let busy = BlockedWorkers::new(&pool);
    slot.set(pool.downgrade()).unwrap();
    let before = calls.get();
    let _ = pool.try_execute(|| ());
    // Each outermost call has one call of each observer below it, and 256 deeper ones.
    let called = calls.get() - before;
    assert!(called > OBSERVERS && called <= OBSERVERS * (1 + OBSERVERS + 256), "{called}");
    drop(busy);
}

/// Fault 598.
#[test]
fn a_function_that_labels_keys_and_submits_is_nested_sixteen_deep() {
    let slot: Arc<std::sync::OnceLock<workcrew::KeyedExecutor<usize>>> = Arc::default();
    let (reach, calls) = (Arc::clone(&slot), Counter::new());
    let counted = calls.clone();
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let label = move |key: &usize| {
        counted.add();
        if let Some(executor) = reach.get() {
            executor.execute(key + 1, || ()).unwrap();
        }
        format!("{key}")
    };
    let executor = workcrew::KeyedExecutor::builder(&pool).label_by(label).build();
    let _ = slot.set(executor.clone());
    executor.execute(0, || ()).unwrap();
    pool.wait_idle();
    let metrics = pool.metrics();
    assert_eq!((calls.get(), metrics.hooks_skipped, metrics.tasks_succeeded as usize), (DEPTH, 1, DEPTH + 1));
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_when_a_task_is_submitted() {
    on_small_stacks(|builder| {
        let (pool, calls) = observed(builder, "submitted", |pool, _| pool.execute(|| ()).unwrap());
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((calls.get(), metrics.hooks_skipped), (DEPTH, 1));
        assert_eq!(metrics.tasks_succeeded as usize, DEPTH + 1, "the hook was skipped, not the task");
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_when_a_task_is_refused() {
    on_small_stacks(|builder| {
        let (pool, calls) = observed(builder, "refused", |pool, _| assert!(pool.try_execute(|| ()).is_err()));
        let wedge = BlockedWorkers::new(&pool);
        while pool.queue_len() < pool.queue_capacity() {
            pool.execute(|| ()).unwrap();
        }
        assert!(pool.try_execute(|| ()).is_err());
        assert_eq!((calls.get(), pool.metrics().hooks_skipped), (DEPTH, 2), "the last one is told neither way");
        drop(wedge);
        pool.wait_idle();
        pool.close();
        assert!(pool.execute(|| ()).is_err(), "an ended pool has nothing to tell");
        assert_eq!(calls.get(), DEPTH);
        assert_counts_add_up(&pool);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_when_a_task_ends() {
    on_small_stacks(|builder| {
        let (pool, calls) = observed(builder, "ended", |pool, calls| {
            if calls < 3_000 {
                let _ = (pool.execute(|| ()), pool.execute(|| ()));
            }
        });
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        assert!(calls.get() > DEPTH, "what goes through the queue is a task like any other");
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_panics_a_task_in_the_panic_hook() {
    quiet_panics();
    on_small_stacks(|builder| {
        let (slot, calls): Reach = (Arc::default(), Counter::new());
        let (reach, counted): Reach = (Arc::clone(&slot), calls.clone());
        let builder = builder.on_panic(move |_| {
            counted.add();
            if counted.get() < 1_000 {
                let pool = reach.get().and_then(WeakWorkerPool::upgrade).unwrap();
                pool.execute(|| panic!("again")).unwrap();
            }
            panic!("the hook itself");
        });
        let pool = builder.build().unwrap();
        slot.set(pool.downgrade()).unwrap();
        pool.execute(|| panic!("once")).unwrap();
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((calls.get(), metrics.tasks_panicked, metrics.hooks_panicked), (1_000, 1_000, 1_000));
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_panics_tasks_on_its_own_stack() {
    std::panic::set_hook(Box::new(|_| ()));
    on_small_stack(|| {
        let (slot, calls): Reach = (Arc::default(), Counter::new());
        let (reach, counted): Reach = (Arc::clone(&slot), calls.clone());
        let builder = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::CallerRuns);
        let builder = builder.on_panic(move |_| {
            counted.add();
            let pool = reach.get().and_then(WeakWorkerPool::upgrade).unwrap();
            if counted.get() < 5 * DEPTH {
                pool.execute(|| panic!("again")).unwrap();
            }
        });
        let pool = builder.build().unwrap();
        slot.set(pool.downgrade()).unwrap();
        let wedge = BlockedWorkers::new(&pool);
        pool.execute(|| ()).unwrap();
        thread::scope(|threads| {
            let caller = threads.spawn(|| pool.execute(|| panic!("once")).unwrap());
            while calls.get() < DEPTH / 2 {
                thread::yield_now();
            }
            wedge.open(); // past the bound the caller waits for room
            caller.join().unwrap();
        });
        pool.wait_idle();
        assert_eq!(calls.get(), 5 * DEPTH);
    });
}

/// Fault 553.
#[test]
fn several_observers_are_called_in_their_order_and_the_panic_of_one_hurts_none_of_the_others() {
    quiet_panics();
    let calls = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let note = |number: usize| {
        let calls = Arc::clone(&calls);
        move || calls.lock().push(number)
    };
    let panics = || {
        let noted = note(1);
        move || {
            noted();
            panic!("as planned");
        }
    };
    for step in ["submitted", "ended"] {
        let pool = WorkerPool::builder()
            .workers(1)
            .observer(Calls { step, call: Box::new(note(0)) })
            .observer(Calls { step, call: Box::new(panics()) })
            .observer(Calls { step, call: Box::new(note(2)) })
            .build()
            .unwrap();
        pool.spawn(|| ()).unwrap().join().unwrap();
        assert_eq!(std::mem::take(&mut *calls.lock()), [0, 1, 2], "{step}");
        assert_eq!(pool.metrics().hooks_panicked, 1, "{step}");
    }
}

/// The queue wait, the start and the run time of a task, as far as they are known.
type Times = (Option<Duration>, Option<Instant>, Option<Duration>);

/// Keeps what is known of the times of a task at each step.
#[derive(Default)]
struct Timed(parking_lot::Mutex<Vec<(&'static str, Times)>>);

impl Timed {
    fn note(&self, step: &'static str, task: &TaskInfo<'_>) {
        self.0.lock().push((step, (task.queue_wait(), task.started_at(), task.run_time())));
    }
}

impl Observer for Timed {
    fn task_submitted(&self, task: &TaskInfo<'_>) {
        self.note("submitted", task);
    }

    fn task_started(&self, task: &TaskInfo<'_>) {
        self.note("started", task);
    }

    fn attempt_failed(&self, task: &TaskInfo<'_>) {
        self.note("failed", task);
    }

    fn task_ended(&self, task: &TaskInfo<'_>, _: TaskOutcome) {
        self.note("ended", task);
    }
}

#[cfg(feature = "events")]
#[test]
fn a_failed_attempt_knows_how_long_its_event_waited_in_a_batch_too() {
    use workcrew::{events::EventBus, retry::RetryPolicy};

    for batches in [false, true] {
        let times = Arc::new(Timed::default());
        let pool = WorkerPool::builder().workers(1).timing(true).observer(Arc::clone(&times)).build().unwrap();
        let bus = EventBus::new(&pool);
        let new = || bus.subscription::<u32>().retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(2));
        let guard = match batches {
            false => new().handle(|_| Err("as planned")),
            true => new().batch(4, Duration::ZERO).handle(|_| Err("as planned")),
        };
        bus.publish(1_u32).wait().unwrap();
        let seen = times.0.lock();
        let waits = |step| seen.iter().find(|(name, _)| *name == step).unwrap().1.0;
        assert!(waits("started").is_some(), "{batches}");
        assert_eq!(waits("failed"), waits("started"), "{batches}");
        drop(guard);
    }
}

/// Fault 557.
#[test]
fn observers_learn_how_long_a_task_waited_and_ran_if_times_are_recorded() {
    for timing in [true, false] {
        let times = Arc::new(Timed::default());
        let pool = WorkerPool::builder().workers(1).timing(timing).observer(Arc::clone(&times)).build().unwrap();
        let blocked = BlockedWorkers::new(&pool);
        times.0.lock().clear();
        let before = Instant::now();
        let handle = pool.spawn(|| thread::sleep(Duration::from_millis(1))).unwrap();
        while before.elapsed() < Duration::from_millis(1) {
            thread::yield_now();
        }
        drop(blocked);
        handle.join().unwrap();
        pool.shutdown();
        let whole = before.elapsed();
        let seen = times.0.lock();
        let at = |step| seen.iter().rfind(|(name, _)| *name == step).unwrap().1;
        assert_eq!(at("submitted"), (None, None, None));
        let ((wait, started, none), (same, start, run)) = (at("started"), at("ended"));
        assert_eq!((wait, started, none), (same, start, None), "what is known at the start is known at the end");
        assert_eq!((wait.is_some(), start.is_some(), run.is_some()), (timing, timing, timing));
        if let (Some(wait), Some(start), Some(run)) = (wait, start, run) {
            let shortest = Duration::from_millis(1);
            assert!(wait >= shortest && run >= shortest && start >= before + shortest, "{wait:?} {run:?}");
            assert!(wait + run <= whole, "{wait:?} and {run:?} are longer than {whole:?}");
        }
    }
}
