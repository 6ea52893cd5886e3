//! How a worker waits for the deliveries of an event: by making those that nobody else makes.
//!
//! It goes through the recipients whose delivery has not ended. Where a runner is free it makes deliveries, at most those
//! that lie there, so as not to serve others for ever; where a delay is over it brings the delivery back; else it sleeps
//! until the next step of the bus, or until the next delay is over. So a wait ends even if all workers wait.

use super::envelope::Enveloped;
use super::mailbox::Mailbox;
use super::running::Stint;
use crate::agenda::Due;
use crate::deadline::Deadline;
use crate::local;
use crate::sync::Arc;

/// A wait that could not end: a handler that waits for a delivery to itself which cannot begin before it returns, or waits
/// nested deeper than a worker's stack is trusted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waiting for the event here would wait for ever")]
#[non_exhaustive]
pub struct WouldDeadlock;

/// A subscription, whatever the type of its events.
pub(super) trait Recipient: Send + Sync {
    fn name(&self) -> &Arc<str>;

    /// Makes deliveries, if there is something to be made by one more runner.
    fn help(self: Arc<Self>) -> Help;
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

impl<E: Send + Sync + 'static> Recipient for Mailbox<E> {
    fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    fn help(self: Arc<Self>) -> Help {
        let mut state = self.state.lock();
        if self.can_run(&state) {
            let number = self.takeable(&state);
            state.runners += 1;
            drop(state);
            self.run(Stint::Deliveries(number));
            return Help::Helped;
        }
        let is_full = state.runners >= self.limit();
        drop(state);
        if is_full {
            return if local::is_member_of(self.group) { Help::Stuck } else { Help::Later(Deadline::NEVER) };
        }
        match self.bring_back_due(self.shared.engine.timekeeper.watch().now()) {
            Ok(()) => Help::Helped,
            Err(due) => Help::Later(Deadline::NEVER.earlier(due.and_then(Due::instant))),
        }
    }
}

/// Helps until all deliveries of the event have ended.
pub(super) fn help(envelope: &dyn Enveloped) -> Result<(), WouldDeadlock> {
    if envelope.progress().is_finished() {
        return Ok(());
    }
    if local::depth() >= local::HELP_DEPTH {
        return Err(WouldDeadlock);
    }
    envelope.shared().steps.watch(|| {
        while !envelope.progress().is_finished() {
            match help_once(envelope) {
                Help::Helped => {}
                Help::Later(deadline) => return Err(deadline),
                Help::Stuck => return Ok(Err(WouldDeadlock)),
            }
        }
        Ok(Ok(()))
    })
}

/// Goes through the recipients once.
fn help_once(envelope: &dyn Enveloped) -> Help {
    let (mut helped, mut earliest) = (false, Deadline::NEVER);
    for index in 0..envelope.recipients() {
        if envelope.progress().has_ended(index) {
            continue;
        }
        match envelope.recipient(index).help() {
            Help::Helped => helped = true,
            Help::Later(deadline) => earliest = earliest.earlier(deadline.instant()),
            // Others may be helped before the answer is no; then there was still something to do.
            Help::Stuck if envelope.progress().has_ended(index) => helped = true,
            Help::Stuck => return Help::Stuck,
        }
    }
    if helped { Help::Helped } else { Help::Later(earliest) }
}
