//! Makes one attempt at one endpoint: connect, send the request, read the head; once more on a new
//! connection if a reused one was closed. Every step has a deadline.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::attempt_guard::AttemptGuard;
use super::upload::UpstreamUpload;
use crate::connection::{
    AttemptRequest, EndpointConnector, GroupHeaders, PayloadSize, ResponseHead, UpstreamConnection,
    drain_and_release,
};
use crate::endpoint::{EndpointState, std_now};
use crate::guard::log_throttle::LogThrottle;
use crate::{Deadlines, Failure};

/// Sends requests to single endpoints of a group. It does not choose the endpoint, and it does not
/// retry.
pub(crate) struct EndpointClient {
    connector: Arc<EndpointConnector>,
    group_headers: GroupHeaders,
    deadlines: Deadlines,
    /// Throttles the log message about missing sockets.
    shortage_log: Mutex<LogThrottle>,
}

/// Deadlines of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptDeadlines {
    /// For its connection.
    pub(crate) connect: Instant,
    /// For everything.
    pub(crate) total: Instant,
}

/// How an attempt ended.
pub(crate) type AttemptOutcome = Result<AttemptResponse, AttemptError>;

/// A response whose head has arrived.
pub(crate) struct AttemptResponse {
    pub(crate) connection: UpstreamConnection,
    pub(crate) head: ResponseHead,
    pub(crate) guard: AttemptGuard,
    /// See [`crate::UpstreamResponse::endpoint_to_avoid`]; the index in the group.
    pub(crate) endpoint_to_avoid: Option<usize>,
}

/// Why an attempt brought no response head.
pub(crate) struct AttemptError {
    pub(crate) failure: Failure,
    /// The endpoint may have seen the request.
    pub(crate) may_have_arrived: bool,
    /// It was already sent again, on a new connection.
    pub(crate) resent: bool,
}

/// A connection on which the response head has arrived.
pub(crate) struct AnsweredConnection {
    pub(crate) connection: UpstreamConnection,
    pub(crate) head: ResponseHead,
}

/// Why a connection brought no head.
pub(crate) struct BrokenConnection {
    pub(crate) failure: Failure,
    /// The connection was lost or accepts no more requests: says nothing about the origin.
    lost: bool,
}

/// How far an attempt got.
#[derive(Default)]
struct AttemptProgress {
    /// When the request was last sent.
    sent_at: Option<Instant>,
    resent: bool,
}

impl AttemptResponse {
    /// The endpoint's index in its group.
    pub(crate) fn endpoint(&self) -> usize {
        self.guard.endpoint().index
    }

    /// Drops a response that is not used. It counts as complete.
    pub(crate) fn discard(self) {
        self.guard.complete(self.head.status);
        drain_and_release(self.connection, &self.head);
    }
}

impl EndpointClient {
    pub(crate) fn new(
        connector: Arc<EndpointConnector>,
        group_headers: GroupHeaders,
        deadlines: Deadlines,
    ) -> EndpointClient {
        EndpointClient {
            connector,
            group_headers,
            deadlines,
            shortage_log: Mutex::default(),
        }
    }

    /// Sends the request to one endpoint. `upload` is taken once a connection exists.
    pub(crate) async fn send_attempt(
        &self,
        mut guard: AttemptGuard,
        request: &AttemptRequest,
        upload: &mut Option<UpstreamUpload>,
        deadlines: AttemptDeadlines,
    ) -> AttemptOutcome {
        if let Some(upload) = upload {
            upload.permits.set_endpoint_permit(guard.endpoint_permit());
        }
        let mut progress = AttemptProgress::default();
        let endpoint = guard.endpoint();
        let exchange = self.exchange(endpoint, request, upload, deadlines.connect, &mut progress);
        let outcome = timeout_at(deadlines.total, exchange).await;
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        // With a body, the time depends on the sender as much as on the endpoint.
        if let Some(sent_at) = progress.sent_at
            && request.payload.is_empty()
        {
            let end = outcome.as_ref().map(drop).map_err(|&failure| failure);
            endpoint.record_response_time(sent_at.elapsed(), end, !request.may_block());
        }
        match outcome {
            Ok(AnsweredConnection { connection, head }) => {
                guard.record_head(head.status);
                Ok(AttemptResponse {
                    connection,
                    head,
                    guard,
                    endpoint_to_avoid: None,
                })
            }
            Err(failure) => {
                self.record_failure(guard, request, &progress, failure);
                let AttemptProgress { sent_at, resent } = progress;
                Err(AttemptError {
                    failure,
                    may_have_arrived: sent_at.is_some(),
                    resent,
                })
            }
        }
    }

