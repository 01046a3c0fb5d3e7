//! Memory and time for the heads of HTTP/2 requests.
//!
//! A head of 16 KiB takes a hundred kilobytes once it is decoded, and a client may have one on each of its streams and
//! an unfinished one on each of its connections. Ordinary heads take little and are not counted unless they wait for a turn;
//! all others share a budget, of which no client takes more than it leaves, and where it is spent only they are refused.
//! The time that a head may take from its first byte to its last is that of HTTP/1.1: whatever else goes on over the
//! connection ends with it, as nothing else can come meanwhile.

mod frames;

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use salvo::http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use self::frames::{FIELD, Frames, ORDINARY_DECODED};
use super::budget::{Budget, BudgetPermit, ClientBudget};

/// Bytes for all heads that are not ordinary or wait.
const TOTAL: usize = 32 * 1024 * 1024;

/// The budget of one broker; clones share it.
#[derive(Clone, Debug)]
pub struct HeadBudget(Arc<Budget>);

/// The budget is spent, or the client's share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many large heads of requests are under way; send fewer fields, or try again later")]
pub struct TooManyHeads;

/// Memory for one head, if it is not an ordinary one; dropping it gives it back.
#[derive(Debug, Default)]
pub struct HeadPermit(Option<BudgetPermit>);

impl Default for HeadBudget {
    fn default() -> Self {
        Self(Budget::new(TOTAL))
    }
}

impl HeadBudget {
    /// Counts the head of a request, for as long as the permit lives. `client` tells whose it is.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<HeadPermit, TooManyHeads> {
        if decoded(headers) > ORDINARY_DECODED {
            self.hold(headers, client())
        } else {
            Ok(HeadPermit::default())
        }
    }

    /// Counts the head of a request, be it an ordinary one: it is there for longer than its answer takes.
    pub fn hold(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Result<HeadPermit, TooManyHeads> {
        let mut permit = HeadPermit::default();
        permit.reserve(&self.of(client), decoded(headers))?;
        Ok(permit)
    }

    /// Returns the budget for the unfinished heads of a client.
    pub fn of(&self, client: Option<IpAddr>) -> ClientBudget {
        self.0.of(client)
    }
}

/// Returns how many bytes a head takes.
fn decoded(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum()
}

impl HeadPermit {
    /// Returns whether the head is an ordinary one, which was not counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Lets the permit be one for `bytes` bytes, if it is not one for as many already.
    fn reserve(&mut self, budget: &ClientBudget, bytes: usize) -> Result<(), TooManyHeads> {
        let is_reserved = match &mut self.0 {
            Some(permit) => permit.grow_to(bytes),
            permit => permit.insert(budget.permit(bytes).ok_or(TooManyHeads)?).grow_to(bytes),
        };
        if is_reserved { Ok(()) } else { Err(TooManyHeads) }
    }
}

/// What bounds the unfinished head of a connection.
pub struct HeadLimits {
    pub budget: ClientBudget,
    /// How long a head may take from its first byte to its last.
    pub timeout: Duration,
}

/// A connection of HTTP/2 whose unfinished head takes from the budget, and has its time.
pub struct BoundedHeads<S> {
    stream: S,
    frames: Frames,
    limits: Option<HeadLimits>,
    permit: HeadPermit,
    deadline: Deadline,
}

impl<S> BoundedHeads<S> {
    /// Returns `stream`, of which nothing was read yet. Without limits its heads are not bounded until they are whole: where
    /// there is no room or no time for one, all that goes on over the connection ends with it.
    pub fn new(stream: S, limits: Option<HeadLimits>) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            limits,
            permit: HeadPermit::default(),
            deadline: Deadline::default(),
        }
    }
}

/// When the head that is under way must have come, with its number.
#[derive(Default)]
struct Deadline(Option<(u64, Pin<Box<Sleep>>)>);

