//! Renders declared endpoints as a document for programs.

use serde_json::{Map, Value, json};

use super::answers::{AdminAnswer, AnswerBody, AnswerField, COMMON_ANSWERS, FieldKind};
use super::declaration::AdminEndpoint;
use super::query::{AdminParameter, ParameterKind};

/// The name of the security scheme in the document.
const SCHEME: &str = "token";

/// An object as version 3.1 of the `OpenAPI` specification describes it.
pub(super) fn document(endpoints: &[AdminEndpoint]) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints {
        let method = endpoint.method.as_str().to_ascii_lowercase();
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[method] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Seawall admin", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "securitySchemes": { SCHEME: { "type": "http", "scheme": "bearer" } } },
    })
}

fn operation(endpoint: &AdminEndpoint) -> Value {
    let name = endpoint.path.trim_matches('/').replace(['/', '.'], "_");
    let security = match endpoint.role {
        Some(role) => json!([{ SCHEME: [role.as_str()] }]),
        None => json!([]),
    };
    json!({
        "operationId": format!("{}_{name}", endpoint.method.as_str().to_ascii_lowercase()),
        "summary": endpoint.summary,
        "description": endpoint.help,
        "security": security,
        "parameters": endpoint.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses(endpoint),
    })
}

fn parameter(parameter: &AdminParameter) -> Value {
    let schema = match parameter.kind {
        ParameterKind::Url => json!({ "type": "string", "format": "uri" }),
        ParameterKind::Flag => json!({ "type": "boolean" }),
        ParameterKind::Count => json!({ "type": "integer", "minimum": 1 }),
        ParameterKind::Text => json!({ "type": "string" }),
    };
    let schema = if parameter.is_repeatable {
        json!({ "type": "array", "items": schema })
    } else {
        schema
    };
    json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.help,
        "schema": schema,
    })
}

/// The endpoint's own answers, and those of the server where the endpoint has none of that status.
fn responses(endpoint: &AdminEndpoint) -> Value {
    let mut responses = Map::new();
    for answer in endpoint.answers.iter().chain(COMMON_ANSWERS) {
        let status = answer.status.as_str().to_owned();
        responses.entry(status).or_insert_with(|| response(answer));
    }
    responses.into()
}

fn response(answer: &AdminAnswer) -> Value {
    let schema = match answer.body {
        AnswerBody::Json(fields) => object(fields),
        AnswerBody::Text | AnswerBody::Events | AnswerBody::Prometheus => {
            json!({ "type": "string" })
        }
    };
    json!({
        "description": answer.when,
        "content": { answer.body.content_type(): { "schema": schema } },
    })
}

fn object(fields: &[AnswerField]) -> Value {
    let property = |field: &AnswerField| {
        let mut schema = match field.kind {
            FieldKind::Text => json!({ "type": "string" }),
            FieldKind::Number => json!({ "type": "number" }),
            FieldKind::Count => json!({ "type": "integer", "minimum": 0 }),
            FieldKind::Flag => json!({ "type": "boolean" }),
            FieldKind::Object => json!({ "type": "object" }),
            FieldKind::List => json!({ "type": "array", "items": { "type": "object" } }),
        };
        schema["description"] = field.help.into();
        (field.name.to_owned(), schema)
    };
    let required = fields.iter().filter(|field| field.is_always_there);
    json!({
        "type": "object",
        "required": required.map(|field| field.name).collect::<Vec<_>>(),
        "properties": fields.iter().map(property).collect::<Map<_, _>>(),
    })
}
