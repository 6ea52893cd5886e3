//! A NATS server for one test: a real one, on a port and in a folder of its own.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests fail by panicking, and share by `pub`")]
#![allow(dead_code, reason = "each test uses some of it")]

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use workcrew::nats::{
    ConnectError, Connection, ConnectionBuilder, EnqueueError, InvalidArgument, Job, JobQueue, PublishError,
    QueueError, Worker, WorkerError,
};
use workcrew::{BuildError, WorkerPool};

/// Time limits exist only to fail.
pub const LONG: Duration = Duration::from_secs(30);

/// A server, ended with its folder when it is dropped.
pub struct Server {
    process: Option<Child>,
    pub port: u16,
    folder: PathBuf,
    config: Option<PathBuf>,
}

impl Server {
    /// A server with JetStream; `None`, said loudly, if there is none on this machine. Under `CI` that is a failure.
    pub fn start() -> Option<Self> {
        Self::with_config("")
    }

    /// A server whose configuration file has this besides.
    pub fn with_config(text: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("workcrew-nats-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let config = (!text.is_empty()).then(|| {
            let path = folder.join("server.conf");
            fs::write(&path, text).unwrap();
            path
        });
        let mut server = Self { process: None, port: 0, folder, config };
        // Between finding a free port and binding it another test may take it.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            match server.launch() {
                Ok(true) => return Some(server),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let must_be_there = ["CI", "NATS_SERVER_BIN"].iter().any(|name| env::var_os(name).is_some());
                    assert!(!must_be_there, "nats-server is not there; install it or set NATS_SERVER_BIN");
                    eprintln!("SKIPPED: nats-server is not there; install it or set NATS_SERVER_BIN");
                    return None;
                }
                Err(error) => panic!("nats-server: {error}"),
            }
        }
        panic!("no nats-server came up");
    }

    fn launch(&mut self) -> std::io::Result<bool> {
        let program = env::var_os("NATS_SERVER_BIN").unwrap_or_else(|| "nats-server".into());
        let mut command = Command::new(program);
        command.args(["-js", "-a", "127.0.0.1", "-p"]).arg(self.port.to_string()).arg("-sd").arg(&self.folder);
        if let Some(config) = &self.config {
            command.arg("-c").arg(config);
        }
        let log = fs::File::create(self.folder.join("log"))?;
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            if process.try_wait()?.is_some() {
                return Ok(false);
            }
            if self.answers() {
                self.process = Some(process);
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = process.kill();
        let _ = process.wait();
        Ok(false)
    }

    /// Whether it greets, as it does when it is ready.
    fn answers(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut line = String::new();
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO")
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it as an operator does, by SIGTERM: it writes down what it knows.
    #[cfg(unix)]
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let status = Command::new("kill").arg(process.id().to_string()).status();
            assert!(status.unwrap().success());
            process.wait().unwrap();
        }
    }

    /// Sends it a signal: `CONT` has it go on, `USR2` be about to end.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.process()]).status().unwrap().success());
    }

    /// Has it say and do nothing more, and returns when none of its threads runs. (Elsewhere than on Linux that is not seen.)
    #[cfg(unix)]
    pub fn freeze(&self) {
        self.signal("STOP");
        let threads = Path::new("/proc").join(self.process()).join("task");
        let has_stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|after_name| after_name.starts_with('T'))
        };
        wait_until("all threads have stopped", || {
            fs::read_dir(&threads).into_iter().flatten().flatten().all(has_stopped)
        });
    }

    #[cfg(unix)]
    fn process(&self) -> String {
        self.process.as_ref().unwrap().id().to_string()
    }

    /// Says whole lines of the protocol itself, as other clients may, and returns when the server has heard them.
    pub fn say(&self, words: &str) {
        self.say_bytes(words.as_bytes());
    }

    /// The same in bytes, which need not be text.
    pub fn say_bytes(&self, words: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").unwrap();
        stream.write_all(words).unwrap();
        stream.write_all(b"PING\r\n").unwrap();
        let mut answers = BufReader::new(stream).lines();
        assert!(answers.any(|line| line.unwrap() == "PONG"), "the server has hung up");
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, on the same port and with what it has stored.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is running");
        assert!(self.launch().unwrap(), "{}", fs::read_to_string(self.folder.join("log")).unwrap());
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn builder(&self) -> ConnectionBuilder {
        Connection::builder(self.url())
    }

    pub fn connect(&self, pool: &WorkerPool) -> Connection {
        self.builder().connect(pool).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "the server's log:\n{log}");
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn pool(workers: usize) -> WorkerPool {
    let built: Result<_, BuildError> = WorkerPool::builder().workers(workers).build();
    built.unwrap()
}

pub fn queue(connection: &Connection) -> JobQueue {
    JobQueue::builder(connection, "JOBS").subject("jobs.>").open().unwrap()
}

/// Drains a worker at the end, also if the test panics: a scope would wait for the run forever, and hide why.
pub struct DrainAtEnd<'a, E>(pub &'a Worker<E>);

