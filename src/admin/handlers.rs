//! The functions behind the endpoints: from valid parameters to an answer.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::answers::AnswerBody;
use super::declaration::{AdminRequest, FutureAnswer};
use super::openapi;
use super::response::{self, AdminResponse};
use super::{DrainProgress, WorkerHealth};

pub(super) fn health<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        let WorkerHealth { all, silent } = (request.handlers.health)().await;
        if silent == 0 {
            return response::text(StatusCode::OK, "ok\n");
        }
        let text = format!("{silent} of {all} workers do not answer\n");
        response::text(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

pub(super) fn readiness(request: &AdminRequest<'_>) -> AdminResponse {
    if (request.handlers.ready)() {
        return response::text(StatusCode::OK, "ready\n");
    }
    response::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
}

pub(super) fn metrics(request: &AdminRequest<'_>) -> AdminResponse {
    let text = request.handlers.metrics.render();
    response::with_body(StatusCode::OK, text, AnswerBody::Prometheus)
}

pub(super) fn overview(request: &AdminRequest<'_>) -> AdminResponse {
    let overview = (request.handlers.overview)();
    response::with_body(StatusCode::OK, overview.json, AnswerBody::Json(&[]))
}

/// The overview each second, for as long as a connection may last.
pub(super) fn overview_events(request: &AdminRequest<'_>) -> AdminResponse {
    response::events(Arc::clone(&request.handlers.overview))
}

pub(super) fn stream(request: &AdminRequest<'_>) -> AdminResponse {
    let name = request.query.texts("name").next().unwrap_or_default();
    match (request.handlers.stream)(name) {
        Some(details) => response::json(StatusCode::OK, &details),
        None => response::error(StatusCode::NOT_FOUND, "no such stream is watched"),
    }
}

pub(super) fn status(request: &AdminRequest<'_>) -> AdminResponse {
    response::json(StatusCode::OK, &(request.handlers.status)())
}

/// Begins a drain; with `wait` it waits for the listeners to close, though not for ever.
pub(super) fn drain<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        let waits = request.query.flag("wait");
        let (status, state) = match (request.handlers.drain)(waits).await {
            Some(DrainProgress::ListenersClosed) => (StatusCode::OK, "draining"),
            Some(DrainProgress::Begun) => (StatusCode::ACCEPTED, "leaving"),
            None => {
                let busy = "too many requests wait: try again";
                return response::error(StatusCode::SERVICE_UNAVAILABLE, busy);
            }
        };
        response::json(status, &json!({ "state": state }))
    })
}

/// Reads the configuration again and uses it.
pub(super) fn reload<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        match (request.handlers.reload)().await {
            Ok(report) => response::json(StatusCode::OK, &report),
            Err(error) => response::json(StatusCode::CONFLICT, &error),
        }
    })
}

/// Has another process of the program serve in place of this one.
pub(super) fn upgrade<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        match (request.handlers.upgrade)().await {
            Some(Ok(report)) => response::json(StatusCode::OK, &report),
            Some(Err(error)) => response::json(StatusCode::CONFLICT, &error),
            None => response::json(StatusCode::ACCEPTED, &json!({ "state": "running" })),
        }
    })
}

pub(super) fn openapi(request: &AdminRequest<'_>) -> AdminResponse {
    response::json(StatusCode::OK, &openapi::document(request.endpoints))
}

/// What the shield would do with a URL, or why it would reject the request.
pub(super) fn explain(request: &AdminRequest<'_>) -> AdminResponse {
    let Some(url) = request.query.url("url") else {
        return response::error(StatusCode::BAD_REQUEST, "`url` is missing");
    };
    match (request.handlers.explain)(url) {
        Ok(explanation) => response::json(StatusCode::OK, &explanation),
        Err(reason) => response::error(StatusCode::NOT_FOUND, reason),
    }
}
