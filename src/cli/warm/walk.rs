//! What is still to be fetched: playlists first, then what they name, each URL once. Knows no
//! server.

use std::collections::{HashMap, HashSet, VecDeque};

use http::Uri;
use serde_json::Value;

/// What the operator wants of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct WarmChoice {
    pub(super) bandwidth_max: Option<u64>,
    pub(super) takes_frames: bool,
    pub(super) takes_keys: bool,
}

/// Objects of one run, and the memory of the URLs that wait: what is beyond them is left out.
#[derive(Clone, Copy, Debug)]
struct WalkBounds {
    objects: usize,
    waiting_bytes: usize,
}

const BOUNDS: WalkBounds = WalkBounds {
    objects: 2_000_000,
    waiting_bytes: 256 << 20,
};

/// The objects that wait, and a hash of each that has been listed.
pub(super) struct StreamWalk {
    choice: WarmChoice,
    bounds: WalkBounds,
    /// Scheme and host of all URLs.
    base: String,
    manifests: VecDeque<String>,
    objects: VecDeque<String>,
    known: HashSet<u64>,
    hasher: ahash::RandomState,
    waiting_bytes: usize,
    /// Why objects were left out.
    left_out: Option<&'static str>,
}

impl StreamWalk {
    pub(super) fn from(url: &str, choice: WarmChoice) -> anyhow::Result<StreamWalk> {
        let base = base_of(url).map_err(anyhow::Error::msg)?;
        let mut walk = StreamWalk {
            choice,
            bounds: BOUNDS,
            base,
            manifests: VecDeque::new(),
            objects: VecDeque::new(),
            known: HashSet::new(),
            hasher: ahash::RandomState::new(),
            waiting_bytes: 0,
            left_out: None,
        };
        walk.add(url.to_owned(), true);
        Ok(walk)
    }

    fn add(&mut self, url: String, is_manifest: bool) {
        let hash = self.hasher.hash_one(&url);
        if self.known.contains(&hash) {
            return;
        }
        let waiting_bytes = self.waiting_bytes + url.len();
        if self.known.len() >= self.bounds.objects || waiting_bytes > self.bounds.waiting_bytes {
            self.left_out = Some("the stream names more objects than one run can hold");
            return;
        }
        self.known.insert(hash);
        self.push(url, is_manifest);
    }

    fn push(&mut self, url: String, is_manifest: bool) {
        self.waiting_bytes += url.len();
        if is_manifest {
            self.manifests.push_back(url);
        } else {
            self.objects.push_back(url);
        }
    }

    /// The next URLs, at most as many, whose request is not longer.
    pub(super) fn next_batch(&mut self, count_max: usize, bytes_max: usize) -> Vec<String> {
        // Percent-encoding makes three bytes of one.
        let mut room = bytes_max / 3;
        let mut batch = Vec::new();
        while batch.len() < count_max {
            let queue = if self.manifests.is_empty() {
                &mut self.objects
            } else {
                &mut self.manifests
            };
            let Some(length) = queue.front().map(String::len) else {
                break;
            };
            if length > room && !batch.is_empty() {
                break;
            }
            room = room.saturating_sub(length);
            self.waiting_bytes -= length;
            batch.extend(queue.pop_front());
        }
        batch
    }

    /// An object that is to be fetched later.
    pub(super) fn again(&mut self, url: &str, is_manifest: bool) {
        self.push(url.to_owned(), is_manifest);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.manifests.len() + self.objects.len()
    }

    /// Why objects were left out, if there are too many.
    pub(super) fn left_out(&self) -> Option<&'static str> {
        self.left_out
    }

    /// Adds what a manifest names, as the server says it.
    pub(super) fn take_names(&mut self, answer: &Value) {
        let names = answer["names"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if answer["more"] == true {
            self.left_out = Some("a manifest names more objects than the server lists");
        }
        let names: Vec<_> = names.iter().filter_map(AnsweredName::of).collect();
        let mut lowest = HashMap::new();
        for name in &names {
            if let Some(bandwidth) = name.bandwidth {
                let least = lowest.entry(name.alternatives()).or_insert(bandwidth);
                *least = bandwidth.min(*least);
            }
        }
        for name in &names {
            let fits = match (self.choice.bandwidth_max, name.bandwidth) {
                (Some(most), Some(bandwidth)) => {
                    bandwidth <= most || lowest.get(&name.alternatives()) == Some(&bandwidth)
                }
                _ => true,
            };
            let is_wanted = fits
                && match name.role {
                    "frames" => self.choice.takes_frames,
                    "key" => self.choice.takes_keys,
                    _ => true,
                };
            if is_wanted {
                let is_manifest = ["variant", "rendition", "frames"].contains(&name.role);
                self.add(format!("{}{}", self.base, name.target), is_manifest);
            }
        }
    }
}

/// What a manifest names, as the server says it.
struct AnsweredName<'a> {
    role: &'a str,
    bandwidth: Option<u64>,
    target: &'a str,
    track: u64,
}

