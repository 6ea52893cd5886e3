//! A server that misbehaves, frame by frame: what no library does on purpose.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a [`Peer`] does when a request has come in whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answers with an empty message.
    Answer,
    /// Resets the stream with this reason of HTTP/2.
    Reset(u32),
    /// Says with `GOAWAY` that it has processed nothing from this stream on, and goes away.
    GoAway,
    /// Says with `GOAWAY` that it will answer this stream, and closes without doing so.
    GoAwayAfter,
    /// Closes the connection.
    Close,
    /// Sends the head of a response, and closes the connection.
    CloseInBody,
    /// Sends what is no HTTP/2.
    Garbage,
    /// Answers with this status and these details, as they are.
    Status(u8, &'static str),
    /// Answers with this status of HTTP, without one of gRPC.
    Http(u16),
}

/// A server that follows a script. Its threads end with their connections.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Peer {
    /// Serves the acts in their order, one a request; the last one again and again.
    #[must_use]
    pub fn start(acts: &[Act]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let last = *acts.last().unwrap();
        let acts: Vec<_> = acts.to_vec();
        let acts = Arc::new(Mutex::new(acts.into_iter()));
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (acts, counted) = (Arc::clone(&acts), Arc::clone(&counted));
                thread::spawn(move || {
                    let next = || {
                        counted.fetch_add(1, Ordering::SeqCst);
                        acts.lock().unwrap().next().unwrap_or(last)
                    };
                    serve(stream.unwrap(), next).unwrap_or(());
                });
            }
        });
        Self { address, requests }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have come in.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn serve(mut stream: TcpStream, mut next: impl FnMut() -> Act) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 24])?;
    frame(&mut stream, SETTINGS, 0, 0, &[])?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload)?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4]) {
            (SETTINGS, 0) => frame(&mut stream, SETTINGS, ACK, 0, &[])?,
            (PING, 0) => frame(&mut stream, PING, ACK, 0, &payload)?,
            (DATA | HEADERS, flags) => {
                let is_whole = flags & END_STREAM != 0;
                if is_whole && !perform(&mut stream, id, next())? {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

/// Returns `false` if the connection is to be closed.
fn perform(stream: &mut TcpStream, id: u32, act: Act) -> io::Result<bool> {
    let go_away = |last: u32| [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    let start = [&[0x88][..], &field("content-type", "application/grpc")].concat();
    match act {
        Act::Answer => {
            frame(stream, HEADERS, END_HEADERS, id, &start)?;
            frame(stream, DATA, 0, id, &[0; 5])?;
            frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &field("grpc-status", "0"))?;
        }
        Act::Reset(reason) => frame(stream, RST_STREAM, 0, id, &reason.to_be_bytes())?,
        Act::GoAway => frame(stream, GOAWAY, 0, 0, &go_away(id.saturating_sub(2)))?,
        Act::GoAwayAfter => {
            frame(stream, GOAWAY, 0, 0, &go_away(id))?;
            return Ok(false);
        }
        Act::Close => return Ok(false),
        Act::CloseInBody => {
            frame(stream, HEADERS, END_HEADERS, id, &start)?;
            return Ok(false);
        }
        Act::Garbage => stream.write_all(&[0xff; 64])?,
        Act::Status(code, details) => {
            let status = [start, field("grpc-status", &code.to_string()), field("grpc-status-details-bin", details)];
            frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &status.concat())?;
        }
        Act::Http(code) => {
            frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &field(":status", &code.to_string()))?;
        }
    }
    Ok(true)
}

fn frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat())
}

/// A header field as HPACK has it, without an index and without compression.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}
