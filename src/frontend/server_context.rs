//! What the connections of one listener and worker share: the handler, the limits, and hyper's
//! settings.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper::server::conn::{http1, http2};
use parking_lot::Mutex;

use super::awaited_responses::{SharedResponse, SharedWaiter};
use super::bad_request;
use super::connection_state::ConnectionState;
use super::connection_table::ConnectionTable;
use super::connection_timer::{ConnectionTimer, ViewerProtocol};
use super::date::date_valid_until;
use super::frames::FrameKind;
use super::repeated_responses::{
    Http1Head, Http2Fields, RepeatLookup, RepeatedHead, RepeatedResponse, RepeatedResponses,
};
use super::request_key::RequestKey;
use super::stats::ConnectionEvent;
use super::streams::StreamExecutor;
use super::{Handler, Limits, RequestRecorder};
use crate::proxy::{SharedWait, ViewerResponse};
use seawall_policy::{IgnoredFields, TrustedProxies, ViewerAddress};

/// HTTP/2 windows for uploads: they bound the memory of a connection, and players send no bodies.
/// The viewer's windows limit downloads.
const UPLOAD_STREAM_WINDOW: u32 = 64 << 10;
const UPLOAD_CONNECTION_WINDOW: u32 = 256 << 10;

/// hyper passes the next chunk of a stream to h2 while h2 has queued less than this.
pub(super) const SEND_QUEUE_BYTES: usize = 64 << 10;

/// h2 closes a connection as abusive when it has more streams than this that the viewer reset
/// before they were accepted, or that were reset for errors of the viewer.
const RESET_STREAMS_MAX: usize = 32;

/// The smallest buffer size that hyper accepts.
const BUFFER_BYTES_MIN: usize = 8 << 10;

/// hyper parses this many header fields without allocating.
const FIELDS_INLINE: usize = 100;

/// Shared by the connections of one listener on one worker thread.
pub(super) struct ServerContext<A> {
    pub(super) handler: A,
    pub(super) recorder: RequestRecorder,
    pub(super) limits: Arc<Limits>,
    pub(super) connections: Arc<ConnectionTable>,
    pub(super) trusted_proxies: Arc<TrustedProxies>,
    pub(super) repeated: Arc<RepeatedTables>,
    /// That of the settings with which the connections began.
    generation: u64,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<StreamExecutor>,
}

/// What one worker remembers of the responses of one listener. Each table is locked by one thread
/// only.
pub(super) struct RepeatedTables {
    pub(super) http1: Mutex<RepeatedResponses<Http1Head>>,
    pub(super) http2: Mutex<RepeatedResponses<Http2Fields>>,
    connections: Arc<ConnectionTable>,
}

impl RepeatedTables {
    fn new(connections: &Arc<ConnectionTable>) -> RepeatedTables {
        RepeatedTables {
            http1: Mutex::default(),
            http2: Mutex::default(),
            connections: Arc::clone(connections),
        }
    }
}

/// With the last connection of a listener that is gone.
impl Drop for RepeatedTables {
    fn drop(&mut self) {
        let bytes = self.http1.get_mut().bytes() + self.http2.get_mut().bytes();
        self.connections.counters.record_repeated_bytes(bytes, 0);
    }
}

/// The context of new connections of one listener on one worker. A reload makes another one.
pub(super) struct CurrentContext<A> {
    limits: Arc<ArcSwap<Limits>>,
    context: Mutex<Arc<ServerContext<A>>>,
}

impl<A: Handler + Clone> CurrentContext<A> {
    pub(super) fn new(
        handler: A,
        recorder: RequestRecorder,
        limits: Arc<ArcSwap<Limits>>,
        connections: Arc<ConnectionTable>,
    ) -> CurrentContext<A> {
        let context = ServerContext::new(handler, recorder, limits.load_full(), connections);
        CurrentContext {
            limits,
            context: Mutex::new(context),
        }
    }

