//! What an attempt is given to call: the channel, and what is sent with each request.

use std::fmt;
use std::time::{Duration, Instant};

use tonic::metadata::{AsciiMetadataValue, KeyAndValueRef, KeyRef, MetadataMap};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Tells the server how many attempts came before this one; left out of the first.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// The time the server has.
const TIMEOUT: &str = "grpc-timeout";
/// The longest time that the protocol has words for, eight digits of hours: 11,415 years.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(99_999_999 * 3_600);

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
        add_missing(request.metadata_mut(), &self.carried);
        if let Some(deadline) = self.deadline
            && !request.metadata().contains_key(TIMEOUT)
        {
            // A server reads zero as "no time"; that is for us to find out.
            let left = deadline.saturating_duration_since(Instant::now());
            request.set_timeout(left.clamp(Duration::from_millis(1), LONGEST_TIMEOUT));
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

/// Adds what `carried` has of keys that `own` has not: of each all values, in their order.
fn add_missing(own: &mut MetadataMap, carried: &MetadataMap) {
    // Decided before anything is added, so that the first value of a key does not keep out the others.
    let is_missing = |entry| match entry {
        KeyAndValueRef::Ascii(key, _) => !own.contains_key(key),
        KeyAndValueRef::Binary(key, _) => own.get_bin(key).is_none(),
    };
    let missing: Vec<bool> = carried.iter().map(is_missing).collect();
    let entries = carried.iter().zip(missing).filter(|(_, is_missing)| *is_missing);
    entries.for_each(|(entry, _)| append(own, &entry));
}

/// Carries what `keys` name in `incoming`, in whatever case, without what belongs to the protocol. Of each key all values
/// are carried, in the place of those that were before.
pub(super) fn carry(carried: &mut MetadataMap, incoming: &MetadataMap, keys: &[&str]) {
    let is_own = |key: &str| key.starts_with("grpc-") || matches!(key, "te" | "content-type" | "user-agent");
    let is_meant = |key: &str| keys.iter().any(|meant| meant.eq_ignore_ascii_case(key)) && !is_own(key);
    for key in incoming.keys() {
        match key {
            KeyRef::Ascii(key) if is_meant(key.as_str()) => drop(carried.remove(key)),
            KeyRef::Binary(key) if is_meant(key.as_str()) => drop(carried.remove_bin(key)),
            _ => {}
        }
    }
    for entry in incoming.iter() {
        let name = match entry {
            KeyAndValueRef::Ascii(key, _) => key.as_str(),
            KeyAndValueRef::Binary(key, _) => key.as_str(),
        };
        if is_meant(name) {
            append(carried, &entry);
        }
    }
}

fn append(to: &mut MetadataMap, entry: &KeyAndValueRef<'_>) {
    match *entry {
        KeyAndValueRef::Ascii(key, value) => to.append(key.clone(), value.clone()),
        KeyAndValueRef::Binary(key, value) => to.append_bin(key.clone(), value.clone()),
    };
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn outfit(carried: MetadataMap, deadline: Option<Instant>) -> Outfit {
        Outfit { carried, previous: 0, deadline }
    }

    fn values<'a>(metadata: &'a MetadataMap, key: &str) -> Vec<&'a str> {
        metadata.get_all(key).iter().map(|value| value.to_str().expect("it is text")).collect()
    }

    fn metadata(entries: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in entries {
            metadata.append(*key, AsciiMetadataValue::from_static(value));
        }
        metadata
    }

    #[test]
    fn all_values_of_a_carried_key_are_sent_in_their_order_text_and_binary() {
        let mut incoming = metadata(&[("baggage", "a=1"), ("other", "x"), ("baggage", "b=2")]);
        for bytes in [b"one", b"two"] {
            incoming.append_bin("trace-bin", MetadataValue::from_bytes(bytes));
        }
        let mut carried = metadata(&[("baggage", "of before"), ("kept", "yes")]);
        carry(&mut carried, &incoming, &["baggage", "trace-bin"]);
        let sent = outfit(carried.clone(), None).call(Request::new(())).expect("nothing is refused");
        assert_eq!(values(sent.metadata(), "baggage"), ["a=1", "b=2"]);
        assert_eq!((values(sent.metadata(), "kept"), values(sent.metadata(), "other")), (vec!["yes"], vec![]));
        let bytes: Vec<_> = sent.metadata().get_all_bin("trace-bin").iter().map(MetadataValue::to_bytes).collect();
        assert_eq!(bytes.into_iter().map(|bytes| bytes.expect("it is base64")).collect::<Vec<_>>(), ["one", "two"]);
        // What the request says itself is all that is said.
        let mut own = Request::new(());
        own.metadata_mut().insert("baggage", AsciiMetadataValue::from_static("own"));
        let sent = outfit(carried, None).call(own).expect("nothing is refused");
        assert_eq!(values(sent.metadata(), "baggage"), ["own"]);
    }

    #[test]
    fn carried_keys_are_named_in_any_case_and_the_protocols_are_not_carried() {
        let incoming = metadata(&[("traceparent", "t"), ("grpc-timeout", "1n"), ("te", "trailers")]);
        let mut carried = MetadataMap::new();
        carry(&mut carried, &incoming, &["TraceParent", "GRPC-Timeout", "TE"]);
        assert_eq!((values(&carried, "traceparent"), carried.len()), (vec!["t"], 1));
    }

    #[test]
    fn debug_shows_nothing_of_what_is_carried() {
        let shown = format!("{:?}", outfit(metadata(&[("authorization", "secret")]), None));
        assert_eq!(shown, "Outfit { previous: 0, deadline: None, .. }");
    }

    #[test]
    fn no_time_is_too_long_or_too_short_to_be_told() {
        let now = Instant::now();
        let told = |deadline| {
            let request =
                outfit(MetadataMap::new(), Some(deadline)).call(Request::new(())).expect("nothing is refused");
            values(request.metadata(), TIMEOUT).concat()
        };
        assert_eq!(told(now), "1000000n");
        for exponent in 0..64 {
            let Some(deadline) = now.checked_add(Duration::from_secs(1 << exponent)) else { continue };
            let told = told(deadline);
            assert!(told.len() <= 9 && told != "0H", "2^{exponent} s: {told}");
            assert!(exponent < 39 || told == "99999999H", "2^{exponent} s: {told}");
        }
    }
}
