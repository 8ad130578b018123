//! What is to be held no longer? A URL, a stream, or what a request to the origin has changed.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, Uri, Version};

use super::Shield;
use crate::policy::access::{Access, Entry, access};

impl Shield {
    /// Drops every stored variant of a URL and dooms the fill under way for it.
    /// `url` is absolute (`http://host/path?query`) as a viewer would ask for it; true if a route
    /// serves it.
    pub fn purge(&self, url: &Uri) -> bool {
        let entry = self.entry(url);
        if let Some(entry) = &entry {
            self.forget(entry);
        }
        entry.is_some()
    }

    /// Drops everything of the stream that a manifest belongs to: its manifests in all their states,
    /// what is known of them, and all that lies where they say that their segments do. False: no such
    /// stream is known.
    pub fn purge_stream(&self, url: &Uri) -> bool {
        let unit = self.entry(url).and_then(|entry| {
            let unit = self.streams.unit(&entry)?;
            self.forget(&entry);
            Some((unit, entry.kind))
        });
        let Some((unit, kind)) = unit else {
            return false;
        };
        for key in &unit.manifests {
            self.cache.purge(key, kind);
        }
        for watch in &unit.watches {
            self.forget(&watch.entry);
            for place in watch.places() {
                self.cache.end_epoch(&place);
            }
        }
        true
    }

    fn entry(&self, url: &Uri) -> Option<Entry> {
        let headers = HeaderMap::new();
        // As over HTTP/2, a URL alone names its host.
        match access(&self.rules, &Method::GET, url, Version::HTTP_2, &headers) {
            Access::Enter(entry) => Some(entry),
            _ => None,
        }
    }

    /// What is asked for, and of a playlist every state of it and how far it had come: the next version is
    /// the first.
    ///
    /// Where viewers' fields are part of the key, all keys of the URL are forgotten.
    fn forget(&self, entry: &Entry) {
        if let Some(url) = entry.url() {
            self.cache.end_epoch(&url);
            self.streams.forget_url(entry);
        } else if let Some(watch) = self.streams.watched(entry) {
            watch.forget();
        }
        self.cache.end_epoch(&entry.states());
        self.cache.purge(entry.identity(), entry.kind);
        self.cache.purge(&entry.key, entry.kind);
    }

    /// A method that changes something succeeded: what is held for its URI, and for the resources on
    /// the same host that the answer names, is no longer true (RFC 9111 §4.4).
    pub(super) fn invalidate(&self, entry: &Entry, host: &str, response: &HeaderMap) {
        self.forget(entry);
        for field in [LOCATION, CONTENT_LOCATION] {
            let named = response.get(field).and_then(|value| value.to_str().ok());
            let path = named.filter(|path| path.starts_with('/') && !path.starts_with("//"));
            if let Some(url) = path.and_then(|path| format!("http://{host}{path}").parse().ok()) {
                self.purge(&url);
            }
        }
    }
}
