//! The status page: one file, which asks `/status.json` for what it shows.

use crate::intake::exchange::Exchange;
use crate::intake::respond::Reply;

const PAGE: &str = include_str!("page.html");
/// Nothing from elsewhere, nothing to elsewhere, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a browser asks; others get the index as text.
pub fn is_wanted(exchange: &Exchange) -> bool {
    exchange.header("Accept").is_some_and(|accept| accept.contains("text/html"))
}

/// The page.
pub fn reply() -> Reply {
    Reply::document(200, "text/html; charset=utf-8", PAGE)
        .with_header("Content-Security-Policy", POLICY.to_owned())
        .with_header("X-Content-Type-Options", "nosniff".to_owned())
        .with_header("Referrer-Policy", "no-referrer".to_owned())
        .with_header("Cache-Control", "no-cache".to_owned())
        .with_header("Vary", "Accept".to_owned())
}
