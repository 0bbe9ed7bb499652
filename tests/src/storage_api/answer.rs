//! Answers: JSON, errors as the real API writes them, files.
use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

pub type Body = BoxBody<Bytes, io::Error>;

pub fn json(status: u16, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never: super::Never| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let json = hyper::header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert("content-type", json);
    answer
}

pub fn empty(status: u16) -> Response<Body> {
    let mut answer = json(status, String::new());
    answer.headers_mut().remove("content-type");
    answer
}

/// Status 400, but for 500; what is meant is inside.
pub fn error(status: u16, error: &str, message: &str) -> Response<Body> {
    let body =
        serde_json::json!({ "statusCode": status.to_string(), "error": error, "message": message });
    json(if status == 500 { 500 } else { 400 }, body.to_string())
}

pub fn failed(reason: &anyhow::Error) -> Response<Body> {
    error(500, "Internal", &format!("{reason:#}"))
}

const BLOCK: usize = 256 << 10;

/// Bytes of a file, `length` from `begin` on; the connection is cut after `cut` of them.
pub async fn file(path: &Path, begin: u64, length: u64, cut: Option<u64>) -> io::Result<Body> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(begin)).await?;
    let end = cut.unwrap_or(length).min(length);
    let blocks = stream::unfold(
        (file, 0u64, false),
        move |(mut file, sent, over)| async move {
            if over {
                return None;
            }
            if sent == end {
                let cut = end < length || cut == Some(0);
                let broken = || Err(io::Error::other("the connection is cut"));
                return cut.then(|| (broken(), (file, sent, true)));
            }
            let mut block = vec![0; BLOCK.min((end - sent) as usize)];
            match file.read_exact(&mut block).await {
                Ok(read) => {
                    let sent = sent + read as u64;
                    Some((Ok(Frame::data(Bytes::from(block))), (file, sent, false)))
                }
                Err(error) => Some((Err(error), (file, sent, true))),
            }
        },
    );
    Ok(BodyExt::boxed(StreamBody::new(blocks.boxed_sync())))
}

trait BoxedSync: futures_util::Stream + Sized {
    fn boxed_sync(
        self,
    ) -> std::pin::Pin<Box<dyn futures_util::Stream<Item = Self::Item> + Send + Sync>>
    where
        Self: Send + Sync + 'static,
    {
        Box::pin(self)
    }
}

impl<S: futures_util::Stream> BoxedSync for S {}
