//! The endpoints of the admin server, each declared once.

mod overview;

use http::StatusCode;

use super::answers::{
    AdminAnswer, AnswerBody, AnswerField, ERROR_FIELDS, FieldKind, field, optional,
};
use super::declaration::{AdminEndpoint, AdminMethod, AdminRole, EndpointHandler};
use super::query::{AdminParameter, ParameterKind};
use super::{handlers, purge, warm};

/// Every endpoint.
///
/// To add one: an entry here, its function in `handlers.rs`, and for what it needs of the server a
/// closure in [`super::AdminHandlers`], which `server/assembly.rs` fills in. Then add its answers
/// to `CASES` in `admin/server/tests.rs`, and write `docs/admin.md` anew with
/// `UPDATE_DOCS=1 ./x test admin_reference`. Routing, roles, checks of parameters and
/// `/openapi.json` follow from the entry. What changes the server is a POST with
/// [`AdminRole::Write`].
pub static ADMIN_ENDPOINTS: &[AdminEndpoint] = &[
    AdminEndpoint {
        path: "/healthz",
        method: AdminMethod::Get,
        role: None,
        summary: "Check that every worker thread answers",
        help: "For liveness probes: restart the process if it fails.",
        parameters: &[],
        answers: &[
            text(StatusCode::OK, "Every worker thread answers."),
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "Some did not answer within 1.5 s; the text says how many.",
            ),
        ],
        handler: EndpointHandler::Waiting(handlers::health),
    },
    AdminEndpoint {
        path: "/readyz",
        method: AdminMethod::Get,
        role: None,
        summary: "Ask whether new viewers are accepted",
        help: "For load balancers and readiness probes. A drain waits for those that asked.",
        parameters: &[],
        answers: &[
            text(StatusCode::OK, "New connections are accepted."),
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "The server is about to stop.",
            ),
        ],
        handler: EndpointHandler::Immediate(handlers::readiness),
    },
    overview::METRICS,
    overview::OVERVIEW,
    overview::OVERVIEW_EVENTS,
    overview::OVERVIEW_STREAM,
    AdminEndpoint {
        path: "/status",
        method: AdminMethod::Get,
        role: Some(AdminRole::Read),
        summary: "Read the state of the origins, and of the configuration",
        help: "",
        parameters: &[],
        answers: &[AdminAnswer {
            status: StatusCode::OK,
            when: "Always.",
            body: AnswerBody::Json(&[
                field(
                    "origins",
                    FieldKind::List,
                    "each origin group with its queue and its endpoints",
                ),
                field(
                    "drain",
                    FieldKind::Object,
                    "the step of a drain, in `state`",
                ),
                field(
                    "config",
                    FieldKind::Object,
                    "the configuration in use: its file, SHA-256, number, time and `warnings`, \
                     what the last reload changed, why the last one failed, if it did, and what \
                     of the file needs a restart (`pending_restart`)",
                ),
                field(
                    "process",
                    FieldKind::Object,
                    "the process that answers: its number, version and start",
                ),
                field(
                    "upgrade",
                    FieldKind::Object,
                    "whether an upgrade is in progress, why the last one failed, and the process \
                     that serves in place of this one",
                ),
                field(
                    "client_classes",
                    FieldKind::List,
                    "the `[[client_class]]`es with their counts, refused requests among them \
                     (`denied`: 403, `rate_limited`: 429); empty without any",
                ),
            ]),
        }],
        handler: EndpointHandler::Immediate(handlers::status),
    },
    AdminEndpoint {
        path: "/explain",
        method: AdminMethod::Get,
        role: Some(AdminRole::Read),
        summary: "Ask what the server would do with a URL, and why",
        help: "No origin gets a request.",
        parameters: &[AdminParameter {
            is_required: true,
            ..url("url", "The URL as a viewer requests it.")
        }],
        answers: &[
            AdminAnswer {
                status: StatusCode::OK,
                when: "A route takes the URL.",
                body: AnswerBody::Json(EXPLANATION),
            },
            AdminAnswer {
                status: StatusCode::NOT_FOUND,
                when: "The request would be rejected; `error` says why.",
                body: AnswerBody::Json(ERROR_FIELDS),
            },
        ],
        handler: EndpointHandler::Immediate(handlers::explain),
    },
    AdminEndpoint {
        path: "/purge",
        method: AdminMethod::Post,
        role: Some(AdminRole::Write),
        summary: "Remove stored objects, or make them stale",
        help: "One parameter besides `soft` and `dry_run`, or several `tag`. \
               [What each selects](purge.md).",
        parameters: &[
            url(
                "url",
                "One URL with its variants; for a playlist, all its versions.",
            ),
            url("path", "The path of this URL, with any query."),
            url(
                "stream",
                "The manifest of a stream: it and all that it lists.",
            ),
            url("prefix", "Every URL that begins with this one."),
            AdminParameter {
                name: "host",
                kind: ParameterKind::Text,
                is_required: false,
                is_repeatable: false,
                help: "Everything that viewers reach by this host name.",
            },
            AdminParameter {
                name: "tag",
                kind: ParameterKind::Text,
                is_required: false,
                is_repeatable: true,
                help: "Every object with this tag of its origin, or with another one given here.",
            },
            AdminParameter {
                name: "origin",
                kind: ParameterKind::Text,
                is_required: false,
                is_repeatable: false,
                help: "The only origin whose tags are meant.",
            },
            flag("all", "Everything."),
            flag(
                "soft",
                "Make objects stale, and remove only those that may not be served stale.",
            ),
            flag("dry_run", "Change nothing, and say what would be purged."),
        ],
        answers: &[
            AdminAnswer {
                status: StatusCode::OK,
                when: "It is purged.",
                body: AnswerBody::Json(PURGE_RESULT),
            },
            AdminAnswer {
                status: StatusCode::NOT_FOUND,
                when: "No route takes the URL, or the stream or origin is not known.",
                body: AnswerBody::Json(PURGE_RESULT),
            },
        ],
        handler: EndpointHandler::Waiting(purge::purge),
    },
    AdminEndpoint {
        path: "/warm",
        method: AdminMethod::Post,
        role: Some(AdminRole::Write),
        summary: "Fetch objects that are not stored, ahead of viewers",
        help: "At the priority of prefetches, and only while the origin has room. `seawall warm` \
               walks a whole stream with it. [How](warm.md).",
        parameters: &[
            AdminParameter {
                is_required: true,
                is_repeatable: true,
                ..url("url", "What to fetch, as a viewer requests it; 16 at most.")
            },
            AdminParameter::count(
                "bytes_max",
                "Request no slice after this many bytes of them.",
            ),
        ],
        answers: &[AdminAnswer {
            status: StatusCode::OK,
            when: "They are stored, or not: `outcome` says it.",
            body: AnswerBody::Json(&[field(
                "objects",
                FieldKind::List,
                "one object for each URL: `url`, `outcome` (`held`, `fetched`, `uncacheable`, \
                 `failed`, `busy`, `unavailable` or `unrouted`), `kind`, `status`, `bytes`, \
                 `received` (of these, requested from the origin now), `reason` (text, or null; if \
                 `unavailable` or `unrouted`, why); of a manifest, `names` has the role, the \
                 bandwidth, the target and the track (of alternatives) of each object on the same \
                 host, `elsewhere` the number of others, and `more` is true if it names more",
            )]),
        }],
        handler: EndpointHandler::Waiting(warm::warm),
    },
    AdminEndpoint {
        path: "/drain",
        method: AdminMethod::Post,
        role: Some(AdminRole::Write),
        summary: "Stop the server after the responses in progress, as SIGTERM does",
        help: "`/status` and the metric `seawall_drain_state` show the step.",
        parameters: &[AdminParameter {
            name: "wait",
            kind: ParameterKind::Flag,
            is_required: false,
            is_repeatable: false,
            help: "Answer when the listeners are closed.",
        }],
        answers: &[
            AdminAnswer {
                status: StatusCode::OK,
                when: "The listeners are closed.",
                body: AnswerBody::Json(DRAIN_STATE),
            },
            AdminAnswer {
                status: StatusCode::ACCEPTED,
                when: "The drain has begun.",
                body: AnswerBody::Json(DRAIN_STATE),
            },
            AdminAnswer {
                status: StatusCode::SERVICE_UNAVAILABLE,
                when: "Too many requests of operators wait.",
                body: AnswerBody::Json(ERROR_FIELDS),
            },
        ],
        handler: EndpointHandler::Waiting(handlers::drain),
    },
    AdminEndpoint {
        path: "/reload",
        method: AdminMethod::Post,
        role: Some(AdminRole::Write),
        summary: "Read the configuration file again and use it, as SIGHUP does",
        help: "[What a reload applies](operate.md#reload).",
        parameters: &[],
        answers: &[
            AdminAnswer {
                status: StatusCode::OK,
                when: "The configuration is in use, except for changes that need a restart.",
                body: AnswerBody::Json(RELOAD_REPORT),
            },
            AdminAnswer {
                status: StatusCode::CONFLICT,
                when: "Nothing has changed; `error` says why, and where in the file.",
                body: AnswerBody::Json(RELOAD_ERROR),
            },
        ],
        handler: EndpointHandler::Waiting(handlers::reload),
    },
    AdminEndpoint {
        path: "/upgrade",
        method: AdminMethod::Post,
        role: Some(AdminRole::Write),
        summary: "Start the program again and let it serve in place of this process, as SIGUSR2 does",
        help: "No connection is refused and no response is cut. [How to upgrade](operate.md#upgrade).",
        parameters: &[],
        answers: &[
            AdminAnswer {
                status: StatusCode::OK,
                when: "The new process serves, and this one drains.",
                body: AnswerBody::Json(UPGRADE_REPORT),
            },
            AdminAnswer {
                status: StatusCode::ACCEPTED,
                when: "It takes long; `upgrade` in `/status` says how it ends.",
                body: AnswerBody::Json(&[field("state", FieldKind::Text, "`running`")]),
            },
            AdminAnswer {
                status: StatusCode::CONFLICT,
                when: "Nothing has changed; `error` says why.",
                body: AnswerBody::Json(ERROR_FIELDS),
            },
        ],
        handler: EndpointHandler::Waiting(handlers::upgrade),
    },
    AdminEndpoint {
        path: "/openapi.json",
        method: AdminMethod::Get,
        role: Some(AdminRole::Read),
        summary: "Read this list as an OpenAPI document",
        help: "For clients and tools.",
        parameters: &[],
        answers: &[AdminAnswer {
            status: StatusCode::OK,
            when: "Always.",
            body: AnswerBody::Json(&[
                field("openapi", FieldKind::Text, "the version of OpenAPI"),
                field(
                    "info",
                    FieldKind::Object,
                    "the title, and the version of Seawall",
                ),
                field("paths", FieldKind::Object, "the endpoints"),
                field(
                    "components",
                    FieldKind::Object,
                    "how a client authenticates",
                ),
            ]),
        }],
        handler: EndpointHandler::Immediate(handlers::openapi),
    },
];