impl<E> Drop for DrainAtEnd<'_, E> {
    fn drop(&mut self) {
        self.0.drain();
    }
}

/// Runs a worker until `is_done`, then drains it.
pub fn work_until<E: Display + Send + 'static>(
    worker: &Worker<E>,
    pool: &WorkerPool,
    handler: impl Fn(&Job) -> Result<(), E> + Send + Sync + 'static,
    is_done: impl FnMut() -> bool,
) {
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(pool, handler).unwrap());
        let _drained = DrainAtEnd(worker);
        wait_until("the work", is_done);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
}

/// The argument that an error names, wherever it is.
pub fn invalid<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a InvalidArgument> {
    let direct = error.downcast_ref::<InvalidArgument>();
    let of_publish = match error.downcast_ref() {
        Some(PublishError::Invalid(invalid)) => Some(invalid),
        _ => None,
    };
    let of_enqueue = match error.downcast_ref() {
        Some(EnqueueError::Invalid(invalid)) => Some(invalid),
        _ => None,
    };
    let of_queue = match error.downcast_ref() {
        Some(QueueError::Invalid(invalid)) => Some(invalid),
        _ => None,
    };
    let of_worker = match error.downcast_ref() {
        Some(WorkerError::Invalid(invalid)) => Some(invalid),
        _ => None,
    };
    let of_connect = match error.downcast_ref() {
        Some(ConnectError::Invalid(invalid)) => Some(invalid),
        _ => None,
    };
    direct.or(of_publish).or(of_enqueue).or(of_queue).or(of_worker).or(of_connect)
}

/// Checks that an argument was refused, and by which name.
#[track_caller]
pub fn is_refused<T, E: Error + 'static>(what: &str, text: &str, field: &str, result: Result<T, E>) {
    let shown: String = text.chars().take(20).collect();
    match result {
        Ok(_) => panic!("{what} took {shown:?}"),
        Err(error) => {
            let named = invalid(&error).unwrap_or_else(|| panic!("{what} of {shown:?}: {error:?}"));
            assert_eq!(named.field(), field, "{what} of {shown:?}: {error}");
            assert!(error.to_string().contains(field), "{what} of {shown:?}: {error}");
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A number that the server tells of a consumer: `num_ack_pending`, `num_pending`, `num_redelivered`.
pub fn consumer_figure(connection: &Connection, consumer: &str, name: &str) -> Option<u64> {
    let answer = connection.request(&format!("$JS.API.CONSUMER.INFO.JOBS.{consumer}"), "").ok()?;
    figure(answer.text()?, name)
}

/// A number in JSON.
pub fn figure(json: &str, name: &str) -> Option<u64> {
    let (_, after) = json.split_once(&format!("\"{name}\":"))?;
    let digits: String = after.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
