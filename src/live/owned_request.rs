//! Copies what a tracker keeps of a request, so that it does not keep a connection's read buffer
//! allocated: thousands of manifests may be tracked, each for a day after its last request.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use seawall_policy::access::CacheRequest;

/// Copies the target. The texts of a request are slices of the connection's read buffer and would
/// keep it allocated.
pub(super) fn owned(mut request: CacheRequest) -> CacheRequest {
    if let Ok(target) = PathAndQuery::try_from(request.target.as_str().to_owned()) {
        request.target = target;
    }
    // No client waits for what is requested for a tracker.
    request.class = None;
    request
}

/// Does the same for header values.
pub(super) fn own_values(fields: &HeaderMap) -> HeaderMap {
    let own = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let fields = fields.iter();
    fields
        .filter_map(|(name, value)| Some((name.clone(), own(value)?)))
        .fold(HeaderMap::new(), |mut owned, (name, value)| {
            owned.append(name, value);
            owned
        })
}
