//! Every kind of task, and what a worker that helps sees.

use std::convert::Infallible;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use pollster::block_on;

use crate::common::{LIMIT, with_watchdog};
use crate::{Live, REQUEST, as_request, carrying, carrying_pool};
use workcrew::{WorkerPool, WorkerPoolBuilder};

const SOON: Duration = Duration::from_millis(1);

/// Runs a scenario as request 7 on pools of one and of four workers. Afterwards no context is left.
fn on_pools(scenario: impl Fn(&WorkerPool)) {
    with_watchdog(|| {
        for workers in [1, 4] {
            let (pool, live) = carrying_pool(workers);
            as_request(7, || scenario(&pool));
            pool.wait_idle();
            assert!(live.made.get() > 0);
            assert_eq!(live.get(), 0, "a context is left");
        }
    });
}

/// Returns the request of the task.
fn seen() -> u32 {
    REQUEST.get()
}

/// The same, for a group.
fn told() -> Result<u32, Infallible> {
    Ok(REQUEST.get())
}

/// Fault 520.
#[test]
fn tasks_of_the_pool_run_in_the_context_of_their_submitter() {
    on_pools(|pool| {
        let (sender, receiver) = channel();
        let tell = || {
            let sender = sender.clone();
            move || sender.send(seen()).unwrap()
        };
        pool.execute(tell()).unwrap();
        pool.try_execute(tell()).unwrap();
        pool.try_execute_for(LIMIT, tell()).unwrap();
        let [one, two] = [tell(), tell()];
        pool.task().label("labelled").execute(move |_| one()).unwrap();
        pool.task().timeout(LIMIT).try_execute(move |_| two()).unwrap();
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [7; 5]);
        let handles = [pool.spawn(seen), pool.spawn(seen)].map(Result::unwrap);
        assert_eq!(handles.map(|handle| handle.join().unwrap()), [7; 2]);
        assert_eq!(pool.try_spawn(seen).unwrap().join().unwrap(), 7);
        assert_eq!(pool.task().spawn(|_| seen()).unwrap().join().unwrap(), 7);
        assert_eq!(block_on(block_on(pool.spawn_async(seen)).unwrap()).unwrap(), 7);
        assert_eq!(block_on(pool.task().spawn_async(|_| seen())).unwrap().join().unwrap(), 7);
        for share in pool.broadcast(|_| seen()).unwrap() {
            assert_eq!(share.join().unwrap(), 7);
        }
        assert!(pool.map(0..20, |_| seen()).all(|seen| seen.unwrap() == 7));
    });
}

