//! Runs steps, keeps their output, finds their figures.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How much of each level runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A minute or so of each level.
    Slice,
    /// All of it.
    Full,
}

const PASSED: &str = "passed";
const FAILED: &str = "FAILED";
const SKIPPED: &str = "SKIPPED";

/// A line of the report.
struct Line {
    level: &'static str,
    step: String,
    /// How the step ended.
    end: &'static str,
    /// The figures of the step, or the reason why it was skipped.
    words: String,
    seconds: f64,
}

/// A run of some levels, and its report.
pub(crate) struct Run {
    pub(crate) size: Size,
    level: &'static str,
    lines: Vec<Line>,
    since: Instant,
}

/// The folder for the output of the steps.
const FOLDER: &str = "target/verify";
/// How many lines of a failed step are shown.
const TAIL: usize = 40;
/// The time limit of a step.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

impl Run {
    pub(crate) fn new(size: Size) -> Self {
        Self { size, level: "", lines: Vec::new(), since: Instant::now() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.size == Size::Full
    }

    /// Begins a level.
    pub(crate) fn enter(&mut self, level: &'static str, title: &str) {
        self.level = level;
        println!("\n== {level} {title}");
    }

    /// Runs one command; returns whether it succeeded.
    pub(crate) fn step(&mut self, step: &str, command: &mut Command) -> bool {
        self.step_that_exits(step, command, &[0])
    }

    /// Runs one command; returns whether it ended with one of these codes.
    pub(crate) fn step_that_exits(&mut self, step: &str, command: &mut Command, codes: &[i32]) -> bool {
        println!("-- {step}: {}", shown(command));
        let since = Instant::now();
        let path = self.output_of(step);
        let passed = execute(command, &path).is_some_and(|code| codes.contains(&code));
        let output = fs::read_to_string(&path).unwrap_or_default();
        let (end, words) = if passed {
            (PASSED, figures(&output))
        } else {
            let lines: Vec<_> = output.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
            (FAILED, format!("see {}", path.display()))
        };
        self.note(step, end, words, since.elapsed().as_secs_f64());
        passed
    }

    /// Records the result of a step that is not a command.
    pub(crate) fn check(&mut self, step: &str, outcome: Result<String, String>) {
        let (end, words) = match outcome {
            Ok(words) => (PASSED, words),
            Err(words) => (FAILED, words),
        };
        self.note(step, end, words, 0.0);
    }

    /// Returns whether the program works on this machine. If not, records the step as skipped.
    pub(crate) fn has(&mut self, step: &str, program: &str, arguments: &[&str]) -> bool {
        let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let here = quiet.is_ok_and(|status| status.success());
        if !here {
            let reason = format!("`{program} {}` does not work here", arguments.join(" "));
            self.note(step, SKIPPED, reason, 0.0);
        }
        here
    }

    /// Prints the report.
    pub(crate) fn report(&self) -> ExitCode {
        let minutes = self.since.elapsed().as_secs_f64() / 60.0;
        println!("\n== report, after {minutes:.1} minutes");
        for Line { level, step, end, words, seconds } in &self.lines {
            println!("{level:4} {end:7} {seconds:7.1} s  {step}: {words}");
        }
        let count = |end| self.lines.iter().filter(|line| line.end == end).count();
        let [passed, failed, skipped] = [PASSED, FAILED, SKIPPED].map(count);
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn note(&mut self, step: &str, end: &'static str, words: String, seconds: f64) {
        println!("   {end}: {words} ({seconds:.1} s)");
        self.lines.push(Line { level: self.level, step: step.to_owned(), end, words, seconds });
    }

    fn output_of(&self, step: &str) -> PathBuf {
        let name: String = step.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        PathBuf::from(FOLDER).join(format!("{}-{name}.log", self.level))
    }
}

/// Returns a cargo command with these arguments.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // These variables describe this program, not the commands that it starts.
    command.args(arguments).env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO");
    command
}

/// Runs the command in a process group of its own, with its output in a file. Kills the group at
/// the time limit. Returns the exit code, if there is one.
fn execute(command: &mut Command, output: &PathBuf) -> Option<i32> {
    let opened = fs::create_dir_all(FOLDER).and_then(|()| File::create(output));
    let Ok((file, copy)) = opened.and_then(|file| file.try_clone().map(|copy| (file, copy))) else { return None };
    let started = command.stdin(Stdio::null()).stdout(file).stderr(copy).process_group(0).spawn();
    let Ok(mut child) = started else {
        let _ = fs::write(output, format!("{} cannot be started", shown(command)));
        return None;
    };
    let since = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.code(),
            Ok(None) if since.elapsed() < LIMIT => thread::sleep(Duration::from_millis(100)),
            _ => {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// Returns the command as a user would type it.
fn shown(command: &Command) -> String {
    let environment = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy();
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value)))
    });
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    environment.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    if word.contains([' ', '*', ';']) { format!("'{word}'") } else { word.to_owned() }
}

/// Texts that mark a line with figures: of the stress test, histories, programs from a seed, the
/// fuzzer, mutants, memcheck, models and seeded bugs.
const FIGURES: &[&str] = &[
    "lifecycles, ",
    "histories, ",
    "programs in ",
    " runs in ",
    "mutants tested",
    "ERROR SUMMARY: ",
    " runs of models: ",
    " seeded bugs found, in ",
];

/// Returns the figures in the output.
fn figures(output: &str) -> String {
    let mut tests = 0;
    let mut found = Vec::new();
    for line in output.lines() {
        if let Some(rest) = line.split("test result: ok. ").nth(1) {
            tests += rest.split(' ').next().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
        }
        // The summary of the coverage: regions, functions, lines, each with a count, the missed
        // ones and a share.
        if let Some(rest) = line.strip_prefix("TOTAL ")
            && let Some(lines) = rest.split_whitespace().nth(8)
        {
            found.push(format!("{lines} of the lines"));
        }
        if FIGURES.iter().any(|words| line.contains(words)) {
            found.push(line.rsplit("... ").next().unwrap_or(line).trim().to_owned());
        }
    }
    if tests > 0 {
        found.insert(0, format!("{tests} tests"));
    }
    if found.is_empty() { "done".to_owned() } else { found.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_all_binaries_are_added() {
        let output = "test result: ok. 3 passed; 0 failed\nother words\ntest result: ok. 4 passed; 0 failed\n";
        assert_eq!(figures(output), "7 tests");
        assert_eq!(figures("other words"), "done");
    }

    #[test]
    fn models_and_seeded_bugs_are_figures() {
        let models = "129 runs of models: 647443 executions by loom, 206000 schedules by shuttle, 0 failed";
        assert_eq!(figures(&format!("loom  task: 5 executions\n{models}\n")), models);
        let bugs = "21 of 21 seeded bugs found, in 180 s";
        assert_eq!(figures(&format!("found     01-lost-wake-up by push_and_pop\n{bugs}\n")), bugs);
    }

    #[test]
    fn the_words_of_the_harness_before_a_figure_are_cut_off() {
        let output = "test lives ... 12 lifecycles, 0 failures\ntest result: ok. 1 passed; 0 failed\n";
        assert_eq!(figures(output), "1 tests; 12 lifecycles, 0 failures");
    }
}
