//! What does this origin answer? The request, the scene and the clock in; an answer out, when its
//! time has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use tokio::sync::mpsc;

use super::body::Media;
use super::clock::Clock;
use super::control::{Control, USAGE};
use super::faults::View;
use super::head::{self, Kept, Range};
use super::hls::{Directives, Wait};
use super::place::{Form, Kind, Place};
use super::reel::Rendition;
use super::tally::Tally;
use super::utc::{Utc, iso};
use super::{dash, hls};

/// Where people switch faults.
const CONTROL: &str = "/control";

/// One origin's answers.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) clock: Clock,
    pub(super) control: Control,
    pub(super) tally: Tally,
    /// Requests that could have been refused.
    asked: AtomicU64,
}

/// What comes of looking for something.
enum Look {
    Found(Response<Media>),
    /// Not there, but looked for again at this moment, or when the scene changes.
    Later(Option<Utc>),
}

impl Desk {
    pub(super) fn new(clock: Clock, control: Control) -> Desk {
        Desk {
            clock,
            control,
            tally: Tally::default(),
            asked: AtomicU64::new(0),
        }
    }

    pub(super) async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Response<Media> {
        let uri = request.uri();
        if uri.path() == CONTROL {
            return self.switch(request.method(), uri.query().unwrap_or_default());
        }
        let place = Place::of(uri.path());
        let kind = place.map_or(Kind::Unknown, Place::kind);
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let visit = self.tally.enter(kind, target);
        let response = match *request.method() {
            Method::GET | Method::HEAD => self.found(place, &request).await,
            _ => head::refusal(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD\n"),
        };
        let bare = request.method() == Method::HEAD;
        head::shaped(response, bare).map(|body| body.visited(visit))
    }

    async fn found<B>(&self, place: Option<Place>, request: &Request<B>) -> Response<Media> {
        let Some(place) = place else {
            return head::refusal(StatusCode::NOT_FOUND, "no such thing\n");
        };
        let faults = self.view(place).faults;
        if !faults.slow.is_zero() {
            self.clock.until(self.clock.now() + faults.slow).await;
        }
        if self.refuses(faults.refused_percent) {
            return head::refusal(StatusCode::SERVICE_UNAVAILABLE, "refused, as ordered\n");
        }
        let query = request.uri().query().unwrap_or_default();
        let Some(directives) = Directives::of(query) else {
            return head::refusal(StatusCode::BAD_REQUEST, "not a number\n");
        };
        let range = Range::of(request.headers());
        let response = self
            .awaited(place, |view| match place {
                Place::Clock => Look::Found(head::clock(iso(self.clock.now()))),
                Place::Multivariant(form) => Look::Found(head::manifest(
                    view,
                    hls::multivariant(&view.broadcast, form),
                    place,
                )),
                Place::Mpd(form) => {
                    manifest(view, dash::mpd(&view.broadcast, form, view.listing), place)
                }
                Place::Playlist(form, rendition) => playlist(view, (form, rendition), directives),
                Place::Init(_, rendition) => Look::Found(head::media(
                    view,
                    view.broadcast.init(rendition),
                    place,
                    range,
                    Kept::Whole,
                )),
                Place::Segment(form, rendition, name) => {
                    self.segment(view, (form, rendition, name), range)
                }
                Place::Part(_, rendition, segment, part) => {
                    part_of(view, place, (rendition, segment, part), range)
                }
            })
            .await;
        head::conditional(response, request.headers())
    }

    /// Looks until something is found, or for three segments' length.
    async fn awaited(&self, place: Place, look: impl Fn(&View) -> Look) -> Response<Media> {
        let mut scene = self.control.watch();
        let mut until = None;
        loop {
            let now = self.clock.now();
            let view = scene.borrow_and_update().view(place.rendition(), now);
            let until = *until.get_or_insert(now + view.broadcast.segment_duration() * 3);
            let later = match look(&view) {
                Look::Found(response) => return response,
                Look::Later(_) if now >= until => {
                    return head::refusal(StatusCode::SERVICE_UNAVAILABLE, "it did not come\n");
                }
                Look::Later(later) => later.map_or(until, |later| later.min(until)),
            };
            tokio::select! {
                () = self.clock.until(later) => {}
                _ = scene.changed() => {}
            }
        }
    }

    fn view(&self, place: Place) -> View {
        let now = self.clock.now();
        self.control.watch().borrow().view(place.rendition(), now)
    }

    /// Spread evenly: of a hundred requests just as many as ordered.
    fn refuses(&self, percent: u8) -> bool {
        let percent = u64::from(percent);
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        (asked + 1) * percent / 100 > asked * percent / 100
    }

    fn switch(&self, method: &Method, query: &str) -> Response<Media> {
        let told = |status, text: String| {
            let mut response = head::plain(status, text);
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, head::NO_STORE);
            response
        };
        let changed = match *method {
            Method::POST => self.control.obey(query),
            Method::GET if query.is_empty() => Ok(()),
            _ => Err(format!(
                "POST to change, GET without a query to look\nknown: {USAGE}\n"
            )),
        };
        match changed {
            Ok(()) => {
                let (faults, asked) = (self.control.faults(), self.tally.report());
                told(StatusCode::OK, format!("{faults:#?}\n\nasked for\n{asked}"))
            }
            Err(why) => told(StatusCode::BAD_REQUEST, why),
        }
    }

