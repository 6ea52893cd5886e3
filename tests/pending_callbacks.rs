//! Callbacks that a thread has taken on and not called yet: a wait on that thread calls them before it sleeps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{BlockedWorkers, Counter, Gate, Mutex, pool, quiet_panics, with_watchdog};
use workcrew::{CancellationToken, GroupError, JoinError, WorkerPool};

/// How deep callbacks are nested on one stack.
const DEPTH: usize = 16;

/// Calls `body` inside as many callbacks as are nested on one stack, so that a further callback is deferred.
fn nested<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = channel();
    let innermost = CancellationToken::new();
    let mut guards = vec![innermost.on_cancel(move || tell.send(body()).unwrap())];
    let mut outermost = innermost;
    for _ in 1..DEPTH {
        let (next, token) = (outermost, CancellationToken::new());
        guards.push(token.on_cancel(move || next.cancel()));
        outermost = token;
    }
    outermost.cancel();
    told.try_recv().unwrap()
}

/// A wait without a time limit for a task that waits at the gate.
type Wait = fn(&WorkerPool, &Gate);

fn held(gate: &Gate) -> impl FnOnce() + Send + 'static {
    let inside = gate.clone();
    move || inside.pass()
}

fn succeeds(gate: &Gate) -> impl FnOnce() -> Result<(), String> + Send + 'static {
    let inside = held(gate);
    move || {
        inside();
        Ok(())
    }
}

const WAITS: &[Wait] = &[
    |pool, gate| pool.spawn(held(gate)).unwrap().join().unwrap(),
    |pool, gate| assert!(pool.spawn(held(gate)).unwrap().wait_timeout(Duration::MAX)),
    |pool, gate| {
        let group = pool.group();
        group.spawn(succeeds(gate));
        group.wait().unwrap();
    },
    |pool, gate| {
        let group = pool.group();
        group.spawn(succeeds(gate));
        group.wait_any().unwrap();
    },
    |pool, gate| {
        let mut group = pool.group();
        group.spawn(succeeds(gate));
        assert!(group.completions().next().is_some());
    },
    |pool, gate| {
        // The third task waits for room.
        let group = pool.group().limit(1).capacity(1);
        group.spawn(succeeds(gate));
        gate.wait_started(1);
        group.spawn(succeeds(gate));
        group.spawn(succeeds(gate));
        group.wait().unwrap();
    },
    |pool, gate| pool.scope(|scope| scope.spawn(|| gate.pass())).unwrap(),
    |pool, gate| pool.scope(|scope| scope.spawn_value(|| gate.pass()).join().unwrap()).unwrap(),
    |pool, gate| {
        pool.execute(held(gate)).unwrap();
        pool.wait_idle();
    },
    |pool, gate| {
        pool.execute(held(gate)).unwrap();
        pool.shutdown();
    },
    |pool, gate| {
        // The queue is full while the workers are at the gate.
        for _ in 0..pool.workers() {
            pool.execute(held(gate)).unwrap();
        }
        gate.wait_started(pool.workers());
        for _ in 0..=pool.queue_capacity() {
            pool.execute(held(gate)).unwrap();
        }
    },
    |pool, gate| {
        let executor = pool.keyed();
        executor.execute(1, held(gate)).unwrap();
        executor.wait_idle();
    },
    |_, gate| {
        let (token, opened) = (CancellationToken::new(), gate.clone());
        let cancelled = token.clone();
        std::thread::spawn(move || {
            opened.pass();
            cancelled.cancel();
        });
        token.wait();
    },
    |pool, gate| {
        // The second task waits until the first has ended.
        let inside = gate.clone();
        let results = pool.map(0..2, move |_| inside.pass()).concurrency(1).window(8);
        results.for_each(Result::unwrap);
    },
    |_, gate| {
        let inside = gate.clone();
        let hook = move |_| -> Result<(), String> {
            inside.pass();
            Ok(())
        };
        drop(WorkerPool::builder().workers(1).try_on_thread_start(hook).build().unwrap());
    },
    |pool, gate| {
        // The third task waits for room.
        let executor = workcrew::KeyedExecutor::builder(pool).capacity(1).build();
        executor.execute(1, held(gate)).unwrap();
        gate.wait_started(1);
        executor.execute(1, held(gate)).unwrap();
        executor.execute(1, held(gate)).unwrap();
    },
    #[cfg(feature = "events")]
    |pool, gate| {
        let (bus, inside) = (workcrew::events::EventBus::new(pool), gate.clone());
        let _subscription = bus.subscribe(move |_: &u32| inside.pass());
        bus.publish(1_u32).wait().unwrap();
    },
    #[cfg(feature = "events")]
    |pool, gate| {
        // The third event waits for room in one mailbox or two.
        for subscriptions in [1, 2] {
            let (bus, inside) = (workcrew::events::EventBus::new(pool), gate.clone());
            let _subscriptions: Vec<_> = (0..subscriptions)
                .map(|_| {
                    let inside = inside.clone();
                    bus.subscription::<u32>().mailbox_capacity(1).handle(move |_: &u32| inside.pass())
                })
                .collect();
            let _ = bus.publish(1_u32);
            gate.wait_started(subscriptions);
            let _ = bus.publish(2_u32);
            let _ = bus.publish(3_u32);
        }
    },
    #[cfg(feature = "events")]
    |pool, gate| {
        let (bus, inside) = (workcrew::events::EventBus::new(pool), gate.clone());
        let subscription = bus.subscribe(move |_: &u32| inside.pass());
        let _ = bus.publish(1_u32);
        gate.wait_started(1);
        subscription.unsubscribe();
    },
    #[cfg(feature = "events")]
    |pool, gate| {
        let (bus, inside) = (workcrew::events::EventBus::new(pool), gate.clone());
        let _subscription = bus.subscribe(move |_: &u32| inside.pass());
        let _ = bus.publish(1_u32);
        bus.wait_idle();
    },
    #[cfg(feature = "driver")]
    |pool, gate| {
        // The second future waits for the permit of the first.
        let driver = workcrew::driver::Driver::new(pool, 1).unwrap();
        let first = driver
            .spawn_then(async {}, {
                let held = held(gate);
                move |()| held()
            })
            .unwrap();
        gate.wait_started(1);
        let second = driver
            .spawn_then(async {}, {
                let held = held(gate);
                move |()| held()
            })
            .unwrap();
        let third = driver.spawn(async {}).unwrap();
        first.join().unwrap();
        second.join().unwrap();
        third.join().unwrap();
    },
];

