//! What a process has used up, all its threads together: CPU time and context switches.

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

/// As Linux has it. Not a number elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// The voluntary and the enforced ones, of the threads that are alive.
    pub(crate) switches: f64,
}

impl Usage {
    /// Of this process, or of another one.
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

/// To the nanosecond, those threads included that have ended.
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
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        switches += status::counted(&status, "voluntary_ctxt_switches")
            + status::counted(&status, "nonvoluntary_ctxt_switches");
    }
    Ok(switches)
}
