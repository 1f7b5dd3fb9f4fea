//! The OpenAPI document: what the handlers say of themselves, completed by what holds for all of them.
//!
//! Handlers describe their own path, parameters and bodies. Added here, so that no handler has to repeat it: an operation id, the
//! statuses that requests of this shape may be answered with, the headers that every request may carry, and the limits that
//! are refused when they are broken.

use levee_meta_state::limits::{MAX_ALLOCATE, MAX_CHANGES, MAX_COPIES, MAX_DELETES, MAX_KEY, MAX_REASON};
use levee_proto::api::{
    IDEMPOTENCY_HEADER, MAX_FAMILY, MAX_INVENTORY, MAX_MAINTENANCE_S, MAX_NAME, MAX_PAGE, MAX_REQUEST_ID,
    MAX_SNAPSHOT_GROUP, MAX_WAIT_MS, MAX_WEIGHT, REQUEST_ID_HEADER,
};
use levee_proto::units::MAX_VOLUME_SIZE;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// Completes what the handlers say.
pub fn complete(document: &OpenApi) -> Value {
    // A document that cannot be told is told as an empty one: the API works without.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["servers"] = json!([{ "url": "/", "description": "Any member of the group" }]);
    document["tags"] = tags();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, methods) in paths.iter_mut() {
            for (method, operation) in methods.as_object_mut().into_iter().flatten() {
                complete_operation(method, path, operation);
            }
        }
    }
    document["components"]["parameters"] = parameters();
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        bound_integers(schemas);
        limit(schemas);
        examples(schemas);
    }
    document
}

fn tags() -> Value {
    let tag = |name: &str, text: &str| json!({ "name": name, "description": text });
    json!([
        tag("cluster", "The meta servers, what the cluster holds, what it is busy with, and what changes"),
        tag("nodes", "Storage daemons and their disks"),
        tag("volumes", "Virtual disks"),
        tag("snapshots", "What volumes held, kept"),
        tag("repair", "How copies are kept whole"),
        tag("gateways", "What storage daemons ask for the volumes that they serve; not for users"),
    ])
}

fn complete_operation(method: &str, path: &str, operation: &mut Value) {
    operation["operationId"] = operation_id(method, path).into();
    let changes = method != "get";
    let has_body = operation.get("requestBody").is_some();
    let mut answers =
        vec![("400", "Malformed, or beyond a limit"), ("429", "Asked too often"), ("503", "No leader; try again")];
    if path.contains('{') || has_body {
        answers.push(("404", "There is no such thing"));
    }
    if changes {
        answers.extend([
            ("409", "The thing is in the wrong state for this, or its name is taken"),
            ("413", "The body is too long"),
            ("422", "The idempotency key was used for another request"),
            ("507", "Not enough nodes, disks or space"),
        ]);
    }
    for (status, text) in answers {
        operation["responses"][status] = problem(status, text);
    }
    for (status, answer) in operation["responses"].as_object_mut().into_iter().flatten() {
        let description = answer["description"].as_str().unwrap_or_default();
        if description.is_empty() {
            answer["description"] = done(status).into();
        }
    }
    let mut headers = vec!["RequestId"];
    headers.extend(changes.then_some("IdempotencyKey"));
    let references = headers.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    match operation["parameters"].as_array_mut() {
        Some(own) => own.extend(references),
        None => operation["parameters"] = references.collect(),
    }
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        limit_parameter(parameter);
    }
}

fn done(status: &str) -> &'static str {
    match status {
        "201" => "Created",
        "202" => "Begun",
        "default" => "Refused",
        _ => "Done",
    }
}

fn problem(status: &str, text: &str) -> Value {
    let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let mut answer = json!({ "description": text, "content": content });
    if status == "429" {
        let schema = json!({ "type": "integer", "minimum": 1 });
        answer["headers"] = json!({ "Retry-After": { "description": "Seconds to wait", "schema": schema } });
    }
    answer
}

/// The method and the fixed parts of the path, and the last part if it is a parameter: unique, and the same for ever.
fn operation_id(method: &str, path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let mut words = vec![method.to_string()];
    words.extend(parts.iter().filter(|part| !part.starts_with('{')).map(|part| part.replace(['-', '.'], "_")));
    if let Some(last) = parts.last().and_then(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        words.push(format!("by_{last}"));
    }
    words.join("_")
}

