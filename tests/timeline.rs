//! What each worker ran, as recorded: spans, limits, the trace and the picture.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{BlockedWorkers, Gate, quiet_panics, with_watchdog};
use serde_json::Value;
use workcrew::timeline::Timeline;
use workcrew::{Overflow, WorkerPool, WorkerPoolBuilder};

fn recorded(timeline: &Timeline, workers: usize) -> WorkerPoolBuilder {
    WorkerPool::builder().workers(workers).timing(true).observer(timeline.clone())
}

fn trace(timeline: &Timeline) -> Vec<Value> {
    let mut json = Vec::new();
    timeline.write_trace(&mut json).unwrap();
    let whole: Value = serde_json::from_slice(&json).unwrap();
    whole["traceEvents"].as_array().unwrap().clone()
}

fn spans(timeline: &Timeline) -> Vec<Value> {
    trace(timeline).into_iter().filter(|event| event["ph"] == "X" || event["ph"] == "b").collect()
}

/// The rules of the trace event format: each event has a phase and a process, times are numbers that are not negative, and
/// the spans of a thread nest.
fn assert_is_a_trace(events: &[Value]) {
    let mut threads: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    let mut begun = BTreeSet::new();
    for event in events {
        assert!(event["name"].is_string() && event["pid"].is_u64(), "{event}");
        match event["ph"].as_str().unwrap() {
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            "C" => assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["args"]["queued"].is_u64(), "{event}"),
            "X" => {
                let (start, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                assert!(start >= 0.0 && length >= 0.0, "{event}");
                threads.entry(event["tid"].as_u64().unwrap()).or_default().push((start, start + length));
            }
            "b" | "e" => {
                let key = (event["name"].to_string(), event["id"].to_string());
                assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["id"].is_string(), "{event}");
                if event["ph"] == "b" {
                    assert!(begun.insert(key), "{event}");
                } else {
                    assert!(begun.remove(&key), "{event}");
                }
            }
            other => panic!("phase {other}"),
        }
    }
    assert!(begun.is_empty(), "no end: {begun:?}");
    for spans in threads.values_mut() {
        spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (start, end) in spans {
            while open.last().is_some_and(|outer| outer <= start) {
                open.pop();
            }
            // A microsecond has three digits behind the point, so sums are inexact.
            assert!(open.last().is_none_or(|outer| *end <= outer + 0.01), "{start} to {end} in {open:?}");
            open.push(*end);
        }
    }
}

