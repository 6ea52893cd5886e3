//! Spans of tasks: which there are, where in the tree they are, and what they record.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/spans.rs"]
mod spans;

use std::time::Duration;

use common::{BlockedWorkers, Counter, fill, quiet_panics, with_watchdog};
use spans::{IS_FILTERED, Seen, spans};
use tracing::{Span, info, info_span};
use workcrew::{WorkerPool, WorkerPoolBuilder};

#[cfg(feature = "retry")]
const SOON: Duration = Duration::from_millis(1);

fn builder(workers: usize) -> WorkerPoolBuilder {
    let _ = spans();
    WorkerPool::builder().workers(workers).queue_capacity(16).tracing(true)
}

fn id(span: &Span) -> u64 {
    span.id().unwrap().into_u64()
}

/// The names around an event, the innermost first.
fn path(event: &Seen) -> Vec<&'static str> {
    spans().ancestors(event).iter().map(Seen::name).collect()
}

/// Returns the only span directly below another.
fn only_child(of: &Span) -> Seen {
    let children = spans().children(id(of));
    assert_eq!(children.len(), 1);
    children.into_iter().next().unwrap()
}

/// Fault 526.
#[test]
fn a_task_has_one_span_below_that_of_its_submitter() {
    let pool = builder(1).build().unwrap();
    let request = info_span!("request");
    let line = line!() + 1;
    let task = request.in_scope(|| pool.task().label("mail").spawn(|_| info!("526a"))).unwrap();
    let task_id = task.id();
    task.join().unwrap();
    let span = only_child(&request);
    assert_eq!((span.name(), span.target(), span.is_open()), ("task", "workcrew", false));
    assert_eq!((span.field("id"), span.field("label")), (task_id.to_string().as_str(), "mail"));
    assert!(span.field("location").contains(&format!("{}:{line}:", file!())), "{}", span.field("location"));
    assert_eq!((span.field("outcome"), span.field("attempt")), ("succeeded", "-"));
    for time in ["queue_wait_us", "run_time_us"] {
        assert!(span.field(time).parse::<u64>().is_ok(), "{time}: {}", span.field(time));
    }
    assert_eq!(path(&spans().event("526a")), ["task", "request"]);
    assert_eq!(pool.spawn(Span::current).unwrap().join().unwrap().metadata().unwrap().name(), "task");
}

/// Fault 526.
#[test]
fn a_pool_without_tracing_makes_no_spans() {
    let pool = builder(1).tracing(false).build().unwrap();
    let request = info_span!("request");
    assert!(request.in_scope(|| pool.spawn(Span::current)).unwrap().join().unwrap().is_none());
    assert!(spans().children(id(&request)).is_empty());
}

/// Fault 526.
#[test]
fn a_worker_that_helps_is_in_the_span_of_the_task_that_it_runs() {
    with_watchdog(|| {
        let pool = builder(1).build().unwrap();
        let inner = pool.clone();
        let [outer, other] = [info_span!("outer"), info_span!("other")];
        let in_other = other.clone();
        let waits = move || {
            let joined = in_other.in_scope(|| inner.spawn(|| info!("526b")));
            joined.unwrap().join().unwrap();
            info!("526c");
        };
        outer.in_scope(|| pool.spawn(waits)).unwrap().join().unwrap();
        assert_eq!(path(&spans().event("526b")), ["task", "other"]);
        assert_eq!(path(&spans().event("526c")), ["task", "outer"]);
    });
}

/// Fault 526.
#[test]
fn the_end_of_every_task_is_recorded_also_of_those_that_never_run() {
    quiet_panics();
    with_watchdog(|| {
        let pool = builder(1).build().unwrap();
        let end_of = |submit: &dyn Fn()| {
            let request = info_span!("request");
            request.in_scope(submit);
            let span = only_child(&request);
            assert!(!span.is_open());
            (span.field("outcome").to_owned(), span.field("queue_wait_us") != "-")
        };
        let panicked = end_of(&|| assert!(pool.spawn(|| panic!("expected by the test")).unwrap().join().is_err()));
        assert_eq!(panicked, ("panicked".to_owned(), true));
        let failed = end_of(&|| {
            let group = pool.group();
            group.spawn(|| Err::<(), _>("expected"));
            assert!(group.wait().is_err());
        });
        assert_eq!(failed, ("failed".to_owned(), true));
        let cancelled = end_of(&|| assert!(pool.spawn_after(Duration::from_secs(3_600), || ()).unwrap().cancel()));
        assert_eq!((cancelled.0.contains("cancel"), cancelled.1), (true, false), "{}", cancelled.0);
        let _wedge = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        assert_eq!(end_of(&|| assert!(pool.try_execute(|| ()).is_err())), ("refused".to_owned(), false));
    });
}

