//! Submitting to keys and waiting for them from async code, and the labels of keys.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use crate::common::{
    Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};
use workcrew::{JoinHandle, KeyedExecutor, SubmitError};

/// Counts its calls.
struct CountingWaker(Counter);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.add();
    }
}

fn poll<F: Future>(future: Pin<&mut F>, woken: &Counter) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(CountingWaker(woken.clone())));
    future.poll(&mut Context::from_waker(&waker))
}

fn submitted<F>(ready: Poll<Result<JoinHandle<()>, SubmitError<F>>>) -> JoinHandle<()> {
    match ready {
        Poll::Ready(Ok(handle)) => handle,
        _ => panic!("the task was not accepted"),
    }
}

/// Fault 539.
#[test]
fn a_future_waits_for_room_of_its_key_or_of_the_executor() {
    for per_key in [1, usize::MAX] {
        let pool = pool(2, 64);
        let capacity = if per_key == 1 { 8 } else { 1 };
        let executor = KeyedExecutor::builder(&pool).capacity(capacity).capacity_per_key(per_key).build();
        let (gate, woken, ran) = (Gate::new(), Counter::new(), Counter::new());
        let passed = gate.clone();
        executor.execute(1, move || passed.pass()).unwrap();
        gate.wait_started(1);
        executor.execute(1, || ()).unwrap(); // the key, or the executor, is full
        let counted = ran.clone();
        let mut waits = pin!(executor.spawn_async(1, move || counted.add()));
        assert!(poll(waits.as_mut(), &woken).is_pending());
        let mut other = pin!(executor.spawn_async(2, || ()));
        let other = poll(other.as_mut(), &woken);
        assert_eq!(other.is_ready(), per_key == 1, "only the key is full");
        assert!(poll(waits.as_mut(), &woken).is_pending() && ran.get() == 0);
        gate.open();
        with_watchdog(|| {
            let handle = pollster::block_on(waits).unwrap_or_else(|_| panic!("the pool is open"));
            handle.join().unwrap();
        });
        assert_eq!(ran.get(), 1);
        pool.wait_idle();
        assert_counts_add_up(&pool);
    }
}

/// Fault 539.
#[test]
fn many_futures_and_threads_fill_a_small_executor_in_order() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(3).capacity_per_key(2).build();
        let order: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        thread::scope(|scope| {
            for submitter in 0..4 {
                let (executor, order) = (&executor, &order);
                scope.spawn(move || {
                    for number in 0..40 {
                        let order = Arc::clone(order);
                        let task = move || order.lock().unwrap().push((submitter, number));
                        if submitter % 2 == 0 {
                            drop(pollster::block_on(executor.spawn_async(submitter / 2, task)).unwrap());
                        } else {
                            executor.execute(submitter / 2, task).unwrap();
                        }
                    }
                });
            }
        });
        with_watchdog(|| pollster::block_on(executor.wait_idle_async()));
        let order = order.lock().unwrap();
        for submitter in 0..4 {
            let own = order.iter().filter(|(by, _)| *by == submitter).map(|(_, number)| *number);
            assert!(own.eq(0..40), "{order:?}");
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 539.
#[test]
fn a_future_that_is_dropped_or_never_polled_again_leaves_its_room_to_others() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity_per_key(1).build();
        let (gate, woken, dropped) = (Gate::new(), Counter::new(), Counter::new());
        let passed = gate.clone();
        executor.execute(1, move || passed.pass()).unwrap();
        gate.wait_started(1);
        executor.execute(1, || ()).unwrap();
        let never_polled = executor.spawn_async(9, || ());
        let [closure, other] = [dropped.clone(), dropped.clone()].map(DropCounter);
        let mut is_dropped = Box::pin(executor.spawn_async(1, move || drop(closure)));
        let mut is_stuck = Box::pin(executor.spawn_async(1, move || drop(other)));
        let mut last = pin!(executor.spawn_async(1, || ()));
        assert!(poll(is_dropped.as_mut(), &woken).is_pending());
        assert!(poll(is_stuck.as_mut(), &woken).is_pending());
        assert!(poll(last.as_mut(), &woken).is_pending());
        drop(is_dropped);
        drop(never_polled);
        assert_eq!(dropped.get(), 1, "its closure is dropped with it");
        gate.open();
        with_watchdog(|| pollster::block_on(last).unwrap().join().unwrap());
        pool.wait_idle(); // the stuck one is no task of the pool
        assert_eq!((executor.len(), executor.keys_active()), (0, 0));
        submitted(poll(is_stuck.as_mut(), &woken)).join().unwrap();
        assert_eq!(dropped.get(), 2);
        assert_counts_add_up(&pool);
    });
}

