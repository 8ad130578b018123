//! Decides whether a playlist's last line without a line break is truncated. Knows the tags, not
//! their meaning.

/// Tags without a value, and tags that require `:` and a value.
const BARE_TAGS: [&str; 6] = [
    "#EXTM3U",
    "#EXT-X-DISCONTINUITY",
    "#EXT-X-ENDLIST",
    "#EXT-X-GAP",
    "#EXT-X-I-FRAMES-ONLY",
    "#EXT-X-INDEPENDENT-SEGMENTS",
];
const VALUED_TAGS: [&str; 25] = [
    "#EXTINF:",
    "#EXT-X-BITRATE:",
    "#EXT-X-BYTERANGE:",
    "#EXT-X-CONTENT-STEERING:",
    "#EXT-X-DATERANGE:",
    "#EXT-X-DEFINE:",
    "#EXT-X-DISCONTINUITY-SEQUENCE:",
    "#EXT-X-I-FRAME-STREAM-INF:",
    "#EXT-X-KEY:",
    "#EXT-X-MAP:",
    "#EXT-X-MEDIA:",
    "#EXT-X-MEDIA-SEQUENCE:",
    "#EXT-X-PART:",
    "#EXT-X-PART-INF:",
    "#EXT-X-PLAYLIST-TYPE:",
    "#EXT-X-PRELOAD-HINT:",
    "#EXT-X-PROGRAM-DATE-TIME:",
    "#EXT-X-RENDITION-REPORT:",
    "#EXT-X-SERVER-CONTROL:",
    "#EXT-X-SESSION-DATA:",
    "#EXT-X-SESSION-KEY:",
    "#EXT-X-SKIP:",
    "#EXT-X-START:",
    "#EXT-X-STREAM-INF:",
    "#EXT-X-TARGETDURATION:",
];

/// The line is the start of a known tag, or has a value that cannot end there.
pub(super) fn is_cut_tag(line: &str) -> bool {
    let Some((tag, value)) = line.split_once(':') else {
        let known = BARE_TAGS.contains(&line);
        let begun = || BARE_TAGS.iter().chain(&VALUED_TAGS);
        return !known && begun().any(|tag| tag.starts_with(line));
    };
    let known = VALUED_TAGS
        .iter()
        .any(|known| known.strip_suffix(':') == Some(tag));
    let open_quote = value.bytes().filter(|&byte| byte == b'"').count() % 2 == 1;
    known && (open_quote || value.is_empty() || value.ends_with([',', '=']))
}

/// `seg9.t` or `seg9` after `seg8.ts`.
pub(super) fn is_cut_name(last: &str, before: &str) -> bool {
    let (last, before) = (extension(last), extension(before));
    before.len() > last.len() && before.starts_with(last)
}

/// The last dot of a URI's last path segment and the text after it, without the query.
fn extension(uri: &str) -> &str {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rfind('.').map_or("", |dot| &name[dot..])
}
