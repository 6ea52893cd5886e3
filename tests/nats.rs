//! The face to NATS, against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{LONG, Server, consumer_figure, pool, queue, wait_until, work_until};
use workcrew::WorkerPool;
use workcrew::nats::{
    ConnectError, Connection, DeadLetterReason, EnqueueError, Event, Job, JobQueue, PublishError, QueueError, Worker,
    WorkerError,
};
use workcrew::retry::{ErrorClass, RetryPolicy};

/// Longer than any test: what waits for this hangs.
const AGES: Duration = Duration::from_secs(600);

/// Stores `jobs` jobs without a payload, each with its number for an id.
fn enqueue(queue: &JobQueue, jobs: usize) {
    for number in 0..jobs {
        queue.enqueue("jobs.a", "", number.to_string()).unwrap();
    }
}

#[test]
fn what_is_published_reaches_those_who_listen() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let (sender, receiver) = channel();
    let subscription = connection
        .subscribe("news.*")
        .start(move |message| sender.send((message.subject().to_owned(), message.text().unwrap().to_owned())).unwrap())
        .unwrap();
    connection.publish("news.today", "rain").unwrap();
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), ("news.today".to_owned(), "rain".to_owned()));
    drop(subscription);
    assert!(receiver.recv_timeout(LONG).is_err(), "the handler is dropped with the subscription");
}

#[test]
fn a_request_is_answered_by_one_member_of_a_group() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let answered = Arc::new(AtomicU32::new(0));
    let _members = [(); 2].map(|()| {
        let answered = Arc::clone(&answered);
        let member = connection.subscribe("double").group("doublers").start(move |message| {
            answered.fetch_add(1, Ordering::SeqCst);
            let number: u32 = message.text().unwrap().parse().unwrap();
            message.respond((2 * number).to_string().as_str()).unwrap();
        });
        member.unwrap()
    });
    for number in 0..20 {
        let answer = connection.publisher().request("double", number.to_string().as_str()).unwrap();
        assert_eq!(answer.text().unwrap(), (2 * number).to_string());
    }
    assert_eq!(answered.load(Ordering::SeqCst), 20);
    assert!(matches!(connection.request("nobody", ""), Err(PublishError::NoResponders)));
}

#[test]
fn a_subscription_never_runs_more_handlers_than_it_may() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let connection = server.connect(&pool);
    let (running, most, done) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (most_seen, done_seen) = (Arc::clone(&most), Arc::clone(&done));
    let _subscription = connection.subscribe("work").concurrent(2).start(move |_| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(1));
        running.fetch_sub(1, Ordering::SeqCst);
        done.fetch_add(1, Ordering::SeqCst);
    });
    for _ in 0..100 {
        connection.publish("work", "").unwrap();
    }
    wait_until("all are handled", || done_seen.load(Ordering::SeqCst) == 100);
    assert_eq!(most_seen.load(Ordering::SeqCst), 2);
}

#[test]
fn without_a_server_connecting_fails_or_waits_as_it_was_told() {
    let Some(mut server) = Server::start() else { return };
    server.kill();
    let pool = pool(1);
    assert!(matches!(server.builder().connect(&pool), Err(ConnectError::Failed(_) | ConnectError::Timeout)));
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| sender.lock().unwrap().send(event.clone()).unwrap();
    let connection = server.builder().retry_on_first_connect().observer(told).connect(&pool).unwrap();
    assert!(!connection.is_connected());
    server.start_again();
    assert_eq!(events.iter().find(|event| *event == Event::Connected), Some(Event::Connected));
    wait_until("the state follows", || connection.is_connected());
}

#[test]
fn a_server_that_wants_a_password_gets_it() {
    let config = "authorization { user: ann, password: secret }";
    let Some(server) = Server::with_config(config) else { return };
    let pool = pool(1);
    let refused = server.builder().connect(&pool);
    assert!(matches!(refused, Err(ConnectError::Refused(_))), "{refused:?}");
    let connection = server.builder().user_and_password("ann", "secret").connect(&pool).unwrap();
    assert!(connection.is_connected());
    assert!(!format!("{connection:?}").contains("secret"));
}

