//! Payloads: how values become bytes, and bytes values.

use super::error::BoxError;

/// Converts a value into bytes. Bytes and text are themselves; for JSON and other formats,
/// implement it for a wrapper.
///
/// # Examples
///
/// ```
/// use workcrew::nats::{BoxError, Decode, Encode};
///
/// #[derive(Debug, PartialEq)]
/// struct Resize { image: u64, width: u32 }
///
/// impl Encode for Resize {
///     fn encode(&self) -> Result<Vec<u8>, BoxError> {
///         // Or: Ok(serde_json::to_vec(self)?)
///         Ok(format!("{} {}", self.image, self.width).into_bytes())
///     }
/// }
///
/// impl Decode for Resize {
///     fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
///         let text = std::str::from_utf8(bytes)?;
///         let (image, width) = text.split_once(' ').ok_or("two numbers are needed")?;
///         Ok(Self { image: image.parse()?, width: width.parse()? })
///     }
/// }
///
/// let job = Resize { image: 7, width: 640 };
/// assert_eq!(Resize::decode(&job.encode()?)?, job);
/// # Ok::<(), BoxError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a payload is text, bytes or a type that implements `Encode`, not `{Self}`",
    note = "implement `Encode` for your type, for example with `serde_json::to_vec`"
)]
pub trait Encode {
    /// Returns the bytes.
    ///
    /// # Errors
    ///
    /// Any error that prevents the value from being encoded.
    fn encode(&self) -> Result<Vec<u8>, BoxError>;
}

/// Converts bytes into a value. The counterpart of [`Encode`].
#[diagnostic::on_unimplemented(
    message = "a payload is read as a type that implements `Decode`, not as `{Self}`",
    note = "implement `Decode` for your type, for example with `serde_json::from_slice`"
)]
pub trait Decode: Sized {
    /// Returns the value.
    ///
    /// # Errors
    ///
    /// Any error in the bytes.
    fn decode(bytes: &[u8]) -> Result<Self, BoxError>;
}

impl Encode for [u8] {
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.to_vec())
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.to_vec())
    }
}

impl Encode for Vec<u8> {
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.clone())
    }
}

impl Encode for str {
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.as_bytes().to_vec())
    }
}

impl Encode for String {
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.as_bytes().to_vec())
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        (**self).encode()
    }
}

impl Decode for Vec<u8> {
    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(bytes.to_vec())
    }
}

impl Decode for String {
    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}