/// Fault 520.
#[test]
fn tasks_of_groups_scopes_and_keys_run_in_the_context_of_the_thread_that_added_them() {
    on_pools(|pool| {
        let group = pool.group();
        group.spawn(told);
        group.spawn_all([told, told]);
        as_request(8, || group.spawner().try_spawn(told).unwrap());
        assert_eq!(group.wait().unwrap(), [7, 7, 7, 8]);
        let sums = pool.scope(|scope| {
            scope.spawn(|| assert_eq!(seen(), 7));
            let value = as_request(8, || scope.spawn_value(seen));
            value.join().unwrap()
        });
        assert_eq!(sums.unwrap(), 8);
        let keyed = pool.keyed();
        keyed.execute("a", || assert_eq!(seen(), 7)).unwrap();
        assert_eq!(as_request(8, || keyed.spawn("a", seen)).unwrap().join().unwrap(), 8);
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

/// Fault 520.
#[test]
fn timers_run_in_the_context_of_the_thread_that_set_them() {
    on_pools(|pool| {
        let (sender, receiver) = channel();
        let again = sender.clone();
        let timers = as_request(9, || {
            let every = pool.execute_every(SOON, move || sender.send(seen()).unwrap_or(()));
            let spaced = pool.execute_with_fixed_delay(SOON, move || again.send(seen()).unwrap_or(()));
            [every.unwrap(), spaced.unwrap()]
        });
        assert_eq!(pool.spawn_after(SOON, seen).unwrap().join().unwrap(), 7);
        assert_eq!(pool.spawn_at(Instant::now(), seen).unwrap().join().unwrap(), 7);
        let (once, told) = channel();
        pool.execute_after(SOON, move || once.send(seen()).unwrap()).unwrap();
        assert_eq!(told.recv().unwrap(), 7);
        assert_eq!(receiver.iter().take(8).collect::<Vec<_>>(), [9; 8]);
        assert!(timers.into_iter().all(|timer| timer.cancel()));
    });
}

/// Fault 520.
#[cfg(feature = "retry")]
#[test]
fn every_attempt_of_a_retried_task_runs_in_its_context() {
    use workcrew::retry::{Attempt, RetryPolicy};

    on_pools(|pool| {
        let policy = RetryPolicy::fixed(SOON).max_attempts(3);
        let attempt = |attempt: Attempt| {
            assert_eq!(seen(), 7);
            if attempt.is_last() { Ok(seen()) } else { Err("again") }
        };
        let alone = pool.spawn_with_retry(policy.clone(), attempt).unwrap();
        let keyed = pool.keyed().spawn_with_retry("a", policy.clone(), attempt).unwrap();
        let group = pool.group();
        group.spawn_with_retry(policy, attempt).unwrap();
        assert_eq!((alone.join().unwrap().unwrap(), keyed.join().unwrap().unwrap()), (7, 7));
        assert_eq!(group.wait().unwrap(), [7]);
    });
}

/// Fault 520.
#[cfg(feature = "events")]
#[test]
fn every_attempt_of_a_delivery_runs_in_the_context_of_the_publisher() {
    use crate::common::Counter;
    use workcrew::events::EventBus;
    use workcrew::retry::RetryPolicy;

    on_pools(|pool| {
        let bus = EventBus::new(pool);
        let (sender, receiver) = channel();
        let (again, tries) = (sender.clone(), Counter::new());
        let subscriptions = as_request(1, || {
            let plain = bus.subscribe(move |_: &u32| sender.send(seen()).unwrap());
            let retried = bus.subscription().retry(RetryPolicy::fixed(SOON).max_attempts(3)).handle(move |_: &u32| {
                again.send(seen()).unwrap();
                tries.add();
                if tries.get().is_multiple_of(2) { Ok(()) } else { Err("again") }
            });
            (plain, retried)
        });
        bus.publish(1_u32);
        as_request(8, || bus.publish(2_u32));
        bus.wait_idle();
        drop(subscriptions);
        let mut requests: Vec<_> = receiver.try_iter().collect();
        requests.sort_unstable();
        assert_eq!(requests, [7, 7, 7, 8, 8, 8]);
    });
}

/// Fault 520.
#[cfg(feature = "events")]
#[test]
fn dead_letters_are_reported_in_the_context_of_the_publisher() {
    use crate::common::Counter;
    use workcrew::events::EventBus;
    use workcrew::retry::RetryPolicy;

    on_pools(|pool| {
        let (sender, receiver) = channel();
        let bus = EventBus::builder(pool).on_dead_letter(move |_| sender.send(seen()).unwrap()).build();
        let gives_up = bus.subscription().retry(RetryPolicy::fixed(SOON).max_attempts(2));
        let gives_up = gives_up.handle(|_: &u32| Err::<(), _>("expected"));
        as_request(8, || bus.publish(1_u32));
        assert_eq!(receiver.recv().unwrap(), 8);
        drop(gives_up);
        // A delivery that waits for its next attempt is cancelled, by a thread in another context.
        let tried = Counter::new();
        let counted = tried.clone();
        let waits = bus.subscription().retry(RetryPolicy::fixed(LIMIT).max_attempts(2));
        let waits = waits.handle(move |_: &u32| {
            counted.add();
            Err::<(), _>("expected")
        });
        as_request(9, || bus.publish(2_u32));
        while tried.get() == 0 {
            std::thread::yield_now();
        }
        drop(waits);
        assert_eq!(receiver.recv().unwrap(), 9);
        bus.wait_idle();
    });
}

/// Fault 520.
#[cfg(feature = "driver")]
#[test]
fn every_poll_of_a_future_its_drop_and_what_follows_run_in_its_context() {
    use std::future::poll_fn;
    use std::task::Poll;
    use workcrew::driver::Driver;

    /// Checks the context in which it is dropped.
    struct OnDrop(std::sync::mpsc::Sender<u32>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.send(seen()).unwrap();
        }
    }

    on_pools(|pool| {
        let driver = Driver::new(pool, 4).unwrap();
        let (sender, receiver) = channel();
        let future = |request: u32| {
            let (mut polls, dropped) = (0, OnDrop(sender.clone()));
            let polled = sender.clone();
            poll_fn(move |context| {
                let _held = &dropped;
                polled.send(seen()).unwrap();
                polls += 1;
                context.waker().wake_by_ref();
                if polls == 3 { Poll::Ready(request) } else { Poll::Pending }
            })
        };
        let one = driver.spawn(future(7)).unwrap();
        let two = as_request(8, || driver.spawn_then(future(8), |wanted| (wanted, seen()))).unwrap();
        assert_eq!((one.join().unwrap(), two.join().unwrap()), (7, (8, 8)));
        drop(sender);
        let mut requests: Vec<_> = receiver.iter().collect();
        requests.sort_unstable();
        assert_eq!(requests, [7, 7, 7, 7, 8, 8, 8, 8]); // three polls and a drop each
    });
}

/// Fault 521.
#[test]
fn a_worker_that_helps_nests_the_contexts_and_restores_that_of_the_waiting_task() {
    let helps = |builder: WorkerPoolBuilder| -> Live {
        let (builder, live) = carrying(builder);
        let pool = builder.build().unwrap();
        let inner = pool.clone();
        let outer = move || {
            let joined = as_request(2, || inner.spawn(seen)).unwrap();
            let group = inner.group();
            as_request(3, || group.spawn_all([told, told]));
            let deeper = inner.clone();
            let deep = as_request(4, || {
                inner.spawn(move || {
                    let own = as_request(5, || deeper.spawn(seen)).unwrap();
                    (seen(), own.join().unwrap(), seen())
                })
            });
            let before = seen();
            let found = (joined.join().unwrap(), seen(), group.wait().unwrap(), seen(), deep.unwrap().join().unwrap());
            (before, found, seen())
        };
        let outer = as_request(1, || pool.spawn(outer)).unwrap();
        assert_eq!(outer.join().unwrap(), (1, (2, 1, vec![3, 3], 1, (4, 5, 4)), 1));
        assert_eq!(pool.spawn(seen).unwrap().join().unwrap(), 0, "the worker has kept a context");
        live
    };
    with_watchdog(|| {
        for workers in [1, 4] {
            assert_eq!(helps(WorkerPool::builder().workers(workers).queue_capacity(16)).get(), 0);
        }
        // With a queue of one place the submitter runs tasks inline, too.
        assert_eq!(helps(WorkerPool::builder().workers(1).queue_capacity(1)).get(), 0);
    });
}

/// Fault 521.
#[test]
fn a_task_that_runs_inline_on_its_submitter_leaves_the_submitters_context() {
    let (builder, live) = carrying(WorkerPool::builder().workers(1).queue_capacity(1));
    let pool = builder.overflow(workcrew::Overflow::CallerRuns).build().unwrap();
    as_request(6, || {
        let group = pool.group();
        for _ in 0..100 {
            pool.execute(|| REQUEST.set(99)).unwrap(); // a task that does not clean up
            group.spawn(told);
            assert_eq!(seen(), 6);
        }
        assert_eq!(group.wait().unwrap(), [6; 100]);
    });
    pool.wait_idle();
    assert_eq!(live.get(), 0);
}