#[test]
fn an_encrypted_connection_needs_to_know_the_authority() {
    let folder = std::env::temp_dir().join(format!("workcrew-nats-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.join(name));
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                   -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
    let mut openssl = Command::new("openssl");
    openssl.args(request.split_whitespace()).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    match openssl.output() {
        Ok(made) => assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr)),
        Err(error) => return eprintln!("SKIPPED: openssl makes no certificate: {error}"),
    }
    let config = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}");
    let server = Server::with_config(&config);
    if let Some(server) = &server {
        let pool = pool(1);
        assert!(server.builder().connect(&pool).is_err(), "the certificate is nobody's");
        let connection = server.builder().require_tls().root_certificates(&certificate).connect(&pool).unwrap();
        assert!(connection.is_connected() && queue(&connection).is_empty().unwrap());
    }
    drop(server);
    let config =
        format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {certificate:?}, verify: true }}");
    if let Some(server) = &Server::with_config(&config) {
        let pool = pool(1);
        let builder = || server.builder().require_tls().root_certificates(&certificate);
        assert!(builder().connect(&pool).is_err(), "it gives no credentials");
        assert!(builder().client_certificate(&certificate, &key).connect(&pool).unwrap().is_connected());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_id_is_stored_once() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let first = queue.enqueue("jobs.a", "one", "1").unwrap();
    let again = queue.enqueue("jobs.a", "one", "1").unwrap();
    let other = queue.enqueue("jobs.a", "two", "2").unwrap();
    assert!(!first.is_duplicate() && again.is_duplicate() && !other.is_duplicate());
    assert_eq!((first.sequence(), again.sequence(), other.sequence()), (1, 1, 2));
    assert_eq!(queue.len().unwrap(), 2);
}

#[test]
fn each_way_to_fail_has_a_name() {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.builder().timeout(Duration::from_millis(500)).connect(&pool).unwrap();
    let queue = JobQueue::builder(&connection, "JOBS").subject("jobs.>").max_jobs(2).open().unwrap();
    queue.enqueue("jobs.a", "", "1").unwrap();
    queue.enqueue("jobs.a", "", "2").unwrap();
    let full = queue.enqueue("jobs.a", "", "3");
    assert!(matches!(full, Err(EnqueueError::Full(_))), "{full:?}");
    assert_eq!(queue.len().unwrap(), 2, "what is stored stays");
    let elsewhere = queue.enqueue("elsewhere", "", "4");
    assert!(matches!(elsewhere, Err(EnqueueError::NoStream)), "{elsewhere:?}");
    let large = queue.enqueue("jobs.a", &vec![0_u8; 2 << 20], "5");
    assert!(matches!(large, Err(EnqueueError::TooLarge)), "{large:?}");
    server.kill();
    wait_until("the connection is lost", || !connection.is_connected());
    let lost = queue.enqueue("jobs.a", "", "6");
    assert!(matches!(lost, Err(EnqueueError::Disconnected)), "{lost:?}");
}

#[test]
fn a_queue_that_exists_with_other_settings_says_which() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let builder = JobQueue::builder(&connection, "JOBS").subject("jobs.>").max_jobs(10);
    drop(builder.clone().open().unwrap());
    drop(builder.clone().open().unwrap()); // the same is no difference
    let error = builder.max_jobs(20).duplicate_window(Duration::from_secs(7)).open().unwrap_err();
    let QueueError::Differs { stream, differences, .. } = &error else { panic!("{error:?}") };
    assert_eq!(stream, "JOBS");
    let fields: Vec<_> = differences.iter().map(|difference| difference.field).collect();
    assert_eq!(fields, ["max_msgs", "duplicate_window"]);
    assert_eq!((&*differences[0].wanted, &*differences[0].found), ("Some(20)", "Some(10)"));
}

