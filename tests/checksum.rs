//! Tests of `examples/checksum.rs` on real files: fixed digests, comparison with `sha256sum`, and
//! failures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use common::with_watchdog;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A directory of its own for each test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("workcrew-checksum-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn file(&self, name: impl AsRef<OsStr>, content: &[u8]) -> PathBuf {
        let path = self.0.join(name.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The example, as cargo builds it beside the tests.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        // This binary is TARGET/PROFILE/deps/NAME. Cargo builds the examples for `cargo test` alone, not with
        // `--tests`.
        let binary = env::current_exe().unwrap();
        let profile = binary.ancestors().nth(2).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "checksum", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        let path = profile.join("examples/checksum");
        assert!(path.exists(), "{} was not built", path.display());
        path
    })
}

fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(example());
    command.current_dir(folder).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap()
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    start(folder, arguments).wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn prints_what_sha256sum_prints_in_a_stable_order() {
    let folder = Folder::new();
    folder.file("b", b"abc");
    folder.file("a/z", b"");
    folder.file("a/y", b"abc");
    let expected = format!("{ABC}  ./a/y\n{EMPTY}  ./a/z\n{ABC}  ./b\n");
    for arguments in [&[][..], &["--workers", "1"], &["--workers", "8"], &["."]] {
        let output = run(&folder.0, arguments);
        assert_eq!((text(&output.stdout), text(&output.stderr)), (expected.clone(), String::new()));
        assert!(output.status.success());
    }
}

#[test]
fn agrees_with_sha256sum_on_a_real_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = ["src", "tests", "examples", "Cargo.toml", "README.md"];
    let ours = run(root, &list);
    assert!(ours.status.success(), "{}", text(&ours.stderr));
    let mut find = Command::new("find");
    let theirs = find.current_dir(root).args(list).args(["-type", "f", "-exec", "sha256sum", "{}", "+"]).output();
    let theirs = text(&theirs.unwrap().stdout);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&text(&ours.stdout)), sorted(&theirs));
    assert!(sorted(&theirs).len() > 50);
}

#[test]
fn odd_names_are_written_so_that_sha256sum_reads_them_back() {
    let folder = Folder::new();
    for name in [&b"new\nline"[..], b"back\\slash", b"car\rriage", b"not \xff utf", b" space ", b"-dash"] {
        folder.file(OsStr::from_bytes(name), b"abc");
    }
    let output = run(&folder.0, &["."]);
    assert!(output.status.success());
    let expected = [
        format!("{ABC}  ./ space "),
        format!("{ABC}  ./-dash"),
        format!("\\{ABC}  ./back\\\\slash"),
        format!("\\{ABC}  ./car\\rriage"),
        format!("\\{ABC}  ./new\\nline"),
    ];
    let lines: Vec<_> = output.stdout.split(|byte| *byte == b'\n').collect();
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(text(line), expected);
    }
    assert!(lines[5].ends_with(b"not \xff utf"));
    let sums = Folder::new();
    let sums = sums.file("sums", &output.stdout);
    let check = Command::new("sha256sum").current_dir(&folder.0).args(["--check", "--quiet"]).arg(&sums).output();
    let check = check.unwrap();
    assert!(check.status.success(), "{}", text(&check.stdout));
}

#[test]
fn only_regular_files_count() {
    let folder = Folder::new();
    folder.file("file", b"abc");
    fs::create_dir(folder.0.join("empty")).unwrap();
    symlink("file", folder.0.join("link")).unwrap();
    symlink("nowhere", folder.0.join("broken")).unwrap();
    symlink(".", folder.0.join("loop")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.0.join("fifo")).status().unwrap().success());
    assert_eq!(text(&run(&folder.0, &[]).stdout), format!("{ABC}  ./file\n"));
}

