//! A file on its way to the API: up to 6 MiB as one request, above that as a resumable upload in pieces of 6 MiB, which the API wants.
//!
//! What is in memory of a file is the piece that is sent and the one that is gathered. The last piece is sent by [`Upload::finish`] alone:
//! a file whose bytes are not proven right by then is never complete.
use bytes::{Bytes, BytesMut};
use pgconvoy_proto::model::object::Object;
use reqwest::Method;
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::object::segments;
use super::patience::Patience;
use super::resumable::Resumable;
use super::{Error, Storage};

/// As the documentation asks for: not more, and only the last piece may be less.
pub const PIECE_BYTES: usize = 6 << 20;

/// What the API is told of a file.
#[derive(Clone, Debug)]
pub struct Contents {
    pub object: Object,
    pub bytes: u64,
    pub content_type: String,
    /// `max-age=3600`; empty: the API's own.
    pub cache_control: String,
}

pub struct Upload<'a> {
    storage: &'a Storage,
    contents: &'a Contents,
    gathered: BytesMut,
    /// None: it goes whole.
    resumable: Option<Resumable<'a>>,
}

impl<'a> Upload<'a> {
    /// Announces the file, where it is large: one that the API does not take is refused before it is sent.
    pub async fn begin(storage: &'a Storage, contents: &'a Contents) -> Result<Self, Error> {
        let resumable = match contents.bytes > PIECE_BYTES as u64 {
            true => Some(Resumable::create(storage, contents).await?),
            false => None,
        };
        Ok(Self {
            storage,
            contents,
            gathered: BytesMut::new(),
            resumable,
        })
    }

    pub async fn push(&mut self, data: &Bytes) -> Result<(), Error> {
        self.gathered.extend_from_slice(data);
        if let Some(resumable) = &mut self.resumable {
            // Not the last one.
            while self.gathered.len() > PIECE_BYTES {
                let piece = self.gathered.split_to(PIECE_BYTES).freeze();
                resumable.send(piece).await?;
            }
        }
        Ok(())
    }

    /// All bytes are here, and right.
    pub async fn finish(mut self) -> Result<(), Error> {
        let last = self.gathered.split().freeze();
        match self.resumable.take() {
            Some(mut resumable) => resumable.send(last).await,
            None => self.whole(last).await,
        }
    }

    async fn whole(&self, body: Bytes) -> Result<(), Error> {
        let contents = self.contents;
        let url = self.storage.url(segments(&["object"], &contents.object)?);
        let mut patience = Patience::default();
        loop {
            let mut request = self
                .storage
                .request(Method::POST, url.clone())
                .header("x-upsert", "true")
                .header(CONTENT_TYPE, &contents.content_type)
                .header("content-length", body.len());
            if !contents.cache_control.is_empty() {
                request = request.header(CACHE_CONTROL, &contents.cache_control);
            }
            match self.storage.ask(request.body(body.clone())).await {
                Ok(_) => return Ok(()),
                Err(error) => patience.bear(error).await?,
            }
        }
    }
}
