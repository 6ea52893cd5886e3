//! How a worker waits for the deliveries of an event: by making those that nobody else makes.
//!
//! It goes through the recipients whose delivery has not ended. Where a runner is free it makes deliveries, at most those
//! that lie there, so as not to serve others for ever; where a delay is over it brings the delivery back; else it sleeps
//! until the next step of the bus, or until the next delay is over. So a wait ends even if all workers wait.
//!
//! A delivery below on this very stack does not end before the wait does. Nor does one begin for sure that waits for a runner
//! of a subscription at its limit, if a runner of that is below on this stack: the others may wait in the same way. Both are
//! errors.

use super::envelope::{Enveloped, Recipients};
use super::mailbox::{Mailbox, State};
use super::running::Stint;
use super::shared::Shared;
use crate::agenda::Due;
use crate::deadline::Deadline;
use crate::local;
use crate::sync::Arc;

/// A wait that would not end, or might not: a handler that waits for the event that it is handling; or for another of its
/// own subscription, for which no runner is free besides those on this stack (an ordered subscription has one; if all of a
/// concurrent one waited so, none would ever be); or waits nested deeper than a worker's stack is trusted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waiting for the event here would wait for ever")]
#[non_exhaustive]
pub struct WouldDeadlock;

/// Whom an event is for, whatever its type.
pub(super) trait AnyRecipients: Send + Sync {
    fn len(&self) -> usize;
    fn shared(&self) -> &Shared;

    /// Makes deliveries of one of them, if there is something to be made by one more runner, for a wait for the event that
    /// `subject` stands for.
    fn help(&self, index: usize, subject: usize) -> Help;
}

/// What came of helping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Help {
    /// Something was done.
    Helped,
    /// There is nothing to do before that moment, or before the next step of others.
    Later(Deadline),
    /// What is to be done can only be done by what lies below on this stack.
    Stuck,
}

impl<E: Send + Sync + 'static> AnyRecipients for Recipients<E> {
    fn len(&self) -> usize {
        self.mailboxes.len()
    }

    fn shared(&self) -> &Shared {
        &self.mailboxes[0].shared // an event is published to somebody
    }

    fn help(&self, index: usize, subject: usize) -> Help {
        self.mailboxes[index].help(subject)
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    fn help(self: &Arc<Self>, subject: usize) -> Help {
        if local::is_at(self.group, subject) {
            return Help::Stuck;
        }
        let mut state = self.state.lock();
        if self.can_run(&state) {
            let number = self.takeable(&state);
            state.runners += 1;
            drop(state);
            self.run(Stint::Deliveries(number));
            return Help::Helped;
        }
        if state.runners >= self.limit() {
            let is_stuck = local::is_member_of(self.group) && state.may_wait(subject);
            return if is_stuck { Help::Stuck } else { Help::Later(Deadline::NEVER) };
        }
        drop(state);
        match self.bring_back_due(self.shared.engine.timekeeper.watch().now()) {
            Ok(()) => Help::Helped,
            Err(due) => Help::Later(Deadline::NEVER.earlier(due.and_then(Due::instant))),
        }
    }
}

impl<E: Send + Sync + 'static> State<E> {
    /// Whether the delivery of the event that `subject` stands for may be waiting or delayed, rather than running.
    fn may_wait(&self, subject: usize) -> bool {
        !self.delayed.is_empty() || self.waiting.iter().any(|item| item.envelope.subject() == subject)
    }
}

/// On a worker of the pool: helps until all deliveries of the event have ended.
pub(super) fn help(envelope: &dyn Enveloped) -> Result<(), WouldDeadlock> {
    let Some(recipients) = envelope.recipients() else { return Ok(()) };
    if envelope.progress().is_finished() || !local::is_worker_of(recipients.shared().engine.pool()) {
        return Ok(());
    }
    if local::depth() >= local::HELP_DEPTH {
        return Err(WouldDeadlock);
    }
    recipients.shared().steps.watch(|| {
        while !envelope.progress().is_finished() {
            match help_once(envelope, &*recipients) {
                Help::Helped => {}
                Help::Later(deadline) => return Err(deadline),
                Help::Stuck => return Ok(Err(WouldDeadlock)),
            }
        }
        Ok(Ok(()))
    })
}

/// Goes through the recipients once.
fn help_once(envelope: &dyn Enveloped, recipients: &dyn AnyRecipients) -> Help {
    let (mut helped, mut earliest) = (false, Deadline::NEVER);
    for index in 0..recipients.len() {
        if envelope.progress().has_ended(index) {
            continue;
        }
        match recipients.help(index, envelope.subject()) {
            Help::Helped => helped = true,
            Help::Later(deadline) => earliest = earliest.earlier(deadline.instant()),
            // Others may be helped before the answer is no; then there was still something to do.
            Help::Stuck if envelope.progress().has_ended(index) => helped = true,
            Help::Stuck => return Help::Stuck,
        }
    }
    if helped { Help::Helped } else { Help::Later(earliest) }
}
