//! How an endpoint of the admin server is declared: its path, method, role, parameters, answers and
//! handler. It knows no endpoint by name; [`super::ADMIN_ENDPOINTS`] lists them.

use std::fmt;
use std::pin::Pin;

use http::{Method, StatusCode};

use super::AdminHandlers;
use super::answers::{AdminAnswer, COMMON_ANSWERS};
use super::query::{AdminParameter, AdminQuery};
use super::response::AdminResponse;

/// One method of one path. The server routes by it, rejects parameters that it does not name, and
/// `/openapi.json` and `docs/admin.md` are written from it.
pub struct AdminEndpoint {
    /// The path, without parameters.
    pub path: &'static str,
    /// The method.
    pub method: AdminMethod,
    /// Who may use it; `None`: everyone who can connect.
    pub role: Option<AdminRole>,
    /// What it does, in one line without a full stop.
    pub summary: &'static str,
    /// More about it, in sentences. May be empty.
    pub help: &'static str,
    /// The parameters of the query. All others are rejected.
    pub parameters: &'static [AdminParameter],
    /// The answers of the handler. The server itself adds those of [`COMMON_ANSWERS`].
    pub answers: &'static [AdminAnswer],
    /// What answers.
    pub(super) handler: EndpointHandler,
}

/// The method of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminMethod {
    /// Reads; HEAD is allowed too.
    Get,
    /// Changes something.
    Post,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Read what the server shows.
    Read,
    /// Read, and change the server.
    Write,
}

/// A request that has been routed and whose parameters are valid.
pub struct AdminRequest<'a> {
    /// What the server can do.
    pub handlers: &'a AdminHandlers,
    /// The parameters.
    pub query: AdminQuery,
    /// Who makes it, for the log.
    pub actor: String,
    /// All endpoints.
    pub endpoints: &'static [AdminEndpoint],
}

/// The answer of a handler that waits.
pub type FutureAnswer<'a> = Pin<Box<dyn Future<Output = AdminResponse> + Send + 'a>>;

/// The function behind an endpoint.
pub enum EndpointHandler {
    /// Answers at once.
    Immediate(fn(&AdminRequest<'_>) -> AdminResponse),
    /// Waits for something, with a deadline of its own.
    Waiting(for<'a> fn(&'a AdminRequest<'a>) -> FutureAnswer<'a>),
}

impl AdminEndpoint {
    /// Calls the handler.
    pub(super) async fn answer(&self, request: &AdminRequest<'_>) -> AdminResponse {
        match self.handler {
            EndpointHandler::Immediate(answer) => answer(request),
            EndpointHandler::Waiting(answer) => answer(request).await,
        }
    }

    /// The declared answer with this status, the server's own included.
    pub fn declared_answer(&self, status: StatusCode) -> Option<&'static AdminAnswer> {
        let mut answers = self.answers.iter().chain(COMMON_ANSWERS);
        answers.find(|answer| answer.status == status)
    }
}

impl AdminMethod {
    /// As HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            AdminMethod::Get => "GET",
            AdminMethod::Post => "POST",
        }
    }

    fn accepts(self, method: &Method) -> bool {
        match self {
            AdminMethod::Get => matches!(*method, Method::GET | Method::HEAD),
            AdminMethod::Post => *method == Method::POST,
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            AdminMethod::Get => "GET, HEAD",
            AdminMethod::Post => "POST",
        }
    }
}

impl AdminRole {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            AdminRole::Read => "read",
            AdminRole::Write => "write",
        }
    }
}

/// Why no endpoint takes a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RoutingError {
    /// No endpoint has the path.
    NoSuchPath,
    /// The path has other methods: the value of `Allow`.
    OtherMethods(String),
}

impl fmt::Display for RoutingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoutingError::NoSuchPath => f.write_str("there is no such path"),
            RoutingError::OtherMethods(allowed) => {
                write!(f, "this path has other methods: {allowed}")
            }
        }
    }
}

/// The endpoint that takes this method and path.
pub(super) fn route(
    endpoints: &'static [AdminEndpoint],
    method: &Method,
    path: &str,
) -> Result<&'static AdminEndpoint, RoutingError> {
    let with_path = || endpoints.iter().filter(|endpoint| endpoint.path == path);
    if let Some(endpoint) = with_path().find(|endpoint| endpoint.method.accepts(method)) {
        return Ok(endpoint);
    }
    let allowed: Vec<_> = with_path()
        .map(|endpoint| endpoint.method.allowed())
        .collect();
    Err(match allowed.as_slice() {
        [] => RoutingError::NoSuchPath,
        allowed => RoutingError::OtherMethods(allowed.join(", ")),
    })
}