/// Fault 527.
#[test]
fn without_its_span_a_task_runs_in_that_of_its_submitter_and_records_nothing_there() {
    let pool = builder(1).build().unwrap();
    let request = info_span!("request", outcome = tracing::field::Empty, run_time_us = tracing::field::Empty);
    IS_FILTERED.set(true);
    let task = request.in_scope(|| pool.spawn(|| info!("527a")));
    IS_FILTERED.set(false);
    task.unwrap().join().unwrap();
    let event = spans().event("527a");
    assert_eq!(path(&event), ["request"]);
    assert_eq!(event.parent, Some(id(&request)));
    assert!(spans().get(id(&request)).fields.is_empty());
}

/// Fault 527.
#[test]
fn the_wrapper_of_propagate_is_outside_of_the_span() {
    let builder = builder(1).propagate(|| {
        |run| {
            info!("527b");
            run();
        }
    });
    let pool = builder.build().unwrap();
    info_span!("request").in_scope(|| pool.spawn(|| info!("527c"))).unwrap().join().unwrap();
    assert!(path(&spans().event("527b")).is_empty());
    assert_eq!(path(&spans().event("527c")), ["task", "request"]);
}

/// Fault 526.
#[cfg(feature = "retry")]
#[test]
fn all_attempts_are_in_one_span_that_records_their_number() {
    use workcrew::retry::RetryPolicy;

    with_watchdog(|| {
        let pool = builder(1).build().unwrap();
        let request = info_span!("request");
        let policy = RetryPolicy::fixed(SOON).max_attempts(3);
        let attempt = |attempt: workcrew::retry::Attempt| {
            info!("526d");
            if attempt.is_last() { Ok(()) } else { Err("again") }
        };
        let task = request.in_scope(|| pool.spawn_with_retry(policy, attempt)).unwrap();
        task.join().unwrap().unwrap();
        let span = only_child(&request);
        assert_eq!((span.field("attempt"), span.field("outcome")), ("3", "succeeded"));
        assert_eq!(spans().events("526d").iter().filter(|event| path(event) == ["task", "request"]).count(), 3);
    });
}

/// Fault 526.
#[cfg(feature = "driver")]
#[test]
fn a_future_is_polled_in_its_span_and_so_is_what_follows() {
    use workcrew::driver::Driver;

    with_watchdog(|| {
        let pool = builder(1).build().unwrap();
        let driver = Driver::new(&pool, 1).unwrap();
        let (request, own) = (info_span!("request"), pool.clone());
        let future = async move {
            own.spawn_async(|| info!("526e")).await.unwrap().await.unwrap();
            info!("526f");
        };
        request.in_scope(|| driver.spawn_then(future, |()| info!("526g")).unwrap()).join().unwrap();
        assert_eq!(path(&spans().event("526e")), ["task", "task", "request"]);
        assert_eq!(path(&spans().event("526f")), ["task", "request"]);
        assert_eq!(path(&spans().event("526g")), ["task", "request"]);
        assert_eq!(only_child(&request).field("outcome"), "succeeded");
    });
}

/// Fault 526.
#[cfg(feature = "events")]
#[test]
fn a_trace_is_one_tree_over_tasks_groups_timers_retries_and_events() {
    use workcrew::events::EventBus;
    use workcrew::retry::RetryPolicy;

    struct Stored;

    with_watchdog(|| {
        let pool = builder(2).build().unwrap();
        let bus = EventBus::new(&pool);
        let inner = pool.clone();
        let _mail = bus.subscribe(move |_: &Stored| {
            let (sender, ticks) = std::sync::mpsc::channel();
            let timer = inner.execute_every(SOON, move || {
                info!("526h");
                sender.send(()).unwrap_or(());
            });
            let timer = timer.unwrap();
            ticks.iter().take(2).for_each(drop);
            timer.cancel();
        });
        let (own, events) = (pool.clone(), bus.clone());
        let request = info_span!("request");
        let work = move || {
            let group = own.group();
            let retrying = own.clone();
            group.spawn(move || {
                let retried = move |attempt: workcrew::retry::Attempt| {
                    events.publish(Stored);
                    if attempt.is_last() { Ok(()) } else { Err("again") }
                };
                let late = retrying.clone();
                let delayed = retrying.spawn_after(SOON, move || {
                    let policy = RetryPolicy::fixed(SOON).max_attempts(2);
                    late.spawn_with_retry(policy, retried).unwrap().join().unwrap().unwrap();
                });
                delayed.unwrap().join().unwrap();
            });
            group.wait().unwrap();
        };
        request.in_scope(|| pool.spawn(work)).unwrap().join().unwrap();
        bus.wait_idle();
        pool.wait_idle();
        let ticks = spans().events("526h");
        assert!(ticks.len() >= 4);
        for tick in ticks {
            // The run of the timer, the delivery, the retried, the delayed, and the group's task, and the first.
            assert_eq!(path(&tick), ["task", "task", "task", "task", "task", "task", "request"]);
        }
        assert_eq!(spans().children(id(&request)).len(), 1);
    });
}
