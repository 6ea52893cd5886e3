//! Snapshots: what a stuck pool shows, and that a look changes nothing.
//!
//! `docs/observability.md` prints the snapshots of the stuck programs below, and the tests compare.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "driver")]
mod in_flight;
mod names;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{BlockedWorkers, Counter, Gate, LIMIT, assert_counts_add_up, pool, spawn_parked, with_watchdog};
use workcrew::snapshot::{Snapshot, TimerKind, VerdictKind};
use workcrew::{CycleKind, GroupError, OnDrop, Priority, WorkerPool};

/// Replaces what differs from run to run: numbers of tasks and workers, places, times. Sorts the lines, because any worker
/// may run any task.
fn normalized(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(normalized_line).collect();
    lines.sort();
    lines.join("\n")
}

fn normalized_line(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let before = words.last().map(String::as_str);
        let digits = word.trim_end_matches([',', ';', ':', '.', ')']);
        let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
        let rest = &word[digits.len()..];
        if let Some((place, _)) = word.split_once(".rs:") {
            let open = if place.starts_with('(') { "(" } else { "" };
            words.push(format!("{open}PLACE{}", word.trim_start_matches(|c| c != ')' && c != ',' && c != ';')));
        } else if is_number && (before == Some("task") || before == Some("worker")) {
            words.push(format!("N{rest}"));
        } else if is_number && digits.contains('.') {
            words.push(format!("T{rest}"));
        } else {
            words.push(word.to_owned());
        }
    }
    let line = words.join(" ");
    // A verdict names tasks in the order of their workers.
    let Some((message, tasks)) = line.split_once(": task N (") else { return line };
    let mut tasks: Vec<&str> = tasks.split(", task N (").collect();
    tasks.sort_unstable();
    format!("{message}: task N ({}", tasks.join(", task N ("))
}

/// Returns the snapshot that the page prints below a heading.
fn printed(heading: &str) -> String {
    let page = fs::read_to_string("docs/observability.md").unwrap();
    let section = page.split_once(&format!("\n### {heading}\n")).expect("the page has the section").1;
    let block = section.split_once("```text\n").expect("the section has a snapshot").1;
    block.split_once("```").unwrap().0.trim_end().to_owned()
}

/// Takes snapshots until one is as the page prints it; what has not moved for any time counts.
fn shows_what_the_page_prints(pool: &WorkerPool, heading: &str, kind: VerdictKind) -> Snapshot {
    let expected = normalized(&printed(heading));
    let until = Instant::now() + LIMIT;
    loop {
        let mut snapshot = pool.snapshot();
        snapshot.verdicts = snapshot.verdicts_after(Duration::ZERO);
        let text = snapshot.to_string();
        if normalized(text.trim_end()) == expected {
            assert_eq!(snapshot.verdicts[0].kind, kind, "{text}");
            return snapshot;
        }
        assert!(Instant::now() < until, "printed:\n{expected}\n\ntaken:\n{}\n\n{text}", normalized(text.trim_end()));
        thread::yield_now();
    }
}

/// Opens a gate when it is dropped, so that a test that fails ends.
struct OpenOnDrop(Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A pool whose tasks stay stuck until the process ends.
fn lost_pool(workers: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).on_drop(OnDrop::Detach).build().unwrap()
}