const EXPLANATION: &[AnswerField] = &[
    field("route", FieldKind::Text, "the route that takes the URL"),
    field("kind", FieldKind::Text, "the kind of the object"),
    field("key", FieldKind::Text, "the cache key's hash"),
    field(
        "target",
        FieldKind::Text,
        "path and query as sent to the origin",
    ),
    optional("host", FieldKind::Text, "the host sent to the origin"),
    field("origin", FieldKind::Text, "the origin group"),
    optional(
        "endpoint",
        FieldKind::Text,
        "the endpoint that would be used now",
    ),
    optional(
        "varies",
        FieldKind::Flag,
        "true if only variants are stored",
    ),
    optional(
        "held",
        FieldKind::Object,
        "the stored object, its age, and which rule decided how long it lives",
    ),
    optional(
        "manifest",
        FieldKind::Object,
        "what the stored manifest says",
    ),
    optional(
        "followed",
        FieldKind::Object,
        "how a live manifest is refreshed",
    ),
    optional(
        "known",
        FieldKind::Text,
        "what is noted about the key without an object",
    ),
    optional(
        "due_in_seconds",
        FieldKind::Number,
        "when the object should exist",
    ),
    optional(
        "varying_parameters",
        FieldKind::List,
        "query parameters that nearly every fetch of the path sends with another value",
    ),
];

