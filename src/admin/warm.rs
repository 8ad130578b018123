//! The function behind `POST /warm`: fetches the objects of some URLs, and says what they name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{StatusCode, Uri};
use serde::{Serialize, Serializer};

use super::answers::AnswerBody;
use super::declaration::{AdminRequest, FutureAnswer};
use super::response;
use crate::proxy::{ListedObjects, WarmBatch, WarmTarget, WarmedObject};
use seawall_manifest::ObjectRole;

/// URLs of one request.
const WARM_URLS_MAX: usize = 16;

/// For all of them: less than a connection of an operator may last.
const WARM_TIMEOUT: Duration = Duration::from_secs(20);

/// The answer. It is written without a copy of the lists, which may be large.
#[derive(Serialize)]
struct WarmAnswer {
    objects: Vec<AnsweredObject>,
}

#[derive(Serialize)]
struct AnsweredObject {
    url: String,
    outcome: &'static str,
    reason: Option<String>,
    #[serde(flatten)]
    fetched: Option<FetchedObject>,
}

/// What is said of an object that a route serves.
#[derive(Serialize)]
struct FetchedObject {
    kind: &'static str,
    status: Option<u16>,
    bytes: u64,
    received: u64,
    names: NamedObjects,
    elsewhere: u64,
    more: bool,
}

struct NamedObjects(Vec<WarmTarget>);

impl Serialize for NamedObjects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = self.0.iter();
        serializer.collect_seq(named.map(|object| {
            let WarmTarget {
                role,
                bandwidth,
                target,
                track,
            } = object;
            (word(*role), bandwidth, target.as_str(), track)
        }))
    }
}

pub(super) fn warm<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        let urls: Vec<Uri> = request.query.urls("url").cloned().collect();
        if urls.len() > WARM_URLS_MAX {
            let why = format!("at most {WARM_URLS_MAX} URLs in one request");
            return response::error(StatusCode::BAD_REQUEST, &why);
        }
        let bytes_max = request.query.count("bytes_max").unwrap_or(u64::MAX);
        // Its lists keep others waiting until they are written.
        let batch = Arc::new(WarmBatch::until(Instant::now() + WARM_TIMEOUT, bytes_max));
        let mut fetches = Vec::with_capacity(urls.len());
        for url in &urls {
            fetches.push(fetch(request, url, &batch));
        }
        // Dropped when the operator leaves: what is being fetched is still stored.
        let objects = join_all(fetches).await;
        match serde_json::to_string(&WarmAnswer { objects }) {
            Ok(text) => response::with_body(StatusCode::OK, text + "\n", AnswerBody::Json(&[])),
            Err(error) => response::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    })
}

async fn fetch(request: &AdminRequest<'_>, url: &Uri, batch: &Arc<WarmBatch>) -> AnsweredObject {
    let warmed = (request.handlers.warm)(url.clone(), Arc::clone(batch)).await;
    let url = url.to_string();
    match warmed {
        Ok(mut warmed) => AnsweredObject {
            url,
            outcome: warmed.outcome.as_str(),
            reason: warmed.reason.take(),
            fetched: Some(FetchedObject::from(warmed)),
        },
        Err(why) => AnsweredObject {
            url,
            outcome: "unrouted",
            reason: Some(why.to_owned()),
            fetched: None,
        },
    }
}

impl From<WarmedObject> for FetchedObject {
    fn from(warmed: WarmedObject) -> FetchedObject {
        let ListedObjects {
            objects,
            elsewhere,
            has_more,
            ..
        } = warmed.listed;
        FetchedObject {
            kind: warmed.kind.as_str(),
            status: warmed.status.map(|status| status.as_u16()),
            bytes: warmed.bytes,
            received: warmed.received,
            names: NamedObjects(objects),
            elsewhere,
            more: has_more,
        }
    }
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