/// Fault 560.
#[test]
fn a_user_lock_that_is_held_across_a_wait_is_named_with_both_tasks() {
    let pool = lost_pool(2);
    let (own, accounts) = (pool.clone(), Arc::new(Mutex::new(())));
    let transfer = move |_: &workcrew::CancellationToken| {
        let locked = accounts.lock().unwrap();
        let (own_accounts, (started, start)) = (Arc::clone(&accounts), channel());
        let audit = own.task().label("audit").spawn(move |_| {
            started.send(()).unwrap();
            drop(own_accounts.lock().unwrap());
        });
        start.recv().unwrap(); // on the other worker
        audit.unwrap().join().unwrap();
        drop(locked);
    };
    pool.task().label("transfer").execute(transfer).unwrap();
    let snapshot = shows_what_the_page_prints(&pool, "A lock that is held across a wait", VerdictKind::HeldUp);
    let verdict = &snapshot.verdicts[0];
    assert!(verdict.is_suspected, "the crate knows no lock of the user");
    let labels: Vec<_> = snapshot.workers.iter().map(|worker| worker.task.as_ref().unwrap().label.clone()).collect();
    assert!(labels.contains(&Some("transfer".into())) && labels.contains(&Some("audit".into())));
    let wait = snapshot.workers.iter().find_map(|worker| worker.wait.as_ref()).unwrap();
    let running = snapshot.workers.iter().find(|worker| worker.wait.is_none()).unwrap();
    assert_eq!((wait.target.kind, wait.runs_on), (CycleKind::Task, Some(running.index)));
}

/// Fault 561.
#[test]
fn two_groups_that_wait_for_each_other_with_a_time_limit_are_shown_and_without_one_refused() {
    let run = |pool: &WorkerPool, timeout: Option<Duration>| {
        let (gate, (tell, told)) = (Gate::new(), channel());
        let groups = ["left", "right"].map(|label| pool.group::<()>().label(label));
        let mut senders = Vec::new();
        for group in &groups {
            let ((send, receive), inside, tell) = (channel::<workcrew::TaskGroup<()>>(), gate.clone(), tell.clone());
            senders.push(send);
            group.spawn(move || {
                let other = receive.recv().unwrap();
                inside.pass();
                match timeout {
                    Some(timeout) => drop(other.wait_timeout(timeout)),
                    None => tell.send(other.wait()).unwrap(),
                }
            });
        }
        senders.iter().zip(groups.into_iter().rev()).for_each(|(send, group)| send.send(group).unwrap());
        gate.wait_started(2);
        gate.open();
        told
    };
    let stuck = lost_pool(2);
    let _told = run(&stuck, Some(Duration::from_secs(3_600)));
    let heading = "Two groups that wait for each other";
    let snapshot = shows_what_the_page_prints(&stuck, heading, VerdictKind::WorkersWait);
    assert!(snapshot.workers.iter().all(|worker| worker.wait.as_ref().unwrap().is_timed));
    let told = run(&pool(2, 4), None);
    let refused = with_watchdog(|| (0..2).filter_map(|_| told.recv().unwrap().err()).next().unwrap());
    let GroupError::WouldDeadlock(cycle) = refused else { panic!("{refused}") };
    assert_eq!(cycle.waits().len(), 2);
}

/// Fault 562.
#[test]
fn workers_that_are_all_in_a_slow_call_are_named_with_what_waits() {
    let pool = pool(2, 8);
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    for started in 1..=2 {
        let inside = gate.clone();
        pool.task().label("fetch").execute(move |_| inside.pass()).unwrap();
        gate.wait_started(started);
    }
    (0..3).for_each(|_| pool.execute(|| ()).unwrap());
    let snapshot = shows_what_the_page_prints(&pool, "All workers in a slow call", VerdictKind::WorkersBusy);
    assert_eq!((snapshot.tasks_running, snapshot.tasks_queued, snapshot.queues[0].len), (2, 3, 3));
    gate.open();
    pool.wait_idle();
    assert!(pool.snapshot().verdicts_after(Duration::ZERO).is_empty());
}

