//! Joins of the tasks of keys, from everywhere.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use workcrew::{JoinError, JoinHandle, KeyedExecutor};

use crate::common::{BlockedWorkers, Counter, Gate, Mutex, on_grid, pool, with_watchdog};

/// Fault 410.
#[test]
fn a_join_from_outside_and_from_a_task_of_the_pool_runs_the_earlier_tasks_first() {
    on_grid(|pool| {
        let executor = pool.keyed();
        for is_inside in [false, true] {
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut handles = Vec::new();
            for number in 0..10 {
                let order = Arc::clone(&order);
                handles.push(executor.spawn('k', move || order.lock().unwrap().push(number)).unwrap());
            }
            let joins = move || handles.into_iter().rev().for_each(|handle| handle.join().unwrap());
            if is_inside {
                pool.spawn(joins).unwrap().join().unwrap();
            } else {
                joins();
            }
            assert!(order.lock().unwrap().iter().copied().eq(0..10));
        }
    });
}

/// Fault 410.
#[test]
fn a_join_runs_no_task_of_another_key() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let executor = pool.keyed();
        let (own, ran) = (executor.clone(), Counter::new());
        let task = pool.spawn(move || {
            let other = ran.clone();
            own.execute('o', move || other.add()).unwrap();
            let joined = own.spawn('k', || 7).unwrap();
            (joined.join().unwrap(), ran.get())
        });
        assert_eq!(task.unwrap().join().unwrap(), (7, 0));
    });
}

/// Fault 410.
#[test]
fn a_join_of_a_task_behind_a_running_one_sleeps_and_then_helps() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let executor = pool.keyed();
        let gate = Gate::new();
        let inside = gate.clone();
        executor.execute('k', move || inside.pass()).unwrap();
        gate.wait_started(1);
        let (behind, last) = (executor.spawn('k', || 1).unwrap(), executor.spawn('k', || 2).unwrap());
        let joins = pool.spawn(move || (last.join().unwrap(), behind.join().unwrap())).unwrap();
        assert!(!joins.wait_timeout(Duration::from_millis(1)));
        gate.open();
        assert_eq!(joins.join().unwrap(), (2, 1));
    });
}

/// Fault 411.
#[test]
fn a_join_of_a_later_task_of_its_own_key_would_deadlock() {
    on_grid(|pool| {
        let executor = pool.keyed();
        let own = executor.clone();
        let task = executor.spawn('k', move || {
            let later = own.spawn('k', || 1).unwrap();
            assert!(!later.wait_timeout(Duration::from_millis(1)));
            assert!(!later.wait_timeout(Duration::MAX), "it returns at once");
            let awaited = pollster::block_on(own.spawn('k', || 2).unwrap());
            assert!(matches!(awaited, Err(JoinError::WouldDeadlock(_))), "{awaited:?}");
            matches!(later.join(), Err(JoinError::WouldDeadlock(_)))
        });
        assert!(task.unwrap().join().unwrap());
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 3, "the later tasks still run");
    });
}

/// Fault 411.
#[test]
fn a_task_that_joins_itself_would_deadlock() {
    on_grid(|pool| {
        let executor = pool.keyed();
        let (give, take) = mpsc::channel::<JoinHandle<bool>>();
        let task = executor.spawn('k', move || matches!(take.recv().unwrap().join(), Err(JoinError::WouldDeadlock(_))));
        give.send(task.unwrap()).unwrap();
        executor.wait_idle();
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

/// Fault 411.
#[test]
fn a_helped_task_that_joins_the_key_below_it_would_deadlock() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let executor = pool.keyed();
        let own = executor.clone();
        let task = executor.spawn('a', move || {
            let later = own.spawn('a', || ()).unwrap();
            // Runs on this stack, because there is no other worker.
            let other = own.spawn('b', move || matches!(later.join(), Err(JoinError::WouldDeadlock(_))));
            other.unwrap().join().unwrap()
        });
        assert!(task.unwrap().join().unwrap());
    });
}

/// Fault 412.
#[test]
fn joins_of_keys_in_a_circle_end_with_one_error() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let executor = pool.keyed();
        let places: [Arc<Mutex<Option<JoinHandle<bool>>>>; 2] = Default::default();
        let (gate, mut firsts) = (Gate::new(), Vec::new());
        for own in [0, 1] {
            let (other, inside) = (Arc::clone(&places[1 - own]), gate.clone());
            let first = executor.spawn(own, move || {
                inside.pass();
                let other = other.lock().unwrap().take().unwrap();
                matches!(other.join(), Err(JoinError::WouldDeadlock(_)))
            });
            firsts.push(first.unwrap());
        }
        gate.wait_started(2);
        for own in [0, 1] {
            *places[own].lock().unwrap() = Some(executor.spawn(own, || true).unwrap());
        }
        gate.open();
        let refused: Vec<bool> = firsts.into_iter().map(|first| first.join().unwrap()).collect();
        assert_eq!(refused.iter().filter(|refused| **refused).count(), 1, "{refused:?}");
        executor.wait_idle();
    });
}