const RELOAD_REPORT: &[AnswerField] = &[
    field(
        "generation",
        FieldKind::Count,
        "the number of the configuration",
    ),
    optional("hash", FieldKind::Text, "SHA-256 of the file"),
    field("loaded_at", FieldKind::Number, "seconds since 1970"),
    field(
        "changes",
        FieldKind::List,
        "each difference, as `seawall check --diff` says it, with its `effect`: `live`, \
         `new_fetches`, `cold_cache` or `restart`",
    ),
    field(
        "needs_restart",
        FieldKind::Count,
        "the number of changes that only a restart applies",
    ),
    field(
        "warnings",
        FieldKind::List,
        "what is doubtful in the file, each with its line and column",
    ),
];

const RELOAD_ERROR: &[AnswerField] = &[
    field("error", FieldKind::Text, "what is wrong"),
    optional(
        "problems",
        FieldKind::List,
        "each problem of the file, with its line and column",
    ),
];

const UPGRADE_REPORT: &[AnswerField] = &[
    field("pid", FieldKind::Count, "the number of the new process"),
    field("version", FieldKind::Text, "its version"),
];

const DRAIN_STATE: &[AnswerField] = &[field("state", FieldKind::Text, "the step of the drain")];

const PURGE_RESULT: &[AnswerField] = &[
    optional(
        "error",
        FieldKind::Text,
        "of 404: what is not known, and which names are",
    ),
    field("purged", FieldKind::Flag, "whether any object was purged"),
    field(
        "dry_run",
        FieldKind::Flag,
        "whether nothing was to be changed",
    ),
    field(
        "soft",
        FieldKind::Flag,
        "whether objects were to become stale instead of being removed",
    ),
    field("objects", FieldKind::Count, "the number of objects purged"),
    field("bytes", FieldKind::Count, "the memory that they took"),
    field(
        "complete",
        FieldKind::Flag,
        "false if objects of the stream may remain",
    ),
    optional(
        "shared_with_other_hosts",
        FieldKind::Flag,
        "of a host: whether viewers of other hosts got the same objects",
    ),
    optional("url", FieldKind::Text, "the parameter as it was understood"),
    optional("path", FieldKind::Text, "likewise"),
    optional("stream", FieldKind::Text, "likewise"),
    optional("prefix", FieldKind::Text, "likewise"),
    optional("host", FieldKind::Text, "likewise"),
    optional("tag", FieldKind::List, "likewise"),
    optional("all", FieldKind::Flag, "likewise"),
];

const fn text(status: StatusCode, when: &'static str) -> AdminAnswer {
    AdminAnswer {
        status,
        when,
        body: AnswerBody::Text,
    }
}

/// An optional parameter that says yes or no.
const fn flag(name: &'static str, help: &'static str) -> AdminParameter {
    AdminParameter {
        kind: ParameterKind::Flag,
        ..url(name, help)
    }
}

/// An optional parameter that is an absolute URL.
const fn url(name: &'static str, help: &'static str) -> AdminParameter {
    AdminParameter {
        name,
        kind: ParameterKind::Url,
        is_required: false,
        is_repeatable: false,
        help,
    }
}
