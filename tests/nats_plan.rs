//! Streams and consumers that exist with other settings: by another client, or by an earlier version. What differs
//! is told, nothing is lost, and a plan changes it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::thread;
use std::time::Duration;

use nats_common::{Server, consumer_figure, is_refused, pool, queue, wait_until, work_until};
use workcrew::nats::{Connection, ConsumerSettings, Job, JobQueue, QueueError, Worker, WorkerBuilder, WorkerError};
use workcrew::retry::RetryPolicy;

/// Asks the JetStream of the server, as another client may.
#[track_caller]
fn ask(connection: &Connection, what: &str, question: &str) -> String {
    let answer = connection.request(&format!("$JS.API.{what}"), question).unwrap();
    answer.text().unwrap().to_owned()
}

fn worker(queue: &JobQueue) -> WorkerBuilder<String> {
    Worker::builder(queue, "worker")
}

/// Has the server make the consumer with the settings of a worker.
fn make_consumer(queue: &JobQueue, connection: &Connection, pool: &workcrew::WorkerPool) {
    let first = worker(queue).build().unwrap();
    work_until(&first, pool, |_| Ok(()), || consumer_figure(connection, "worker", "num_pending").is_some());
}

fn fields(error: &WorkerError) -> Vec<&'static str> {
    let WorkerError::Differs { differences, .. } = error else { panic!("{error:?}") };
    differences.iter().map(|difference| difference.field).collect()
}

/// Fault 240.
#[test]
fn the_settings_of_a_consumer_are_changed_by_a_plan_only_which_shows_the_difference_first() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let build = || {
        let mut settings = ConsumerSettings::default();
        settings.description = Some("resizes".to_owned());
        let policy = RetryPolicy::fixed(Duration::from_secs(2)).max_attempts(2);
        let builder = worker(&queue).ack_wait(Duration::from_secs(7)).max_ack_pending(5).subject("jobs.a");
        builder.retry(policy).consumer_settings(settings).build().unwrap()
    };
    let missing = build().plan().unwrap();
    assert!(missing.is_missing() && missing.differences().is_empty());
    missing.apply().unwrap();
    assert_eq!(consumer_figure(&connection, "worker", "num_pending"), None, "a run makes it");

    // One job has failed once, and waits for its next attempt.
    queue.enqueue("jobs.a", "", "1").unwrap();
    let policy = || RetryPolicy::fixed(Duration::from_secs(2)).max_attempts(2);
    let first = worker(&queue).retry(policy()).build().unwrap();
    work_until(&first, &pool, |_| Err("once".to_owned()), || first.metrics().jobs_retried == 1);
    let expected = ["ack_wait", "max_ack_pending", "filter_subject", "description"];
    assert_eq!(fields(&build().run(&pool, |_| Ok(())).unwrap_err()), expected);
    let plan = build().plan().unwrap();
    assert!(!plan.is_missing());
    assert_eq!(plan.differences().iter().map(|difference| difference.field).collect::<Vec<_>>(), expected);
    assert_eq!(plan.differences()[0].to_string(), "ack_wait is 30s, not 7s");
    assert_eq!(first.plan().unwrap().differences(), [], "looking changes nothing");
    plan.apply().unwrap();
    assert_eq!(build().plan().unwrap().differences(), []);

    // What the consumer knows of the job stays: this is the second attempt, and the last.
    let second = build();
    work_until(&second, &pool, |_| Err("twice".to_owned()), || second.metrics().jobs_dead == 1);
    assert_eq!(queue.dead_letters(1).unwrap()[0].attempts(), Some(2));
}

/// Fault 240.
#[test]
fn a_plan_keeps_what_it_does_not_know_and_says_what_cannot_be_changed() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let is_new = !connection.server_info().unwrap().version.starts_with("2.9.");
    let config = r#"{"stream_name":"JOBS","config":{"durable_name":"worker","ack_policy":"explicit","ack_wait":1000000000,
        "max_deliver":3,"backoff":[1000000000],"max_waiting":4096,"sample_freq":"7%","metadata":{"team":"a"}}}"#;
    assert!(!ask(&connection, "CONSUMER.DURABLE.CREATE.JOBS.worker", config).contains("\"error\""));
    let built = worker(&queue).build().unwrap();
    assert!(fields(&built.run(&pool, |_| Ok(())).unwrap_err()).contains(&"backoff"));
    built.plan().unwrap().apply().unwrap();
    let info = ask(&connection, "CONSUMER.INFO.JOBS.worker", "");
    assert!(info.contains("\"sample_freq\":\"7%\"") && (!is_new || info.contains("\"team\":\"a\"")), "{info}");
    queue.enqueue("jobs.a", "", "1").unwrap();
    work_until(&built, &pool, |_| Ok(()), || queue.is_empty().unwrap());

    let mut settings = ConsumerSettings::default();
    settings.max_waiting = Some(9);
    let other = worker(&queue).consumer_settings(settings).build().unwrap();
    let refused = other.plan().unwrap().apply();
    assert!(matches!(refused, Err(WorkerError::Rejected(_))), "{refused:?}");
    let two = worker(&queue).subject("jobs.a").subject("jobs.b").build().unwrap();
    if is_new {
        two.plan().unwrap().apply().unwrap();
        work_until(&two, &pool, |_| Ok(()), || two.status().unwrap().pulls_waiting == 1);
    } else {
        is_refused("plan", "two", "subject", two.plan());
    }
}

