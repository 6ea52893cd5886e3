//! A bad network: a proxy on loopback that delays, swallows, stops reading, or cuts.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How the proxy treats the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Weather {
    /// It passes.
    Fine,
    /// Each piece passes later.
    Slow,
    /// Nothing passes, and it is gone; the connection is cut when the weather changes.
    BlackHole,
    /// The proxy does not read.
    Stalled,
}

/// How much later.
const DELAY: Duration = Duration::from_millis(60);
/// How often a standing connection looks for better weather.
const LOOK: Duration = Duration::from_millis(20);

/// A proxy. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Proxy(Arc<Inner>);

/// The number of connections and pieces that a proxy has treated in each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) connections: usize,
    pub(crate) delayed: usize,
    pub(crate) swallowed: usize,
    /// How often a storm left something unread.
    pub(crate) unread: usize,
    /// How many connections were cut.
    pub(crate) cut: usize,
}

impl Used {
    /// Returns whether the proxies have had each fault.
    pub(crate) fn is_complete(&self) -> bool {
        self.delayed > 0 && self.swallowed > 0 && self.unread > 0 && self.cut > 0
    }
}

#[derive(Debug)]
struct Inner {
    /// Where it listens.
    port: u16,
    /// Where it connects to.
    target: u16,
    weather: AtomicU8,
    /// Whether nothing passes for the moment.
    is_held: AtomicBool,
    /// Connections of an earlier number are cut.
    generation: AtomicUsize,
    used: Mutex<Used>,
    /// The ports from which it has connected.
    sources: Mutex<BTreeSet<u16>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts a proxy for the server at that port.
    pub(crate) fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Self(Arc::new(Inner {
            port: listener.local_addr()?.port(),
            target,
            weather: AtomicU8::new(Weather::Fine as u8),
            is_held: AtomicBool::new(false),
            generation: AtomicUsize::new(0),
            used: Mutex::default(),
            sources: Mutex::default(),
        }));
        let accepting = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let proxy = accepting.clone();
                thread::spawn(move || proxy.serve(client));
            }
        });
        Ok(proxy)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.0.port)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.0.weather.store(weather as u8, Ordering::SeqCst);
        self.0.is_held.store(false, Ordering::SeqCst);
    }

    /// Stops reading while the drill looks at the servers, which is no storm.
    pub(crate) fn hold(&self) {
        self.0.is_held.store(true, Ordering::SeqCst);
    }

    /// Cuts every connection there is.
    pub(crate) fn cut(&self) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn used(&self) -> Used {
        *lock(&self.0.used)
    }

    /// Returns whether this proxy has ever connected to its server from this port.
    pub(crate) fn has_come_from(&self, port: u16) -> bool {
        lock(&self.0.sources).contains(&port)
    }

    fn is(&self, weather: Weather) -> bool {
        self.0.weather.load(Ordering::SeqCst) == weather as u8
    }

    fn serve(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.0.target)) else { return };
        let generation = self.0.generation.load(Ordering::SeqCst);
        let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
        if let Ok(source) = server.local_addr() {
            lock(&self.0.sources).insert(source.port());
        }
        lock(&self.0.used).connections += 1;
        let up = self.clone();
        let upward = thread::spawn(move || up.pump(from_client, server, generation));
        self.pump(from_server, client, generation);
        let _ = upward.join();
    }

    /// Passes one direction, until an end hangs up or the connection is cut.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, generation: usize) {
        let _ = from.set_read_timeout(Some(LOOK));
        let (mut piece, mut has_swallowed) = ([0; 16 << 10], false);
        loop {
            if has_swallowed && !self.is(Weather::BlackHole) {
                break;
            }
            if self.0.generation.load(Ordering::SeqCst) != generation {
                lock(&self.0.used).cut += 1;
                break;
            }
            if self.0.is_held.load(Ordering::SeqCst) {
                thread::sleep(LOOK);
                continue;
            }
            if self.is(Weather::Stalled) {
                let is_waiting = from.peek(&mut [0]).is_ok_and(|size| size > 0);
                lock(&self.0.used).unread += usize::from(is_waiting);
                thread::sleep(LOOK);
                continue;
            }
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if self.is(Weather::BlackHole) {
                lock(&self.0.used).swallowed += 1;
                has_swallowed = true;
                continue;
            }
            if self.is(Weather::Slow) {
                lock(&self.0.used).delayed += 1;
                thread::sleep(DELAY);
            }
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
