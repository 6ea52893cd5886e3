//! The CPU time and the context switches of all threads of a process.

use std::fs;
use std::io;
use std::ops::Sub;
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::time::ClockId;
#[cfg(target_os = "linux")]
use nix::unistd::Pid;

use crate::status;

/// Numbers of Linux. On other systems they are not a number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// Voluntary and involuntary switches of the threads that are alive.
    pub(crate) switches: f64,
}

impl Usage {
    /// Returns the usage of this process, or of another one.
    pub(crate) fn now(process: Option<u32>) -> Self {
        Self {
            cpu_seconds: cpu_seconds(process).unwrap_or(f64::NAN),
            switches: switches(process).map_or(f64::NAN, |switches| switches as f64),
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

/// Returns the CPU time, with that of threads that have ended. Its resolution is a nanosecond.
#[cfg(target_os = "linux")]
fn cpu_seconds(process: Option<u32>) -> Option<f64> {
    let clock = match process {
        None => ClockId::CLOCK_PROCESS_CPUTIME_ID,
        Some(id) => ClockId::pid_cpu_clock_id(Pid::from_raw(id.try_into().ok()?)).ok()?,
    };
    Some(Duration::from(clock.now().ok()?).as_secs_f64())
}

#[cfg(not(target_os = "linux"))]
fn cpu_seconds(_: Option<u32>) -> Option<f64> {
    None
}

fn switches(process: Option<u32>) -> io::Result<u64> {
    let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the two reads.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        switches += status::counted(&status, "voluntary_ctxt_switches")
            + status::counted(&status, "nonvoluntary_ctxt_switches");
    }
    Ok(switches)
}
