//! Who sends a request, by the API key in its head.

use std::sync::Arc;

use crate::intake::exchange::Exchange;
use crate::intake::respond::Reply;
use crate::keys::ApiKeys;
use crate::keys::ring::Grant;

/// What this request's key allows; `None` where no key is asked for.
///
/// # Errors
/// The answer to a request without a valid key: 401.
pub fn grant(keys: &ApiKeys, exchange: &Exchange) -> Result<Option<Arc<Grant>>, Reply> {
    if !keys.are_required() {
        return Ok(None);
    }
    match presented(exchange.header("Authorization"), exchange.header("X-Api-Key")) {
        None => Err(unauthorized("Bearer", "send an API key, as Authorization: Bearer KEY or as X-Api-Key: KEY")),
        Some(key) => match keys.find(key) {
            Some(grant) => Ok(Some(grant)),
            None => Err(unauthorized("Bearer error=\"invalid_token\"", "this API key is not valid")),
        },
    }
}

/// Lets a request pass that concerns all tenants: where keys are asked for, with one that is not limited to some.
///
/// # Errors
/// The answer to any other request: 401 or 403.
pub fn operator(keys: &ApiKeys, exchange: &Exchange) -> Result<(), Reply> {
    match grant(keys, exchange)? {
        Some(grant) if !grant.covers_every_tenant() => {
            Err(Reply::problem(403, "forbidden", "this API key is for some tenants, and this is about all of them"))
        }
        _ => Ok(()),
    }
}

fn unauthorized(challenge: &str, detail: &str) -> Reply {
    Reply::problem(401, "unauthorized", detail).with_header("WWW-Authenticate", challenge.to_owned())
}

/// The key that a request presents. An `Authorization` of another scheme is none: a proxy's own may be left there.
fn presented<'h>(authorization: Option<&'h str>, api_key: Option<&'h str>) -> Option<&'h str> {
    let bearer = |value: &'h str| {
        let (scheme, key) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key)
    };
    let key = authorization.and_then(bearer).or(api_key)?.trim();
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_either_header() {
        for (authorization, api_key, expected) in [
            (None, None, None),
            (Some("Bearer k"), None, Some("k")),
            (Some("bearer  k "), None, Some("k")),
            (Some("BEARER k"), Some("other"), Some("k")),
            (Some("Basic dXNlcg=="), Some("k"), Some("k")),
            (Some("Basic dXNlcg=="), None, None),
            (Some("Bearer"), Some("k"), Some("k")),
            (Some("Bearerk"), None, None),
            (None, Some(" k "), Some("k")),
            (None, Some(""), None),
        ] {
            assert_eq!(presented(authorization, api_key), expected, "{authorization:?} {api_key:?}");
        }
    }
}