    fn record_failure(
        &self,
        guard: AttemptGuard,
        request: &AttemptRequest,
        progress: &AttemptProgress,
        failure: Failure,
    ) {
        if failure == Failure::Exhausted {
            self.log_shortage();
        }
        // Not the endpoint's fault: an upload that broke off, a blocking response that is late by
        // design, or a total deadline that the queue used up.
        let is_upload = !request.payload.is_empty();
        let head_timeout = request.head_timeout(&self.deadlines);
        let is_cut_short = progress
            .sent_at
            .is_some_and(|sent_at| sent_at.elapsed() < head_timeout);
        let is_excused = request.may_block() || is_cut_short;
        if is_upload || (failure == Failure::Timeout && is_excused) {
            guard.abort(failure);
        } else {
            guard.fail(failure);
        }
    }

    fn log_shortage(&self) {
        if let Some(suppressed) = self.shortage_log.lock().allows(std_now()) {
            tracing::warn!(
                left_out = suppressed,
                "this host has no sockets left for origins: raise its limit of open files"
            );
        }
    }

    /// Connects, sends the request and reads the head; again where the first failure or refusal
    /// says nothing about the endpoint.
    async fn exchange(
        &self,
        endpoint: &EndpointState,
        request: &AttemptRequest,
        upload: &mut Option<UpstreamUpload>,
        connect_until: Instant,
        progress: &mut AttemptProgress,
    ) -> Result<AnsweredConnection, Failure> {
        // A request that cannot be repeated is not risked on an idle connection that may be
        // closing.
        let connection = self
            .connect(endpoint, !request.is_repeatable(), connect_until)
            .await?;
        let is_reused = connection.is_reused();
        progress.sent_at = Some(Instant::now());
        let answered = match self.send(connection, request, upload.take()).await {
            Ok(answered) => answered,
            // Origins close idle connections without warning: says nothing about the origin. A
            // partial head counts as none: nothing of it was used.
            Err(broken) if broken.lost && is_reused => {
                Box::pin(self.resend(endpoint, request, progress)).await?
            }
            Err(broken) => return Err(broken.failure),
        };
        Ok(self
            .retry_with_other_secret(endpoint, request, answered)
            .await)
    }

    /// Sends the request once more, on a new connection.
    async fn resend(
        &self,
        endpoint: &EndpointState,
        request: &AttemptRequest,
        progress: &mut AttemptProgress,
    ) -> Result<AnsweredConnection, Failure> {
        progress.resent = true;
        endpoint.counters.record_resent();
        let until = Instant::now() + self.deadlines.connect;
        let connection = self.connect(endpoint, true, until).await?;
        progress.sent_at = Some(Instant::now());
        let answered = self.send(connection, request, None).await;
        answered.map_err(|broken| broken.failure)
    }

    /// If the origin refuses a secret that has just changed, it may not know the new value yet: the
    /// request is repeated with the other value, and that response used unless it is refused too.
    async fn retry_with_other_secret(
        &self,
        endpoint: &EndpointState,
        request: &AttemptRequest,
        first: AnsweredConnection,
    ) -> AnsweredConnection {
        if !first.head.is_refusal() || !request.is_repeatable() || !request.method.is_safe() {
            return first;
        }
        let Some(other) = request.auth.other() else {
            return first;
        };
        let request = request.with_auth(other);
        endpoint.counters.record_resent();
        let Some(second) = Box::pin(self.send_again(endpoint, &request)).await else {
            return first;
        };
        if second.head.is_refusal() {
            drain_and_release(second.connection, &second.head);
            return first;
        }
        if !second.head.status.is_server_error() {
            request.auth.prefer();
        }
        drain_and_release(first.connection, &first.head);
        second
    }

