//! Callbacks that a thread has taken on and not called yet: a wait on that thread calls them before it sleeps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{Counter, Gate, Mutex, pool, with_watchdog};
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
    #[cfg(feature = "events")]
    |pool, gate| {
        let (bus, inside) = (workcrew::events::EventBus::new(pool), gate.clone());
        let _subscription = bus.subscribe(move |_: &u32| inside.pass());
        bus.publish(1_u32).wait().unwrap();
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
