//! Splits a source into tokens, without comments and strings, and finds what is built for tests
//! only.

/// A name, `::`, a single mark, or `"` for a literal of text.
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) word: String,
}

/// Names, `::` and single marks. Comments vanish; a string or character literal is one mark.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut line = 1;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (length, word) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if let Some(length) = string(rest).or_else(|| character(rest)) {
            (length, Some("\""))
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let length = length.unwrap_or(rest.len());
            (length, Some(&rest[..length]))
        } else if rest.starts_with("::") {
            (2, Some("::"))
        } else {
            let length = first.len_utf8();
            (length, (!first.is_whitespace()).then_some(&rest[..length]))
        };
        found.extend(word.map(|word| Token {
            line,
            word: word.to_owned(),
        }));
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The length of the (nested) block comment that the text begins with.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the string literal, raw or not, that the text begins with.
fn string(text: &str) -> Option<usize> {
    ["", "b", "c", "r", "br", "cr"]
        .into_iter()
        .find_map(|prefix| {
            let rest = text.strip_prefix(prefix)?;
            let is_raw = prefix.ends_with('r');
            let hashes = if is_raw {
                rest.len() - rest.trim_start_matches('#').len()
            } else {
                0
            };
            let inside = rest[hashes..].strip_prefix('"')?;
            let start = prefix.len() + hashes + 1;
            let length = if is_raw {
                let end = format!("\"{}", "#".repeat(hashes));
                inside.find(&end).map(|at| at + end.len())
            } else {
                closing(inside, '"')
            };
            Some(length.map_or(text.len(), |length| start + length))
        })
}

/// The length of the character literal that the text begins with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let prefix = usize::from(text.starts_with('b'));
    let inside = text[prefix..].strip_prefix('\'')?;
    let first = inside.chars().next()?;
    let is_literal = first == '\\' || inside[first.len_utf8()..].starts_with('\'');
    is_literal
        .then(|| closing(inside, '\'').map(|length| prefix + 1 + length))
        .flatten()
}

/// The length up to and with the first `quote` that no backslash escapes.
fn closing(inside: &str, quote: char) -> Option<usize> {
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            _ if letter == quote => return Some(at + quote.len_utf8()),
            _ => {}
        }
    }
    None
}

/// How an item that is built for tests only begins.
const GATES: [&[&str]; 2] = [
    &["#", "[", "cfg", "(", "test", ")", "]"],
    &["#", "[", "cfg", "(", "all", "(", "test"],
];

/// Drops every item under `#[cfg(test)]`; names the modules that such an item declares elsewhere.
pub(crate) fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let words: Vec<&str> = tokens.iter().map(|token| token.word.as_str()).collect();
    let mut kept = vec![true; words.len()];
    let mut modules = Vec::new();
    for start in 0..words.len() {
        if !kept[start] || !GATES.iter().any(|gate| words[start..].starts_with(gate)) {
            continue;
        }
        let end = item_end(&words, start);
        if let [.., "mod", name, ";"] = words[start..=end] {
            modules.push(name.to_owned());
        }
        kept[start..=end].fill(false);
    }
    let kept = tokens.into_iter().zip(kept).filter(|(_, kept)| *kept);
    (kept.map(|(token, _)| token).collect(), modules)
}

/// The place of the `;` or `}` that ends the item, attributes included, that begins at `start`.
fn item_end(words: &[&str], start: usize) -> usize {
    let mut open = 0;
    for (at, word) in words.iter().enumerate().skip(start) {
        match *word {
            "[" | "(" | "{" => open += 1,
            "]" | ")" | "}" => open -= 1,
            _ => {}
        }
        if open == 0 && ["}", ";"].contains(word) {
            return at;
        }
    }
    words.len() - 1
}
