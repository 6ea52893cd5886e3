//! The status page as its users get it: three paths, errors of the command line, and a real browser.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, fs, thread};

use common::{LIMIT, with_watchdog};
use serde_json::Value;

/// The example, as cargo builds it beside the tests.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        // This binary is TARGET/PROFILE/deps/NAME. `cargo test --test NAME` does not build examples.
        let binary = env::current_exe().unwrap();
        let profile = binary.ancestors().nth(2).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "workcrew-interop", "--example", "status_page", "--target-dir"]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        let path = profile.join("examples/status_page");
        assert!(path.exists(), "{} was not built", path.display());
        path
    })
}

/// The example at a free port. Dropping it kills the process.
struct StatusPage {
    process: Child,
    address: SocketAddr,
}

impl StatusPage {
    fn start() -> Self {
        let mut process = Command::new(example()).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().strip_suffix('/').unwrap().parse().unwrap();
        Self { process, address }
    }

    fn get(&self, path: &str) -> Answer {
        Answer::of(self.address, "GET", path)
    }
}

impl Drop for StatusPage {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn of(address: SocketAddr, method: &str, path: &str) -> Self {
        let whole = exchange(address, method, path).unwrap();
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
    }
}

/// Sends one request, and returns everything that comes back.
fn exchange(address: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut whole = String::new();
    stream.read_to_string(&mut whole)?;
    Ok(whole)
}

/// Fault 583.
#[test]
fn the_three_paths_have_their_content_and_others_do_not_exist() {
    with_watchdog(|| {
        let page = StatusPage::start();
        for (path, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/snapshot.json", "application/json"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ] {
            let answer = page.get(path);
            assert_eq!((answer.status, &*answer.headers["content-type"]), (200, content_type), "{path}");
            assert_eq!(answer.headers["cache-control"], "no-store");
            let head = Answer::of(page.address, "HEAD", path);
            assert_eq!((head.status, &*head.body), (200, ""), "{path}");
        }
        let html = page.get("/").body;
        assert!(!html.contains("//"), "the page names no other server, and has no comments");
        let snapshot: Value = serde_json::from_str(&page.get("/snapshot.json").body).unwrap();
        assert_eq!(snapshot["version"], 1);
        assert_eq!(snapshot["workers"].as_array().unwrap().len(), 4);
        let metrics = page.get("/metrics").body;
        assert!(metrics.contains("workcrew_workers{pool=\"shop\"} 4\n"), "{metrics}");
        assert!(metrics.contains("workcrew_mailbox_capacity{bus=\"orders\",subscription=\"mail\"} 16\n"), "{metrics}");
        assert!(is_accepted(&metrics));
        assert_eq!(page.get("/other").status, 404);
        assert_eq!(Answer::of(page.address, "POST", "/").status, 405);
    });
}

/// Fault 584.
#[test]
fn an_address_in_use_or_without_sense_is_an_error_with_a_message() {
    with_watchdog(|| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let run = |arguments: &[&str]| -> Output { Command::new(example()).args(arguments).output().unwrap() };
        let address = taken.local_addr().unwrap().to_string();
        for (arguments, code, message) in [
            (vec![&*address], 1, "cannot listen on 127.0.0.1:"),
            (vec!["nonsense"], 1, "cannot listen on nonsense: "),
            (vec!["--help"], 2, "usage: status_page [ADDRESS]"),
            (vec!["127.0.0.1:0", "more"], 2, "usage: status_page [ADDRESS]"),
        ] {
            let output = run(&arguments);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
            assert!(error.contains(message) && output.stdout.is_empty(), "{arguments:?}: {error}");
        }
    });
}

/// Fault 583.
#[test]
fn a_browser_shows_the_workers() {
    with_watchdog(|| {
        let page = StatusPage::start();
        let Some(dom) = dom(page.address) else { return };
        for worker in 0..4 {
            assert!(dom.contains(&format!("data-worker=\"{worker}\"")), "no worker {worker} in:\n{dom}");
        }
        assert!(dom.contains("<html lang=\"en\" data-state=\"live\">"), "{dom}");
    });
}

/// Fault 585.
#[test]
fn a_browser_says_when_the_program_is_gone() {
    with_watchdog(|| {
        let page = StatusPage::start();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, program) = (proxy.local_addr().unwrap(), page.address);
        // Passes the page and one snapshot on, and is then as dead as a program that was killed.
        thread::spawn(move || {
            let mut snapshots = 0;
            for stream in proxy.incoming() {
                pass_on(stream.unwrap(), program, &mut snapshots);
            }
        });
        let Some(dom) = dom(address) else { return };
        assert!(dom.contains("<html lang=\"en\" data-state=\"gone\">"), "{dom}");
        assert!(dom.contains("the program does not answer since") && dom.contains("data-worker=\"3\""), "{dom}");
    });
}

/// Passes a request on, except for all snapshots but the first.
fn pass_on(mut client: TcpStream, program: SocketAddr, snapshots: &mut usize) {
    // The whole request is read: closing a socket with unread bytes would take the answer back.
    let lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
    let request: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/other");
    if path == "/snapshot.json" {
        *snapshots += 1;
        if *snapshots > 1 {
            return;
        }
    }
    // A browser may have gone away.
    let _ = exchange(program, "GET", path).and_then(|whole| client.write_all(whole.as_bytes()));
}

/// Returns the page after some seconds of the browser's own time, as its program left it. `None`, said
/// aloud, without a browser; a failure in CI.
fn dom(address: SocketAddr) -> Option<String> {
    static RUNS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let profile = env::temp_dir().join(format!("workcrew-status-page-{}-{run}", process::id()));
    let mut browser = Command::new(env::var("WORKCREW_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned()));
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    browser.arg(format!("--user-data-dir={}", profile.display()));
    browser.args(["--virtual-time-budget=4000", "--dump-dom", &format!("http://{address}/")]);
    let output = browser.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let _ = fs::remove_dir_all(profile);
    match output {
        Ok(output) => {
            let dom = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{dom}\n{}", String::from_utf8_lossy(&output.stderr));
            Some(dom)
        }
        Err(error) => {
            assert!(env::var_os("CI").is_none(), "no chromium: {error}");
            let _ =
                writeln!(io::stderr(), "SKIPPED: chromium did not start ({error}); Debian's package `chromium` has it");
            None
        }
    }
}

/// Whether Prometheus' own parser takes the text. Skipped without it; a failure in CI.
fn is_accepted(metrics: &str) -> bool {
    let promtool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(env::var_os("CI").is_none(), "promtool did not start: {error}");
            let _ = writeln!(io::stderr(), "SKIPPED: promtool did not start ({error})");
            return true;
        }
    };
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    promtool.wait().unwrap().success()
}
