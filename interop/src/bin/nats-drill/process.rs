//! Child processes, none of which outlives the drill.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The ids of the children that run.
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn children<T>(f: impl FnOnce(&mut Vec<u32>) -> T) -> T {
    f(&mut CHILDREN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A child that is killed when it is dropped, and by [`kill_all`].
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        children(|all| all.push(child.id()));
        Ok(Self(child))
    }

    /// Sends a signal, by the name that `kill -s` takes.
    pub(crate) fn send(&self, signal: &str) -> io::Result<()> {
        send(signal, self.0.id())
    }

    /// Kills it and returns its status, which tells whether it had ended before.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.0.wait()?;
        children(|all| all.retain(|id| *id != self.0.id()));
        Ok(status)
    }

    /// Returns the status if it has ended, or ends within this time.
    pub(crate) fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let since = Instant::now();
        while self.0.try_wait()?.is_none() {
            if since.elapsed() >= limit {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.wait().map(Some)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn send(signal: &str, process: u32) -> io::Result<()> {
    let mut command = Command::new("kill");
    // A process that has just ended is no error.
    command.args(["-s", signal, &process.to_string()]).stderr(Stdio::null()).status().map(drop)
}

/// Kills every child, so that the drill can exit without dropping anything.
pub(crate) fn kill_all() {
    for child in children(std::mem::take) {
        let _ = send("KILL", child);
    }
}