/// Fault 554.
#[test]
fn each_end_of_a_task_is_one_span_on_its_worker_with_label_and_outcome() {
    quiet_panics();
    with_watchdog(|| {
        let timeline = Timeline::new(100);
        let pool = recorded(&timeline, 1).build().unwrap();
        pool.task().label("good").spawn(|_| ()).unwrap().join().unwrap();
        pool.spawn(|| panic!("as planned")).unwrap().join().unwrap_err();
        let group = pool.group::<Result<(), &str>>();
        group.spawn(|| Err("bad"));
        group.wait().unwrap_err();
        let gate = Gate::new();
        let passing = gate.clone();
        pool.execute(move || passing.pass()).unwrap();
        gate.wait_started(1);
        assert!(pool.spawn(|| ()).unwrap().cancel());
        gate.open();
        pool.shutdown();

        let spans = spans(&timeline);
        let outcomes: Vec<_> = spans.iter().map(|span| span["args"]["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "succeeded").count(), 2, "{outcomes:?}");
        assert!(outcomes.contains(&"panicked") && outcomes.contains(&"failed"), "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.contains("cancel")).count(), 1, "{outcomes:?}");
        assert!(spans.iter().any(|span| span["name"] == "good" && span["tid"] == 1));
        let unlabelled = |span: &&Value| span["name"].as_str().unwrap().contains("tests/timeline.rs:");
        assert_eq!(spans.iter().filter(unlabelled).count(), 4, "the others have their place as name");
        let cancelled = spans.iter().find(|span| span["tid"] == 0).unwrap();
        assert!(cancelled["args"]["outcome"].as_str().unwrap().contains("cancel"), "{cancelled}");
        assert_is_a_trace(&trace(&timeline));
    });
}

/// Fault 555.
#[test]
fn a_timeline_keeps_the_latest_spans_up_to_its_limit() {
    for (limit, kept) in [(0, 1), (1, 1), (10, 10), (1_000, 100), (usize::MAX, 100)] {
        let timeline = Timeline::new(limit);
        let pool = recorded(&timeline, 1).build().unwrap();
        for number in 0..100 {
            pool.task().label(number.to_string()).spawn(|_| ()).unwrap().join().unwrap();
        }
        assert_eq!((timeline.len(), timeline.discarded()), (kept, 100 - kept as u64));
        let names: Vec<_> = spans(&timeline).iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, (100 - kept..100).map(|number| number.to_string()).collect::<Vec<_>>());
        timeline.clear();
        assert!(timeline.is_empty() && timeline.discarded() == 0);
    }
}

#[test]
fn an_empty_timeline_is_a_trace_and_a_picture() {
    let timeline = Timeline::new(10);
    assert!(trace(&timeline).iter().all(|event| event["ph"] == "M"));
    assert!(timeline.to_svg().ends_with("</svg>\n"));
}

#[test]
fn tasks_that_run_within_others_nest_and_those_that_waited_were_queued() {
    with_watchdog(|| {
        let timeline = Timeline::new(10_000);
        let pool = recorded(&timeline, 2).build().unwrap();
        let outer = pool.clone();
        let handle = pool.spawn(move || {
            let group = outer.group::<()>();
            for _ in 0..500 {
                group.spawn(|| std::hint::black_box(()));
            }
            group.wait().unwrap();
        });
        handle.unwrap().join().unwrap();
        pool.shutdown();
        let events = trace(&timeline);
        assert_is_a_trace(&events);
        let queued: Vec<_> = events.iter().filter_map(|event| event["args"]["queued"].as_u64()).collect();
        assert!(queued.iter().max() > Some(&10), "{queued:?}");
        assert_eq!(queued.last(), Some(&0), "each has started in the end");
    });
}

#[cfg(feature = "retry")]
#[test]
fn each_attempt_of_a_retried_task_is_a_span() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use workcrew::retry::RetryPolicy;

    let timeline = Timeline::new(100);
    let pool = recorded(&timeline, 1).build().unwrap();
    let attempts = AtomicUsize::new(0);
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
    let fails_twice = move |_: workcrew::retry::Attempt| {
        if attempts.fetch_add(1, Ordering::Relaxed) < 2 { Err("again") } else { Ok(()) }
    };
    pool.spawn_with_retry(policy, fails_twice).unwrap().join().unwrap().unwrap();
    let outcomes: Vec<_> = spans(&timeline).iter().map(|span| span["args"]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["attempt failed", "attempt failed", "succeeded"]);
}

#[test]
fn a_picture_has_a_row_for_each_worker_and_escapes_labels() {
    let timeline = Timeline::new(10_000);
    let pool = recorded(&timeline, 2).build().unwrap();
    pool.broadcast(|_| ()).unwrap().into_iter().for_each(|share| share.join().unwrap());
    pool.task().label("<a> & \"b\"\u{1}").spawn(|_| ()).unwrap().join().unwrap();
    let svg = timeline.to_svg();
    assert!(svg.contains(">worker 0<") && svg.contains(">worker 1<") && !svg.contains("other threads"));
    assert!(svg.contains("&lt;a&gt; &amp; &quot;b&quot; ,"), "{svg}");
    assert_eq!(svg.matches("<rect").count(), 3);
    for _ in 0..5_000 {
        pool.execute(|| ()).unwrap();
    }
    pool.shutdown();
    assert!(timeline.to_svg().len() < 1_000_000, "neighbours are joined");
}

#[test]
fn a_writer_that_fails_ends_the_export_with_its_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = Timeline::new(1).write_trace(Full).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

/// Fault 556.
#[test]
fn the_tasks_that_submitters_run_overlap_in_a_trace_without_a_thread_of_their_own() {
    with_watchdog(|| {
        let timeline = Timeline::new(100);
        let builder = recorded(&timeline, 1).queue_capacity(1).overflow(Overflow::CallerRuns);
        let pool = builder.build().unwrap();
        let blocked = BlockedWorkers::new(&pool);
        pool.execute(|| ()).unwrap();
        let both = Arc::new(Barrier::new(2));
        thread::scope(|scope| {
            for _ in 0..2 {
                let both = Arc::clone(&both);
                scope.spawn(|| pool.execute(move || _ = both.wait()).unwrap());
            }
        });
        blocked.open();
        pool.shutdown();
        let events = trace(&timeline);
        assert_is_a_trace(&events);
        assert_eq!(events.iter().filter(|event| event["ph"] == "b").count(), 2);
    });
}
