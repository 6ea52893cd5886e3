//! What is in flight in drivers, and the circles through futures that only a snapshot can name.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::common::{Mutex, pool, with_watchdog};
use super::*;
use workcrew::JoinHandle;
use workcrew::driver::Driver;
use workcrew::snapshot::{DriverKind, Verdict};

/// A gate for futures.
#[derive(Clone, Default)]
struct Signal(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Signal {
    fn open(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1.push(context.waker().clone());
        Poll::Pending
    }

    async fn opened(self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Awaits all handles, until the gate is open. Each is polled at each poll, as `select!` does.
    async fn or_all<T>(self, mut handles: Vec<JoinHandle<T>>) {
        poll_fn(|context| {
            handles.retain_mut(|handle| Pin::new(handle).poll(context).is_pending());
            if handles.is_empty() { Poll::Ready(()) } else { self.poll(context) }
        })
        .await;
    }
}

/// Opens the gate when it is dropped, so that a test that fails ends.
struct Opens(Signal);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Waits until a snapshot is as wanted, and returns it.
fn until(pool: &WorkerPool, is_wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let until = Instant::now() + LIMIT;
    loop {
        let mut snapshot = pool.snapshot();
        snapshot.verdicts = snapshot.verdicts_after(Duration::ZERO);
        if is_wanted(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < until, "{snapshot}");
        thread::yield_now();
    }
}

/// Waits until a snapshot has a suspicion of this kind.
fn suspected(pool: &WorkerPool, kind: VerdictKind) -> (Snapshot, Verdict) {
    let has = |snapshot: &Snapshot| snapshot.verdicts.iter().any(|verdict| verdict.kind == kind);
    let snapshot = until(pool, has);
    let verdict = snapshot.verdicts.iter().find(|verdict| verdict.kind == kind).unwrap().clone();
    assert!(verdict.is_suspected, "{verdict}");
    (snapshot, verdict)
}

/// Fault 630.
#[test]
fn futures_in_flight_are_counted_and_the_oldest_are_named() {
    let pool = WorkerPool::builder().workers(1).timing(true).build().unwrap();
    let driver = Arc::new(Driver::new(&pool, 2).unwrap().label("fetch"));
    let signal = Signal::default();
    let _opens = Opens(signal.clone());
    let handles: Vec<_> = (0..2).map(|_| driver.spawn(signal.clone().opened()).unwrap()).collect();
    let (own, behind) = (Arc::clone(&driver), signal.clone());
    // A worker does not block, so more futures wait than have a place.
    let behind = pool.spawn(move || (0..30).map(|_| own.spawn(behind.clone().opened()).unwrap()).collect::<Vec<_>>());
    let behind = behind.unwrap().join().unwrap();
    let snapshot = until(&pool, |snapshot| snapshot.drivers.entries.iter().any(|shown| shown.futures.total == 32));
    let [shown] = &*snapshot.drivers.entries else { panic!("{snapshot}") };
    assert_eq!((shown.label.as_deref(), shown.kind), (Some("fetch"), DriverKind::Futures));
    assert_eq!((shown.in_flight, shown.max_in_flight, shown.waiting, shown.outputs), (2, 2, 30, 0));
    assert_eq!((shown.futures.entries.len(), snapshot.drivers.total), (16, 1));
    let ids: Vec<_> = shown.futures.entries.iter().map(|future| future.task.id).collect();
    let spawned: Vec<_> = handles.iter().chain(&behind).map(JoinHandle::id).collect();
    assert_eq!(ids, spawned[..16]);
    assert!(shown.futures.entries.iter().all(|future| future.task.label == Some("fetch".into())));
    assert!(shown.futures.entries.iter().all(|future| future.task.location.file().ends_with("in_flight.rs")));
    assert!(shown.futures.entries.iter().all(|future| future.task.age.is_some()));
    let driven: Vec<_> = shown.futures.entries.iter().map(|future| future.is_driven).collect();
    assert!(driven[2..].iter().all(|is_driven| !is_driven), "{snapshot}");
    let text = snapshot.to_string();
    for part in ["driver `fetch`: 2 of 2 in flight, 30 waiting for a place", "waits for a place (2/2)", "and 16 more"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(snapshot.to_json().contains(r#""drivers":{"total":1,"entries":[{"label":"fetch","kind":"futures","#));
    signal.open();
    handles.into_iter().chain(behind).for_each(|handle| handle.join().unwrap());
    assert_eq!(until(&pool, |snapshot| snapshot.drivers.total == 0).drivers.entries.len(), 0);
}

/// Fault 631.
#[test]
fn futures_whose_pool_ends_are_cancelled_also_if_one_waits_for_another() {
    struct JoinsWhenDropped(Arc<Mutex<Option<JoinHandle<()>>>>);
    impl Drop for JoinsWhenDropped {
        fn drop(&mut self) {
            let later = self.0.lock().unwrap().take().unwrap();
            assert!(matches!(later.join(), Err(workcrew::JoinError::Cancelled(_))));
        }
    }
    with_watchdog(|| {
        let pool = pool(1, 4);
        let drivers = [(); 2].map(|()| Driver::new(&pool, 4).unwrap());
        let (signal, slot) = (Signal::default(), Arc::default());
        let joins = JoinsWhenDropped(Arc::clone(&slot));
        // The thread that cancels it drops its closure, before it cancels the futures after it.
        let first = drivers[0].spawn_then(signal.clone().opened(), move |()| drop(joins)).unwrap();
        *slot.lock().unwrap() = Some(drivers[0].spawn(signal.clone().opened()).unwrap());
        let other = drivers[1].spawn(signal.opened()).unwrap();
        pool.shutdown_now();
        for handle in [first, other] {
            assert!(matches!(handle.join(), Err(workcrew::JoinError::Cancelled(_))));
        }
        assert!(drivers[0].spawn(async {}).is_err());
    });
}

/// Fault 632.
#[test]
fn a_task_and_a_future_that_await_each_other_are_named_and_on_stuck_is_called() {
    let (stuck, snapshots) = channel();
    let hook = move |snapshot: &Snapshot| stuck.send(snapshot.clone()).unwrap();
    let pool = WorkerPool::builder().workers(2).on_stuck(Duration::from_millis(40), hook).build().unwrap();
    let driver = Driver::new(&pool, 4).unwrap().label("fetch");
    let signal = Signal::default();
    let _opens = Opens(signal.clone());
    let ((send, receive), awaits) = (channel::<JoinHandle<()>>(), signal.clone());
    let report = move |_: &workcrew::CancellationToken| {
        let own = receive.recv().unwrap();
        driver.spawn(awaits.or_all(vec![own])).unwrap().join().unwrap();
    };
    let report = pool.task().label("report").spawn(report).unwrap();
    let id = report.id();
    send.send(report).unwrap();
    let (snapshot, verdict) = suspected(&pool, VerdictKind::SuspectedCircle);
    let [shown] = &*snapshot.drivers.entries else { panic!("{snapshot}") };
    let [future] = &*shown.futures.entries else { panic!("{snapshot}") };
    let [wait] = &*future.waits else { panic!("{snapshot}") };
    assert_eq!(wait.target.task.as_ref().unwrap().id, id);
    assert!(wait.is_cycle && wait.is_suspected && !wait.needs_place);
    assert!(future.is_driven && snapshot.waits.total == 0, "{snapshot}");
    for name in [format!("task {id} (`report`, tests"), format!("task {} (`fetch`, tests", future.task.id)] {
        assert!(verdict.message.contains(&name), "{verdict}");
    }
    assert_eq!(verdict.message.matches("in_flight.rs:").count(), 3, "both with their places: {verdict}");
    let told = with_watchdog(|| snapshots.recv().unwrap());
    assert!(told.verdicts.iter().any(|verdict| verdict.kind == VerdictKind::SuspectedCircle), "{told}");
    assert!(told.to_json().contains(r#""kind":"suspected_circle","is_suspected":true"#));
    // It was no error, because the future waits for something else, too.
    signal.open();
    pool.wait_idle();
    assert!(pool.snapshot().verdicts_after(Duration::ZERO).is_empty());
}

/// Fault 632.
#[test]
fn two_futures_that_await_each_other_are_named() {
    let pool = pool(1, 4);
    let driver = Driver::new(&pool, 4).unwrap();
    let signal = Signal::default();
    let _opens = Opens(signal.clone());
    let (send, receive): (Vec<_>, Vec<_>) = (0..2).map(|_| channel::<JoinHandle<()>>()).unzip();
    let future = |receive: Receiver<JoinHandle<()>>| {
        let signal = signal.clone();
        async move { signal.or_all(vec![receive.recv().unwrap()]).await }
    };
    // Each waits for its message on the I/O thread, so both are sent first.
    let gate = Signal::default();
    let mut handles = Vec::new();
    for receive in receive {
        let (gate, future) = (gate.clone(), future(receive));
        handles.push(driver.spawn(async move {
            gate.opened().await;
            future.await;
        }));
    }
    for (send, handle) in send.iter().rev().zip(handles) {
        send.send(handle.unwrap()).unwrap();
    }
    gate.open();
    let (snapshot, _) = suspected(&pool, VerdictKind::SuspectedCircle);
    let futures = &snapshot.drivers.entries[0].futures.entries;
    assert!(futures.iter().all(|future| future.waits.len() == 1), "{snapshot}");
    signal.open();
    pool.wait_idle();
}

/// Fault 632.
#[test]
fn a_future_that_can_go_on_in_another_way_is_not_suspected() {
    let pool = pool(2, 4);
    let driver = Driver::new(&pool, 4).unwrap().label("fetch");
    let (signal, gate) = (Signal::default(), Gate::new());
    let (_opens, _open) = (Opens(signal.clone()), OpenOnDrop(gate.clone()));
    let inside = gate.clone();
    let runs = pool.spawn(move || inside.pass()).unwrap();
    gate.wait_started(1);
    let (send, receive) = channel::<JoinHandle<()>>();
    let own = signal.clone();
    let joins = pool.spawn(move || {
        let handles = vec![receive.recv().unwrap(), runs];
        driver.spawn(own.or_all(handles)).unwrap().join().unwrap();
    });
    send.send(joins.unwrap()).unwrap();
    let both_wait = |snapshot: &Snapshot| {
        let future = snapshot.drivers.entries.first().and_then(|shown| shown.futures.entries.first());
        let joins = snapshot.workers.iter().any(|worker| worker.wait.is_some());
        joins && future.is_some_and(|future| future.waits.len() == 2)
    };
    let snapshot = until(&pool, both_wait);
    let is_suspected = |verdict: &Verdict| verdict.kind == VerdictKind::SuspectedCircle;
    assert!(!snapshot.verdicts.iter().any(is_suspected), "one of its handles is that of a task that runs: {snapshot}");
    gate.open();
    suspected(&pool, VerdictKind::SuspectedCircle); // only the other one is left
    signal.open();
    pool.wait_idle();
}

/// Fills the driver with futures. Each awaits a task that spawns one more future there, and joins it. Returns when the
/// tasks are about to do so.
fn fill(pool: &WorkerPool, driver: &Arc<Driver>, signal: &Signal) {
    let gate = Gate::new();
    for _ in 0..driver.max_in_flight() {
        let (own, inner, inside) = (Arc::clone(driver), signal.clone(), gate.clone());
        let task = pool.task().label("inner").spawn(move |_| {
            inside.pass();
            own.spawn(inner.opened()).unwrap().join().unwrap();
        });
        driver.spawn(signal.clone().or_all(vec![task.unwrap()])).map(drop).unwrap();
    }
    gate.wait_started(driver.max_in_flight());
    gate.open();
}

/// Fault 633.
#[test]
fn a_driver_whose_places_are_held_by_futures_that_need_one_more_is_named() {
    let home = pool(2, 4);
    let abroad = WorkerPool::builder().workers(2).thread_name("abroad").build().unwrap();
    // On a worker of the driver's pool, the inner future waits for its place; elsewhere, its submitter does.
    for of_tasks in [&home, &abroad] {
        let driver = Arc::new(Driver::new(&home, 2).unwrap().label("outer"));
        let signal = Signal::default();
        let _opens = Opens(signal.clone());
        fill(of_tasks, &driver, &signal);
        let (snapshot, verdict) = suspected(&home, VerdictKind::DriverLimit);
        assert!(!snapshot.verdicts.iter().any(|verdict| verdict.kind == VerdictKind::SuspectedCircle), "{snapshot}");
        let message = &verdict.message;
        assert!(message.contains("the limit of driver `outer` (2) is held"), "{message}");
        assert_eq!((message.matches("(`outer`, tests").count(), message.matches("(`inner`, tests").count()), (2, 2));
        signal.open();
        [&home, &abroad].iter().for_each(|pool| pool.wait_idle());
        assert!(home.snapshot().verdicts_after(Duration::ZERO).is_empty());
    }
}

/// Fault 633.
#[test]
fn a_full_driver_whose_futures_can_end_is_not_suspected() {
    let pool = pool(2, 4);
    let driver = Arc::new(Driver::new(&pool, 2).unwrap());
    let signal = Signal::default();
    let _opens = Opens(signal.clone());
    driver.spawn(signal.clone().opened()).map(drop).unwrap(); // takes one of two places
    let (own, inner) = (Arc::clone(&driver), signal.clone());
    let task = pool.spawn(move || own.spawn(inner.opened()).unwrap().join().unwrap()).unwrap();
    driver.spawn(signal.clone().or_all(vec![task])).map(drop).unwrap();
    let waits = |snapshot: &Snapshot| snapshot.workers.iter().any(|worker| worker.wait.is_some());
    let snapshot = until(&pool, |snapshot| waits(snapshot) && snapshot.drivers.entries[0].waiting == 1);
    assert!(!snapshot.verdicts.iter().any(|verdict| verdict.is_suspected), "{snapshot}");
    signal.open();
    pool.wait_idle();
}