/// Fault 563.
#[test]
fn a_limit_that_is_filled_by_tasks_which_need_a_later_one_is_named() {
    let pool = lost_pool(4);
    let group = pool.group::<()>().label("pipeline").limit(2);
    let (gate, (send, receive)) = (Gate::new(), channel::<()>());
    let receive = Arc::new(Mutex::new(receive));
    for _ in 0..2 {
        let (inside, receive) = (gate.clone(), Arc::clone(&receive));
        group.spawn(move || {
            inside.pass();
            receive.lock().unwrap().recv().unwrap();
        });
    }
    gate.wait_started(2);
    let stage = send.clone();
    group.spawn(move || (0..2).for_each(|_| stage.send(()).unwrap()));
    gate.open();
    let snapshot = shows_what_the_page_prints(&pool, "A limit that its own members fill", VerdictKind::GroupLimit);
    let group_shown = &snapshot.groups.entries[0];
    assert_eq!((group_shown.running, group_shown.limit, group_shown.waiting), (2, Some(2), 1));
    (0..2).for_each(|_| send.send(()).unwrap());
    group.wait().unwrap();
}

/// Fault 564.
#[cfg(feature = "events")]
#[test]
fn a_full_mailbox_is_named_with_its_handler_and_its_publishers() {
    use workcrew::events::EventBus;

    let pool = pool(2, 8);
    let (gate, bus) = (Gate::new(), EventBus::new(&pool));
    let _open = OpenOnDrop(gate.clone());
    let inside = gate.clone();
    let audit = bus.subscription().name("audit").mailbox_capacity(2).handle(move |_: &u8| inside.pass());
    bus.publish(0_u8);
    gate.wait_started(1);
    (1..=2_u8).for_each(|event| drop(bus.publish(event)));
    let publisher = {
        let bus = bus.clone();
        thread::Builder::new().name("web".to_owned()).spawn(move || drop(bus.publish(3_u8))).unwrap()
    };
    let snapshot = shows_what_the_page_prints(&pool, "A full mailbox", VerdictKind::MailboxFull);
    let shown = &snapshot.subscriptions.entries[0];
    assert_eq!((shown.waiting, shown.capacity, shown.running, shown.publishers), (2, 2, 1, 1));
    let wait = &snapshot.waits.entries[0];
    assert_eq!((wait.target.kind, wait.thread.as_deref()), (CycleKind::Mailbox, Some("web")));
    gate.open();
    publisher.join().unwrap();
    bus.wait_idle();
    drop(audit);
}

/// Fault 565.
#[test]
fn waits_of_other_threads_are_shown_until_they_end() {
    let pool = Arc::new(pool(1, 1));
    let blocked = BlockedWorkers::new(&pool);
    let joined = pool.spawn(|| ()).unwrap(); // fills the queue
    let parked = [
        {
            let pool = Arc::clone(&pool);
            spawn_parked(move || pool.execute(|| ()).unwrap())
        },
        {
            let pool = Arc::clone(&pool);
            spawn_parked(move || pool.wait_idle())
        },
        spawn_parked(move || joined.join().unwrap()),
        spawn_parked({
            let group = pool.group::<()>().label("mail");
            group.spawn(|| ());
            move || drop(group.wait().unwrap())
        }),
    ];
    let expected = [CycleKind::Group, CycleKind::Pool, CycleKind::QueueRoom, CycleKind::Task];
    let kinds = || {
        let mut kinds: Vec<_> = pool.snapshot().waits.entries.iter().map(|wait| wait.target.kind).collect();
        kinds.sort_by_key(|kind| format!("{kind:?}"));
        kinds
    };
    with_watchdog(|| {
        while kinds() != expected {
            thread::yield_now();
        }
    });
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.waits.total, snapshot.queues[0].submitters), (4, 1));
    let verdicts = snapshot.verdicts_after(Duration::ZERO);
    assert!(verdicts.iter().any(|verdict| verdict.kind == VerdictKind::QueueFull), "{snapshot}");
    blocked.open();
    parked.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(kinds(), []);
}

