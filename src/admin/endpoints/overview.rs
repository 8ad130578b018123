//! The endpoints that say what the server does, for the page and for Prometheus.

use http::StatusCode;

use super::super::answers::{AdminAnswer, AnswerBody, AnswerField, ERROR_FIELDS, FieldKind, field};
use super::super::declaration::{AdminEndpoint, AdminMethod, AdminRole, EndpointHandler};
use super::super::handlers;
use super::super::query::{AdminParameter, ParameterKind};

const FIELDS: &[AnswerField] = &[
    field("at_ms", FieldKind::Count, "the time of this server"),
    field(
        "uptime_seconds",
        FieldKind::Number,
        "the age of the process",
    ),
    field("version", FieldKind::Text, "the version of Seawall"),
    field("host", FieldKind::Text, "the name of the machine"),
    field("drain", FieldKind::Text, "the step of a drain"),
    field("requests", FieldKind::Object, "requests by outcome"),
    field("responses", FieldKind::Object, "responses by status class"),
    field("sent_bytes", FieldKind::Object, "body bytes by kind"),
    field(
        "origin",
        FieldKind::Object,
        "requests to all origins, their body bytes, and the requests for live streams with the \
         least number that these need",
    ),
    field(
        "head_seconds",
        FieldKind::Object,
        "responses by what they depended on and by the time until their head",
    ),
    field("connections", FieldKind::Object, "viewers' connections"),
    field("memory", FieldKind::Object, "the memory of the cache"),
    field(
        "streams",
        FieldKind::List,
        "the live streams with the most requests from viewers, 500 at most",
    ),
    field("streams_left_out", FieldKind::Count, "the number of others"),
    field(
        "origins",
        FieldKind::List,
        "the origins with their endpoints",
    ),
    field(
        "events",
        FieldKind::List,
        "what changed or went wrong, the last 200",
    ),
    field(
        "config",
        FieldKind::Object,
        "the configuration in use, as in `/status`",
    ),
];

pub(super) const METRICS: AdminEndpoint = AdminEndpoint {
    path: "/metrics",
    method: AdminMethod::Get,
    role: Some(AdminRole::Read),
    summary: "Read all metrics in the Prometheus text format",
    help: "[metrics.md](metrics.md) explains each.",
    parameters: &[],
    answers: &[AdminAnswer {
        status: StatusCode::OK,
        when: "Always.",
        body: AnswerBody::Prometheus,
    }],
    handler: EndpointHandler::Immediate(handlers::metrics),
};

pub(super) const OVERVIEW: AdminEndpoint = AdminEndpoint {
    path: "/overview",
    method: AdminMethod::Get,
    role: Some(AdminRole::Read),
    summary: "Read what the page shows: viewers, streams, origins and what changed",
    help: "Requests, bytes and times are counted since the start of the process.",
    parameters: &[],
    answers: &[AdminAnswer {
        status: StatusCode::OK,
        when: "Always.",
        body: AnswerBody::Json(FIELDS),
    }],
    handler: EndpointHandler::Immediate(handlers::overview),
};

pub(super) const OVERVIEW_STREAM: AdminEndpoint = AdminEndpoint {
    path: "/overview/stream",
    method: AdminMethod::Get,
    role: Some(AdminRole::Read),
    summary: "Read the manifests of a live stream and how they are followed",
    help: "",
    parameters: &[AdminParameter {
        name: "name",
        kind: ParameterKind::Text,
        is_required: true,
        is_repeatable: false,
        help: "The name of the stream in `/overview`.",
    }],
    answers: &[
        AdminAnswer {
            status: StatusCode::OK,
            when: "The stream is watched.",
            body: AnswerBody::Json(&[
                field("name", FieldKind::Text, "the parameter"),
                field(
                    "url",
                    FieldKind::Text,
                    "the URL of its first manifest, for a purge",
                ),
                field(
                    "manifests",
                    FieldKind::List,
                    "its manifests that viewers have requested",
                ),
            ]),
        },
        AdminAnswer {
            status: StatusCode::NOT_FOUND,
            when: "No such stream is watched.",
            body: AnswerBody::Json(ERROR_FIELDS),
        },
    ],
    handler: EndpointHandler::Immediate(handlers::stream),
};

pub(super) const OVERVIEW_EVENTS: AdminEndpoint = AdminEndpoint {
    path: "/overview/events",
    method: AdminMethod::Get,
    role: Some(AdminRole::Read),
    summary: "Follow `/overview`: an event each second, whose data is the same object",
    help: "It ends after 25 s, or when a drain begins; connect again.",
    parameters: &[],
    answers: &[AdminAnswer {
        status: StatusCode::OK,
        when: "Always.",
        body: AnswerBody::Events,
    }],
    handler: EndpointHandler::Immediate(handlers::overview_events),
};
