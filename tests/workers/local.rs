//! `WorkerLocal`: a value for each worker, made on its first use and dropped on its worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use crate::common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, Mutex, on_grid, pool, quiet_panics, with_watchdog,
};
use workcrew::{Overflow, WorkerLocal, WorkerLocalError, WorkerPool, current_worker};

/// Calls `f` on each worker, in tasks that are all running at the same time.
fn on_each(pool: &WorkerPool, f: impl Fn() + Send + Sync + 'static) {
    let (gate, f) = (Gate::new(), Arc::new(f));
    let tasks: Vec<_> = (1..=pool.workers())
        .map(|started| {
            let (inside, f) = (gate.clone(), Arc::clone(&f));
            let task = pool.spawn(move || {
                f();
                inside.pass();
            });
            gate.wait_started(started);
            task.unwrap()
        })
        .collect();
    gate.open();
    tasks.into_iter().for_each(|task| task.join().unwrap());
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// Fault 425.
#[test]
fn each_worker_makes_its_own_value_once_and_the_value_need_not_be_send() {
    on_grid(|pool| {
        let made = Counter::new();
        let makes = made.clone();
        let local = WorkerLocal::new(&pool, move || {
            makes.add();
            Rc::new(Cell::new(current_worker().unwrap().index()))
        });
        assert_eq!(made.get(), 0, "nothing is made beforehand");
        for _ in 0..3 {
            let local = local.clone();
            on_each(&pool, move || {
                let own = local.with(|index| Rc::clone(index).get()).unwrap();
                assert_eq!(own, current_worker().unwrap().index());
            });
            assert_eq!(made.get(), pool.workers());
        }
    });
}

/// Fault 425.
#[test]
fn a_worker_local_has_no_value_outside_of_its_pool() {
    let full = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::CallerRuns).build().unwrap();
    let other = pool(1, 4);
    let local = WorkerLocal::new(&full, || 1);
    assert_eq!(local.with(|one| *one), Err(WorkerLocalError::NotOnWorker));
    let foreign = local.clone();
    let elsewhere = other.spawn(move || foreign.with(|one| *one)).unwrap().join().unwrap();
    assert_eq!(elsewhere, Err(WorkerLocalError::NotOnWorker));
    let wedge = BlockedWorkers::new(&full);
    full.execute(|| ()).unwrap();
    let inline = local.clone();
    let on_submitter = full.spawn(move || inline.with(|one| *one)).unwrap().join().unwrap();
    assert_eq!(on_submitter, Err(WorkerLocalError::NotOnWorker));
    wedge.open();
    assert_eq!(format!("{local:?}"), "WorkerLocal { workers: 0, .. }");
    drop(full);
    assert_eq!(local.with(|one| *one), Err(WorkerLocalError::NotOnWorker));
}

/// Fault 426.
#[test]
fn a_second_use_on_one_stack_is_refused_also_when_a_waiting_worker_runs_it() {
    on_grid(|pool| {
        let local = WorkerLocal::new(&pool, || 0);
        let other = WorkerLocal::new(&pool, || 10);
        let own = pool.clone();
        let task = pool.spawn(move || {
            let (inner, index) = (local.clone(), current_worker().unwrap().index());
            let nested = local.with(|value| {
                *value += 1;
                assert_eq!(local.with(|_| ()), Err(WorkerLocalError::InUse));
                assert_eq!(other.with(|ten| *ten), Ok(10), "another one is free");
                let again = inner.clone();
                let task = own.spawn(move || (current_worker().unwrap().index(), again.with(|value| *value))).unwrap();
                task.join().unwrap()
            });
            match nested.unwrap() {
                (helper, used) if helper == index => assert_eq!(used, Err(WorkerLocalError::InUse)),
                (_, used) => assert_eq!(used, Ok(0)),
            }
            local.with(|value| *value)
        });
        assert_eq!(task.unwrap().join().unwrap(), Ok(1));
    });
}

/// Fault 426.
#[test]
fn a_use_while_the_value_is_being_made_is_refused() {
    let pool = pool(1, 4);
    let slot: Arc<Mutex<Option<WorkerLocal<_>>>> = Arc::default();
    let reach = Arc::clone(&slot);
    let local = WorkerLocal::new(&pool, move || {
        let own: WorkerLocal<u8> = reach.lock().unwrap().take().unwrap();
        assert_eq!(own.with(|_| ()), Err(WorkerLocalError::InUse));
        7
    });
    *slot.lock().unwrap() = Some(local.clone());
    assert_eq!(pool.spawn(move || local.with(|seven| *seven)).unwrap().join().unwrap(), Ok(7));
}

