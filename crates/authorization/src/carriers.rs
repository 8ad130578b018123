//! Where a request carries its token, and the request without it: a token belongs in no key, and
//! is sent to no origin.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::TokenRejection;
use super::separated::{parts, split_once};

/// Where a route looks for tokens. With several, the first that has one counts, in the order of the
/// fields: a token renewed by a header or a cookie is newer than that of the URL. The others are
/// taken out too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenCarriers {
    /// A header with the token as its value.
    pub header: Option<HeaderName>,
    /// The name of a cookie.
    pub cookie: Option<String>,
    /// The name of a query parameter.
    pub query: Option<String>,
    /// The name of the first segment of the path, `/NAME=TOKEN/…`: relative URLs in playlists keep
    /// it.
    pub path: Option<String>,
}

/// Which of the carriers had the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCarrier {
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// A query parameter.
    Query,
    /// The first segment of the path.
    Path,
}

/// A token, and the request without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundToken<'a> {
    /// The token as sent. Nothing is known of it yet.
    pub token: &'a str,
    /// Where it was.
    pub carrier: TokenCarrier,
    /// Path and query without any token.
    pub target: Cow<'a, str>,
}

impl TokenCarriers {
    /// Finds the token of a request for `target` (path and query as sent).
    pub fn find<'a>(
        &self,
        target: &'a str,
        headers: &'a HeaderMap,
    ) -> Result<FoundToken<'a>, TokenRejection> {
        let (in_path, target) = self.split_path(target)?;
        let (in_query, target) = self.split_query(target)?;
        let candidates = [
            (self.in_header(headers)?, TokenCarrier::Header),
            (self.in_cookie(headers)?, TokenCarrier::Cookie),
            (in_query, TokenCarrier::Query),
            (in_path, TokenCarrier::Path),
        ];
        let found = candidates.into_iter().find_map(|(token, carrier)| {
            let token = token?;
            let target = target.clone();
            Some(FoundToken {
                token,
                carrier,
                target,
            })
        });
        found.ok_or(TokenRejection::Missing)
    }

    /// The target without any token, however many there are.
    pub fn strip_target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        let mut target = target;
        while let Some((_, rest)) = self.path.as_deref().and_then(|name| in_path(name, target)) {
            target = rest;
        }
        self.without_query_token(target)
    }

    /// Takes the tokens out of the headers.
    pub fn strip_headers(&self, headers: &mut HeaderMap) {
        if let Some(name) = &self.header {
            headers.remove(name);
        }
        let Some(name) = &self.cookie else { return };
        let is_kept = |cookie: &(&[u8], &[u8])| cookie.0 != name.as_bytes();
        if cookies(headers).all(|cookie| is_kept(&cookie)) {
            return;
        }
        let kept: Vec<_> = cookies(headers)
            .filter(is_kept)
            .map(|(_, cookie)| cookie)
            .collect();
        let kept = kept.join(&b"; "[..]);
        headers.remove(COOKIE);
        if !kept.is_empty() {
            // Parts of valid values are one.
            headers.extend(
                HeaderValue::from_bytes(&kept)
                    .ok()
                    .map(|kept| (COOKIE, kept)),
            );
        }
    }

    fn in_header<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, TokenRejection> {
        let Some(name) = &self.header else {
            return Ok(None);
        };
        let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        only_one(values)?.map(read).transpose()
    }

    fn in_cookie<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, TokenRejection> {
        let Some(name) = &self.cookie else {
            return Ok(None);
        };
        let named = cookies(headers).filter(|cookie| cookie.0 == name.as_bytes());
        let values = named.map(|(name, cookie)| cookie.get(name.len() + 1..).unwrap_or_default());
        only_one(values)?.map(read).transpose()
    }

    fn split_query<'a>(
        &self,
        target: &'a str,
    ) -> Result<(Option<&'a str>, Cow<'a, str>), TokenRejection> {
        let Some((name, path, query)) = self.searched_query(target) else {
            return Ok((None, target.into()));
        };
        let values = parameters(query).filter_map(|it| value_of(name, it));
        let token = only_one(values)?;
        Ok((token, without_parameter(name, path, query, target)))
    }

    fn without_query_token<'a>(&self, target: &'a str) -> Cow<'a, str> {
        match self.searched_query(target) {
            Some((name, path, query)) => without_parameter(name, path, query, target),
            None => target.into(),
        }
    }

    /// The name of the parameter, with path and query; `None` if there is nothing to search.
    fn searched_query<'a>(&self, target: &'a str) -> Option<(&str, &'a str, &'a str)> {
        let name = self.query.as_deref()?;
        let (path, query) = split_once(target, b'?')?;
        Some((name, path, query))
    }

    fn split_path<'a>(
        &self,
        target: &'a str,
    ) -> Result<(Option<&'a str>, &'a str), TokenRejection> {
        let token_and_rest = |target| in_path(self.path.as_deref()?, target);
        match token_and_rest(target) {
            None => Ok((None, target)),
            Some((_, rest)) if token_and_rest(rest).is_some() => Err(TokenRejection::Repeated),
            Some((token, rest)) => Ok((Some(token), rest)),
        }
    }
}

/// The token that a target has as its first segment, `/NAME=TOKEN`, and the target without it.
fn in_path<'a>(name: &str, target: &'a str) -> Option<(&'a str, &'a str)> {
    let value = target.strip_prefix('/')?.strip_prefix(name)?;
    let value = value.strip_prefix('=')?;
    let end = value.find(['/', '?'])?;
    value[end..].starts_with('/').then(|| value.split_at(end))
}

fn value_of<'a>(name: &str, parameter: &'a str) -> Option<&'a str> {
    parameter.strip_prefix(name)?.strip_prefix('=')
}

/// `target`, which is `path?query`, without the parameters of this name.
fn without_parameter<'a>(
    name: &str,
    path: &'a str,
    query: &'a str,
    target: &'a str,
) -> Cow<'a, str> {
    let is_kept = |parameter: &&str| value_of(name, parameter).is_none();
    if parameters(query).all(|parameter| is_kept(&parameter)) {
        return target.into();
    }
    let mut kept = String::with_capacity(target.len());
    kept.push_str(path);
    for parameter in parameters(query).filter(is_kept) {
        kept.push(if kept.len() == path.len() { '?' } else { '&' });
        kept.push_str(parameter);
    }
    // Only an empty parameter is left.
    if kept.len() == path.len() + 1 {
        kept.truncate(path.len());
    }
    kept.into()
}

/// The name of each cookie, and the cookie.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let cookies = lines.flat_map(|line| parts(line, b';').map(|part| line[part].trim_ascii()));
    cookies.map(|cookie| {
        let name_len = memchr(b'=', cookie);
        (&cookie[..name_len.unwrap_or_default()], cookie)
    })
}

fn parameters(query: &str) -> impl Iterator<Item = &str> {
    parts(query.as_bytes(), b'&').map(|part| &query[part])
}

fn only_one<T>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, TokenRejection> {
    let first = values.next();
    if values.next().is_some() {
        return Err(TokenRejection::Repeated);
    }
    Ok(first)
}

fn read(value: &[u8]) -> Result<&str, TokenRejection> {
    std::str::from_utf8(value).map_err(|_| TokenRejection::Malformed)
}

#[cfg(test)]
mod tests;
