//! What an attempt is given to call: the channel, and what is sent with each request.

use std::fmt;
use std::time::{Duration, Instant};

use tonic::metadata::{AsciiMetadataValue, KeyAndValueRef, MetadataMap};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Tells the server how many attempts came before this one; left out of the first.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// The time the server has.
const TIMEOUT: &str = "grpc-timeout";

/// The channel of one attempt: what the `new` of a tonic client takes.
pub type Target = InterceptedService<Channel, Outfit>;

/// What an attempt sends with its requests: the carried metadata, the time that is left, the number of the attempt. What
/// the request itself says of the first two is left alone.
#[derive(Clone)]
pub struct Outfit {
    /// Never the protocol's own keys.
    pub(super) carried: MetadataMap,
    /// How many attempts came before.
    pub(super) previous: u32,
    /// When the attempt is given up.
    pub(super) deadline: Option<Instant>,
}

impl Interceptor for Outfit {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for entry in self.carried.iter() {
            match entry {
                KeyAndValueRef::Ascii(key, value) if !request.metadata().contains_key(key) => {
                    request.metadata_mut().append(key.clone(), value.clone());
                }
                KeyAndValueRef::Binary(key, value) if request.metadata().get_bin(key).is_none() => {
                    request.metadata_mut().append_bin(key.clone(), value.clone());
                }
                _ => {}
            }
        }
        if let Some(deadline) = self.deadline
            && !request.metadata().contains_key(TIMEOUT)
        {
            // A server reads zero as "no time"; that is for us to find out.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            request.set_timeout(left);
        }
        if self.previous > 0 {
            request.metadata_mut().insert(PREVIOUS_ATTEMPTS, AsciiMetadataValue::from(self.previous));
        }
        Ok(request)
    }
}

impl fmt::Debug for Outfit {
    /// Leaves the carried values out: there may be secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outfit")
            .field("previous", &self.previous)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// What `keys` name in `incoming`, without what belongs to the protocol.
pub(super) fn carry(carried: &mut MetadataMap, incoming: &MetadataMap, keys: &[&str]) {
    let is_own = |key: &str| key.starts_with("grpc-") || matches!(key, "te" | "content-type" | "user-agent");
    for entry in incoming.iter() {
        match entry {
            KeyAndValueRef::Ascii(key, value) if keys.contains(&key.as_str()) && !is_own(key.as_str()) => {
                carried.insert(key.clone(), value.clone());
            }
            KeyAndValueRef::Binary(key, value) if keys.contains(&key.as_str()) && !is_own(key.as_str()) => {
                carried.insert_bin(key.clone(), value.clone());
            }
            _ => {}
        }
    }
}
