//! How the answers of an endpoint are declared: status, content type and fields.

use http::StatusCode;

/// An answer of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct AdminAnswer {
    /// Its status.
    pub status: StatusCode,
    /// When it is given, in a sentence.
    pub when: &'static str,
    /// What its body is.
    pub body: AnswerBody,
}

/// The body of an answer.
#[derive(Clone, Copy, Debug)]
pub enum AnswerBody {
    /// A JSON object with these fields.
    Json(&'static [AnswerField]),
    /// A line of text.
    Text,
    /// Server-sent events, each with a JSON object.
    Events,
    /// Metrics in the Prometheus text format.
    Prometheus,
}

/// A field of a JSON answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerField {
    /// Its name.
    pub name: &'static str,
    /// The JSON type of its value.
    pub kind: FieldKind,
    /// Whether every answer has it.
    pub is_always_there: bool,
    /// What it says, without a full stop.
    pub help: &'static str,
}

/// The JSON type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A string.
    Text,
    /// A number.
    Number,
    /// A whole number.
    Count,
    /// True or false.
    Flag,
    /// An object.
    Object,
    /// A list of objects.
    List,
}

/// The body of every error that the server itself answers.
pub const ERROR_FIELDS: &[AnswerField] = &[AnswerField {
    name: "error",
    kind: FieldKind::Text,
    is_always_there: true,
    help: "what is wrong with the request",
}];

const fn error(status: StatusCode, when: &'static str) -> AdminAnswer {
    AdminAnswer {
        status,
        when,
        body: AnswerBody::Json(ERROR_FIELDS),
    }
}

/// What the server itself may answer, at every endpoint.
pub const COMMON_ANSWERS: &[AdminAnswer] = &[
    error(
        StatusCode::BAD_REQUEST,
        "A parameter is unknown, missing, given twice or invalid.",
    ),
    error(
        StatusCode::UNAUTHORIZED,
        "A token is needed, and none of `tokens` of `[admin]` was sent.",
    ),
    error(
        StatusCode::FORBIDDEN,
        "The token's role is `read`, or a web page of another site sent the request.",
    ),
    error(StatusCode::NOT_FOUND, "There is no such path."),
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        "The path has other methods; `Allow` names them.",
    ),
    error(
        StatusCode::MISDIRECTED_REQUEST,
        "The host name is none of the admin server's: see `hosts` of `[admin]`.",
    ),
];

impl AnswerBody {
    /// The content type, as the response has it.
    pub fn content_type(self) -> &'static str {
        match self {
            AnswerBody::Json(_) => "application/json",
            AnswerBody::Text => "text/plain; charset=utf-8",
            AnswerBody::Events => "text/event-stream",
            AnswerBody::Prometheus => crate::telemetry::CONTENT_TYPE,
        }
    }
}

/// A field that every answer has.
pub(super) const fn field(name: &'static str, kind: FieldKind, help: &'static str) -> AnswerField {
    AnswerField {
        name,
        kind,
        is_always_there: true,
        help,
    }
}

/// A field that is left out where it does not apply.
pub(super) const fn optional(
    name: &'static str,
    kind: FieldKind,
    help: &'static str,
) -> AnswerField {
    AnswerField {
        is_always_there: false,
        ..field(name, kind, help)
    }
}
