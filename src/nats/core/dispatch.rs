//! Passes the events of the client library on, to workers and to the user's callback.

use super::denied::{Denial, Denials};
use crate::io::mpsc;
use crate::nats::event::Event;
use crate::sync::{Arc, Mutex};
use crate::unwind;

/// Passes on the events of one connection.
pub(crate) struct EventDispatcher {
    pub(crate) callback: EventCallback,
    pub(crate) listeners: ConnectionListeners,
    pub(crate) denials: Denials,
    /// The prefix of the subjects of answers.
    pub(crate) inbox: String,
}

impl EventDispatcher {
    pub(crate) fn dispatch(&self, event: async_nats::Event) {
        let Some(event) = of_client(event) else { return };
        let for_listeners = match &event {
            Event::Connected => Some(ConnectionEvent::Connected),
            Event::Disconnected => {
                self.denials.forget_inbox();
                Some(ConnectionEvent::Disconnected)
            }
            Event::Denied(text) => {
                let denial = Denial::read(text);
                denial.iter().for_each(|denial| self.denials.record(denial, &self.inbox));
                if denial.as_ref().is_some_and(Denial::is_of_probe) {
                    return;
                }
                denial.map(ConnectionEvent::Denied)
            }
            _ => None,
        };
        if let Some(for_listeners) = for_listeners {
            self.listeners.lock().iter().for_each(|listener| listener.notify(for_listeners.clone()));
        }
        self.callback.call(&event);
    }
}

/// The listeners of a connection.
pub(crate) type ConnectionListeners = Arc<Mutex<Vec<Box<dyn ConnectionListener>>>>;

/// A worker that listens to events of the connection.
pub(crate) trait ConnectionListener: Send + Sync {
    fn is_closed(&self) -> bool;
    fn notify(&self, event: ConnectionEvent);
}

/// A change of the connection that concerns workers.
#[derive(Clone, Debug)]
pub(crate) enum ConnectionEvent {
    /// There is a connection again.
    Connected,
    /// The connection is lost.
    Disconnected,
    /// The server denied a permission.
    Denied(Denial),
}

impl<T: Send, F: Fn(ConnectionEvent) -> T + Send + Sync> ConnectionListener for (mpsc::UnboundedSender<T>, F) {
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn notify(&self, event: ConnectionEvent) {
        let _ = self.0.send((self.1)(event));
    }
}

/// The user's callback for events, if there is one.
#[derive(Clone, Default)]
pub(crate) struct EventCallback(Option<Arc<Callback>>);

/// The type of the user's callback.
type Callback = dyn Fn(&Event) + Send + Sync;

impl EventCallback {
    pub(crate) fn new(f: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(f)))
    }

    /// Calls the callback, and catches its panic.
    pub(crate) fn call(&self, event: &Event) {
        if let Some(f) = &self.0 {
            let _ = unwind::catch(|| f(event)).map_err(unwind::discard);
        }
    }
}

/// Converts an event of the client library; `None` if it does not concern users.
pub(crate) fn of_client(event: async_nats::Event) -> Option<Event> {
    match event {
        async_nats::Event::Connected => Some(Event::Connected),
        async_nats::Event::Disconnected => Some(Event::Disconnected),
        async_nats::Event::LameDuckMode => Some(Event::LameDuck),
        async_nats::Event::SlowConsumer(_) => Some(Event::SlowConsumer),
        async_nats::Event::ServerError(error) => {
            let text = error.to_string();
            let is_denial = Denial::read(&text).is_some();
            Some(if is_denial { Event::Denied(text) } else { Event::Warning(text) })
        }
        async_nats::Event::ClientError(error) => Some(Event::Warning(error.to_string())),
        async_nats::Event::Draining | async_nats::Event::Closed => None,
    }
}
