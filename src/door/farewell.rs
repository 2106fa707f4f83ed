//! The last words to a client whose request is refused or whose connection is turned away.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How long what a refused client still sends is read and dropped: a close with unread bytes takes the answer back.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// For a `send` that fails instead of waiting, and raises no signal.
const DO_NOT_WAIT: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// A whole answer with a problem document, after which the connection ends.
pub(super) fn problem(status: u16, slug: &str, detail: &str, extra_fields: &str) -> String {
    let title = tiny_http::StatusCode(status).default_reason_phrase();
    let body = format!(
        r#"{{"type":"urn:ingestor-consumo:problem:{slug}","title":"{title}","status":{status},"detail":"{detail}"}}"#
    );
    let date = httpdate::HttpDate::from(std::time::SystemTime::now());
    format!(
        "HTTP/1.1 {status} {title}\r\nDate: {date}\r\nServer: ingestor\r\nContent-Type: application/problem+json\r\n\
         {extra_fields}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Never blocks: a client whose buffer is full does not get to hear why.
pub(super) fn say_last(socket: &SockRef<'_>, text: &str) {
    let _ = socket.send_with_flags(text.as_bytes(), DO_NOT_WAIT);
    let _ = socket.shutdown(Shutdown::Write);
}

/// Reads and drops what the client still sends, until it closes, pauses or `limit` has passed.
pub(super) fn discard(socket: &SockRef<'_>, limit: Duration) {
    let deadline = Instant::now() + limit;
    let _ = socket.set_read_timeout(Some(LINGER));
    let mut buffer = [std::mem::MaybeUninit::uninit(); 16 << 10];
    // Not `recv`: that is this program's own, which says end of file for a connection that has ended.
    while socket.recv_from(&mut buffer).is_ok_and(|(count, _)| count > 0) && Instant::now() <= deadline {}
}
