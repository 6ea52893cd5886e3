//! The order by key when a process is killed. The worker process is this program, called again.

use std::fs::{File, OpenOptions, read_to_string};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use workcrew::nats::{Connection, Job, Worker};

use super::nats_common::{Server, pool, queue, wait_until};
use super::{AGES, Log, enqueue, position};

const ACK_WAIT: Duration = Duration::from_millis(500);

/// A worker process, which is killed at the end.
struct WorkerProcess(Child);

impl WorkerProcess {
    fn start(server: &Server, journal: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "kills::works_when_it_is_called_again", "--nocapture", "--test-threads=1"])
            .env("WORKCREW_TEST_URL", server.url())
            .env("WORKCREW_TEST_JOURNAL", journal)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Not a test: what the worker process does. Its fourth job hangs.
#[test]
fn works_when_it_is_called_again() {
    let Ok(url) = std::env::var("WORKCREW_TEST_URL") else { return };
    let journal = std::env::var("WORKCREW_TEST_JOURNAL").unwrap();
    let journal = Mutex::new(OpenOptions::new().append(true).create(true).open(journal).unwrap());
    let pool = pool(4);
    let connection = Connection::builder(url).connect(&pool).unwrap();
    let builder = Worker::<String>::builder(&queue(&connection), "worker").ack_wait(ACK_WAIT);
    let worker = builder.ordered_by(|job| job.subject().to_owned()).build().unwrap();
    let handler = move |job: &Job| {
        let line = format!("{}\n", position(job));
        journal.lock().unwrap().write_all(line.as_bytes()).unwrap();
        if position(job) == 3 {
            std::thread::sleep(AGES);
        }
        Ok(())
    };
    let _ = worker.run(&pool, handler);
}

/// Fault 544.
#[test]
fn after_a_kill_only_the_running_job_of_a_key_runs_again_and_no_done_one() {
    let Some(server) = Server::start() else { return };
    let journal = server.folder().join("journal");
    File::create(&journal).unwrap();
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["jobs.a"; 20]);
    let mut process = WorkerProcess::start(&server, &journal);
    let read = || read_to_string(&journal).unwrap();
    wait_until("the fourth job hangs", || read().lines().count() == 4);
    process.kill();
    assert_eq!(read(), "0\n1\n2\n3\n", "its successors have not begun, and the server has confirmed the others");
    let builder = Worker::<String>::builder(&queue, "worker").ack_wait(ACK_WAIT);
    let worker = builder.ordered_by(|job| job.subject().to_owned()).build().unwrap();
    let log = Log::new();
    let noted = log.clone();
    let handler = move |job: &Job| {
        noted.push((position(job), job.attempt().number()));
        Ok(())
    };
    super::nats_common::work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    let mut ran = log.entries();
    ran.sort_unstable();
    // All that was in hand of the killed process counts an attempt: it is not known what had begun.
    assert_eq!(ran.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (3..20).collect::<Vec<_>>());
    assert!(ran.iter().all(|(_, attempt)| *attempt <= 2), "{ran:?}");
}