#[test]
fn missing_files_stop_the_rest_or_are_listed_at_the_end() {
    let folder = Folder::new();
    folder.file("file", b"abc");
    let stopped = run(&folder.0, &["missing", "file"]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(text(&stopped.stderr).starts_with("checksum: missing: "), "{}", text(&stopped.stderr));
    assert!(text(&stopped.stderr).contains("stopped: "));
    let kept = run(&folder.0, &["--keep-going", "missing", "file", "gone"]);
    assert_eq!((kept.status.code(), text(&kept.stdout)), (Some(1), format!("{ABC}  file\n")));
    let errors = text(&kept.stderr);
    assert!(errors.contains("missing: ") && errors.contains("gone: ") && errors.contains("2 errors, 1 file hashed"));
}

/// Runs the example as an unprivileged user, from a directory that every user can read.
fn run_unprivileged(folder: &Folder, arguments: &[&str]) -> Output {
    let is_root = text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0";
    if !is_root {
        return run(&folder.0, arguments);
    }
    let tool = Folder::new();
    let copy = tool.0.join("checksum");
    fs::copy(example(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(arguments);
    command.current_dir(&folder.0).output().unwrap()
}

#[test]
fn an_unreadable_file_stops_the_rest_or_is_listed_at_the_end() {
    let folder = Folder::new();
    for n in 0..200 {
        folder.file(format!("{n:03}"), b"abc");
    }
    let secret = folder.file("100", b"abc");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let stopped = run_unprivileged(&folder, &["."]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(text(&stopped.stderr).starts_with("checksum: ./100: Permission denied"), "{}", text(&stopped.stderr));
    let expected: Vec<String> = (0..200).map(|n| format!("{ABC}  ./{n:03}")).collect();
    let printed: Vec<String> = text(&stopped.stdout).lines().map(str::to_owned).collect();
    assert!(printed.len() <= 100 && expected.starts_with(&printed), "the lines printed are not a prefix");

    let kept = run_unprivileged(&folder, &["-k", "."]);
    assert_eq!(kept.status.code(), Some(1));
    assert_eq!(text(&kept.stdout).lines().count(), 199);
    assert!(text(&kept.stderr).contains("./100: Permission denied"));
    assert!(text(&kept.stderr).contains("1 error, 199 files hashed"));
}

#[test]
fn wrong_usage_exits_with_status_two() {
    let folder = Folder::new();
    for (arguments, message) in [
        (&["--workers", "0"][..], "a pool needs at least one worker"),
        (&["--workers", "many"], "workers"),
        (&["--workers"], "workers"),
        (&["--bogus"], "--bogus"),
    ] {
        let output = run(&folder.0, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(message) && output.stdout.is_empty(), "{}", text(&output.stderr));
    }
    let help = run(&folder.0, &["--help"]);
    assert!(help.status.success() && text(&help.stdout).starts_with("Usage: checksum"));
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let folder = Folder::new();
    for n in 0..3_000 {
        folder.file(format!("{n}"), b"abc");
    }
    with_watchdog(|| {
        let mut child = start(&folder.0, &[]);
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0; 64]).unwrap();
        drop(output);
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{}", text(&ended.stderr));
    });
}

#[test]
fn an_interrupt_stops_the_run_and_reports_the_progress() {
    let folder = Folder::new();
    folder.file("0", b"abc");
    File::create(folder.0.join("1")).unwrap().set_len(1 << 40).unwrap(); // takes hours
    with_watchdog(|| {
        let mut child = start(&folder.0, &[]);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap(); // so the handler is installed
        assert_eq!(line, format!("{ABC}  ./0\n"));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130));
        assert!(text(&ended.stderr).contains("interrupted: 1 file hashed"), "{}", text(&ended.stderr));
    });
}

#[test]
fn memory_stays_flat_when_the_tree_grows_tenfold() {
    /// Returns the peak memory of hashing `files` files, in KiB. It is read while the process is
    /// held up near its end.
    fn peak(files: usize) -> u64 {
        let folder = Folder::new();
        for n in 0..files {
            folder.file(format!("{:04}/{:02}", n / 100, n % 100), b"abc");
        }
        with_watchdog(|| {
            let mut child = start(&folder.0, &[]);
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = Vec::new();
            // Near its end: what is left to print is more than the pipe holds, so the process cannot end before it is
            // looked at.
            for _ in 0..files - 1_500 {
                line.clear();
                output.read_until(b'\n', &mut line).unwrap();
            }
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            assert!(child.wait().unwrap().success());
            let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        })
    }
    let (small, large) = (peak(3_000), peak(30_000));
    // A window of 4,096 files, full in the larger run only, takes about 1 MiB.
    assert!(large < small + 3_072, "{small} KiB for 3,000 files, {large} KiB for 30,000");
}
