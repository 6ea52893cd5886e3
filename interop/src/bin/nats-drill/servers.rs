//! Real servers: one, or a cluster of three.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to greet.
const START: Duration = Duration::from_secs(20);

/// One server process, which can be ended and started again with what it has stored.
#[derive(Debug)]
pub(crate) struct Server {
    process: Option<Child>,
    pub(crate) port: u16,
    config: PathBuf,
    log: PathBuf,
}

/// Starts one server, or three that know each other.
pub(crate) fn start(folder: &Path, cluster: bool) -> io::Result<Vec<Server>> {
    let number = if cluster { 3 } else { 1 };
    let ports = vacant_ports(2 * number)?;
    let (clients, routes) = ports.split_at(number);
    let mut servers = Vec::new();
    for (index, port) in clients.iter().enumerate() {
        let home = folder.join(format!("server-{index}"));
        fs::create_dir_all(&home)?;
        let mut text = format!(
            "server_name: s{index}\nhost: 127.0.0.1\nport: {port}\njetstream {{ store_dir: \"{}\" }}\n",
            home.display()
        );
        if cluster {
            let urls: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
            text += &format!(
                "cluster {{ name: drill, host: 127.0.0.1, port: {}, no_advertise: true, routes: {urls:?} }}\n",
                routes[index]
            );
        }
        let config = home.join("server.conf");
        fs::write(&config, text)?;
        let mut server = Server { process: None, port: *port, config, log: home.join("log") };
        server.start()?;
        servers.push(server);
    }
    Ok(servers)
}

fn vacant_ports(number: usize) -> io::Result<Vec<u16>> {
    let listeners = (0..number).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

impl Server {
    /// Starts it, again or for the first time, and returns when it greets.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let program = env::var_os("NATS_SERVER_BIN").unwrap_or_else(|| "nats-server".into());
        let log = fs::OpenOptions::new().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn()?);
        let since = Instant::now();
        while since.elapsed() < START {
            if greets(self.port) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!("the server at {} does not greet; see {}", self.port, self.log.display())))
    }

    /// Ends it by a signal: `TERM` as an operator does, `KILL` as a crash does.
    pub(crate) fn end(&mut self, signal: &str) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        send(signal, process.id())?;
        process.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.end("KILL");
    }
}

/// Sends a signal to a process.
pub(crate) fn send(signal: &str, process: u32) -> io::Result<()> {
    Command::new("kill").args(["-s", signal, &process.to_string()]).status().map(drop)
}

fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO")
}

/// Speaks the protocol itself, as a client of another language may, and returns once the server has heard it.
pub(crate) fn say(port: u16, words: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "CONNECT {{\"verbose\":false,\"headers\":true}}\r\n{words}PING\r\n")?;
    for line in BufReader::new(stream).lines() {
        match line?.as_str() {
            "PONG" => return Ok(()),
            line if line.starts_with("-ERR") => return Err(io::Error::other(line.to_owned())),
            _ => {}
        }
    }
    Err(io::Error::other("the server has hung up"))
}
