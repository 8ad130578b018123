//! The same text in other content codings. Each is made once, when somebody takes it first, and kept beside
//! the text.

use std::sync::{Arc, OnceLock};

use super::Object;
use crate::policy::encoding::Coding;

/// What a coding made of a text; `None`: it is no smaller.
type Coded = Option<Arc<Object>>;

/// By coding, as far as anybody has taken it.
#[derive(Clone, Debug, Default)]
pub struct Codings([OnceLock<Coded>; Coding::ALL.len()]);

impl Codings {
    /// The text in a coding. Made by `make` where nobody has taken it so far.
    pub fn in_coding(
        &self,
        coding: Coding,
        make: impl FnOnce() -> Option<Object>,
    ) -> Option<&Arc<Object>> {
        let place = &self.0[coding as usize];
        place.get_or_init(|| make().map(Arc::new)).as_ref()
    }

    /// The same, each object changed.
    #[must_use]
    pub fn each(&self, change: impl Fn(Coding, &Object) -> Object) -> Codings {
        let changed = Codings::default();
        for coding in Coding::ALL {
            if let Some(coded) = self.0[coding as usize].get() {
                let coded = coded.as_ref();
                let object = || coded.map(|object| change(coding, object));
                changed.in_coding(coding, object);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::StatusCode;

    use super::*;
    use crate::cache::{FieldLines, Head};
    use crate::media::Kind;
    use crate::policy::Lifetime;

    fn object(body: &'static str) -> Object {
        let head = Head {
            status: StatusCode::OK,
            headers: FieldLines::default(),
            targeted: None,
            kind: Kind::Hls,
            lifetime: Lifetime::none(Instant::now()),
            facts: None,
            length: None,
            stored: true,
            tie: None,
            attention: None,
        };
        Object::new(head, body.into())
    }

    #[test]
    fn each_is_made_once() {
        let codings = Codings::default();
        let first = codings.in_coding(Coding::Gzip, || Some(object("small")));
        assert_eq!(first.unwrap().body, "small");
        let again = codings.in_coding(Coding::Gzip, || panic!("it is there"));
        assert_eq!(again.unwrap().body, "small");
        assert!(codings.in_coding(Coding::Brotli, || None).is_none());
        let other = codings.each(|_, _| object("other"));
        let kept = other.in_coding(Coding::Gzip, || panic!("it is there"));
        assert_eq!(kept.unwrap().body, "other");
        let none = other.in_coding(Coding::Brotli, || panic!("it was no smaller"));
        assert!(none.is_none());
        assert!(
            other
                .in_coding(Coding::Zstd, || Some(object("z")))
                .is_some()
        );
    }
}
