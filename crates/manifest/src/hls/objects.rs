//! Names every object that a playlist lists.

use std::ops::ControlFlow;

use super::syntax::{attribute, count, tag_and_value};
use super::variables::Variables;
use crate::info::ManifestError;
use crate::named_object::{NamedObject, ObjectRole};

/// Shows each object, until `show` wants no more.
pub(crate) fn objects(
    text: &str,
    show: &mut dyn FnMut(NamedObject<'_>) -> ControlFlow<()>,
) -> Result<(), ManifestError> {
    if !text.starts_with("#EXTM3U") {
        return Err(ManifestError::Broken("no #EXTM3U"));
    }
    let mut variables = Variables::default();
    // What the next URI is.
    let mut awaited = (ObjectRole::Segment, None);
    for line in text.lines().map(str::trim_ascii_end) {
        let (tag, value) = tag_and_value(line);
        let bandwidth = || attribute(value, "BANDWIDTH").and_then(count);
        let named = match tag {
            _ if !line.starts_with('#') => {
                let (role, bandwidth) =
                    std::mem::replace(&mut awaited, (ObjectRole::Segment, None));
                Some((role, bandwidth, Some(line)))
            }
            "#EXT-X-STREAM-INF" => {
                awaited = (ObjectRole::Variant, bandwidth());
                None
            }
            "#EXT-X-DEFINE" => {
                variables.take(value);
                None
            }
            "#EXT-X-MEDIA" => Some((ObjectRole::Rendition, None, attribute(value, "URI"))),
            "#EXT-X-I-FRAME-STREAM-INF" => {
                Some((ObjectRole::Frames, bandwidth(), attribute(value, "URI")))
            }
            "#EXT-X-MAP" => Some((ObjectRole::Init, None, attribute(value, "URI"))),
            "#EXT-X-KEY" | "#EXT-X-SESSION-KEY" => {
                Some((ObjectRole::Key, None, attribute(value, "URI")))
            }
            _ => None,
        };
        let Some((role, bandwidth, uri)) = named else {
            continue;
        };
        let uri = uri
            .filter(|uri| !uri.is_empty())
            .and_then(|uri| variables.fill(uri));
        let Some(uri) = uri else { continue };
        let object = NamedObject {
            role,
            bandwidth,
            track: 0,
            uri: &uri,
        };
        if show(object).is_break() {
            break;
        }
    }
    Ok(())
}
