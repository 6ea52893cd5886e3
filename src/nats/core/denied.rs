//! The permissions that the server denied. Its messages name a subject, but no call.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex};

/// How many denials of each kind are kept.
const MAX_KEPT: usize = 64;

/// The suffix of the subject of a message that this crate sends to itself.
pub(crate) const PROBE: &str = ".probe";

/// The server's message about a denied permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The subject that was published to, or subscribed to.
    pub(crate) subject: String,
    pub(crate) is_publish: bool,
    /// The server's message.
    pub(crate) text: String,
}

impl Denial {
    /// Returns `true` if it is about a message that this crate sent to itself, which does not
    /// concern the user.
    pub(crate) fn is_of_probe(&self) -> bool {
        self.subject.ends_with(PROBE)
    }

    /// Reads an error message of the server; `None` if it is not about a permission.
    pub(crate) fn read(message: &str) -> Option<Self> {
        let lower = message.to_ascii_lowercase();
        if !lower.contains("permissions violation") {
            return None;
        }
        let (_, rest) = message.split_once('"')?;
        let (subject, _) = rest.split_once('"')?;
        let is_publish = lower.contains("for publish to ");
        Some(Self { subject: subject.to_owned(), is_publish, text: message.to_owned() })
    }
}

/// The denied permissions of a connection. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Denials(Arc<Mutex<State>>);

/// The denials that are kept, and the calls that wait for one.
#[derive(Default)]
struct State {
    /// Denied subscriptions, the latest last.
    subscriptions: VecDeque<Denial>,
    /// Denied publishes, the latest last, each with its number.
    publishes: VecDeque<PublishDenial>,
    /// The number of the latest denied publish.
    last: u64,
    /// The denial of the inbox of all answers on this connection, if there is one.
    inbox: Option<Denial>,
    /// The waiting calls, each woken by the next denial. At most one for each waiting thread.
    waiting: Vec<(u64, Waker)>,
    /// The number of the next waiting call.
    next: u64,
}

/// A denial of a publish.
struct PublishDenial {
    number: u64,
    denial: Denial,
    /// Whether a call or a flush has reported it.
    is_reported: bool,
}

/// A call that waits for a denial of its own subjects. Dropping it removes it from the list.
pub(crate) struct DenialWatcher<'a> {
    denials: &'a Denials,
    mark: Mark,
    /// `None` until it first waits.
    number: Option<u64>,
}

impl<'a> DenialWatcher<'a> {
    pub(crate) fn new(denials: &'a Denials, mark: Mark) -> Self {
        Self { denials, mark, number: None }
    }

