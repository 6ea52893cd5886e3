//! The jobs that a server has stored. The drill asks by the protocol itself, without the crate
//! under test.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::jobs;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How many questions are asked before their answers are read.
const AT_ONCE: usize = 200;

/// A connection without a client library.
#[derive(Debug)]
pub(crate) struct Store(BufReader<TcpStream>);

/// The leaders of a cluster, by the names of the servers; `None` without a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaders {
    pub(crate) stream: Option<String>,
    pub(crate) consumer: Option<String>,
}

impl Store {
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "CONNECT {{\"verbose\":false,\"headers\":true,\"name\":\"store\"}}\r\nSUB drill_answer.* 1\r\n"
        )?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks the API. The answer may be an error of the API.
    pub(crate) fn ask(&mut self, question: &str, body: &Value) -> io::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let subject = format!("$JS.API.{question}");
        let answers = self.answers(&[format!("PUB {subject} drill_answer.0 {}\r\n{body}\r\n", body.len())])?;
        answers.into_values().next().ok_or_else(|| io::Error::other(format!("no answer to {question}")))
    }

    /// Asks the API for something that must not be an error.
    pub(crate) fn demand(&mut self, question: &str) -> io::Result<Value> {
        let answer = self.ask(question, &Value::Null)?;
        match answer.get("error") {
            Some(error) => Err(io::Error::other(format!("{question}: {error}"))),
            None => Ok(answer),
        }
    }

    /// Publishes a job whose headers are exactly these lines; returns its place when the store has
    /// confirmed it.
    pub(crate) fn publish(&mut self, header_lines: &str, payload: &str) -> io::Result<u64> {
        let head = format!("NATS/1.0\r\n{header_lines}\r\n");
        let size = head.len() + payload.len();
        let words = format!("HPUB {} drill_answer.0 {} {size}\r\n{head}{payload}\r\n", jobs::SUBJECT, head.len());
        let answer = self.answers(&[words])?.into_values().next().unwrap_or_default();
        answer["seq"].as_u64().ok_or_else(|| io::Error::other(format!("the job is not stored: {answer}")))
    }

    /// Returns the stored jobs: their places, and their ids.
    pub(crate) fn jobs(&mut self) -> io::Result<BTreeMap<u64, String>> {
        let info = self.demand(&format!("STREAM.INFO.{}", jobs::QUEUE))?;
        let place = |name: &str| info["state"][name].as_u64().unwrap_or(0);
        let (first, last) = (place("first_seq"), place("last_seq"));
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", jobs::QUEUE);
        let mut found = BTreeMap::new();
        let places: Vec<u64> = if place("messages") == 0 { Vec::new() } else { (first..=last).collect() };
        for some in places.chunks(AT_ONCE) {
            let question = |place: &u64| {
                let body = json!({ "seq": place }).to_string();
                format!("PUB {subject} drill_answer.{place} {}\r\n{body}\r\n", body.len())
            };
            for (place, answer) in self.answers(&some.iter().map(question).collect::<Vec<_>>())? {
                match answer.get("message") {
                    Some(message) => drop(found.insert(place, id_of(message))),
                    None if answer["error"]["code"] == 404 => {}
                    None => return Err(io::Error::other(format!("job {place}: {answer}"))),
                }
            }
        }
        Ok(found)
    }

    /// Returns which servers lead.
    pub(crate) fn leaders(&mut self) -> io::Result<Leaders> {
        let leader = |info: &Value| info["cluster"]["leader"].as_str().map(str::to_owned);
        let stream = leader(&self.demand(&format!("STREAM.INFO.{}", jobs::QUEUE))?);
        let consumer = self.ask(&format!("CONSUMER.INFO.{}.{}", jobs::QUEUE, jobs::CONSUMER), &Value::Null)?;
        Ok(Leaders { stream, consumer: leader(&consumer) })
    }

    /// Sends words that have an answer each, and returns the answers by the last token of their
    /// subject.
    fn answers(&mut self, words: &[String]) -> io::Result<BTreeMap<u64, Value>> {
        self.0.get_mut().write_all((words.concat() + "PING\r\n").as_bytes())?;
        let mut answers = BTreeMap::new();
        while answers.len() < words.len() {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::Error::other("the server has hung up"));
            }
            let parts: Vec<&str> = line.split_whitespace().collect();
            match parts[..] {
                ["MSG", subject, _, size] => {
                    let mut body = vec![0; size.parse().map_err(io::Error::other)?];
                    self.0.read_exact(&mut body)?;
                    self.0.read_line(&mut String::new())?;
                    let number = subject.rsplit('.').next().unwrap_or_default().parse().map_err(io::Error::other)?;
                    answers.insert(number, serde_json::from_slice(&body).map_err(io::Error::other)?);
                }
                ["HMSG", ..] => return Err(io::Error::other("no responder")),
                ["PING"] => self.0.get_mut().write_all(b"PONG\r\n")?,
                _ if line.starts_with("-ERR") => return Err(io::Error::other(line)),
                _ => {}
            }
        }
        Ok(answers)
    }
}

/// The id among the headers of a stored message.
fn id_of(message: &Value) -> String {
    let headers = STANDARD.decode(message["hdrs"].as_str().unwrap_or_default()).unwrap_or_default();
    let headers = String::from_utf8_lossy(&headers).into_owned();
    headers.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id:")).unwrap_or_default().trim().to_owned()
}

/// Asks one server for all that it has stored.
pub(crate) fn jobs_at(port: u16) -> io::Result<BTreeMap<u64, String>> {
    Store::connect(port)?.jobs()
}
