//! Buckets, downloads, uploads in one request, deletes.
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json as value};
use tokio_postgres::error::SqlState;

use super::answer::{Body, empty, error, failed, file, json};
use super::store::{Appender, Contents};
use super::{Api, Cut, Sparse};

pub async fn buckets(api: &Api) -> Response<Body> {
    let rows = api.store.rows();
    match rows
        .query(
            "SELECT id, public, to_jsonb(created_at) FROM storage.buckets",
            &[],
        )
        .await
    {
        Ok(rows) => {
            let all: Vec<Value> = rows
                .iter()
                .map(|row| {
                    value!({
                        "id": row.get::<_, &str>(0), "public": row.get::<_, Option<bool>>(1),
                        "created_at": row.get::<_, Option<Value>>(2),
                    })
                })
                .collect();
            json(200, Value::Array(all).to_string())
        }
        // Before the migration has made it.
        Err(reason) if reason.code() == Some(&SqlState::UNDEFINED_TABLE) => json(200, "[]".into()),
        Err(reason) => failed(&reason.into()),
    }
}

pub async fn download(
    api: &Api,
    request: &Request<Incoming>,
    path: &str,
    cut: Option<u64>,
) -> Response<Body> {
    match try_download(api, request, path, cut).await {
        Ok(answer) => answer,
        Err(reason) => failed(&reason),
    }
}

async fn try_download(
    api: &Api,
    request: &Request<Incoming>,
    path: &str,
    cut: Option<u64>,
) -> anyhow::Result<Response<Body>> {
    let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
    let Some(found) = api.store.find(bucket, name).await? else {
        return Ok(error(404, "not_found", "Object not found"));
    };
    let stored = api.store.path(bucket, name, &found.version);
    let Ok(size) = std::fs::metadata(&stored).map(|file| file.len()) else {
        return Ok(error(404, "Not found", "The resource was not found"));
    };
    let range = request.headers().get("range").and_then(|r| r.to_str().ok());
    let begin = range
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .unwrap_or(0u64);
    if begin > size {
        return Ok(error(
            416,
            "invalid_range",
            "Requested Range Not Satisfiable",
        ));
    }
    let mut answer = empty(if range.is_some() { 206 } else { 200 });
    let headers = answer.headers_mut();
    headers.insert("content-length", (size - begin).into());
    if let Some(etag) = found.metadata["eTag"].as_str() {
        headers.insert("etag", etag.parse()?);
    }
    if let Some(of) = found.metadata["mimetype"].as_str() {
        headers.insert("content-type", of.parse()?);
    }
    if range.is_some() {
        let of = format!("bytes {begin}-{}/{size}", size.saturating_sub(1));
        headers.insert("content-range", of.parse()?);
    }
    *answer.body_mut() = file(&stored, begin, size - begin, cut).await?;
    Ok(answer)
}

/// Why the API does not take a file.
pub async fn refusal(
    api: &Api,
    bucket: &str,
    bytes: u64,
    content_type: &str,
) -> anyhow::Result<Option<(u16, &'static str, &'static str)>> {
    let ask = "SELECT file_size_limit, allowed_mime_types FROM storage.buckets WHERE id = $1";
    let Some(row) = api.store.rows().query_opt(ask, &[&bucket]).await? else {
        return Ok(Some((404, "Bucket not found", "Bucket not found")));
    };
    let limit: Option<i64> = row.get(0);
    let types: Option<Vec<String>> = row.get(1);
    let limit = limit.map_or(api.settings.file_size_limit, |own| {
        api.settings.file_size_limit.min(own as u64)
    });
    if bytes > limit {
        let said = "The object exceeded the maximum allowed size";
        return Ok(Some((413, "Payload too large", said)));
    }
    // An empty list allows all.
    let types = types.filter(|types| !types.is_empty());
    if types.is_some_and(|types| !types.iter().any(|of| of == content_type)) {
        return Ok(Some((
            415,
            "invalid_mime_type",
            "mime type is not supported",
        )));
    }
    Ok(None)
}

pub fn header(request: &Request<Incoming>, name: &str) -> String {
    let value = request.headers().get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// What comes, until the connection is cut on purpose.
pub async fn receive(
    body: Incoming,
    into: &mut Appender,
    cut: Option<u64>,
) -> anyhow::Result<Result<(), Cut>> {
    let mut body = body;
    let mut came = 0;
    if cut == Some(0) {
        return Ok(Err(Cut));
    }
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = cut.map_or(data.len(), |cut| ((cut - came) as usize).min(data.len()));
        into.append(&data[..room])?;
        came += room as u64;
        if cut == Some(came) {
            return Ok(Err(Cut));
        }
    }
    Ok(Ok(()))
}

pub async fn upload(
    api: &Api,
    request: Request<Incoming>,
    path: &str,
    cut: Option<u64>,
) -> Result<Response<Body>, Cut> {
    match try_upload(api, request, path, cut).await {
        Ok(answer) => answer,
        Err(reason) => Ok(failed(&reason)),
    }
}

async fn try_upload(
    api: &Api,
    request: Request<Incoming>,
    path: &str,
    cut: Option<u64>,
) -> anyhow::Result<Result<Response<Body>, Cut>> {
    let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
    if header(&request, "x-upsert") != "true" && api.store.find(bucket, name).await?.is_some() {
        return Ok(Ok(error(409, "Duplicate", "The resource already exists")));
    }
    let contents = Contents {
        sparse: Sparse { bytes: 0, seed: 0 },
        content_type: header(&request, "content-type"),
        cache_control: header(&request, "cache-control"),
    };
    let bytes = header(&request, "content-length").parse()?;
    if let Some((status, code, said)) = refusal(api, bucket, bytes, &contents.content_type).await? {
        return Ok(Ok(error(status, code, said)));
    }
    let part = api.store.partial(&uuid::Uuid::now_v7().to_string());
    let mut appender = Appender::open(&part)?;
    if receive(request.into_body(), &mut appender, cut)
        .await?
        .is_err()
    {
        std::fs::remove_file(&part)?;
        return Ok(Err(Cut));
    }
    let without_rows = api.settings.without_rows;
    api.store
        .complete(bucket, name, &part, &contents, without_rows)
        .await?;
    let key = value!({ "Key": format!("{bucket}/{name}") });
    Ok(Ok(json(200, key.to_string())))
}

pub async fn delete(api: &Api, request: Request<Incoming>, bucket: &str) -> Response<Body> {
    match try_delete(api, request, bucket).await {
        Ok(()) => json(200, "[]".into()),
        Err(reason) => failed(&reason),
    }
}

async fn try_delete(api: &Api, request: Request<Incoming>, bucket: &str) -> anyhow::Result<()> {
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body)?;
    let names: Vec<String> = serde_json::from_value(body["prefixes"].clone())?;
    api.store.remove(bucket, &names).await
}
