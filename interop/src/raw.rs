//! Messages that are bytes, and a client for them.

use bytes::{Buf, BufMut};
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body, StdError};
use tonic::{Request, Response, Status, Streaming};

/// Puts bytes on the wire as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// A client as a generator would make it, but for one method that calls any: texts go and texts come.
#[derive(Clone, Debug)]
pub struct RawClient<T> {
    inner: Grpc<T>,
}

impl<T> RawClient<T>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client on this channel.
    pub fn new(channel: T) -> Self {
        Self { inner: Grpc::new(channel) }
    }

    /// Calls a unary method of `interop.Script`.
    ///
    /// # Errors
    ///
    /// The status of the server, or what stands for it.
    pub async fn call(&mut self, method: &str, request: Request<String>) -> Result<Response<String>, Status> {
        self.inner.ready().await.map_err(|error| Status::unknown(error.into().to_string()))?;
        let path = format!("/interop.Script/{method}").parse::<PathAndQuery>().map_err(|_| Status::internal("path"))?;
        let response = self.inner.unary(request.map(String::into_bytes), path, RawCodec).await?;
        Ok(response.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Calls a method of `interop.Script` whose answer is a stream.
    ///
    /// # Errors
    ///
    /// The status of the server, or what stands for it.
    pub async fn stream(
        &mut self,
        method: &str,
        request: Request<String>,
    ) -> Result<Response<Streaming<Vec<u8>>>, Status> {
        self.inner.ready().await.map_err(|error| Status::unknown(error.into().to_string()))?;
        let path = format!("/interop.Script/{method}").parse::<PathAndQuery>().map_err(|_| Status::internal("path"))?;
        self.inner.server_streaming(request.map(String::into_bytes), path, RawCodec).await
    }

    /// Limits what is sent and what is taken.
    #[must_use]
    pub fn limits(self, sent: usize, taken: usize) -> Self {
        Self { inner: self.inner.max_encoding_message_size(sent).max_decoding_message_size(taken) }
    }
}
