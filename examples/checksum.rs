//! SHA-256 checksums of every regular file below some directories, printed exactly as `sha256sum` prints them.
//!
//! ```text
//! cargo run --release --example checksum -- [-k] [--workers N] [PATH ...]
//! ```
//!
//! Three parties, none of which holds more than a fixed number of files:
//!
//! 1. The *walker* (the main thread) finds the files in a stable order. For each it puts a *slot* into a line of at
//!    most [`WINDOW`], then spawns the task that fills the slot. It waits while the line is full, or the group is.
//! 2. The *tasks*, all of one group, hash files on the workers. They never wait.
//! 3. The *printer* (a thread) takes the slots in their order, waits for each to be filled, and prints.
//!
//! A huge file at the front delays the printer, and eventually the walker, but no task in the line.
//! The first task that fails cancels the group. Tasks that have not started are dropped, with their
//! ends of the slots. The printer stops at the first slot whose task was dropped, so its output has
//! no gap. The walker then notices that the printer has ended, and stops too. Only the names of one
//! directory are in memory at once, to be sorted.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{env, slice, thread};

use sha2::{Digest, Sha256};
use walkdir::WalkDir;
use workcrew::{CancellationToken, GroupError, TaskGroup, WorkerPool};

const USAGE: &str = "\
Usage: checksum [OPTION ...] [PATH ...]
Prints the SHA-256 checksum of each regular file below each PATH (unless given, `.`) as `sha256sum` does. Symbolic links
are not followed. The first file that cannot be read stops the rest.
  -k, --keep-going   report what cannot be read and go on
      --workers N    hash N files at a time; unless given, one for each CPU
  -h, --help         print this help
Exit status: 0 if all went well, 1 after an error, 2 for a wrong usage, 130 after Ctrl-C.
";
const WRONG_USAGE: u8 = 2;
const INTERRUPTED: u8 = 130;

/// The most files between the walker and the printer: what they hold is the memory this takes.
const WINDOW: usize = 4096;
/// The most files that wait for a worker; enough that no worker runs dry while the walker is in a slow directory.
const WAITING: usize = 256;
/// How much of a file is read between two looks at the token, and how much output is gathered before it is written.
/// Blocks from 32 to 256 KiB were measured, and do equally well.
const BLOCK: usize = 64 * 1024;
/// How long lines may lie in the buffer, and how often the progress is drawn.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let ended = match Options::parse(env::args_os().skip(1)) {
        Ok(Some(options)) => run(&options),
        Ok(None) => {
            let _ = io::stdout().write_all(USAGE.as_bytes()); // Nothing is lost if the output is closed.
            Ok(ExitCode::SUCCESS)
        }
        Err(message) => Err(format!("{message} (see --help)").into()),
    };
    ended.unwrap_or_else(|error| {
        say(error);
        ExitCode::from(WRONG_USAGE)
    })
}

/// Hashes everything. Fails only if the work could not begin.
fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let builder = WorkerPool::builder().thread_name("checksum");
    let pool = match options.workers {
        Some(workers) => builder.workers(workers).build()?,
        None => builder.build()?,
    };
    let interrupt = CancellationToken::new();
    cancel_on_interrupt(interrupt.clone())?;

    let group = pool.group().capacity(WAITING).parent(&interrupt).label("checksum");
    let token = group.token().clone();
    let hasher = Arc::new(Hasher { token, keep_going: options.keep_going, tally: Tally::default() });
    let (line, slots) = sync_channel(WINDOW);
    let (ended, printed) = thread::scope(|scope| {
        let printer = scope.spawn(|| {
            let printed = Printer::new(&hasher.tally).print(&slots);
            drop(slots); // Tells the walker that the printer has gone.
            if printed.is_err() {
                hasher.token.cancel(); // The output is closed, so no more hashes are needed.
            }
            printed
        });
        walk(&options.roots, &group, &hasher, &line);
        drop(line); // Tells the printer that nothing more comes.
        (group.wait(), printer.join().expect("the printer does not panic"))
    });
    Ok(conclude(interrupt.is_cancelled(), ended, printed, &hasher.tally))
}

/// Lets Ctrl-C cancel the token, and a second one end the process, in case a read or a write is stuck.
fn cancel_on_interrupt(token: CancellationToken) -> Result<(), ctrlc::Error> {
    // The handler has a thread of its own and does not run inside the signal, so it may take locks and call callbacks.
    ctrlc::set_handler(move || {
        if token.is_cancelled() {
            process::exit(INTERRUPTED.into());
        }
        token.cancel();
    })
}

