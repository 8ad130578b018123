//! What may not be shared: straight from the origin to one viewer, at that viewer's pace.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::ask::Ask;
use super::body::checked;
use super::clients::Own;
use super::overheard::Overheard;
use super::status::Forward;
use super::{Answer, Body, Shield, rank, refuse, respond};
use crate::cache::Cut;
use crate::origin::{
    BudgetUse, Errand, Failure, Framing, Inflow, Relay, Reply, RequestBody, Wants,
};
use crate::policy::lifetime::Reason;
use crate::policy::{EndpointSet, headers};

/// What an uncached request needs beyond the route's allow-list to mean the same to the origin.
const OF_A_PASSED_READ: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// An origin's answer that goes to one viewer.
pub(super) struct Passed {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: PassedBody,
    pub(super) reason: Option<Reason>,
    /// Where it is a manifest, read beside.
    overheard: Option<Box<Overheard>>,
    /// Left, if it is dropped before its end.
    pub(super) own: Option<Own>,
}

/// A manifest has been read already when it turns out to be one viewer's own.
pub(super) enum PassedBody {
    Flowing(Inflow, Framing),
    Whole(Bytes),
}

impl Passed {
    /// Its head, why it is passed on, and its body.
    pub(super) fn parts(self) -> (StatusCode, HeaderMap, Option<Reason>, Body) {
        let body = self.body.into_body(self.own, self.overheard);
        (self.status, self.headers, self.reason, body)
    }

    /// `bodiless`: it answers a HEAD, whose length is the origin's to tell.
    pub(super) fn of(reply: Reply, reason: Option<Reason>, bodiless: bool, name: &str) -> Passed {
        let length = reply.headers.get(header::CONTENT_LENGTH).cloned();
        let mut headers = passed_headers(reply.headers, name);
        headers.extend(
            length
                .filter(|_| bodiless)
                .map(|length| (header::CONTENT_LENGTH, length)),
        );
        Passed {
            status: reply.status,
            headers,
            body: PassedBody::Flowing(reply.body, reply.framing),
            reason,
            overheard: None,
            own: None,
        }
    }

    /// With what it costs its client to leave before its end.
    fn left_by(self, own: Own) -> Passed {
        let own = Some(own);
        Passed { own, ..self }
    }

    pub(super) fn whole(reply: Reply, body: Bytes, reason: Reason, name: &str) -> Passed {
        Passed {
            status: reply.status,
            headers: passed_headers(reply.headers, name),
            body: PassedBody::Whole(body),
            reason: Some(reason),
            overheard: None,
            own: None,
        }
    }
}

/// Nothing is held here that could age: the age it came with goes on.
fn passed_headers(origin: HeaderMap, name: &str) -> HeaderMap {
    let age = headers::age(&origin);
    let mut headers = headers::downstream(origin, name);
    headers.extend(age);
    headers
}

impl PassedBody {
    fn into_body(self, own: Option<Own>, overheard: Option<Box<Overheard>>) -> Body {
        let ended = |own: Option<Own>| own.map(|mut own| own.ended());
        match self {
            PassedBody::Whole(bytes) => {
                ended(own);
                Body::whole(bytes)
            }
            PassedBody::Flowing(_, Framing::Length(0)) => {
                ended(own);
                Body::Empty
            }
            PassedBody::Flowing(inflow, framing) => {
                Body::Passing(Box::new(Passing::new(inflow, framing, own, overheard)))
            }
        }
    }
}

