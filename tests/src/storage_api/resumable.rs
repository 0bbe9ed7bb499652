//! Resumable uploads, TUS 1.0: created by POST, continued by PATCH, asked for by HEAD. What an upload is, is in its id; how far it is, is how long
//! its file is.
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json as value};

use super::answer::{Body, empty, error, failed, json};
use super::objects::{header, receive, refusal};
use super::store::{Appender, Contents};
use super::{Api, Cut, Sparse};

/// What the real API wants of all pieces but the last.
const PIECE: u64 = 6 << 20;

pub async fn answer(
    api: &Api,
    request: Request<Incoming>,
    id: &str,
    cut: Option<u64>,
) -> Result<Response<Body>, Cut> {
    if header(&request, "tus-resumable") != "1.0.0" {
        return Ok(empty(412));
    }
    let answered = match *request.method() {
        Method::POST => create(api, &request).await.map(Ok),
        Method::HEAD => head(api, id).map(Ok),
        Method::PATCH => patch(api, request, id, cut).await,
        _ => Ok(Ok(error(404, "not_found", "no such route"))),
    };
    answered.unwrap_or_else(|reason| Ok(failed(&reason)))
}

/// `bucketName YQ==,objectName Yg==` as an object.
fn metadata(text: &str) -> anyhow::Result<Value> {
    let mut all = value!({});
    for pair in text.split(',') {
        let (name, encoded) = pair.trim().split_once(' ').unwrap_or((pair, ""));
        all[name] = String::from_utf8(STANDARD.decode(encoded)?)?.into();
    }
    Ok(all)
}

async fn create(api: &Api, request: &Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let mut upload = metadata(&header(request, "upload-metadata"))?;
    let length: u64 = header(request, "upload-length").parse()?;
    let text = |name: &str| upload[name].as_str().unwrap_or_default().to_owned();
    let refused = refusal(api, &text("bucketName"), length, &text("contentType")).await?;
    if let Some((status, _, said)) = refused {
        // Not as the other routes do it: TUS has the status that is meant.
        return Ok(json(status, said.into()));
    }
    upload["length"] = length.into();
    upload["version"] = uuid::Uuid::now_v7().to_string().into();
    let id = URL_SAFE_NO_PAD.encode(upload.to_string());
    std::fs::File::create(api.store.partial(&id))?;
    let mut answer = empty(201);
    // The host that it takes itself for, behind its gateway.
    let location = format!("https://storage.internal/upload/resumable/{id}");
    answer.headers_mut().insert("location", location.parse()?);
    Ok(answer)
}

fn head(api: &Api, id: &str) -> anyhow::Result<Response<Body>> {
    let Ok(part) = std::fs::metadata(api.store.partial(id)) else {
        return Ok(empty(404));
    };
    let mut answer = empty(200);
    answer
        .headers_mut()
        .insert("upload-offset", part.len().into());
    Ok(answer)
}

async fn patch(
    api: &Api,
    request: Request<Incoming>,
    id: &str,
    cut: Option<u64>,
) -> anyhow::Result<Result<Response<Body>, Cut>> {
    let part = api.store.partial(id);
    let Ok(stored) = std::fs::metadata(&part) else {
        return Ok(Ok(empty(404)));
    };
    let upload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(id)?)?;
    let length = upload["length"].as_u64().unwrap_or(0);
    let offset: u64 = header(&request, "upload-offset").parse()?;
    if offset != stored.len() {
        return Ok(Ok(empty(409)));
    }
    let bytes: u64 = header(&request, "content-length").parse()?;
    let to_piece = PIECE - offset % PIECE;
    if bytes != to_piece && offset + bytes != length {
        return Ok(Ok(error(400, "Invalid", "pieces have 6 MiB")));
    }
    let mut appender = Appender::open(&part)?;
    if receive(request.into_body(), &mut appender, cut)
        .await?
        .is_err()
    {
        return Ok(Err(Cut));
    }
    let offset = appender.at();
    if offset == length {
        complete(api, &upload, &part).await?;
    }
    let mut answer = empty(204);
    answer.headers_mut().insert("upload-offset", offset.into());
    Ok(Ok(answer))
}

async fn complete(api: &Api, upload: &Value, part: &std::path::Path) -> anyhow::Result<()> {
    let text = |name: &str| upload[name].as_str();
    let seconds = text("cacheControl");
    let contents = Contents {
        sparse: Sparse { bytes: 0, seed: 0 },
        content_type: text("contentType").unwrap_or_default().to_owned(),
        cache_control: seconds.map_or_else(|| "no-cache".into(), |s| format!("max-age={s}")),
    };
    let (bucket, name) = (text("bucketName"), text("objectName"));
    let (bucket, name) = (bucket.unwrap_or_default(), name.unwrap_or_default());
    let without_rows = api.settings.without_rows;
    let completed = api
        .store
        .complete(bucket, name, part, &contents, without_rows);
    completed.await
}
