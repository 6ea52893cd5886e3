//! Delayed jobs, against a real server: when they run, what a delay costs, and what it must not cost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nats_common::{LONG, Server, consumer_figure, pool, queue, wait_until, work_until};
use workcrew::nats::{EnqueueError, Headers, Job, JobQueue, NewJob, Worker};
use workcrew::retry::RetryPolicy;

const DELAY: Duration = Duration::from_millis(1_200);

/// A handler that sends what it was called with: id, attempt, and when.
fn telling(
    sender: std::sync::mpsc::Sender<(String, u32, Instant)>,
) -> impl Fn(&Job) -> Result<(), String> + Send + Sync + 'static {
    move |job| {
        let told = (job.id().unwrap_or_default().to_owned(), job.attempt().number(), Instant::now());
        sender.send(told).unwrap();
        Ok(())
    }
}

/// Fault 230.
#[test]
fn a_delayed_job_runs_once_when_its_delay_is_over_and_others_do_not_wait() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    let begun = Instant::now();
    queue.enqueue_after(DELAY, "jobs.a", "later", "after").unwrap();
    let job = NewJob::new("jobs.a", "later", "moment").unwrap().headers(Headers::new().append("Trace", "t1"));
    let moment = SystemTime::now() + DELAY;
    queue.enqueue_job(job.not_before(moment)).unwrap();
    let many = (0..3).map(|n| NewJob::new("jobs.a", "later", format!("many-{n}")).unwrap().delay(DELAY));
    assert!(queue.enqueue_all(many).iter().all(Result::is_ok));
    queue.enqueue("jobs.a", "now", "now").unwrap();
    queue.enqueue_after(Duration::ZERO, "jobs.a", "now", "zero").unwrap();

    let worker = Worker::builder(&queue, "worker").slots(1).build().unwrap();
    let (sender, told) = channel();
    work_until(&worker, &pool, telling(sender), || queue.is_empty().unwrap());
    let told: Vec<_> = told.iter().collect();
    let order: Vec<_> = told.iter().map(|(id, ..)| id.as_str()).collect();
    // On a very busy machine the delay may be over before the first job runs.
    let is_late = told[1].2 - begun >= DELAY;
    assert!(is_late || order[..2] == ["now", "zero"], "one slot, and the delayed jobs do not hold it: {order:?}");
    assert_eq!(order.len(), 7, "each ran once: {order:?}");
    for (id, attempt, at) in told {
        assert_eq!(attempt, 1, "{id}");
        assert!(id == "now" || id == "zero" || at - begun >= DELAY, "{id} ran after {:?}", at - begun);
    }
    let metrics = worker.metrics();
    assert!((5..=10).contains(&metrics.jobs_postponed), "{metrics}");
    assert_eq!((metrics.jobs_acked, metrics.jobs_dead, metrics.jobs_returned), (7, 0, 0), "{metrics}");
}

/// Fault 232.
#[test]
fn a_worker_that_starts_when_the_delay_is_over_runs_the_job_at_its_first_delivery() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    // An earlier run leaves a consumer that was last active before the job was stored.
    queue.enqueue("jobs.a", "", "first").unwrap();
    let build = || Worker::<String>::builder(&queue, "worker").build().unwrap();
    work_until(&build(), &pool, |_| Ok(()), || queue.is_empty().unwrap());
    let stored = Instant::now();
    queue.enqueue_after(DELAY, "jobs.a", "", "late").unwrap();
    wait_until("the delay is over", || stored.elapsed() > DELAY + Duration::from_millis(50));
    let worker = build();
    work_until(&worker, &pool, |_| Ok(()), || queue.is_empty().unwrap());
    let metrics = worker.metrics();
    assert_eq!((metrics.jobs_delivered, metrics.jobs_postponed), (1, 0), "{metrics}");
}