    /// Is ready when one of these subjects was denied since the mark, or the inbox of answers is
    /// denied.
    pub(crate) fn poll(&mut self, subjects: &[String], context: &Context<'_>) -> Poll<String> {
        let mut state = self.denials.0.lock();
        let is_meant =
            |publish: &&mut PublishDenial| publish.number > self.mark.0 && subjects.contains(&publish.denial.subject);
        if let Some(publish) = state.publishes.iter_mut().find(is_meant) {
            publish.is_reported = true;
            return Poll::Ready(publish.denial.text.clone());
        }
        if let Some(denial) = &state.inbox {
            return Poll::Ready(denial.text.clone());
        }
        let next = state.next;
        let number = *self.number.get_or_insert_with(|| {
            state.next += 1;
            next
        });
        match state.waiting.iter_mut().find(|(other, _)| *other == number) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => state.waiting.push((number, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for DenialWatcher<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.denials.0.lock().waiting.retain(|(other, _)| *other != number);
        }
    }
}

/// A position among the denied publishes. Later ones concern the call that took the mark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Denials {
    /// Keeps a denial and wakes the waiting calls. `inbox` is the prefix of the subjects of
    /// answers.
    pub(crate) fn record(&self, denial: &Denial, inbox: &str) {
        let mut state = self.0.lock();
        if denial.is_publish {
            state.last += 1;
            let publish = PublishDenial { number: state.last, denial: denial.clone(), is_reported: false };
            push(&mut state.publishes, publish);
        } else {
            if denial.subject.strip_prefix(inbox).is_some_and(|rest| rest.starts_with('.')) {
                state.inbox = Some(denial.clone());
            }
            push(&mut state.subscriptions, denial.clone());
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Forgets the denial of the inbox: the connection and its permissions are gone.
    pub(crate) fn forget_inbox(&self) {
        self.0.lock().inbox = None;
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.0.lock().last)
    }

    /// Removes and returns the denial of a subscription to this subject.
    pub(crate) fn take(&self, subject: &str) -> Option<String> {
        let mut state = self.0.lock();
        let place = state.subscriptions.iter().position(|denial| denial.subject == subject)?;
        // It was a subscription of the user, and not the inbox.
        state.inbox.take_if(|denial| denial.subject == subject);
        state.subscriptions.remove(place).map(|denial| denial.text)
    }

    /// Takes the denied publishes that were not reported yet. Returns the latest.
    pub(crate) fn take_publish(&self) -> Option<String> {
        let mut state = self.0.lock();
        let unreported =
            state.publishes.iter_mut().filter(|publish| !publish.is_reported && !publish.denial.is_of_probe());
        let reported = unreported.map(|publish| {
            publish.is_reported = true;
            publish.denial.text.clone()
        });
        reported.last()
    }

    pub(crate) fn is_inbox_denied(&self) -> bool {
        self.0.lock().inbox.is_some()
    }
}

fn push<T>(state: &mut VecDeque<T>, entry: T) {
    if state.len() == MAX_KEPT {
        state.pop_front();
    }
    state.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_permission_names_its_subject_with_its_case() {
        let read = |text: &str| Denial::read(text).map(|denial| (denial.subject, denial.is_publish));
        let publish = "nats: Permissions Violation for Publish to \"Closed.a\"";
        assert_eq!(read(publish), Some(("Closed.a".to_owned(), true)));
        let subscribe = "nats: Permissions Violation for Subscription to \"b.>\" using queue \"q\"";
        assert_eq!(read(subscribe), Some(("b.>".to_owned(), false)));
        assert_eq!(read("nats: Maximum Payload Violation"), None);
        assert_eq!(read("nats: permissions violation"), None);
    }

    #[test]
    fn a_call_ends_by_a_denial_of_its_subjects_or_of_the_inbox() {
        let denials = Denials::default();
        let denial = |subject: &str, is_publish| Denial { subject: subject.into(), is_publish, text: subject.into() };
        let context = Context::from_waker(Waker::noop());
        let subjects = ["a".to_owned(), "b".to_owned()];
        denials.record(&denial("a", true), "_INBOX");
        let mark = denials.mark();
        let poll = |mark| DenialWatcher::new(&denials, mark).poll(&subjects, &context);
        assert!(poll(mark).is_pending(), "that was before");
        denials.record(&denial("c", true), "_INBOX");
        denials.record(&denial("a", false), "_INBOX");
        assert!(poll(mark).is_pending(), "that was another");
        denials.record(&denial("b", true), "_INBOX");
        assert_eq!(poll(mark), Poll::Ready("b".to_owned()));
        assert_eq!(denials.take_publish(), Some("c".to_owned()), "the last that no call was reported");
        assert_eq!(denials.take_publish(), None);
        denials.record(&denial("_INBOXES.x", false), "_INBOX");
        assert!(poll(denials.mark()).is_pending());
        denials.record(&denial("_INBOX.x.*", false), "_INBOX");
        assert_eq!(poll(denials.mark()), Poll::Ready("_INBOX.x.*".to_owned()));
        denials.forget_inbox();
        assert!(poll(denials.mark()).is_pending());
        for number in 0..200 {
            denials.record(&denial(&number.to_string(), true), "_INBOX");
        }
        assert_eq!(denials.0.lock().publishes.len(), MAX_KEPT);
        assert!(denials.0.lock().waiting.is_empty(), "each call that ended is forgotten");
    }
}
