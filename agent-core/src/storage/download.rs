//! A file as it comes from the API. A connection that breaks is taken up where it broke, as long as the file is still the same.
use bytes::Bytes;
use pgconvoy_proto::model::object::Object;
use reqwest::header::{CONTENT_RANGE, ETAG, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::object::segments;
use super::patience::Patience;
use super::{Error, Storage};

pub struct Download<'a> {
    storage: &'a Storage,
    url: Url,
    /// Of the whole file; none: the API does not say.
    pub bytes: Option<u64>,
    pub etag: Option<String>,
    answer: Response,
    received: u64,
    /// The API began anew although it was asked for the rest: so much is known already.
    known: u64,
    patience: Patience,
}

impl<'a> Download<'a> {
    pub async fn open(storage: &'a Storage, object: &Object) -> Result<Self, Error> {
        let url = storage.url(segments(&["object", "authenticated"], object)?);
        let mut patience = Patience::default();
        let answer = loop {
            match storage.ask(storage.request(Method::GET, url.clone())).await {
                Ok(answer) => break answer,
                Err(error) => patience.bear(error).await?,
            }
        };
        Ok(Self {
            storage,
            url,
            bytes: answer.content_length(),
            etag: etag(&answer),
            answer,
            received: 0,
            known: 0,
            patience,
        })
    }

    /// The next bytes; none after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let error = match self.answer.chunk().await {
                Ok(Some(data)) => {
                    let data = self.fresh(data);
                    if data.is_empty() {
                        continue;
                    }
                    self.received += data.len() as u64;
                    self.patience.renew();
                    return match self.bytes.is_some_and(|bytes| self.received > bytes) {
                        true => Err(Error::Changed),
                        false => Ok(Some(data)),
                    };
                }
                Ok(None) if self.bytes.is_none_or(|bytes| bytes == self.received) => {
                    return Ok(None);
                }
                Ok(None) => Error::passing("the Storage API sent less than it had announced"),
                Err(_) if self.bytes == Some(self.received) => return Ok(None),
                Err(error) => Error::unreachable(&error),
            };
            self.patience.bear(error).await?;
            self.answer = self.rest().await?;
        }
    }

    /// Without what came before the connection broke.
    fn fresh(&mut self, mut data: Bytes) -> Bytes {
        let known = self.known.min(data.len() as u64);
        self.known -= known;
        data.split_off(known as usize)
    }

    async fn rest(&mut self) -> Result<Response, Error> {
        loop {
            let range = format!("bytes={}-", self.received);
            let request = self
                .storage
                .request(Method::GET, self.url.clone())
                .header(RANGE, range);
            match self.storage.ask(request).await {
                Ok(answer) => {
                    let whole = answer.status() != StatusCode::PARTIAL_CONTENT;
                    self.known = if whole { self.received } else { 0 };
                    let total = if whole {
                        answer.content_length()
                    } else {
                        total(&answer)
                    };
                    let same = total == self.bytes && etag(&answer) == self.etag;
                    return if same {
                        Ok(answer)
                    } else {
                        Err(Error::Changed)
                    };
                }
                // Range not satisfiable: it is shorter now. Not found: it was there a moment ago.
                Err(Error::Refused(_) | Error::NotFound(_)) => return Err(Error::Changed),
                Err(error) => self.patience.bear(error).await?,
            }
        }
    }
}

fn etag(answer: &Response) -> Option<String> {
    let value = answer.headers().get(ETAG)?.to_str().ok()?;
    Some(value.to_owned())
}

/// 42 of `bytes 7-41/42`.
fn total(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit_once('/')?.1.parse().ok()
}
