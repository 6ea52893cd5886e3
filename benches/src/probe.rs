//! Counts that need a process of their own: this program, started with a name and a number of
//! operations. It prints its count.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Output};

use crate::error::Error;

/// The option that makes this program a probe.
pub(crate) const OPTION: &str = "--probe";

/// A count that needs a process of its own: its name, and the function that counts.
pub(crate) type Probe = (&'static str, fn(usize) -> u64);

/// Runs one of `probes` and prints its count.
///
/// # Errors
///
/// Returns an error if there is no such probe, or `times` is not a number.
pub(crate) fn answer(probes: &[Probe], name: &str, times: &str) -> Result<(), Error> {
    let probe = probes.iter().find(|(known, _)| *known == name);
    let (Some((_, count)), Ok(times)) = (probe, times.parse()) else {
        return Err(Error::Line(format!("{OPTION} {name} {times}")));
    };
    println!("{}", count(times));
    Ok(())
}

/// Starts the process through `before`: a program that starts programs, and its arguments.
///
/// # Errors
///
/// Returns an error if it cannot be started, or fails.
pub(crate) fn ask(before: &[&str], name: &str, times: usize) -> Result<Output, Error> {
    let failed =
        |reason: String| Error::Process { name: before.first().unwrap_or(&"this program").to_string(), reason };
    let program = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let words: Vec<&OsStr> = before.iter().map(OsStr::new).chain([program.as_os_str()]).collect();
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).args([OPTION, name, &times.to_string()]).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(output)
    } else {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(failed(format!("{}; {}", output.status, text.lines().last().unwrap_or(""))))
    }
}

/// Starts the process and returns the number that it prints.
///
/// # Errors
///
/// As [`ask`], and if it does not print a number.
pub(crate) fn ask_number(before: &[&str], name: &str, times: usize) -> Result<f64, Error> {
    let output = ask(before, name, times)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(|_| Error::Line(text))
}
