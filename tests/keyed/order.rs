//! One task of a key at a time, in order; keys in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use workcrew::KeyedExecutor;

use crate::common::{
    BlockedWorkers, Counter, Gate, Mutex, assert_counts_add_up, in_threads, on_grid, pool, quiet_panics, with_watchdog,
};

/// What the tasks of one key have seen.
#[derive(Default)]
struct Track {
    is_running: AtomicBool,
    overlaps: Counter,
    /// The number of the last task of each submitter.
    last: Mutex<[usize; 8]>,
    out_of_order: Counter,
}

impl Track {
    fn run(&self, submitter: usize, number: usize) {
        if self.is_running.swap(true, Ordering::SeqCst) {
            self.overlaps.add();
        }
        let mut last = self.last.lock().unwrap();
        if last[submitter] + 1 != number {
            self.out_of_order.add();
        }
        last[submitter] = number;
        drop(last);
        self.is_running.store(false, Ordering::SeqCst);
        assert!(number % 1_000 != 7, "some tasks panic");
    }
}

/// Fault 400.
#[test]
fn tasks_of_a_key_run_one_at_a_time_in_order_from_eight_threads() {
    const TASKS: usize = 1_250; // of each key from each thread: 10,000 of each key
    quiet_panics();
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let pool = pool(workers, 256);
            let executor = pool.keyed::<usize>();
            let tracks: Arc<[Track; 8]> = Arc::default();
            in_threads(|threads| {
                for submitter in 0..8 {
                    let (executor, tracks) = (executor.clone(), Arc::clone(&tracks));
                    threads.spawn(move || {
                        for number in 1..=TASKS {
                            for key in 0..8 {
                                let tracks = Arc::clone(&tracks);
                                let task = move || tracks[key].run(submitter, number);
                                #[cfg(feature = "retry")]
                                if number % 500 == 99 {
                                    crate::retry::second_time(&executor, key, task);
                                    continue;
                                }
                                if number % 2 == 0 {
                                    executor.execute(key, task).unwrap();
                                } else {
                                    drop(executor.spawn(key, task).unwrap());
                                }
                            }
                        }
                    });
                }
            });
            executor.wait_idle();
            for track in &*tracks {
                assert_eq!((track.overlaps.get(), track.out_of_order.get()), (0, 0));
                assert_eq!(*track.last.lock().unwrap(), [TASKS; 8], "no task is lost");
            }
            pool.wait_idle();
            assert_eq!(pool.metrics().tasks_panicked, 8 * 8 * 2);
            assert_counts_add_up(&pool);
        }
    });
}

/// Fault 401.
#[test]
fn a_chatty_key_delays_another_key_by_at_most_one_turn() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let executor = KeyedExecutor::builder(&pool).capacity(200_000).build();
        let (gate, ran) = (Gate::new(), Counter::new());
        let inside = gate.clone();
        executor.execute("chatty", move || inside.pass()).unwrap();
        gate.wait_started(1);
        for _ in 0..100_000 {
            let ran = ran.clone();
            executor.execute("chatty", move || ran.add()).unwrap();
        }
        let (seen, inside) = (ran.clone(), gate.clone());
        let quiet = executor.spawn("quiet", move || {
            drop(inside);
            seen.get()
        });
        gate.open();
        assert!(quiet.unwrap().join().unwrap() <= 1, "the running task, and at most one turn");
        executor.wait_idle();
        assert_eq!(ran.get(), 100_000);
    });
}

/// Fault 401.
#[test]
fn keys_take_turns() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let executor = pool.keyed();
        let (wedge, order) = (BlockedWorkers::new(&pool), Arc::new(Mutex::new(Vec::new())));
        for (key, tasks) in [('a', 4), ('b', 2), ('c', 3)] {
            for number in 1..=tasks {
                let order = Arc::clone(&order);
                executor.execute(key, move || order.lock().unwrap().push((key, number))).unwrap();
            }
        }
        wedge.open();
        executor.wait_idle();
        let expected = [('a', 1), ('b', 1), ('c', 1), ('a', 2), ('b', 2), ('c', 2), ('a', 3), ('c', 3), ('a', 4)];
        assert_eq!(*order.lock().unwrap(), expected);
    });
}

