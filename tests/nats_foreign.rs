//! Another client, nats-py, enqueues and reads dead letters: what travels is plain JetStream.
//!
//! Needs a Python that has nats-py, named by `WORKCREW_NATS_PYTHON`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::env;
use std::process::Command;
use std::thread;

use nats_common::{Server, pool, queue, wait_until};
use workcrew::nats::{Job, Worker};
use workcrew::retry::RetryPolicy;

/// What the script prints; `None`, said loudly, if there is no Python for it. Under `CI` that is a failure.
fn foreign(server: &Server, command: &str, number: usize) -> Option<String> {
    let Some(python) = env::var_os("WORKCREW_NATS_PYTHON") else {
        assert!(env::var_os("CI").is_none(), "WORKCREW_NATS_PYTHON names no Python with nats-py");
        eprintln!("SKIPPED: WORKCREW_NATS_PYTHON names no Python with nats-py");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nats_foreign.py");
    let output = Command::new(python).args([script, &server.url(), command, &number.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn another_client_enqueues_and_reads_dead_letters() {
    const JOBS: usize = 20;
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    if foreign(&server, "enqueue", JOBS).is_none() {
        return;
    }
    assert_eq!(queue.len().unwrap() as usize, JOBS, "the duplicate is not stored");
    let policy = RetryPolicy::fixed(std::time::Duration::ZERO).retry_if(|_: &String| false);
    let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
    let handler = |job: &Job| {
        let number: usize = job.text().unwrap().parse().unwrap();
        assert_eq!(job.id().unwrap(), format!("foreign-{number}"));
        assert_eq!(job.header("Trace").unwrap(), format!("trace-{number}"));
        if number.is_multiple_of(10) { Err(format!("no\nluck with {number}")) } else { Ok(()) }
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        wait_until("all have an outcome", || queue.is_empty().unwrap());
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    let letters = foreign(&server, "dead", 2).unwrap();
    let mut letters: Vec<_> = letters.lines().map(|line| line.split('|').collect::<Vec<_>>()).collect();
    letters.sort();
    for (letter, number) in letters.iter().zip(["0", "10"]) {
        let [payload, trace, subject, stream, sequence, reason, attempts, error, id] = letter[..] else {
            panic!("{letter:?}");
        };
        let place = (number.parse::<u64>().unwrap() + 1).to_string();
        assert_eq!((payload, trace, subject), (number, &*format!("trace-{number}"), "jobs.foreign"));
        assert_eq!((stream, sequence, reason, attempts), ("JOBS", &*place, "permanent", "1"));
        assert_eq!((error, id), (&*format!("no luck with {number}"), &*format!("foreign-{number}")));
    }
    assert_eq!((letters.len(), worker.metrics().jobs_dead, worker.metrics().jobs_acked), (2, 2, JOBS as u64 - 2));
}
