//! How calls end when the network, the server or the settings are at fault: what is sent again, and what is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::error::Error as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Foreign, LIMIT, attempt, caller, pool, quick, with_watchdog};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use workcrew::WorkerPool;
use workcrew::grpc::{CallError, Caller, CallerError, MethodConfig, Target, is_unsent};
use workcrew::retry::{GiveUpReason, RetryPolicy};
use workcrew_interop::{Act, Peer, RawClient, Script, Server, vacant_address};

/// One attempt against a peer.
fn end_of(act: Act) -> CallError {
    let (pool, peer) = (pool(1, 4), Peer::start(&[act]));
    let caller = caller(peer.address()).retry(quick().max_attempts(1)).build(&pool).unwrap();
    caller.call_blocking(attempt("Echo", "a b")).unwrap_err()
}

/// Fault 180.
#[test]
fn requests_that_the_server_did_not_process_count_as_unsent_and_are_retried() {
    with_watchdog(|| {
        for act in [Act::GoAway, Act::Reset(7)] {
            let error = end_of(act);
            assert_eq!((error.code(), error.is_unsent()), (Code::Unavailable, true), "{act:?}: {error:?}");
            let (pool, peer) = (pool(1, 4), Peer::start(&[act, act, Act::Answer]));
            // A call that must not run twice.
            let policy = quick().retry_if(|status: &Status| is_unsent(status));
            let caller = caller(peer.address()).retry(policy).build(&pool).unwrap();
            assert!(caller.call_blocking(attempt("Echo", "a b")).is_ok(), "{act:?}");
            assert_eq!(peer.requests(), 3);
        }
    });
}

/// Fault 181.
#[test]
fn every_other_end_has_the_code_of_the_protocol_and_may_have_been_sent() {
    with_watchdog(|| {
        let ends = [
            (Act::Close, Code::Unavailable),
            (Act::CloseInBody, Code::Unavailable),
            (Act::GoAwayAfter, Code::Unavailable),
            (Act::Reset(8), Code::Cancelled),
            (Act::Reset(0), Code::Internal),
            (Act::Reset(2), Code::Internal),
            (Act::Reset(11), Code::ResourceExhausted),
            (Act::Reset(12), Code::PermissionDenied),
            (Act::Garbage, Code::Internal),
            (Act::Http(503), Code::Unavailable),
            (Act::Http(431), Code::Unknown),
            (Act::Status(1, ""), Code::Cancelled),
        ];
        for (act, code) in ends {
            let error = end_of(act);
            assert_eq!((error.code(), error.is_unsent()), (code, false), "{act:?}: {error:?}");
        }
        // The server's own word is kept.
        let (pool, peer) = (pool(1, 4), Peer::start(&[Act::Reset(8)]));
        let caller = caller(peer.address()).retry(quick()).build(&pool).unwrap();
        let error = caller.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert_eq!((error.attempts(), error.reason(), peer.requests()), (1, Some(GiveUpReason::Permanent), 1));
    });
}

/// Fault 180. A server of grpcio that ends its connections, and a call that holds the old connection open.
#[test]
fn a_graceful_restart_fails_no_call() {
    with_watchdog(|| {
        let options = ["grpc.max_connection_age_ms=100", "grpc.max_connection_age_grace_ms=10000"];
        let Some(server) = Foreign::start_with(0, &options) else { return };
        let pool = pool(4, 64);
        let caller = caller(server.address).retry(quick()).build(&pool).unwrap();
        for _ in 0..3 {
            let long = caller.call(attempt("Slow", "long 700")).unwrap();
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(600) {
                if let Err(error) = caller.call_blocking(attempt("Echo", "short x")) {
                    panic!("{error:?} after {:?}", since.elapsed());
                }
            }
            assert!(long.join().unwrap().is_ok());
        }
    });
}