/// Fault 402.
#[test]
fn a_stopped_key_stops_no_other_key() {
    with_watchdog(|| {
        for workers in [2, 8] {
            let pool = pool(workers, 4);
            let executor = pool.keyed();
            let (gate, ran) = (Gate::new(), Counter::new());
            let inside = gate.clone();
            executor.execute(0, move || inside.pass()).unwrap();
            gate.wait_started(1);
            let behind = executor.try_spawn(0, || ()).unwrap();
            for number in 0..1_000 {
                let ran = ran.clone();
                executor.execute(1 + number % 7, move || ran.add()).unwrap();
            }
            let last: Vec<_> = (1..8).map(|key| executor.spawn(key, || ()).unwrap()).collect();
            last.into_iter().for_each(|handle| handle.join().unwrap());
            assert_eq!((ran.get(), behind.is_finished()), (1_000, false));
            gate.open();
            behind.join().unwrap();
        }
    });
}

/// Fault 402.
#[test]
fn executors_share_a_pool_with_jobs_and_groups() {
    on_grid(|pool| {
        let executors = [pool.keyed(), pool.keyed()];
        let ran = Counter::new();
        let group = pool.group();
        for number in 0..200_u32 {
            let [one, two, three] = [(); 3].map(|()| ran.clone());
            executors[number as usize % 2].execute(number % 5, move || one.add()).unwrap();
            pool.execute(move || two.add()).unwrap();
            group.spawn(move || three.add());
        }
        group.wait().unwrap();
        pool.wait_idle();
        assert_eq!(ran.get(), 600);
        assert!(executors.iter().all(|executor| (executor.len(), executor.keys_active()) == (0, 0)));
    });
}

/// Fault 402.
#[test]
fn new_workers_take_turns_of_keys_that_wait() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let executor = pool.keyed();
        let gate = Gate::new();
        for key in 0..4 {
            let inside = gate.clone();
            executor.execute(key, move || inside.pass()).unwrap();
        }
        pool.resize(4).unwrap();
        gate.wait_started(4);
        gate.open();
        executor.wait_idle();
    });
}

/// Fault 403.
#[test]
fn a_panic_or_an_error_does_not_stop_its_key() {
    quiet_panics();
    on_grid(|pool| {
        let executor = pool.keyed();
        let panics = executor.spawn('k', || panic!("this one")).unwrap();
        let fails = executor.spawn('k', || Err::<(), _>("that one")).unwrap();
        executor.execute('k', || panic!("and this")).unwrap();
        let works = executor.spawn('k', || 4).unwrap();
        let panic = panics.join().unwrap_err();
        assert!(panic.to_string().contains("this one"), "{panic}");
        assert_eq!(fails.join().unwrap(), Err("that one"));
        assert_eq!(works.join().unwrap(), 4);
        pool.wait_idle();
        assert_eq!((pool.metrics().tasks_panicked, executor.keys_active()), (2, 0));
    });
}

/// Fault 403.
#[test]
fn failing_tasks_leave_nothing_behind() {
    struct Error(Counter);
    impl Drop for Error {
        fn drop(&mut self) {
            self.0.add();
        }
    }
    const TASKS: usize = if cfg!(debug_assertions) { 20_000 } else { 2_000_000 };
    with_watchdog(|| {
        let pool = pool(2, 64);
        let executor = pool.keyed();
        let dropped = Counter::new();
        for number in 0..TASKS {
            let error = Error(dropped.clone());
            drop(executor.spawn(number % 3, move || Err::<(), _>(error)).unwrap());
        }
        executor.wait_idle();
        assert_eq!((dropped.get(), executor.keys_active(), executor.len()), (TASKS, 0, 0));
    });
}

#[test]
fn a_label_names_the_tasks() {
    let pool = pool(1, 4);
    let executor = KeyedExecutor::builder(&pool).label("mails").build();
    let (gate, (send, receive)) = (Gate::new(), mpsc::channel());
    let inside = gate.clone();
    executor.execute(7, move || inside.pass()).unwrap();
    gate.wait_started(1);
    let running = pool.running();
    assert_eq!(running[0].label(), Some("mails"));
    assert_eq!(
        format!("{executor:?}"),
        "KeyedExecutor { label: Some(\"mails\"), keys_active: 1, queued: 0, running: 1, .. }"
    );
    executor.execute(7, move || send.send(()).unwrap()).unwrap();
    gate.open();
    receive.recv().unwrap();
}
