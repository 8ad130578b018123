//! The origin gave nothing to store: it failed, refused, or answered for one viewer alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use tokio::time::timeout;

use super::manifest::ManifestText;
use super::{FillTask, FillTrigger};
use crate::cache::{ExpiringMemo, KeyMemo, Object, Verdict};
use crate::manifest::Kind;
use crate::policy::lifetime::{UncacheableReason, is_failure};
use crate::policy::missing_manifest::{doubted_for, is_absence, says_what_became_of_it};
use crate::policy::{EndpointSet, Lifetime};
use crate::proxy::live::RejectReason;
use crate::proxy::pass::PassThroughResponse;
use crate::proxy::read_whole::whole;
use crate::proxy::rejections;
use crate::upstream::{Failure, UpstreamResponse};

/// An origin's error page is handed on up to this size.
const ERROR_BODY_BYTES_MAX: u64 = 64 << 10;

/// And waited for so long: what it says beside its status is nothing that players need.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(1);

/// That an object is too large to be held, and comes in no slices, is remembered for so long.
const TOO_LARGE_MEMORY: Duration = Duration::from_mins(10);

impl FillTask {
    /// The origin said that it cannot: all who wait are told, what is held stays, and the origin is
    /// left alone for a while.
    pub(super) async fn failing(self, reply: UpstreamResponse, wait: Option<Duration>, open: bool) {
        let answer = if open {
            self.in_its_words(reply).await
        } else {
            let retry_after = reply.headers.get(header::RETRY_AFTER).cloned();
            rejections::own_answer(reply.status, retry_after)
        };
        let answer = Arc::new(answer);
        self.back_off(wait, &answer);
        self.fill.settle(Verdict::Failed(answer));
    }

    /// The same, for as long as the origin says that it is so. What is held stays, and covers it.
    pub(super) async fn failing_for(self, reply: UpstreamResponse, lifetime: Lifetime) {
        let left = lifetime.fresh_left(Instant::now());
        let answer = Arc::new(self.in_its_words_for(reply, lifetime).await);
        let backoff = self.shield.settings.failure_backoff;
        self.back_off(Some(left.max(backoff)), &answer);
        self.fill.settle(Verdict::Failed(answer));
    }

    /// The object is no more: what is held goes, and everyone who waits is told.
    pub(super) async fn gone(self, reply: UpstreamResponse) {
        let answer = Arc::new(self.in_its_words(reply).await);
        self.fill.displace();
        self.fill.settle(Verdict::Object(answer));
    }

    /// An error that may be stored. Its status is what viewers wait for: they get it alone where its page is late,
    /// and it is not stored then.
    pub(super) async fn error(self, mut reply: UpstreamResponse, kind: Kind, lifetime: Lifetime) {
        let reading = async {
            while reply.body.ahead_bytes() < ERROR_BODY_BYTES_MAX {
                match reply.body.read_ahead().await {
                    Some(Ok(())) => {}
                    Some(Err(failure)) => return Err(failure),
                    None => break,
                }
            }
            Ok(())
        };
        let is_there = matches!(timeout(ERROR_BODY_PATIENCE, reading).await, Ok(Ok(())));
        if is_there {
            let lifetime = self.while_unlisted(lifetime);
            return self.stream(reply, kind, lifetime).await;
        }
        let none = Lifetime::none(Instant::now());
        let head = self.head(reply.status, reply.headers, kind, none, false);
        let answer = Arc::new(Object::new(head, Bytes::new()));
        let backoff = self.shield.settings.failure_backoff;
        self.back_off(Some(lifetime.fresh_for.min(backoff)), &answer);
        self.fill.displace();
        self.fill.settle(Verdict::Object(answer));
    }

    /// The origin refused this request; what it says to others is not known.
    pub(super) async fn refused(self, reply: UpstreamResponse) {
        let answer = Arc::new(self.in_its_words(reply).await);
        self.fill.settle(Verdict::Refused(answer));
    }

    /// For how long an answer that a manifest is not there is doubted: one is held, and the route
    /// wants it so. A 403 to a viewer's own credentials is about those.
    pub(super) fn doubted(&self, status: StatusCode) -> Option<Duration> {
        let own = status == StatusCode::FORBIDDEN && self.authorized();
        let held = self.fill.found().object.as_ref();
        let head = &held.filter(|_| is_absence(status) && !own)?.head;
        let manifest = head.status == StatusCode::OK && head.kind.is_manifest();
        let window = self.entry.route.lifetimes.manifest_stale_if_missing;
        doubted_for(&head.lifetime, window, Instant::now()).filter(|_| manifest)
    }

