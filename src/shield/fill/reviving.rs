//! The origin confirmed what is held: the same body under updated headers and a new lifetime.

use std::sync::Arc;

use bytes::Bytes;

use super::Job;
use crate::cache::{Head, Object, Verdict};
use crate::origin::Reply;
use crate::policy::lifetime::{Storage, storage};
use crate::policy::{Lifetime, Moment, conditional, headers};
use crate::shield::coding;

impl Job {
    /// RFC 9111 §4.3.4: the stored headers are updated first; the lifetime follows from the result.
    pub(super) fn revived(self, reply: &Reply, seen: &Arc<Object>) {
        let now = Moment::now();
        let name = &self.shield.rules.name;
        let update = headers::downstream(reply.headers.clone(), name);
        let updated = conditional::updated(&seen.head.headers, &update);
        let targeted = headers::targeted(&reply.headers).or_else(|| seen.head.targeted.clone());

        let mut judged = updated.clone();
        judged.extend(targeted.iter().flat_map(|fields| (**fields).clone()));
        judged.remove(http::header::AGE);
        judged.extend(headers::age(&reply.headers));
        let answered = self.answered(reply, &judged, seen.head.kind, seen.head.facts.as_ref());
        let (lifetime, stored) = match storage(&answered, &self.entry.route, now) {
            Storage::Store(lifetime) => (lifetime, true),
            _ => (Lifetime::none(now.mono), false),
        };
        let head = Head {
            headers: updated,
            targeted,
            lifetime,
            stored,
            ..seen.head.clone()
        };
        let mut object = Object::new(head, Bytes::clone(&seen.body));
        let coded = seen.coded.as_ref();
        object.coded = coded.map(|coded| {
            let body = |coded: &Object| Bytes::clone(&coded.body);
            coded.each(|coding, coded| coding::in_coding(&object, coding, body(coded)))
        });
        object.delta = seen.delta.as_ref().map(|delta| {
            let delta = Object::clone(delta).lasting(&object.head.lifetime);
            Arc::new(delta)
        });
        let object = Arc::new(object);
        if stored {
            self.confirmed(reply, &object.head);
        }
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if stored {
            self.fill.varies(self.vary(&object.head.headers));
            self.fill.keep(&object, verdict);
        } else {
            self.fill.displace();
            self.fill.settle(verdict);
        }
    }
}
