//! What the engine gives, as clients see it.

use super::*;

#[tokio::test]
async fn a_network_goes_through_its_life() {
    let server = Server::start(Limits::DEFAULT);
    let made = server.post("/v1/networks", r#"{"name":"lab","kind":"isolated","mtu":9000}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!((&made.json()["name"], &made.json()["mtu"]), (&"lab".into(), &9000.into()));
    let twice = server.post("/v1/networks", r#"{"name":"lab","kind":"isolated"}"#).await;
    assert!(twice.error(409, "conflict").contains("lab"));
    let patch = "PATCH /v1/networks/lab HTTP/1.1\r\nContent-Type: application/json";
    let set = server.ask(patch, r#"{"mtu":"1400"}"#).await;
    assert_eq!((set.status, &set.json()["mtu"]), (200, &1400.into()));
    assert_eq!(server.get("/v1/networks").await.json().as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/networks/lab/fdb").await.json(), serde_json::json!([]));
    let gone = server.ask("DELETE /v1/networks/lab HTTP/1.1", "").await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    assert!(server.get("/v1/networks/lab").await.error(404, "not-found").contains("lab"));
    assert!(server.get("/v1/networks/a%0Ab%1b").await.error(404, "not-found").contains("a\\nb"));
    server.stop().await;
}

#[tokio::test]
async fn a_nat_network_goes_through_its_life() {
    let server = Server::start(Limits::DEFAULT);
    let body = r#"{"name":"lab","kind":"nat","subnet":"10.7.0.0/24"}"#;
    let made = server.post("/v1/networks", body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.json()["nat"]["gateway_address"], "10.7.0.1/24", "{}", made.body);
    let overlap = r#"{"name":"a","kind":"nat","subnet":"10.7.0.0/25"}"#;
    let message = server.post("/v1/networks", overlap).await.error(409, "conflict");
    assert!(message.starts_with("network a: subnet") && message.contains("network lab has"), "{message}");

    let forward = r#"{"key":"tcp/8080","to":"10.7.0.20:80"}"#;
    let made = server.post("/v1/networks/lab/forwards", forward).await;
    assert_eq!((made.status, &made.json()["key"]), (201, &"tcp/8080".into()), "{}", made.body);
    let taken = r#"{"key":"tcp/8000-9000","to":"10.7.0.21:80"}"#;
    let message = server.post("/v1/networks/lab/forwards", taken).await.error(409, "conflict");
    assert!(message.contains("tcp/8080") && message.contains("tcp/8000-9000"), "{message}");
    for path in ["/v1/forwards", "/v1/forwards?network=lab", "/v1/networks/lab/forwards"] {
        let rows = server.get(path).await.json();
        assert_eq!((rows.as_array().unwrap().len(), &rows[0]["network"]), (1, &"lab".into()), "{path}");
    }
    let path = "/v1/networks/lab/forwards/tcp%2F8080";
    assert_eq!(server.ask(&format!("DELETE {path} HTTP/1.1"), "").await.status, 204);
    server.ask(&format!("DELETE {path} HTTP/1.1"), "").await.error(404, "not-found");
    // Egress host has no addresses of its own to give away.
    let floating = r#"{"outside":"192.0.2.50","port":"vm1"}"#;
    server.post("/v1/networks/lab/floating", floating).await.error(400, "invalid");
    server.ask("DELETE /v1/floating/192.0.2.50 HTTP/1.1", "").await.error(404, "not-found");
    assert_eq!(server.get("/v1/leases?network=lab").await.json(), serde_json::json!([]));
    server.get("/v1/flows?network=none").await.error(404, "not-found");
    server.stop().await;
}

#[tokio::test]
async fn a_bond_goes_through_its_life() {
    let server = Server::start(Limits::DEFAULT);
    let twice = r#"{"name":"bond0","members":["eth0","eth0"],"mode":"lacp"}"#;
    let message = server.post("/v1/bonds", twice).await.error(400, "invalid");
    assert_eq!(message, "bond bond0: members.1 \"eth0\": this member is named twice");
    let message = server.post("/v1/bonds", r#"{"name":"bond0","mode":"lacp"}"#).await.error(400, "invalid");
    assert!(message.contains("missing field `members`"), "{message}");
    server.get("/v1/bonds/bond0").await.error(404, "not-found");
    let patch = "PATCH /v1/bonds/bond0 HTTP/1.1\r\nContent-Type: application/json";
    server.ask(patch, r#"{"rate":"slow"}"#).await.error(404, "not-found");
    server.ask("DELETE /v1/bonds/bond0 HTTP/1.1", "").await.error(404, "not-found");
    server.stop().await;
}

#[tokio::test]
async fn the_configuration_comes_back_as_it_went() {
    let server = Server::start(Limits::DEFAULT);
    let text = "[network.lab]\nkind = \"isolated\"\n\n[port.vm1]\nnetwork = \"lab\"\ntap = \"vm1.0\"\n";
    let put = "PUT /v1/config HTTP/1.1\r\nContent-Type: application/toml";
    let dry = server.ask(&put.replace("config", "config?dry_run=1"), text).await;
    assert_eq!((dry.status, &dry.json()["applied"]), (200, &false.into()), "{}", dry.body);
    assert_eq!(server.get("/v1/networks").await.json().as_array().unwrap().len(), 0);
    let applied = server.ask(put, text).await;
    assert_eq!((applied.status, &applied.json()["applied"]), (200, &true.into()), "{}", applied.body);
    let export = server.ask("GET /v1/config HTTP/1.1\r\nAccept: application/toml", "").await;
    assert!(export.head.contains("content-type: application/toml"), "{}", export.head);
    let again = server.ask(put, &export.body).await;
    assert_eq!(again.json()["changes"], serde_json::json!([]), "{}", again.body);
    let json = server.get("/v1/config").await.json();
    assert_eq!(json["port"]["vm1"]["tap"], "vm1.0");
    let diff = server.post("/v1/config/diff", "{}").await;
    assert_eq!(diff.json()["changes"].as_array().unwrap().len(), 2, "{}", diff.body);
    server.stop().await;
}

#[tokio::test]
async fn an_error_in_toml_comes_with_the_place_drawn() {
    let server = Server::start(Limits::DEFAULT);
    let put = "PUT /v1/config?file=lab.toml HTTP/1.1\r\nContent-Type: application/toml";
    let answer = server.ask(put, "[network.lab]\nkind = \"isolated\"\nuplnk = \"eth0\"\n").await;
    answer.error(400, "invalid");
    let report = answer.json()["report"].as_str().unwrap().to_owned();
    assert!(report.contains("lab.toml") && report.contains("uplnk"), "{report}");
    assert_eq!(server.get("/v1/networks").await.json(), serde_json::json!([]));
    server.stop().await;
}

#[tokio::test]
async fn events_are_replayed_then_followed() {
    let server = Server::start(Limits::DEFAULT);
    server.post("/v1/networks", r#"{"name":"a","kind":"isolated"}"#).await;
    let kept = server.get("/v1/events?follow=0").await.json();
    let first = kept.as_array().unwrap().first().unwrap()["seq"].as_u64().unwrap();
    let last = kept.as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();
    assert_eq!(server.get(&format!("/v1/events?follow=0&since={last}")).await.json(), serde_json::json!([]));

    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1/events?since=0 HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, &format!("id: {last}\n")).await;
    assert!(text.contains(&format!("id: {first}\n")));
    server.post("/v1/networks", r#"{"name":"b","kind":"isolated"}"#).await;
    read_until(&mut stream, &mut text, "network b").await;
    server.stop().await;
}

async fn read_until(stream: &mut UnixStream, text: &mut String, wanted: &str) {
    let mut bytes = [0; 4096];
    while !text.contains(wanted) {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut bytes)).await;
        let n = read.unwrap_or_else(|_| panic!("{wanted:?} did not come: {text}")).unwrap();
        assert_ne!(n, 0, "{wanted:?} did not come: {text}");
        text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
}

#[tokio::test]
async fn every_get_answers_on_an_empty_daemon() {
    let server = Server::start(Limits::DEFAULT);
    for path in [
        "status", "networks", "ports", "bonds", "mirrors", "forwards", "floating", "leases", "flows",
        "workers", "topology", "drops", "config",
    ] {
        let answer = server.get(&format!("/v1/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json();
    }
    let metrics = server.get("/metrics").await;
    assert!(metrics.body.contains("\nswitchd_dataplane_restarts_total 0\n"), "{}", metrics.body);
    server.stop().await;
}
