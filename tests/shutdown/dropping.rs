//! Dropping a pool: policies, unwinding, thread locals and statics.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::thread;

use crate::common::{
    self, BlockedWorkers, Counter, Gate, LIMIT, assert_counts_add_up, grid, pool, run_child, with_watchdog,
};
use workcrew::{OnDrop, WorkerPool};

#[test]
fn dropping_follows_the_policy() {
    for (policy, runs) in [(OnDrop::Drain, true), (OnDrop::Cancel, false), (OnDrop::Detach, true)] {
        grid(|builder| {
            let pool = builder.on_drop(policy).build().unwrap();
            let wedge = BlockedWorkers::new(&pool);
            let ran = Counter::new();
            let counted = ran.clone();
            let handle = pool.spawn(move || counted.add()).unwrap();
            let dropper = thread::spawn(move || drop(pool));
            if policy == OnDrop::Detach {
                dropper.join().unwrap(); // does not wait for the wedge
                wedge.open();
            } else {
                if policy == OnDrop::Cancel {
                    assert!(handle.wait_timeout(LIMIT)); // cancelled though every worker is busy
                }
                wedge.open();
                dropper.join().unwrap();
                assert!(handle.is_finished());
            }
            assert_eq!(handle.join().is_ok(), runs);
            assert_eq!(ran.get(), usize::from(runs));
        });
    }
}

/// Fault 103.
#[test]
fn a_pool_dropped_while_unwinding_ends_in_peace() {
    common::quiet_panics();
    let unwound = thread::Builder::new().name("workcrew-test".into()).spawn(|| {
        let pool = pool(2, 4);
        pool.execute(|| panic!("task")).unwrap();
        panic!("user");
    });
    assert!(unwound.unwrap().join().unwrap_err().downcast_ref::<&str>() == Some(&"user"));
}

/// Fault 105.
#[test]
fn a_pool_in_a_thread_local_is_dropped_with_its_thread() {
    thread_local! { static POOL: RefCell<Option<WorkerPool>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        let ran = Counter::new();
        let counted = ran.clone();
        let user = thread::spawn(move || {
            POOL.set(Some(pool(2, 4)));
            POOL.with_borrow(|pool| pool.as_ref().unwrap().execute(move || counted.add()).unwrap());
        });
        user.join().unwrap();
        assert_eq!(ran.get(), 1);
    });
}

/// Fault 123.
#[test]
fn a_thread_local_of_a_worker_may_use_the_pool_in_its_destructor() {
    struct UsesPool(workcrew::WeakWorkerPool, Counter);
    impl Drop for UsesPool {
        fn drop(&mut self) {
            if let Some(pool) = self.0.upgrade() {
                let _ = pool.execute(|| ());
                let _ = pool.spawn(|| ()).map(|handle| handle.cancel());
                let _ = (pool.metrics(), pool.running());
            }
            self.1.add();
        }
    }
    thread_local! { static LOCAL: RefCell<Option<UsesPool>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        for shrinks in [false, true] {
            let pool = pool(2, 4);
            let destroyed = Counter::new();
            for _ in 0..2 {
                let (weak, counted) = (pool.downgrade(), destroyed.clone());
                let gate = Gate::new();
                let inside = gate.clone();
                pool.execute(move || {
                    LOCAL.set(Some(UsesPool(weak, counted)));
                    inside.open();
                    inside.pass();
                })
                .unwrap();
                pool.wait_idle();
            }
            if shrinks {
                pool.resize(1).unwrap();
            }
            pool.wait_idle();
            pool.shutdown();
            assert_eq!(destroyed.get(), 2, "by the ends of two threads, or of one and by the second task");
            assert_counts_add_up(&pool);
        }
    });
}

/// Fault 104.
#[test]
fn a_process_may_end_while_a_static_pool_works() {
    let output = run_child("dropping::child_returns_while_a_static_pool_works", &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it did not end by a return: {output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_returns_while_a_static_pool_works() {
    static POOL: OnceLock<WorkerPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| pool(2, 4));
    let gate = Gate::new();
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    gate.wait_started(1); // and is never opened: `main` returns while the task runs
}
