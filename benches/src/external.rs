//! Pools in other languages, each in a process that starts once and sleeps between its samples.
//!
//! `peers/README.md` describes the protocol between the processes. A toolchain that is not
//! installed is reported, and is not an error.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use crate::candidate::{Candidate, Kind, Sample};
use crate::error::Error;

/// How a peer is built and started.
struct Source {
    language: &'static str,
    /// Builds the source in the first directory into the second one.
    build: fn(&Path, &Path) -> Command,
    /// Starts the program in the directory.
    start: fn(&Path) -> Command,
}

const SOURCES: [Source; 3] = [
    Source {
        language: "go",
        build: |source, target| {
            let mut build = Command::new("go");
            // A file without dependencies needs no module.
            build.env("GO111MODULE", "off").args(["build", "-o"]).arg(target.join("peer")).arg(source.join("main.go"));
            build
        },
        start: |target| Command::new(target.join("peer")),
    },
    Source {
        language: "java",
        build: |source, target| {
            let mut build = Command::new("javac");
            build.arg("-d").arg(target).arg(source.join("Peer.java"));
            build
        },
        start: |target| {
            let mut start = Command::new("java");
            start.arg("-cp").arg(target).arg("Peer");
            start
        },
    },
    Source {
        language: "cpp",
        build: |source, target| {
            let mut build = Command::new("g++");
            build.args(["-O2", "-std=c++17", "-o"]).arg(target.join("peer")).arg(source.join("peer.cpp")).arg("-ltbb");
            build
        },
        start: |target| Command::new(target.join("peer")),
    },
];

/// Names the languages whose peers are built, for the processes that start them.
const BUILT_VARIABLE: &str = "BENCH_PEERS";

/// Builds all peers. Returns the name and the value of a variable for the processes that start
/// them. Calls `on_absent` with each peer that does not build, and the reason.
pub(crate) fn build(mut on_absent: impl FnMut(String)) -> (&'static str, String) {
    let mut built = Vec::new();
    for Source { language, build, .. } in SOURCES {
        let target = target(language);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(language);
        let outcome = fs::create_dir_all(&target).and_then(|()| build(&source, &target).output());
        match outcome {
            Ok(output) if output.status.success() => built.push(language),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                on_absent(format!("{language}, which does not build: {}", text.lines().next().unwrap_or("")));
            }
            Err(error) => on_absent(format!("{language}, whose compiler does not start: {error}")),
        }
    }
    (BUILT_VARIABLE, built.join(","))
}

fn target(language: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers").join(language)
}

/// The peers that this process has started.
pub(crate) struct Peers(Vec<Peer>);

/// A program with candidates in another language.
struct Peer {
    version: String,
    /// Workloads and candidates.
    offers: Vec<(String, String)>,
    process: Rc<RefCell<Process>>,
}

impl Peers {
    /// Starts the peers that are built.
    ///
    /// # Errors
    ///
    /// Returns an error if a peer does not start, or does not follow the protocol.
    pub(crate) fn start() -> Result<Self, Error> {
        let built = env::var(BUILT_VARIABLE).unwrap_or_default();
        let sources = SOURCES.iter().filter(|source| built.split(',').any(|language| language == source.language));
        sources.map(Peer::start).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|peer| &*peer.version)
    }

    /// Returns the candidates of a workload.
    pub(crate) fn candidates(&self, workload: &'static str, workers: usize) -> Vec<Candidate> {
        let of_peer = |peer: &Peer| {
            let offers = peer.offers.iter().filter(|(offered, _)| offered == workload);
            offers.map(|(_, name)| peer.candidate(workload, name, workers)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_peer).collect()
    }
}

impl Peer {
    fn start(source: &Source) -> Result<Self, Error> {
        let mut process = Process::start(source)?;
        let (mut version, mut offers) = (String::new(), Vec::new());
        loop {
            let line = process.read()?;
            match *line.split('\t').collect::<Vec<_>>() {
                ["version", text] => text.clone_into(&mut version),
                ["offers", workload, candidate] => offers.push((workload.to_owned(), candidate.to_owned())),
                ["ready"] => break,
                _ => return Err(Error::Line(line)),
            }
        }
        Ok(Self { version, offers, process: Rc::new(RefCell::new(process)) })
    }

    fn candidate(&self, workload: &'static str, name: &str, workers: usize) -> Candidate {
        let order = format!("{workload}\t{name}\t{workers}\n");
        let process = Rc::clone(&self.process);
        let id = process.borrow().child.id();
        let run = move || process.borrow_mut().take_sample(&order);
        Candidate { name: name.to_owned(), kind: Kind::External, run: Box::new(run), process: Some(id) }
    }
}

/// The process of a peer. Dropping it closes the input of the process and waits until it ends.
struct Process {
    language: &'static str,
    child: Child,
    /// `None` while this is dropped.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(source: &Source) -> Result<Self, Error> {
        let mut command = (source.start)(&target(source.language));
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let failed = |reason: String| Error::Process { name: source.language.to_owned(), reason };
        let mut child = spawned.map_err(|error| failed(error.to_string()))?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
        Ok(Self { language: source.language, child, orders, answers: BufReader::new(answers) })
    }

    fn read(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(self.failed(&"it has ended")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn take_sample(&mut self, order: &str) -> Result<Sample, Error> {
        let orders = self.orders.as_mut().expect("it is there until this is dropped");
        orders.write_all(order.as_bytes()).map_err(|error| self.failed(&error))?;
        let answer = self.read()?;
        parse(&answer).ok_or(Error::Line(answer))
    }

    fn failed(&self, reason: &impl ToString) -> Error {
        Error::Process { name: self.language.to_owned(), reason: reason.to_string() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.child.wait() {
            eprintln!("{}", self.failed(&error));
        }
    }
}

fn parse(answer: &str) -> Option<Sample> {
    let mut fields = answer.split('\t');
    let jobs = fields.next()?.parse().ok()?;
    let ran = fields.next()?.split(',').filter_map(|field| field.parse().ok()).collect();
    let nanoseconds: Vec<f64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    (!nanoseconds.is_empty()).then_some(Sample { jobs, nanoseconds, ran })
}
