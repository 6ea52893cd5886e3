//! A caller that speaks TLS and logs in with a token that is renewed. Runs by itself against a server in this process.

use std::error::Error;
use std::sync::{Arc, RwLock};

use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server as Settings, ServerTlsConfig};
use workcrew::WorkerPool;
use workcrew::grpc::{Caller, Target};
use workcrew_interop::{RawClient, Script, Server};

const CA: &str = include_str!("../tests/tls/ca.pem");

fn main() -> Result<(), Box<dyn Error>> {
    let identity = Identity::from_pem(include_str!("../tests/tls/server.pem"), include_str!("../tests/tls/server.key"));
    let settings = Settings::builder().tls_config(ServerTlsConfig::new().identity(identity))?;
    let server = Server::start_with(&Script::default(), ([127, 0, 0, 1], 0).into(), settings);

    // The token is renewed elsewhere; each attempt sends the one that is there.
    let token = Arc::new(RwLock::new("first".to_owned()));
    let current = Arc::clone(&token);
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(CA));
    let pool = WorkerPool::builder().workers(2).build()?;
    let caller = Caller::builder(Endpoint::from_shared(format!("https://{}", server.address()))?.tls_config(tls)?)
        .intercept(move |mut request| {
            let token = current.read().map_err(|_| tonic::Status::internal("the token is lost"))?;
            let bearer = AsciiMetadataValue::try_from(format!("Bearer {token}"));
            let bearer = bearer.map_err(|_| tonic::Status::unauthenticated("the token is no text"))?;
            request.metadata_mut().insert("authorization", bearer);
            Ok(request)
        })
        .connect(&pool)?; // a wrong certificate is found here

    let seen = |target: Target| async move {
        RawClient::new(target).call("Trace", Request::new("key authorization".to_owned())).await
    };
    println!("the server has seen: {}", caller.call_blocking(seen)?.into_inner());
    *token.write().map_err(|_| "the token is lost")? = "second".to_owned();
    println!("the server has seen: {}", caller.call_blocking(seen)?.into_inner());
    pool.shutdown();
    Ok(())
}
