//! Tests that the server answers as its endpoints are declared.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::super::WorkerHealth;
use super::super::answers::{AnswerBody, FieldKind};
use super::super::declaration::AdminEndpoint;
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use fixtures::handlers;

mod fixtures;

const LOCAL: AdminPeer = AdminPeer::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1));

fn request(method: &str, target: &str, ready: bool) -> (u16, String) {
    request_to(&handlers(ready), method, target)
}

fn request_to(handlers: &AdminHandlers, method: &str, target: &str) -> (u16, String) {
    let response = response_to(handlers, method, target);
    let status = response.status().as_u16();
    let body = response.into_body().into_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn response_to(handlers: &AdminHandlers, method: &str, target: &str) -> AdminResponse {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .body(())
        .unwrap();
    let answer = std::pin::pin!(handle(handlers, LOCAL, &request));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(response) = answer.poll(&mut cx) else {
        panic!("the handlers of a test answer at once");
    };
    response
}

/// What is asked of a server in which state, and the status of the answer. Every declared
/// answer of every endpoint is among them.
const CASES: &[(ServerState, &str, &str, u16)] = &[
    (ServerState::Serving, "GET", "/healthz", 200),
    (ServerState::Stopping, "GET", "/healthz", 503),
    (ServerState::Serving, "GET", "/readyz", 200),
    (ServerState::Stopping, "GET", "/readyz", 503),
    (ServerState::Serving, "GET", "/metrics", 200),
    (ServerState::Serving, "GET", "/overview", 200),
    (ServerState::Serving, "GET", "/overview/events", 200),
    (ServerState::Serving, "GET", "/overview/stream?name=a", 200),
    (ServerState::Serving, "GET", "/overview/stream?name=b", 404),
    (ServerState::Serving, "GET", "/status", 200),
    (ServerState::Serving, "POST", "/drain?wait=true", 200),
    (ServerState::Serving, "POST", "/drain", 202),
    (ServerState::Stopping, "POST", "/drain", 503),
    (ServerState::Serving, "POST", "/reload", 200),
    (ServerState::Stopping, "POST", "/reload", 409),
    (ServerState::Serving, "POST", "/upgrade", 200),
    (ServerState::Slow, "POST", "/upgrade", 202),
    (ServerState::Stopping, "POST", "/upgrade", 409),
    (ServerState::Serving, "GET", "/openapi.json", 200),
    (
        ServerState::Serving,
        "GET",
        "/explain?url=http://known.example/",
        200,
    ),
    (
        ServerState::Serving,
        "GET",
        "/explain?url=http://other.example/",
        404,
    ),
    (
        ServerState::Serving,
        "POST",
        "/purge?url=http://known.example/",
        200,
    ),
    (ServerState::Serving, "POST", "/purge?all", 200),
    (
        ServerState::Serving,
        "POST",
        "/purge?host=known.example",
        200,
    ),
    (
        ServerState::Serving,
        "POST",
        "/purge?path=http://a/&dry_run",
        200,
    ),
    (
        ServerState::Serving,
        "POST",
        "/purge?stream=http://a/unknown.m3u8",
        404,
    ),
    (ServerState::Serving, "POST", "/warm?url=http://a/1.ts", 200),
];

/// What the handlers of a case answer.
#[derive(Clone, Copy)]
enum ServerState {
    Serving,
    /// It stops, and one worker does not answer.
    Stopping,
    /// What it does takes long.
    Slow,
}

#[test]
fn answers_are_as_declared() {
    let mut answered = BTreeSet::new();
    for &(state, method, target, status) in CASES {
        let handlers = match state {
            ServerState::Serving => handlers(true),
            ServerState::Slow => AdminHandlers {
                upgrade: Box::new(|| Box::pin(std::future::ready(None))),
                ..handlers(true)
            },
            ServerState::Stopping => AdminHandlers {
                health: Box::new(|| Box::pin(async { WorkerHealth { all: 4, silent: 1 } })),
                ..handlers(false)
            },
        };
        let response = response_to(&handlers, method, target);
        let what = format!("{method} {target}");
        assert_eq!(response.status().as_u16(), status, "{what}");
        let path = target.split('?').next().unwrap();
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let endpoint = declaration::route(ADMIN_ENDPOINTS, &method, path).unwrap();
        assert_is_declared(endpoint, response, &what);
        answered.insert((endpoint.path, endpoint.method.as_str(), status));
    }
    for endpoint in ADMIN_ENDPOINTS {
        for answer in endpoint.answers {
            let status = answer.status.as_u16();
            let case = (endpoint.path, endpoint.method.as_str(), status);
            assert!(answered.contains(&case), "no case of {case:?}");
        }
    }
}

/// Fails unless the endpoint declares such a response: its type, its fields and their types.
fn assert_is_declared(endpoint: &AdminEndpoint, response: AdminResponse, what: &str) {
    let declared = endpoint.declared_answer(response.status());
    let body = declared
        .unwrap_or_else(|| panic!("{what}: an undeclared status"))
        .body;
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        body.content_type(),
        "{what}"
    );
    let bytes = response.into_body().into_bytes();
    let AnswerBody::Json(fields) = body else {
        return;
    };
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    let answer = answer.as_object().unwrap();
    for (name, value) in answer {
        let field = fields.iter().find(|field| field.name == name);
        let field = field.unwrap_or_else(|| panic!("{what}: `{name}` is not declared"));
        let is_as_declared = match field.kind {
            FieldKind::Text => value.is_string(),
            FieldKind::Number => value.is_number(),
            FieldKind::Count => value.is_u64(),
            FieldKind::Flag => value.is_boolean(),
            FieldKind::Object => value.is_object(),
            FieldKind::List => value.is_array(),
        };
        assert!(is_as_declared, "{what}: {name} is {value}");
    }
    for field in fields.iter().filter(|field| field.is_always_there) {
        assert!(answer.contains_key(field.name), "{what}: no {}", field.name);
    }
}

