//! The function behind `POST /warm`: fetches the objects of some URLs, and says what they name.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::declaration::{AdminRequest, FutureAnswer};
use super::response;
use crate::proxy::{ListedObjects, WarmedObject};
use seawall_manifest::ObjectRole;

/// URLs of one request.
const WARM_URLS_MAX: usize = 16;

/// For all of them: less than a connection of an operator may last.
const WARM_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn warm<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        let urls: Vec<Uri> = request.query.urls("url").cloned().collect();
        if urls.len() > WARM_URLS_MAX {
            let why = format!("at most {WARM_URLS_MAX} URLs in one request");
            return response::error(StatusCode::BAD_REQUEST, &why);
        }
        let deadline = Instant::now() + WARM_TIMEOUT;
        let mut fetches = Vec::with_capacity(urls.len());
        for url in &urls {
            fetches.push(fetch(request, url, deadline));
        }
        // Dropped when the operator leaves: what is being fetched is still stored.
        let objects = join_all(fetches).await;
        response::json(StatusCode::OK, &json!({ "objects": objects }))
    })
}

async fn fetch(request: &AdminRequest<'_>, url: &Uri, deadline: Instant) -> Value {
    let warmed = (request.handlers.warm)(url.clone(), deadline).await;
    object(url, warmed.as_ref())
}

fn object(url: &Uri, warmed: Option<&WarmedObject>) -> Value {
    let Some(warmed) = warmed else {
        return json!({ "url": url.to_string(), "outcome": "unrouted" });
    };
    let ListedObjects {
        objects,
        elsewhere,
        has_more,
    } = &warmed.listed;
    let named = objects
        .iter()
        .map(|(role, bandwidth, target)| json!([word(*role), bandwidth, target]));
    json!({
        "url": url.to_string(),
        "outcome": warmed.outcome.as_str(),
        "kind": warmed.kind.as_str(),
        "status": warmed.status.map(|status| status.as_u16()),
        "bytes": warmed.bytes,
        "names": named.collect::<Vec<_>>(),
        "elsewhere": elsewhere,
        "more": has_more,
    })
}

fn word(role: ObjectRole) -> &'static str {
    match role {
        ObjectRole::Variant => "variant",
        ObjectRole::Rendition => "rendition",
        ObjectRole::Frames => "frames",
        ObjectRole::Init => "init",
        ObjectRole::Segment => "segment",
        ObjectRole::Key => "key",
    }
}