/// Runs `wait` inside and outside of a task.
fn in_both(wait: impl Fn(WorkerPool) + Send + Sync + 'static) {
    let wait = Arc::new(wait);
    for in_task in [false, true] {
        let (own, wait) = (pool(2, 1), Arc::clone(&wait));
        let home = pool(1, 1);
        with_watchdog(|| match in_task {
            false => wait(own),
            true => home.spawn(move || wait(own)).unwrap().join().unwrap(),
        });
    }
}

/// Fault 505.
#[test]
fn a_wait_in_nested_callbacks_calls_the_deferred_callbacks_first() {
    for wait in WAITS {
        in_both(move |pool| {
            nested(move || {
                let (gate, token) = (Gate::new(), CancellationToken::new());
                let open = gate.clone();
                let _guard = token.on_cancel(move || open.open());
                token.cancel(); // deferred
                wait(&pool, &gate);
            });
        });
    }
}

/// Fault 505.
#[test]
fn a_wait_in_nested_callbacks_drops_what_is_left_of_cancelled_tasks_first() {
    for wait in WAITS {
        in_both(move |own| {
            nested(move || {
                let gate = Gate::new();
                let other = pool(1, 8);
                let (busy, opens) = (Gate::new(), OpensOnDrop(gate.clone()));
                other.execute(held(&busy)).unwrap();
                busy.wait_started(1);
                let cancelled = other.spawn(move || drop(opens)).unwrap();
                assert!(cancelled.cancel()); // its closure is dropped later
                wait(&own, &gate);
                busy.open();
            });
        });
    }
}

struct OpensOnDrop(Gate);

impl Drop for OpensOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Fault 506.
#[test]
fn a_wait_in_one_callback_of_a_token_calls_the_others_of_that_token_first() {
    for wait in WAITS {
        in_both(move |pool| {
            let (gate, token) = (Gate::new(), CancellationToken::new());
            let (inside, open) = (gate.clone(), gate);
            let called = Counter::new();
            let counted = called.clone();
            let _first = token.on_cancel(move || wait(&pool, &inside));
            let _second = token.on_cancel(move || {
                counted.add();
                open.open();
            });
            token.cancel();
            assert_eq!(called.get(), 1);
        });
    }
}

