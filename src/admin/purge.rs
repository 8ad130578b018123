//! The function behind `POST /purge`: what the parameters name, and the answer.

use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::declaration::{AdminRequest, FutureAnswer};
use super::query::AdminQuery;
use super::response;
use crate::proxy::{PurgeMode, PurgeOrder, PurgeScope, TagSelection};

pub(super) fn purge<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        let Some(scope) = purge_scope(&request.query) else {
            let why = "a purge needs one of url, path, stream and prefix; or host, a host name; or \
                       tag, perhaps with origin; or all=true";
            return response::error(StatusCode::BAD_REQUEST, why);
        };
        let (name, target) = (scope.name(), target_of(&scope));
        let is_of_host = matches!(scope, PurgeScope::Host(_));
        let is_dry_run = request.query.flag("dry_run");
        let is_soft = request.query.flag("soft");
        let order = PurgeOrder {
            scope,
            mode: match (is_dry_run, is_soft) {
                (true, _) => PurgeMode::DryRun,
                (false, true) => PurgeMode::Soft,
                (false, false) => PurgeMode::Hard,
            },
            actor: request.actor.clone(),
        };
        let purged = (request.handlers.purge)(order).await;
        let status = match purged {
            Some(_) => StatusCode::OK,
            None => StatusCode::NOT_FOUND,
        };
        let objects = purged.map_or(0, |purged| purged.objects);
        let mut answer = json!({
            "purged": objects > 0 && !is_dry_run,
            "dry_run": is_dry_run,
            "soft": is_soft,
            "objects": objects,
            "bytes": purged.map_or(0, |purged| purged.bytes),
            "complete": purged.is_none_or(|purged| purged.is_complete),
        });
        answer[name] = target;
        if let Some(purged) = purged.filter(|_| is_of_host) {
            answer["shared_with_other_hosts"] = purged.is_shared_among_hosts.into();
        }
        response::json(status, &answer)
    })
}

/// The parameter that named the scope, as it was understood.
fn target_of(scope: &PurgeScope) -> Value {
    match scope {
        PurgeScope::Url(url)
        | PurgeScope::Path(url)
        | PurgeScope::Stream(url)
        | PurgeScope::Prefix(url) => json!(url.to_string()),
        PurgeScope::Host(url) => json!(url.host()),
        PurgeScope::Tags(selection) => json!(selection.tags),
        PurgeScope::Everything => json!(true),
    }
}

/// What to purge: exactly one thing, named by exactly one parameter.
fn purge_scope(query: &AdminQuery) -> Option<PurgeScope> {
    let url = |name| query.url(name).cloned();
    let mut host = query.texts("host").map(root_of_host);
    let host = match host.next() {
        None => None,
        Some(root) => Some(root?),
    };
    let tags: Vec<String> = query.texts("tag").map(str::to_owned).collect();
    let origin = query.texts("origin").next().map(str::to_owned);
    if origin.is_some() && tags.is_empty() {
        return None;
    }
    let tags = (!tags.is_empty()).then_some(TagSelection { tags, origin });
    let all = query.flag("all").then_some(PurgeScope::Everything);
    let named = [
        url("url").map(PurgeScope::Url),
        url("path").map(PurgeScope::Path),
        url("stream").map(PurgeScope::Stream),
        url("prefix").map(PurgeScope::Prefix),
        host.map(PurgeScope::Host),
        tags.map(PurgeScope::Tags),
        all,
    ];
    let mut named = named.into_iter().flatten();
    let scope = named.next()?;
    named.next().is_none().then_some(scope)
}

/// The URL of a host's root; `None` for what is no host name.
fn root_of_host(host: &str) -> Option<Uri> {
    let url: Uri = format!("http://{host}/").parse().ok()?;
    (url.host() == Some(host)).then_some(url)
}
