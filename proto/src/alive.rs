//! Tells a peer that is gone from a link that is slow.
//!
//! Each end asks for a sign of life when it has heard nothing for [`crate::serve::KEEPALIVE`] (an HTTP/2 PING). On a slow link the answer
//! stands behind everything that is under way, for minutes: what tells is not the answer, but whether anything moves at all.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection on which no byte came or went for so long is given up...
const SILENCE: Duration = Duration::from_secs(60);
/// ...and for so long where more than [`LITTLE`] was sent since the peer was last heard of: it may lie in buffers on the way, unseen from here.
const SILENCE_AFTER_MUCH: Duration = Duration::from_secs(180);
/// Bytes. Signs of life are shorter.
const LITTLE: usize = 16 << 10;

/// A connection that ends with an error ([`io::ErrorKind::TimedOut`]) when its peer is gone.
#[derive(Debug)]
pub struct Alive<S> {
    stream: S,
    /// After little, and after much.
    patience: [Duration; 2],
    /// Bytes since the peer was last heard of.
    sent: usize,
    /// When a byte last came or went.
    moved: Instant,
    silence: Pin<Box<Sleep>>,
}

impl<S> Alive<S> {
    /// Within a runtime whose time is enabled.
    pub fn new(stream: S) -> Self {
        Self::with_patience(stream, [SILENCE, SILENCE_AFTER_MUCH])
    }

    fn with_patience(stream: S, patience: [Duration; 2]) -> Self {
        Self {
            stream,
            patience,
            sent: 0,
            moved: Instant::now(),
            silence: Box::pin(tokio::time::sleep(patience[0])),
        }
    }

    fn count(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent = self.sent.saturating_add(*bytes);
        }
    }

    /// What the stream said, unless it has had nothing to say for too long.
    fn seen<T>(
        &mut self,
        context: &mut Context<'_>,
        said: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.moved = Instant::now();
            return said;
        }
        while self.silence.as_mut().poll(context).is_ready() {
            let patience = self.patience[usize::from(self.sent > LITTLE)];
            let until = self.moved + patience;
            if until <= Instant::now() {
                let text = format!("nothing came or went for {} s", patience.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            self.silence.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Alive<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_read(context, out);
        if said.is_ready() {
            self.sent = 0;
        }
        self.seen(context, said)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Alive<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(context, data);
        self.count(&said);
        self.seen(context, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.count(&said);
        self.seen(context, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);
    const TWICE: [Duration; 2] = [PATIENCE, Duration::from_secs(2)];

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn silence_ends_it_whoever_waits() {
        run(async {
            let (ours, _theirs) = tokio::io::duplex(8);
            let (full, _reader) = tokio::io::duplex(8);
            let begin = Instant::now();
            let (mut reads, mut writes) = (
                Alive::with_patience(ours, TWICE),
                Alive::with_patience(full, TWICE),
            );
            let (read, written) = tokio::join!(reads.read_u8(), writes.write_all(&[0; 9]));
            assert!(begin.elapsed() >= PATIENCE);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn the_answer_to_much_is_waited_for_longer() {
        run(async {
            let (ours, _theirs) = tokio::io::duplex(2 * LITTLE);
            let mut ours = Alive::with_patience(ours, TWICE);
            ours.write_all(&[0; LITTLE + 1]).await.unwrap();
            let begin = Instant::now();
            let error = ours.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begin.elapsed() >= TWICE[1]);
        });
    }

    #[test]
    fn a_byte_now_and_then_is_life() {
        run(async {
            let (ours, mut theirs) = tokio::io::duplex(8);
            let slow = async {
                for byte in 0..4 {
                    tokio::time::sleep(PATIENCE / 3).await;
                    theirs.write_u8(byte).await.unwrap();
                }
            };
            let mut ours = Alive::with_patience(ours, TWICE);
            let read = async {
                for byte in 0..4 {
                    assert_eq!(ours.read_u8().await.unwrap(), byte);
                }
            };
            tokio::join!(slow, read);
        });
    }
}
