//! The names in a snapshot: those of pools, and names that would break its lines.

use super::common::with_watchdog;
use super::*;

/// Fault 634.
#[test]
fn tasks_of_two_pools_that_wait_for_each_other_are_named_with_their_pools() {
    use workcrew::JoinHandle;

    let named = |name| WorkerPool::builder().workers(1).thread_name(name).on_drop(OnDrop::Detach).build().unwrap();
    let pools = [named("mail"), named("disk")];
    let mut senders = Vec::new();
    let mut handles = Vec::new();
    for (pool, label) in pools.iter().zip(["send", "store"]) {
        let (send, receive) = channel::<JoinHandle<()>>();
        senders.push(send);
        let task = move |_: &workcrew::CancellationToken| {
            // With a limit, it is no error.
            drop(receive.recv().unwrap().join_timeout(Duration::from_secs(3_600)));
        };
        handles.push(pool.task().label(label).spawn(task).unwrap());
    }
    for (send, handle) in senders.iter().zip(handles.into_iter().rev()) {
        send.send(handle).unwrap();
    }
    let other = [("mail", "(`store`, tests", "of pool `disk`"), ("disk", "(`send`, tests", "of pool `mail`")];
    for (pool, (name, task, of_pool)) in pools.iter().zip(other) {
        with_watchdog(|| {
            while pools.iter().any(|pool| pool.snapshot().workers[0].wait.is_none()) {
                thread::yield_now();
            }
        });
        let snapshot = pool.snapshot();
        assert_eq!(&*snapshot.pool, name);
        let verdicts = snapshot.verdicts_after(Duration::ZERO);
        let verdict = verdicts.iter().find(|verdict| verdict.kind == VerdictKind::WorkersWait).unwrap();
        for text in [snapshot.to_string(), verdict.message.clone()] {
            assert!(text.contains(task) && text.contains(of_pool), "{text}");
        }
    }
}

/// Fault 634.
#[cfg(feature = "driver")]
#[test]
fn a_circle_through_two_pools_and_a_future_is_named_with_both_pools() {
    use workcrew::JoinHandle;
    use workcrew::driver::Driver;

    let named = |name| WorkerPool::builder().workers(1).thread_name(name).on_drop(OnDrop::Detach).build().unwrap();
    let [mail, disk] = [named("mail"), named("disk")];
    let driver = Driver::new(&mail, 1).unwrap().label("fetch");
    let (send, receive) = channel::<JoinHandle<()>>();
    // The task of `mail` joins a future, which awaits the task of `disk`, which joins the task of `mail`.
    let (give, given) = channel::<JoinHandle<()>>();
    let first = mail.task().label("send").spawn(move |_| {
        let stores = given.recv().unwrap();
        driver.spawn(async move { stores.await.unwrap() }).unwrap().join().unwrap();
    });
    let second = disk.task().label("store").spawn(move |_| receive.recv().unwrap().join().unwrap());
    send.send(first.unwrap()).unwrap();
    give.send(second.unwrap()).unwrap();
    for pool in [&mail, &disk] {
        let is_meant = |verdict: &workcrew::snapshot::Verdict| verdict.kind == VerdictKind::SuspectedCircle;
        let verdict = with_watchdog(|| {
            loop {
                let found = pool.snapshot().verdicts_after(Duration::ZERO).into_iter().find(is_meant);
                if let Some(verdict) = found {
                    return verdict;
                }
                thread::yield_now();
            }
        });
        let names = ["`send`", "`fetch`", "`store`", "of pool `mail`", "of pool `disk`"];
        assert!(names.iter().all(|name| verdict.message.contains(name)), "{verdict}");
    }
}