    /// The context for a connection that begins now.
    pub(super) fn get(&self) -> Arc<ServerContext<A>> {
        let mut context = self.context.lock();
        let is_current = context.generation == context.handler.generation()
            && Arc::ptr_eq(&context.limits, &self.limits.load());
        if !is_current {
            *context = context.with_limits(self.limits.load_full());
        }
        Arc::clone(&context)
    }
}

impl<A: Handler> ServerContext<A> {
    pub(super) fn new(
        handler: A,
        recorder: RequestRecorder,
        limits: Arc<Limits>,
        connections: Arc<ConnectionTable>,
    ) -> Arc<ServerContext<A>> {
        let repeated = Arc::new(RepeatedTables::new(&connections));
        ServerContext::with_tables(handler, recorder, limits, (connections, repeated))
    }

    /// The same with other limits, and with the settings of now.
    fn with_limits(&self, limits: Arc<Limits>) -> Arc<ServerContext<A>>
    where
        A: Clone,
    {
        let shared = (self.connections.clone(), self.repeated.clone());
        ServerContext::with_tables(self.handler.clone(), self.recorder.clone(), limits, shared)
    }

    fn with_tables(
        handler: A,
        recorder: RequestRecorder,
        limits: Arc<Limits>,
        (connections, repeated): (Arc<ConnectionTable>, Arc<RepeatedTables>),
    ) -> Arc<ServerContext<A>> {
        // First: what is read after it is at least as new.
        let generation = handler.generation();
        let trusted_proxies = handler.trusted_proxies();
        let http1 = http1_builder(&limits);
        let http2 = http2_builder(
            &limits,
            StreamExecutor::new(limits.clone(), connections.clone()),
        );
        Arc::new(ServerContext {
            handler,
            recorder,
            limits,
            connections,
            trusted_proxies,
            repeated,
            generation,
            http1,
            http2,
        })
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN))
        .max_header_size(limits.head_bytes_max)
        // `connection_timer` enforces it without a timer per request, and does not count idle time.
        .header_read_timeout(None)
        // `date` writes it.
        .auto_date_header(false);
    if limits.headers_max > FIELDS_INLINE {
        builder.max_headers(limits.headers_max);
    }
    builder
}

fn http2_builder(limits: &Limits, streams: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(streams);
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(read_bytes_max(limits)).unwrap_or(u32::MAX))
        .initial_stream_window_size(UPLOAD_STREAM_WINDOW)
        .initial_connection_window_size(UPLOAD_CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .max_send_buf_size(SEND_QUEUE_BYTES)
        .auto_date_header(false);
    builder
}

/// Bytes of an HTTP/2 head that h2 reads. More than the limit: what h2 rejects itself cannot be
/// logged.
fn read_bytes_max(limits: &Limits) -> usize {
    limits.head_bytes_max.saturating_mul(2)
}

impl<A: Handler> ServerContext<A> {
    /// Looks for a response of the same second, in one of the two tables. A response to one viewer
    /// is found for another only if the access rules of all routes say the same of the addresses
    /// and the certificates of both.
    pub(super) fn look_up_repeated<H: RepeatedHead>(
        &self,
        table: &Mutex<RepeatedResponses<H>>,
        arrived: std::time::Instant,
        (viewer, connection): (impl FnOnce() -> ViewerAddress, &ConnectionState),
        write_key: impl FnOnce(&IgnoredFields, &mut Vec<u8>),
    ) -> RepeatLookup<H> {
        let mut table = table.lock();
        if table.generation() != self.handler.generation() {
            self.begin_generation(&mut table);
        }
        let lookup = table.look_up(arrived, |rules, key| {
            write_key(&rules.ignored_fields, key);
            let certificate = || connection.certificate.get().map(Arc::as_ref);
            let classes = &rules.address_classes;
            classes.write_class(|| viewer().viewer, certificate, key);
        });
        // Not at a repeated hit: it costs as little as possible.
        if !matches!(lookup, RepeatLookup::Remembered(_)) {
            self.count_repeated_bytes(&mut table, |table| table.sweep(arrived));
        }
        lookup
    }

