//! Headers, many jobs at once, pages of dead letters, several subjects, and settings that are changed on purpose.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::sync::mpsc::channel;
use std::time::Duration;

use nats_common::{LONG, Server, pool, queue, work_until};
use workcrew::nats::{
    Connection, DeadLetter, DeadLetterQuery, DeadLetterReason, EnqueueError, Headers, Job, JobQueue, NewJob,
    PublishError, QueueError, StreamSettings, Worker, WorkerError,
};
use workcrew::retry::RetryPolicy;

/// Whether the server knows what came with 2.10.
fn is_new(connection: &Connection) -> bool {
    let version = connection.server_info().unwrap().version;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (2, 10)
}

fn pairs<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Fault 222.
#[test]
fn headers_travel_with_messages_requests_answers_and_jobs() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let sent = Headers::new().append("Tag", "a").append("Tag", "b").append("Trace", "été 1");
    let wanted = pairs(sent.iter());
    let (sender, heard) = channel();
    let listening = connection.subscribe("news").start(move |message| {
        sender.send(pairs(message.headers())).unwrap();
        message.respond_with_headers(&Headers::new().append("Re", "1"), "thanks").unwrap();
    });
    let _subscription = listening.unwrap();
    connection.publisher().publish_with_headers("news", &sent, "rain").unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), wanted);
    let answer = connection.request_with_headers("news", &sent, "sun").unwrap();
    assert_eq!((answer.text(), answer.header("Re")), (Some("thanks"), Some("1")));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), wanted);

    let queue = queue(&connection);
    queue.enqueue_with_headers("jobs.a", &sent, "", "1").unwrap();
    let (sender, seen) = channel();
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    let handler = move |job: &Job| {
        sender.send(pairs(job.headers().filter(|(name, _)| !name.starts_with("Nats-")))).unwrap();
        Ok(())
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    assert_eq!(seen.recv_timeout(LONG).unwrap(), wanted);
}

/// Fault 223.
#[test]
fn many_jobs_are_enqueued_at_once_and_each_has_its_own_answer() {
    const JOBS: usize = 2_000;
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = JobQueue::builder(&connection, "JOBS").subject("jobs.>").max_jobs(JOBS as u64 - 2).open().unwrap();
    let job = |n: usize| {
        let (subject, id) = match n {
            7 => ("jobs..a", "7".to_owned()),
            8 => ("jobs.a", "6".to_owned()), // that of another
            _ => ("jobs.a", n.to_string()),
        };
        NewJob::new(subject, &[n as u8], id).unwrap().headers(Headers::new().append("Number", n.to_string()))
    };
    let results = queue.enqueue_all((0..=JOBS).map(job));
    assert_eq!(results.len(), JOBS + 1);
    for (n, result) in results.iter().enumerate() {
        match result {
            Err(EnqueueError::Invalid(_)) => assert_eq!(n, 7),
            Ok(enqueued) if enqueued.is_duplicate() => assert_eq!(n, 8),
            Ok(_) => assert!(n < JOBS, "{n}"),
            Err(EnqueueError::Full(_)) => assert_eq!(n, JOBS),
            Err(error) => panic!("{n}: {error}"),
        }
    }
    assert_eq!(queue.len().unwrap(), JOBS as u64 - 2);
    assert!(queue.enqueue_all([]).is_empty());
}

/// Fault 224.
#[test]
fn dead_letters_are_read_in_pages_and_by_subject_and_reason() {
    const LETTERS: u64 = 150;
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    assert!(queue.dead_letters(10).unwrap().is_empty());
    let jobs = (0..LETTERS).map(|n| NewJob::new(["jobs.a", "jobs.b"][n as usize % 2], "", n.to_string()).unwrap());
    assert!(queue.enqueue_all(jobs).iter().all(Result::is_ok));
    let policy = RetryPolicy::fixed(Duration::ZERO).retry_if(|_: &&str| false);
    let worker = Worker::builder(&queue, "worker").slots(64).retry(policy).build().unwrap();
    work_until(&worker, &pool, |_| Err("no luck"), || queue.dead_letters_len().unwrap() == LETTERS);

    let mut query = DeadLetterQuery::default();
    let mut all = Vec::new();
    loop {
        let page = queue.find_dead_letters(&query).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= query.limit);
        query.after = last.sequence();
        all.extend(page.iter().map(DeadLetter::sequence));
    }
    assert_eq!(all, (1..=LETTERS).collect::<Vec<_>>());
    assert_eq!(queue.dead_letters(usize::MAX).unwrap().len() as u64, LETTERS);
    (query.after, query.limit, query.subject) = (0, usize::MAX, Some("jobs.a".to_owned()));
    let of_a = queue.find_dead_letters(&query).unwrap();
    assert!(of_a.len() as u64 == LETTERS / 2 && of_a.iter().all(|letter| letter.subject() == "jobs.a"));
    query.reason = Some(DeadLetterReason::Budget);
    assert!(queue.find_dead_letters(&query).unwrap().is_empty());
    query.after = u64::MAX;
    assert!(queue.find_dead_letters(&query).unwrap().is_empty());
    // What was read in a page can be requeued and discarded as ever.
    queue.requeue(&of_a[0]).unwrap();
    queue.discard_dead_letter(&of_a[1]).unwrap();
    assert_eq!(queue.dead_letters_len().unwrap(), LETTERS - 2);
}

