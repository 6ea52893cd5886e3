//! Every setting, by a table: what is refused, by which name, and what is taken at its limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::error::Error;
use std::time::Duration;

use nats_common::{Server, is_refused, pool, queue, work_until};
use workcrew::WorkerPool;
use workcrew::nats::{
    ConnectionBuilder, ConsumerSettings, DeadLetterQuery, JobQueueBuilder, ReconnectSettings, StreamSettings, Worker,
    WorkerBuilder,
};
use workcrew::retry::RetryPolicy;

const NANOSECOND: Duration = Duration::from_nanos(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A value, the field that its error names, and how it is set.
type Row<B> = (&'static str, &'static str, Box<dyn Fn(B) -> B>);

/// Makes rows of one builder: the compiler infers no type of a closure's argument through a generic one.
macro_rules! rows_of {
    ($row:ident, $builder:ty) => {
        fn $row(
            value: &'static str,
            field: &'static str,
            set: impl Fn($builder) -> $builder + 'static,
        ) -> Row<$builder> {
            (value, field, Box::new(set))
        }
    };
}

rows_of!(worker_row, WorkerBuilder<String>);
rows_of!(queue_row, JobQueueBuilder);
rows_of!(connection_row, ConnectionBuilder);

fn check<B, T, E: Error + 'static>(rows: Vec<Row<B>>, builder: impl Fn() -> B, build: impl Fn(B) -> Result<T, E>) {
    for (value, field, set) in rows {
        is_refused("build", value, field, build(set(builder())));
    }
}

/// Fault 238.
#[test]
fn every_setting_of_a_worker_that_makes_no_sense_is_refused_by_its_name() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let with = |change: fn(&mut ConsumerSettings)| {
        move |builder: WorkerBuilder<String>| {
            let mut settings = ConsumerSettings::default();
            change(&mut settings);
            builder.consumer_settings(settings)
        }
    };
    let five = || RetryPolicy::exponential().max_attempts(5);
    let rows: Vec<Row<WorkerBuilder<String>>> = vec![
        worker_row("zero", "slots", |builder| builder.slots(0)),
        worker_row("too many", "slots", |builder| builder.slots((1 << 20) + 1)),
        worker_row("MAX", "slots", |builder| builder.slots(usize::MAX)),
        worker_row("zero", "ack_wait", |builder| builder.ack_wait(Duration::ZERO)),
        worker_row("short", "ack_wait", |builder| builder.ack_wait(Duration::from_millis(100) - NANOSECOND)),
        worker_row("long", "ack_wait", |builder| builder.ack_wait(YEAR + NANOSECOND)),
        worker_row("MAX", "ack_wait", |builder| builder.ack_wait(Duration::MAX)),
        worker_row("zero", "stuck_after", |builder| builder.stuck_after(Duration::ZERO)),
        worker_row("zero", "max_deliveries", |builder| builder.max_deliveries(0)),
        worker_row("too few", "max_deliveries", move |builder| builder.retry(five()).max_deliveries(4)),
        worker_row("zero", "max_ack_pending", |builder| builder.max_ack_pending(0)),
        worker_row("zero", "pull_max_bytes", |builder| builder.pull_max_bytes(0)),
        worker_row("MAX", "pull_max_bytes", |builder| builder.pull_max_bytes(usize::MAX)),
        worker_row("twice", "subject", |builder| builder.subject("jobs.a").subject("jobs.a")),
        worker_row("overlap", "subject", |builder| builder.subject("jobs.*").subject("jobs.b.c").subject("jobs.a")),
        worker_row("0", "replicas", with(|settings| settings.replicas = Some(0))),
        worker_row("6", "replicas", with(|settings| settings.replicas = Some(6))),
        worker_row("MAX", "replicas", with(|settings| settings.replicas = Some(usize::MAX))),
        worker_row("zero", "max_waiting", with(|settings| settings.max_waiting = Some(0))),
        worker_row("control", "description", with(|settings| settings.description = Some("a\r\nb".to_owned()))),
        worker_row("long", "description", with(|settings| settings.description = Some("x".repeat(2_000)))),
        worker_row("empty", "metadata", with(|settings| drop(settings.metadata.insert(String::new(), "x".to_owned())))),
        worker_row("own", "metadata", with(|settings| drop(settings.metadata.insert("_nats.a".into(), "x".into())))),
        worker_row("control", "metadata", with(|settings| drop(settings.metadata.insert("a".into(), "\0".into())))),
    ];
    check(rows, || Worker::builder(&queue, "worker"), WorkerBuilder::build);
}

