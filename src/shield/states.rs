//! Is the state of a playlist that a low-latency player asks for there already? Then it is answered at once,
//! whichever request brought it; and never before it is there.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Shield;
use super::ask::Ask;
use crate::cache::{Head, Object};
use crate::media::Liveness;
use crate::media::low_latency::Directives;
use crate::policy::freshness::Freshness;
use crate::policy::lifetime::STATE_TARGETS;

/// What the newest version that is held makes of directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It answers them.
    Answers,
    /// They mean nothing: the playlist as it is answers them.
    Nothing,
    /// Not yet, or that cannot be told.
    Waits,
}

impl Shield {
    /// The answer to a request for a state, by the newest version that is held. Where directives mean
    /// nothing, the request becomes one for the playlist as it is.
    pub(super) fn state_at_hand(&self, ask: &mut Ask) -> Option<Arc<Object>> {
        if !ask.entry.is_directed() {
            return None;
        }
        let (key, kind) = (ask.entry.identity(), ask.entry.kind);
        let newest = self.cache.lookup(key, kind, || self.upstream(ask)).object?;
        let told = told(&newest, ask.entry.directives(), ask.now);
        let taken = ask.directives.is_none() || ask.freshness(&newest) == Freshness::Fresh;
        if told == Told::Answers && taken {
            return Some(newest);
        }
        if told != Told::Waits {
            ask.entry = ask.entry.plain();
        }
        None
    }
}

fn told(object: &Object, asked: Directives, now: Instant) -> Told {
    let head = &object.head;
    let facts = head
        .facts
        .as_ref()
        .filter(|_| head.status == StatusCode::OK);
    let Some(facts) = facts.filter(|facts| !facts.multivariant) else {
        return Told::Waits;
    };
    if facts.liveness == Liveness::Ended {
        return Told::Nothing;
    }
    let (Some(msn), Some(edge)) = (asked.msn, &facts.edge) else {
        return Told::Waits;
    };
    if !facts.control.can_block {
        return Told::Nothing;
    }
    // A delta update that is not made here is the origin's to make.
    if asked.skip.is_some() || !edge.has(msn, asked.part) {
        return Told::Waits;
    }
    let good = facts.target_duration.unwrap_or_default() * STATE_TARGETS;
    if head.lifetime.age(now) < good {
        Told::Answers
    } else {
        // It is over long ago: the newest there is answers it better.
        Told::Nothing
    }
}

/// A low-latency playlist that is looked after is the newest there is: the origin is asked for the next
/// one, and has not answered.
pub(super) fn is_newest(object: &Object, now: Instant) -> bool {
    let facts = object.head.facts.as_ref();
    let blocks = facts.is_some_and(|facts| facts.control.can_block);
    blocks && is_tended(object, now)
}

/// A manifest that is looked after may be good for longer: it is looked at when it is due to change.
pub(super) fn is_tended(object: &Object, now: Instant) -> bool {
    let Head {
        lifetime,
        attention,
        facts,
        ..
    } = &object.head;
    let tended = attention
        .as_ref()
        .is_some_and(|attention| attention.is_tended());
    tended && lifetime.age(now) < lifetime.tended_for(facts.as_ref())
}