/// Fault 566.
#[test]
fn a_million_queued_tasks_give_a_small_snapshot() {
    const TASKS: usize = 1_000_000;
    let pool = pool(2, TASKS);
    let (blocked, ran) = (BlockedWorkers::new(&pool), Counter::new());
    assert_eq!(common::fill(&pool, &ran), TASKS);
    let groups: Vec<_> = (0..100).map(|_| pool.group::<()>().limit(1)).collect();
    groups.iter().for_each(|group| (0..100).for_each(|_| group.spawn(|| ())));
    let keyed = pool.keyed::<usize>();
    (0..1_000).for_each(|key| keyed.execute(key, || ()).unwrap());
    let timers: Vec<_> =
        (1..=1_000).map(|hours| pool.execute_after(Duration::from_secs(3_600 * hours), || ()).unwrap()).collect();
    let snapshot = pool.snapshot();
    let pages = [snapshot.groups.entries.len(), snapshot.timers.entries.len(), snapshot.keyed.entries.len()];
    assert_eq!((snapshot.groups.total, snapshot.timers.total, snapshot.queues[0].len), (100, 1_000, TASKS));
    assert_eq!(pages, [16, 16, 1]);
    assert!(snapshot.to_json().len() < 40_000 && snapshot.to_string().len() < 10_000, "{}", snapshot.to_json().len());
    // The first timers come first.
    let hours = |at: usize| snapshot.timers.entries[at].due_in.unwrap().as_secs().div_ceil(3_600);
    assert!((0..16).all(|at| hours(at) == at as u64 + 1), "{snapshot}");
    assert_eq!(snapshot.timers.entries[0].kind, TimerKind::Delayed);
    assert!(timers.iter().all(workcrew::TimerHandle::cancel));
    pool.shutdown_now();
    drop(blocked);
    drop(groups);
    let _ = ran;
}

/// Fault 567.
#[test]
fn snapshots_of_four_threads_change_nothing_while_everything_moves() {
    const LOOKS: usize = 2_500;
    let pool = pool(3, 4);
    let (ran, stop) = (Counter::new(), Arc::new(AtomicBool::new(false)));
    let lookers: Vec<_> = (0..4)
        .map(|_| {
            let (pool, stop) = (pool.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut looks = 0;
                while looks < LOOKS || !stop.load(Ordering::Relaxed) {
                    let snapshot = pool.snapshot();
                    assert!(snapshot.workers.len() <= 3 && !snapshot.to_json().is_empty());
                    looks += 1;
                    thread::yield_now();
                }
            })
        })
        .collect();
    let mut submitted = 0;
    with_watchdog(|| {
        for round in 0..60_usize {
            submitted += one_round(&pool, &ran, round);
        }
        stop.store(true, Ordering::Relaxed);
        lookers.into_iter().for_each(|looker| looker.join().unwrap());
        pool.wait_idle();
    });
    assert_eq!(ran.get(), submitted);
    assert_counts_add_up(&pool);
    let snapshot = pool.snapshot();
    let left = snapshot.groups.total + snapshot.keyed.total + snapshot.waits.total + snapshot.timers.total;
    assert_eq!((snapshot.tasks_queued, snapshot.tasks_running, left), (0, 0, 0), "{snapshot}");
}

/// Submits tasks of all kinds and waits for them. Returns how many.
fn one_round(pool: &WorkerPool, ran: &Counter, round: usize) -> usize {
    let count = || {
        let ran = ran.clone();
        move || ran.add()
    };
    let keyed = pool.keyed::<usize>();
    (0..4).for_each(|key| keyed.execute((key + round) % 3, count()).unwrap());
    let group = pool.group::<()>().limit(1 + round % 2).capacity(2);
    (0..4).for_each(|_| group.spawn(count()));
    let (own, inner) = (pool.clone(), count());
    let nested = pool.spawn(move || own.spawn(inner).unwrap().join().unwrap()).unwrap();
    pool.task()
        .priority(Priority::High)
        .execute({
            let count = count();
            move |_| count()
        })
        .unwrap();
    let delayed = pool.spawn_after(Duration::from_micros(50), count()).unwrap();
    group.wait().unwrap();
    nested.join().unwrap();
    delayed.join().unwrap();
    4 + 4 + 1 + 1 + 1
}

