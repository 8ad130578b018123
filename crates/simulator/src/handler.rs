//! The origin's request handler: makes a response of the request, the scene and the clock, once the
//! object is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use tokio::sync::mpsc;

use super::body::OriginBody;
use super::clock::Clock;
use super::control::{Control, USAGE};
use super::faults::StreamView;
use super::head::{self, BodyCompleteness, RequestRange};
use super::hls::{AnswerTime, PlaylistQuery};
use super::media_assets::DemoRendition;
use super::request_log::RequestLog;
use super::resource::{Packaging, Resource, ResourceKind};
use super::utc::{Utc, iso};
use super::{dash, hls};

/// The path for switching faults.
const CONTROL: &str = "/control";

/// The request handler of one origin.
#[derive(Debug)]
pub(super) struct OriginHandler {
    pub(super) clock: Clock,
    pub(super) control: Control,
    pub(super) request_log: RequestLog,
    /// Requests that `refuse` could apply to.
    requests_received: AtomicU64,
}

/// The result of a lookup.
enum AssetLookup {
    Found(Response<OriginBody>),
    /// Not available: look up again at this time, or when the scene changes.
    Later(Option<Utc>),
}

impl OriginHandler {
    pub(super) fn new(clock: Clock, control: Control) -> OriginHandler {
        OriginHandler {
            clock,
            control,
            request_log: RequestLog::default(),
            requests_received: AtomicU64::new(0),
        }
    }

    pub(super) async fn handle<B>(self: Arc<Self>, request: Request<B>) -> Response<OriginBody> {
        let uri = request.uri();
        if uri.path() == CONTROL {
            return self.handle_control(request.method(), uri.query().unwrap_or_default());
        }
        let resource = Resource::of(uri.path());
        let kind = resource.map_or(ResourceKind::Unknown, Resource::kind);
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let open_request = self.request_log.enter(kind, target);
        let response = match *request.method() {
            Method::GET | Method::HEAD => self.respond(resource, &request).await,
            _ => head::error_response(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD\n"),
        };
        let is_head = request.method() == Method::HEAD;
        head::finalize(response, is_head).map(|body| body.with_request(open_request))
    }

    async fn respond<B>(
        &self,
        resource: Option<Resource>,
        request: &Request<B>,
    ) -> Response<OriginBody> {
        let Some(resource) = resource else {
            return head::error_response(StatusCode::NOT_FOUND, "no such thing\n");
        };
        let faults = self.view(resource).faults;
        if !faults.slow.is_zero() {
            self.clock.wait_until(self.clock.now() + faults.slow).await;
        }
        if self.is_refused(faults.refused_percent) {
            return head::error_response(StatusCode::SERVICE_UNAVAILABLE, "refused, as ordered\n");
        }
        let query = request.uri().query().unwrap_or_default();
        let Some(directives) = PlaylistQuery::of(query) else {
            return head::error_response(StatusCode::BAD_REQUEST, "not a number\n");
        };
        let range = RequestRange::of(request.headers());
        let response = self
            .wait_for(resource, |view| match resource {
                Resource::TimeServer => {
                    AssetLookup::Found(head::time_server_response(iso(self.clock.now())))
                }
                Resource::Multivariant(packaging) => AssetLookup::Found(head::manifest(
                    view,
                    hls::multivariant(&view.broadcast, packaging),
                    resource,
                )),
                Resource::Mpd(packaging) => manifest(
                    view,
                    dash::mpd(&view.broadcast, packaging, view.listing_time),
                    resource,
                ),
                Resource::Playlist(packaging, rendition) => {
                    playlist(view, (packaging, rendition), directives)
                }
                Resource::Init(_, rendition) => AssetLookup::Found(head::media(
                    view,
                    view.broadcast.init(rendition),
                    resource,
                    range,
                    BodyCompleteness::Whole,
                )),
                Resource::Segment(packaging, rendition, name) => {
                    self.segment(view, (packaging, rendition, name), range)
                }
                Resource::Part(_, rendition, segment, part) => {
                    find_part(view, resource, (rendition, segment, part), range)
                }
            })
            .await;
        head::apply_if_none_match(response, request.headers())
    }

    /// Repeats the lookup until it succeeds, or for three segment durations.
    async fn wait_for(
        &self,
        resource: Resource,
        find: impl Fn(&StreamView) -> AssetLookup,
    ) -> Response<OriginBody> {
        let mut scene = self.control.subscribe();
        let mut until = None;
        loop {
            let now = self.clock.now();
            let view = scene.borrow_and_update().view(resource.rendition(), now);
            let until = *until.get_or_insert(now + view.broadcast.segment_duration() * 3);
            let retry_at = match find(&view) {
                AssetLookup::Found(response) => return response,
                AssetLookup::Later(_) if now >= until => {
                    return head::error_response(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "not available in time\n",
                    );
                }
                AssetLookup::Later(retry_at) => {
                    retry_at.map_or(until, |retry_at| retry_at.min(until))
                }
            };
            tokio::select! {
                () = self.clock.wait_until(retry_at) => {}
                _ = scene.changed() => {}
            }
        }
    }

    fn view(&self, resource: Resource) -> StreamView {
        let now = self.clock.now();
        self.control
            .subscribe()
            .borrow()
            .view(resource.rendition(), now)
    }

    /// Spread evenly: exactly `percent` of a hundred requests.
    fn is_refused(&self, percent: u8) -> bool {
        let percent = u64::from(percent);
        let requests_received = self.requests_received.fetch_add(1, Ordering::Relaxed);
        (requests_received + 1) * percent / 100 > requests_received * percent / 100
    }

    fn handle_control(&self, method: &Method, query: &str) -> Response<OriginBody> {
        let respond = |status, text: String| {
            let mut response = head::plain(status, text);
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, head::NO_STORE);
            response
        };
        let result = match *method {
            Method::POST => self.control.execute(query),
            Method::GET if query.is_empty() => Ok(()),
            _ => Err(format!(
                "POST to change faults, GET without a query to show them\nknown: {USAGE}\n"
            )),
        };
        match result {
            Ok(()) => {
                let (faults, requests_received) =
                    (self.control.faults(), self.request_log.report());
                respond(
                    StatusCode::OK,
                    format!("{faults:#?}\n\nrequests\n{requests_received}"),
                )
            }
            Err(why) => respond(StatusCode::BAD_REQUEST, why),
        }
    }

