//! A small HTTP service to stand behind a gateway, so that a deployment on one
//! machine has something to route to.
//!
//! It answers every request with the region it runs in and the path that was
//! asked for, which is enough to see where a request ended up.

use std::convert::Infallible;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use model::RegionId;
use tokio::net::TcpListener;

use crate::args::SampleServiceArgs;

/// Connections served at the same time; more wait in the listen queue.
const CONNECTIONS: usize = 1024;

/// Serves until SIGTERM or Ctrl-C, then lets open requests end for at most two seconds.
pub async fn run(args: SampleServiceArgs) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("sample service of {} on http://{}", args.region, args.listen);
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let open = GracefulShutdown::new();
    let mut stop = std::pin::pin!(crate::deploy::interrupted());
    loop {
        let permit = room.clone().acquire_owned().await?;
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, most likely: give the open ones time to close.
                Err(_) => { tokio::time::sleep(std::time::Duration::from_millis(50)).await; continue }
            },
            () = &mut stop => break,
        };
        let _ = stream.set_nodelay(true);
        let region = args.region.clone();
        let service = service_fn(move |request| {
            let response = answer(&region, &request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // A client that goes away is its own business.
            let _ = connection.await;
            drop(permit);
        });
    }
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), open.shutdown()).await;
    Ok(ExitCode::SUCCESS)
}

fn answer(region: &RegionId, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let body = if path == "/healthz" {
        serde_json::json!({ "ok": true, "region": region })
    } else {
        serde_json::json!({ "region": region, "path": path, "method": request.method().as_str() })
    };
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