fn parameters() -> Value {
    let header = |name: &str, text: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": text, "schema": schema });
    json!({
        "RequestId": header(
            REQUEST_ID_HEADER,
            "Names the request in the logs of every process that touches it; answered, and made up if it is absent",
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$", "minLength": 1, "maxLength": MAX_REQUEST_ID }),
        ),
        "IdempotencyKey": header(
            IDEMPOTENCY_HEADER,
            "A request that comes again with the same key, path and body is answered as it was the first time, for a day",
            json!({ "type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": MAX_KEY }),
        ),
    })
}

fn limit_parameter(parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_string();
    let kind = parameter["schema"].get("type").cloned().unwrap_or_default();
    let is = |what: &str| kind == what || kind.as_array().is_some_and(|kinds| kinds.iter().any(|k| k == what));
    let limits = match name.as_str() {
        "limit" => json!({ "minimum": 1, "maximum": MAX_PAGE }),
        "wait_ms" => json!({ "minimum": 0, "maximum": MAX_WAIT_MS }),
        "id" => json!({ "minimum": 0, "maximum": u32::MAX }),
        "after" | "volume" if is("integer") => json!({ "minimum": 0, "maximum": u64::MAX }),
        "epoch" => json!({ "minimum": 0, "maximum": u32::MAX }),
        "after" => json!({ "maxLength": 2 * MAX_NAME + 1 }),
        // Of a volume, a snapshot written VOLUME@NAME, or a volume that was deleted and is needed by clones.
        "name" => json!({ "minLength": 1, "maxLength": 2 * MAX_NAME + 1, "pattern": "^[A-Za-z0-9._@-]+$" }),
        "snapshot" => json!({ "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME }),
        _ => return,
    };
    merge(&mut parameter["schema"], &limits);
    if name == "name" || name == "snapshot" {
        parameter["example"] = if name == "name" { "vm1" } else { "monday" }.into();
    }
}

fn merge(schema: &mut Value, limits: &Value) {
    let (Some(schema), Some(limits)) = (schema.as_object_mut(), limits.as_object()) else { return };
    schema.extend(limits.iter().map(|(name, value)| (name.clone(), value.clone())));
}

/// Integers end where ours do, and tuples are plain.
fn bound_integers(schemas: &mut Map<String, Value>) {
    fn walk(schema: &mut Value) {
        let is_integer = match &schema["type"] {
            Value::String(kind) => kind == "integer",
            Value::Array(kinds) => kinds.iter().any(|kind| kind == "integer"),
            _ => false,
        };
        if is_integer && schema.get("maximum").is_none() {
            let wide = schema["format"] == "int64";
            schema["maximum"] = if wide { u64::MAX.into() } else { u32::MAX.into() };
        }
        same_items(schema);
        match schema {
            Value::Object(fields) => fields.values_mut().for_each(walk),
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    schemas.values_mut().for_each(walk);
}

/// A tuple of things of one kind, as generators of clients know it.
fn same_items(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let Some(Value::Array(items)) = fields.get("prefixItems").cloned() else { return };
    let Some(first) = items.first().filter(|first| items.iter().all(|item| item == *first)) else { return };
    fields.remove("prefixItems");
    fields.insert("items".into(), first.clone());
    fields.insert("minItems".into(), items.len().into());
    fields.insert("maxItems".into(), items.len().into());
}

/// What is refused when it is broken, by schema and field.
fn limit(schemas: &mut Map<String, Value>) {
    let name = json!({ "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME });
    let size = json!({ "minimum": 4096, "maximum": MAX_VOLUME_SIZE, "multipleOf": 4096 });
    let copies = json!({ "minimum": 1, "maximum": MAX_COPIES });
    let items = |least: usize, most: usize| json!({ "minItems": least, "maxItems": most });
    let limits = [
        ("CreateVolume", "name", name.clone()),
        ("CreateVolume", "size", size.clone()),
        ("CreateVolume", "copies", copies.clone()),
        ("CreateVolume", "min_copies", copies.clone()),
        ("ResizeVolume", "size", size.clone()),
        ("CreateClones", "size", size),
        ("CreateClones", "copies", copies.clone()),
        ("CreateClones", "min_copies", copies),
        ("Family", "count", json!({ "minimum": 1, "maximum": MAX_FAMILY })),
        (
            "Family",
            "name",
            json!({ "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[A-Za-z0-9{][A-Za-z0-9._{}-]*$" }),
        ),
        ("SnapshotName", "volume", name.clone()),
        ("SnapshotName", "snapshot", name.clone()),
        ("Rollback", "snapshot", name.clone()),
        ("CreateSnapshots", "snapshots", items(1, MAX_SNAPSHOT_GROUP)),
        ("RegisterNode", "name", name.clone()),
        ("RegisterNode", "zone", name.clone()),
        ("RegisterNode", "rack", name.clone()),
        ("StartMaintenance", "node", name),
        ("StartMaintenance", "seconds", json!({ "minimum": 1, "maximum": MAX_MAINTENANCE_S })),
        ("StartMaintenance", "reason", json!({ "maxLength": MAX_REASON })),
        ("SetNodeState", "reason", json!({ "maxLength": MAX_REASON })),
        ("SetDiskWeight", "weight", json!({ "minimum": 0, "maximum": MAX_WEIGHT })),
        ("Heartbeat", "deleted", items(0, MAX_DELETES)),
        ("Inventory", "replicas", items(0, MAX_INVENTORY)),
        ("Inventory", "fences", items(0, MAX_INVENTORY)),
        ("AllocateChunks", "indexes", items(1, MAX_ALLOCATE)),
        ("ChangeReplicas", "changes", items(0, MAX_CHANGES)),
        ("SetDiskState", "reason", json!({ "maxLength": MAX_REASON })),
    ];
    for (schema, field, limits) in limits {
        for properties in properties_of(schemas, schema) {
            if let Some(property) = properties.get_mut(field) {
                merge(property, &limits);
            }
        }
    }
}

/// The fields of a schema, those of its parts included.
fn properties_of<'a>(schemas: &'a mut Map<String, Value>, schema: &str) -> Vec<&'a mut Map<String, Value>> {
    let Some(Value::Object(schema)) = schemas.get_mut(schema) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => found.push(properties),
            ("allOf", Value::Array(parts)) => {
                found.extend(parts.iter_mut().filter_map(|part| part.get_mut("properties")?.as_object_mut()));
            }
            _ => {}
        }
    }
    found
}

fn examples(schemas: &mut Map<String, Value>) {
    let volume = json!({ "name": "vm1", "size": 10_737_418_240_u64, "copies": 3, "min_copies": 2 });
    let snapshot = json!({ "volume": "vm1", "snapshot": "monday" });
    let problem = json!({
        "type": "about:blank", "title": "Not found", "status": 404, "detail": "there is no volume named 'vm1'", "kind": "not-found",
    });
    let examples = [
        ("CreateVolumes", json!({ "volumes": [volume], "atomic": true })),
        ("CreateVolume", volume),
        ("AttachVolume", json!({ "node": "node-1" })),
        ("ResizeVolume", json!({ "size": 21_474_836_480_u64 })),
        ("CreateSnapshots", json!({ "snapshots": [snapshot] })),
        ("CreateClones", json!({ "from": snapshot, "name": "desk-{}", "count": 100 })),
        ("DeleteVolumes", json!({ "volumes": [{ "name": "desk-{}", "count": 100 }] })),
        ("Rollback", json!({ "snapshot": "monday" })),
        ("SetDiskState", json!({ "state": "draining", "reason": "is to be replaced" })),
        ("ChangeLimits", json!({ "over_provision": { "percent": 300 }, "warn": { "percent": 70 } })),
        ("Problem", problem),
    ];
    for (name, example) in examples {
        if let Some(schema) = schemas.get_mut(name) {
            schema["example"] = example;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_say_what_is_done_to_what() {
        for (method, path, id) in [
            ("get", "/v1/volumes", "get_volumes"),
            ("delete", "/v1/volumes/{name}", "delete_volumes_by_name"),
            ("post", "/v1/volumes/{name}/attach", "post_volumes_attach"),
            ("get", "/v1/volumes/{name}/snapshots/{snapshot}", "get_volumes_snapshots_by_snapshot"),
        ] {
            assert_eq!(operation_id(method, path), id);
        }
    }

    #[test]
    fn integers_and_fields_get_their_limits() {
        let schema = json!({ "CreateVolume": { "properties": {
            "size": { "type": "integer", "format": "int64" }, "copies": { "type": ["integer", "null"], "format": "int32" } } } });
        let mut schemas = schema.as_object().unwrap().clone();
        bound_integers(&mut schemas);
        limit(&mut schemas);
        let fields = &schemas["CreateVolume"]["properties"];
        assert_eq!(
            (&fields["size"]["multipleOf"], &fields["size"]["maximum"]),
            (&json!(4096), &json!(MAX_VOLUME_SIZE))
        );
        assert_eq!(fields["copies"]["maximum"], MAX_COPIES);
    }
}