    /// Counts and records a request that hyper could not parse (HTTP/1). `head` is its beginning.
    pub(super) fn record_unparsable(
        &self,
        error: &hyper::Error,
        head: &[u8],
        connection: &ConnectionState,
    ) {
        self.count(ConnectionEvent::HeadRefused);
        let mut record = bad_request::http1_record(error, head, connection);
        if let Some(fields) = &mut record.log_fields {
            let path = self.handler.without_token(&fields.path).to_owned();
            fields.path = path;
        }
        (self.recorder)(&record);
    }

    /// Forgets what one of the tables remembers, because the settings are new.
    #[cold]
    fn begin_generation<H: RepeatedHead>(&self, table: &mut RepeatedResponses<H>) {
        let rules = self.handler.repeat_rules();
        self.count_repeated_bytes(table, |table| table.begin_generation(rules));
    }
}

impl<A> ServerContext<A> {
    /// Begins a wait for the response to an HTTP/1.1 request, which others may join unless a reload
    /// came between. `share` makes of the response what all can send.
    pub(super) fn begin_wait(
        &self,
        key: RequestKey,
        wait: SharedWait,
        arrived: std::time::Instant,
        share: fn(ViewerResponse) -> Option<SharedResponse<Http1Head>>,
    ) -> SharedWaiter<Http1Head> {
        let mut table = self.repeated.http1.lock();
        let generations = [key.generation(), wait.generation];
        let may_be_joined = generations == [table.generation(); 2];
        table
            .awaited
            .insert(key, wait, (arrived, may_be_joined), share)
    }

    /// Remembers the response to a request that arrived at this time, in one of the two tables.
    pub(super) fn remember<H: RepeatedHead>(
        &self,
        table: &Mutex<RepeatedResponses<H>>,
        key: RequestKey,
        response: RepeatedResponse<H>,
        arrived: std::time::Instant,
    ) {
        self.count_repeated_bytes(&mut table.lock(), |table| {
            table.insert(key, response, date_valid_until(arrived));
        });
    }

    /// Changes the remembered responses, and counts their bytes.
    fn count_repeated_bytes<H: RepeatedHead>(
        &self,
        table: &mut RepeatedResponses<H>,
        change: impl FnOnce(&mut RepeatedResponses<H>),
    ) {
        let bytes_before = table.bytes();
        change(table);
        if table.bytes() != bytes_before {
            let counters = &self.connections.counters;
            counters.record_repeated_bytes(bytes_before, table.bytes());
        }
    }

    pub(super) fn timer(
        &self,
        protocol: ViewerProtocol,
        connection: &Arc<ConnectionState>,
    ) -> ConnectionTimer {
        ConnectionTimer::new(protocol, self.limits.clone(), connection.clone())
    }

    pub(super) fn count(&self, event: ConnectionEvent) {
        self.connections.counters.count(event);
    }

    /// Counts and logs a connection that is closed because of too many control frames.
    pub(super) fn record_flood(&self, kind: FrameKind, connection: &ConnectionState) {
        self.connections.counters.count_flood(kind);
        tracing::warn!(
            peer = connection.address().viewer.map(tracing::field::display),
            frame = kind.as_str(),
            "closed an HTTP/2 connection: too many control frames for its requests"
        );
    }

    /// Counts and records a request that h2 rejected without passing it to hyper.
    pub(super) fn record_malformed(&self, connection: &ConnectionState) {
        self.count(ConnectionEvent::HeadRefused);
        (self.recorder)(&bad_request::http2_record(connection));
    }

    /// Counts a connection that is cut, and frees what the kernel still holds for a slow viewer.
    pub(super) fn record_cut(&self, event: ConnectionEvent, connection: &ConnectionState) {
        self.count(event);
        if matches!(
            event,
            ConnectionEvent::SlowViewer | ConnectionEvent::CutForMemory
        ) {
            // The kernel drops the unsent bytes of a connection that is reset.
            connection.reset_on_close();
        }
    }
}