    fn segment(
        &self,
        view: &StreamView,
        which: (Packaging, DemoRendition, u64),
        range: Option<RequestRange>,
    ) -> AssetLookup {
        let (packaging, rendition, name) = which;
        let broadcast = &view.broadcast;
        let resource = Resource::Segment(packaging, rendition, name);
        let segment = match packaging {
            Packaging::Timeline => broadcast.segment_at(rendition, name),
            _ => Some(name),
        };
        let produced = broadcast.segments(view.media_time);
        let Some(segment) = segment.filter(|segment| broadcast.is_kept(*segment, view.media_time))
        else {
            return AssetLookup::Found(head::not_found());
        };
        if segment < produced {
            let bytes = match packaging {
                Packaging::Ts => broadcast.ts_segment(rendition, segment),
                _ => broadcast.segment(rendition, segment),
            };
            return AssetLookup::Found(head::media(
                view,
                bytes,
                resource,
                range,
                BodyCompleteness::Whole,
            ));
        }
        if segment > produced || !packaging.has_growing_segments() {
            return AssetLookup::Found(head::not_found());
        }
        let parts = broadcast.parts(segment, view.media_time);
        let retry_at = AssetLookup::Later(Some(view.made_at(broadcast.part_due(segment, parts))));
        match (packaging, range) {
            // Requested before its availability time.
            (Packaging::Chunked, _) if parts == 0 => AssetLookup::Found(head::not_found()),
            (_, None) if parts == 0 => retry_at,
            (_, None) => {
                let pieces = self.stream_segment(rendition, segment);
                AssetLookup::Found(head::growing_media(OriginBody::growing(pieces), resource))
            }
            (_, Some(range)) => {
                let available: Vec<_> = (0..parts)
                    .map(|part| broadcast.part(rendition, segment, part))
                    .collect();
                let available = Bytes::from(available.concat());
                if range.begins_within(available.len() as u64) {
                    AssetLookup::Found(head::media(
                        view,
                        available,
                        resource,
                        Some(range),
                        BodyCompleteness::SoFar,
                    ))
                } else {
                    retry_at
                }
            }
        }
    }

    /// Sends a segment part by part, as they are made.
    fn stream_segment(&self, rendition: DemoRendition, segment: u64) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(1);
        let (clock, mut scene) = (self.clock.clone(), self.control.subscribe());
        tokio::spawn(async move {
            // A restart does not change a response in progress.
            let broadcast = scene.borrow().broadcast.clone();
            for part in 0..broadcast.parts_per_segment() {
                loop {
                    let view = scene.borrow_and_update().view(Some(rendition), clock.now());
                    if broadcast.parts(segment, view.media_time) > part {
                        break;
                    }
                    let due = view.made_at(broadcast.part_due(segment, part));
                    tokio::select! {
                        () = clock.wait_until(due) => {}
                        _ = scene.changed() => {}
                        () = sender.closed() => return,
                    }
                }
                let bytes = broadcast.part(rendition, segment, part);
                if sender.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

fn manifest(view: &StreamView, text: Option<String>, resource: Resource) -> AssetLookup {
    AssetLookup::Found(match text {
        Some(text) => head::manifest(view, text, resource),
        None => head::not_found(),
    })
}

fn playlist(
    view: &StreamView,
    which: (Packaging, DemoRendition),
    directives: PlaylistQuery,
) -> AssetLookup {
    let resource = Resource::Playlist(which.0, which.1);
    let (broadcast, listing) = (&view.broadcast, view.listing_time);
    if which.0.is_low_latency_hls() {
        match directives.answer_time(broadcast, listing) {
            AnswerTime::Now => {}
            AnswerTime::Until(due) => return AssetLookup::Later(view.listed_at(due)),
            AnswerTime::Invalid => {
                let why = "this segment is too far ahead\n";
                return AssetLookup::Found(head::error_response(StatusCode::BAD_REQUEST, why));
            }
        }
    }
    manifest(
        view,
        hls::media_with_directives(broadcast, which, listing, directives),
        resource,
    )
}

/// A part that is complete, or the next one, which is waited for.
fn find_part(
    view: &StreamView,
    resource: Resource,
    (rendition, segment, part): (DemoRendition, u64, u64),
    range: Option<RequestRange>,
) -> AssetLookup {
    let broadcast = &view.broadcast;
    let produced = broadcast.parts(segment, view.media_time);
    let exists =
        part < broadcast.parts_per_segment() && broadcast.is_kept(segment, view.media_time);
    if exists && part < produced {
        let bytes = broadcast.part(rendition, segment, part);
        return AssetLookup::Found(head::media(
            view,
            bytes,
            resource,
            range,
            BodyCompleteness::Whole,
        ));
    }
    let due = broadcast.part_due(segment, part);
    let next = due.saturating_sub(view.media_time) <= broadcast.part_duration() + SLACK;
    if exists && next {
        AssetLookup::Later(Some(view.made_at(due)))
    } else {
        AssetLookup::Found(head::not_found())
    }
}

/// Times are rounded to nanoseconds.
const SLACK: Duration = Duration::from_nanos(2);