/// Fault 241.
#[test]
fn a_consumer_of_another_client_is_told_by_its_settings_and_loses_no_job() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "", "1").unwrap();
    let rows = [
        (r#""ack_wait":1000000000"#, "ack_wait"),
        (r#""max_deliver":3"#, "max_deliver"),
        (r#""max_deliver":3,"backoff":[1000000000,2000000000]"#, "backoff"),
        (r#""max_ack_pending":1"#, "max_ack_pending"),
        (r#""max_waiting":1"#, "max_waiting"),
        (r#""filter_subject":"jobs.b""#, "filter_subject"),
        (r#""headers_only":true"#, "headers_only"),
        (r#""max_batch":1"#, "max_batch"),
        (r#""max_expires":1000000000"#, "max_expires"),
        (r#""inactive_threshold":60000000000"#, "inactive_threshold"),
        (r#""mem_storage":true"#, "mem_storage"),
    ];
    let built = worker(&queue).build().unwrap();
    for (setting, field) in rows {
        let config = format!(
            r#"{{"stream_name":"JOBS","config":{{"durable_name":"worker","ack_policy":"explicit",{setting}}}}}"#
        );
        let made = ask(&connection, "CONSUMER.DURABLE.CREATE.JOBS.worker", &config);
        assert!(!made.contains("\"error\""), "{setting}: {made}");
        let error = built.run(&pool, |_| panic!("it ran")).unwrap_err();
        assert!(fields(&error).contains(&field), "{setting}: {error}");
        assert!(error.to_string().contains(field), "{error}");
        ask(&connection, "CONSUMER.DELETE.JOBS.worker", "");
    }
    // One that is pushed to.
    let pushed = r#"{"stream_name":"JOBS","config":{"durable_name":"worker","ack_policy":"explicit",
        "deliver_subject":"push"}}"#;
    assert!(!ask(&connection, "CONSUMER.DURABLE.CREATE.JOBS.worker", pushed).contains("\"error\""));
    let error = built.run(&pool, |_| panic!("it ran")).unwrap_err();
    assert!(matches!(error, WorkerError::Rejected(_)), "{error:?}");
    ask(&connection, "CONSUMER.DELETE.JOBS.worker", "");
    // One of another name that has the subjects already.
    let other = r#"{"stream_name":"JOBS","config":{"durable_name":"other","ack_policy":"explicit"}}"#;
    assert!(!ask(&connection, "CONSUMER.DURABLE.CREATE.JOBS.other", other).contains("\"error\""));
    let error = built.run(&pool, |_| panic!("it ran")).unwrap_err();
    assert!(matches!(error, WorkerError::Rejected(_)), "{error:?}");
    ask(&connection, "CONSUMER.DELETE.JOBS.other", "");
    // The job is there in each case.
    work_until(&built, &pool, |_| Ok(()), || queue.is_empty().unwrap());
    assert_eq!(built.metrics().jobs_acked, 1);
}

/// Fault 242.
#[test]
fn a_consumer_that_is_changed_under_a_worker_ends_its_run_with_the_difference() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    make_consumer(&queue, &connection, &pool);
    let built = worker(&queue).build().unwrap();
    let error = thread::scope(|scope| {
        let run = scope.spawn(|| built.run(&pool, |_| Ok(())));
        let _drained = nats_common::DrainAtEnd(&built);
        wait_until("it asks for jobs", || built.status().unwrap().pulls_waiting == 1);
        let planned = worker(&queue).ack_wait(Duration::from_secs(9)).build().unwrap();
        planned.plan().unwrap().apply().unwrap();
        connection.reconnect().unwrap();
        run.join().unwrap().unwrap_err()
    });
    assert_eq!(fields(&error), ["ack_wait"]);
    assert_eq!(queue.len().unwrap(), 0);
}

/// Fault 243.
#[test]
fn a_stream_of_another_client_is_told_by_its_settings_and_stays_as_it_is() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let rows = [
        (r#""subjects":["jobs.>"],"retention":"limits""#, "retention"),
        (r#""subjects":["jobs.>"],"retention":"interest""#, "retention"),
        (r#""subjects":["jobs.a"],"retention":"workqueue","discard":"new""#, "subjects"),
        (r#""subjects":["jobs.>"],"retention":"workqueue""#, "discard"),
        (r#""subjects":["jobs.>"],"retention":"workqueue","discard":"new","max_msgs":9"#, "max_msgs"),
        (r#""subjects":["jobs.>"],"retention":"workqueue","discard":"new","max_age":60000000000"#, "max_age"),
        (r#""subjects":["jobs.>"],"retention":"workqueue","discard":"new","storage":"memory""#, "storage"),
        (r#""subjects":["jobs.>"],"retention":"workqueue","discard":"new","max_msg_size":9"#, "max_msg_size"),
    ];
    for (settings, field) in rows {
        // The server may still be deleting the one before.
        let question = format!(r#"{{"name":"JOBS",{settings}}}"#);
        let is_made = || !ask(&connection, "STREAM.CREATE.JOBS", &question).contains("\"error\"");
        wait_until(settings, is_made);
        connection.publish("jobs.a", "theirs").unwrap();
        let before = ask(&connection, "STREAM.INFO.JOBS", "");
        let opened = JobQueue::builder(&connection, "JOBS").subject("jobs.>").open();
        let Err(QueueError::Differs { stream, differences, .. }) = opened else { panic!("{settings}: {opened:?}") };
        assert_eq!(stream, "JOBS");
        assert!(differences.iter().any(|difference| difference.field == field), "{settings}: {differences:?}");
        let config =
            |info: &str| info.split("\"config\":").nth(1).unwrap().split("\"created\"").next().unwrap().to_owned();
        assert_eq!(config(&ask(&connection, "STREAM.INFO.JOBS", "")), config(&before));
        ask(&connection, "STREAM.DELETE.JOBS", "");
    }
    // One that holds the subject of the dead letters.
    ask(&connection, "STREAM.CREATE.THEIRS", r#"{"name":"THEIRS","subjects":["dead.>"]}"#);
    let opened = JobQueue::builder(&connection, "JOBS").subject("jobs.>").open();
    assert!(matches!(opened, Err(QueueError::Rejected(_))), "{opened:?}");
    ask(&connection, "STREAM.DELETE.THEIRS", "");
    // One that has the name of the dead letters.
    ask(&connection, "STREAM.CREATE.JOBS_DEAD", r#"{"name":"JOBS_DEAD","subjects":["dead.JOBS"],"max_msgs":1}"#);
    let opened = JobQueue::builder(&connection, "JOBS").subject("jobs.>").open();
    let Err(QueueError::Differs { stream, .. }) = opened else { panic!("{opened:?}") };
    assert_eq!(stream, "JOBS_DEAD");
}

/// Fault 244.
#[test]
fn a_stream_of_another_client_in_the_place_of_the_attempts_loses_no_job() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    ask(&connection, "STREAM.CREATE.JOBS_ATTEMPTS", r#"{"name":"JOBS_ATTEMPTS","subjects":["theirs.>"]}"#);
    queue.enqueue_after(Duration::from_millis(300), "jobs.a", "", "later").unwrap();
    let handler = |job: &Job| if job.attempt().number() < 4 { Err("again".to_owned()) } else { Ok(()) };
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(9);
    let built = worker(&queue).retry(policy).build().unwrap();
    work_until(&built, &pool, handler, || queue.is_empty().unwrap());
    assert_eq!((built.metrics().jobs_acked, built.metrics().jobs_dead), (1, 0));
}

/// Fault 267.
#[test]
fn a_stream_that_confirms_nothing_or_keeps_what_must_go_is_told_by_its_setting() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    for (name, setting) in [("SILENT", "no_ack"), ("KEEPING", "deny_delete")] {
        let stream = format!(
            "{{\"name\":\"{name}\",\"subjects\":[\"{name}.>\"],\"retention\":\"workqueue\",\"discard\":\"new\",\
             \"storage\":\"file\",\"duplicate_window\":120000000000,\"{setting}\":true}}"
        );
        let made = connection.request(&format!("$JS.API.STREAM.CREATE.{name}"), &stream).unwrap();
        assert!(!made.text().unwrap().contains("error"), "{made:?}");
        let Err(QueueError::Differs { differences, .. }) = JobQueue::builder(&connection, name).open() else {
            panic!("{setting} is not told")
        };
        assert_eq!(differences.iter().map(|differs| differs.field).collect::<Vec<_>>(), [setting]);
    }
    JobQueue::builder(&connection, "SILENT").plan().unwrap().apply().unwrap();
    let queue = JobQueue::builder(&connection, "SILENT").open().unwrap();
    queue.enqueue("SILENT.a", "", "1").unwrap();
}