/// Fault 238.
#[test]
fn every_setting_of_a_queue_that_makes_no_sense_is_refused_by_its_name() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let with = |change: fn(&mut StreamSettings)| {
        move |builder: JobQueueBuilder| {
            let mut settings = StreamSettings::default();
            change(&mut settings);
            builder.stream_settings(settings)
        }
    };
    let rows: Vec<Row<JobQueueBuilder>> = vec![
        queue_row("zero", "max_jobs", |builder| builder.max_jobs(0)),
        queue_row("zero", "max_bytes", |builder| builder.max_bytes(0)),
        queue_row("zero", "max_age", |builder| builder.max_age(Duration::ZERO)),
        queue_row("MAX", "max_age", |builder| builder.max_age(Duration::MAX)),
        queue_row("zero", "duplicate_window", |builder| builder.duplicate_window(Duration::ZERO)),
        queue_row("MAX", "duplicate_window", |builder| builder.duplicate_window(Duration::MAX)),
        queue_row("above", "duplicate_window", |builder| builder.max_age(YEAR).duplicate_window(2 * YEAR)),
        queue_row("zero", "replicas", |builder| builder.replicas(0)),
        queue_row("MAX", "replicas", |builder| builder.replicas(usize::MAX)),
        queue_row("twice", "subject", |builder| builder.subject("a.b").subject("a.b")),
        queue_row("overlap", "subject", |builder| builder.subject("a.>").subject("a.b")),
        queue_row("server", "subject", |builder| builder.subject("$JS.>")),
        queue_row("own", "dead_letters", |builder| builder.subject("a.>").dead_letters("a.dead")),
        queue_row("own", "dead_letters", |builder| builder.subject(">")),
        queue_row("zero", "max_job_bytes", with(|settings| settings.max_job_bytes = Some(0))),
        queue_row("zero", "max_jobs_per_subject", with(|settings| settings.max_jobs_per_subject = Some(0))),
        queue_row("empty", "cluster", with(|settings| settings.cluster = Some(String::new()))),
        queue_row("blank", "tags", with(|settings| settings.tags = vec!["a".to_owned(), "b c".to_owned()])),
        queue_row("control", "description", with(|settings| settings.description = Some("\n".to_owned()))),
        queue_row("own", "metadata", with(|settings| drop(settings.metadata.insert("_nats.a".into(), "x".into())))),
    ];
    check(rows, || workcrew::nats::JobQueue::builder(&connection, "MORE"), JobQueueBuilder::open);
}

/// Fault 238.
#[test]
fn every_setting_of_a_connection_that_makes_no_sense_is_refused_by_its_name() {
    let pool = pool(1);
    let with = |change: fn(&mut ReconnectSettings)| {
        move |builder: ConnectionBuilder| {
            let mut settings = ReconnectSettings::default();
            change(&mut settings);
            builder.reconnect(settings)
        }
    };
    let rows: Vec<Row<ConnectionBuilder>> = vec![
        connection_row("zero", "timeout", |builder| builder.timeout(Duration::ZERO)),
        connection_row("zero", "ping_interval", |builder| builder.ping_interval(Duration::ZERO)),
        connection_row("short", "ping_interval", |builder| builder.ping_interval(Duration::from_millis(9))),
        connection_row("zero", "reconnect.delay", with(|settings| settings.delay = Duration::ZERO)),
        connection_row("zero", "reconnect.max_delay", with(|settings| settings.max_delay = Duration::ZERO)),
        connection_row("above", "reconnect.max_delay", with(|settings| settings.delay = Duration::MAX)),
        connection_row("zero", "reconnect.max_attempts", with(|settings| settings.max_attempts = Some(0))),
        connection_row("empty", "token", |builder| builder.token("")),
        connection_row("empty", "user", |builder| builder.user_and_password("", "hush")),
        connection_row("long", "name", |builder| builder.name("x".repeat(2_000))),
        connection_row("empty", "inbox_prefix", |builder| builder.inbox_prefix("")),
        connection_row("empty", "jetstream_domain", |builder| builder.jetstream_domain("")),
        connection_row("empty", "jetstream_api_prefix", |builder| builder.jetstream_api_prefix("")),
    ];
    let connect = |builder: ConnectionBuilder| builder.connect(&pool);
    check(rows, || workcrew::nats::Connection::builder("127.0.0.1:1"), connect);
}