/// Tells on standard error how it ended, unless all went well or the reader of the output has gone.
fn conclude(
    interrupted: bool,
    ended: Result<Vec<()>, GroupError<io::Error>>,
    printed: io::Result<()>,
    tally: &Tally,
) -> ExitCode {
    let [hashed, listed, errors] = [&tally.hashed, &tally.listed, &tally.errors].map(|count| count.load(Relaxed));
    let hashed = plural(hashed, "file");
    match (ended, printed) {
        _ if interrupted => {
            say(format_args!("interrupted: {hashed} hashed, {listed} of them listed"));
            return ExitCode::from(INTERRUPTED);
        }
        (Ok(_) | Err(GroupError::Cancelled(_)), Err(error)) => {
            if error.kind() == ErrorKind::BrokenPipe {
                return ExitCode::SUCCESS; // The reader of the output has seen enough.
            }
            say(format_args!("standard output: {error}"));
        }
        (Err(error), _) => {
            say(error);
            say(format_args!("stopped: {hashed} hashed, {listed} of them listed"));
        }
        (Ok(_), Ok(())) if errors > 0 => say(format_args!("{}, {hashed} hashed", plural(errors, "error"))),
        (Ok(_), Ok(())) => return ExitCode::SUCCESS,
    }
    ExitCode::FAILURE
}

/// Writes a message to standard error. Ignores an error, which could not be reported anyway.
fn say(message: impl Display) {
    let _ = writeln!(io::stderr(), "checksum: {message}");
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What the command line asks for.
#[derive(Default)]
struct Options {
    roots: Vec<PathBuf>,
    keep_going: bool,
    /// `None` means one for each CPU.
    workers: Option<usize>,
}

impl Options {
    /// `None` if help is asked for, a message if there is no sense in the arguments.
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("-k" | "--keep-going") => options.keep_going = true,
                Some("--workers") => {
                    let number = arguments.next().and_then(|number| number.to_str()?.parse().ok());
                    options.workers = Some(number.ok_or("--workers needs a number")?);
                }
                Some("--") => options.roots.extend(arguments.by_ref().map(PathBuf::from)),
                Some(text) if text.starts_with('-') => return Err(format!("unknown option {text}")),
                _ => options.roots.push(argument.into()),
            }
        }
        if options.roots.is_empty() {
            options.roots.push(".".into());
        }
        Ok(Some(options))
    }
}

/// Puts a slot into the line for each file, and spawns the task that fills it, until the printer or the group gives up.
fn walk(
    roots: &[PathBuf],
    group: &TaskGroup<io::Result<()>>,
    hasher: &Arc<Hasher>,
    line: &SyncSender<Receiver<TaskOutcome>>,
) {
    let files = roots.iter().flat_map(|root| regular_files(root));
    group.spawn_all(files.map_while(|file| {
        let (filler, slot) = sync_channel(1);
        line.send(slot).ok()?; // Refused if the printer has gone.
        let hasher = Arc::clone(hasher);
        Some(move || hasher.fill(&filler, file))
    }));
}

/// The regular files below `root`, or `root` itself; and, each in its place, what could not be listed.
fn regular_files(root: &Path) -> impl Iterator<Item = io::Result<PathBuf>> {
    let entries = WalkDir::new(root).follow_root_links(false).sort_by_file_name();
    entries.into_iter().filter_map(move |entry| match entry {
        Ok(entry) => entry.file_type().is_file().then(|| Ok(entry.into_path())),
        Err(error) => {
            let path = error.path().unwrap_or(root).to_path_buf();
            Some(Err(unreadable(&path, &error.into_io_error().unwrap_or_else(|| io::Error::other("a loop")))))
        }
    })
}

