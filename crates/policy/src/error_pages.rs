//! The bodies that an operator wrote for responses that the shield makes itself.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

/// The error pages of a route. The first page that names a status by its number has precedence,
/// then one that names its class; pages for all routes apply where the route has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    /// Those of the route alone.
    pub own: Arc<[ErrorPage]>,
    /// Those for all routes.
    pub general: Arc<[ErrorPage]>,
}

/// One page, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The statuses that it is for.
    pub statuses: Vec<ErrorStatus>,
    /// The file that it was read from.
    pub file: PathBuf,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
    /// What the file contained when it was read.
    pub body: Bytes,
}

/// One status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStatus {
    /// This status.
    One(StatusCode),
    /// 400 to 499.
    Client,
    /// 500 to 599.
    Server,
}

impl ErrorPages {
    /// The pages for responses to requests of no route.
    pub fn general(pages: Vec<ErrorPage>) -> ErrorPages {
        ErrorPages {
            own: Arc::default(),
            general: pages.into(),
        }
    }

    /// The page for a status.
    pub fn page(&self, status: StatusCode) -> Option<&ErrorPage> {
        page_in(&self.own, status).or_else(|| page_in(&self.general, status))
    }
}

fn page_in(pages: &[ErrorPage], status: StatusCode) -> Option<&ErrorPage> {
    let class = match status.as_u16() {
        400..500 => ErrorStatus::Client,
        500..600 => ErrorStatus::Server,
        _ => return None,
    };
    let named = |wanted| move |page: &&ErrorPage| page.statuses.contains(&wanted);
    let mut by_number = pages.iter().filter(named(ErrorStatus::One(status)));
    let by_class = || pages.iter().find(named(class));
    by_number.next().or_else(by_class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &'static str, statuses: &[ErrorStatus]) -> ErrorPage {
        ErrorPage {
            statuses: statuses.to_vec(),
            file: name.into(),
            content_type: HeaderValue::from_static("text/plain"),
            body: Bytes::from_static(name.as_bytes()),
        }
    }

    fn one(status: u16) -> ErrorStatus {
        ErrorStatus::One(StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn number_precedes_class_and_route_precedes_all() {
        let pages = ErrorPages {
            own: [page("own 5xx", &[ErrorStatus::Server])].into(),
            general: [
                page("4xx", &[ErrorStatus::Client]),
                page("403", &[one(403), one(503)]),
            ]
            .into(),
        };
        let cases = [
            (400, Some("4xx")),
            (403, Some("403")),
            (499, Some("4xx")),
            (500, Some("own 5xx")),
            (503, Some("own 5xx")),
            (200, None),
            (304, None),
            (600, None),
        ];
        for (status, expected) in cases {
            let page = pages.page(StatusCode::from_u16(status).unwrap());
            let name = page.map(|page| page.file.to_str().unwrap());
            assert_eq!(name, expected, "{status}");
        }
        let none = ErrorPages::default();
        assert_eq!(none.page(StatusCode::FORBIDDEN), None);
    }
}