/// Fault 225.
#[test]
fn a_worker_of_several_subjects_gets_those_jobs_or_says_that_the_server_is_too_old() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    for (n, subject) in ["jobs.a", "jobs.b", "jobs.c"].into_iter().enumerate() {
        queue.enqueue(subject, "", n.to_string()).unwrap();
    }
    let worker = Worker::<String>::builder(&queue, "worker").subject("jobs.a").subject("jobs.c").build().unwrap();
    if !is_new(&connection) {
        let ended = worker.run(&pool, |_| Ok(()));
        assert!(matches!(&ended, Err(WorkerError::Invalid(invalid)) if invalid.field() == "subject"), "{ended:?}");
        return;
    }
    let (sender, seen) = channel();
    let handler = move |job: &Job| {
        sender.send(job.subject().to_owned()).unwrap();
        Ok(())
    };
    work_until(&worker, &pool, handler, || queue.len().unwrap() == 1);
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["jobs.a", "jobs.c"]);
}

/// Fault 226.
#[test]
fn settings_of_a_queue_are_changed_on_purpose_and_the_difference_is_shown_first() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let builder = |jobs| JobQueue::builder(&connection, "JOBS").subject("jobs.>").max_jobs(jobs);
    let plan = builder(10).plan().unwrap();
    assert_eq!(plan.created().collect::<Vec<_>>(), ["JOBS", "JOBS_DEAD"]);
    assert!(!plan.is_empty());
    let queue = plan.apply().unwrap();
    queue.enqueue("jobs.a", "", "1").unwrap();
    assert!(builder(10).plan().unwrap().is_empty());
    assert!(matches!(builder(20).open(), Err(QueueError::Differs { .. })));
    let plan = builder(20).plan().unwrap();
    let told: Vec<_> = plan.differences().map(|(stream, what)| format!("{stream}: {what}")).collect();
    assert_eq!(told, ["JOBS: max_msgs is Some(10), not Some(20)"]);
    let changed = plan.apply().unwrap();
    assert_eq!(changed.len().unwrap(), 1, "the jobs stay");
    drop(builder(20).open().unwrap());
    let refused = builder(20).in_memory().plan().unwrap().apply();
    assert!(matches!(refused, Err(QueueError::Rejected(_))), "{refused:?}");
    drop(builder(20).open().unwrap());
}

/// Fault 227.
#[test]
fn settings_of_a_stream_that_few_need_are_kept_or_named_as_different() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let mut settings = StreamSettings::default();
    (settings.max_job_bytes, settings.max_jobs_per_subject) = (Some(1_000), Some(1));
    settings.description = Some("thumbnails".to_owned());
    let builder = || JobQueue::builder(&connection, "JOBS").subject("jobs.>");
    let queue = builder().stream_settings(settings.clone()).open().unwrap();
    let large = queue.enqueue("jobs.a", &vec![0_u8; 2_000], "1");
    assert!(matches!(large, Err(EnqueueError::TooLarge)), "{large:?}");
    queue.enqueue("jobs.a", "", "2").unwrap();
    let second = queue.enqueue("jobs.a", "", "3");
    assert!(matches!(second, Err(EnqueueError::Full(_))), "{second:?}");
    queue.enqueue("jobs.b", "", "4").unwrap();
    let mut newer = StreamSettings::default();
    newer.compression = true;
    newer.metadata.insert("team".to_owned(), "images".to_owned());
    let opened = JobQueue::builder(&connection, "SMALL").stream_settings(newer).open();
    if is_new(&connection) {
        drop(opened.unwrap());
    } else {
        assert!(
            matches!(&opened, Err(QueueError::Differs { differences, .. }) if differences.len() == 2),
            "{opened:?}"
        );
    }
}

/// Fault 228.
#[test]
fn a_user_that_may_use_its_own_inboxes_only_works_with_a_prefix() {
    let user =
        "user: ann, password: secret, permissions: { publish: \">\", subscribe: [\"_INBOX_app.>\", \"open.>\"] }";
    let Some(server) = Server::with_config(&format!("authorization {{ users: [ {{ {user} }} ] }}")) else { return };
    let pool = pool(1);
    let builder = || server.builder().user_and_password("ann", "secret").timeout(Duration::from_secs(2));
    let connection = builder().inbox_prefix("_INBOX_app").connect(&pool).unwrap();
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "", "1").unwrap();
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    work_until(&worker, &pool, |_| Ok(()), || queue.is_empty().unwrap());
    let denied = connection.subscribe("closed.a").start(|_| ());
    assert!(matches!(denied, Err(PublishError::Denied(_))), "{denied:?}");
    let _open = connection.subscribe("open.a").start(|_| ()).unwrap();
}

/// Fault 229.
#[test]
fn a_domain_and_an_api_prefix_reach_the_jetstream_that_they_name() {
    let Some(server) = Server::with_config("jetstream { domain: hub }") else { return };
    let pool = pool(1);
    for builder in [server.builder().jetstream_domain("hub"), server.builder().jetstream_api_prefix("$JS.hub.API")] {
        let connection = builder.connect(&pool).unwrap();
        let info = connection.server_info().unwrap();
        assert_eq!((info.domain.as_deref(), info.jetstream), (Some("hub"), true));
        let queue = queue(&connection);
        queue.enqueue("jobs.a", "", "1").unwrap();
        let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
        work_until(&worker, &pool, |_| Ok(()), || queue.is_empty().unwrap());
        connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    }
    let connection = server.builder().timeout(Duration::from_secs(1)).jetstream_domain("elsewhere").connect(&pool);
    let nowhere = JobQueue::builder(&connection.unwrap(), "JOBS").open();
    assert!(matches!(nowhere, Err(QueueError::Unavailable(_))), "{nowhere:?}");
}