/// Fault 413.
#[test]
fn a_wait_for_an_idle_executor_helps_and_is_refused_to_its_own_tasks() {
    on_grid(|pool| {
        let executor = pool.keyed();
        let (own, ran) = (executor.clone(), Counter::new());
        let waits = pool.spawn(move || {
            for key in 0..20 {
                let ran = ran.clone();
                own.execute(key % 3, move || ran.add()).unwrap();
            }
            own.wait_idle();
            ran.get()
        });
        assert_eq!(waits.unwrap().join().unwrap(), 20);
        let own = executor.clone();
        let waits = executor.spawn(0, move || {
            assert!(!own.wait_idle_timeout(Duration::MAX));
            assert!(!own.wait_idle_timeout(Duration::from_secs(3_600)), "it returns at once");
            own.wait_idle();
        });
        let panic = waits.unwrap().join().unwrap_err().to_string();
        assert!(panic.contains("a task cannot wait for its own executor to be idle"), "{panic}");
        assert!(executor.wait_idle_timeout(Duration::MAX));
        let wedge = BlockedWorkers::new(&pool);
        executor.execute(0, || ()).unwrap();
        assert!(!executor.wait_idle_timeout(Duration::from_millis(1)));
        wedge.open();
    });
}

/// Fault 413.
#[test]
fn a_cancelled_task_never_runs_and_the_next_one_does() {
    on_grid(|pool| {
        let executor = pool.keyed();
        let wedge = BlockedWorkers::new(&pool);
        if pool.queue_capacity() < 3 {
            wedge.open(); // the executor has room for one task only
            return;
        }
        let first = executor.spawn('k', || 1).unwrap();
        let second = executor.spawn('k', || unreachable!("it is cancelled")).unwrap();
        let third = executor.spawn('k', || 3).unwrap();
        assert_eq!((second.cancel(), second.cancel()), (true, false));
        let cancelled: Result<(), _> = second.join();
        assert!(matches!(cancelled, Err(JoinError::Cancelled(_))));
        wedge.open();
        assert_eq!((third.join().unwrap(), first.join().unwrap()), (3, 1));
        pool.wait_idle();
        assert_eq!((executor.keys_active(), pool.metrics().tasks_cancelled), (0, 1));
    });
}

/// Fault 413.
#[test]
fn a_cancelled_last_task_leaves_the_executor_idle_at_once() {
    let pool = pool(1, 4);
    let executor = pool.keyed();
    let wedge = BlockedWorkers::new(&pool);
    assert!(executor.spawn('k', || ()).unwrap().cancel());
    executor.wait_idle(); // although no worker has reached the place of the task
    wedge.open();
    pool.wait_idle();
}

/// A key that acts when it is dropped.
struct Acts(u32, Option<Box<dyn FnOnce() + Send + Sync>>);

impl Acts {
    fn on_drop(number: u32, f: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(number, Some(Box::new(f)))
    }
}

impl Hash for Acts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Acts {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Acts {}

impl Drop for Acts {
    fn drop(&mut self) {
        self.1.take().into_iter().for_each(|f| f());
    }
}

/// Fault 650.
#[test]
fn the_destructor_of_a_key_joins_a_task_of_the_key_whose_turn_is_next() {
    on_grid(|pool| {
        let executor = KeyedExecutor::<Acts>::builder(&pool).capacity(100).build();
        let (wedge, queued) = (BlockedWorkers::new(&pool), Arc::new(Mutex::new(None::<JoinHandle<u32>>)));
        let ((tell, told), own) = (mpsc::channel(), (executor.clone(), Arc::clone(&queued)));
        let joins = Acts::on_drop(1, move || {
            let queued = own.1.lock().unwrap().take().unwrap().join();
            let new = own.0.spawn(Acts(2, None), || 3).unwrap().join();
            tell.send((queued.ok(), new.ok())).unwrap();
        });
        executor.execute(joins, || ()).unwrap();
        *queued.lock().unwrap() = Some(executor.spawn(Acts(2, None), || 2).unwrap());
        wedge.open();
        assert_eq!(told.recv().unwrap(), (Some(2), Some(3)));
        pool.wait_idle();
    });
}

/// Fault 650.
#[test]
fn a_key_whose_destructor_takes_long_delays_no_other_key() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let executor = KeyedExecutor::<Acts>::builder(&pool).capacity(100).build();
        let (held, wedge) = (Gate::new(), BlockedWorkers::new(&pool));
        let inside = held.clone();
        executor.execute(Acts::on_drop(1, move || inside.pass()), || ()).unwrap();
        let others: Vec<_> = (2..20).map(|key| executor.spawn(Acts(key, None), || ()).unwrap()).collect();
        wedge.open();
        for other in others {
            other.join().unwrap();
        }
        held.wait_started(1);
        held.open();
        pool.wait_idle();
    });
}