#[test]
fn every_endpoint_rejects_parameters_that_it_does_not_declare() {
    for endpoint in ADMIN_ENDPOINTS {
        let target = format!("{}?nonsense=1", endpoint.path);
        let (status, body) = request(endpoint.method.as_str(), &target, true);
        assert_eq!(status, 400, "{target}: {body}");
        assert!(body.contains("unknown parameter `nonsense`"), "{body}");
    }
}

#[test]
fn what_changes_the_server_needs_the_write_role_and_a_post() {
    let mut seen = BTreeSet::new();
    for endpoint in ADMIN_ENDPOINTS {
        let is_write = endpoint.role == Some(declaration::AdminRole::Write);
        let is_post = endpoint.method == declaration::AdminMethod::Post;
        assert_eq!(is_write, is_post, "{}", endpoint.path);
        let key = (endpoint.path, endpoint.method.as_str());
        assert!(seen.insert(key), "declared twice: {key:?}");
        assert!(!endpoint.summary.ends_with('.'), "{}", endpoint.summary);
        for answer in endpoint.answers {
            assert!(answer.when.ends_with('.'), "{}", answer.when);
        }
    }
}

#[test]
fn the_openapi_document_lists_every_endpoint() {
    let (_, body) = request("GET", "/openapi.json", true);
    let document: Value = serde_json::from_str(&body).unwrap();
    for endpoint in ADMIN_ENDPOINTS {
        let method = endpoint.method.as_str().to_ascii_lowercase();
        let operation = &document["paths"][endpoint.path][&method];
        assert_eq!(operation["summary"], endpoint.summary);
        let parameters = operation["parameters"].as_array().unwrap();
        assert_eq!(parameters.len(), endpoint.parameters.len());
        for answer in endpoint.answers {
            let response = &operation["responses"][answer.status.as_str()];
            assert_eq!(response["description"], answer.when, "{}", endpoint.path);
        }
        let is_open = operation["security"].as_array().unwrap().is_empty();
        assert_eq!(is_open, endpoint.role.is_none(), "{}", endpoint.path);
    }
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
        "/purge?url=https%3A%2F%2Fknown.example%2Fa%3Fb%3Dc",
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
        r#""bytes":0,"complete":true,"dry_run":false,"objects":0,"purged":false"#,
    );
    answer(
        &url("stream", "x.m3u8"),
        404,
        r#""dry_run":false,"error":"the origins are a, b","objects":0,"purged":false"#,
    );
    answer(&url("prefix", "live/"), 200, r#""objects":7"#);
    answer(
        "/purge?all=true",
        200,
        r#""all":true,"bytes":900,"complete":false,"dry_run":false,"objects":9,"purged":true"#,
    );
    answer("/purge?all", 200, r#""objects":9"#);
    answer(
        "/purge?host=known.example",
        200,
        r#""host":"known.example","objects":2,"purged":true,"shared_with_other_hosts":true"#,
    );
    answer(
        &(url("path", "a") + "&dry_run"),
        200,
        r#""dry_run":true,"objects":1,"path":"http://known.example/a","purged":false"#,
    );
    answer(
        &(url("path", "a") + "&dry_run=false"),
        200,
        r#""dry_run":false,"objects":0"#,
    );
    answer(
        "/purge?tag=a%20b&tag=c",
        200,
        r#""objects":3,"purged":true,"soft":false,"tag":["a b","c"]"#,
    );
    answer("/purge?tag=a&origin=none", 404, r#""objects":0"#);
    answer(
        "/purge?tag=a&origin=none",
        404,
        r#""error":"the origins are a, b"#,
    );
    let two_scopes = [
        "url=http://known.example/",
        "prefix=http://a/live/",
        "all",
        "host=a",
    ];
    for two_scopes in two_scopes {
        let two_scopes = format!("{}&{two_scopes}", url("stream", "live.m3u8"));
        assert_eq!(request("POST", &two_scopes, true).0, 400, "{two_scopes}");
    }
}

#[test]
fn explain_and_its_errors_are_json() {
    let answer = request("GET", "/explain?url=http%3A%2F%2Fknown.example%2Fa", true);
    assert_eq!(answer.0, 200);
    assert!(answer.1.contains(r#""target":"/a""#), "{}", answer.1);
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
    assert_eq!(request("GET", "/none", true).0, 404);
    assert_eq!(request("POST", "/", true).0, 404);
}

/// A server that answers, and its address.
fn start() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let connections = AdminConnections::default();
        let socket = AdminSocket::Tcp(socket);
        serve(socket, Arc::new(handlers(true)), &connections).await
    });
    address
}

async fn ask_health(stream: &mut tokio::net::TcpStream) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn answers_over_http_and_closes() {
    let mut stream = tokio::net::TcpStream::connect(start()).await.unwrap();
    let answer = ask_health(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

/// Only the first gives way: those after it can still send their requests.
#[tokio::test]
async fn a_new_connection_replaces_the_one_that_has_been_idle_longest() {
    let address = start();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut operator = tokio::net::TcpStream::connect(address).await.unwrap();
    assert!(ask_health(&mut operator).await.starts_with("HTTP/1.1 200"));
    let mut bytes = Vec::new();
    let ended = idle.remove(0).read_to_end(&mut bytes).await;
    assert!(bytes.is_empty(), "{ended:?}");
    for mut waiting in idle {
        assert!(ask_health(&mut waiting).await.starts_with("HTTP/1.1 200"));
    }
}
