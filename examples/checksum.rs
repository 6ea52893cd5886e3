//! SHA-256 checksums of every regular file below some directories, printed exactly as `sha256sum` prints them:
//! `cargo run --release --example checksum -- [-k] [--workers N] [PATH ...]`
//!
//! The main thread finds the files and prints the lines. In between, `WorkerPool::map` hashes on the workers, in the
//! order of the files and at most [`WINDOW`] files ahead of the printer, so memory does not grow with the tree. One
//! token stops everything: the first file that cannot be read cancels it, and so does Ctrl-C. Begin with `run`.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{process, slice, time::Duration};

use anyhow::{Context, Result, anyhow};
use lexopt::prelude::*;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;
use workcrew::{CancellationToken, WorkerPool, WorkerPoolBuilder};

const USAGE: &str = "\
Usage: checksum [OPTION ...] [PATH ...]
Prints the SHA-256 checksum of each regular file below each PATH (default: `.`) as `sha256sum` does. Symbolic links
are not followed. The first file that cannot be read stops the rest.
  -k, --keep-going   report files that cannot be read, and continue
      --workers N    hash N files at a time (default: one for each CPU)
  -h, --help         print this help
Exit status: 0 if all went well, 1 after an error, 2 for a wrong usage, 130 after Ctrl-C.
";
const WINDOW: usize = 4096; // files that wait, are hashed, or are done and wait for a huge one in front of them
const BLOCK: usize = 64 * 1024; // bytes of a file between two checks of the token
static HASHED: AtomicU64 = AtomicU64::new(0); // files, for the progress and the last message

fn main() -> process::ExitCode {
    let (status, message) = run().unwrap_or_else(|error| (2, format!("{error:#} (see --help)")));
    say(&message);
    status.into()
}

/// Hashes and prints everything. Returns the exit status and the last message. Fails only if the work cannot begin.
fn run() -> Result<(u8, String)> {
    let (builder, roots, keep_going) = parse()?;
    let pool = builder.thread_name("checksum").build()?;
    let interrupt = CancellationToken::new(); // cancelled by Ctrl-C, and its child `stop` by an error as well
    let (stop, handler) = (interrupt.child_token(), interrupt.clone());
    // The second Ctrl-C is for a read or a write that is stuck.
    ctrlc::set_handler(move || if handler.is_cancelled() { process::exit(130) } else { handler.cancel() })?;
    let hashed = || plural(HASHED.load(Relaxed), "file");
    if io::stderr().is_terminal() && !io::stdout().is_terminal() {
        pool.execute_every(Duration::from_millis(100), move || eprint!("\r{} hashed", hashed()))?;
    }

    // A lazy chain: nothing is found, hashed or kept before the loop below asks for a line.
    let files = roots.iter().flat_map(|root| regular_files(root)).take_while(|_| !stop.is_cancelled());
    let (task_stop, on_error) = (stop.clone(), if keep_going { CancellationToken::new() } else { stop.clone() });
    let lines = pool.map(files, move |file: Result<PathBuf>| {
        let line = file.and_then(|path| checksum(&path, &task_stop).with_context(|| path.display().to_string()));
        line.inspect_err(|_| on_error.cancel())
    });
    let mut lines = lines.window(WINDOW).map(|line| line?); // the panic of a task becomes an error like others
    let (mut listed, mut errors) = (0_u64, 0);
    let error = loop {
        match lines.next() {
            Some(Ok(Some(line))) => match io::stdout().write_all(&line).context("standard output") {
                Ok(()) => listed += 1,
                Err(error) => break Some(error),
            },
            Some(Err(error)) if keep_going => {
                say(&format!("{error:#}"));
                errors += 1;
            }
            Some(Err(error)) => break Some(error),
            Some(Ok(None)) | None => break lines.find_map(Result::err), // stopped by a file further on, or at the end
        }
    };
    stop.cancel(); // if the output is closed, no more hashes are needed
    let is_closed = |error: &anyhow::Error| error.downcast_ref().map(io::Error::kind) == Some(ErrorKind::BrokenPipe);
    Ok(match error {
        _ if interrupt.is_cancelled() => (130, format!("interrupted: {} hashed, {listed} of them listed", hashed())),
        Some(error) if is_closed(&error) => (0, String::new()), // the reader of the output has seen enough
        Some(error) => (1, format!("{error:#}\nchecksum: stopped: {} hashed, {listed} of them listed", hashed())),
        None if errors > 0 => (1, format!("{}, {} hashed", plural(errors, "error"), hashed())),
        None => (0, String::new()),
    })
}

/// Reads the command line: the settings of the pool, the roots, and whether errors of files do not stop the rest.
fn parse() -> Result<(WorkerPoolBuilder, Vec<PathBuf>, bool)> {
    let (mut builder, mut roots, mut keep_going) = (WorkerPool::builder(), Vec::new(), false);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('k') | Long("keep-going") => keep_going = true,
            Long("workers") => builder = builder.workers(arguments.value()?.parse().context("--workers")?),
            Short('h') | Long("help") => process::exit(io::stdout().write_all(USAGE.as_bytes()).map_or(0, |()| 0)),
            Value(path) => roots.push(PathBuf::from(path)),
            unknown => return Err(unknown.unexpected().into()),
        }
    }
    Ok((builder, if roots.is_empty() { vec![".".into()] } else { roots }, keep_going))
}

/// The regular files below `root`, or `root` itself, in a stable order. What cannot be listed is an error in its place.
fn regular_files(root: &Path) -> impl Iterator<Item = Result<PathBuf>> {
    let entries = WalkDir::new(root).follow_root_links(false).sort_by_file_name();
    entries.into_iter().filter_map(move |entry| match entry {
        Ok(entry) => entry.file_type().is_file().then(|| Ok(entry.into_path())),
        // Without an I/O error it is a loop of links, and links are not followed.
        Err(error) => Some(Err(anyhow!("{}: {}", error.path().unwrap_or(root).display(), error.io_error()?))),
    })
}

/// The task: returns the line of a file, or `None` if all was stopped before its end.
fn checksum(path: &Path, stop: &CancellationToken) -> io::Result<Option<Vec<u8>>> {
    let (file, mut hash, mut block) = (File::open(path)?, Sha256::new(), Vec::with_capacity(BLOCK));
    while !stop.is_cancelled() {
        block.clear();
        if (&file).take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            HASHED.fetch_add(1, Relaxed);
            return Ok(Some(format_line(&format!("{:x}", hash.finalize()), path)));
        }
        hash.update(&block);
    }
    Ok(None)
}

/// A line as `sha256sum` prints it: if something of the name is escaped, a backslash in front of the line says so.
fn format_line(digest: &str, path: &Path) -> Vec<u8> {
    let name = path.as_os_str().as_encoded_bytes();
    let escaped = name.iter().flat_map(|byte| match byte {
        b'\\' => br"\\",
        b'\n' => br"\n",
        b'\r' => br"\r",
        plain => slice::from_ref(plain),
    });
    let escaped: Vec<u8> = escaped.copied().collect();
    let mark: &[u8] = if escaped.len() > name.len() { b"\\" } else { b"" };
    [mark, digest.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

/// Writes a message to standard error, in the place of the progress.
fn say(message: &str) {
    let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    let line = if message.is_empty() { String::new() } else { format!("checksum: {message}\n") };
    let _ = write!(io::stderr(), "{clear}{line}");
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
