//! The `source` of errors that hold an error of any type.
//!
//! The errors of groups and retried tasks hold an `E` of which they require `Display` only, because
//! `String`, `anyhow::Error` and boxed errors do not implement [`Error`]. Rust cannot ask whether a
//! generic type implements a trait. So the types that are known to implement it are compared one by
//! one. For any other type there is [`GroupError::into_boxed`](crate::GroupError::into_boxed).

use std::any::Any;
use std::env::VarError;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::AddrParseError;
use std::num::{ParseFloatError, ParseIntError, TryFromIntError};
use std::str::{ParseBoolError, Utf8Error};
use std::string::FromUtf8Error;
use std::time::SystemTimeError;

/// Returns the error as a source, if it is boxed, or is of a type of the standard library that is
/// listed here.
pub(crate) fn source_of<E: 'static>(error: &E) -> Option<&(dyn Error + 'static)> {
    let error: &dyn Any = error;
    boxed(error).or_else(|| listed(error))
}

fn boxed(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Box<dyn Error + Send>>() {
        return Some(&**error);
    }
    error.downcast_ref::<Box<dyn Error>>().map(|error| &**error)
}

fn listed(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    fn is<T: Error + 'static>(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
        error.downcast_ref::<T>().map(|error| error as _)
    }
    let types = [
        is::<io::Error>,
        is::<fmt::Error>,
        is::<ParseIntError>,
        is::<ParseFloatError>,
        is::<TryFromIntError>,
        is::<ParseBoolError>,
        is::<Utf8Error>,
        is::<FromUtf8Error>,
        is::<AddrParseError>,
        is::<VarError>,
        is::<SystemTimeError>,
    ];
    types.into_iter().find_map(|is_of_type| is_of_type(error))
}