    async fn send_again(
        &self,
        endpoint: &EndpointState,
        request: &AttemptRequest,
    ) -> Option<AnsweredConnection> {
        let until = Instant::now() + self.deadlines.connect;
        let connection = self.connect(endpoint, false, until).await.ok()?;
        self.send(connection, request, None).await.ok()
    }

    /// Connects, or reuses an idle connection unless `is_new_required`.
    async fn connect(
        &self,
        endpoint: &EndpointState,
        is_new_required: bool,
        until: Instant,
    ) -> Result<UpstreamConnection, Failure> {
        let connection = self
            .connector
            .acquire(endpoint.index, is_new_required, until)
            .await?;
        endpoint.counters.record_connection(connection.is_reused());
        Ok(connection)
    }

    /// A new connection for a health check; it is not reused.
    pub(crate) async fn connect_for_check(
        &self,
        endpoint: &EndpointState,
        until: Instant,
    ) -> Result<UpstreamConnection, Failure> {
        let until = until.min(Instant::now() + self.deadlines.connect);
        let mut connection = self.connector.acquire(endpoint.index, true, until).await?;
        connection.mark_unusable();
        Ok(connection)
    }

    /// Sends a request on a connection and reads the response head.
    pub(crate) async fn send(
        &self,
        mut connection: UpstreamConnection,
        request: &AttemptRequest,
        upload: Option<UpstreamUpload>,
    ) -> Result<AnsweredConnection, BrokenConnection> {
        match self
            .send_and_read_head(&mut connection, request, upload)
            .await
        {
            Ok(head) => Ok(AnsweredConnection { connection, head }),
            Err(failure) => {
                let lost = connection.was_lost(failure);
                Err(BrokenConnection { failure, lost })
            }
        }
    }

    async fn send_and_read_head(
        &self,
        connection: &mut UpstreamConnection,
        request: &AttemptRequest,
        upload: Option<UpstreamUpload>,
    ) -> Result<ResponseHead, Failure> {
        let head_timeout = request.head_timeout(&self.deadlines);
        let Ok(result) = timeout(head_timeout, connection.send(request, &self.group_headers)).await
        else {
            connection.record_stall();
            return Err(Failure::Timeout);
        };
        result?;
        if let Some(upload) = upload
            && !request.payload.is_empty()
        {
            self.send_upload(connection, request.payload, upload)
                .await?;
        }
        let Ok(head) = timeout(head_timeout, connection.read_head(&request.method)).await else {
            connection.record_stall();
            return Err(Failure::Timeout);
        };
        head
    }

    /// Forwards the body. An origin that stops reading it may still have answered (413, for
    /// example): then the connection can only be used for that response.
    async fn send_upload(
        &self,
        connection: &mut UpstreamConnection,
        payload: PayloadSize,
        mut upload: UpstreamUpload,
    ) -> Result<(), Failure> {
        let chunk_timeout = self.deadlines.between_bytes;
        let mut sent_bytes = 0;
        while let Some(chunk) = upload.next().await? {
            sent_bytes += chunk.len() as u64;
            let Ok(written) = timeout(chunk_timeout, connection.send_chunk(chunk)).await else {
                connection.record_stall();
                return Err(Failure::Timeout);
            };
            if written.is_err() {
                return Ok(());
            }
        }
        if matches!(payload, PayloadSize::Bytes(promised) if promised != sent_bytes) {
            return Err(Failure::UploadBroken);
        }
        // On an error the origin may still have answered, as above.
        if timeout(chunk_timeout, connection.end_body()).await.is_err() {
            connection.record_stall();
            return Err(Failure::Timeout);
        }
        Ok(())
    }
}
