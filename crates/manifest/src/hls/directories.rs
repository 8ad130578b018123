//! Finds the directories that a playlist names, in URI lines and in the URI attributes of all tags.

use super::syntax::{attribute, tag_and_value};
use super::variables::Variables;
use crate::directory_set::Directories;

pub(crate) fn directories(text: &str, into: &mut Directories<'_>) {
    let mut variables = Variables::default();
    for line in text.lines().map(str::trim_ascii_end) {
        let named = if line.starts_with('#') {
            let (tag, value) = tag_and_value(line);
            if tag == "#EXT-X-DEFINE" {
                variables.take(value);
            }
            attribute(value, "URI")
        } else {
            Some(line)
        };
        if let Some(name) = named.and_then(|name| variables.fill(name)) {
            into.take(&name);
        }
    }
}
