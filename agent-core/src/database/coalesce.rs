//! Joins the messages that carry rows: PostgreSQL sends one CopyData message for each row, and taking ten million messages
//! through a client costs more than everything that is then done with them.
//!
//! "Frontends are not supposed to make any assumption about how CopyData messages are divided" (PostgreSQL manual, "COPY
//! Operations" in "Message Flow"): so here, between the connection and tokio-postgres, consecutive CopyData messages become one.
//! Everything else passes as it came. Each byte of a row is copied once more, from the buffer that is read into; a message that is
//! not there whole passes in pieces, so that a row of any length needs no more than this buffer.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_util::either::Either;

/// Of one connection.
const BUFFER_BYTES: usize = 64 << 10;
/// A row up to this length is passed on when it is there whole; a longer one as it comes.
const WHOLE_BYTES: usize = 8 << 10;
/// A tag, and a length that counts itself but not the tag.
const HEADER_BYTES: usize = 5;
const COPY_DATA: u8 = b'd';

/// A connection whose CopyData messages are joined. It must be given the first byte that follows the negotiation of TLS.
pub struct Coalesced<S> {
    connection: S,
    buffer: Box<[u8]>,
    /// What was read and not passed on is `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes of the current message that are to pass as they are, in the buffer or still to come.
    passing: usize,
    /// Bytes behind them that are nothing: where rows were before they were joined.
    gap: usize,
}

impl<S> Coalesced<S> {
    pub fn new(connection: S) -> Self {
        Self {
            connection,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            passing: 0,
            gap: 0,
        }
    }

    /// Passes on what the buffer holds, as far as it goes and fits.
    fn pass_on(&mut self, out: &mut ReadBuf<'_>) {
        while out.remaining() > 0 && self.start < self.end {
            if self.passing == 0 {
                let there = &mut self.buffer[self.start..self.end];
                let Some(message) = Message::at_start_of(there) else {
                    return;
                };
                (self.passing, self.gap) = match (message.is_row, message.bytes <= there.len()) {
                    (true, true) => join(there),
                    (true, false) if message.bytes <= WHOLE_BYTES => return,
                    _ => (message.bytes, 0),
                };
            }
            let some = self.passing.min(self.end - self.start).min(out.remaining());
            out.put_slice(&self.buffer[self.start..self.start + some]);
            self.start += some;
            self.passing -= some;
            if self.passing == 0 {
                self.start += std::mem::take(&mut self.gap);
            }
        }
    }
}

struct Message {
    is_row: bool,
    /// With its header.
    bytes: usize,
}

impl Message {
    /// None when its header is not there whole. A length that no message can have is for the client to complain of: the header
    /// passes.
    fn at_start_of(data: &[u8]) -> Option<Self> {
        let (&tag, rest) = data.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk()?);
        Some(Self {
            is_row: tag == COPY_DATA && length as usize >= HEADER_BYTES - 1,
            bytes: (length as usize + 1).max(HEADER_BYTES),
        })
    }
}

/// Makes one CopyData message of all those, at least one, that `data` begins with: returns its length, and how much shorter it is
/// than they were.
fn join(data: &mut [u8]) -> (usize, usize) {
    let (mut joined, mut taken) = (HEADER_BYTES, 0);
    while let Some(message) = Message::at_start_of(&data[taken..]) {
        if !message.is_row || taken + message.bytes > data.len() {
            break;
        }
        let row = taken + HEADER_BYTES..taken + message.bytes;
        taken = row.end;
        let bytes = row.len();
        data.copy_within(row, joined);
        joined += bytes;
    }
    // The tag is not counted; the buffer's size bounds it.
    let length = (joined - 1) as u32;
    data[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    (joined, taken - joined)
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = out.filled().len();
        loop {
            this.pass_on(out);
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // At most the beginning of a header, or of a row, is left.
            this.buffer.copy_within(this.start..this.end, 0);
            this.end -= this.start;
            this.start = 0;
            let mut free = ReadBuf::new(&mut this.buffer[this.end..]);
            ready!(Pin::new(&mut this.connection).poll_read(context, &mut free))?;
            match free.filled().len() {
                0 if this.end == 0 => return Poll::Ready(Ok(())),
                // The connection ended within a header: the client sees what there was, and then the end.
                0 => this.passing = this.end,
                read => this.end += read,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

impl<S, T> TlsStream for Coalesced<Either<S, T>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: TlsStream + Unpin,
{
    fn channel_binding(&self) -> ChannelBinding {
        match &self.connection {
            Either::Left(_) => ChannelBinding::none(),
            Either::Right(tls) => tls.channel_binding(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// The messages, with CopyData that follows CopyData joined.
    fn read(mut data: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut messages: Vec<(u8, Vec<u8>)> = Vec::new();
        while let Some(message) = Message::at_start_of(data) {
            let body = &data[HEADER_BYTES..message.bytes];
            match messages.last_mut() {
                Some((COPY_DATA, rows)) if message.is_row => rows.extend(body),
                _ => messages.push((data[0], body.to_vec())),
            }
            data = &data[message.bytes..];
        }
        assert!(data.is_empty());
        messages
    }

    /// Hands out what it has in pieces of these lengths, over and over.
    struct Pieces {
        data: Vec<u8>,
        lengths: Vec<usize>,
        piece: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let length = self.lengths[self.piece % self.lengths.len()];
            self.piece += 1;
            let some = length.min(self.data.len()).min(out.remaining());
            out.put_slice(&self.data.drain(..some).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    /// What comes out, read with buffers of this size.
    fn passed(data: &[u8], lengths: &[usize], room: usize) -> Vec<u8> {
        let pieces = Pieces {
            data: data.to_vec(),
            lengths: lengths.to_vec(),
            piece: 0,
        };
        let mut stream = Coalesced::new(pieces);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut out = Vec::new();
            let mut buffer = vec![0; room];
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => return out,
                    read => out.extend(&buffer[..read]),
                }
            }
        })
    }

    proptest! {
        #[test]
        fn nothing_but_the_cut_of_rows_changes(
            messages in prop::collection::vec((prop::sample::select(b"ddddddZCN".to_vec()), 0..300usize), 0..200),
            lengths in prop::collection::vec(1..5000usize, 1..5),
            room in 1..10_000usize,
        ) {
            let data: Vec<u8> = messages
                .iter()
                .enumerate()
                .flat_map(|(n, (tag, length))| message(*tag, &vec![n as u8; *length]))
                .collect();
            prop_assert_eq!(read(&passed(&data, &lengths, room)), read(&data));
        }
    }

    #[test]
    fn rows_that_are_there_become_one_message() {
        let rows: Vec<u8> = (0..1000)
            .flat_map(|_| message(COPY_DATA, &[7; 115]))
            .collect();
        let passed = passed(&rows, &[1 << 20], 8 << 10);
        let mut messages = 0;
        let mut rest = passed.as_slice();
        while let Some(message) = Message::at_start_of(rest) {
            messages += 1;
            rest = &rest[message.bytes..];
        }
        assert!(messages <= 20, "{messages} messages");
    }

    #[test]
    fn a_row_longer_than_the_buffer_passes_as_it_is() {
        let long = message(COPY_DATA, &vec![3; 5 * BUFFER_BYTES]);
        assert_eq!(passed(&long, &[BUFFER_BYTES], 8 << 10), long);
    }

    #[test]
    fn what_is_no_message_is_left_to_the_client() {
        for odd in [&b"d\0\0\0\0rest"[..], b"d\0", b"\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(passed(odd, &[3], 100), odd);
        }
    }
}
