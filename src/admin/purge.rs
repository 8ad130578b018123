//! The function behind `POST /purge`: what the parameters name, and the answer.

use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::declaration::{AdminRequest, FutureAnswer};
use super::query::AdminQuery;
use super::response;
use crate::proxy::{PurgeMode, PurgeOrder, PurgeScope, TagSelection};

pub(super) fn purge<'a>(request: &'a AdminRequest<'a>) -> FutureAnswer<'a> {
    Box::pin(async move {
        let scope = match purge_scope(&request.query) {
            Ok(scope) => scope,
            Err(why) => return response::error(StatusCode::BAD_REQUEST, &why),
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
        let (purged, unknown) = match purged {
            Ok(purged) => (Some(purged), None),
            Err(unknown) => (None, Some(unknown)),
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
        let Some(unknown) = unknown else {
            return response::json(StatusCode::OK, &answer);
        };
        answer["error"] = unknown.why.into();
        response::json(StatusCode::NOT_FOUND, &answer)
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

/// What to purge: exactly one thing, named by exactly one parameter. The error says why not.
fn purge_scope(query: &AdminQuery) -> Result<PurgeScope, String> {
    const NEEDED: &str = "a purge needs one of url, path, stream and prefix; or host, a host name; \
                          or tag, perhaps with origin; or all=true";
    let url = |name| query.url(name).cloned();
    let host = query.texts("host").next().map(root_of_host).transpose()?;
    let tags: Vec<String> = query.texts("tag").map(str::to_owned).collect();
    let origin = query.texts("origin").next().map(str::to_owned);
    if origin.is_some() && tags.is_empty() {
        return Err("`origin` needs `tag`: it says whose tags are meant".to_owned());
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
    let scope = named.next().ok_or(NEEDED)?;
    match named.next() {
        None => Ok(scope),
        Some(other) => {
            let (first, second) = (scope.name(), other.name());
            Err(format!("`{first}` and `{second}` are given: {NEEDED}"))
        }
    }
}

/// The URL of a host's root.
fn root_of_host(host: &str) -> Result<Uri, &'static str> {
    let url: Option<Uri> = format!("http://{host}/").parse().ok();
    match url {
        Some(url) if url.host() == Some(host) => Ok(url),
        Some(url) if url.port().is_some() && url.path() == "/" => Err(
            "`host` must be a host name without a port: what is stored is the same for every port",
        ),
        _ => Err("`host` must be a host name alone, such as media.example"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoints::ADMIN_ENDPOINTS;
    use super::*;

    #[test]
    fn says_what_is_wrong_with_the_parameters() {
        let mut endpoints = ADMIN_ENDPOINTS.iter();
        let endpoint = endpoints
            .find(|endpoint| endpoint.path == "/purge")
            .unwrap();
        let why = |query: &str| {
            let query = AdminQuery::parse(endpoint.parameters, Some(query));
            let query = query.map_err(|error| error.to_string());
            query.and_then(|query| purge_scope(&query)).unwrap_err()
        };
        for (wrong, part) in [
            ("host=a/b", "a host name alone"),
            ("host=a:80", "without a port"),
            ("host=http://a", "a host name alone"),
            ("dry_run", "a purge needs one of"),
            ("origin=a", "`origin` needs `tag`"),
            ("tag=a&all", "`tag` and `all` are given"),
            ("url=http://a/%zz", "percent-encoded as a whole"),
            ("url=a.example/b", "an absolute http or https URL"),
        ] {
            let why = why(wrong);
            assert!(why.contains(part), "{wrong}: {why}");
        }
    }
}