/// Fault 180.
#[test]
fn time_that_ran_out_before_anything_was_sent_is_worth_another_attempt() {
    with_watchdog(|| {
        // Takes connections into its backlog, and never answers them.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = pool(1, 4);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(CA)).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", mute.local_addr().unwrap())).unwrap();
        let policy = quick().max_attempts(3).attempt_timeout(Duration::from_millis(30));
        let caller = Caller::builder(endpoint.tls_config(tls).unwrap()).retry(policy).build(&pool).unwrap();
        let error = caller.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert_eq!((error.code(), error.is_unsent()), (Code::DeadlineExceeded, true), "{error:?}");
        assert_eq!((error.attempts(), error.reason()), (3, Some(GiveUpReason::Attempts)));
        // One that was sent is not.
        let server = Server::start(&Script::default());
        let policy = quick().attempt_timeout(Duration::from_millis(100));
        let caller = common::caller(server.address()).retry(policy).build(&pool).unwrap();
        let error = caller.call_blocking(attempt("Slow", "slow 60000")).unwrap_err();
        assert_eq!((error.attempts(), error.is_unsent()), (1, false), "{error:?}");
        assert!(mute.local_addr().is_ok());
    });
}

/// Fault 182.
#[test]
fn a_message_that_is_too_large_is_sent_once() {
    with_watchdog(|| {
        let pool = pool(2, 16);
        let own = Server::start(&Script::default());
        let foreign = Foreign::start(0);
        let addresses = [Some(own.address()), foreign.as_ref().map(|server| server.address)];
        for address in addresses.into_iter().flatten() {
            let caller = caller(address).retry(quick()).build(&pool).unwrap();
            let big = format!("big {}", "x".repeat(5 << 20));
            let error = caller.call_blocking(attempt("Echo", &big)).unwrap_err();
            let is_size = matches!(error.code(), Code::ResourceExhausted | Code::OutOfRange);
            assert!(is_size, "{error:?}");
            assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Permanent)), "{error:?}");
            // Metadata.
            let error = caller
                .call_blocking(|target| {
                    let mut request = Request::new("a b".to_owned());
                    request.metadata_mut().insert("big", "x".repeat(60_000).parse().unwrap());
                    async move { RawClient::new(target).call("Echo", request).await }
                })
                .unwrap_err();
            assert_eq!(error.attempts(), 1, "{error:?}");
            // Our own limits.
            for (sent, taken) in [(3, 1 << 20), (1 << 20, 3)] {
                let limited = move |target| async move {
                    let request = Request::new("a bcdefgh".to_owned());
                    RawClient::new(target).limits(sent, taken).call("Echo", request).await
                };
                let error = caller.call_blocking(limited).unwrap_err();
                assert_eq!((error.code(), error.attempts()), (Code::OutOfRange, 1), "{error:?}");
            }
        }
    });
}

/// Fault 184.
#[test]
fn a_retry_info_is_kept_and_one_that_is_too_long_ends_the_call() {
    with_watchdog(|| {
        let pool = pool(2, 16);
        let own = Server::start(&Script::default());
        let foreign = Foreign::start(0);
        let addresses = [Some(own.address()), foreign.as_ref().map(|server| server.address)];
        for address in addresses.into_iter().flatten() {
            let caller = caller(address).retry(RetryPolicy::fixed(Duration::from_secs(90))).build(&pool).unwrap();
            let since = Instant::now();
            assert_eq!(caller.call_blocking(attempt("Details", "later 1 1")).unwrap().into_inner(), "2");
            assert!((1..60).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
            // A server that says when to come back does not mean the size.
            assert_eq!(caller.call_blocking(attempt("Limit", "limit 0 1")).unwrap().into_inner(), "2");
            let error = caller.call_blocking(attempt("Details", "far 100 1")).unwrap_err();
            assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Deadline)), "{error:?}");
            assert!(error.is_deadline() && error.code() == Code::Unavailable);
        }
    });
}

/// Fault 185.
#[test]
fn details_that_are_no_base64_are_ignored() {
    with_watchdog(|| {
        for details in ["%%%", "====", "GgA", "Gv//////////"] {
            let error = end_of(Act::Status(14, details));
            assert_eq!((error.code(), error.attempts()), (Code::Unavailable, 1), "{details:?}: {error:?}");
            assert!(error.join_error().is_none(), "{details:?}: {error:?}");
        }
    });
}

