//! A connection to a server, as those who publish, subscribe and work share it.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, Request, jetstream};

use super::connect::{ConnectionBuilder, JetStream};
use super::denied::{Denial, Denials};
use super::message::Message;
use super::publisher::Publisher;
use super::subscription::SubscriptionBuilder;
use crate::io::{self, BlockError, IoThread, mpsc};
use crate::nats::check;
use crate::nats::error::{ConnectError, PublishError};
use crate::nats::event;
use crate::nats::event::{Event, Listener};
use crate::nats::headers::Headers;
use crate::nats::payload::Encode;
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, Mutex};
use crate::time::deadline::Deadline;

/// How long the last owner of a connection waits for the client to send what it was given.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);
/// How long a connect may take beyond the time of an answer for each address, so that the client's own error,
/// which says more, comes first.
const LOOK_UP_GRACE: Duration = Duration::from_millis(500);
/// What the subjects of answers begin with unless set.
const DEFAULT_INBOX_PREFIX: &str = "_INBOX";
/// How many jobs may wait for the store at once, over all threads that enqueue.
const MOST_UNCONFIRMED: usize = 1 << 16;

/// A connection to a NATS server or cluster. Clones share it.
///
/// All of it is driven by the I/O thread of the pool it was [connected](ConnectionBuilder::connect) for. A connection that
/// breaks is made again, for ever; meanwhile what is published is held back, up to a limit.
///
/// When the last owner lets go (clones, queues, workers and subscriptions are owners) what was published is sent, for two
/// seconds at most, and the connection closed.
///
/// # At most once
///
/// [`publish`](Self::publish) and [`subscribe`](Self::subscribe) are the core of NATS: a message reaches those who
/// listen at that moment, at most once, and nobody learns of a loss. For work that must not be lost there is
/// [`JobQueue`](crate::nats::JobQueue).
///
/// # Examples
///
/// ```no_run
/// use workcrew::WorkerPool;
/// use workcrew::nats::Connection;
///
/// let pool = WorkerPool::new()?;
/// let connection = Connection::builder("nats://127.0.0.1:4222").name("greeter").connect(&pool)?;
/// let _greeter = connection.subscribe("greet.*").start(|message| {
///     let _ = message.respond(format!("hello {}", message.text().unwrap_or("you")).as_str());
/// })?;
/// let answer = connection.request("greet.en", "Ann")?;
/// assert_eq!(answer.text(), Some("hello Ann"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connection {
    pub(crate) link: Arc<Link>,
}

impl Connection {
    /// Configures a connection to the server at `address`: `nats://host:4222`, `tls://…`, or `host:port`.
    pub fn builder(address: impl Into<String>) -> ConnectionBuilder {
        ConnectionBuilder::new(address.into())
    }

    pub(crate) fn open(builder: ConnectionBuilder, pool: &WorkerPool) -> Result<Self, ConnectError> {
        builder.check()?;
        let io = IoThread::of(pool).map_err(ConnectError::Start)?;
        let (listener, timeout) = (builder.listener.clone(), builder.timeout);
        let workers = Arc::new(Mutex::new(Vec::new()));
        let denials = Denials::default();
        let inbox = builder.inbox_prefix.clone().unwrap_or_else(|| DEFAULT_INBOX_PREFIX.to_owned());
        let hub = Hub { listener: listener.clone(), workers: Arc::clone(&workers), denials: denials.clone(), inbox };
        let jetstream = builder.jetstream.clone();
        let api = jetstream.api();
        // The client bounds each address, but not the look-up of a name.
        let addresses = u32::try_from(builder.servers.len()).unwrap_or(u32::MAX);
        let longest = timeout.saturating_mul(addresses).saturating_add(LOOK_UP_GRACE);
        let connecting = async move {
            let servers = builder.servers.clone();
            let options = builder.into_options().await?.event_callback(move |event| {
                hub.pass_on(event);
                std::future::ready(())
            });
            let client = options.connect(servers).await?;
            let context = ContextBuilder::new()
                .timeout(timeout)
                .max_ack_inflight(MOST_UNCONFIRMED)
                .backpressure_on_inflight(true);
            let jetstream = match jetstream {
                JetStream::Default => context.build(client.clone()),
                JetStream::Domain(domain) => context.domain(domain).build(client.clone()),
                JetStream::Prefix(prefix) => context.api_prefix(prefix).build(client.clone()),
            };
            Ok::<_, ConnectError>((client, jetstream))
        };
        let (client, jetstream) = match io.block_on(connecting, Deadline::after(longest)) {
            Ok(connected) => connected?,
            Err(BlockError::Timeout) => return Err(ConnectError::Timeout),
            Err(BlockError::OnIoThread) => return Err(ConnectError::WouldDeadlock),
            Err(BlockError::Panicked(panic)) => panic.resume(),
        };
        let engine = Arc::clone(pool.inner());
        Ok(Self { link: Arc::new(Link { client, jetstream, io, engine, timeout, listener, workers, denials, api }) })
    }

