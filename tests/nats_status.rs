//! Monitoring: how many jobs wait, at which worker, and since when; and clearing finished jobs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{Server, pool, queue, wait_until, work_until};
use workcrew::nats::{Job, QueueError, Worker};
use workcrew::retry::RetryPolicy;

/// Faults 236, 638.
#[test]
fn the_figures_of_a_queue_and_its_consumer_tell_what_waits_what_runs_and_since_when() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let worker = Worker::<String>::builder(&queue, "worker").slots(1).build().unwrap();
    let empty = queue.status().unwrap();
    assert_eq!((empty.jobs, empty.bytes, empty.oldest_age, empty.consumers), (0, 0, None, 0));
    assert!(matches!(worker.status(), Err(QueueError::Rejected(_))), "no worker has run yet");

    let begun = Instant::now();
    for number in 0..5 {
        queue.enqueue("jobs.a", "payload", number.to_string()).unwrap();
    }
    queue.enqueue_after(Duration::from_secs(3_600), "jobs.a", "", "later").unwrap();
    let (sender, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            worker.run(&pool, move |_| {
                let _ = gate.lock().unwrap().recv();
                Ok(())
            })
        });
        let _drained = nats_common::DrainAtEnd(&worker);
        wait_until("one runs", || worker.metrics().jobs_in_flight == 1);
        let snapshot = pool.snapshot();
        let [shown] = &*snapshot.job_workers.entries else { panic!("{snapshot}") };
        assert_eq!((&*shown.name, &*shown.stream, shown.slots, shown.in_flight), ("worker", "JOBS", 1, 1));
        assert!(snapshot.to_string().contains("(its slots are taken 1/1)"), "{snapshot}");
        assert!(snapshot.to_json().contains(r#""job_workers":{"total":1,"entries":[{"name":"worker","#));
        let stored = queue.status().unwrap();
        assert_eq!((stored.jobs, stored.consumers), (6, 1));
        assert!(stored.bytes > 6 * 7, "{stored:?}");
        let (oldest, most) = (stored.oldest_age.unwrap(), begun.elapsed());
        assert!(oldest > Duration::ZERO && oldest <= most, "{oldest:?} of {most:?}");
        let lag = worker.status().unwrap();
        assert_eq!((lag.jobs_pending, lag.jobs_ack_pending, lag.jobs_redelivered, lag.pulls_waiting), (5, 1, 0, 0));
        assert_eq!(worker.metrics().jobs_pending, 5);
        drop(sender);
        wait_until("the five are done", || queue.len().unwrap() == 1);
        wait_until("the delayed one is given back", || worker.metrics().jobs_postponed == 1);
        assert_eq!(worker.metrics().jobs_pending, 0);
        wait_until("the worker is idle", || worker.status().unwrap().pulls_waiting == 1);
        let lag = worker.status().unwrap();
        assert_eq!((lag.jobs_pending, lag.jobs_ack_pending), (0, 1));
        worker.drain();
        assert!(run.join().unwrap().unwrap().drained);
    });
}

/// Fault 237.
#[test]
fn clearing_what_is_done_leaves_other_subjects_and_jobs_that_are_not_done() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    // A limits stream keeps what is acknowledged, as a killed server may.
    connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    let config = r#"{"name":"JOBS","subjects":["jobs.>"],"retention":"limits","storage":"file","num_replicas":1}"#;
    connection.request("$JS.API.STREAM.CREATE.JOBS", config).unwrap();
    for number in 0..40 {
        queue.enqueue("jobs.b", "", format!("b-{number}")).unwrap();
        queue.enqueue("jobs.a", "", format!("a-{number}")).unwrap();
    }
    let hour = RetryPolicy::fixed(Duration::from_secs(3_600)).max_attempts(9);
    let worker = Worker::builder(&queue, "worker").subject("jobs.a").retry(hour).build().unwrap();
    let handler = |job: &Job| if job.id() == Some("a-30") { Err("later".to_owned()) } else { Ok(()) };
    let is_done = || worker.metrics().jobs_acked == 39 && worker.metrics().jobs_retried == 1;
    work_until(&worker, &pool, handler, is_done);
    assert_eq!(worker.clear_finished().unwrap(), 30, "those before the one that is not done");
    assert_eq!(queue.len().unwrap(), 50);
    assert_eq!(worker.clear_finished().unwrap(), 0);
    // A worker of a name that has done nothing clears nothing.
    let other = Worker::<String>::builder(&queue, "other").build().unwrap();
    work_until(&other, &pool, |_| Ok(()), || other.status().is_ok());
    drop(connection.request("$JS.API.CONSUMER.DELETE.JOBS.other", ""));
    let fresh = Worker::<String>::builder(&queue, "fresh").subject("jobs.c").build().unwrap();
    work_until(&fresh, &pool, |_| Ok(()), || fresh.status().is_ok());
    assert_eq!((fresh.clear_finished().unwrap(), queue.len().unwrap()), (0, 50));
}

#[cfg(feature = "prometheus")]
#[test]
fn a_worker_is_exported_to_prometheus_with_each_delivery_by_its_outcome() {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    for number in 0..3 {
        queue.enqueue("jobs.a", "", number.to_string()).unwrap();
    }
    let retry = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
    let worker = Worker::builder(&queue, "worker").retry(retry).build().unwrap();
    let collector = workcrew::prometheus::Collector::new();
    collector.add_nats_worker("mail", &worker);
    let handler = |job: &Job| if job.id() == Some("2") { Err("never".to_owned()) } else { Ok(()) };
    let is_done = || worker.metrics().jobs_acked == 2 && worker.metrics().jobs_dead == 1;
    work_until(&worker, &pool, handler, is_done);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for (name, value) in [
        ("jobs_delivered_total{worker=\"mail\"}", 4),
        ("jobs_redelivered_total{worker=\"mail\"}", 1),
        ("jobs_ended_total{worker=\"mail\",outcome=\"acked\"}", 2),
        ("jobs_ended_total{worker=\"mail\",outcome=\"retried\"}", 1),
        ("jobs_ended_total{worker=\"mail\",outcome=\"dead\"}", 1),
        ("jobs_in_flight{worker=\"mail\"}", 0),
        ("time_to_done_seconds_count{worker=\"mail\"}", 2),
    ] {
        assert!(text.contains(&format!("workcrew_nats_{name} {value}\n")), "{name} is not {value} in:\n{text}");
    }
    drop(worker);
    text.clear();
    encode(&mut text, &registry).unwrap();
    assert_eq!(text, "# EOF\n");
}