    fn segment(&self, view: &View, which: (Form, Rendition, u64), range: Option<Range>) -> Look {
        let (form, rendition, name) = which;
        let broadcast = &view.broadcast;
        let place = Place::Segment(form, rendition, name);
        let segment = match form {
            Form::Timeline => broadcast.segment_at(rendition, name),
            _ => Some(name),
        };
        let made = broadcast.segments(view.making);
        let Some(segment) = segment.filter(|segment| broadcast.is_kept(*segment, view.making))
        else {
            return Look::Found(head::not_found());
        };
        if segment < made {
            let bytes = match form {
                Form::Ts => broadcast.ts_segment(rendition, segment),
                _ => broadcast.segment(rendition, segment),
            };
            return Look::Found(head::media(view, bytes, place, range, Kept::Whole));
        }
        if segment > made || !form.grows() {
            return Look::Found(head::not_found());
        }
        let parts = broadcast.parts(segment, view.making);
        let later = Look::Later(Some(view.made_at(broadcast.part_due(segment, parts))));
        match (form, range) {
            // Asked for ahead of its availability.
            (Form::Chunked, _) if parts == 0 => Look::Found(head::not_found()),
            (_, None) if parts == 0 => later,
            (_, None) => {
                let pieces = self.grow(rendition, segment);
                Look::Found(head::media_growing(Media::growing(pieces), place))
            }
            (_, Some(range)) => {
                let so_far: Vec<_> = (0..parts)
                    .map(|part| broadcast.part(rendition, segment, part))
                    .collect();
                let so_far = Bytes::from(so_far.concat());
                if range.begins_within(so_far.len() as u64) {
                    Look::Found(head::media(view, so_far, place, Some(range), Kept::SoFar))
                } else {
                    later
                }
            }
        }
    }

    /// Hands out a segment part by part as they are made.
    fn grow(&self, rendition: Rendition, segment: u64) -> mpsc::Receiver<Bytes> {
        let (give, take) = mpsc::channel(1);
        let (clock, mut scene) = (self.clock.clone(), self.control.watch());
        tokio::spawn(async move {
            // A restart does not change what is under way.
            let broadcast = scene.borrow().broadcast.clone();
            for part in 0..broadcast.parts_per_segment() {
                loop {
                    let view = scene.borrow_and_update().view(Some(rendition), clock.now());
                    if broadcast.parts(segment, view.making) > part {
                        break;
                    }
                    let due = view.made_at(broadcast.part_due(segment, part));
                    tokio::select! {
                        () = clock.until(due) => {}
                        _ = scene.changed() => {}
                        () = give.closed() => return,
                    }
                }
                let bytes = broadcast.part(rendition, segment, part);
                if give.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        take
    }
}

fn manifest(view: &View, text: Option<String>, place: Place) -> Look {
    Look::Found(match text {
        Some(text) => head::manifest(view, text, place),
        None => head::not_found(),
    })
}

fn playlist(view: &View, which: (Form, Rendition), directives: Directives) -> Look {
    let place = Place::Playlist(which.0, which.1);
    let (broadcast, listing) = (&view.broadcast, view.listing);
    if which.0.is_low_latency_hls() {
        match directives.wait(broadcast, listing) {
            Wait::No => {}
            Wait::Until(due) => return Look::Later(view.listed_at(due)),
            Wait::Nonsense => {
                let why = "no such segment for a long time\n";
                return Look::Found(head::refusal(StatusCode::BAD_REQUEST, why));
            }
        }
    }
    manifest(
        view,
        hls::directed(broadcast, which, listing, directives),
        place,
    )
}

/// A part that is there, or the one that comes next: that one is waited for.
fn part_of(
    view: &View,
    place: Place,
    (rendition, segment, part): (Rendition, u64, u64),
    range: Option<Range>,
) -> Look {
    let broadcast = &view.broadcast;
    let made = broadcast.parts(segment, view.making);
    let exists = part < broadcast.parts_per_segment() && broadcast.is_kept(segment, view.making);
    if exists && part < made {
        let bytes = broadcast.part(rendition, segment, part);
        return Look::Found(head::media(view, bytes, place, range, Kept::Whole));
    }
    let due = broadcast.part_due(segment, part);
    let next = due.saturating_sub(view.making) <= broadcast.part_duration() + SLACK;
    if exists && next {
        Look::Later(Some(view.made_at(due)))
    } else {
        Look::Found(head::not_found())
    }
}

/// Moments are rounded to nanoseconds.
const SLACK: Duration = Duration::from_nanos(2);
