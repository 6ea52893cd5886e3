//! Real servers: one, or a cluster of three.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::options::Options;
use crate::process::Process;

/// How long a server may take to greet.
const START: Duration = Duration::from_secs(20);
/// How long a server may take to say which connections it has.
const MONITOR: Duration = Duration::from_secs(2);

/// A server process. It can be ended, and started again with its store.
#[derive(Debug)]
pub(crate) struct Server {
    process: Option<Process>,
    program: String,
    pub(crate) port: u16,
    monitor: u16,
    config: PathBuf,
    log: PathBuf,
}

/// A connection, as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) name: String,
    /// The port it comes from.
    pub(crate) port: u16,
}

/// Starts one server, or three that know each other.
pub(crate) fn start(folder: &Path, options: &Options) -> io::Result<Vec<Server>> {
    let number = if options.cluster { 3 } else { 1 };
    let ports = vacant_ports(3 * number)?;
    let routes = &ports[2 * number..];
    let mut servers = Vec::new();
    for index in 0..number {
        let home = folder.join(format!("server-{index}"));
        fs::create_dir_all(&home)?;
        let sync = if options.sync_always { ", sync_interval: always" } else { "" };
        let mut text = format!(
            "server_name: s{index}\nhost: 127.0.0.1\nport: {}\nhttp: \"127.0.0.1:{}\"\n\
             jetstream {{ store_dir: \"{}\"{sync} }}\n",
            ports[index],
            ports[number + index],
            home.display()
        );
        if options.cluster {
            let urls: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
            text += &format!(
                "cluster {{ name: drill, host: 127.0.0.1, port: {}, no_advertise: true, routes: {urls:?} }}\n",
                routes[index]
            );
        }
        let config = home.join("server.conf");
        fs::write(&config, text)?;
        let (port, monitor, log) = (ports[index], ports[number + index], home.join("log"));
        let mut server = Server { process: None, program: options.server.clone(), port, monitor, config, log };
        server.start()?;
        servers.push(server);
    }
    Ok(servers)
}

/// Returns whether this server is older than 2.10.14, by what it prints: `nats-server: v2.9.10`.
pub(crate) fn steps_back(program: &str) -> io::Result<bool> {
    let words = String::from_utf8_lossy(&Command::new(program).arg("--version").output()?.stdout).into_owned();
    let (_, version) = words.split_once(": v").ok_or_else(|| io::Error::other(format!("no version: {words}")))?;
    let numbers: Vec<u32> = version.trim().split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    Ok(numbers < vec![2, 10, 14])
}

fn vacant_ports(number: usize) -> io::Result<Vec<u16>> {
    let listeners = (0..number).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

impl Server {
    /// Starts it, again or for the first time, and returns when it greets.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = self.process.insert(Process::start(&mut command)?);
        let since = Instant::now();
        while since.elapsed() < START {
            if greets(self.port) {
                return Ok(());
            }
            if let Some(status) = process.wait_for(Duration::from_millis(20))? {
                let words = fs::read_to_string(&self.log).unwrap_or_default();
                let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                return Err(io::Error::other(format!("the server ended with {status}: {last}")));
            }
        }
        Err(io::Error::other(format!("the server at {} does not greet; see {}", self.port, self.log.display())))
    }

    /// Ends it by a signal: `TERM` as an operator does, `KILL` as a crash does.
    pub(crate) fn end(&mut self, signal: &str) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.send(signal)?;
        process.wait().map(drop)
    }

    /// Returns the connections that it has, by its monitoring port.
    pub(crate) fn guests(&self) -> io::Result<Vec<Guest>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitor))?;
        stream.set_read_timeout(Some(MONITOR))?;
        write!(stream, "GET /connz?limit=1024 HTTP/1.0\r\nHost: drill\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer of HTTP"))?;
        let body: Value = serde_json::from_str(body).map_err(io::Error::other)?;
        let guest = |connection: &Value| {
            let name = connection["name"].as_str().unwrap_or_default().to_owned();
            let port = u16::try_from(connection["port"].as_u64()?).ok()?;
            Some(Guest { name, port })
        };
        Ok(body["connections"].as_array().into_iter().flatten().filter_map(guest).collect())
    }
}

fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO")
}

/// Asks the servers one after the other, again and again, until one answers.
///
/// # Errors
///
/// The last error, when the time is over.
pub(crate) fn first_answer<T>(
    servers: &[Server],
    limit: Duration,
    ask: impl Fn(u16) -> io::Result<T>,
) -> io::Result<T> {
    let since = Instant::now();
    loop {
        let mut last = None;
        for server in servers.iter().filter(|server| server.process.is_some()) {
            match ask(server.port) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        if since.elapsed() > limit {
            return Err(last.unwrap_or_else(|| io::Error::other("no server runs")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
