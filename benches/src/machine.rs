//! The machine, the date and the versions that the figures were measured with.

use std::env;
use std::fs;
use std::process::Command;
use std::thread;

use crate::pools::QUEUE_CAPACITY;

/// Crates that take part, by their names in the lock file.
const CRATES: [&str; 8] =
    ["affinitypool", "crossbeam-channel", "futures-executor", "rayon", "rusty_pool", "threadpool", "tokio", "workcrew"];
const LOCK: &str = include_str!("../../Cargo.lock");

/// Returns one line for each fact.
pub(crate) fn facts(workers: usize, external: &[String]) -> Vec<String> {
    let cpus = thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cpus| cpus.to_string());
    let mut versions: Vec<String> = CRATES.into_iter().filter_map(version).collect();
    versions.extend(external.iter().cloned());
    let command: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    vec![
        format!("Machine: {}, CPUs this process may use: {cpus}, Linux {}", processor(), kernel()),
        format!("Date: {}; {}", output("date", &["-u", "+%Y-%m-%d"]), output("rustc", &["--version"])),
        format!("Workers of each pool: {workers}; queues with a bound: {QUEUE_CAPACITY}"),
        format!("Versions: {}", versions.join(", ")),
        format!("Command: cargo bench --bench compare -- {}", command.join(" ")),
    ]
}

fn version(name: &str) -> Option<String> {
    let (_, package) = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(format!("{name} {}", package.split('"').next()?))
}

fn processor() -> String {
    let facts = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = facts.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    name.map_or_else(|| "an unknown processor".to_owned(), |name| name.trim().to_owned())
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| format!("{program} unknown"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