    /// What no origin means to say of a manifest that was there a moment ago, while what is held may be served:
    /// unless the request provoked it by words of its own.
    pub(super) fn is_no_answer(&self, reply: &UpstreamResponse) -> bool {
        let is_manifest = |held: &Arc<Object>| held.head.kind.is_manifest();
        let has_location = reply.headers.contains_key(header::LOCATION);
        self.own.is_none()
            && !is_failure(reply.status)
            && !says_what_became_of_it(reply.status, has_location)
            && self.covered()
            && self.held().is_some_and(is_manifest)
    }

    /// The origin says that a manifest is not there, and is not believed yet: a failure like others.
    pub(super) async fn missing(self, mut reply: UpstreamResponse, left: Duration) {
        let answer = Arc::new(rejections::own_answer(reply.status, None));
        let wait = self.shield.settings.failure_backoff.min(left);
        self.back_off(Some(wait), &answer);
        self.fill.settle(Verdict::Failed(answer));
        // Nobody waits for the rest of it; read, its connection can be used again.
        let _ = whole(&mut reply.body, ERROR_BODY_BYTES_MAX, |_| true).await;
    }

    /// The origin could not be heard.
    pub(super) fn failed(self, failure: Failure) {
        let held = self.fill.found().object.is_some();
        let answer = Arc::new(rejections::failure_object(failure, held));
        match failure {
            // Our own doing, not the origin's: the next viewer may try.
            Failure::Busy | Failure::Open => {}
            Failure::Exhausted => return self.fill.settle(Verdict::Exhausted(answer)),
            Failure::Truncated => self.back_off_unless_first(&answer),
            Failure::Resolve
            | Failure::Connect
            | Failure::Tls
            | Failure::Timeout
            | Failure::Reset => self.back_off_until_heard(&answer),
            _ => self.back_off(None, &answer),
        }
        self.fill.settle(Verdict::Failed(answer));
    }

    /// The answer broke off on its way to all who wait.
    pub(super) fn broke_off(self, failure: Failure, endpoint: usize) {
        let origin = self.origin();
        let noted = self.noted(Instant::now());
        let left = match noted {
            Some(KeyMemo::Avoid(left)) => left,
            _ => EndpointSet::default(),
        };
        if origin.another_stands(left.with(endpoint)) {
            // It answers whoever asks again, and those who have seen nothing of this yet.
            self.leave(endpoint);
            return self.fill.cut();
        }
        let held = self.fill.found().object.is_some();
        let answer = Arc::new(rejections::failure_object(failure, held));
        self.back_off_unless_first(&answer);
        self.fill.break_off(answer);
    }

    /// An origin whose answer broke off was answering: who has nothing else may try at once, and once. Who is
    /// served what is held need not have it asked for again at once.
    fn back_off_unless_first(&self, answer: &Arc<Object>) {
        let backoff = self.shield.settings.failure_backoff;
        let now = Instant::now();
        let again = matches!(
            self.noted(now),
            Some(KeyMemo::BrokenOff | KeyMemo::Avoid(_))
        );
        if again || self.covered() {
            self.back_off(None, answer);
        } else if !backoff.is_zero() {
            self.note(ExpiringMemo {
                until: now + backoff,
                what: KeyMemo::BrokenOff,
            });
        }
    }

    fn noted(&self, now: Instant) -> Option<KeyMemo> {
        let slot = self.own.as_ref().unwrap_or(&self.fill.found().slot);
        self.shield.cache.noted(slot, now)
    }

    pub(super) fn back_off(&self, wait: Option<Duration>, answer: &Arc<Object>) {
        let wait = wait.unwrap_or(self.shield.settings.failure_backoff);
        if !wait.is_zero() {
            self.note(ExpiringMemo {
                until: Instant::now() + wait,
                what: KeyMemo::Failed(Arc::clone(answer)),
            });
        }
    }

