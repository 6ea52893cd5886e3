//! The verification levels, from the compiler to the environment of the process.

use std::env;
use std::fs;
use std::process::Command;

use crate::catalogue;
use crate::mutants;
use crate::run::{Run, cargo};

type Level = (&'static str, &'static str, fn(&mut Run));

/// All levels; `docs/reliability.md` says what each is for.
pub(crate) const LEVELS: &[Level] = &[
    ("L0", "lints, auto traits, the shape of the sources", sources),
    ("L1", "the suite: every scenario, on many pools", suite),
    ("L2", "stress: random lifecycles, every count checked", stress),
    ("L3", "models in every schedule, and seeded bugs that they must find", models),
    ("L4", "sequential models and histories", histories),
    ("L5", "sanitizers", sanitizers),
    ("L6", "fuzzing", fuzzing),
    ("L7", "faults injected into the pool itself", faults),
    ("L8", "mutants", mutants::check),
    ("L9", "coverage", coverage),
    ("L11", "environments", environments),
];

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The test binaries that run under a sanitizer. The others look at the memory and the threads of
/// the whole process.
const WATCHED: &[&str] = &[
    "bus", "futures", "groups", "handles", "panics", "peers", "promises", "retry", "scopes", "shutdown", "snapshot",
    "submit", "timers", "tokens",
];

fn nightly(arguments: &[&str]) -> Command {
    let mut command = cargo(&["+nightly"]);
    command.args(arguments).env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Returns a cargo command that runs on one CPU, if this machine has the tool for that.
fn on_one_cpu(run: &mut Run, arguments: &[&str]) -> Option<Command> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "cargo"]).args(arguments);
    run.has("on one CPU", "taskset", &["-c", "0", "true"]).then_some(command)
}

fn here(file: &str) -> String {
    let folder = env::current_dir().unwrap_or_default();
    folder.join(file).display().to_string()
}

fn sources(run: &mut Run) {
    run.step(
        "lints",
        &mut cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
    );
    run.step("shape and auto traits", &mut cargo(&["test", "--test", "architecture", "--test", "errors"]));
    run.step("what must not compile", &mut cargo(&["test", "-p", "workcrew", "--doc", "compile_fail"]));
    run.check("catalogue of faults", catalogue::check_faults());
}

fn suite(run: &mut Run) {
    run.step("the suite", &mut cargo(&["test", "-p", "workcrew", "--lib", "--tests"]));
    run.check("scenarios", catalogue::check_scenarios());
    if run.is_full() && run.has("bash", "bash", &["--version"]) {
        // The loop ends at the first failure.
        let script = "set -e; for round in $(seq 100); do cargo test -q -p workcrew --lib --tests; done";
        run.step("a hundred rounds", Command::new("bash").args(["-c", script]));
    }
}

fn stress(run: &mut Run) {
    // The full run is long enough for 100,000 lifecycles, and 800,000 on one CPU.
    let [free, one] = if run.is_full() { ["60", "90"] } else { ["20", "20"] };
    let test = ["test", "--release", "-p", "workcrew", "--test", "stress", "--", "--nocapture"];
    run.step("on all CPUs", cargo(&test).env("WORKCREW_SECONDS", free));
    if let Some(mut pinned) = on_one_cpu(run, &test) {
        run.step("on one CPU", pinned.env("WORKCREW_SECONDS", one));
    }
}

fn models(run: &mut Run) {
    let (extent, bugs): (_, &[&str]) = if run.is_full() { ("full", &[]) } else { ("slice", &["--slice"]) };
    run.step("models", Command::new(".ci/models").arg(extent));
    run.step("seeded bugs", Command::new(".ci/seeded-bugs").args(bugs));
}

fn histories(run: &mut Run) {
    let (cases, count) = if run.is_full() { ("2000", "2000") } else { ("500", "500") };
    let test = ["test", "-p", "workcrew-verify", "--", "--nocapture"];
    run.step("programs and histories", cargo(&test).env("PROPTEST_CASES", cases).env("WORKCREW_HISTORIES", count));
    if run.is_full()
        && let Some(mut pinned) = on_one_cpu(run, &test)
    {
        pinned.env("PROPTEST_CASES", cases).env("WORKCREW_HISTORIES", count);
        run.step("programs and histories on one CPU", &mut pinned);
    }
}

fn sanitizers(run: &mut Run) {
    if run.has("thread and address sanitizer", "cargo", &["+nightly", "--version"]) {
        thread_sanitizer(run);
        address_sanitizer(run);
    }
    if run.has("memcheck", "valgrind", &["--version"]) {
        let runner = "valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9";
        // One test leaks on purpose.
        let mut test = cargo(&["test", "-p", "workcrew", "--test", "scopes", "--", "--skip", "a_leaked_handle"]);
        run.step(
            "memcheck on scopes",
            test.env(format!("CARGO_TARGET_{}_RUNNER", TARGET.to_uppercase().replace('-', "_")), runner),
        );
    }
}

fn thread_sanitizer(run: &mut Run) {
    let options = format!("suppressions={} halt_on_error=1", here("verify/tsan.supp"));
    let mut test = sanitized("thread", "target/tsan");
    test.env("TSAN_OPTIONS", options).env("WORKCREW_SECONDS", if run.is_full() { "60" } else { "10" });
    watched(&mut test).args(["--lib", "--test", "stress", "--", "--nocapture"]);
    // Stack frames are several times larger under the sanitizer, and these tests need small stacks.
    // It does not support `ulimit`.
    for test_of_stacks in ["small_stack", "exhaust", "no_stack", "stack_of_zero", "nested_program"] {
        test.args(["--skip", test_of_stacks]);
    }
    run.step("thread sanitizer", &mut test);
}

