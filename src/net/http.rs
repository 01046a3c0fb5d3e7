//! Speaks HTTP on connections: finds out the version, then serves HTTP/1.1 or HTTP/2 with the limits of each.
//!
//! This takes the place of salvo's server, which has one set of time-outs for a connection whatever it carries. In
//! HTTP/1.1 the connection is the one stream that there is, so its time-outs are those of the transport, and an upgrade
//! lifts them. In HTTP/2 each stream has its own deadline ([`Executor`]), the connection ends once no stream was open
//! for a while, a PING finds out whether the client is there, and an upgrade lifts nothing.

use std::{io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use salvo::{
    ConnCtrl,
    conn::{StraightStream, http1, http2},
    fuse::FuseConfig,
    http::{HeaderMap, HeaderValue, ReqBody, ResBody, StatusCode, header},
    hyper::{Error, Request, Response, body::Incoming, service::Service},
    rt::tokio::{TokioIo, TokioTimer},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    connection_permits::ConnectionPermits,
    flush_deadline::FlushDeadline,
    heads::{BoundedHeads, HeadBudget, HeadLimits, HeadPermit},
    http2_places::{self, Http2Place},
    refusals::{Refusals, TARPIT_DELAY},
    request_body,
    request_throttle::RequestThrottle,
    response_body::StreamBody,
    small_frames::{Http2Frames, ThrottledFrames},
    stream::{Stream, Version},
    streams::{Executor, Streams},
};
use crate::config::Config;

/// Bytes of a request's head, as in Node: thousands of unfinished ones must fit into memory.
const MAX_HEAD: usize = 16 * 1024;
/// Fields in a head.
const MAX_FIELDS: usize = 512;
/// The same for HTTP/2, where a field counts 32 bytes beside its own (RFC 9113, section 6.5.2). What is within this bound and
/// not within the others is refused when it is decoded.
const MAX_HEADER_LIST: u32 = (MAX_HEAD + 32 * MAX_FIELDS) as u32;
/// Bytes that are read at a time, and that wait to be written, on one connection of HTTP/1.1.
const MAX_BUFFER: usize = 16 * 1024;
/// Bytes that a client may send on one stream of HTTP/2 before they are read. They take memory whatever the stream waits for.
const STREAM_WINDOW: u32 = 32 * 1024;
/// The same for all streams of a connection: one that is not read leaves room for the others.
const CONNECTION_WINDOW: u32 = 96 * 1024;
/// Streams that a client may have open at a time.
const MAX_STREAMS: u32 = 32;
/// The same where a trusted proxy carries the streams of many clients. A few that are not read fill the window of the
/// connection all the same.
const PROXY_CONNECTION_WINDOW: u32 = 1024 * 1024;
const PROXY_MAX_STREAMS: u32 = 256;
/// Bytes of responses that HTTP/2 buffers for one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that the client reset before they were accepted, and streams that were reset for a mistake of the client,
/// before the connection is closed (CVE-2023-44487, CVE-2025-8671). Not so where a trusted proxy carries those of many clients: one
/// of them would end the connection of all.
const MAX_RESETS: usize = 32;
const MAX_MISTAKES: usize = 256;
/// How long a client has to take its leave of an idle connection.
const LEAVE: Duration = Duration::from_secs(2);

/// Answers the requests of one connection: salvo's handler, whose type has no name.
pub trait Handler:
    Service<Request<ReqBody>, Response = Response<ResBody>, Error = Error, Future: Send + 'static>
    + Send
    + 'static
{
}

impl<H> Handler for H where
    H: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Error, Future: Send + 'static>
        + Send
        + 'static
{
}

/// How one connection is served.
pub struct Connection {
    pub config: Arc<Config>,
    pub conn_ctrl: ConnCtrl,
    /// Whether WebSockets are served (RFC 8441).
    pub has_sockets: bool,
    /// Whether a trusted proxy is at the other end.
    pub is_proxy: bool,
    pub connection_permits: ConnectionPermits,
    /// The place that was taken for HTTP/2 during the handshake.
    pub http2_place: Option<Http2Place>,
    pub heads: HeadBudget,
    /// Cancelled when the running requests are to be the last.
    pub stop: CancellationToken,
}

impl Connection {
    /// Serves a connection until its end.
    ///
    /// # Errors
    ///
    /// The connection broke, or its client broke the protocol or ran into a time-out.
    pub async fn serve(mut self, mut stream: Stream, handler: impl Handler) -> io::Result<()> {
        let begun = Instant::now();
        let head_timeout = self.config.http.head_timeout;
        // A stop does not end this: a request that is on its way is answered, and the stream itself ends where nothing comes.
        let version = timeout(head_timeout, stream.version()).await??;
        let ended = match version {
            Version::Http1 => self.serve_http1(stream, handler, begun + head_timeout).await,
            // In a box: a connection of HTTP/1.1 needs half of its size.
            Version::Http2 => match self.http2_place.take().or_else(|| self.connection_permits.http2_place())
            {
                Some(place) => Box::pin(self.serve_http2(stream, handler, place)).await,
                None => return timeout(head_timeout, http2_places::refuse(stream)).await?,
            },
        };
        ended.map_err(io::Error::other)
    }

    async fn serve_http1(
        self,
        stream: Stream,
        handler: impl Handler,
        first_head: Instant,
    ) -> Result<(), Error> {
        let http = &self.config.http;
        let fuses = FuseConfig::disabled()
            .with_connection_idle_timeout(http.idle_timeout)
            .with_write_stall_timeout(http.bounds.write_timeout);
        let stream = FlushDeadline::new(stream, http.bounds.write_timeout, self.conn_ctrl.clone());
        let stream = StraightStream::new(stream, Some(fuses), self.conn_ctrl.clone(), None);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(http.head_timeout)
            .half_close(true)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .max_buf_size(MAX_BUFFER);
        let has_begun = CancellationToken::new();
        let service = Http1 { handler, has_begun: has_begun.clone() };
        let mut connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        // hyper counts from the first byte of a head, which may have come late.
        let late = async {
            if timeout_at(first_head, has_begun.cancelled()).await.is_ok() {
                std::future::pending().await
            }
        };
        tokio::select! {
            // What has come before a stop is answered.
            biased;
            ended = &mut connection => return ended,
            () = late => return Ok(()),
            () = self.stop.cancelled() => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        connection.await
    }

    async fn serve_http2(
        self,
        stream: Stream,
        handler: impl Handler,
        _place: Http2Place,
    ) -> Result<(), Error> {
        let Config { http, signal, .. } = &*self.config;
        let streams = Streams::default();
        let executor = Executor { streams: streams.clone(), write_timeout: http.bounds.write_timeout };
        let (window, max_streams) = match self.is_proxy {
            true => (PROXY_CONNECTION_WINDOW, PROXY_MAX_STREAMS),
            false => (CONNECTION_WINDOW, MAX_STREAMS),
        };
        let (max_resets, max_mistakes) = match self.is_proxy {
            true => (usize::MAX, None),
            false => (MAX_RESETS, Some(MAX_MISTAKES)),
        };
        let mut builder = http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .max_concurrent_streams(max_streams)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_pending_accept_reset_streams(max_resets)
            .max_local_error_reset_streams(max_mistakes)
            // As a WebSocket's peer, which is gone after two pings without an answer, half this time each.
            .keep_alive_interval(signal.ping_interval)
            .keep_alive_timeout(signal.ping_interval);
        if self.has_sockets {
            builder.enable_connect_protocol();
        }
        let fuses = FuseConfig::disabled().with_write_stall_timeout(http.bounds.write_timeout);
        let client = self.connection_permits.limited_client();
        let limits = HeadLimits { budget: self.heads.of(client), timeout: http.head_timeout };
        let stream = ThrottledFrames::<_, Http2Frames>::new(stream, self.connection_permits.http2_throttle());
        let stream = BoundedHeads::new(stream, (!self.is_proxy).then_some(limits));
        // Nothing ever relaxes this one.
        let conn_ctrl = ConnCtrl::new();
        let stream = FlushDeadline::new(stream, http.bounds.write_timeout, conn_ctrl.clone());
        let stream = StraightStream::new(stream, Some(fuses), conn_ctrl, None);
        let refusals = Refusals::default();
        let throttle = self.connection_permits.throttle();
        let service = Http2 {
            handler,
            is_proxy: self.is_proxy,
            connection_permits: self.connection_permits,
            throttle,
            heads: self.heads,
            refusals: refusals.clone(),
        };
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // What has come before a stop is answered.
            biased;
            ended = &mut connection => return ended,
            () = self.stop.cancelled() => {}
            () = refusals.too_many(), if !self.is_proxy => {
                Pin::new(&mut connection).graceful_shutdown();
                // A client that goes on all the same is cut off.
                return timeout(LEAVE, connection).await.unwrap_or(Ok(()));
            }
            () = streams.idle_for(http.idle_timeout) => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        loop {
            match timeout(LEAVE, &mut connection).await {
                Ok(ended) => return ended,
                Err(_) if streams.is_empty() => return Ok(()),
                // A request that was on its way is answered.
                Err(_) => {}
            }
        }
    }
}

/// Answers the requests of an HTTP/1.1 connection.
struct Http1<H> {
    handler: H,
    /// Cancelled when the first request's head has come.
    has_begun: CancellationToken,
}

impl<H: Handler> Service<Request<Incoming>> for Http1<H> {
    type Response = Response<ResBody>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let (body, unread) = request_body::watch(body);
        self.has_begun.cancel();
        let response = self.handler.call(Request::from_parts(parts, body));
        Box::pin(async move {
            let mut response = response.await?;
            if unread.ends_connection() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

/// Answers the requests of an HTTP/2 connection.
struct Http2<H> {
    handler: H,
    is_proxy: bool,
    connection_permits: ConnectionPermits,
    throttle: Option<RequestThrottle>,
    heads: HeadBudget,
    refusals: Refusals,
}

impl<H: Handler> Service<Request<Incoming>> for Http2<H> {
    type Response = Response<StreamBody>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if is_too_large(&request) {
            return refuse(&self.refusals, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &TOO_LARGE);
        }
        let head = match self.heads.admit(request.headers(), || self.client(request.headers())) {
            Ok(head) => head,
            Err(refused) => return refuse(&self.refusals, StatusCode::SERVICE_UNAVAILABLE, &refused),
        };
        let place = match self.connection_permits.request(MAX_STREAMS) {
            Ok(place) => place,
            Err(refused) => return refuse(&self.refusals, StatusCode::SERVICE_UNAVAILABLE, &refused),
        };
        let throttle = self.throttle.clone().filter(|_| !self.connection_permits.is_exempt());
        let throttle = throttle.filter(|throttle| !throttle.try_turn());
        let held = match &throttle {
            Some(_) if head.is_empty() => self.heads.hold(request.headers(), self.client(request.headers())),
            _ => Ok(HeadPermit::default()),
        };
        let held = match held {
            Ok(held) => held,
            Err(refused) => return refuse(&self.refusals, StatusCode::SERVICE_UNAVAILABLE, &refused),
        };
        request.extensions_mut().insert(self.connection_permits.clone());
        request.extensions_mut().insert(self.refusals.clone());
        let response = self.handler.call(request.map(ReqBody::from));
        let refusals = self.refusals.clone();
        Box::pin(async move {
            if let Some(throttle) = throttle {
                let mut waiting = WaitingRequest(Some(refusals.clone()));
                let turn = throttle.turn().await;
                waiting.0 = None;
                drop(held);
                if let Err(refused) = turn {
                    drop((response, head, place));
                    return refuse(&refusals, StatusCode::SERVICE_UNAVAILABLE, &refused).await;
                }
            }
            let response = response.await;
            drop(head);
            Ok(response?.map(|body| StreamBody::new(body, place)))
        })
    }
}

impl<H> Http2<H> {
    /// Returns the client of a request, if any limit holds for it.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.is_proxy {
            return self.connection_permits.limited_client();
        }
        let config = self.connection_permits.live.load();
        let client = Client::forwarded(headers, &config.trusted_proxies)?;
        (!config.limits.exempts(client)).then_some(client)
    }
}

/// A request that waits for its turn. One that its client takes back counts as refused: no limit of rates has counted it.
struct WaitingRequest(Option<Refusals>);

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        if let Some(refusals) = &self.0 {
            refusals.add();
        }
    }
}

const TOO_LARGE: &str = "the head of the request is too large: expected at most 16 KiB and 512 fields";

/// Returns whether a head would not be read over HTTP/1.1.
fn is_too_large<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let host = uri.authority().map(|authority| "host".len() + authority.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let (mut count, mut bytes) = (0, request.method().as_str().len() + path + "  HTTP/1.1\r\n\r\n".len());
    for field in fields.chain(host) {
        count += 1;
        bytes += field + ": \r\n".len();
    }
    count > MAX_FIELDS || bytes > MAX_HEAD
}

/// Refuses a request that is too large, or for which there is no room. No limit of rates has counted it.
fn refuse(
    refusals: &Refusals,
    status: StatusCode,
    error: &impl ToString,
) -> BoxFuture<'static, Result<Response<StreamBody>, Error>> {
    refusals.add();
    let body = serde_json::json!({ "error": error.to_string() }).to_string();
    let mut response = Response::new(ResBody::Once(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    Box::pin(async move {
        sleep(TARPIT_DELAY).await;
        // Its stream has a task of its own only from here on.
        Ok(response.map(|body| StreamBody::new(body, None)))
    })
}