impl Shield {
    /// GET or HEAD, for this viewer alone.
    pub(super) async fn pass(self: &Arc<Self>, mut ask: Ask) -> Answer {
        ask.forward = Forward::Bypass;
        let mut headers = self.upstream(&ask);
        for name in OF_A_PASSED_READ {
            if let Some(value) = ask.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let head_only = ask.head_only;
        let method = if head_only { Method::HEAD } else { Method::GET };
        let sent = headers.clone();
        match self.ask_origin(&mut ask, method, headers, None).await {
            Ok((reply, own)) => {
                let overheard = (!head_only)
                    .then(|| Overheard::of(self, &ask.entry, &sent, &reply))
                    .flatten();
                let mut passed = Passed::of(reply, None, head_only, &self.rules.name);
                passed.overheard = overheard;
                respond::passing(ask, passed.left_by(own))
            }
            Err(failure) => refuse::failed(ask, failure),
        }
    }

    /// Another method, on a route that passes it. Success makes what is held for the URI untrue.
    /// `host`: as the viewer named it.
    pub(super) async fn pass_method(
        self: &Arc<Self>,
        mut ask: Ask,
        host: &str,
        method: Method,
        body: Option<RequestBody>,
    ) -> Answer {
        ask.forward = Forward::Method;
        if headers::loops(&ask.headers, &self.rules.name) {
            return refuse::looped(ask);
        }
        let (route, forwarded) = (&ask.entry.route, ask.entry.forwarded.as_deref());
        let headers = headers::passed(&ask.headers, forwarded, route, &self.rules.name);
        if !self.clients.admit(ask.client).await {
            return refuse::restrained(ask);
        }
        let (reply, own) = match self
            .ask_origin(&mut ask, method.clone(), headers, body)
            .await
        {
            Ok(reply) => reply,
            Err(failure) => return refuse::failed(ask, failure),
        };
        if !method.is_safe() && (reply.status.is_success() || reply.status.is_redirection()) {
            self.invalidate(&ask.entry, host, &reply.headers);
        }
        let passed = Passed::of(reply, None, false, &self.rules.name);
        respond::passing(ask, passed.left_by(own))
    }

    async fn ask_origin(
        &self,
        ask: &mut Ask,
        method: Method,
        headers: HeaderMap,
        body: Option<RequestBody>,
    ) -> Result<(Reply, Own), Failure> {
        let mut own = Own::new(self.clients.visit(ask.client));
        let entry = &ask.entry;
        let errand = Errand {
            upgrade: None,
            expected: false,
            wants: Wants::Anything,
            class: self.streams.kind_of(entry).into(),
            covered: false,
            method,
            path_and_query: entry.target.clone(),
            host: entry.sent_host().cloned(),
            headers,
            body,
            rank: rank::waited_for(entry.kind, || self.streams.is_new(&entry.key, ask.now)),
            held_back: false,
            overdue: None,
            avoided: EndpointSet::default(),
            excluded: EndpointSet::default(),
            budget: BudgetUse::Earns,
        };
        let origin = &self.origins[entry.route.origin_index];
        let asked = Instant::now();
        let reply = origin.fetch(errand).await;
        let waited = reply.as_ref().map(|reply| reply.waited);
        ask.waited_for_origin(waited.unwrap_or_else(|_| asked.elapsed()));
        match reply {
            Ok(reply) => Ok((reply, own)),
            Err(failure) => {
                own.ended();
                Err(failure)
            }
        }
    }
}

/// An origin's body, read as fast as one viewer takes it.
pub struct Passing {
    relay: Relay,
    left: Option<u64>,
    over: bool,
    own: Option<Own>,
    overheard: Option<Box<Overheard>>,
}

impl Passing {
    fn new(
        inflow: Inflow,
        framing: Framing,
        own: Option<Own>,
        overheard: Option<Box<Overheard>>,
    ) -> Passing {
        Passing {
            relay: inflow.relay(),
            left: match framing {
                Framing::Length(length) => Some(length),
                Framing::Delimited | Framing::UntilClose => None,
            },
            over: false,
            own,
            overheard,
        }
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.relay.poll_next(cx));
        self.over = !matches!(next, Some(Ok(_)));
        let cut = if self.relay.viewer_was_cut() {
            Cut::Viewer
        } else {
            Cut::Origin
        };
        let next = next.map(|bytes| bytes.map_err(|_| cut));
        let next = checked(next, &mut self.left);
        if let Some(Ok(bytes)) = &next
            && let Some(overheard) = &mut self.overheard
            && !overheard.hear(bytes)
        {
            self.overheard = None;
        }
        // The last byte may be all that is ever asked for.
        if self.over || self.left == Some(0) {
            self.own.iter_mut().for_each(Own::ended);
            let is_whole = !matches!(next, Some(Err(_)));
            let overheard = self.overheard.take().filter(|_| is_whole);
            overheard.into_iter().for_each(Overheard::learn);
        }
        Poll::Ready(next)
    }
}