#[test]
fn jobs_are_done_once_and_leave_the_queue() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    for number in 0..200 {
        queue.enqueue("jobs.a", number.to_string().as_str(), number.to_string()).unwrap();
    }
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let worker = Worker::builder(&queue, "worker").build().unwrap();
    let seen_too = Arc::clone(&seen);
    let handler = move |job: &Job| -> Result<(), String> {
        assert_eq!(job.text(), job.id());
        *seen_too.lock().unwrap().entry(job.text().unwrap().to_owned()).or_default() += 1;
        Ok(())
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 200 && seen.values().all(|times| *times == 1), "{seen:?}");
    let metrics = worker.metrics();
    assert_eq!((metrics.jobs_acked, metrics.jobs_redelivered, metrics.jobs_in_flight), (200, 0, 0));
    assert!((1..=4).contains(&metrics.jobs_in_flight_max), "{metrics}");
    assert_eq!(metrics.time_to_done.count(), 200);
    assert_eq!(pool.metrics().tasks_succeeded, 200);
    assert_eq!(consumer_figure(&connection, "worker", "num_ack_pending"), Some(0));
}

/// The gaps between the attempts of a job that fails twice.
fn gaps_of(policy: RetryPolicy<String>) -> Option<Vec<Duration>> {
    let server = Server::start()?;
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    queue.enqueue("jobs.a", "", "1").unwrap();
    let begun: Arc<Mutex<Vec<(u32, Instant)>>> = Arc::default();
    let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
    let begun_too = Arc::clone(&begun);
    let handler = move |job: &Job| {
        let number = job.attempt().number();
        begun_too.lock().unwrap().push((number, Instant::now()));
        if number < 3 { Err("not yet".to_owned()) } else { Ok(()) }
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    let begun = begun.lock().unwrap();
    assert_eq!(begun.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((worker.metrics().jobs_retried, worker.metrics().jobs_acked), (2, 1));
    Some(begun.windows(2).map(|two| two[1].1 - two[0].1).collect())
}

#[test]
fn a_job_that_fails_twice_is_tried_three_times_with_the_gaps_of_the_policy() {
    let policy = RetryPolicy::exponential().base_delay(Duration::from_millis(300)).jitter(false).max_attempts(5);
    let Some(gaps) = gaps_of(policy) else { return };
    // The server's clock ticks in milliseconds; how late it is has no bound.
    assert!(gaps[0] >= Duration::from_millis(295) && gaps[1] >= Duration::from_millis(595), "{gaps:?}");
}

#[test]
fn an_error_says_itself_when_to_try_again() {
    let policy = RetryPolicy::fixed(Duration::from_secs(3_600))
        .classify(|_: &String| ErrorClass::RetryAfter(Duration::from_millis(50)));
    let Some(gaps) = gaps_of(policy) else { return };
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(45)), "{gaps:?}");
}

#[test]
fn a_permanent_error_makes_one_dead_letter_which_can_be_requeued() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "broken", "job-1").unwrap();
    let is_mended = Arc::new(AtomicBool::new(false));
    let handler = {
        let is_mended = Arc::clone(&is_mended);
        move |job: &Job| {
            assert_eq!(job.bytes(), b"broken");
            if is_mended.load(Ordering::SeqCst) { Ok(()) } else { Err("no such\nimage".to_owned()) }
        }
    };
    let policy = || RetryPolicy::fixed(Duration::ZERO).retry_if(|_: &String| false);
    let worker = Worker::builder(&queue, "worker").retry(policy()).build().unwrap();
    work_until(&worker, &pool, handler.clone(), || queue.is_empty().unwrap());
    assert_eq!((worker.metrics().jobs_delivered, worker.metrics().jobs_dead), (1, 1));
    let letters = queue.dead_letters(10).unwrap();
    assert_eq!((letters.len(), queue.dead_letters_len().unwrap()), (1, 1));
    let letter = &letters[0];
    assert_eq!((letter.subject(), letter.id(), letter.bytes()), ("jobs.a", Some("job-1"), &b"broken"[..]));
    assert_eq!((letter.reason(), letter.attempts()), (Some(DeadLetterReason::Permanent), Some(1)));
    assert_eq!(letter.error(), Some("no such image"));

    is_mended.store(true, Ordering::SeqCst);
    queue.requeue(letter).unwrap();
    assert_eq!((queue.len().unwrap(), queue.dead_letters_len().unwrap()), (1, 0));
    assert!(matches!(queue.requeue(letter), Err(QueueError::Rejected(_))), "the letter is gone");
    assert_eq!(queue.len().unwrap(), 1, "and the job is there once");
    let worker = Worker::builder(&queue, "worker").retry(policy()).build().unwrap();
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    assert_eq!((worker.metrics().jobs_acked, queue.dead_letters_len().unwrap()), (1, 0));
}

