//! Faults of the servers themselves that the drill must allow for, shown without the crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nats_common::Server;

/// When the server delivers a job again.
const ACK_WAIT: Duration = Duration::from_secs(4);
/// The answer to a request and the delivery of a job that is there take less.
const SOON: Duration = Duration::from_secs(2);

/// A client that speaks the protocol itself.
struct RawClient {
    stream: BufReader<TcpStream>,
    subscriptions: u32,
    /// The server's greeting.
    info: String,
}

impl RawClient {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let mut client = Self { stream: BufReader::new(stream), subscriptions: 0, info: String::new() };
        client.stream.read_line(&mut client.info).unwrap();
        client.send("CONNECT {\"verbose\":false}\r\n");
        client
    }

    fn send(&mut self, lines: &str) {
        self.stream.get_mut().write_all(lines.as_bytes()).unwrap();
    }

    /// Publishes, and has the answers come to an inbox of its own.
    fn ask(&mut self, subject: &str, inbox: &str, body: &str) {
        self.subscriptions += 1;
        let (number, length) = (self.subscriptions, body.len());
        self.send(&format!("SUB {inbox} {number}\r\nPUB {subject} {inbox} {length}\r\n{body}\r\n"));
    }

    fn pull(&mut self, inbox: &str, jobs: u32) {
        let body = format!("{{\"batch\":{jobs},\"expires\":30000000000}}");
        self.ask("$JS.API.CONSUMER.MSG.NEXT.JOBS.worker", inbox, &body);
    }

    /// The next message within the time: where its answer goes, and its text.
    fn message(&mut self, limit: Duration) -> Option<(String, String)> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.stream.get_ref().set_read_timeout(Some(left)).unwrap();
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("{error}"),
            }
            let words: Vec<_> = line.split_whitespace().collect();
            match *words.first().unwrap() {
                "MSG" => {
                    let length: usize = words.last().unwrap().parse().unwrap();
                    let mut body = vec![0; length + 2];
                    self.stream.read_exact(&mut body).unwrap();
                    let reply = if words.len() == 5 { words[3] } else { "" };
                    return Some((reply.to_owned(), String::from_utf8(body[..length].to_vec()).unwrap()));
                }
                "PING" => self.send("PONG\r\n"),
                "PONG" | "INFO" => {}
                other => panic!("{other}: {line}"),
            }
        }
    }

    fn answer(&mut self, subject: &str, body: &str) -> String {
        self.ask(subject, &format!("answers.{}", self.subscriptions), body);
        self.message(SOON).expect("an answer").1
    }

    /// Makes a queue as the crate does, and its consumer.
    fn make_queue(&mut self, ack_wait: Duration) {
        let stream = "{\"name\":\"JOBS\",\"subjects\":[\"jobs\"],\"retention\":\"workqueue\",\"storage\":\"file\"}";
        self.answer("$JS.API.STREAM.CREATE.JOBS", stream);
        let consumer = format!(
            "{{\"stream_name\":\"JOBS\",\"config\":{{\"durable_name\":\"worker\",\"ack_policy\":\"explicit\",\"ack_wait\":{}}}}}",
            ack_wait.as_nanos()
        );
        self.answer("$JS.API.CONSUMER.DURABLE.CREATE.JOBS.worker", &consumer);
    }

    /// The next job, which may come only after an `ack_wait` of a second: its deliveries, and its text.
    fn job(&mut self) -> (String, String) {
        let (reply, text) = self.message(2 * SOON).expect("a job");
        // $JS.ACK.stream.consumer.deliveries. ...
        (reply.split('.').nth(4).unwrap().to_owned(), text)
    }
}

/// Returns whether a server of this greeting is older than 2.10.14, and so has these faults.
fn is_old(info: &str) -> bool {
    let version = info.split("\"version\":\"").nth(1).unwrap().split('"').next().unwrap();
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    numbers < vec![2, 10, 14]
}

/// Fault 261.
#[test]
fn a_server_before_2_10_14_delivers_its_newest_job_twice_when_an_expired_job_meets_the_request_of_a_dead_worker() {
    let Some(server) = Server::start() else { return };
    let mut admin = RawClient::connect(&server);
    admin.make_queue(ACK_WAIT);
    let (mut dies, mut lives) = (RawClient::connect(&server), RawClient::connect(&server));
    dies.pull("dies.first", 1);
    admin.answer("jobs", "older");
    assert_eq!(dies.job(), ("1".to_owned(), "older".to_owned()));
    let delivered_at = Instant::now();
    thread::sleep(ACK_WAIT / 2);
    lives.pull("lives.first", 1);
    admin.answer("jobs", "newer");
    assert_eq!(lives.job(), ("1".to_owned(), "newer".to_owned()));
    dies.pull("dies.second", 4);
    // Another answer of the server shows that it has heard the request.
    dies.answer("$JS.API.INFO", "");
    drop(dies);
    // Now the older job expires, and the only request is that of the dead worker.
    thread::sleep((ACK_WAIT + ACK_WAIT / 10).saturating_sub(delivered_at.elapsed()));
    let mut next = RawClient::connect(&server);
    next.pull("next.first", 1);
    let job = next.job();
    // The newer job is with a worker that is alive, and its `ack_wait` is not over.
    if is_old(&next.info) {
        assert_eq!(job, ("1".to_owned(), "newer".to_owned()), "told as if for the first time");
    } else {
        assert_eq!(job, ("2".to_owned(), "older".to_owned()));
    }
}

/// Fault 665.
#[test]
fn a_server_that_is_killed_forgets_deliveries_of_its_last_moment_and_so_attempts() {
    // A server of 2.9 writes the first delivery at once, and the next one a tenth of a second later.
    let has_forgotten = (0..30).any(|_| {
        let Some(mut server) = Server::start() else { return true };
        let mut admin = RawClient::connect(&server);
        admin.make_queue(Duration::from_secs(1));
        let mut worker = RawClient::connect(&server);
        for job in ["first", "second"] {
            admin.answer("jobs", job);
            worker.pull(&format!("worker.{job}"), 1);
            assert_eq!(worker.job(), ("1".to_owned(), job.to_owned()));
        }
        server.kill();
        server.start_again();
        let mut worker = RawClient::connect(&server);
        worker.pull("worker.again", 1);
        let (deliveries, _) = worker.job();
        assert!(["1", "2"].contains(&deliveries.as_str()), "{deliveries}");
        deliveries == "1"
    });
    assert!(has_forgotten, "no killed server forgot a delivery: the drill can count attempts more strictly");
}