    /// Whether there is a connection right now; out of date when it arrives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Hands a message to the client, which sends it soon after, or when there is a connection again. At most once: see
    /// [above](Self#at-most-once).
    ///
    /// Blocks only while the client holds back as much as it may, for the time of an answer at most. What the server
    /// does not permit is told by the next [`flush`](Self::flush), and by [`Event::Denied`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<(), PublishError> {
        check::subject("subject", subject)?;
        let bytes = payload.encode().map_err(PublishError::Encode)?;
        let link = &self.link;
        link.wait(link.client.publish(subject.to_owned(), bytes.into()))??;
        Ok(())
    }

    /// Hands a message with headers to the client. Like [`publish`](Self::publish) otherwise.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish_with_headers(
        &self,
        subject: &str,
        headers: &Headers,
        payload: &(impl Encode + ?Sized),
    ) -> Result<(), PublishError> {
        check::subject("subject", subject)?;
        let (map, bytes) = (headers.to_map()?, payload.encode().map_err(PublishError::Encode)?);
        let link = &self.link;
        link.wait(link.client.publish_with_headers(subject.to_owned(), map, bytes.into()))??;
        Ok(())
    }

    /// Blocks until the server has taken what was published, for the time of an answer at most.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: [`Denied`](PublishError::Denied) if the server did not permit the subject of a publish since
    /// the last flush; [`Timeout`](PublishError::Timeout) if there is no connection for the time of an answer. A
    /// user without permission for the inbox of answers gets `Ok` when all was handed to the operating system.
    pub fn flush(&self) -> Result<(), PublishError> {
        let deadline = Deadline::after(self.link.timeout);
        let flushed = self.link.wait_until(self.link.client.flush(), deadline)?;
        flushed.map_err(|error| PublishError::Failed(error.into()))?;
        self.link.catch_up(deadline)?;
        self.link.denied_publish()
    }

    /// Publishes a message and blocks until a handler [responds](Message::respond), for the time of
    /// an answer at most.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn request(&self, subject: &str, payload: &(impl Encode + ?Sized)) -> Result<Message, PublishError> {
        self.ask(subject, None, payload)
    }

    /// Publishes a message with headers and blocks until a handler responds. Like
    /// [`request`](Self::request) otherwise.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn request_with_headers(
        &self,
        subject: &str,
        headers: &Headers,
        payload: &(impl Encode + ?Sized),
    ) -> Result<Message, PublishError> {
        self.ask(subject, Some(headers), payload)
    }

    fn ask(
        &self,
        subject: &str,
        headers: Option<&Headers>,
        payload: &(impl Encode + ?Sized),
    ) -> Result<Message, PublishError> {
        check::subject("subject", subject)?;
        let mut request = Request::new();
        if let Some(headers) = headers {
            request = request.headers(headers.to_map()?);
        }
        let request = request.payload(payload.encode().map_err(PublishError::Encode)?.into());
        let link = &self.link;
        let asking = link.client.send_request(subject.to_owned(), request);
        let answer = link.wait(link.permitted(&[subject.to_owned()], asking))???;
        Ok(Message::new(answer, Arc::clone(link)))
    }

    /// Closes the connection and has the client make it again, to another server of the cluster for
    /// example. Returns before there is a new one.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn reconnect(&self) -> Result<(), PublishError> {
        let asked = self.link.wait(self.link.client.force_reconnect())?;
        asked.map_err(|error| PublishError::Failed(error.into()))
    }

    /// The part of the connection that code needs which only publishes.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }

    /// Configures a subscription, whose handler runs on the workers of the connection's pool. The subject may hold `*`
    /// for one word and `>` for all that follow.
    pub fn subscribe(&self, subject: &str) -> SubscriptionBuilder {
        SubscriptionBuilder::new(Arc::clone(&self.link), subject.to_owned())
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for Connection {}
impl RefUnwindSafe for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_connected", &self.is_connected()).finish_non_exhaustive()
    }
}

