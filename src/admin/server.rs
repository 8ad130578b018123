//! The HTTP/1.1 server for operators, with its own deadlines and limits.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{AdminHandlers, DrainProgress, WorkerHealth, guard};
use crate::proxy::PurgeScope;
use crate::telemetry;

/// Connections at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: u32 = 64;

/// For the request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole connection. A connection serves one request: scrapers open a new one each time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A larger request head is rejected.
const HEAD_BYTES_MAX: usize = 16 << 10;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Pause after a failed accept.
const BACKOFF: Duration = Duration::from_millis(250);

/// The connections of operators.
#[derive(Clone)]
pub struct AdminConnections(Arc<Semaphore>);

impl Default for AdminConnections {
    fn default() -> Self {
        AdminConnections(Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)))
    }
}

impl AdminConnections {
    /// Waits until all open connections have their answers. New ones wait meanwhile.
    pub async fn wait_until_idle(&self) {
        let _all = self.0.acquire_many(CONNECTIONS_MAX).await;
    }
}

/// Serves operators until it is dropped; that also drops their connections.
pub async fn serve(
    socket: TcpListener,
    handlers: Arc<AdminHandlers>,
    connections_open: &AdminConnections,
) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let permits = connections_open.0.clone();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        let Ok((stream, _)) = socket.accept().await else {
            sleep(BACKOFF).await;
            continue;
        };
        let handlers = handlers.clone();
        connections.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let handlers = handlers.clone();
                async move { Ok::<_, Infallible>(handle(&handlers, &request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_header_size(HEAD_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}

async fn handle<B>(handlers: &AdminHandlers, request: &Request<B>) -> Response<TextBody> {
    if let Some(rejection) = guard::rejection(request, &handlers.hosts) {
        return text(rejection.status, rejection.text);
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read && request.uri().path() == "/healthz" {
        return health((handlers.health)().await);
    }
    match request.uri().path() {
        "/metrics" if is_read => metrics(handlers),
        "/status" if is_read => json(StatusCode::OK, &(handlers.status)()),
        "/explain" if is_read => explain(handlers, request.uri()),
        "/readyz" if is_read && (handlers.ready)() => text(StatusCode::OK, "ready\n"),
        "/readyz" if is_read => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/purge" if request.method() == Method::POST => purge(handlers, request.uri()).await,
        "/drain" if request.method() == Method::POST => drain(handlers, request.uri()).await,
        "/metrics" | "/status" | "/explain" | "/healthz" | "/readyz" => {
            method_not_allowed("GET, HEAD")
        }
        "/purge" | "/drain" => method_not_allowed("POST"),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn health(workers: WorkerHealth) -> Response<TextBody> {
    let WorkerHealth { all, silent } = workers;
    if silent == 0 {
        return text(StatusCode::OK, "ok\n");
    }
    with_content_type(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{silent} of {all} workers do not answer\n"),
        PLAIN,
    )
}

/// Begins a drain; `wait=true` waits for the listeners to close, though not for ever.
async fn drain(handlers: &AdminHandlers, uri: &Uri) -> Response<TextBody> {
    let (status, state) = match (handlers.drain)(has_flag(uri, "wait")).await {
        Some(DrainProgress::ListenersClosed) => (StatusCode::OK, "draining"),
        Some(DrainProgress::Begun) => (StatusCode::ACCEPTED, "leaving"),
        None => {
            let busy = "too many requests wait: try again\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, busy);
        }
    };
    json(status, &serde_json::json!({ "state": state }))
}

fn metrics(handlers: &AdminHandlers) -> Response<TextBody> {
    with_content_type(
        StatusCode::OK,
        handlers.metrics.render(),
        telemetry::CONTENT_TYPE,
    )
}

/// What the shield would do with a URL, or why it would reject the request.
fn explain(handlers: &AdminHandlers, uri: &Uri) -> Response<TextBody> {
    let Some(url) = url_parameter(uri, "url=") else {
        return invalid_url();
    };
    match (handlers.explain)(&url) {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(reason) => json(
            StatusCode::NOT_FOUND,
            &serde_json::json!({ "error": reason }),
        ),
    }
}

fn invalid_url() -> Response<TextBody> {
    let answer = serde_json::json!({
        "error": "url must be an absolute http or https URL"
    });
    json(StatusCode::BAD_REQUEST, &answer)
}

async fn purge(handlers: &AdminHandlers, uri: &Uri) -> Response<TextBody> {
    let Some(scope) = purge_scope(uri) else {
        return invalid_scope();
    };
    let target = match &scope {
        PurgeScope::Url(url) => serde_json::json!({ "url": url.to_string() }),
        PurgeScope::Stream(url) => serde_json::json!({ "stream": url.to_string() }),
        PurgeScope::Prefix(url) => serde_json::json!({ "prefix": url.to_string() }),
        PurgeScope::Everything => serde_json::json!({ "all": true }),
    };
    let purged = (handlers.purge)(scope).await;
    let status = match purged {
        Some(_) => StatusCode::OK,
        None => StatusCode::NOT_FOUND,
    };
    let objects = purged.map_or(0, |purged| purged.objects);
    let mut answer = serde_json::json!({
        "purged": objects > 0,
        "objects": objects,
        "complete": purged.is_none_or(|purged| purged.is_complete),
    });
    if let (Some(answer), Some(target)) = (answer.as_object_mut(), target.as_object()) {
        answer.extend(target.clone());
    }
    json(status, &answer)
}

/// What to purge: exactly one thing, named by exactly one parameter.
fn purge_scope(uri: &Uri) -> Option<PurgeScope> {
    let all = has_flag(uri, "all");
    let named = |name| url_parameter(uri, name);
    let targets = (named("url="), named("stream="), named("prefix="), all);
    Some(match targets {
        (Some(url), None, None, false) => PurgeScope::Url(url),
        (None, Some(url), None, false) => PurgeScope::Stream(url),
        (None, None, Some(url), false) => PurgeScope::Prefix(url),
        (None, None, None, true) => PurgeScope::Everything,
        _ => return None,
    })
}

fn invalid_scope() -> Response<TextBody> {
    let answer = serde_json::json!({
        "error": "a purge needs url, stream or prefix, an absolute http or https URL; or all=true"
    });
    json(StatusCode::BAD_REQUEST, &answer)
}

/// Whether a parameter that needs no value is given.
fn has_flag(uri: &Uri, name: &str) -> bool {
    let mut parameters = uri.query().unwrap_or("").split('&');
    parameters.any(|parameter| {
        let value = parameter.strip_prefix(name);
        value.is_some_and(|value| matches!(value, "" | "=" | "=true" | "=1"))
    })
}

/// A parameter that is an absolute URL, decoded.
fn url_parameter(uri: &Uri, name: &str) -> Option<Uri> {
    let mut parameters = uri.query()?.split('&');
    let encoded = parameters.find_map(|parameter| parameter.strip_prefix(name))?;
    let url = Uri::try_from(query_value(encoded)?).ok()?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    (is_http && url.authority().is_some()).then_some(url)
}

/// Decodes a value of a query; `None` if a `%` begins no escape.
fn query_value(encoded: &str) -> Option<Vec<u8>> {
    let spaced = encoded.replace('+', " ");
    let decoded: Vec<u8> = percent_decode_str(&spaced).collect();
    // Each escape is two bytes shorter when decoded; a `%` that begins none is kept.
    let is_well_formed = spaced.len() - decoded.len() == 2 * spaced.matches('%').count();
    is_well_formed.then_some(decoded)
}

fn method_not_allowed(allowed: &'static str) -> Response<TextBody> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<TextBody> {
    with_content_type(status, format!("{value}\n"), "application/json")
}

fn text(status: StatusCode, body: &'static str) -> Response<TextBody> {
    with_content_type(status, body, PLAIN)
}

fn with_content_type(
    status: StatusCode,
    body: impl Into<Bytes>,
    content_type: &'static str,
) -> Response<TextBody> {
    let mut response = Response::new(TextBody(Some(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A complete body in memory.
struct TextBody(Option<Bytes>);

impl Body for TextBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache_metrics::CLIENT_METRICS;
    use super::*;
    use crate::proxy::{ClientStats, Purged};
    use crate::telemetry::MetricRegistry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn registry() -> MetricRegistry {
        let mut registry = MetricRegistry::default();
        let stats = ClientStats {
            running: 3,
            ..ClientStats::default()
        };
        registry
            .collect("Clients", &CLIENT_METRICS, move || stats)
            .unwrap();
        registry
    }

    fn handlers(ready: bool) -> AdminHandlers {
        AdminHandlers {
            hosts: Vec::new(),
            status: Box::new(|| serde_json::json!({})),
            metrics: registry(),
            health: Box::new(move || Box::pin(async move { WorkerHealth { all: 4, silent: 0 } })),
            ready: Box::new(move || ready),
            drain: Box::new(|_| Box::pin(std::future::ready(None))),
            explain: Box::new(|url| match url.host() {
                Some("known.example") => Ok(serde_json::json!({ "route": url.path() })),
                _ => Err("no route"),
            }),
            purge: Box::new(|scope| {
                let objects: Option<u64> = match scope {
                    PurgeScope::Url(url) => (url.host() == Some("known.example")).then_some(1),
                    PurgeScope::Stream(url) => (url.path() == "/live.m3u8").then_some(0),
                    PurgeScope::Prefix(url) => (url.path() == "/live/").then_some(7),
                    PurgeScope::Everything => Some(9),
                };
                let purged = objects.map(|objects| Purged {
                    objects,
                    is_complete: objects != 9,
                });
                Box::pin(std::future::ready(purged))
            }),
        }
    }

    fn request(method: &str, target: &str, ready: bool) -> (u16, String) {
        request_to(&handlers(ready), method, target)
    }

    fn request_to(handlers: &AdminHandlers, method: &str, target: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .body(())
            .unwrap();
        let answer = std::pin::pin!(handle(handlers, &request));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(response) = answer.poll(&mut cx) else {
            panic!("the handlers of a test answer at once");
        };
        let status = response.status().as_u16();
        let body = response.into_body().0.unwrap_or_default();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn serves_what_the_metric_registry_writes() {
        let (status, text) = request("GET", "/metrics", true);
        assert_eq!(status, 200);
        assert!(
            text.contains("\nseawall_fetches_without_viewers 3\n"),
            "{text}"
        );
    }

    #[test]
    fn is_healthy_but_not_ready_while_draining() {
        assert_eq!(request("GET", "/healthz", false).0, 200);
        assert_eq!(request("GET", "/readyz", true).0, 200);
        assert_eq!(request("GET", "/readyz", false).0, 503);
    }

    #[test]
    fn is_unhealthy_while_a_worker_does_not_answer() {
        let handlers = AdminHandlers {
            health: Box::new(|| Box::pin(async { WorkerHealth { all: 4, silent: 1 } })),
            ..handlers(true)
        };
        let answer = request_to(&handlers, "GET", "/healthz");
        assert_eq!(answer, (503, "1 of 4 workers do not answer\n".to_owned()));
    }

    #[test]
    fn decodes_the_url_of_a_purge() {
        let (status, body) = request(
            "POST",
            "/purge?a=b&url=https%3A%2F%2Fknown.example%2Fa%3Fb%3Dc",
            true,
        );
        assert_eq!(status, 200);
        assert!(body.contains("https://known.example/a?b=c"), "{body}");
        assert_eq!(
            request("POST", "/purge?url=http://other.example/", true).0,
            404
        );
    }

    #[test]
    fn reports_how_many_objects_a_purge_dropped() {
        let url = |name, path| format!("/purge?{name}=http%3A%2F%2Fknown.example%2F{path}");
        let answer = |target: &str, status, answer: &str| {
            let (answered, body) = request("POST", target, true);
            assert_eq!(answered, status, "{target}");
            assert!(body.contains(answer), "{target}: {body}");
        };
        answer(&url("url", "a"), 200, r#""objects":1,"purged":true"#);
        answer(
            &url("stream", "live.m3u8"),
            200,
            r#""complete":true,"objects":0,"purged":false"#,
        );
        answer(
            &url("stream", "x.m3u8"),
            404,
            r#""complete":true,"objects":0,"purged":false"#,
        );
        answer(&url("prefix", "live/"), 200, r#""objects":7"#);
        answer(
            "/purge?all=true",
            200,
            r#""all":true,"complete":false,"objects":9,"purged":true"#,
        );
        answer("/purge?all", 200, r#""objects":9"#);
        for two_scopes in ["url=http://known.example/", "prefix=http://a/live/", "all"] {
            let two_scopes = format!("{}&{two_scopes}", url("stream", "live.m3u8"));
            assert_eq!(request("POST", &two_scopes, true).0, 400, "{two_scopes}");
        }
    }

    #[test]
    fn explain_and_its_errors_are_json() {
        let answer = request("GET", "/explain?url=http%3A%2F%2Fknown.example%2Fa", true);
        assert_eq!(answer, (200, "{\"route\":\"/a\"}\n".to_owned()));
        let answer = request("GET", "/explain?url=http://other.example/", true);
        assert_eq!(answer, (404, "{\"error\":\"no route\"}\n".to_owned()));
        assert_eq!(request("GET", "/explain?url=/a", true).0, 400);
        assert_eq!(request("POST", "/explain?url=http://a/", true).0, 405);
    }

    #[test]
    fn rejects_purges_of_invalid_urls() {
        for target in [
            "/purge",
            "/purge?url=",
            "/purge?url=/a",
            "/purge?url=%zz",
            "/purge?all=false",
            "/purge?prefix=/live/",
            "/purge?url=%4",
        ] {
            assert_eq!(request("POST", target, true).0, 400, "{target}");
        }
    }

    #[test]
    fn rejects_other_methods_and_paths() {
        assert_eq!(request("POST", "/metrics", true).0, 405);
        assert_eq!(
            request("GET", "/purge?url=http://known.example/", true).0,
            405
        );
        assert_eq!(request("GET", "/", true).0, 404);
    }

    #[tokio::test]
    async fn answers_over_http_and_closes() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            serve(
                socket,
                Arc::new(handlers(true)),
                &AdminConnections::default(),
            )
            .await
        });
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
}
