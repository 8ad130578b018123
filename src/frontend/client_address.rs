//! Finds the viewer of a request: the other end of the connection, or whom trusted proxies name.

use http::{HeaderMap, HeaderValue};

use super::connection_state::ConnectionState;
use super::server_context::ServerContext;
use seawall_policy::{ClientField, ViewerAddress};

impl<A> ServerContext<A> {
    /// Where a request comes from. `lines` returns the lines of a field, the last one first; it is
    /// called only if the connection comes from a trusted proxy.
    pub(super) fn viewer_of<'l, L>(
        &self,
        connection: &ConnectionState,
        lines: impl FnOnce(ClientField) -> L,
    ) -> ViewerAddress
    where
        L: Iterator<Item = &'l [u8]>,
    {
        self.trusted_proxies.viewer_of(connection.address(), lines)
    }
}

/// The lines of a field, the last one first.
pub(super) fn lines_of(headers: &HeaderMap, field: ClientField) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(field.name()).iter();
    values.rev().map(HeaderValue::as_bytes)
}