const CA: &str = include_str!("tls/ca.pem");
const OTHER_CA: &str = include_str!("tls/other-ca.pem");

fn tls_server(client_ca: Option<&str>) -> Server {
    let identity = Identity::from_pem(include_str!("tls/server.pem"), include_str!("tls/server.key"));
    let config = ServerTlsConfig::new().identity(identity);
    let config = client_ca.map_or(config.clone(), |ca| config.client_ca_root(Certificate::from_pem(ca)));
    let settings = tonic::transport::Server::builder().tls_config(config).unwrap();
    Server::start_with(&Script::default(), ([127, 0, 0, 1], 0).into(), settings)
}

fn endpoint(scheme: &str, address: SocketAddr, ca: Option<&str>) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).unwrap();
    let Some(ca) = ca else { return endpoint };
    endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca))).unwrap()
}

/// Fault 183.
#[test]
fn a_wrong_certificate_or_setting_is_tried_once_and_names_its_cause() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (plain, tls, mutual) = (Server::start(&Script::default()), tls_server(None), tls_server(Some(CA)));
        let works = Caller::builder(endpoint("https", tls.address(), Some(CA))).build(&pool).unwrap();
        assert_eq!(works.call_blocking(attempt("Echo", "a works")).unwrap().into_inner(), "works");
        let wrong = [
            ("https", tls.address(), Some(OTHER_CA), "certificate"),
            ("https", tls.address(), None, "HTTPS"),
            ("https", plain.address(), Some(CA), "corrupt message"),
        ];
        for (scheme, address, ca, cause) in wrong {
            for waits in [false, true] {
                let builder = Caller::builder(endpoint(scheme, address, ca)).retry(quick());
                let caller = if waits { builder.wait_for_ready() } else { builder }.build(&pool).unwrap();
                let error = caller.call_blocking(attempt("Echo", "a b")).unwrap_err();
                assert_eq!(
                    (error.attempts(), error.reason()),
                    (1, Some(GiveUpReason::Permanent)),
                    "{cause}: {error:?}"
                );
                let text = error.to_string();
                assert!(text.contains(cause) && error.source().is_some(), "{cause}: {text}");
            }
        }
        // TLS 1.3 refuses a missing client certificate after the handshake. The reason may be lost with the connection.
        let mutual =
            Caller::builder(endpoint("https", mutual.address(), Some(CA))).retry(quick()).build(&pool).unwrap();
        let error = mutual.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        let error = Caller::builder(endpoint("https", tls.address(), Some(OTHER_CA))).connect(&pool).unwrap_err();
        assert!(matches!(error, CallerError::Connect(_)) && error.to_string().contains("certificate"), "{error}");
    });
}

/// Fault 187.
#[test]
fn a_setting_that_cannot_work_is_an_error_that_names_it() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let to = |uri: &str| Caller::builder(Endpoint::from_shared(uri.to_owned()).unwrap());
        let good = || to("http://127.0.0.1:1");
        let text = |builder: workcrew::grpc::CallerBuilder| builder.build(&pool).unwrap_err().to_string();
        assert!(text(good().max_in_flight(0)).starts_with("max_in_flight: "));
        assert!(text(good().max_in_flight(usize::MAX)).starts_with("max_in_flight: "));
        assert!(text(good().stream_buffer(0)).starts_with("stream_buffer: 0 "));
        assert!(text(good().stream_buffer(usize::MAX)).starts_with("stream_buffer: "));
        assert!(text(good().method("a.B/C", MethodConfig::new())).starts_with("method: `a.B/C` "));
        for bad in ["127.0.0.1:50051", "localhost", "ftp://127.0.0.1", "/path"] {
            assert!(text(to(bad)).starts_with("endpoint: `"), "{bad}");
        }
        assert!(good().build(&pool).is_ok() && to("unix:/tmp/no.sock").build(&pool).is_ok());
        // Times at both ends never panic.
        for time in [Duration::ZERO, Duration::MAX] {
            let server = Server::start(&Script::default());
            let policy = RetryPolicy::fixed(time).attempt_timeout(time).timeout(time).max_attempts(u32::MAX);
            let builder = caller(server.address())
                .timeout(time)
                .retry(policy)
                .method("/interop.Script/", MethodConfig::new().timeout(time).idempotent().wait_for_ready());
            let answer = builder.build(&pool).unwrap().with_timeout(time).call_blocking(attempt("Echo", "a b"));
            assert_eq!(answer.is_ok(), time == Duration::MAX, "{answer:?}");
        }
        pool.shutdown();
        assert!(good().build(&pool).unwrap().call_blocking(attempt("Echo", "a b")).unwrap_err().is_shut_down());
    });
}

