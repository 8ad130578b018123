//! Admits a viewer's request: the access rules of its route, its token, the rate limits, and then
//! its key. It takes the token out of the request before anything else reads it: no key and no log
//! has a token, and no origin gets one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::header::{self, CACHE_CONTROL};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::rate_limits::ByteMeter;
use super::token_control::{CurrentTokenRules, set_target};
use super::{Shield, ViewerRequest, ViewerResponse, rejections};
use seawall_authorization::{
    FoundToken, RenewedToken, TokenPermit, TokenRejection, TokenRequest, TokenRules, VerifiedTokens,
};
use seawall_policy::access::{
    AccessRejection, Admission, CacheRequest, Destination, Requester, access, enter,
};
use seawall_policy::freshness::FRESHNESS_FIELDS_SENT;
use seawall_policy::{AccessRuleKind, ClientClass, ClientTraits, Now};
use seawall_upstream::CauseCounters;

/// The decision about a request, and what the token that let it in means for the response.
pub(super) struct Admitted {
    pub(super) admission: Admission,
    pub(super) token: TokenEffect,
    /// What takes the bytes of the response from rate limits.
    pub(super) meter: Option<ByteMeter>,
}

/// What a token means for the response to its request.
#[derive(Default)]
pub(super) struct TokenEffect {
    /// The response may be sent to other requests with the same token until then.
    pub(super) repeat_until: Option<Instant>,
    /// A new token for this viewer.
    renewed: Option<RenewedToken>,
}

