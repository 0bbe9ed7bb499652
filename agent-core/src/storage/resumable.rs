//! A resumable upload (TUS 1.0): created, then sent piece by piece; after a cut the API is asked how far it has come.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, RequestBuilder, Response, Url};

use super::patience::Patience;
use super::{Contents, Error, Storage};

const OFFSET: &str = "upload-offset";

pub struct Resumable<'a> {
    storage: &'a Storage,
    url: Url,
    /// So many bytes the API has.
    offset: u64,
}

impl<'a> Resumable<'a> {
    pub async fn create(storage: &'a Storage, contents: &Contents) -> Result<Self, Error> {
        let endpoint = storage.url(["upload", "resumable"]);
        let mut patience = Patience::default();
        loop {
            let request = tus(storage.request(Method::POST, endpoint.clone()))
                .header("upload-length", contents.bytes)
                .header("upload-metadata", metadata(contents))
                .header("x-upsert", "true")
                .header("content-length", 0);
            match storage.ask(request).await {
                Ok(answer) => {
                    return Ok(Self {
                        storage,
                        url: storage.url(["upload", "resumable", id(&answer)?.as_str()]),
                        offset: 0,
                    });
                }
                Err(error) => patience.bear(error).await?,
            }
        }
    }

    /// The next piece. Where the connection breaks, the rest of it is sent from where the API stands.
    pub async fn send(&mut self, piece: Bytes) -> Result<(), Error> {
        let (begin, end) = (self.offset, self.offset + piece.len() as u64);
        let mut patience = Patience::default();
        while self.offset < end {
            let rest = piece.slice((self.offset - begin) as usize..);
            let sent = match self.patch(rest).await {
                Ok(offset) => Ok(offset),
                Err(error) => {
                    patience.bear(error).await?;
                    self.head().await
                }
            };
            match sent {
                Ok(offset) if (begin..=end).contains(&offset) => {
                    if offset > self.offset {
                        patience.renew();
                    }
                    self.offset = offset;
                }
                Ok(offset) => {
                    return Err(Error::Lost(format!(
                        "the Storage API stands at byte {offset}, not between {begin} and {end}"
                    )));
                }
                Err(Error::NotFound(said) | Error::Refused(said)) => return Err(Error::Lost(said)),
                Err(error) => patience.bear(error).await?,
            }
        }
        Ok(())
    }

    async fn patch(&self, data: Bytes) -> Result<u64, Error> {
        let request = tus(self.storage.request(Method::PATCH, self.url.clone()))
            .header(CONTENT_TYPE, "application/offset+octet-stream")
            .header(OFFSET, self.offset)
            .body(data);
        offset(&self.storage.ask(request).await?)
    }

    async fn head(&self) -> Result<u64, Error> {
        let request = tus(self.storage.request(Method::HEAD, self.url.clone()));
        offset(&self.storage.ask(request).await?)
    }
}

fn tus(request: RequestBuilder) -> RequestBuilder {
    request.header("tus-resumable", "1.0.0")
}

fn offset(answer: &Response) -> Result<u64, Error> {
    let value = answer.headers().get(OFFSET).and_then(|v| v.to_str().ok());
    value
        .and_then(|offset| offset.parse().ok())
        .ok_or_else(|| Error::Refused("the Storage API does not say how far an upload is".into()))
}

/// What a location ends with. The rest of it is not followed: behind a gateway it may name a host that is none for us, and the key goes to
/// nobody else.
fn id(answer: &Response) -> Result<String, Error> {
    let location = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    let id = location.and_then(|location| location.trim_end_matches('/').rsplit('/').next());
    id.filter(|id| !id.is_empty())
        .map(ToOwned::to_owned)
        .ok_or_else(|| Error::Refused("the Storage API does not say where to upload to".into()))
}

fn metadata(contents: &Contents) -> String {
    let mut pairs = vec![
        ("bucketName", contents.object.bucket.as_str()),
        ("objectName", contents.object.name.as_str()),
        ("contentType", contents.content_type.as_str()),
    ];
    // Seconds only: what else there may be is put into the row afterwards, with the rest of it.
    let seconds = contents.cache_control.strip_prefix("max-age=");
    if let Some(seconds) = seconds.filter(|text| text.bytes().all(|b| b.is_ascii_digit())) {
        pairs.push(("cacheControl", seconds));
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name} {}", STANDARD.encode(value)))
        .collect();
    pairs.join(",")
}
