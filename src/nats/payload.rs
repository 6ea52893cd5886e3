//! What travels in messages, as bytes.

use super::error::BoxError;

/// Makes bytes of a value. Bytes and text are themselves; for JSON and the like, implement it for a wrapper.
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
///         Ok(format!("{} {}", self.image, self.width).into_bytes()) // or serde_json::to_vec(self)
///     }
/// }
///
/// impl Decode for Resize {
///     fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
///         let text = std::str::from_utf8(bytes)?;
///         let (image, width) = text.split_once(' ').ok_or("two numbers are wanted")?;
///         Ok(Self { image: image.parse()?, width: width.parse()? })
///     }
/// }
///
/// let job = Resize { image: 7, width: 640 };
/// assert_eq!(Resize::decode(&job.encode()?)?, job);
/// # Ok::<(), BoxError>(())
/// ```
pub trait Encode {
    /// The bytes.
    ///
    /// # Errors
    ///
    /// Whatever keeps the value from being written.
    fn encode(&self) -> Result<Vec<u8>, BoxError>;
}

/// Makes a value of bytes. The other half of [`Encode`].
pub trait Decode: Sized {
    /// The value.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the bytes.
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