impl TokenEffect {
    /// Gives the viewer its new token. The response is for nobody else, also behind this cache.
    pub(super) fn apply_to(self, response: &mut ViewerResponse) {
        let Some(RenewedToken { name, value }) = self.renewed else {
            return;
        };
        let headers = &mut response.headers;
        for name in &FRESHNESS_FIELDS_SENT {
            headers.remove(name);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if name == header::SET_COOKIE {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

impl Shield {
    /// Finds the class of the client, decides about its request, and takes its token away.
    pub(super) fn admit(&self, request: &mut ViewerRequest) -> Admitted {
        request.class = self.class_of(request);
        let admitted = self.try_admit(request);
        let mut admitted = admitted.unwrap_or_else(|rejection| Admitted {
            admission: Admission::Reject(rejection),
            token: TokenEffect::default(),
            meter: None,
        });
        if let Admission::Cache(cached) | Admission::Pass(cached) = &mut admitted.admission {
            cached.class.clone_from(&request.class);
        }
        admitted
    }

    fn class_of(&self, request: &ViewerRequest) -> Option<Arc<ClientClass>> {
        let classes = &self.rules.client_classes;
        if classes.is_empty() {
            return None;
        }
        let secrets = self.access.secrets()?;
        let class = classes.class_of(ClientTraits {
            address: request.address.viewer,
            certificate: request.certificate.as_deref(),
            headers: &request.headers,
            secrets: &secrets,
        });
        class.cloned()
    }

    fn try_admit(&self, request: &mut ViewerRequest) -> Result<Admitted, AccessRejection> {
        let secrets = self.access.secrets();
        let requester = secrets
            .as_deref()
            .map_or(Requester::Unrestricted, |secrets| Requester::Viewer {
                address: request.address.viewer,
                class: request.class.as_ref().map(|class| &*class.name),
                certificate: request.certificate.as_deref(),
                secrets,
            });
        let tokens = &self.access.tokens;
        let sent = tokens.take_path_tokens(&mut request.uri);
        let (uri, headers) = (&request.uri, &request.headers);
        let destination = enter(&self.rules, uri, request.version, headers, requester)?;
        if !destination.demands_token() {
            let meter = self.take_from_limits(&destination, request)?;
            return Ok(Admitted {
                admission: destination.admit(&request.method, uri, headers),
                token: TokenEffect::default(),
                meter,
            });
        }
        let rules = tokens.rules_of(destination.guarding_routes());
        let now = Now::read();
        // A browser sends no token with a preflight, and the response says nothing of the object.
        let permit = if request.method == Method::OPTIONS {
            without_tokens(&rules, uri)
        } else {
            let check = TokenCheck {
                request,
                destination: &destination,
                sent: sent.as_ref().or(uri.path_and_query()),
                now,
            };
            tokens.with_verified(|verified| check.permit(&rules, verified))
        };
        let route = destination.route;
        let refused = |rejection: TokenRejection| {
            tokens.count_refusal(rejection);
            let denied = AccessRejection::denied(AccessRuleKind::Token);
            denied.with_detail(rejection.as_str()).of_route(route)
        };
        let permit = permit.map_err(refused)?;
        let meter = self.take_from_limits(&destination, request)?;
        let destination = destination.detached();
        let token = permit.take_tokens(&rules, request, now).map_err(refused)?;
        Ok(Admitted {
            admission: destination.admit(&request.method, &request.uri, &request.headers),
            token,
            meter,
        })
    }

    /// Takes a request from the rate limits of its route, unless that was done before. Only one
    /// that may enter comes here: others behind the same address must not pay for somebody without
    /// the right secret.
    fn take_from_limits(
        &self,
        destination: &Destination<'_, '_>,
        request: &ViewerRequest,
    ) -> Result<Option<ByteMeter>, AccessRejection> {
        let (route, class) = (destination.route, request.class.as_deref());
        let limiter = self.rate_limits.of_request(route, class);
        let Some(limiter) = limiter else {
            return Ok(None);
        };
        let viewer = request.address.viewer;
        if request.is_counted {
            return Ok(limiter.meter_for(viewer));
        }
        limiter.admit(viewer, request.now).map_err(|refusal| {
            self.rate_limits.count(&refusal);
            let over_limit = AccessRejection::over_limit(refusal.wait());
            over_limit.with_detail(refusal.as_str()).of_route(route)
        })
    }

    /// A path without its tokens, for the log: of a request that is not admitted.
    pub fn path_without_token<'p>(&self, path: &'p str) -> &'p str {
        self.access.tokens.path_without_token(path)
    }

    /// The decision about a GET of an absolute URL that an operator names: no access rule applies,
    /// and the URL may have the token of a viewer.
    pub(super) fn admit_url(&self, url: &Uri) -> Admission {
        let mut url = url.clone();
        let tokens = &self.access.tokens;
        tokens.take_path_tokens(&mut url);
        // As in HTTP/2, the URL alone names the host.
        let (http2, headers) = (Version::HTTP_2, HeaderMap::new());
        let unrestricted = Requester::Unrestricted;
        let destination = enter(&self.rules, &url, http2, &headers, unrestricted);
        let rules = destination.map(|destination| tokens.rules_of(destination.guarding_routes()));
        let rules = rules.unwrap_or_default();
        let sent = url.path_and_query();
        if let Some(target) = sent.and_then(|sent| stripped(&rules, sent.as_str())) {
            set_target(&mut url, target);
        }
        access(
            &self.rules,
            &Method::GET,
            &url,
            http2,
            &headers,
            unrestricted,
        )
    }

    /// Marks that a class gets an object or waits for it; `mark` says whether others did before.
    /// Such a request would have been one to the origin, if the class had a shield of its own.
    pub(super) fn mark_class(&self, request: &CacheRequest, mark: impl FnOnce(usize) -> bool) {
        if let Some(class) = &request.class
            && mark(class.index)
        {
            self.class_counters.count_collapsed(class);
        }
    }

    /// Where a request to an origin is counted besides its endpoint, if there are classes.
    pub(super) fn cause_of(&self, request: &CacheRequest) -> Option<Arc<CauseCounters>> {
        let has_classes = !self.rules.client_classes.is_empty();
        has_classes.then(|| self.class_counters.cause(request.class.as_ref()))
    }

    pub(super) fn reject(
        &self,
        request: &ViewerRequest,
        rejection: &AccessRejection,
    ) -> ViewerResponse {
        if let Some(rule) = rejection.rule {
            self.access.count_refusal(rule);
        }
        if let Some(class) = &request.class {
            self.class_counters.count_refused(class, rejection.status);
        }
        let is_logged = self.telemetry.access_log.is_enabled();
        rejections::rejected(request, rejection, &self.settings.error_pages, is_logged)
    }
}

/// What a request is checked by.
struct TokenCheck<'a> {
    request: &'a ViewerRequest,
    destination: &'a Destination<'a, 'a>,
    /// Path and query as sent.
    sent: Option<&'a PathAndQuery>,
    now: Now,
}

/// The permission to enter, and the target of the request without its tokens.
struct TokenEntry {
    permit: Option<TokenPermit>,
    /// `None`: it has none.
    target: Option<String>,
}

impl TokenCheck<'_> {
    /// Decides by the rules of all routes that a request may lead to.
    fn permit(
        &self,
        rules: &[CurrentTokenRules],
        verified: &mut VerifiedTokens,
    ) -> Result<TokenEntry, TokenRejection> {
        let sent = self.sent.map_or("/", PathAndQuery::as_str);
        let routed = self.request.uri.path_and_query();
        let routed = routed.map_or("/", PathAndQuery::as_str);
        let headers = &self.request.headers;
        // Of nearly all routes: what finds the token leaves the target without it.
        if let [rules] = rules
            && rules.carriers().path.is_none()
        {
            let found = rules.find(routed, headers)?;
            let permit = self.permit_of(rules, &found, verified)?;
            let is_shorter = found.target.len() < routed.len();
            return Ok(TokenEntry {
                permit: Some(permit),
                target: is_shorter.then(|| found.target.into_owned()),
            });
        }
        let mut entry = without_tokens(rules, &self.request.uri)?;
        for rules in rules {
            // A path that another route reads a token from is left as it is sent only there.
            let source = match rules.carriers().path {
                Some(_) => sent,
                None => routed,
            };
            let found = rules.find(source, headers)?;
            let permit = self.permit_of(rules, &found, verified)?;
            entry.permit = Some(match entry.permit {
                None => permit,
                Some(other) => other.and(permit),
            });
        }
        Ok(entry)
    }

