//! The running server answers as its own `/openapi.json` says, and rejects what that does not name.

use serde_json::Value;

use crate::support::viewer::Ask;
use crate::support::{Origin, Shield, ask, get, manifest, playlist, segment};

const PATH: &str = "/live/seg1.ts";
const STREAM: &str = "/live/index.m3u8";

/// A request for an operation, with an example for each parameter that it requires.
fn example(method: &str, path: &str, operation: &Value) -> Ask {
    let parameters = operation["parameters"].as_array().unwrap();
    let required = parameters
        .iter()
        .filter(|parameter| parameter["required"] == true);
    let query: Vec<_> = required
        .map(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            if parameter["schema"]["format"] == "uri" {
                return format!("{name}=http%3A%2F%2Fmedia.test{PATH}");
            }
            assert_eq!(name, "name", "{path}");
            format!("{name}={STREAM}")
        })
        .collect();
    match query.as_slice() {
        [] => ask(method, path),
        query => ask(method, &format!("{path}?{}", query.join("&"))),
    }
}

#[tokio::test]
async fn every_read_answers_as_the_openapi_document_says() {
    let origin = Origin::start()
        .await
        .on(STREAM, manifest(playlist(1)))
        .on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(STREAM).await.assert_whole(playlist(1));
    shield.get(PATH).await.assert_whole("x");
    let document = shield.admin(get("/openapi.json")).await;
    let document: Value = serde_json::from_str(document.assert_200_text()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        let Some(operation) = operations.get("get") else {
            continue;
        };
        let content = operation["responses"]["200"]["content"]
            .as_object()
            .unwrap();
        let (content_type, body) = content.iter().next().unwrap();
        // These go on for 25 s, and have a scenario of their own.
        if content_type == "text/event-stream" {
            continue;
        }
        let answer = shield.admin(example("GET", path, operation)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(
            answer.header("content-type").unwrap(),
            content_type,
            "{path}"
        );
        if content_type != "application/json" {
            continue;
        }
        let answer: Value = serde_json::from_str(answer.text()).unwrap();
        for name in body["schema"]["required"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            assert!(answer.get(name).is_some(), "{path}: no {name} in {answer}");
        }
        for name in answer.as_object().unwrap().keys() {
            let property = &body["schema"]["properties"][name];
            assert!(property.is_object(), "{path}: {name} is not declared");
        }
    }
}

/// A purge with a misspelt parameter purges nothing.
#[tokio::test]
async fn misspelt_parameter_is_rejected_by_name() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("x");
    let misspelt = "/purge?url=http%3A%2F%2Fmedia.test%2Flive%2Fseg1.ts&softly=true";
    let answer = shield.admin(ask("POST", misspelt)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let error: Value = serde_json::from_str(answer.text()).unwrap();
    let error = error["error"].as_str().unwrap();
    assert!(error.contains("`softly`"), "{error}");
    assert!(shield.get(PATH).await.is_hit(), "it was not purged");
}