/// Fault 233.
#[test]
fn deliveries_before_the_delay_is_over_are_no_attempts_whatever_became_of_them() {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let delay = Duration::from_secs(6);
    let build = || {
        let policy = RetryPolicy::exponential().max_attempts(1);
        let builder = Worker::builder(&queue, "worker").ack_wait(Duration::from_millis(300));
        builder.retry(policy).max_deliveries(1).build().unwrap()
    };
    let has_consumer = || consumer_figure(&connection, "worker", "num_pending").is_some();
    work_until(&build(), &pool, |_| Err("not yet stored".to_owned()), has_consumer);
    let begun = Instant::now();
    queue.enqueue_after(delay, "jobs.a", "", "1").unwrap();
    // Two deliveries of which nothing more is heard, as of a worker that died.
    let lost = connection.subscribe("lost").start(|_| ()).unwrap();
    for delivery in 1..=2 {
        server.say("PUB $JS.API.CONSUMER.MSG.NEXT.JOBS.worker lost 1\r\n1\r\n");
        wait_until("the delivery", || consumer_figure(&connection, "worker", "consumer_seq") >= Some(delivery));
    }
    drop(lost);
    let idle = build();
    work_until(&idle, &pool, |_| Err("too early".to_owned()), || idle.metrics().jobs_postponed == 1);
    // The server may or may not remember how long it was to wait.
    server.stop();
    server.start_again();
    let worker = build();
    let (sender, told) = channel();
    let handler = move |job: &Job| {
        sender.send((job.attempt().number(), begun.elapsed())).unwrap();
        Err("broken".to_owned())
    };
    work_until(&worker, &pool, handler, || worker.metrics().jobs_dead == 1);
    let told: Vec<_> = told.iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == 1 && told[0].1 >= delay, "{told:?}");
    assert!(worker.metrics().jobs_postponed <= 4, "{}", worker.metrics());
    let letter = queue.dead_letters(1).unwrap().remove(0);
    assert_eq!((letter.attempts(), letter.header("Workcrew-Delay")), (Some(1), None));
    // Requeued, it runs at once, under its own id.
    queue.requeue(&letter).unwrap();
    let worker = build();
    let (sender, told) = channel();
    work_until(&worker, &pool, telling(sender), || queue.is_empty().unwrap());
    assert_eq!(told.iter().map(|(id, attempt, _)| (id, attempt)).collect::<Vec<_>>(), [("1".to_owned(), 1)]);
    assert_eq!(worker.metrics().jobs_postponed, 0);
}

/// Fault 234.
#[test]
fn the_deadline_of_the_policy_of_a_delayed_job_begins_when_the_delay_is_over() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let delay = Duration::from_secs(3);
    queue.enqueue_after(delay, "jobs.a", "", "1").unwrap();
    let policy = RetryPolicy::exponential().base_delay(Duration::from_millis(1)).max_attempts(3).timeout(delay);
    let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
    let fails_twice = |job: &Job| if job.attempt().number() < 3 { Err("not yet".to_owned()) } else { Ok(()) };
    work_until(&worker, &pool, fails_twice, || queue.is_empty().unwrap());
    let metrics = worker.metrics();
    assert_eq!((metrics.jobs_acked, metrics.jobs_dead), (1, 0), "{metrics}");
    assert!(metrics.time_to_done.mean() < delay, "it counts from then on, too: {metrics}");
}

/// Fault 231.
#[test]
fn a_delay_that_cannot_be_kept_is_refused_by_name_and_the_job_is_not_stored() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    // A machine that stalls may answer late.
    let connection = server.builder().timeout(LONG).connect(&pool).unwrap();
    let age = Duration::from_secs(60);
    let ageing = JobQueue::builder(&connection, "AGEING").max_age(age).open().unwrap();
    let ageless = queue(&connection);
    let delays = [(&ageing, age), (&ageing, Duration::MAX), (&ageless, Duration::MAX)];
    for (queue, delay) in delays {
        let subject = if queue.name() == "JOBS" { "jobs.a" } else { "AGEING.a" };
        let job = || NewJob::new(subject, "", "1").unwrap().delay(delay);
        for refused in [queue.enqueue_job(job()), queue.enqueue_all([job()]).remove(0)] {
            let Err(EnqueueError::Invalid(invalid)) = refused else { panic!("{refused:?}") };
            assert_eq!(invalid.field(), "delay");
        }
        assert!(queue.is_empty().unwrap());
    }
    ageing.enqueue_after(age - Duration::from_secs(1), "AGEING.a", "", "1").unwrap();
    // The longest that the server can count: it waits, and does not overflow.
    ageless.enqueue_after(Duration::from_nanos(i64::MAX as u64), "jobs.a", "", "1").unwrap();
    let worker = Worker::<String>::builder(&ageless, "worker").build().unwrap();
    work_until(&worker, &pool, |_| panic!("it ran"), || worker.metrics().jobs_postponed == 1);
    assert_eq!(ageless.len().unwrap(), 1);
}

/// Fault 235.
#[test]
fn many_delayed_jobs_hold_no_slot_and_end_a_drain_at_once() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let hour = Duration::from_secs(3_600);
    let later = (0..300).map(|n| NewJob::new("jobs.a", "", format!("later-{n}")).unwrap().delay(hour));
    assert!(queue.enqueue_all(later).iter().all(Result::is_ok));
    for n in 0..10 {
        queue.enqueue("jobs.a", "", format!("now-{n}")).unwrap();
    }
    let worker = Worker::<String>::builder(&queue, "worker").slots(2).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let _drained = nats_common::DrainAtEnd(&worker);
        wait_until("the ten", || queue.len().unwrap() == 300);
        wait_until("the others go back", || worker.metrics().jobs_postponed == 300);
        wait_until("nothing is held", || worker.metrics().jobs_in_flight == 0);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(queue.len().unwrap(), 300);
    assert_eq!(worker.metrics().jobs_delivered, 310, "one delivery each");
}