/// Fault 505.
#[test]
fn deferred_callbacks_that_wait_are_nested_to_a_limit_and_beyond_that_refused() {
    let pool = pool(2, 4_096);
    let gate = Gate::new();
    let handle = Arc::new(Mutex::new(Vec::new()));
    let refused = Counter::new();
    let (inside, all, counted) = (gate.clone(), Arc::clone(&handle), refused.clone());
    let called = with_watchdog(|| {
        nested(move || {
            let called = Counter::new();
            let token = CancellationToken::new();
            for _ in 0..1_000 {
                let (called, pool, inside, refused) = (called.clone(), pool.clone(), inside.clone(), counted.clone());
                let guard = token.on_cancel(move || {
                    called.add();
                    // Every callback but the last waits for what the last one does.
                    let group = pool.group();
                    group.spawn(succeeds(&inside));
                    if matches!(group.wait(), Err(GroupError::WouldDeadlock(_))) {
                        refused.add();
                    }
                    if let Err(JoinError::WouldDeadlock(_)) = pool.spawn(held(&inside)).unwrap().join() {
                        refused.add();
                    }
                });
                all.lock().unwrap().push(guard);
            }
            let open = inside.clone();
            let _last = token.on_cancel(move || open.open());
            token.cancel();
            called
        })
    });
    assert_eq!(called.get(), 1_000);
    assert!(refused.get() > 0);
}

/// Calls `body` in a callback, inside as many waits as are nested in callbacks on one stack. The last callback, which
/// opens the gate, is pending. Returns how often that was called.
fn too_deep(pool: &WorkerPool, gate: &Gate, body: impl FnOnce() + Send + 'static) -> usize {
    let (token, called) = (CancellationToken::new(), Counter::new());
    let mut guards = Vec::new();
    for _ in 0..DEPTH {
        let (pool, inside) = (pool.clone(), gate.clone());
        guards.push(token.on_cancel(move || pool.spawn(held(&inside)).unwrap().join().unwrap()));
    }
    guards.push(token.on_cancel(body));
    let (open, counted) = (gate.clone(), called.clone());
    guards.push(token.on_cancel(move || {
        counted.add();
        open.open();
    }));
    token.cancel();
    called.get()
}

/// Fault 590.
#[test]
fn no_wait_blocks_where_too_many_are_nested_in_callbacks() {
    quiet_panics();
    for wait in WAITS {
        in_both(move |own| {
            // The waits around it hold workers.
            let (home, gate, ended) = (pool(DEPTH, 64), Gate::new(), Counter::new());
            let (inner, inside, counted) = (own.clone(), Gate::new(), ended.clone());
            let open = inside.clone();
            let called = too_deep(&home, &gate, move || {
                let waited = catch_unwind(AssertUnwindSafe(|| wait(&inner, &inside)));
                drop(waited);
                counted.add();
            });
            assert_eq!((called, ended.get()), (1, 1));
            open.open();
            own.shutdown();
        });
    }
}

/// Fault 590.
#[test]
fn what_cannot_wait_in_nested_callbacks_says_so_or_goes_on() {
    quiet_panics();
    let (home, gate) = (pool(DEPTH, 64), Gate::new());
    let called = with_watchdog(|| {
        let pool = pool(1, 1);
        too_deep(&home, &gate, move || {
            let token = CancellationToken::new();
            assert!(!token.wait_timeout(Duration::MAX));
            assert!(catch_unwind(|| token.wait()).is_err());

            let (busy, ran) = (BlockedWorkers::new(&pool), Counter::new());
            let queued = common::fill(&pool, &ran);
            let counted = ran.clone();
            pool.execute(move || counted.add()).unwrap(); // beyond the capacity
            let late = pool.try_execute_for(Duration::MAX, || ());
            assert!(late.unwrap_err().is_timeout());
            assert!(!pool.wait_idle_timeout(Duration::MAX));

            let mut entered = false;
            let scope = pool.scope::<(), _, _>(|_| entered = true);
            assert!(matches!(scope, Err(GroupError::WouldDeadlock(_))) && !entered);

            let executor = workcrew::KeyedExecutor::builder(&pool).capacity(1).build();
            executor.execute(1, || ()).unwrap();
            executor.execute(1, || ()).unwrap(); // beyond the capacity
            assert!(executor.try_execute_for(1, Duration::MAX, || ()).unwrap_err().is_timeout());
            assert!(!executor.wait_idle_timeout(Duration::MAX));

            let hook = |_| -> Result<(), String> {
                std::thread::park_timeout(Duration::from_millis(1));
                Ok(())
            };
            let built = WorkerPool::builder().workers(1).try_on_thread_start(hook).build();
            assert!(built.is_ok() || matches!(built, Err(workcrew::BuildError::WouldDeadlock)));
            busy.open();
            drop(busy);
            pool.shutdown(); // returns before the end
            assert!(pool.wait_idle_timeout(common::LIMIT));
            assert_eq!(ran.get(), queued + 1);
        })
    });
    assert_eq!(called, 1);
}