#[test]
fn a_job_that_always_panics_is_given_up_after_the_last_attempt() {
    let Some(server) = Server::start() else { return };
    let pool = WorkerPool::builder().workers(2).on_panic(|_| ()).build().unwrap();
    let queue = queue(&server.connect(&pool));
    queue.enqueue("jobs.a", "", "1").unwrap();
    let policy = RetryPolicy::<String>::fixed(Duration::from_millis(10)).max_attempts(3);
    let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
    work_until(&worker, &pool, |_| panic!("out of cheese"), || queue.is_empty().unwrap());
    let letters = queue.dead_letters(10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason(), letters[0].attempts()), (Some(DeadLetterReason::Attempts), Some(3)));
    assert!(letters[0].error().unwrap().contains("out of cheese"), "{letters:?}");
    assert_eq!(pool.metrics().tasks_panicked, 3);
}

#[test]
fn a_dead_letter_that_cannot_be_stored_leaves_the_job_where_it_is() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    let connection = server.builder().observer(told).connect(&pool).unwrap();
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "", "1").unwrap();
    connection.request("$JS.API.STREAM.DELETE.JOBS_DEAD", "").unwrap();
    let policy = RetryPolicy::fixed(Duration::ZERO).retry_if(|_: &String| false);
    let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
    let is_failing = |event: &Event| matches!(event, Event::DeadLetterFailed { sequence: 1, .. });
    let mut failures = 0;
    let is_done = || {
        failures += events.try_iter().filter(is_failing).count();
        failures >= 2
    };
    work_until(&worker, &pool, |_| Err("bad".to_owned()), is_done);
    assert_eq!(queue.len().unwrap(), 1, "neither done nor terminated");
    assert_eq!(worker.metrics().jobs_dead, 0);
    // With somewhere to go it goes.
    let queue = nats_common::queue(&connection);
    let policy = RetryPolicy::fixed(Duration::ZERO).retry_if(|_: &String| false);
    let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
    work_until(&worker, &pool, |_| Err("bad".to_owned()), || queue.is_empty().unwrap());
    assert_eq!(queue.dead_letters_len().unwrap(), 1);
}

/// How often a job is delivered whose handler takes five times `ack_wait`.
fn deliveries_of_a_long_job(beats: bool) -> Option<u64> {
    const ACK_WAIT: Duration = Duration::from_millis(400);
    let server = Server::start()?;
    let pool = pool(4);
    let queue = queue(&server.connect(&pool));
    queue.enqueue("jobs.a", "", "1").unwrap();
    let builder = Worker::<String>::builder(&queue, "worker").ack_wait(ACK_WAIT);
    let worker = if beats { builder } else { builder.without_heartbeats() }.build().unwrap();
    let handler = |_: &Job| {
        thread::sleep(5 * ACK_WAIT);
        Ok(())
    };
    work_until(&worker, &pool, handler, || worker.metrics().jobs_acked > 0);
    assert_eq!(worker.metrics().heartbeats > 0, beats);
    Some(worker.metrics().jobs_delivered)
}

#[test]
fn a_handler_five_times_longer_than_ack_wait_is_called_once() {
    let Some(deliveries) = deliveries_of_a_long_job(true) else { return };
    assert_eq!(deliveries, 1);
}

#[test]
fn without_heartbeats_it_is_called_again() {
    let Some(deliveries) = deliveries_of_a_long_job(false) else { return };
    assert!(deliveries > 1, "{deliveries}");
}

#[test]
fn a_stuck_job_goes_to_another_worker() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    let queue = queue(&server.builder().observer(told).connect(&pool).unwrap());
    queue.enqueue("jobs.a", "", "1").unwrap();
    let (ack_wait, stuck_after) = (Duration::from_millis(300), Duration::from_millis(500));
    let builder = Worker::<String>::builder(&queue, "worker").ack_wait(ack_wait).stuck_after(stuck_after);
    let worker = builder.build().unwrap();
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let handler = move |job: &Job| {
        if job.attempt().number() == 1 {
            job.token().wait();
            let _ = gate.lock().unwrap().recv(); // deaf to its token, in the end
            return Err("too late".to_owned());
        }
        Ok(())
    };
    let is_stuck = |event: &Event| matches!(event, Event::JobStuck { sequence: 1, .. });
    let mut open = Some(open);
    let is_done = || {
        let done = queue.is_empty().unwrap();
        if done {
            drop(open.take());
        }
        done
    };
    work_until(&worker, &pool, handler, is_done);
    assert_eq!(events.try_iter().filter(is_stuck).count(), 1);
    assert_eq!((worker.metrics().jobs_stuck, worker.metrics().jobs_acked), (1, 1));
    assert_eq!(queue.dead_letters_len().unwrap(), 0);
}