/// Fault 238.
#[test]
fn a_subscription_without_a_slot_is_refused_and_an_odd_query_finds_nothing() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    for (value, number) in [("zero", 0), ("MAX", usize::MAX)] {
        is_refused("start", value, "concurrent", connection.subscribe("a").concurrent(number).start(|_| ()));
    }
    let queue = queue(&connection);
    for (after, limit) in [(u64::MAX, 1), (0, 0), (u64::MAX - 1, usize::MAX)] {
        let mut query = DeadLetterQuery::default();
        (query.after, query.limit) = (after, limit);
        assert_eq!(queue.find_dead_letters(&query).unwrap().len(), 0, "{query:?}");
    }
}

/// Does a job with these settings.
fn works(pool: &WorkerPool, queue: &workcrew::nats::JobQueue, id: &str, builder: WorkerBuilder<String>) {
    queue.enqueue("jobs.a", "", id).unwrap();
    let worker = builder.build().unwrap_or_else(|error| panic!("{id}: {error}"));
    work_until(&worker, pool, |_| Ok(()), || queue.is_empty().unwrap());
}

/// Fault 239.
#[test]
fn every_setting_of_a_worker_works_at_its_limits() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    type Set = fn(WorkerBuilder<String>) -> WorkerBuilder<String>;
    let rows: [(&str, Set); 13] = [
        ("one-slot", |builder| builder.slots(1)),
        ("most-slots", |builder| builder.slots(1 << 20)),
        ("short-wait", |builder| builder.ack_wait(Duration::from_millis(100))),
        ("long-wait", |builder| builder.ack_wait(YEAR)),
        ("never-stuck", |builder| builder.stuck_after(Duration::MAX)),
        ("most-deliveries", |builder| builder.max_deliveries(u32::MAX)),
        ("most-attempts", |builder| builder.retry(RetryPolicy::exponential().max_attempts(u32::MAX))),
        ("one-pending", |builder| builder.max_ack_pending(1)),
        ("most-pending", |builder| builder.max_ack_pending(u32::MAX)),
        ("one-byte", |builder| builder.pull_max_bytes(1).slots(2)),
        ("most-bytes", |builder| builder.pull_max_bytes(1 << 30).slots(2)),
        ("no-heartbeats", WorkerBuilder::without_heartbeats),
        ("set", |builder| {
            let mut settings = ConsumerSettings::default();
            (settings.replicas, settings.memory_storage, settings.max_waiting) = (Some(1), true, Some(1));
            settings.description = Some("x".repeat(1_024));
            builder.consumer_settings(settings)
        }),
    ];
    for (name, set) in rows {
        works(&pool, &queue, name, set(Worker::builder(&queue, "worker")));
        connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
    }
}

#[test]
fn with_one_job_at_a_time_the_order_is_kept_also_when_a_job_fails() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let queue = queue(&server.connect(&pool));
    for number in 0..10 {
        queue.enqueue("jobs.a", &*number.to_string(), number.to_string()).unwrap();
    }
    let policy = RetryPolicy::fixed(Duration::from_millis(20)).max_attempts(3);
    let worker = Worker::builder(&queue, "worker").slots(4).max_ack_pending(1).retry(policy).build().unwrap();
    let (sender, done) = std::sync::mpsc::channel();
    let handler = move |job: &workcrew::nats::Job| {
        if job.attempt().number() < 3 && job.text() == Some("3") {
            return Err("not yet");
        }
        sender.send(job.text().unwrap().to_owned()).unwrap();
        Ok(())
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    assert!(done.iter().eq((0..10).map(|number| number.to_string())));
}

#[test]
fn workers_of_a_consumer_that_is_paused_on_the_server_wait_and_go_on() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    if connection.server_info().unwrap().version.starts_with("2.9.") {
        return; // such a server knows of no pause
    }
    let queue = queue(&connection);
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    let pause = |until: &str| {
        let question = format!("{{\"pause_until\":\"{until}\"}}");
        let answer = connection.request("$JS.API.CONSUMER.PAUSE.JOBS.worker", &*question).unwrap();
        assert!(!answer.text().unwrap().contains("\"error\""), "{:?}", answer.text());
    };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let _drained = nats_common::DrainAtEnd(&worker);
        nats_common::wait_until("it asks", || worker.status().is_ok_and(|status| status.pulls_waiting == 1));
        pause("2099-01-01T00:00:00Z");
        // The server may have given out one job by the question that it had.
        for number in 0..3 {
            queue.enqueue("jobs.a", "", number.to_string()).unwrap();
        }
        // A reconnect has the worker compare its consumer: a pause is no difference.
        connection.reconnect().unwrap();
        nats_common::wait_until("it asks again", || worker.status().is_ok_and(|status| status.pulls_waiting == 1));
        assert!(queue.len().unwrap() >= 2);
        pause("2001-01-01T00:00:00Z");
        nats_common::wait_until("the work", || queue.is_empty().unwrap());
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
}
