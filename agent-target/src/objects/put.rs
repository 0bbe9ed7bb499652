//! One file that comes: chunks are checked and go on to the API.
use std::time::Instant;

use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::storage::{Contents, Error, Storage, Upload};
use pgconvoy_proto::frame::Opener;
use pgconvoy_proto::model::object::{FileDigest, FileDigester, Object, ObjectState};
use pgconvoy_proto::model::{Finding, Severity, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::object_frame::Frame;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::entry::Done;
use super::{Home, failed, row};
use crate::sessions::{Purpose, Sessions};

pub async fn put(
    sessions: &Sessions,
    home: &Home,
    mut frames: impl Stream<Item = Result<wire::ObjectFrame, Status>> + Unpin,
) -> Result<wire::ObjectReceipt, Status> {
    let begun = Instant::now();
    let first = frames.next().await.transpose()?.and_then(|f| f.frame);
    let Some(Frame::Header(header)) = first else {
        return Err(Status::invalid_argument("a file begins with its header"));
    };
    let session = sessions.take(&header.migration, Purpose::Load).await?;
    let storage = home.storage(&session).await?;
    let object = Object::try_from(required(header.object.clone(), "object")?)?;
    let before = row::version(&session, &object).await?;
    let came = match header.missing {
        true => Came::nothing(ObjectState::Missing),
        false => receive(storage, &object, &header, frames).await?,
    };
    let untouched = came.file.is_some() && row::version(&session, &object).await? == before;
    settle(&session, &object, &header, before.as_deref(), &came, begun).await?;
    sessions.give_back(&header.migration, Purpose::Load, session);
    Ok(wire::ObjectReceipt {
        file: came.file.map(Into::into),
        refusal: came.refusal.map(Into::into),
        untouched,
    })
}

/// What came of it.
struct Came {
    state: ObjectState,
    file: Option<FileDigest>,
    refusal: Option<Finding>,
    wire_bytes: u64,
}

impl Came {
    fn nothing(state: ObjectState) -> Self {
        Self {
            state,
            file: None,
            refusal: None,
            wire_bytes: 0,
        }
    }
}

async fn receive(
    storage: &Storage,
    object: &Object,
    header: &wire::ObjectHeader,
    frames: impl Stream<Item = Result<wire::ObjectFrame, Status>> + Unpin,
) -> Result<Came, Status> {
    let contents = Contents {
        object: object.clone(),
        bytes: header.bytes,
        content_type: header.content_type.clone(),
        cache_control: header.cache_control.clone(),
    };
    match upload(storage, &contents, frames).await {
        Ok((file, wire_bytes)) => Ok(Came {
            state: ObjectState::Copied,
            file: Some(file),
            refusal: None,
            wire_bytes,
        }),
        Err(Stop::Status(status)) => Err(status),
        Err(Stop::Storage(error)) => match refusal(&contents, &error) {
            Some(refusal) => Ok(Came {
                refusal: Some(refusal),
                ..Came::nothing(ObjectState::Refused)
            }),
            None => Err(status::storage(&format!("uploading {object}"), error)),
        },
    }
}

enum Stop {
    Storage(Error),
    Status(Status),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The file as it was sent, and how many bytes that took.
async fn upload(
    storage: &Storage,
    contents: &Contents,
    mut frames: impl Stream<Item = Result<wire::ObjectFrame, Status>> + Unpin,
) -> Result<(FileDigest, u64), Stop> {
    let broken = |what: &str| Status::data_loss(format!("{}: {what}", contents.object));
    let mut opener = Opener::new()
        .map_err(|error| Status::internal(format!("decompression cannot begin: {error}")))?;
    let mut upload = Upload::begin(storage, contents).await?;
    let mut digester = FileDigester::default();
    let (mut chunks, mut wire_bytes) = (0, 0);
    let trailer = loop {
        let frame = frames.next().await.transpose()?;
        let frame =
            frame.ok_or_else(|| Status::unavailable("the file ended before its trailer"))?;
        match required(frame.frame, "frame").map_err(Status::from)? {
            Frame::Header(_) => return Err(broken("a second header").into()),
            Frame::Chunk(chunk) => {
                wire_bytes += chunk.payload.len() as u64;
                let data = opener
                    .open(chunk)
                    .map_err(|error| broken(&error.to_string()))?;
                chunks += 1;
                digester.feed(&data);
                upload.push(&data).await?;
            }
            Frame::Trailer(trailer) => break trailer,
        }
    };
    let file = digester.finish();
    let sent = FileDigest::try_from(required(trailer.file, "file").map_err(Status::from)?);
    if sent.map_err(Status::from)? != file
        || trailer.chunks != chunks
        || file.bytes != contents.bytes
    {
        return Err(broken("what came is not what was sent").into());
    }
    upload.finish().await?;
    Ok((file, wire_bytes))
}

/// What the API does not take, now and in future.
fn refusal(contents: &Contents, error: &Error) -> Option<Finding> {
    let (message, hint) = match error {
        Error::TooLarge(said) => (
            format!(
                "the target's Storage API does not take its {} bytes ({said})",
                contents.bytes
            ),
            "raise FILE_SIZE_LIMIT of the target's storage service, and the bucket's file_size_limit where that is less; then \
             pgconvoy sync --storage-objects",
        ),
        Error::Refused(said) => (
            format!(
                "the target's Storage API does not take it ({said}); its type is {}",
                contents.content_type
            ),
            "does the bucket allow the type (allowed_mime_types), and the service's version the name? Then pgconvoy sync --storage-objects",
        ),
        Error::NotFound(said) => (
            format!("the target's Storage API does not take it ({said})"),
            "is the bucket at the target? Is the target agent's --supabase-url that of the target database? Then pgconvoy sync --storage-objects",
        ),
        _ => return None,
    };
    let object = contents.object.to_string();
    let finding = Finding::new(Severity::Difference, "file-refused", object, message);
    Some(finding.hint(hint))
}

/// Row and entry, in one transaction.
async fn settle(
    session: &Session,
    object: &Object,
    header: &wire::ObjectHeader,
    before: Option<&str>,
    came: &Came,
    begun: Instant,
) -> Result<(), Status> {
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let upload = row::Upload {
        before,
        taken: came.file.is_some(),
    };
    let version = row::restore(session, object, &header.row, &upload).await?;
    let done = Done {
        migration: &header.migration,
        object,
        mark: &header.mark,
        state: came.state,
        file: came.file,
        version,
        wire_bytes: came.wire_bytes,
        seconds: begun.elapsed().as_secs_f64(),
    };
    done.enter(session).await?;
    session.batch_execute("COMMIT").await.map_err(failed)
}