/// Fault 187.
#[test]
fn connecting_at_the_start_fails_at_once_and_recovers_later() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let error = caller(vacant_address()).connect(&pool).unwrap_err();
        let CallerError::Connect(cause) = &error else { panic!("{error:?}") };
        assert!(cause.is_connect() && cause.code() == Code::Unavailable, "{cause:?}");
        assert!(error.to_string().contains("refused"), "{error}");
        let server = Server::start(&Script::default());
        let address = server.address();
        let caller = caller(address).retry(quick().max_attempts(100)).connect(&pool).unwrap();
        assert!(caller.call_blocking(attempt("Echo", "a b")).is_ok());
        drop(server);
        let _server = Server::start_at(&Script::default(), address);
        assert!(caller.call_blocking(attempt("Echo", "a b")).is_ok());
        // Inside a call it would wait for itself.
        let inner = pool.clone();
        let nested = caller.call_blocking(move |_: Target| {
            let refused = common::caller(address).connect(&inner).unwrap_err().to_string();
            async move { Ok(Response::new(refused)) }
        });
        assert!(nested.unwrap().into_inner().contains("cannot wait for itself"));
    });
}

/// Fault 180.
#[test]
fn a_call_that_waits_for_a_connection_spends_no_attempt_and_ends_by_its_timeout() {
    with_watchdog(|| {
        let pool = pool(2, 16);
        let address = vacant_address();
        let once = caller(address).retry(quick().max_attempts(1)).timeout(LIMIT).build(&pool).unwrap();
        assert!(once.call_blocking(attempt("Echo", "a b")).unwrap_err().is_connect());
        let waiting = once.clone().wait_for_ready().call(attempt("Echo", "a b")).unwrap();
        assert!(!waiting.wait_timeout(Duration::from_millis(150)));
        let _server = Server::start_at(&Script::default(), address);
        assert_eq!(waiting.join().unwrap().unwrap().into_inner(), "b");
        let short = caller(vacant_address()).wait_for_ready().timeout(Duration::from_millis(100)).build(&pool).unwrap();
        let error = short.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert!(error.is_connect() && error.is_deadline(), "{error:?}");
        assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Deadline)));
        // The pool's end ends it too.
        let endless = caller(vacant_address()).wait_for_ready().timeout(Duration::MAX).build(&pool).unwrap();
        let call = endless.call(attempt("Echo", "a b")).unwrap();
        pool.shutdown();
        assert!(call.join().unwrap().unwrap_err().is_shut_down());
    });
}

/// Fault 188.
#[test]
fn an_error_hook_that_notifies_again_is_called_eight_times_in_a_row() {
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(2).build().unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let slot: Arc<std::sync::OnceLock<Caller>> = Arc::default();
        let (counted, own) = (Arc::clone(&told), Arc::clone(&slot));
        let builder = caller(vacant_address()).retry(quick().max_attempts(1)).on_error(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            // Two for one: without a bound this grows forever.
            for _ in 0..2 {
                own.get().unwrap().notify(attempt("Echo", "a b")).unwrap();
            }
            panic!("and it panics as well");
        });
        slot.set(builder.build(&pool).unwrap()).unwrap();
        slot.get().unwrap().notify(attempt("Echo", "a b")).unwrap();
        pool.wait_idle();
        assert_eq!(told.load(Ordering::SeqCst), (1 << 8) - 1);
        // A new chain begins anew.
        slot.get().unwrap().notify(attempt("Echo", "a b")).unwrap();
        pool.wait_idle();
        assert_eq!(told.load(Ordering::SeqCst), 2 * ((1 << 8) - 1));
        pool.shutdown();
    });
}