/// Fault 539.
#[test]
fn the_end_of_the_pool_wakes_a_future_and_returns_its_closure() {
    for now in [false, true] {
        on_grid(|pool| {
            let executor = KeyedExecutor::builder(&pool).capacity(1).build();
            let (gate, woken) = (Gate::new(), Counter::new());
            let passed = gate.clone();
            executor.execute(1, move || passed.pass()).unwrap();
            gate.wait_started(1);
            executor.execute(1, || ()).unwrap();
            let mut waits = pin!(executor.spawn_async(1, || 7));
            assert!(poll(waits.as_mut(), &woken).is_pending());
            let ends = pool.clone();
            let ends = thread::spawn(move || match now {
                true => _ = ends.shutdown_now(),
                false => ends.shutdown(),
            });
            with_watchdog(|| {
                while woken.get() == 0 {
                    thread::yield_now();
                }
            });
            let Poll::Ready(Err(refused)) = poll(waits.as_mut(), &woken) else { panic!("the pool is closed") };
            assert_eq!(refused.into_inner()(), 7);
            gate.open();
            with_watchdog(|| ends.join().unwrap());
            assert!(pollster::block_on(executor.spawn_async(1, || ())).is_err());
            pollster::block_on(executor.wait_idle_async());
            assert_counts_add_up(&pool);
        });
    }
}

/// Fault 539.
#[test]
fn a_task_submits_and_waits_asynchronously_without_deadlock() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(1).build();
        let (own, abroad) = (executor.clone(), pool_of_one());
        let first = executor.spawn(1, move || {
            for _ in 0..5 {
                drop(pollster::block_on(own.spawn_async(1, || ())).unwrap()); // its own key
                drop(pollster::block_on(own.spawn_async(2, || ())).unwrap());
            }
        });
        with_watchdog(|| first.unwrap().join().unwrap());
        // A worker that waits for a task of another pool makes the room that this one waits for.
        let full = executor.clone();
        let joins = pool.spawn(move || {
            let submits = move || (0..5).for_each(|_| drop(pollster::block_on(full.spawn_async(3, || ())).unwrap()));
            abroad.spawn(submits).unwrap().join().unwrap();
        });
        with_watchdog(|| joins.unwrap().join().unwrap());
        with_watchdog(|| pollster::block_on(executor.wait_idle_async()));
        assert_counts_add_up(&pool);
    });
}

fn pool_of_one() -> workcrew::WorkerPool {
    pool(1, 64)
}

/// Fault 539.
#[test]
fn an_awaited_idleness_helps_in_a_task_and_panics_in_a_task_of_the_executor() {
    quiet_panics();
    on_grid(|pool| {
        let executor = pool.keyed();
        let own = executor.clone();
        let inside = executor.spawn(1, move || pollster::block_on(own.wait_idle_async()));
        assert!(with_watchdog(|| inside.unwrap().join()).is_err());
        let other = executor.clone();
        let helps = pool.spawn(move || {
            let ran = Counter::new();
            for _ in 0..3 {
                let counted = ran.clone();
                other.execute(2, move || counted.add()).unwrap();
            }
            pollster::block_on(other.wait_idle_async());
            ran.get()
        });
        assert_eq!(with_watchdog(|| helps.unwrap().join().unwrap()), 3);
        let (gate, woken) = (Gate::new(), Counter::new());
        let passed = gate.clone();
        executor.execute(3, move || passed.pass()).unwrap();
        let mut waits = pin!(executor.wait_idle_async());
        let mut dropped = Box::pin(executor.wait_idle_async());
        assert!(poll(waits.as_mut(), &woken).is_pending() && poll(dropped.as_mut(), &woken).is_pending());
        drop(dropped);
        gate.open();
        with_watchdog(|| pollster::block_on(waits));
    });
}

/// A key that panics when it is hashed.
#[derive(PartialEq, Eq)]
struct BadKey;

impl std::hash::Hash for BadKey {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {
        panic!("a bad key");
    }
}

/// Fault 539.
#[test]
fn a_poll_whose_key_panics_withdraws_the_submission() {
    quiet_panics();
    let pool = pool(1, 64);
    let executor = pool.keyed::<BadKey>();
    let panicked = thread::spawn(move || drop(pollster::block_on(executor.spawn_async(BadKey, || ())))).join();
    assert!(panicked.is_err());
    pool.wait_idle();
    let executor = KeyedExecutor::builder(&pool).label_by(|_: &u32| -> String { panic!("no label") }).build();
    assert!(thread::spawn(move || executor.execute(1, || ())).join().is_err());
    pool.wait_idle();
    assert_counts_add_up(&pool);
}

/// Fault 539.
#[test]
fn running_tasks_show_the_labels_of_their_keys() {
    let pool = pool(2, 64);
    let builder = KeyedExecutor::builder(&pool).label("all").label_by(|key: &u32| format!("key {key}"));
    assert!(format!("{builder:?}").contains("has_key_labels: true"));
    let executor = builder.clone().build();
    let gate = Gate::new();
    for key in [7, 8] {
        let passed = gate.clone();
        executor.execute(key, move || passed.pass()).unwrap();
    }
    gate.wait_started(2);
    let mut labels: Vec<_> = pool.running().iter().map(|task| task.label().unwrap().to_owned()).collect();
    labels.sort();
    assert_eq!(labels, ["key 7", "key 8"]);
    assert!(format!("{executor:?}").contains("running: 2"));
    gate.open();
    let (tell, told) = channel();
    let inside = pool.clone();
    executor.execute(9, move || tell.send(inside.running()[0].label().map(str::to_owned)).unwrap()).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap().as_deref().map(|label| &label[..4]), Some("key "));
    let panicked = executor.spawn(5, || panic!("a panic")).unwrap().join();
    assert!(panicked.unwrap_err().to_string().contains("key 5"));
}
