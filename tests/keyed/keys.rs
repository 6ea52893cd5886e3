//! What a key costs, and what its code may do.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use workcrew::{KeyedExecutor, WorkerPool};

use crate::common::{
    BlockedWorkers, Counter, DropCounter, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};

/// Fault 404.
#[test]
fn keys_that_are_used_once_leave_nothing() {
    const KEYS: usize = if cfg!(debug_assertions) { 30_000 } else { 1_000_000 };
    with_watchdog(|| {
        let pool = pool(2, 1_024);
        let executor = pool.keyed();
        for key in 0..KEYS {
            executor.execute(key, || ()).unwrap();
        }
        executor.wait_idle();
        assert_eq!((executor.keys_active(), executor.len()), (0, 0));
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, KEYS as u64);
    });
}

/// A key whose hash and comparison may call, panic and collide.
struct Odd {
    number: u32,
    hash: u32,
    executor: Option<Arc<KeyedExecutor<Odd>>>,
    panics: bool,
    _dropped: Option<DropCounter>,
}

impl Odd {
    fn new(number: u32, hash: u32) -> Self {
        Self { number, hash, executor: None, panics: false, _dropped: None }
    }
}

impl Hash for Odd {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl PartialEq for Odd {
    fn eq(&self, other: &Self) -> bool {
        for executor in self.executor.iter().chain(&other.executor) {
            assert!(executor.keys_active() > 0, "the lock is free");
            executor.execute(Odd::new(1_000, 1_000), || ()).unwrap();
        }
        assert!(!self.panics && !other.panics, "a comparison panics");
        self.number == other.number
    }
}

impl Eq for Odd {}

/// Fault 405.
#[test]
fn keys_with_equal_hashes_are_different_keys() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let wedge = BlockedWorkers::new(&pool);
        let order = Arc::new(crate::common::Mutex::new(vec![Vec::new(); 3]));
        for round in 0..10 {
            for number in 0..3 {
                let order = Arc::clone(&order);
                let task = move || order.lock().unwrap()[number as usize].push(round);
                executor.execute(Odd::new(number, 5), task).unwrap();
            }
        }
        assert_eq!((executor.keys_active(), executor.len()), (3, 30));
        wedge.open();
        executor.wait_idle();
        assert!(order.lock().unwrap().iter().all(|rounds| rounds.iter().copied().eq(0..10)));
        assert_eq!(executor.keys_active(), 0);
    });
}

/// Fault 405.
#[test]
fn a_key_is_compared_without_a_lock() {
    on_grid(|pool| {
        let executor = Arc::new(KeyedExecutor::builder(&pool).capacity(100).build());
        let wedge = BlockedWorkers::new(&pool);
        executor.execute(Odd::new(1, 1), || ()).unwrap();
        let calls = Odd { executor: Some(Arc::clone(&executor)), ..Odd::new(1, 1) };
        executor.execute(calls, || ()).unwrap(); // its comparison submits, too
        assert_eq!((executor.keys_active(), executor.len()), (2, 3));
        wedge.open();
        executor.wait_idle();
    });
}

/// Fault 405.
#[test]
fn a_comparison_that_panics_submits_nothing() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let wedge = BlockedWorkers::new(&pool);
        executor.execute(Odd::new(1, 1), || ()).unwrap();
        let panics = Odd { panics: true, ..Odd::new(1, 1) };
        let submitted = catch_unwind(AssertUnwindSafe(|| executor.execute(panics, || unreachable!("not submitted"))));
        assert!(submitted.is_err());
        assert_eq!(executor.len(), 1);
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 404.
#[test]
fn a_key_is_dropped_with_its_last_task_and_handle() {
    on_grid(|pool: WorkerPool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let (wedge, dropped) = (BlockedWorkers::new(&pool), Counter::new());
        let key = || Odd { _dropped: Some(DropCounter(dropped.clone())), ..Odd::new(1, 1) };
        executor.execute(key(), || ()).unwrap();
        let handle = executor.spawn(key(), || ()).unwrap();
        assert_eq!(dropped.get(), 1, "the second key is not kept");
        wedge.open();
        executor.wait_idle();
        assert_eq!((dropped.get(), executor.keys_active()), (1, 0));
        handle.join().unwrap();
        pool.wait_idle();
        assert_eq!(dropped.get(), 2);
    });
}

/// A key whose hash or comparison submits a task with such a key.
#[derive(Clone)]
struct Submits {
    in_hash: bool,
    executor: Arc<OnceLock<KeyedExecutor<Submits>>>,
    calls: Counter,
}

impl Submits {
    fn submit(&self) {
        self.calls.add();
        if let Some(executor) = self.executor.get() {
            executor.execute(self.clone(), || ()).unwrap();
        }
    }
}

impl Hash for Submits {
    fn hash<H: Hasher>(&self, _: &mut H) {
        if self.in_hash {
            self.submit();
        }
    }
}

impl PartialEq for Submits {
    fn eq(&self, _: &Self) -> bool {
        if !self.in_hash {
            self.submit();
        }
        true
    }
}

impl Eq for Submits {}

/// Fault 653.
#[test]
fn keys_whose_code_submits_with_such_keys_are_nested_sixteen_deep_and_then_panic() {
    quiet_panics();
    for in_hash in [true, false] {
        on_grid(|pool| {
            let key = Submits { in_hash, executor: Arc::default(), calls: Counter::new() };
            let executor = KeyedExecutor::builder(&pool).capacity(100).build();
            let wedge = BlockedWorkers::new(&pool);
            executor.execute(key.clone(), || ()).unwrap();
            let calls = key.calls.get();
            assert!(key.executor.set(executor.clone()).is_ok());
            let submitted = catch_unwind(AssertUnwindSafe(|| executor.execute(key.clone(), || ())));
            assert!(submitted.is_err());
            assert_eq!((key.calls.get() - calls, executor.len()), (16, 1));
            let mut future = std::pin::pin!(executor.spawn_async(key.clone(), || ()));
            let polled = catch_unwind(AssertUnwindSafe(|| pollster::block_on(&mut future).is_ok()));
            assert!(polled.is_err());
            wedge.open();
            pool.wait_idle();
            assert_counts_add_up(&pool);
            assert_eq!(pool.metrics().tasks_succeeded as usize, 1 + pool.workers());
        });
    }
}