/// Fault 427.
#[test]
fn a_panic_in_a_use_drops_the_value_and_the_next_use_makes_a_new_one() {
    quiet_panics();
    let pool = pool(1, 4);
    let (made, dropped) = (Counter::new(), Counter::new());
    let (makes, drops) = (made.clone(), dropped.clone());
    let local = WorkerLocal::new(&pool, move || {
        makes.add();
        assert_ne!(makes.get(), 1, "the first making fails");
        Bomb(drops.clone())
    });
    let use_it = |panics: bool| {
        let local = local.clone();
        pool.spawn(move || local.with(|_| assert!(!panics, "in the closure"))).unwrap().join()
    };
    assert!(use_it(false).unwrap_err().task().is_some(), "the making has panicked");
    use_it(false).unwrap().unwrap();
    let error = use_it(true).unwrap_err();
    assert!(error.to_string().contains("in the closure"), "{error}");
    assert_eq!((made.get(), dropped.get(), pool.metrics().hooks_panicked), (2, 1, 1));
    use_it(false).unwrap().unwrap();
    assert_eq!((made.get(), dropped.get()), (3, 1));
}

/// Notes the thread on which it is dropped.
struct NotesThread(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for NotesThread {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

/// Fault 428.
#[test]
fn the_drop_of_the_last_handle_drops_each_value_on_its_worker_also_on_sleeping_ones() {
    on_grid(|pool| {
        let (dropped, threads) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (notes, at) = (Arc::clone(&dropped), Arc::clone(&threads));
        let local = WorkerLocal::new(&pool, move || NotesThread(Arc::clone(&notes)));
        let clone = local.clone();
        on_each(&pool, move || {
            at.lock().unwrap().push(thread::current().id());
            clone.with(|_| ()).unwrap();
        });
        wait_until(|| pool.wait_idle_timeout(std::time::Duration::ZERO));
        assert!(dropped.lock().unwrap().is_empty());
        drop(local);
        wait_until(|| dropped.lock().unwrap().len() == pool.workers());
        let sorted = |of: &Mutex<Vec<ThreadId>>| {
            let mut names: Vec<_> = of.lock().unwrap().iter().map(|id| format!("{id:?}")).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&dropped), sorted(&threads));
    });
}

/// Fault 428.
#[test]
fn the_drop_of_the_last_handle_does_not_wait_for_a_busy_worker_and_drops_the_value_of_the_own_one_at_once() {
    on_grid(|pool| {
        let dropped = Counter::new();
        let drops = dropped.clone();
        let local = WorkerLocal::new(&pool, move || DropCounter(drops.clone()));
        let clone = local.clone();
        on_each(&pool, move || clone.with(|_| ()).unwrap());
        let wedge = BlockedWorkers::new(&pool);
        drop(local);
        assert_eq!(dropped.get(), 0);
        wedge.open();
        wait_until(|| dropped.get() == pool.workers());

        let drops = dropped.clone();
        let local = WorkerLocal::new(&pool, move || DropCounter(drops.clone()));
        let (before, after) = (dropped.get(), dropped.clone());
        let dropped_at_once = pool.spawn(move || {
            local.with(|_| ()).unwrap();
            drop(local);
            after.get() - before
        });
        assert_eq!(dropped_at_once.unwrap().join().unwrap(), 1);
    });
}

/// Fault 429.
#[test]
fn a_worker_that_leaves_drops_its_values_after_its_stop_hook_and_makes_none() {
    thread_local!(static STOPPED: Cell<bool> = const { Cell::new(false) });
    struct Last(Counter, WorkerLocal<Last>);
    impl Drop for Last {
        fn drop(&mut self) {
            assert!(STOPPED.get() && current_worker().is_some());
            assert_eq!(self.1.with(|_| ()), Err(WorkerLocalError::NotOnWorker));
            self.0.add();
        }
    }
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let pool = WorkerPool::builder().workers(workers).on_thread_stop(|_| STOPPED.set(true)).build().unwrap();
            let (made, dropped, slot) = (Counter::new(), Counter::new(), Arc::<Mutex<Option<_>>>::default());
            let (makes, drops, reach) = (made.clone(), dropped.clone(), Arc::clone(&slot));
            let local = WorkerLocal::new(&pool, move || {
                makes.add();
                Last(drops.clone(), Option::<WorkerLocal<_>>::clone(&reach.lock().unwrap()).unwrap())
            });
            *slot.lock().unwrap() = Some(local.clone());
            for round in 1..=3 {
                let clone = local.clone();
                on_each(&pool, move || clone.with(|_| ()).unwrap());
                assert_eq!(made.get() - dropped.get(), workers, "in round {round}");
                pool.resize(1).unwrap();
                wait_until(|| made.get() - dropped.get() == 1);
                pool.resize(workers).unwrap();
            }
            pool.shutdown();
            assert_eq!(made.get(), dropped.get());
            slot.lock().unwrap().take();
        }
    });
}

