//! The transport of requests: a tonic channel, or a service of the user.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, StdError, http};
use tonic::transport::Channel;

/// A transport of requests. Clones share the connection.
pub(super) enum Transport {
    /// The channel of an endpoint. Saves two boxes a call.
    Channel(Channel),
    /// A service of the user.
    Service(Box<dyn AnyService>),
}

/// The error of a service of the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ServiceError(#[source] StdError);

/// A service of any type.
pub(super) trait AnyService: Send + Sync {
    fn clone_box(&self) -> Box<dyn AnyService>;
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>>;
    fn call(&mut self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, StdError>;
}

impl<S, B> AnyService for S
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    fn clone_box(&self) -> Box<dyn AnyService> {
        Box::new(self.clone())
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Service::poll_ready(self, context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, StdError> {
        let response = Service::call(self, request);
        Box::pin(async move {
            let response = response.await.map_err(|error| ServiceError(error.into()))?;
            Ok(response.map(Body::new))
        })
    }
}

impl Transport {
    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Self::Channel(channel) => Service::poll_ready(channel, context).map_err(Into::into),
            Self::Service(service) => service.poll_ready(context),
        }
    }

    pub(super) fn call(&mut self, request: http::Request<Body>) -> ResponseFuture {
        match self {
            Self::Channel(channel) => ResponseFuture::Channel(Service::call(channel, request)),
            Self::Service(service) => ResponseFuture::Service(service.call(request)),
        }
    }
}

impl Clone for Transport {
    fn clone(&self) -> Self {
        match self {
            Self::Channel(channel) => Self::Channel(channel.clone()),
            Self::Service(service) => Self::Service((**service).clone_box()),
        }
    }
}

/// A future of the head of a response.
pub(super) enum ResponseFuture {
    Channel(<Channel as Service<http::Request<Body>>>::Future),
    Service(BoxFuture<http::Response<Body>, StdError>),
    /// Known without a request. `None` once it was returned.
    Ready(Option<Result<http::Response<Body>, StdError>>),
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, StdError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Channel(response) => Pin::new(response).poll(context).map_err(Into::into),
            Self::Service(response) => response.as_mut().poll(context),
            Self::Ready(response) => {
                Poll::Ready(response.take().expect("a future is not polled after it returned `Ready`"))
            }
        }
    }
}