/// Fault 635.
#[test]
fn names_with_line_breaks_and_control_characters_stay_on_their_lines() {
    const NAME: &str = "a\nb\u{1b}[2J\u{202e}";
    let pool = WorkerPool::builder().workers(1).thread_name("evil\nworker 9: idle").build().unwrap();
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let inside = gate.clone();
    let runs = pool.task().label(NAME).spawn(move |_| inside.pass()).unwrap();
    gate.wait_started(1);
    let group = pool.group::<()>().label(NAME);
    group.spawn(|| ());
    let keyed = workcrew::KeyedExecutor::<u8>::builder(&pool).label(NAME).build();
    keyed.execute(1, || ()).unwrap();
    #[cfg(feature = "events")]
    let _subscription = {
        let bus = workcrew::events::EventBus::new(&pool);
        let subscription = bus.subscription::<u8>().name(NAME).topic(NAME).handle(|_| ());
        bus.publish_to(NAME, 1_u8);
        subscription
    };
    let waits = thread::Builder::new().name(NAME.to_owned()).spawn(move || runs.join().unwrap()).unwrap();
    let snapshot = with_watchdog(|| {
        loop {
            let snapshot = pool.snapshot();
            if snapshot.waits.total == 1 {
                return snapshot;
            }
            thread::yield_now();
        }
    });
    let mut text = snapshot.to_string();
    for verdict in snapshot.verdicts_after(Duration::ZERO) {
        assert!(!verdict.message.contains(char::is_control), "{verdict:?}");
    }
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.contains("a\\nb\\u{1b}[2J\\u{202e}"), "{text:?}");
    assert!(text.lines().all(|line| !line.starts_with("worker 9") && !line.starts_with('b')), "{text}");
    text.retain(|c| c == '\n');
    let entries = snapshot.workers.len() + snapshot.queues.len() + snapshot.waits.total + snapshot.groups.total;
    let entries = entries + snapshot.keyed.total + snapshot.subscriptions.total + snapshot.timers.total;
    assert_eq!(text.len(), 1 + snapshot.verdicts.len() + entries, "one line for each: {snapshot}");
    assert!(!snapshot.to_json().contains(char::is_control));
    gate.open();
    waits.join().unwrap();
}

/// Fault 636.
#[cfg(feature = "retry")]
#[test]
fn retries_of_all_kinds_are_shown_with_their_labels_tasks_and_places() {
    use workcrew::retry::{RetryError, RetryPolicy};

    fn policy<E>() -> RetryPolicy<E> {
        RetryPolicy::fixed(Duration::from_secs(3_600)).max_attempts(5)
    }
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let group = pool.group::<Result<(), RetryError<&str>>>().label("group");
    let _ = group.spawn_with_retry(policy(), |_| Err("again"));
    let keyed = workcrew::KeyedExecutor::<u8>::builder(&pool).label("key").build();
    let _ = keyed.spawn_with_retry(1, policy(), |_| -> Result<(), _> { Err("again") });
    let mut expected = vec!["group", "key"];
    #[cfg(feature = "events")]
    let _subscriptions = {
        let bus = workcrew::events::EventBus::new(&pool);
        let once = bus.subscription::<u8>().name("mails").retry(policy()).handle(|_| Err::<(), _>("again"));
        let batch = bus.subscription::<u8>().name("batches").batch(8, Duration::from_secs(3_600)).handle(|_| ());
        bus.publish(1_u8);
        expected.extend(["batches", "mails"]);
        (once, batch)
    };
    expected.sort_unstable();
    let snapshot = with_watchdog(|| {
        loop {
            let snapshot = pool.snapshot();
            if snapshot.timers.total == expected.len() {
                return snapshot;
            }
            thread::yield_now();
        }
    });
    let mut labels: Vec<_> = snapshot.timers.entries.iter().map(|timer| timer.label.as_deref().unwrap_or("")).collect();
    labels.sort_unstable();
    assert_eq!(labels, expected, "{snapshot}");
    let retries = || snapshot.timers.entries.iter().filter(|timer| timer.kind == TimerKind::Retry);
    assert_eq!(retries().count(), expected.len().min(3));
    assert!(retries().all(|timer| timer.task.is_some() && timer.location.unwrap().file().ends_with("names.rs")));
    pool.shutdown_now();
}