    /// The same, but no longer than until an endpoint is back that could not be connected to.
    fn back_off_until_heard(&self, answer: &Arc<Object>) {
        let (wait, now) = (self.shield.settings.failure_backoff, Instant::now());
        if !wait.is_zero() {
            self.note(ExpiringMemo {
                until: now + wait,
                what: KeyMemo::Unheard(Arc::clone(answer), now),
            });
        }
    }

    /// Remembers what may be due to this very request, for those that are the same.
    fn note(&self, note: ExpiringMemo) {
        match &self.own {
            Some(own) => self.fill.note_apart(own, note),
            None => self.fill.note(note),
        }
    }

    /// An error that the request may have provoked by words of its own: nothing is dropped for it, and
    /// only requests that say the same share it.
    pub(super) async fn provoked(self, reply: UpstreamResponse, lasting: Duration) {
        let answer = Arc::new(self.in_its_words(reply).await);
        if !lasting.is_zero() {
            self.back_off(Some(lasting), &answer);
        }
        self.fill.settle(Verdict::Refused(answer));
    }

    /// A small answer, read whole, good for this moment only; its head alone where the rest is late.
    async fn in_its_words(&self, reply: UpstreamResponse) -> Object {
        self.in_its_words_for(reply, Lifetime::none(Instant::now()))
            .await
    }

    async fn in_its_words_for(&self, mut reply: UpstreamResponse, lifetime: Lifetime) -> Object {
        let reading = whole(&mut reply.body, ERROR_BODY_BYTES_MAX, |_| true);
        let body = timeout(ERROR_BODY_PATIENCE, reading).await;
        let body = body.ok().and_then(Result::ok);
        let head = self.head(
            reply.status,
            reply.headers,
            self.entry.kind,
            lifetime,
            false,
        );
        Object::new(head, body.unwrap_or_default())
    }

    /// One viewer's own, or nobody's: not stored, not shared.
    pub(super) fn pass(self, reply: UpstreamResponse, reason: UncacheableReason) {
        let name = &self.shield.rules.name;
        let passed = PassThroughResponse::of(reply, Some(reason), false, name);
        self.hand_over(passed, reason);
    }

    /// The leader gets the answer itself. That a resource is uncacheable is remembered, so that its
    /// viewers do not queue behind one another; what one odd request brought is not.
    pub(super) fn hand_over(self, mut passed: PassThroughResponse, reason: UncacheableReason) {
        if passed.status == StatusCode::OK && reason != UncacheableReason::Partial {
            if self.own.is_none() {
                self.fill.displace();
            }
            self.note(ExpiringMemo {
                until: Instant::now()
                    + match reason {
                        // That is the object's nature, and finding out costs a fetch that is given up.
                        UncacheableReason::TooLarge => {
                            TOO_LARGE_MEMORY.max(self.shield.settings.pass_memory)
                        }
                        _ => self.shield.settings.pass_memory,
                    },
                what: KeyMemo::Pass,
            });
        }
        if let FillTrigger::Waits(viewer, visit) = self.viewer {
            passed.own = Some(visit.hand_over());
            // A viewer who has left takes the answer, and the connection, with it.
            let _ = viewer.send(passed);
        }
        self.fill.settle(Verdict::Pass);
    }

    /// What nobody here can read is not kept for others: nothing watches over it.
    pub(super) fn hand_over_unread(self, text: ManifestText) {
        self.shield.streams.unfit(RejectReason::Coded);
        let path = self.entry.target.path();
        let coding = text.reply.headers.get(header::CONTENT_ENCODING);
        let coding = coding.map(|coding| String::from_utf8_lossy(coding.as_bytes()));
        tracing::warn!(
            path,
            endpoint = text.reply.endpoint,
            coding = coding.as_deref(),
            "manifest is in a content coding that is not read here: it is passed on and not stored"
        );
        self.hand_over_text(text, UncacheableReason::Coding);
    }

    /// The same for a manifest, which has been read already.
    pub(super) fn hand_over_text(self, text: ManifestText, reason: UncacheableReason) {
        if let Some(manifest) = &text.manifest {
            let what = (&self.entry, text.variant);
            self.shield.learn_unstored(what, manifest, text.seen);
        }
        let name = &self.shield.rules.name;
        let passed = PassThroughResponse::whole(text.reply, text.body, reason, name);
        self.hand_over(passed, reason);
    }
}