/// Fault 568.
#[test]
fn a_snapshot_is_safe_in_tasks_hooks_and_destructors_and_after_the_end() {
    struct LooksWhenDropped(WorkerPool, Counter);
    impl Drop for LooksWhenDropped {
        fn drop(&mut self) {
            assert!(!self.0.snapshot().to_string().is_empty());
            self.1.add();
        }
    }
    let looked = Counter::new();
    let slot: Arc<Mutex<Option<workcrew::WeakWorkerPool>>> = Arc::default();
    let (seen, counted) = (Arc::clone(&slot), looked.clone());
    common::quiet_panics();
    let pool = WorkerPool::builder()
        .workers(1)
        .on_panic(move |_| {
            let pool = seen.lock().unwrap().as_ref().unwrap().upgrade().unwrap();
            assert_eq!(pool.snapshot().workers.len(), 1);
            counted.add();
        })
        .build()
        .unwrap();
    *slot.lock().unwrap() = Some(pool.downgrade());
    let (own, dropped) = (pool.clone(), LooksWhenDropped(pool.clone(), looked.clone()));
    let in_task = pool.spawn(move || {
        let _moved = &dropped;
        own.snapshot().workers[0].task.as_ref().unwrap().id
    });
    let in_task = in_task.unwrap();
    let id = in_task.id();
    assert_eq!(in_task.join().unwrap(), id);
    pool.execute(|| panic!("seen by the hook")).unwrap();
    pool.shutdown();
    assert_eq!(looked.get(), 2);
    let after = pool.snapshot();
    assert!(after.is_shut_down && after.workers.is_empty() && after.verdicts_after(Duration::ZERO).is_empty());
}

/// Fault 569.
#[test]
fn on_stuck_gets_a_snapshot_once_survives_its_panic_and_keeps_no_pool() {
    common::quiet_panics();
    let (stuck, snapshots) = sync_channel(4);
    let hook = move |snapshot: &Snapshot| {
        stuck.send(snapshot.clone()).unwrap();
        panic!("a hook may fail");
    };
    let builder = WorkerPool::builder().workers(1).on_stuck(Duration::from_millis(40), hook);
    let pool = builder.stuck_after("slow", Duration::from_secs(3_600)).build().unwrap();
    let gate = Gate::new();
    let inside = gate.clone();
    pool.task().label("quick").execute(move |_| inside.pass()).unwrap();
    pool.execute(|| ()).unwrap();
    let snapshot = with_watchdog(|| snapshots.recv().unwrap());
    assert_eq!(snapshot.verdicts[0].kind, VerdictKind::WorkersBusy);
    with_watchdog(|| {
        while pool.metrics().hooks_panicked == 0 {
            thread::yield_now();
        }
    });
    gate.open();
    pool.wait_idle();
    let weak = pool.downgrade();
    drop(pool);
    assert!(weak.upgrade().is_none());
    // The thread drops the hook when it ends.
    assert!(with_watchdog(|| snapshots.recv().is_err()), "the hook was called twice within a minute");
}

/// Fault 569.
#[test]
fn a_task_beyond_the_limit_of_its_label_is_reported_and_others_are_not() {
    let (stuck, snapshots) = channel();
    let hook = move |snapshot: &Snapshot| stuck.send(snapshot.clone()).unwrap();
    let builder = WorkerPool::builder().workers(2).on_stuck(Duration::MAX, hook);
    let pool = builder.stuck_after("request", Duration::from_millis(40)).build().unwrap();
    let gate = Gate::new();
    for label in ["nightly", "request"] {
        let inside = gate.clone();
        pool.task().label(label).execute(move |_| inside.pass()).unwrap();
    }
    let snapshot = with_watchdog(|| snapshots.recv().unwrap());
    let [verdict] = &*snapshot.verdicts else { panic!("{snapshot}") };
    assert_eq!(verdict.kind, VerdictKind::LongTask);
    assert!(verdict.message.contains("`request`"), "{verdict}");
    gate.open();
}