/// Fault 429.
#[test]
fn values_that_panic_when_dropped_are_contained_and_counted() {
    quiet_panics();
    on_grid(|pool| {
        let dropped = Counter::new();
        for round in 1..=2_u64 {
            let drops = dropped.clone();
            let local = WorkerLocal::new(&pool, move || Bomb(drops.clone()));
            let clone = local.clone();
            on_each(&pool, move || clone.with(|_| ()).unwrap());
            if round == 1 {
                drop(local);
                wait_until(|| pool.metrics().hooks_panicked == pool.workers() as u64);
                assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
            } else {
                pool.shutdown();
                assert_eq!(pool.metrics().hooks_panicked, 2 * pool.workers() as u64);
            }
        }
        assert_eq!(dropped.get(), 2 * pool.workers());
    });
}

/// Fault 430.
#[test]
fn worker_locals_that_are_made_and_dropped_by_the_hundred_thousand_leave_nothing() {
    const LOCALS: usize = 100_000;
    with_watchdog(|| {
        let pool = pool(2, 64);
        let dropped = Counter::new();
        let drops = dropped.clone();
        let (own, counted) = (pool.clone(), dropped.clone());
        let in_task = pool.spawn(move || {
            for made in 1..=LOCALS {
                let drops = drops.clone();
                let local = WorkerLocal::new(&own, move || DropCounter(drops.clone()));
                local.with(|_| ()).unwrap();
                drop(local);
                assert_eq!(counted.get(), made);
            }
        });
        in_task.unwrap().join().unwrap();
        assert_eq!(dropped.get(), LOCALS);
        // From outside, and used by a busy worker, which keeps no more than it has made.
        let before = dropped.get();
        for _ in 0..LOCALS / 100 {
            let drops = dropped.clone();
            let local = WorkerLocal::new(&pool, move || DropCounter(drops.clone()));
            let clone = local.clone();
            pool.spawn(move || clone.with(|_| ()).unwrap()).unwrap().join().unwrap();
        }
        wait_until(|| dropped.get() - before == LOCALS / 100);
    });
}

/// A worker local whose value holds the next one.
struct Chain(RefCell<Option<WorkerLocal<Chain>>>);

/// Fault 430.
#[test]
fn a_long_chain_of_worker_locals_is_dropped_without_overflowing_the_stack() {
    const LINKS: usize = 100_000;
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).stack_size(512 << 10).build().unwrap();
        let (own, dropped) = (pool.clone(), Counter::new());
        let counted = DropCounter(dropped.clone());
        let make = move || {
            let last = WorkerLocal::new(&own, move || {
                let _counted = &counted;
                Chain(RefCell::default())
            });
            last.with(|_| ()).unwrap();
            (0..LINKS).fold(last, |next, _| {
                let local = WorkerLocal::new(&own, || Chain(RefCell::default()));
                local.with(|chain| *chain.0.borrow_mut() = Some(next)).unwrap();
                local
            })
        };
        let first = pool.spawn(make).unwrap().join().unwrap();
        drop(first);
        wait_until(|| dropped.get() == 1);
        pool.shutdown();
    });
}

/// Fault 430.
#[test]
fn worker_locals_of_two_pools_are_apart_and_outlive_their_pools() {
    let pools = [pool(1, 4), pool(2, 4)];
    let dropped = Counter::new();
    let locals = pools.each_ref().map(|pool| {
        let drops = dropped.clone();
        WorkerLocal::new(pool, move || (pool_size(), DropCounter(drops.clone())))
    });
    fn pool_size() -> usize {
        current_worker().unwrap().pool().upgrade().unwrap().workers()
    }
    for (pool, local) in pools.iter().zip(&locals) {
        let (local, size) = (local.clone(), pool.workers());
        on_each(pool, move || assert_eq!(local.with(|(size, _)| *size), Ok(size)));
    }
    drop(pools);
    assert_eq!(dropped.get(), 3, "the workers have left");
    drop(locals);
}