    fn permit_of(
        &self,
        rules: &TokenRules,
        found: &FoundToken<'_>,
        verified: &mut VerifiedTokens,
    ) -> Result<TokenPermit, TokenRejection> {
        let seconds = self.now.wall.duration_since(UNIX_EPOCH);
        let seconds = seconds.unwrap_or_default().as_secs();
        rules.admit(found, &self.token_request(&found.target), verified, seconds)
    }

    fn token_request<'a>(&'a self, target: &'a str) -> TokenRequest<'a> {
        let request = self.request;
        let protocol = match request.version {
            Version::HTTP_2 => "h2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        };
        TokenRequest {
            method: request.method.as_str(),
            scheme: if request.tls { "https" } else { "http" },
            host: &self.destination.host,
            port: self.destination.port,
            target,
            client: request.address.viewer,
            protocol: request.tls.then_some(protocol),
        }
    }
}

impl TokenEntry {
    /// Takes the tokens out of the request.
    fn take_tokens(
        self,
        rules: &[CurrentTokenRules],
        request: &mut ViewerRequest,
        now: Now,
    ) -> Result<TokenEffect, TokenRejection> {
        if let Some(target) = self.target {
            // Tokens in the path were taken away before the route was found by it.
            let query = target.strip_prefix(request.uri.path());
            let is_same_path = query.is_some_and(|it| it.is_empty() || it.starts_with('?'));
            if !is_same_path || !set_target(&mut request.uri, target) {
                return Err(TokenRejection::Url);
            }
        }
        for rules in rules {
            rules.strip_headers(&mut request.headers);
        }
        let Some(permit) = self.permit else {
            return Ok(TokenEffect::default());
        };
        request.wants_repeat &= !permit.is_for_connection && permit.renewed.is_none();
        Ok(TokenEffect {
            repeat_until: permit.until.and_then(|end| instant_of(end, now)),
            renewed: permit.renewed,
        })
    }
}

fn without_tokens(rules: &[CurrentTokenRules], uri: &Uri) -> Result<TokenEntry, TokenRejection> {
    // Only a route that is not of this generation has no rules: nobody may enter it.
    if rules.is_empty() {
        return Err(TokenRejection::UnknownKey);
    }
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    Ok(TokenEntry {
        permit: None,
        target: stripped(rules, target),
    })
}

/// The target without its tokens. `None`: it has none.
fn stripped(rules: &[CurrentTokenRules], sent: &str) -> Option<String> {
    let mut target = Cow::Borrowed(sent);
    for rules in rules {
        let shorter = match rules.carriers().strip_target(&target) {
            kept if kept.len() == target.len() => continue,
            kept => kept.into_owned(),
        };
        target = Cow::Owned(shorter);
    }
    match target {
        Cow::Borrowed(_) => None,
        Cow::Owned(target) => Some(target),
    }
}

/// When a second begins that is counted from 1970.
fn instant_of(seconds: u64, now: Now) -> Option<Instant> {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    now.mono
        .checked_add(end.duration_since(now.wall).unwrap_or_default())
}
