//! Finds the first byte of an HTTP/1 connection that another parser could read differently. Pure.
//!
//! httparse and hyper are as lenient as RFC 9112 allows: a line may end with a bare LF, a chunk
//! size may have any number of digits, and a request with two framings is accepted. A proxy in
//! front that reads such bytes differently disagrees with hyper on where a request ends (request
//! smuggling). So every request that hyper reads is checked here, up to the first byte that is not
//! strictly valid.
//!
//! It finds the ends of bodies as hyper does, because it accepts only unambiguous framing. It does
//! not check methods, names and values; hyper does.

mod chunks;

use memchr::{memchr, memchr2};

use self::chunks::ChunkParser;

/// Maximum length of a `Content-Length` or `Transfer-Encoding` line. Leading zeros could make it
/// longer.
const FRAMING_LINE_MAX: usize = 128;

/// The position of the first invalid bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FramingFault {
    /// Number of valid bytes before them.
    pub(super) at: usize,
    /// Whether they are in a body; otherwise they are in a head.
    pub(super) in_body: bool,
}

/// Tracks the position within the requests of one connection.
pub(super) struct StrictReader {
    state: ReaderState,
    /// The last byte was a CR.
    after_cr: bool,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    framing: BodyFraming,
}

enum ReaderState {
    /// Between requests; blank lines are allowed.
    Idle,
    /// A request line; `in_target` after its first space.
    RequestLine {
        in_target: bool,
    },
    /// A field line, or the blank line that ends the head.
    Field,
    /// Remaining bytes of a body.
    Body(u64),
    Chunks(ChunkParser),
}

/// The framing of a body, as given by its head.
#[derive(Default)]
struct BodyFraming {
    length: Option<u64>,
    is_chunked: bool,
}

impl StrictReader {
    /// A reader for a new connection.
    pub(super) fn new() -> StrictReader {
        StrictReader {
            state: ReaderState::Idle,
            after_cr: false,
            line: Vec::new(),
            framing: BodyFraming::default(),
        }
    }

    /// Checks the next bytes. Must not be called again after a fault.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), FramingFault> {
        let mut at = 0;
        while at < bytes.len() {
            let in_body = matches!(self.state, ReaderState::Body(_) | ReaderState::Chunks(_));
            at += self
                .check_part(&bytes[at..])
                .map_err(|valid| FramingFault {
                    at: at + valid,
                    in_body,
                })?;
        }
        Ok(())
    }

    /// Checks the rest of one line of a head, or of one body, as far as it has arrived. Returns the
    /// number of bytes read; the error is the number of valid bytes.
    fn check_part(&mut self, rest: &[u8]) -> Result<usize, usize> {
        match &mut self.state {
            ReaderState::Idle | ReaderState::RequestLine { .. } | ReaderState::Field => {
                self.check_line(rest)
            }
            ReaderState::Body(remaining) => {
                let count = usize::try_from(*remaining)
                    .unwrap_or(usize::MAX)
                    .min(rest.len());
                *remaining -= count as u64;
                if *remaining == 0 {
                    self.state = ReaderState::Idle;
                }
                Ok(count)
            }
            ReaderState::Chunks(chunks) => {
                let read = chunks.check(rest)?;
                if chunks.is_complete() {
                    self.state = ReaderState::Idle;
                }
                Ok(read)
            }
        }
    }

    /// Checks the rest of one line of a head, as far as it has arrived. Returns the number of bytes
    /// read; the error is the number of valid bytes.
    fn check_line(&mut self, rest: &[u8]) -> Result<usize, usize> {
        if self.after_cr {
            self.after_cr = false;
            if rest[0] != b'\n' {
                return Err(0);
            }
            self.end_line(&[]).map_err(|()| 0_usize)?;
            return Ok(1);
        }
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let text = &rest[..end];
        if !text.is_empty() && matches!(self.state, ReaderState::Idle) {
            self.state = ReaderState::RequestLine { in_target: false };
        }
        self.check_target(text)?;
        match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => {
                self.end_line(text).map_err(|()| end)?;
                Ok(end + 2)
            }
            Some([b'\r']) => {
                self.keep(text);
                self.after_cr = true;
                Ok(end + 1)
            }
            // The end of the bytes that have arrived.
            None | Some([]) => {
                self.keep(text);
                Ok(end)
            }
            // A bare CR or a bare LF.
            Some(_) => Err(end),
        }
    }

    /// Rejects a fragment in the target of a request line. The error is the number of valid bytes.
    fn check_target(&mut self, text: &[u8]) -> Result<(), usize> {
        let ReaderState::RequestLine { in_target } = &mut self.state else {
            return Ok(());
        };
        let target = if *in_target {
            Some(0)
        } else {
            memchr(b' ', text)
        };
        let Some(target) = target else {
            return Ok(());
        };
        *in_target = true;
        match memchr(b'#', &text[target..]) {
            Some(hash) => Err(target + hash),
            None => Ok(()),
        }
    }

    /// Keeps the beginning of a field line: enough to tell whether it is about framing and whether
    /// it is too long.
    fn keep(&mut self, text: &[u8]) {
        if matches!(self.state, ReaderState::Field) {
            let room = (FRAMING_LINE_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
        }
    }

    /// Reads a complete line of a head, of which `text` is the last part.
    fn end_line(&mut self, text: &[u8]) -> Result<(), ()> {
        let kept_part = std::mem::take(&mut self.line);
        let is_blank = kept_part.is_empty() && text.is_empty();
        match self.state {
            ReaderState::RequestLine { .. } => {
                self.framing = BodyFraming::default();
                self.state = ReaderState::Field;
            }
            ReaderState::Field if is_blank => self.state = self.framing.body(),
            ReaderState::Field if kept_part.is_empty() => self.framing.read(text)?,
            ReaderState::Field => self.framing.read(&[&kept_part, text].concat())?,
            ReaderState::Idle | ReaderState::Body(_) | ReaderState::Chunks(_) => {}
        }
        Ok(())
    }
}

