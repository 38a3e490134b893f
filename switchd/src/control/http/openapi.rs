//! The OpenAPI 3.1 document, made from the handlers' own annotations.
//!
//! What all operations share is added here: the errors, each with the body `ErrorBody`, and operation ids that
//! are unique (`networks_list`). Flattened types become plain objects: as `allOf` they would contradict the
//! `additionalProperties: false` of their parts. A test holds the document against the routes.

use axum::Json as Answer;
use std::collections::BTreeMap;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::schema::{AdditionalProperties, Object};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi};

use super::{bonds, capture, config, events, metrics, mirrors, nat, networks, ports, status};

/// Bytes that are not text.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)]
pub struct Binary(Vec<u8>);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "switchd",
        description = "A software switch for guests on one host, spoken to over a unix socket.\n\n\
            Access: root (uid 0), the user who started the daemon, and members of the socket's group may do \
            everything. Where the socket's mode lets others connect, they may use GET and HEAD only; anything \
            else is answered 403. The caller is known by SO_PEERCRED and SO_PEERGROUPS.\n\n\
            Bodies: at most 1 MiB, unknown keys and keys that stand twice are errors, numbers are raw. Every \
            error has the body ErrorBody; `code` says what kind it is. At most 256 connections (the one idle \
            for longest makes room), 64 of them event or capture streams; an idle connection is closed after \
            30 s.",
        license(name = "Apache-2.0 OR MIT")
    ),
    paths(
        status::status, status::workers, status::topology, status::drops,
        networks::list, networks::create, networks::show, networks::set, networks::remove,
        networks::fdb_list, networks::fdb_add, networks::fdb_delete,
        nat::forwards, nat::forwards_of, nat::forward_add, nat::forward_delete,
        nat::floating, nat::floating_of, nat::floating_add, nat::floating_delete, nat::floating_delete_of,
        nat::leases, nat::flows,
        bonds::list, bonds::create, bonds::show, bonds::set, bonds::remove,
        ports::list, ports::attach, ports::show, ports::set, ports::detach,
        mirrors::list, mirrors::create, mirrors::show, mirrors::remove,
        config::export, config::apply, config::confirm, config::diff,
        events::events, capture::capture, capture::stop, openapi, metrics::metrics,
    ),
    components(schemas(switchd_api::reply::ErrorBody)),
    modifiers(&Finish)
)]
struct Document;

/// What the annotations leave out.
struct Finish;

impl Modify for Finish {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let methods = [
                (HttpMethod::Get, &mut item.get),
                (HttpMethod::Post, &mut item.post),
                (HttpMethod::Put, &mut item.put),
                (HttpMethod::Patch, &mut item.patch),
                (HttpMethod::Delete, &mut item.delete),
            ];
            for (method, operation) in methods {
                if let Some(operation) = operation {
                    add_errors(operation, method != HttpMethod::Get);
                    name(operation);
                }
            }
        }
        if let Some(components) = &mut document.components {
            let parts = components.schemas.clone();
            for (name, schema) in &mut components.schemas {
                flatten(name, schema, &parts);
            }
        }
    }
}

/// The handler's name is unique among its tag's only.
fn name(operation: &mut Operation) {
    let tag = operation.tags.iter().flatten().next();
    if let (Some(tag), Some(id)) = (tag, &mut operation.operation_id)
        && !id.starts_with(tag.as_str())
    {
        *id = format!("{tag}_{id}");
    }
}

/// Makes one object of an `allOf`. Requests (`Named_…`) stay closed to other keys, replies do not.
fn flatten(name: &str, schema: &mut RefOr<Schema>, parts: &BTreeMap<String, RefOr<Schema>>) {
    let RefOr::T(Schema::AllOf(all)) = schema else { return };
    let mut whole = Object::new();
    whole.description = all.description.take();
    for item in &all.items {
        let part = match item {
            RefOr::Ref(to) => parts.get(to.ref_location.rsplit('/').next().unwrap_or_default()),
            part => Some(part),
        };
        if let Some(RefOr::T(Schema::Object(part))) = part {
            whole.properties.extend(part.properties.clone());
            whole.required.extend(part.required.clone());
        }
    }
    if name.starts_with("Named_") {
        whole.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    }
    *schema = RefOr::T(Schema::Object(whole));
}

fn add_errors(operation: &mut Operation, changes: bool) {
    let mut errors = vec![
        ("400", "A value, key or parameter is not allowed (`invalid`)"),
        ("404", "There is no object of that name (`not-found`)"),
        ("500", "The daemon has failed (`internal`)"),
        ("503", "The system refused: a missing interface, an errno, too many streams (`unavailable`)"),
    ];
    if changes {
        errors.push(("403", "The caller may only read (`denied`)"));
        errors.push(("409", "It clashes with what is configured (`conflict`)"));
        errors.push(("504", "It took too long (`timeout`)"));
    }
    if operation.request_body.is_some() {
        errors.push(("408", "The body did not arrive within 10 s (`timeout`)"));
        errors.push(("413", "The body is larger than 1 MiB (`too-large`)"));
        errors.push(("415", "The body's type is not understood here (`invalid`)"));
    }
    for (status, description) in errors {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response =
            ResponseBuilder::new().description(description).content("application/json", content).build();
        operation.responses.responses.insert(status.to_owned(), response.into());
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "daemon",
    responses((status = 200, description = "OpenAPI 3.1", body = inline(serde_json::Value))))]
pub async fn openapi() -> Answer<utoipa::openapi::OpenApi> {
    Answer(document())
}