impl AnsweredName<'_> {
    fn of(name: &Value) -> Option<AnsweredName<'_>> {
        Some(AnsweredName {
            role: name[0].as_str()?,
            bandwidth: name[1].as_u64(),
            target: name[2].as_str()?,
            track: name[3].as_u64().unwrap_or_default(),
        })
    }

    /// Of names with the same one, those of the lowest bandwidth are fetched in any case. Key
    /// frames need less than any variant, and are none.
    fn alternatives(&self) -> (bool, u64) {
        (self.role == "frames", self.track)
    }
}

/// Scheme and host of an absolute URL.
fn base_of(url: &str) -> Result<String, String> {
    let parsed = url.parse::<Uri>().ok();
    let base = parsed.as_ref().and_then(|url| {
        let (scheme, authority) = (url.scheme_str()?, url.authority()?);
        ["http", "https"]
            .contains(&scheme)
            .then(|| format!("{scheme}://{authority}"))
    });
    base.ok_or_else(|| format!("{url} is not an absolute http or https URL"))
}

/// The URL of a command line.
pub(super) fn parse_url(text: &str) -> Result<String, String> {
    base_of(text).map(|_| text.to_owned())
}

/// Bits per second, as `BANDWIDTH` in playlists.
pub(super) fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| {
            "this is in bits per second, as BANDWIDTH in playlists: 5000000, 5M or 800k \
         (5 megabytes per second are 40M)"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "http://a.test/m.m3u8";

    fn walk(change: impl FnOnce(&mut WarmChoice)) -> StreamWalk {
        let mut choice = WarmChoice {
            bandwidth_max: None,
            takes_frames: false,
            takes_keys: false,
        };
        change(&mut choice);
        StreamWalk::from(URL, choice).unwrap()
    }

    fn names() -> Value {
        json!({ "names": [
            ["variant", 900, "/hd.m3u8"],
            ["variant", 300, "/sd.m3u8"],
            ["rendition", null, "/a.m3u8"],
            ["frames", 100, "/f.m3u8"],
            ["key", null, "/k"],
            ["segment", null, "/1.ts"],
            ["segment", null, "/1.ts"],
        ] })
    }

    fn all(mut walk: StreamWalk) -> Vec<String> {
        walk.take_names(&names());
        walk.next_batch(100, 1 << 20)
    }

    #[test]
    fn playlists_come_first_and_everything_once() {
        let expected = ["m.m3u8", "hd.m3u8", "sd.m3u8", "a.m3u8", "1.ts"];
        let expected = expected.map(|name| format!("http://a.test/{name}"));
        assert_eq!(all(walk(|_| {})), expected);
        let everything = walk(|choice| (choice.takes_frames, choice.takes_keys) = (true, true));
        assert_eq!(all(everything).len(), 7);
    }

    #[test]
    fn bandwidth_max_leaves_the_lowest_variant() {
        for (most, is_wanted) in [(299, false), (300, false), (900, true)] {
            let urls = all(walk(|choice| choice.bandwidth_max = Some(most)));
            assert!(urls.contains(&"http://a.test/sd.m3u8".to_owned()), "{most}");
            assert_eq!(
                urls.contains(&"http://a.test/hd.m3u8".to_owned()),
                is_wanted
            );
        }
    }

    /// A representation without a bandwidth is fetched, and is not the lowest of its track.
    #[test]
    fn bandwidth_max_leaves_the_lowest_of_each_track() {
        let mut walk = walk(|choice| choice.bandwidth_max = Some(100));
        walk.take_names(&json!({ "names": [
            ["segment", 64, "/audio", 0],
            ["init", 900, "/hd-init", 1],
            ["segment", 300, "/sd", 1],
            ["segment", 900, "/hd", 1],
            ["segment", null, "/unknown", 1],
            ["segment", 0, "/zero", 2],
            ["segment", 101, "/one", 2],
        ] }));
        let urls = walk.next_batch(100, 1 << 20);
        let expected = ["m.m3u8", "audio", "sd", "unknown", "zero"];
        assert_eq!(urls, expected.map(|name| format!("http://a.test/{name}")));
    }

    #[test]
    fn too_many_objects_are_left_out_and_said() {
        for (objects, waiting_bytes) in [(3, 1000), (1000, 70)] {
            let mut few = walk(|_| {});
            few.bounds = WalkBounds {
                objects,
                waiting_bytes,
            };
            few.take_names(&names());
            assert!(few.left_out().is_some());
            assert_eq!(few.waiting(), 3);
            // What has been taken out makes room for what comes later.
            assert_eq!(few.next_batch(9, 1 << 20).len(), 3);
            assert_eq!(few.waiting_bytes, 0);
        }
    }

    #[test]
    fn long_urls_make_small_batches() {
        let mut walk = walk(|_| {});
        let long = "x".repeat(3000);
        let names: Vec<_> = (0..9)
            .map(|n| json!(["segment", null, format!("/{long}{n}")]))
            .collect();
        walk.take_names(&json!({ "names": names }));
        assert_eq!(walk.next_batch(9, 12 << 10).len(), 2, "the playlist too");
        assert_eq!(walk.next_batch(9, 12 << 10).len(), 1);
        assert!(StreamWalk::from("m.m3u8", walk.choice).is_err());
        assert!(StreamWalk::from("ftp://a/m.m3u8", walk.choice).is_err());
    }
}