fn address_sanitizer(run: &mut Run) {
    let mut test = sanitized("address", "target/asan");
    test.env("ASAN_OPTIONS", "detect_leaks=1")
        .env("LSAN_OPTIONS", format!("suppressions={}", here("verify/lsan.supp")));
    test.env("WORKCREW_SECONDS", if run.is_full() { "30" } else { "5" });
    for binary in ["scopes", "panics", "handles", "groups", "shutdown", "timers", "bus", "stress"] {
        test.args(["--test", binary]);
    }
    test.args(["--", "--nocapture"]);
    for test_of_stacks in ["small_stack", "exhaust", "no_stack"] {
        test.args(["--skip", test_of_stacks]);
    }
    run.step("address and leak sanitizer", &mut test);
}

fn sanitized(sanitizer: &str, folder: &str) -> Command {
    let mut test = nightly(&["test", "-p", "workcrew", "--target", TARGET, "--target-dir", folder]);
    test.env("RUSTFLAGS", format!("-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer"));
    test
}

fn watched(test: &mut Command) -> &mut Command {
    WATCHED.iter().fold(test, |test, binary| test.args(["--test", binary]))
}

fn fuzzing(run: &mut Run) {
    let seconds = if run.is_full() { 60 } else { 10 };
    let can_fuzz =
        run.has("fuzzing", "cargo", &["+nightly", "--version"]) && run.has("fuzzing", "cargo", &["fuzz", "--version"]);
    for (target, length) in [("programs", 182), ("groups", 125), ("deadlines", 96)] {
        if can_fuzz {
            let mut fuzz = nightly(&["fuzz", "run", target, "--"]);
            fuzz.args([format!("-max_total_time={seconds}"), format!("-max_len={length}")]);
            run.step(&format!("fuzzing {target}"), &mut fuzz);
        }
    }
    if !can_fuzz {
        let mut test = cargo(&["test", "-p", "workcrew-verify", "--test", "bytes", "--", "--nocapture"]);
        run.step("the targets of the fuzzer, from a seed", test.env("WORKCREW_SECONDS", seconds.to_string()));
    }
}

fn faults(run: &mut Run) {
    let mut test = cargo(&["test", "-p", "workcrew", "--test", "faults", "--target-dir", "target/faults"]);
    run.step("faults", test.env("RUSTFLAGS", "--cfg workcrew_faults"));
}

fn coverage(run: &mut Run) {
    let server = env::var("NATS_SERVER_BIN").unwrap_or_else(|_| "nats-server".to_owned());
    if !run.has("coverage", "cargo", &["llvm-cov", "--version"]) || !run.has("coverage", &server, &["--version"]) {
        return;
    }
    let mut cover = cargo(&["llvm-cov", "--lib", "--tests", "--all-features", "--summary-only"]);
    // Only files of `src` count, without the tests beside the code.
    cover.args([
        "--ignore-filename-regex",
        r"/src/(models/|([^/]+/)*tests\.rs)|/(verify|interop)/(src|tests)/|/tests/([^/]+/)?[^/]+\.rs$",
        "--fail-under-lines",
        "95",
    ]);
    // The tests of gRPC are in a package of their own, which has a runtime and a server.
    for package in ["workcrew", "workcrew-verify", "workcrew-interop"] {
        cover.args(["-p", package]);
    }
    // By default the tools of the compiler are used; the system may have them in the same version.
    let folder = format!("/usr/lib/llvm-{}/bin", llvm_version());
    if env::var_os("LLVM_COV").is_none() && fs::exists(format!("{folder}/llvm-cov")).unwrap_or(false) {
        cover.env("LLVM_COV", format!("{folder}/llvm-cov")).env("LLVM_PROFDATA", format!("{folder}/llvm-profdata"));
    }
    run.step("at least 95 % of the lines of src", &mut cover);
}

/// Returns the version of LLVM in the compiler, which is also that of its profiles.
fn llvm_version() -> String {
    let told = Command::new("rustc").arg("-vV").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&told).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    version.and_then(|version| version.split('.').next()).unwrap_or("?").to_owned()
}

fn environments(run: &mut Run) {
    if let Some(mut suite) = on_one_cpu(run, &["test", "-p", "workcrew", "--lib", "--tests"]) {
        run.step("on one CPU", &mut suite);
    }
    run.step("one worker", cargo(&["test", "-p", "workcrew", "--test", "environment"]).env("WORKCREW_WORKERS", "1"));
    if run.has("wall clock shifted", "faketime", &["-v"]) {
        for shift in ["-1d", "+30y"] {
            let mut faked = Command::new("faketime");
            faked.args(["-f", shift, "cargo", "test", "-p", "workcrew", "--test", "environment", "--test", "tokens"]);
            run.step(&format!("wall clock {shift}"), faked.env("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
        }
    }
    let mut abort = cargo(&["build", "-p", "workcrew", "--lib", "--examples", "--target-dir", "target/abort"]);
    if run.step("panic=abort, built", abort.env("RUSTFLAGS", "-C panic=abort")) {
        run.step("panic=abort, run", &mut Command::new("target/abort/debug/examples/first_error"));
    }
}
