//! Mutants: which tests run against which files, and which mutants are known to survive.
//!
//! Every test against every mutant would take a day, so there are two rounds. The first runs the
//! tests of the mutated files. The second runs all tests against the mutants that survived the
//! first. A mutant with which the tests do not end counts as caught.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::run::{Run, cargo};

/// Files that are mutated together, and the test binaries that cover them.
struct MutantGroup {
    name: &'static str,
    files: &'static [&'static str],
    tests: &'static [&'static str],
}

/// All groups; a slice runs the last one only.
const GROUPS: &[MutantGroup] = &[
    MutantGroup {
        name: "group",
        files: &["src/group/*.rs", "src/pool/group_registry.rs", "src/sync/adaptive_spin.rs"],
        tests: &["groups", "room", "scopes"],
    },
    MutantGroup { name: "task", files: &["src/task/cell.rs", "src/task/handle.rs"], tests: &["handles", "scopes"] },
    MutantGroup { name: "queue", files: &["src/queue/*.rs"], tests: &["submit", "futures", "groups", "room"] },
    MutantGroup { name: "timer", files: &["src/timer/*.rs", "src/pool/timers.rs"], tests: &["timers"] },
    MutantGroup { name: "tracker", files: &["src/task/tracker.rs"], tests: &["shutdown", "submit"] },
];

const FOLDER: &str = "target/verify/mutants";
/// The mutants that are known to survive, one a line, each under its reason.
const SURVIVORS: &str = "verify/survivors.txt";
/// The exit codes of a complete run: all were caught, some survived, some ran out of time.
const DONE: &[i32] = &[0, 2, 3];

/// The results of the mutants that could be built.
#[derive(Debug, Default)]
struct MutantCounts {
    caught: usize,
    endless: usize,
    alive: Vec<String>,
}

/// The tests that a round runs, and how many seconds they may take with a mutant.
struct Round {
    name: &'static str,
    seconds: &'static str,
    targets: Vec<&'static str>,
}

/// Runs both rounds for every group, and compares the survivors with the known ones.
pub(crate) fn check(run: &mut Run) {
    if !run.has("mutants", "cargo", &["mutants", "--version"]) {
        return;
    }
    let groups = if run.is_full() { GROUPS } else { &GROUPS[GROUPS.len() - 1..] };
    let mut all = MutantCounts::default();
    for group in groups {
        if group.mutate(run, &mut all).is_none() {
            return;
        }
    }
    let known = fs::read_to_string(SURVIVORS).unwrap_or_default();
    run.check("survivors", all.compare(&known));
}

impl MutantGroup {
    /// Runs both rounds and adds their counts to `all`. Returns `None` if one could not run.
    fn mutate(&self, run: &mut Run, all: &mut MutantCounts) -> Option<()> {
        let folder = Path::new(FOLDER).join(self.name);
        let _ = fs::remove_dir_all(&folder); // a mutant caught in an earlier run may survive this one
        fs::create_dir_all(&folder).ok()?;
        let tests = self.tests.iter().flat_map(|test| ["--test", test]);
        let known = ["--no-default-features", "--lib"].into_iter().chain(tests).collect();
        let rounds = [
            Round { name: "the tests of its files", seconds: "20", targets: known },
            Round { name: "all tests", seconds: "90", targets: vec!["--features", "driver", "--lib", "--tests"] },
        ];
        let mut alive = Vec::new();
        for round in rounds {
            let counts = self.round(run, &round, &folder)?;
            all.caught += counts.caught;
            all.endless += counts.endless;
            alive = counts.alive;
            if alive.is_empty() {
                break;
            }
        }
        all.alive.extend(alive);
        Some(())
    }

    /// Runs one round on the mutants that survived the earlier ones.
    fn round(&self, run: &mut Run, round: &Round, folder: &Path) -> Option<MutantCounts> {
        let mut mutate = cargo(&["mutants", "--iterate", "--no-shuffle", "--colors", "never", "--jobs", "2"]);
        mutate.args(["--timeout", round.seconds, "--output"]).arg(folder);
        for file in self.files {
            mutate.args(["--file", file]);
        }
        mutate.args(round.targets.iter().map(|target| format!("--cargo-arg={target}")));
        let step = format!("mutants of {}, {}", self.name, round.name);
        let counts =
            run.step_that_exits(&step, &mut mutate, DONE).then(|| MutantCounts::read(&folder.join("mutants.out")))?;
        counts.inspect_err(|error| run.check(&step, Err(error.to_string()))).ok()
    }
}

impl MutantCounts {
    /// Reads the results of the tool. Marks the mutants that ran out of time as caught for the next
    /// round.
    fn read(folder: &Path) -> io::Result<Self> {
        let lines =
            |file: &str| fs::read_to_string(folder.join(file)).map(|text| text.lines().map(str::to_owned).collect());
        let (caught, endless): (Vec<String>, Vec<String>) = (lines("caught.txt")?, lines("timeout.txt")?);
        let counts = Self { caught: caught.len(), endless: endless.len(), alive: lines("missed.txt")? };
        fs::write(folder.join("caught.txt"), [caught, endless].concat().join("\n"))?;
        Ok(counts)
    }

    /// Returns the figures, or an error if a survivor is not among the known ones.
    fn compare(&self, known: &str) -> Result<String, String> {
        let mut known: Vec<_> = known.lines().filter(|line| line.starts_with("src/")).collect();
        let mut unknown = String::new();
        for mutant in &self.alive {
            match known.iter().position(|name| *name == without_place(mutant)) {
                Some(index) => drop(known.swap_remove(index)),
                None => write!(unknown, "\n{mutant}").expect("a string takes everything"),
            }
        }
        let caught = self.caught + self.endless;
        let (all, endless, alive) = (caught + self.alive.len(), self.endless, self.alive.len());
        let words =
            format!("{caught} of {all} mutants caught, {endless} of them by tests that did not end; {alive} live");
        if unknown.is_empty() { Ok(words) } else { Err(format!("{words}; not in {SURVIVORS}:{unknown}")) }
    }
}

/// Returns the name of a mutant without line and column, which change with every line before it.
fn without_place(mutant: &str) -> String {
    match *mutant.splitn(4, ':').collect::<Vec<_>>() {
        [file, _, _, what] => format!("{file}:{what}"),
        _ => mutant.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWINS: [&str; 2] = ["src/a.rs:1:2: replace < with <= in b::c", "src/a.rs:9:9: replace < with <= in b::c"];

    fn alive(mutants: &[&str]) -> MutantCounts {
        MutantCounts { caught: 3, endless: 1, alive: mutants.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn survivors_are_known_wherever_they_have_moved() {
        let known = "# A reason.\nsrc/a.rs: replace < with <= in b::c\n";
        let words = alive(&TWINS[..1]).compare(known).expect("it is known");
        assert_eq!(words, "4 of 5 mutants caught, 1 of them by tests that did not end; 1 live");
        assert!(alive(&[]).compare(known).is_ok(), "one that is caught now and then stays in the list");
    }

    #[test]
    fn each_line_of_the_list_stands_for_one_survivor() {
        let known = "src/a.rs: replace < with <= in b::c\n";
        let words = alive(&TWINS).compare(known).expect_err("there is a line too few");
        assert!(words.ends_with(&format!("not in {SURVIVORS}:\n{}", TWINS[1])), "{words}");
    }
}