/// The error with the path in front.
fn unreadable(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What a slot is filled with: the line of a file, or why there is none.
type TaskOutcome = io::Result<Vec<u8>>;

/// What has been done so far. Statistics: each counter stands alone.
#[derive(Default)]
struct Tally {
    hashed: AtomicU64,
    bytes: AtomicU64,
    /// Files whose line was printed.
    listed: AtomicU64,
    /// Errors that were reported and did not stop the rest.
    errors: AtomicU64,
}

thread_local! {
    /// What a worker reads into. Workers live as long as the pool, so it is allocated once for each of them; once for
    /// each task would slow small files down.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BLOCK]);
}

/// What the tasks share.
struct Hasher {
    /// The token of their group.
    token: CancellationToken,
    /// Whether a file that cannot be read fills its slot like any other, or fails the group.
    keep_going: bool,
    tally: Tally,
}

impl Hasher {
    /// The task: hashes one file and fills its slot. If it fails or is cancelled, the slot stays
    /// empty.
    fn fill(&self, filler: &SyncSender<TaskOutcome>, file: io::Result<PathBuf>) -> io::Result<()> {
        let outcome = file.and_then(|path| self.checksum(&path).map_err(|error| unreadable(&path, &error)));
        let outcome = if self.keep_going { outcome } else { Ok(outcome?) };
        if let Some(outcome) = outcome.transpose() {
            let _ = filler.send(outcome); // Refused if the printer has ended, which needs no outcome.
        }
        Ok(())
    }

    /// The line of a file; `None` if the group was cancelled meanwhile.
    fn checksum(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        BUFFER.with_borrow_mut(|buffer| {
            while !self.token.is_cancelled() {
                match file.read(buffer) {
                    Ok(0) => {
                        self.tally.hashed.fetch_add(1, Relaxed);
                        return Ok(Some(format_line(&format!("{:x}", hash.finalize()), path)));
                    }
                    Ok(length) => {
                        hash.update(&buffer[..length]);
                        self.tally.bytes.fetch_add(length as u64, Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
    }
}

/// A line as `sha256sum` prints it: if something of the name is escaped, a backslash in front of the line says so.
fn format_line(digest: &str, path: &Path) -> Vec<u8> {
    let name = path.as_os_str().as_encoded_bytes();
    let escaped: Vec<u8> = name.iter().flat_map(escape).copied().collect();
    let mark = if escaped.len() > name.len() { "\\" } else { "" };
    [mark.as_bytes(), digest.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

fn escape(byte: &u8) -> &[u8] {
    match byte {
        b'\\' => b"\\\\",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        plain => slice::from_ref(plain),
    }
}

/// Prints outcomes in the order of their slots, and the progress. While it runs, no other thread
/// writes to the terminal.
struct Printer<'a> {
    tally: &'a Tally,
    /// Whole lines that are still to be written; at most a block and one line.
    lines: Vec<u8>,
    started: Instant,
    last_tick: Instant,
    /// The length of the progress that is on the terminal now.
    shown: usize,
}

impl<'a> Printer<'a> {
    fn new(tally: &'a Tally) -> Self {
        let now = Instant::now();
        Self { tally, lines: Vec::with_capacity(BLOCK), started: now, last_tick: now, shown: 0 }
    }

    /// Prints until there are no more slots, or one will never be filled. Fails if standard output does.
    fn print(mut self, slots: &Receiver<Receiver<TaskOutcome>>) -> io::Result<()> {
        while let Some(slot) = self.next(slots)? {
            match self.next(&slot)? {
                Some(Ok(line)) => {
                    self.lines.extend(line);
                    self.tally.listed.fetch_add(1, Relaxed);
                }
                Some(Err(error)) => {
                    self.flush()?;
                    say(error);
                    self.tally.errors.fetch_add(1, Relaxed);
                }
                None => break,
            }
            if self.lines.len() >= BLOCK {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// Waits for the next item, ticking meanwhile; `None` if there will be none.
    fn next<T>(&mut self, source: &Receiver<T>) -> io::Result<Option<T>> {
        loop {
            if self.last_tick.elapsed() >= TICK {
                self.flush()?;
                self.draw_progress();
                self.last_tick = Instant::now();
            }
            match source.recv_timeout(TICK) {
                Ok(item) => return Ok(Some(item)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Writes what is in the buffer. The progress makes way, since standard output may be the same terminal.
    fn flush(&mut self) -> io::Result<()> {
        if self.shown > 0 {
            let _ = write!(io::stderr(), "\r{:width$}\r", "", width = self.shown);
            self.shown = 0;
        }
        io::stdout().write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }

    fn draw_progress(&mut self) {
        if io::stderr().is_terminal() {
            let mebibytes = self.tally.bytes.load(Relaxed) as f64 / f64::from(1 << 20);
            let rate = mebibytes / self.started.elapsed().as_secs_f64();
            let files = plural(self.tally.hashed.load(Relaxed), "file");
            let progress = format!("{files}, {mebibytes:.1} MiB, {rate:.1} MiB/s");
            let _ = write!(io::stderr(), "{progress}");
            self.shown = progress.len();
        }
    }
}
