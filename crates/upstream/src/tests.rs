//! Tests of the upstream module over real sockets with scripted origins.

mod checks;
mod client_certificate;
mod credentials;
mod deadlines;
mod hedges;
mod http2;
mod integrity;
mod names;
mod request;
mod retries;
mod reuse;
mod rotation;
mod scripted;
mod succession;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{
    BudgetUse, Endpoint, ExpectedContent, Failure, Origin, Priority, Protocol, RequestClass,
    Resolver, Settings, UpstreamRequest, UpstreamResponse,
};
use seawall_policy::EndpointSet;

/// Far longer than any step should take: a test that reaches it has failed.
const LONG: Duration = Duration::from_secs(20);
/// Short enough to wait for in a test.
const SHORT: Duration = Duration::from_millis(80);

fn settings(address: SocketAddr) -> Settings {
    let mut settings = Settings::single("main", endpoint(address));
    settings.protocol = Protocol::H1;
    settings.deadlines.connect = LONG;
    settings
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(false, address.ip().to_string(), address.port())
}

fn origin(settings: Settings) -> Arc<Origin> {
    Arc::new(Origin::new(settings, no_lookup()).unwrap())
}

/// Resolver for origins given by address.
fn no_lookup() -> Resolver {
    Arc::new(|host, _| panic!("{host} was looked up"))
}

fn get(path: &str) -> UpstreamRequest {
    request(Method::GET, path)
}

fn request(method: Method, path: &str) -> UpstreamRequest {
    UpstreamRequest {
        priority_raise: None,
        cause: None,
        is_expected: false,
        expected_content: ExpectedContent::Anything,
        class: RequestClass::Other,
        has_fallback: false,
        method,
        path_and_query: path.parse().unwrap(),
        host: None,
        headers: HeaderMap::new(),
        body: None,
        priority: Priority::Segment,
        is_blocking: false,
        late_after: None,
        avoided: EndpointSet::default(),
        excluded: EndpointSet::default(),
        budget: BudgetUse::Earns,
    }
}

/// Fetches and reads to the end: the status and the body, or the failure and the data before it.
async fn whole(
    origin: &Origin,
    request: UpstreamRequest,
) -> Result<(u16, Bytes), (Failure, Bytes)> {
    let asking = async {
        let response = match origin.fetch(request).await {
            Ok(response) => response,
            Err(failure) => return Err((failure, Bytes::new())),
        };
        let status = response.status.as_u16();
        body(response).await.map(|body| (status, body))
    };
    tokio::time::timeout(LONG, asking).await.expect("an end")
}

async fn body(mut response: UpstreamResponse) -> Result<Bytes, (Failure, Bytes)> {
    let mut body = Vec::new();
    while let Some(chunk) = response.body.next().await {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(failure) => return Err((failure, body.into())),
        }
    }
    Ok(body.into())
}

/// Waits until a condition holds, a limited number of times.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect(what);
}