#[test]
fn what_is_delivered_too_often_without_an_outcome_is_given_up_unrun() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let build = || {
        let policy = RetryPolicy::<String>::fixed(Duration::ZERO).max_attempts(2);
        let builder = Worker::builder(&queue, "worker").retry(policy).max_deliveries(2);
        builder.ack_wait(Duration::from_millis(200)).build().unwrap()
    };
    let number_of_deliveries = || nats_common::consumer_figure(&connection, "worker", "consumer_seq");
    work_until(&build(), &pool, |_| Ok(()), || number_of_deliveries().is_some()); // makes the consumer
    queue.enqueue("jobs.a", "", "1").unwrap();
    // Two deliveries of which nothing more is heard, as of a worker that died.
    let lost = connection.subscribe("lost").start(|_| ()).unwrap();
    for delivery in 1..=2 {
        server.say("PUB $JS.API.CONSUMER.MSG.NEXT.JOBS.worker lost 1\r\n1\r\n");
        wait_until("the delivery", || number_of_deliveries() >= Some(delivery));
    }
    drop(lost);
    let runs = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&runs);
    let handler = move |_: &Job| {
        seen.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    work_until(&build(), &pool, handler, || queue.dead_letters_len().unwrap() == 1);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(queue.dead_letters(1).unwrap()[0].reason(), Some(DeadLetterReason::Deliveries));
}

#[test]
fn a_drain_finishes_what_runs_and_gives_back_what_waits() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, 10);
    let worker = Worker::<String>::builder(&queue, "worker").slots(4).ack_wait(AGES).build().unwrap();
    let (started, start) = channel();
    let (open, gate) = channel::<()>();
    let (started, gate) = (Mutex::new(started), Mutex::new(gate));
    let handler = move |_: &Job| {
        started.lock().unwrap().send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        Ok(())
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        start.recv_timeout(LONG).unwrap();
        wait_until("all slots are taken", || worker.metrics().jobs_in_flight == 4);
        worker.drain();
        wait_until("three go back", || worker.metrics().jobs_returned == 3);
        assert!(!run.is_finished(), "one still runs");
        open.send(()).unwrap();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(worker.metrics().jobs_acked, 1);
    assert_eq!((pool.metrics().tasks_succeeded, pool.metrics().tasks_cancelled), (1, 3));
    all_went_back(&connection, &worker, 9);
}

/// This number of jobs is left. Another worker gets the returned ones at once, without waiting for `ack_wait`.
fn all_went_back(connection: &Connection, drained: &Worker<String>, left: u64) {
    let queue = queue(connection);
    assert_eq!(queue.len().unwrap(), left);
    // What went back counts as pending until it is delivered again; nothing else does.
    let pending = consumer_figure(connection, "worker", "num_ack_pending");
    assert_eq!(pending, Some(drained.metrics().jobs_returned));
    let next = Worker::<String>::builder(&queue, "worker").ack_wait(AGES).build().unwrap();
    work_until(&next, &pool(2), |_| Ok(()), || queue.is_empty().unwrap());
    assert_eq!(next.metrics().jobs_acked, left);
    assert_eq!(consumer_figure(connection, "worker", "num_ack_pending"), Some(0));
}