impl Deadline {
    /// Ready once the head that is under way has taken longer than `timeout`.
    fn poll(&mut self, head: Option<u64>, timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.as_ref().map(|(timed, _)| *timed) != head {
            self.0 = head.map(|head| (head, Box::pin(sleep(timeout))));
        }
        match &mut self.0 {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedHeads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf)?;
        let Self { frames, limits: Some(limits), permit, deadline, .. } = &mut *self else {
            return read.map(Ok);
        };
        frames.read(&buf.filled()[before..]);
        match frames.unfinished() {
            0 => permit.0 = None,
            bytes => permit.reserve(&limits.budget, bytes).map_err(io::Error::other)?,
        }
        if deadline.poll(frames.under_way(), limits.timeout, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head took too long")));
        }
        read.map(Ok)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedHeads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    use salvo::http::{HeaderName, HeaderValue};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{frames::tests::frame, *};

    const TIMEOUT: Duration = Duration::from_secs(15);

    /// A connection on which the preface has come, and its client's end.
    async fn connection() -> (DuplexStream, BoundedHeads<DuplexStream>) {
        let (mut client, server) = duplex(1 << 20);
        client.write_all(&[b'P'; Frames::PREFACE]).await.unwrap();
        let limits = HeadLimits { budget: HeadBudget::default().of(None), timeout: TIMEOUT };
        (client, BoundedHeads::new(server, Some(limits)))
    }

    /// Sends pieces with a pause after each, and returns how the connection ends once its client has gone.
    async fn send(pieces: &[&[u8]], pause: Duration) -> io::Result<()> {
        let (mut client, mut server) = connection().await;
        let sending = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                sleep(pause).await;
            }
            drop(client);
            std::future::pending().await
        };
        let mut buffer = [0; 64];
        let reading = async {
            while server.read(&mut buffer).await? > 0 {}
            Ok(())
        };
        tokio::select! {
            () = sending => unreachable!(),
            ended = reading => ended,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_time_and_what_is_none_has_no_end() {
        let head = |flags, length| frame(Frames::HEADERS, flags, length);
        let more = |flags, length| frame(Frames::CONTINUATION, flags, length);
        let (whole, begun, end) = (head(4, 100), head(0, 100), more(4, 100));
        let half = TIMEOUT * 3 / 5;
        // Two heads that come in the same piece and are not one.
        let (next, data) = ([&whole[50..], &whole[..50]].concat(), frame(0, 0, 100));
        for (pieces, pause, is_in_time) in [
            (&[&whole[..50], &whole[50..]][..], half, true),
            (&[&whole[..50], &next, &next, &next, &whole[50..]], half, true),
            (&[&begun, &end, &begun, &end], half, true),
            (&[&whole, &whole], TIMEOUT * 9, true),
            (&[&data[..50], &data[50..]], TIMEOUT * 9, true),
            (&[&begun, &end[..50], &end[50..]], half, false),
            (&[&whole[..50], &whole[50..99], &whole[99..]], half, false),
            (&[&whole[..50], &next[..50], &next[50..], &whole[50..]], half, false),
            (&[&begun], TIMEOUT * 9, false),
            (&[&begun, &end[..5]], TIMEOUT * 9, false),
            (&[&whole[..10]], TIMEOUT * 9, false),
            (&[&whole[..109]], TIMEOUT * 9, true),
            (&[&next[59..]], TIMEOUT * 9, false),
        ] {
            let ended = send(pieces, pause).await.map_err(|error| error.kind());
            let expected = if is_in_time { Ok(()) } else { Err(io::ErrorKind::TimedOut) };
            assert_eq!(ended, expected, "{:?}", pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>());
        }
    }

    fn client(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    fn head(fields: usize) -> HeaderMap {
        let field = |n| (HeaderName::try_from(format!("x{n}")).unwrap(), HeaderValue::from_static("v"));
        (0..fields).map(field).collect()
    }

    #[test]
    fn ordinary_heads_are_admitted_when_the_budget_is_spent() {
        let budget = HeadBudget::default();
        let admit = |fields| budget.admit(&head(fields), || None);
        let mut held: Vec<_> = (0..1000).map_while(|_| admit(400).ok()).collect();
        assert!(held.len() > 300 && held.len() < 1000, "{}", held.len());
        assert!(admit(60).is_ok());
        held.pop();
        assert!(admit(400).is_ok());
        drop(held);
        assert_eq!(budget.0.used(), 0);
    }

    /// Whole heads and unfinished ones, as many as a client may have of them.
    #[tokio::test]
    async fn a_client_leaves_as_much_as_it_holds_to_others() {
        let budget = HeadBudget::default();
        let flood = client("192.0.2.1");
        let whole: Vec<_> = (0..100).map_while(|_| budget.admit(&head(400), || flood).ok()).collect();
        let mut unfinished = Vec::new();
        for _ in 0..1000 {
            let (mut sender, server) = duplex(1 << 20);
            let head = [&[b'P'; Frames::PREFACE][..], &frame(Frames::HEADERS, 0, 1000)].concat();
            sender.write_all(&head).await.unwrap();
            let limits = HeadLimits { budget: budget.of(flood), timeout: TIMEOUT };
            let mut heads = BoundedHeads::new(server, Some(limits));
            if heads.read_exact(&mut vec![0; head.len()]).await.is_err() {
                break;
            }
            unfinished.push((sender, heads));
        }
        // What is left is too little for one more that is unfinished.
        let rest: Vec<_> = (0..100).map_while(|_| budget.admit(&head(400), || flood).ok()).collect();
        assert!(rest.len() < 4, "{} more", rest.len());
        for other in ["192.0.2.2", "2001:db8::1"] {
            let admitted = (0..100).map_while(|_| budget.admit(&head(400), || client(other)).ok());
            assert!(admitted.collect::<Vec<_>>().len() > 30, "{other}");
        }
        drop((whole, unfinished, rest));
        assert_eq!(budget.0.used(), 0);
    }
}
