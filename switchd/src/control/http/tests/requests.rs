//! Well-formed HTTP with bad content, and the document against the routes.

use super::*;
use crate::control::http::router::routes;
use crate::control::http::{Peer, document};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeSet;

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_answered_in_json() {
    let server = Server::start(Limits::DEFAULT);
    let answer = server.get("/v2/networks").await;
    assert!(answer.error(404, "not-found").contains("/v2/networks"));
    let answer = server.ask("DELETE /v1/status HTTP/1.1", "").await;
    assert!(answer.error(405, "invalid").contains("DELETE"));
    assert!(answer.head.contains("allow: get"), "{}", answer.head);
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_the_wrong_type_or_shape_is_named() {
    let server = Server::start(Limits::DEFAULT);
    let form = "POST /v1/networks HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded";
    let answer = server.ask(form, "name=lab").await;
    assert!(answer.error(415, "invalid").contains("x-www-form-urlencoded"));
    assert!(answer.json()["hint"].as_str().unwrap().contains("application/json"));

    let answer = server.post("/v1/networks", r#"{"name":"lab","kind":"isolated","mtuu":1}"#).await;
    assert!(answer.error(400, "invalid").contains("unknown field `mtuu`"));
    let answer = server.post("/v1/networks", r#"{"name":"a\nb","kind":"isolated"}"#).await;
    assert!(answer.error(400, "invalid").contains("not a usable name"));
    let answer = server.post("/v1/networks", "").await;
    assert!(answer.error(400, "invalid").contains("no body"));
    let answer = server.post("/v1/capture", r#"{"source":"port:x","filtre":"arp"}"#).await;
    assert!(answer.error(400, "invalid").contains("filtre"));
    let patch = "PATCH /v1/networks/lab HTTP/1.1\r\nContent-Type: application/json";
    let answer = server.ask(patch, r#"{"mtu":9000}"#).await;
    assert!(answer.error(400, "invalid").contains("expected a string"));
    server.stop().await;
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused() {
    let server = Server::start(Limits::DEFAULT);
    assert!(server.get("/v1/drops?off=x").await.error(400, "invalid").contains("unknown field `off`"));
    assert!(server.get("/v1/events?since=x").await.error(400, "invalid").contains("/v1/events"));
    assert!(server.get("/v1/events?follow=2").await.error(400, "invalid").contains("neither 1 nor 0"));
    assert!(server.get("/v1/flows?limit=0").await.error(400, "invalid").contains("1 to 100000"));
    assert!(server.get("/v1/flows?limit=x").await.error(400, "invalid").contains("/v1/flows"));
    assert!(server.get("/v1/leases?limit=1").await.error(400, "invalid").contains("unknown field `limit`"));
    let put = "PUT /v1/config?confirm=0 HTTP/1.1\r\nContent-Type: application/json";
    assert!(server.ask(put, "{}").await.error(400, "invalid").contains("confirm=0"));
    let mut stream = server.connect().await;
    let put = "PUT /v1/config HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\
               Content-Type: application/toml\r\nContent-Length: 3\r\n\r\n";
    stream.write_all(&[put.as_bytes(), b"# \xff"].concat()).await.unwrap();
    assert!(Answer::read(&mut stream).await.error(400, "invalid").contains("byte 2"));
    server.stop().await;
}

/// Asks the router itself, as `peer`.
async fn status(app: &App, peer: Option<Peer>, method: &str, path: &str) -> StatusCode {
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    TowerToHyperService::new(router(app.clone())).call(request).await.unwrap().status()
}

#[tokio::test]
async fn a_stranger_on_an_open_socket_changes_nothing() {
    let policy = Policy { owner: 1000, group: 400, mode: 0o666 };
    let app = App::new(testing::engine(), policy, Limits::DEFAULT);
    let stranger = Some(Peer { uid: 2000, gid: 2000, groups: [].into() });
    let member = Some(Peer { uid: 2000, gid: 2000, groups: [400].into() });
    for (method, path) in [
        ("POST", "/v1/networks"),
        ("PATCH", "/v1/networks/lab"),
        ("DELETE", "/v1/networks/lab"),
        ("POST", "/v1/networks/lab/fdb"),
        ("POST", "/v1/bonds"),
        ("POST", "/v1/networks/lab/forwards"),
        ("DELETE", "/v1/networks/lab/forwards/tcp%2F80"),
        ("DELETE", "/v1/floating/192.0.2.50"),
        ("DELETE", "/v1/ports/vm1"),
        ("PUT", "/v1/config"),
        ("POST", "/v1/config/confirm"),
        ("POST", "/v1/capture"),
        ("DELETE", "/v1/capture/1"),
    ] {
        assert_eq!(
            status(&app, stranger.clone(), method, path).await,
            StatusCode::FORBIDDEN,
            "{method} {path}"
        );
        assert_ne!(
            status(&app, member.clone(), method, path).await,
            StatusCode::FORBIDDEN,
            "{method} {path}"
        );
    }
    assert_eq!(status(&app, stranger.clone(), "GET", "/v1/openapi.json").await, StatusCode::OK);
    assert_eq!(
        status(&app, None, "GET", "/v1/openapi.json").await,
        StatusCode::FORBIDDEN,
        "nobody knows who"
    );
}

#[tokio::test]
async fn the_document_and_the_routes_are_the_same() {
    let app = App::new(testing::engine(), policy(), Limits::DEFAULT);
    let document = serde_json::to_value(document()).unwrap();
    let described = document["paths"].as_object().unwrap();
    let routed: BTreeSet<&str> = routes().into_iter().map(|(path, _)| path).collect();
    assert_eq!(described.keys().map(String::as_str).collect::<BTreeSet<_>>(), routed);
    for (path, operations) in described {
        let real = path.replace(['{', '}'], "");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let described = operations.get(method.as_str().to_ascii_lowercase()).is_some();
            // Without a peer a route that exists answers 403 before its handler runs.
            let wanted = if described { StatusCode::FORBIDDEN } else { StatusCode::METHOD_NOT_ALLOWED };
            assert_eq!(status(&app, None, method.as_str(), &real).await, wanted, "{method} {path}");
        }
    }
}

#[test]
fn the_document_is_whole() {
    let text = serde_json::to_string(&document()).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to but not described");
    }
    for (name, spec) in [
        ("Named_PortSpec", "PortSpec"),
        ("PortStatus", "PortSpec"),
        ("NetworkStatus", "NetworkSpec"),
        ("Named_BondSpec", "BondSpec"),
        ("BondStatus", "BondSpec"),
    ] {
        let keys =
            |name: &str| schemas[name]["properties"].as_object().unwrap().keys().collect::<BTreeSet<_>>();
        assert!(keys(name).is_superset(&keys(spec)) && keys(name).contains(&"name".to_owned()), "{name}");
        let closed = schemas[name].get("additionalProperties").is_some();
        assert_eq!(closed, name.starts_with("Named"), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{place}: the id is not unique");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
            assert!(operation["responses"]["500"].is_object(), "{place}");
            assert_eq!(operation["responses"].get("403").is_some(), method != "get", "{place}");
            let has_body = operation.get("requestBody").is_some();
            assert_eq!(operation["responses"].get("413").is_some(), has_body, "{place}");
            let wants = path.matches('{').count();
            let params = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(params.iter().filter(|p| p["in"] == "path").count(), wants, "{place}");
        }
    }
}