impl BodyFraming {
    /// Reads a field line. The error means that two recipients could see different bodies.
    fn read(&mut self, line: &[u8]) -> Result<(), ()> {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value)
                .filter(|_| line.len() <= FRAMING_LINE_MAX)
                .ok_or(())?;
            let differs = self.length.is_some_and(|other| other != length);
            self.length = Some(length);
            if differs || self.is_chunked {
                return Err(());
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_known = value.eq_ignore_ascii_case(b"chunked");
            if self.is_chunked || self.length.is_some() || !is_known {
                return Err(());
            }
            self.is_chunked = true;
        }
        Ok(())
    }

    fn body(&self) -> ReaderState {
        match self.length {
            _ if self.is_chunked => ReaderState::Chunks(ChunkParser::new()),
            Some(length @ 1..) => ReaderState::Body(length),
            _ => ReaderState::Idle,
        }
    }
}

/// Parses a number of digits only, not larger than any body.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_plain)?;
    i64::try_from(number).is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Position of the first fault and whether it is in a body, or whether the bytes end between
    /// two requests.
    fn check_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<bool, (usize, bool)> {
        let (mut reader, mut read) = (StrictReader::new(), 0);
        for piece in pieces {
            let checked = reader.check(piece);
            checked.map_err(|FramingFault { at, in_body }| (read + at, in_body))?;
            read += piece.len();
        }
        Ok(matches!(reader.state, ReaderState::Idle))
    }

    fn whole(text: &str) -> Result<bool, (usize, bool)> {
        check_pieces([text.as_bytes()])
    }

    /// Checks that the fault is at the position of `|`.
    fn fault(marked: &str, in_body: bool) {
        let at = marked.find('|').unwrap();
        let text = marked.replacen('|', "", 1);
        assert_eq!(whole(&text), Err((at, in_body)), "{marked:?}");
        // A CR may be passed on before the next byte shows that the line is invalid.
        let cut = check_pieces(text.as_bytes().chunks(1));
        let expected = [Err((at, in_body)), Err((at + 1, in_body))];
        assert!(expected.contains(&cut), "{marked:?} in bytes: {cut:?}");
    }

    #[test]
    fn accepts_unambiguous_requests() {
        for text in [
            GET,
            "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "G#T / HTTP/1.1\r\nA: #\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\nanything\n\r#\0",
            "POST / HTTP/1.1\r\ncontent-LENGTH:\t0003 \r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\ntransfer-encoding: ChunKed\r\n\r\n0\r\n\r\n",
            &format!(
                "{CHUNKED}5\r\n\n\r#\0a\r\n0000000000000001 \t\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n"
            ),
            &format!("{CHUNKED}1;a=b; c=\"\\\";\t\" \r\nx\r\n000;x\r\n\r\n"),
        ] {
            assert_eq!(whole(text), Ok(true), "{text:?}");
            assert_eq!(whole(&format!("{text}{GET}{text}")), Ok(true), "{text:?}");
        }
    }

    #[test]
    fn reports_an_incomplete_message() {
        for text in [
            "G",
            &GET[..GET.len() - 1],
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na",
            &format!("{CHUNKED}0\r\n"),
            &format!("{CHUNKED}1\r\na"),
        ] {
            assert_eq!(whole(text), Ok(false), "{text:?}");
        }
    }

    #[test]
    fn rejects_bare_lf() {
        fault("GET / HTTP/1.1|\nHost: a\r\n\r\n", false);
        fault("GET / HTTP/1.1\r\nHost: a|\n\r\n", false);
        fault("GET / HTTP/1.1\r\nHost: a\r\n|\n", false);
        fault("|\nGET / HTTP/1.1\r\n\r\n", false);
        fault("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx|\n", false);
    }

    #[test]
    fn rejects_bare_cr() {
        // The CR may be passed on before the next byte is known.
        for text in [
            "GET / HTTP/1.1\rHost: a",
            "GET / HTTP/1.1\r\nA: b\rc",
            "\r\rG",
        ] {
            let (whole, cut) = (whole(text), check_pieces(text.as_bytes().chunks(1)));
            let cr = text
                .find("\rH")
                .or(text.find("\rc"))
                .or(text.find("\rG"))
                .unwrap();
            assert!(
                matches!(whole, Err((at, false)) if at <= cr),
                "{text:?}: {whole:?}"
            );
            assert!(
                matches!(cut, Err((at, false)) if at <= cr + 1),
                "{text:?}: {cut:?}"
            );
        }
    }

    #[test]
    fn rejects_a_fragment_in_the_target() {
        fault("GET /a|#b HTTP/1.1\r\n\r\n", false);
        fault("GET |# HTTP/1.1\r\n\r\n", false);
    }

    #[test]
    fn rejects_ambiguous_body_framing() {
        for (first, second) in [
            ("Content-Length: 5", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", "Content-Length: 5"),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
            ("Content-Length: 5", "Content-Length: 6"),
            ("A: b", "Transfer-Encoding: gzip, chunked"),
            ("A: b", "Transfer-Encoding: ,chunked"),
            ("A: b", "Content-Length: 5, 5"),
            ("A: b", "Content-Length: +5"),
            ("A: b", "Content-Length: 0x5"),
            ("A: b", "Content-Length:"),
            ("A: b", "Content-Length: 99999999999999999999"),
        ] {
            fault(
                &format!("POST / HTTP/1.1\r\n{first}\r\n{second}|\r\n\r\n"),
                false,
            );
        }
        let zeros = "0".repeat(FRAMING_LINE_MAX);
        fault(
            &format!("POST / HTTP/1.1\r\nContent-Length: {zeros}5|\r\n\r\n"),
            false,
        );
    }

    #[test]
    fn rejects_malformed_chunks() {
        for body in [
            "|;a\r\n",
            "|\r\n",
            "|-1\r\n",
            "0|x5\r\n",
            "5|_\r\n",
            "5 |5\r\n",
            "5|\n",
            "0000000000000000|5\r\n",
            "5;a|\n",
            "5;a=\"b|\r\n",
            "5;a=\"b\\|\r\n",
            "5;a|\0",
            "1\r\na|b",
            "1\r\na|\n",
            "0\r\n|\n",
            "0\r\nA: b|\n\r\n",
        ] {
            fault(&format!("{CHUNKED}{body}"), true);
        }
    }

    proptest! {
        /// The result does not depend on how the bytes are split into reads.
        #[test]
        fn gives_the_same_result_at_any_split(
            parts in prop::collection::vec(prop::sample::select(vec![
                "GET", " ", "/", "#", "\r\n", "\r\n", "\n", "\r", "A: b", "Content-Length: 7",
                "Transfer-Encoding: chunked", "7", "f", ";a=", "\"", "\\", "0\r\n\r\n", "1234567",
                GET, CHUNKED, "POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n",
            ]), 0..30),
            cuts in prop::collection::vec(1..9_usize, 1..40),
        ) {
            let text = parts.concat();
            let (mut pieces, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let (whole, cut) = (whole(&text), check_pieces(pieces));
            match (whole, cut) {
                // A CR may be passed on before the next byte is known.
                (Err((one, a)), Err((other, b))) => {
                    prop_assert_eq!(a, b);
                    prop_assert!(one.abs_diff(other) <= 1);
                }
                (whole, cut) => prop_assert_eq!(whole, cut),
            }
        }
    }
}
