//! What a process has used up, all its threads together: CPU time and context switches.

use std::fs;
use std::io;
use std::ops::Sub;

/// Read from `/proc` as Linux has it. Not a number where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// The voluntary and the enforced ones, of the threads that are alive.
    pub(crate) switches: f64,
}

impl Usage {
    /// Of this process, or of another one.
    pub(crate) fn now(process: Option<u32>) -> Self {
        let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
        Self {
            cpu_seconds: cpu_ticks(&process).map_or(f64::NAN, |ticks| ticks as f64 / 100.0),
            switches: switches(&process).map_or(f64::NAN, |switches| switches as f64),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            switches: (self.switches - earlier.switches).max(0.0),
        }
    }
}

/// The fields `utime` and `stime` of proc(5), which Linux counts in hundredths of a second on all usual systems.
pub(crate) fn cpu_ticks(process: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program comes before, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum()
}

fn switches(process: &str) -> io::Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        switches += counted(&status, "voluntary_ctxt_switches") + counted(&status, "nonvoluntary_ctxt_switches");
    }
    Ok(switches)
}

/// What a thread's status says under this name.
pub(crate) fn counted(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