/// What the owners of a connection share.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) io: Arc<IoThread>,
    /// Of the pool it was connected for.
    pub(crate) engine: Arc<PoolInner>,
    /// The time for an answer.
    pub(crate) timeout: Duration,
    pub(crate) listener: Listener,
    /// What the server did not permit.
    pub(crate) denials: Denials,
    /// What the subjects of the JetStream API begin with.
    pub(crate) api: String,
    /// Who works, and must know when the connection breaks or comes back.
    workers: Workers,
}

/// Where the workers of a connection hear from it.
type Workers = Arc<Mutex<Vec<Box<dyn Ear>>>>;

/// Where one of them does.
trait Ear: Send + Sync {
    fn is_closed(&self) -> bool;
    fn tell(&self, news: News);
}

/// What a worker hears of the connection.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// There is a connection again.
    Connected,
    /// It broke.
    Disconnected,
    /// The server did not permit something.
    Denied(Denial),
}

/// Whether a wait was tried where it would not have ended, or was too long.
pub(crate) enum WaitError {
    Timeout,
    OnIoThread,
}

impl Link {
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits on this thread for what the client does on the I/O thread, for the time of an answer.
    /// That time covers all of the future: the client bounds the answer, but not the wait for room in
    /// its own channel.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output, WaitError> {
        self.wait_until(future, Deadline::after(self.timeout))
    }

    /// Like [`wait`](Self::wait), until another moment.
    pub(crate) fn wait_until<F: Future>(&self, future: F, deadline: Deadline) -> Result<F::Output, WaitError> {
        if self.io.is_here() {
            return Err(WaitError::OnIoThread);
        }
        let _clock = self.io.runtime().enter();
        io::block_on(future, deadline).ok_or(WaitError::Timeout)
    }

    /// Sends what was published, if there is a connection; waits two seconds at most.
    pub(crate) fn farewell(&self) {
        if self.is_connected() {
            let _ = self.wait_until(self.client.flush(), Deadline::after(LONGEST_FAREWELL));
        }
    }

    /// Tells a worker, for as long as it can be told, what happens to the connection.
    pub(crate) fn tell_of_connection<T: Send + 'static>(
        &self,
        notes: mpsc::UnboundedSender<T>,
        make: impl Fn(News) -> T + Send + Sync + 'static,
    ) {
        let mut workers = self.workers.lock();
        workers.retain(|ear| !ear.is_closed());
        workers.push(Box::new((notes, make)));
    }
}

impl<T: Send, F: Fn(News) -> T + Send + Sync> Ear for (mpsc::UnboundedSender<T>, F) {
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn tell(&self, news: News) {
        let _ = self.0.send((self.1)(news));
    }
}

impl Drop for Link {
    /// Flushes. On the I/O thread, which must not wait, the flush is a future of that thread; it owns
    /// the client, and the thread, until it ends.
    fn drop(&mut self) {
        if self.io.is_here() && self.is_connected() {
            let (client, io) = (self.client.clone(), Arc::clone(&self.io));
            self.io.spawn(async move {
                let _ = io::timeout(LONGEST_FAREWELL, client.flush()).await;
                drop(io);
            });
        } else {
            self.farewell();
        }
    }
}

impl From<WaitError> for PublishError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Timeout => Self::Timeout,
            WaitError::OnIoThread => Self::WouldDeadlock,
        }
    }
}

/// Passes on what the client says of the connection.
struct Hub {
    listener: Listener,
    workers: Workers,
    denials: Denials,
    /// What the subjects of answers begin with.
    inbox: String,
}

impl Hub {
    fn pass_on(&self, event: async_nats::Event) {
        let Some(event) = event::of_client(event) else { return };
        let news = match &event {
            Event::Connected => Some(News::Connected),
            Event::Disconnected => {
                self.denials.forget_inbox();
                Some(News::Disconnected)
            }
            Event::Denied(text) => {
                let denial = Denial::read(text);
                denial.iter().for_each(|denial| self.denials.note(denial, &self.inbox));
                if denial.as_ref().is_some_and(Denial::is_of_probe) {
                    return;
                }
                denial.map(News::Denied)
            }
            _ => None,
        };
        if let Some(news) = news {
            self.workers.lock().iter().for_each(|ear| ear.tell(news.clone()));
        }
        self.listener.tell(&event);
    }
}
