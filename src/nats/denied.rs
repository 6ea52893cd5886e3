//! What the server did not permit, as its complaints tell: they name a subject, and no call.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::Link;
use super::error::PublishError;
use crate::io;
use crate::sync::{Arc, Mutex};
use crate::time::deadline::Deadline;

/// How many complaints are kept.
const MAX_KEPT: usize = 64;
/// How long a subscription waits at most for the server's word on it.
const LONGEST_PROBE: Duration = Duration::from_secs(1);

/// The complaints of the server about permissions, the latest last. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Denials(Arc<Mutex<VecDeque<String>>>);

impl Denials {
    /// Keeps a complaint, if it is about a permission.
    pub(super) fn note(&self, complaint: &str) {
        if !complaint.to_lowercase().contains("permissions violation") {
            return;
        }
        let mut kept = self.0.lock();
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(complaint.to_owned());
    }

    /// Takes out what was said of a subscription to this subject.
    fn take(&self, subject: &str) -> Option<String> {
        let wanted = format!("for subscription to \"{}\"", subject.to_lowercase());
        let mut kept = self.0.lock();
        let place = kept.iter().position(|complaint| complaint.to_lowercase().contains(&wanted))?;
        kept.remove(place)
    }

    fn is_inbox_denied(&self, prefix: &str) -> bool {
        let wanted = format!("for subscription to \"{}", prefix.to_lowercase());
        self.0.lock().iter().any(|complaint| complaint.to_lowercase().contains(&wanted))
    }
}

/// Waits until the server has seen a subscription, and says whether it is denied. While there is no
/// connection, or no permission for the inbox of the answer, that is not known, and counts as no.
pub(super) fn check_subscription(link: &Link, subject: &str) -> Result<(), PublishError> {
    let inbox = link.client.new_inbox();
    let prefix = inbox.rsplit_once('.').map_or(&*inbox, |(prefix, _)| prefix);
    if !link.is_connected() || link.denials.is_inbox_denied(prefix) {
        return Ok(());
    }
    // Nothing listens there, so the server answers at once, and after what it has to say of the subscription.
    let asked = link.client.request(inbox.clone(), "".into());
    let _ = link.wait_until(asked, Deadline::after(link.timeout.min(LONGEST_PROBE)));
    // What the server says of permissions reaches us by another task of the I/O thread.
    let _ = link.io.block_on(async { io::sleep(Duration::from_millis(1)).await }, Deadline::after(LONGEST_PROBE));
    link.denials.take(subject).map_or(Ok(()), |complaint| Err(PublishError::Denied(complaint)))
}