#[test]
fn a_drain_that_takes_too_long_says_what_is_left() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    queue.enqueue("jobs.a", "", "1").unwrap();
    let builder = Worker::<String>::builder(&queue, "worker").drain_timeout(Duration::from_millis(100));
    let worker = builder.build().unwrap();
    let (started, start) = channel();
    let started = Mutex::new(started);
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let handler = move |_: &Job| {
        started.lock().unwrap().send(()).unwrap();
        let _ = gate.lock().unwrap().recv(); // deaf to its token
        Err("too late".to_owned())
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        start.recv_timeout(LONG).unwrap();
        worker.drain();
        let report = run.join().unwrap();
        assert_eq!((report.drained, report.jobs_left), (false, 1));
        drop(open);
    });
    assert_eq!((worker.metrics().jobs_in_flight, queue.len().unwrap()), (0, 1));
}

#[test]
fn closing_the_pool_drains_its_worker() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, 50);
    let worker = Worker::<String>::builder(&queue, "worker").ack_wait(AGES).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        wait_until("some are done", || worker.metrics().jobs_acked > 3);
        pool.close();
        assert!(run.join().unwrap().drained);
    });
    all_went_back(&connection, &worker, 50 - worker.metrics().jobs_acked);
}

#[test]
fn a_consumer_with_other_settings_is_not_used() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let first = Worker::<String>::builder(&queue, "worker").build().unwrap();
    work_until(&first, &pool, |_| Ok(()), || true);
    // The first may have been drained before it made the consumer.
    let first = Worker::<String>::builder(&queue, "worker").build().unwrap();
    queue.enqueue("jobs.a", "", "1").unwrap();
    work_until(&first, &pool, |_| Ok(()), || queue.is_empty().unwrap());
    let second = Worker::<String>::builder(&queue, "worker").ack_wait(Duration::from_secs(7)).build().unwrap();
    let error = second.run(&pool, |_| Ok(())).unwrap_err();
    let WorkerError::Differs { consumer, differences, .. } = &error else { panic!("{error:?}") };
    assert_eq!((&**consumer, differences.len(), differences[0].field), ("worker", 1, "ack_wait"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let builder = || Worker::<String>::builder(&queue, "worker");
    // The server would hear of none of these.
    for name in ["", "a.b", "*", ">", "a b", "a/b"] {
        let built = Worker::<String>::builder(&queue, name).build();
        assert!(matches!(built, Err(WorkerError::Invalid(_))), "{name}: {built:?}");
    }
    let worker = builder().build().unwrap();
    let inside = pool.spawn({
        let (worker, pool) = (worker.clone(), Arc::new(nats_common::pool(1)));
        move || {
            let own = pool.clone();
            let task = pool.spawn(move || matches!(worker.run(&own, |_| Ok(())), Err(WorkerError::WouldDeadlock)));
            task.unwrap().join().unwrap()
        }
    });
    assert!(inside.unwrap().join().unwrap(), "a worker that waits for itself");
}

/// A worker goes on after this has been done to its server.
fn goes_on_after(harm: impl FnOnce(&mut Server, &Connection)) {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(2);
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    let connection = server.builder().observer(told).connect(&pool).unwrap();
    let queue = queue(&connection);
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    queue.enqueue("jobs.a", "", "before").unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        wait_until("the first is done", || worker.metrics().jobs_acked == 1);
        harm(&mut server, &connection);
        wait_until("there is a connection", || connection.is_connected());
        let again = nats_common::queue(&connection);
        wait_until("it can be enqueued", || again.enqueue("jobs.a", "", "after").is_ok());
        wait_until("the second is done", || worker.metrics().jobs_acked == 2);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    let is_ready = |event: &Event| matches!(event, Event::ConsumerReady { .. });
    let events: Vec<_> = events.try_iter().collect();
    assert!(events.iter().filter(|event| is_ready(event)).count() >= 2, "{events:?}");
    let is_told = |event: &Event| {
        matches!(event, Event::Disconnected | Event::ConsumerLost { .. } | Event::ConsumerFailed { .. })
    };
    assert!(events.iter().any(is_told), "{events:?}");
}

#[test]
fn a_deleted_consumer_is_made_again() {
    goes_on_after(|_, connection| {
        connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
    });
}

#[test]
fn a_deleted_stream_that_is_made_again_is_worked_on() {
    goes_on_after(|_, connection| {
        connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    });
}

#[test]
fn a_restarted_server_is_worked_with_again() {
    goes_on_after(|server, connection| {
        server.kill();
        wait_until("the connection is lost", || !connection.is_connected());
        server.start_again();
    });
}
