//! Parses DASH MPDs and MPD patches (ISO/IEC 23009-1).
//!
//! Event based; each module reads or derives one part: `xml` (elements), `document` (periods and
//! representations), `inherited` (attributes of all levels), `timeline`, `url_template`,
//! `template`, `representation`, `switching` (tracks), and `edge` (live edge and listing).

mod document;
mod edge;
mod inherited;
mod reference;
mod representation;
mod switching;
mod template;
#[cfg(test)]
mod tests;
mod time;
mod timeline;
mod url_template;
mod xml;

use std::ops::ControlFlow;
use std::time::SystemTime;

pub use self::template::SegmentNaming;

use self::document::{Mpd, MpdRepresentation};
use self::edge::RepresentationsByPeriod;
use self::representation::Representation;
use self::xml::{ReadExtent, Xml, XmlTag};
use super::date_time::date_time;
use super::directory_set::Directories;
use super::info::{Listing, Liveness, Manifest, ManifestError, ManifestInfo, MpdInfo};
use super::named_object::{NamedObject, ObjectRole};

pub(super) fn read(text: &str) -> Result<Manifest, ManifestError> {
    let (mut xml, root) = Xml::open(text)?;
    let read = match root.name {
        "MPD" => mpd(&mut xml, &root)?,
        "Patch" => patch(&root),
        _ => return Err(ManifestError::Broken("neither an MPD nor a patch to one")),
    };
    xml.close()?;
    Ok(read)
}

fn mpd<'a>(xml: &mut Xml<'a>, root: &XmlTag<'a>) -> Result<Manifest, ManifestError> {
    let mut mpd = Mpd::read(xml, root)?;
    let liveness = liveness(&mpd);
    let time_servers = std::mem::take(&mut mpd.time_servers);
    let representations = RepresentationsByPeriod::of(&mpd);
    let info = ManifestInfo::Dash(MpdInfo {
        liveness,
        is_patch: false,
        update_period: mpd.update_period,
        segment_duration: representations.segment(),
        publish_time: mpd.published,
        availability_start: mpd.began,
        edge: representations.edge(),
    });
    let listing = representations.listing(mpd.began, liveness == Liveness::Live);
    let listing = Listing {
        time_servers,
        time_shift_depth: mpd.time_shift_depth,
        ..listing
    };
    Ok(Manifest { info, listing })
}

/// Reports one name in each directory of each period.
pub(super) fn directories(text: &str, into: &mut Directories<'_>) -> Result<(), ManifestError> {
    let (mut xml, root) = Xml::open(text)?;
    Mpd::read_each(&mut xml, &root, |representations| {
        let names = representations.iter().flat_map(MpdRepresentation::examples);
        names.for_each(|name| into.take(&name));
    })?;
    Ok(())
}

/// Shows each object of a whole presentation, until `show` wants no more.
pub(super) fn objects(
    text: &str,
    now: SystemTime,
    show: &mut dyn FnMut(NamedObject<'_>) -> ControlFlow<()>,
) -> Result<(), ManifestError> {
    let (mut xml, root) = Xml::open(text)?;
    if root.name != "MPD" {
        return Ok(());
    }
    xml.extent = ReadExtent::Whole;
    let mpd = Mpd::read(&mut xml, &root)?;
    xml.close()?;
    // The clock counts only for a live presentation.
    let began = mpd.began.filter(|_| mpd.is_dynamic);
    let depth = mpd.time_shift_depth.filter(|_| mpd.is_dynamic);
    let mut period_tracks = 0;
    for period in &mpd.periods {
        for element in &period.representations {
            let representation = Representation::new(period, element);
            let bandwidth = representation.bandwidth();
            let init = representation.initialization();
            let init = init.map(|name| (ObjectRole::Init, name));
            let names = representation.all_names(began, now, depth);
            let names = names.map(|name| (ObjectRole::Segment, name));
            for (role, name) in init.into_iter().chain(names) {
                let object = NamedObject {
                    role,
                    bandwidth,
                    track: period_tracks + element.track,
                    uri: &name,
                };
                if show(object).is_break() {
                    return Ok(());
                }
            }
        }
        period_tracks += period.representations.len();
    }
    Ok(())
}

/// A patch is a version of its own; its existence shows that the presentation is live.
fn patch(root: &XmlTag<'_>) -> Manifest {
    let published = root.attribute("publishTime");
    let info = ManifestInfo::Dash(MpdInfo {
        liveness: Liveness::Live,
        is_patch: true,
        update_period: None,
        segment_duration: None,
        publish_time: published.and_then(|value| date_time(&value)),
        availability_start: None,
        edge: None,
    });
    Manifest {
        info,
        listing: Listing::default(),
    }
}

/// §5.3.1.2: an MPD is static by default, and a dynamic one without an update period does not
/// change. Packagers omit the period by mistake, so such an MPD counts as ended only if its end is
/// known and no event in the media can request an update.
fn liveness(mpd: &Mpd<'_>) -> Liveness {
    let is_settled = mpd.update_period.is_none() && mpd.duration.is_some();
    if !mpd.is_dynamic || (is_settled && !mpd.has_update_events) {
        Liveness::Ended
    } else {
        Liveness::Live
    }
}
