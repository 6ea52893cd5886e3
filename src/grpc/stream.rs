//! Streams of responses. A call holds its slot until the stream has ended, and its reader takes
//! messages from a bounded buffer.

use std::fmt;
use std::future::Future;
use std::panic::Location;

use tonic::{Response, Status, Streaming};

use super::call::CallConfig;
use super::caller::{CallResult, Caller};
use super::error::CallError;
use super::target::Target;
use crate::error::{Cycle, JoinError, Refusal, Refuser, SubmitError, TrySubmitError};
use crate::io::{self, Driver, OnOutput, mpsc};
use crate::observe::task_info::TaskOutcome;
use crate::pool::submit::WaitMode;
use crate::sync::Arc;
use crate::task::handle::JoinHandle;
use crate::time::deadline::Deadline;
use crate::unwind;

/// # Streams
impl Caller {
    /// Makes a call whose response is a stream of messages, and returns the reader of the stream.
    ///
    /// The call is in flight until the stream has ended: it holds its slot, and its timeout applies
    /// to the whole stream. The I/O thread reads ahead at most as many messages as the
    /// [buffer](super::CallerBuilder::stream_buffer) holds. Then the server has to wait, by the
    /// flow control of HTTP/2.
    ///
    /// An attempt that fails before the first message may be followed by another. After the first
    /// message an error is final, with
    /// [`GiveUpReason::Permanent`](crate::retry::GiveUpReason::Permanent). The policy's attempt
    /// timeout is the time until the first message.
    ///
    /// If all slots are taken, this blocks as [`call`](Self::call) does.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # // A client as `tonic-build` makes them.
    /// # mod prices {
    /// #     pub struct Client<T>(T);
    /// #     impl<T> Client<T> {
    /// #         pub fn new(channel: T) -> Self { Self(channel) }
    /// #         pub async fn watch(
    /// #             &mut self,
    /// #             item: u32,
    /// #         ) -> Result<tonic::Response<tonic::Streaming<u64>>, tonic::Status> {
    /// #             let _ = (&self.0, item);
    /// #             Err(tonic::Status::not_found("no such item"))
    /// #         }
    /// #     }
    /// # }
    /// use tonic::Code;
    /// use tonic::transport::Endpoint;
    /// use workcrew::WorkerPool;
    /// use workcrew::grpc::Caller;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let caller = Caller::builder(Endpoint::from_static("http://127.0.0.1:50051")).build(&pool)?;
    /// let prices_of_7 = |target| async move { prices::Client::new(target).watch(7).await };
    /// let mut watch = caller.stream(prices_of_7)?;
    /// // Each `next` blocks until there is a message, or the stream has ended.
    /// let error = watch.next().unwrap().unwrap_err();
    /// assert_eq!(error.code(), Code::NotFound);
    /// assert!(watch.next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn stream<F, Fut, T>(&self, f: F) -> Result<MessageStream<T>, SubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.open(WaitMode::Policy, Location::caller(), f).map_err(SubmitError::by(Refuser::Caller))
    }

    /// Opens a stream as [`stream`](Self::stream) does, but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if all slots are taken or the pool is shut down.
    #[track_caller]
    pub fn try_stream<F, Fut, T>(&self, f: F) -> Result<MessageStream<T>, TrySubmitError<F>>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.open(WaitMode::Never, Location::caller(), f).map_err(TrySubmitError::by(Refuser::Caller))
    }

    /// Makes the call of a stream.
    fn open<F, Fut, T>(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        f: F,
    ) -> Result<MessageStream<T>, (Refusal, F)>
    where
        F: FnMut(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let (sender, messages) = mpsc::channel(self.stream_buffer);
        let config = CallConfig { is_stream: true, ..self.config.clone() };
        let make = |mut f: F| {
            let attempt = move |target: Target| {
                let (sender, wire) = (sender.clone(), Arc::clone(target.wire()));
                let opened = f(target);
                async move {
                    let (metadata, mut stream, extensions) = opened.await?.into_parts();
                    while let Some(message) = stream.message().await? {
                        wire.note_delivered();
                        if sender.send(message).await.is_err() {
                            break; // the reader was dropped, and the call is about to be cancelled
                        }
                    }
                    drop(stream);
                    Ok(Response::from_parts(metadata, (), extensions))
                }
            };
            let unchanged: fn(CallResult<()>) -> CallResult<()> = |result| result;
            let outcome_of: fn(&CallResult<()>) -> TaskOutcome =
                |result| if result.is_ok() { TaskOutcome::Succeeded } else { TaskOutcome::Failed };
            (config.run(attempt), OnOutput { f: unchanged, on_worker: None, outcome_of })
        };
        let call = self.driver.spawn_with(wait_mode, location, f, make)?;
        Ok(MessageStream { driver: Arc::clone(&self.driver), messages, call: Some(call) })
    }
}

/// The reader of a stream of messages. Returned by [`Caller::stream`].
///
/// As an iterator it blocks until there is a message. On a worker this holds the worker; the stream
/// itself needs no worker. Async code awaits [`message`](Self::message) instead. Messages that were
/// received are returned before the error that ends the stream.
///
/// Dropping the reader cancels the call, which resets the stream and frees the slot. The pool's
/// `shutdown` waits for the stream. So a thread that reads a stream must read it to its end, or
/// drop the reader, before it shuts the pool down.
#[must_use = "dropping the reader cancels the stream"]
pub struct MessageStream<T> {
    driver: Arc<Driver>,
    /// The buffer.
    messages: mpsc::Receiver<T>,
    /// The call; `None` once its end was returned.
    call: Option<JoinHandle<CallResult<()>>>,
}

impl<T> MessageStream<T> {
    /// Returns the next message, or `None` at the end of the stream. Does not block. It is cancel
    /// safe: if the future is dropped before it is ready, no message is lost.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the stream has failed, once; then the stream ends. A cancellation or a
    /// panic is reported as [`Caller::call_blocking`] does.
    pub async fn message(&mut self) -> Result<Option<T>, CallError> {
        if let Some(message) = self.messages.recv().await {
            return Ok(Some(message));
        }
        let Some(call) = &mut self.call else { return Ok(None) };
        let ended = call.await;
        self.call = None;
        ended.unwrap_or_else(|error| Err(CallError::join(error))).map(|_| None)
    }
}

impl<T> Iterator for MessageStream<T> {
    type Item = Result<T, CallError>;

    /// Blocks until there is a message, or the stream has ended. On the I/O thread, which would
    /// wait for itself, it returns [`JoinError::WouldDeadlock`] in [`CallError::join_error`], and
    /// the stream ends. The same holds where [too many
    /// waits](crate::CancellationToken::cancel) are nested in callbacks.
    fn next(&mut self) -> Option<Self::Item> {
        self.call.as_ref()?;
        let is_here = self.driver.io().is_here();
        if !is_here && let Some(next) = io::block_on(self.message(), Deadline::NEVER) {
            return next.transpose();
        }
        self.messages.close();
        self.call.take()?.cancel();
        Some(Err(CallError::join(JoinError::WouldDeadlock(Cycle::default()))))
    }
}

impl<T> std::iter::FusedIterator for MessageStream<T> {}

impl<T> Drop for MessageStream<T> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.cancel();
        }
    }
}

unwind::safe!(MessageStream<T>, T);

impl<T> fmt::Debug for MessageStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("has_ended", &self.call.is_none()).finish_non_exhaustive()
    }
}
