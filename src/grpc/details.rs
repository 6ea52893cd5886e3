//! Reads when a server asks to be called again: from the pushback header, and from
//! `google.rpc.RetryInfo` among the details of a status.
//!
//! The details are a Protocol Buffers message. Only a few fields matter, so the parser is
//! handwritten:
//!
//! | message | field | type |
//! |---|---|---|
//! | `google.rpc.Status` | 3 `details` | `google.protobuf.Any`, repeated |
//! | `google.protobuf.Any` | 1 `type_url`, 2 `value` | string, bytes |
//! | `google.rpc.RetryInfo` | 1 `retry_delay` | `google.protobuf.Duration`: 1 `seconds` (`int64`), 2 `nanos` (`int32`) |
//!
//! Malformed details are ignored.

use std::time::Duration;

use tonic::Status;

/// The key of the pushback header.
const PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";
/// The end of the type URL of a `RetryInfo`.
const RETRY_INFO: &[u8] = b"google.rpc.RetryInfo";

/// A server's request about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushback {
    /// Retry after this delay.
    After(Duration),
    /// Do not retry.
    Never,
}

/// Returns the pushback of the server that sent this status. The header takes precedence, because
/// it is part of the protocol.
pub(super) fn pushback(status: &Status) -> Option<Pushback> {
    let mut values = status.metadata().get_all(PUSHBACK_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => retry_delay(status.details()).map(Pushback::After),
        // Several values, or a value that is not a number from zero up, mean "do not retry".
        (Some(_), Some(_)) => Some(Pushback::Never),
        (Some(value), None) => {
            let delay = value.to_str().ok().and_then(|text| text.parse().ok()).map(Duration::from_millis);
            Some(delay.map_or(Pushback::Never, Pushback::After))
        }
    }
}

/// Returns the delay of the first `RetryInfo` that has one.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    fields(details)?.into_iter().filter_map(|field| field.bytes(3)).find_map(|any| {
        let any = fields(any)?;
        let is_retry_info = any
            .iter()
            .filter_map(|field| field.bytes(1))
            .next_back()
            .is_some_and(|url| url.strip_suffix(RETRY_INFO).is_some_and(|authority| authority.ends_with(b"/")));
        let info = any.iter().filter_map(|field| field.bytes(2)).next_back().filter(|_| is_retry_info)?;
        let delay = fields(info)?.iter().filter_map(|field| field.bytes(1)).next_back()?;
        duration(&fields(delay)?)
    })
}

/// Reads a `google.protobuf.Duration`. A negative one counts as zero.
fn duration(fields: &[Field<'_>]) -> Option<Duration> {
    let last = |number| fields.iter().filter_map(|field| field.varint(number)).next_back().unwrap_or(0);
    // Both are signed, and encoded in the two's complement of 64 bits.
    let (seconds, nanos) = (last(1) as i64, last(2) as i64);
    if nanos.unsigned_abs() > 999_999_999 {
        return None;
    }
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let nanos = u128::try_from(nanos).unwrap_or(0);
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// One field of a message.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
}

/// The value of a field.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A value of fixed size. No field that matters has one.
    Fixed,
}

impl<'a> Field<'a> {
    fn bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }

    fn varint(&self, number: u64) -> Option<u64> {
        match self.value {
            Value::Varint(value) if self.number == number => Some(value),
            _ => None,
        }
    }
}

/// Returns the fields of a message, or `None` if it is malformed.
fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut message)?),
            1 => take(&mut message, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                Value::Bytes(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, value });
    }
    Some(fields)
}

/// Takes the first `length` bytes.
fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

/// Takes a varint: seven bits a byte, the lowest first, at most ten bytes.
fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(message, 1)?.first()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::metadata::MetadataMap;

    use super::*;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
    }

    fn number(number: u64, value: i64) -> Vec<u8> {
        [varint(number << 3), varint(value as u64)].concat()
    }

    fn any(url: &str, value: &[u8]) -> Vec<u8> {
        field(3, &[field(1, url.as_bytes()), field(2, value)].concat())
    }

    fn info(seconds: i64, nanos: i64) -> Vec<u8> {
        any("type.googleapis.com/google.rpc.RetryInfo", &field(1, &[number(1, seconds), number(2, nanos)].concat()))
    }

    fn status(details: &[u8], values: &[&'static str]) -> Status {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append(PUSHBACK_KEY, value.parse().expect("it is a value"));
        }
        Status::with_details_and_metadata(Code::Unavailable, "", details.to_vec().into(), metadata)
    }

    /// Fault 184.
    #[test]
    fn a_retry_info_is_read_among_other_details_and_saturates() {
        let seconds = |details: &[u8]| retry_delay(details).map(|delay| delay.as_secs_f64());
        let others = [number(1, 14), field(2, b"busy"), any("type.googleapis.com/google.rpc.ErrorInfo", &info(9, 0))];
        let details = [others.concat(), info(1, 500_000_000), info(7, 0)].concat();
        assert_eq!(seconds(&details), Some(1.5));
        assert_eq!(seconds(&[number(1, 14), field(2, b"busy")].concat()), None);
        assert_eq!(seconds(&any("type.googleapis.com/google.rpc.RetryInfo", b"")), None, "it has no delay");
        assert_eq!(seconds(&any("type.googleapis.com/not.google.rpc.RetryInfo", &field(1, &number(1, 3)))), None);
        assert_eq!(seconds(&info(-5, -1)), Some(0.0));
        assert_eq!(seconds(&info(i64::MIN, -999_999_999)), Some(0.0));
        assert_eq!(retry_delay(&info(i64::MAX, 999_999_999)), Some(Duration::new(i64::MAX as u64, 999_999_999)));
        assert_eq!(seconds(&info(1, 1_000_000_000)), None, "no duration has that many nanoseconds");
    }

    /// Fault 184.
    #[test]
    fn malformed_details_are_ignored_and_never_panic() {
        let whole = [number(1, 14), field(2, b"busy"), vec![0x0d, 1, 2, 3, 4], vec![0x09; 9], info(3, 4)].concat();
        assert!(retry_delay(&whole).is_some());
        for length in 0..whole.len() {
            let _ = retry_delay(&whole[..length]);
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[length] ^= 1 << bit;
                let _ = retry_delay(&flipped);
            }
        }
        for malformed in [&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0xff; 11], &[0x1b]]
        {
            assert_eq!(retry_delay(malformed), None);
        }
    }

    #[test]
    fn the_header_precedes_the_details_and_several_or_invalid_values_mean_never() {
        let delay = |millis| Some(Pushback::After(Duration::from_millis(millis)));
        assert_eq!(pushback(&status(&info(2, 0), &[])), delay(2_000));
        assert_eq!(pushback(&status(&info(2, 0), &["30"])), delay(30));
        assert_eq!(pushback(&status(&[], &["18446744073709551615"])), delay(u64::MAX));
        for values in [&["-1"][..], &["soon"], &["1", "1"], &[""], &["18446744073709551616"]] {
            assert_eq!(pushback(&status(&info(2, 0), values)), Some(Pushback::Never), "{values:?}");
        }
        assert_eq!(pushback(&status(&[], &[])), None);
    }
}
