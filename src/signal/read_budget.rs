//! What a socket may send before it makes a whole frame: bounded for the socket, and for all sockets together.
//!
//! What has come is read in one call, however little the WebSocket's buffer takes at a time: what is left over waits
//! here until it is taken. So the WebSocket's buffer can be small, and an idle socket keeps next to nothing.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::budget::ClientBudget;

/// Bytes of an unfinished frame that every socket may send without taking from the common budget: real frames are
/// smaller, so that those who spend the budget shut nobody else out.
const FREE: usize = 8 * 1024;
/// Bytes that are read at a time beyond those: what is over the budget by one read has still been read.
const PIECE: usize = 4 * 1024;
/// Bytes beside the payload: headers of fragments, and the begin of the next frame.
const OVERHEAD: usize = 16 * 1024;

/// The header of a control frame as a client sends it.
const CONTROL_HEADER: usize = 6;

thread_local! {
    /// Where a thread reads to before it knows how much has come.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; FREE].into());
}

/// A stream under a WebSocket that counts what was read since the last whole message.
///
/// The buffer that a message was gathered in stays with its socket, so what was reserved for it stays reserved too.
#[derive(Debug)]
pub struct ReadBudget<S> {
    stream: S,
    /// Read from the stream, but not taken yet.
    left: Bytes,
    held: usize,
    /// What the largest message so far took of the common budget.
    reserved: usize,
    limit: usize,
    /// Reads no further than what costs nothing.
    paused: bool,
    budget: ClientBudget,
}

impl<S> ReadBudget<S> {
    /// Lets frames of `max_frame` bytes through.
    pub fn new(stream: S, max_frame: usize, budget: ClientBudget) -> Self {
        Self {
            stream,
            left: Bytes::new(),
            held: 0,
            reserved: 0,
            limit: max_frame + OVERHEAD,
            paused: false,
            budget,
        }
    }

    /// A whole message was made of what was read.
    pub fn complete(&mut self) {
        self.held = self.left.len();
    }

    /// A control frame with `payload` bytes was among what was read, perhaps between two fragments of a message.
    pub fn control(&mut self, payload: usize) {
        self.held = self.held.saturating_sub(CONTROL_HEADER + payload);
    }

    /// Reads no further than the bytes that every socket may send without taking from the budget, or reads on. So control
    /// frames and the end of the stream are still noticed, as long as not much was sent before them. Messages that are
    /// made meanwhile are not to be told to [`ReadBudget::complete`] before it reads on.
    ///
    /// A read that pends while paused is not woken: the stream is to be polled again when it reads on.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Returns the stream to look at.
    pub fn inner(&self) -> &S {
        &self.stream
    }

    /// The stream itself, for what is not counted any more.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.held += bytes;
        if self.held > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let beyond = self.held.saturating_sub(FREE).saturating_sub(self.reserved);
        if beyond > 0 && !self.budget.take(beyond, self.reserved) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.reserved += beyond;
        Ok(())
    }
}

impl<S> Drop for ReadBudget<S> {
    fn drop(&mut self) {
        self.budget.give_back(self.reserved);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadBudget<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left.is_empty() {
            if this.paused && this.held >= FREE {
                return Poll::Pending;
            }
            let room = FREE.checked_sub(this.held).filter(|room| *room > 0).unwrap_or(PIECE);
            return SCRATCH.with_borrow_mut(|scratch| {
                let mut read = ReadBuf::new(&mut scratch[..room]);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
                let (taken, left) = read.filled().split_at(read.filled().len().min(buf.remaining()));
                buf.put_slice(taken);
                this.left = Bytes::copy_from_slice(left);
                Poll::Ready(this.count(read.filled().len()))
            });
        }
        let taken = this.left.len().min(buf.remaining());
        buf.put_slice(&this.left[..taken]);
        this.left.advance(taken);
        if this.left.is_empty() {
            this.left = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ReadBudget<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::net::budget::Budget;

    async fn read(read_budget: &mut ReadBudget<&[u8]>, bytes: usize) -> io::Result<usize> {
        read_budget.read_exact(&mut vec![0; bytes]).await
    }

    #[tokio::test]
    async fn an_unfinished_frame_has_a_limit_and_shares_a_budget() {
        let budget = Budget::new(13_000).of(None);
        let bytes = [0; 200_000];
        let mut one = ReadBudget::new(&bytes[..], 100_000, budget.clone());
        let mut two = ReadBudget::new(&bytes[..], 100_000, budget.clone());
        read(&mut one, FREE + 6_000).await.unwrap();
        read(&mut two, FREE).await.unwrap();
        assert_eq!(read(&mut two, 6_000).await.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        drop(two);
        one.complete();
        assert!(!budget.take(4_809, 0), "the buffer of a whole message is still there");
        read(&mut one, FREE + 6_000).await.unwrap();
        drop(one);
        let mut large = ReadBudget::new(&bytes[..], 1_000, Budget::new(100_000).of(None));
        assert_eq!(read(&mut large, OVERHEAD + 1_001).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(budget.take(13_000, 0), "all was given back");
    }

    #[tokio::test]
    async fn control_frames_between_fragments_hide_nothing() {
        let bytes = [0; 100_000];
        let mut read_budget = ReadBudget::new(&bytes[..], 100_000, Budget::new(15_000).of(None));
        for _ in 0..3 {
            read(&mut read_budget, 5_000 + CONTROL_HEADER + 125).await.unwrap();
            read_budget.control(125);
        }
        assert_eq!(read_budget.held - read_budget.left.len(), 15_000);
        assert_eq!(read(&mut read_budget, 5_000).await.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    }

    /// However many sockets a client fills up, and in whatever order.
    #[tokio::test]
    async fn the_sockets_of_one_client_leave_as_much_to_others() {
        let budget = Budget::new(1 << 20);
        let bytes = vec![0; 1 << 20];
        let of = |address: &str| budget.of(Some(address.parse().unwrap()));
        let mut flood = Vec::new();
        for _ in 0..50 {
            let mut socket = ReadBudget::new(&bytes[..], 1 << 20, of("192.0.2.1"));
            read(&mut socket, 1 << 20).await.unwrap_err();
            flood.push(socket);
        }
        let mut other = ReadBudget::new(&bytes[..], 1 << 20, of("192.0.2.2"));
        read(&mut other, 100_000).await.unwrap();
    }
}
