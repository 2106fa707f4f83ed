//! Replies of Redis, checked: whatever is not what this program wrote is `Corrupt`.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use redis::{RedisError, ServerError, Value};

use crate::store::StoreError;
use crate::wording::span;

/// The store is not what this program wrote.
pub(super) fn corrupt(what: &str, value: impl std::fmt::Debug) -> StoreError {
    // A batch's body may be megabytes long.
    let shown: String = format!("{value:?}").chars().take(120).collect();
    StoreError::Corrupt(format!("{what}: {shown}"))
}

/// Redis holds nothing where this store was.
pub(super) fn gone() -> StoreError {
    StoreError::Gone(
        "Redis no longer holds this store: emptied, or started again without its data? What was not delivered is gone. \
         Restart this process to begin a new store"
            .to_owned(),
    )
}

/// Why no answer came.
pub(super) fn no_answer(error: &RedisError, limit: Duration) -> String {
    late(error, limit)
        .map_or_else(|| format!("no answer from Redis: {error}"), |within| format!("no answer from Redis {within}"))
}

/// That a limit passed, if it did; the system's own word for it is "Resource temporarily unavailable". In whole seconds,
/// so that one reason has one text whatever was left of a longer limit.
pub(super) fn late(error: &RedisError, limit: Duration) -> Option<String> {
    let seconds = Duration::from_secs(limit.as_secs() + u64::from(limit.subsec_nanos() > 0));
    error.is_timeout().then(|| format!("within {}", span(seconds)))
}

/// What an error reply means for the caller.
pub(super) fn refusal(error: &ServerError) -> StoreError {
    let text = format!("Redis answered: {} {}", error.code(), error.details().unwrap_or_default());
    match error.code() {
        "FENCED" => StoreError::Fenced,
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "FULL" | "FOREIGN" => StoreError::Misconfigured(text),
        "OOM" | "READONLY" | "LOADING" | "MISCONF" | "NOREPLICAS" | "MASTERDOWN" | "BUSY" | "CLUSTERDOWN"
        | "TRYAGAIN" | "MOVED" | "ASK" => StoreError::Unavailable(text),
        "UNINITIALISED" => gone(),
        // The scripts' own GAP and DAMAGED, and whatever was not foreseen.
        _ => StoreError::Corrupt(text),
    }
}

/// Whether this error reply proves that the script changed nothing: Redis's own refusals come before a script starts, the
/// scripts' before their first write. Any other error may have stopped a script half-way.
pub(super) fn changed_nothing(error: &ServerError) -> bool {
    matches!(
        error.code(),
        "OOM"
            | "READONLY"
            | "LOADING"
            | "MISCONF"
            | "NOREPLICAS"
            | "MASTERDOWN"
            | "BUSY"
            | "CLUSTERDOWN"
            | "TRYAGAIN"
            | "NOAUTH"
            | "NOSCRIPT"
            | "MOVED"
            | "ASK"
            | "GAP"
            | "FULL"
            | "UNINITIALISED"
    )
}

pub(super) fn integer(value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(corrupt("expected a whole number", other)),
    }
}

/// Whether a script that answers 1 or 0 did what it was asked.
pub(super) fn flag(value: &Value) -> Result<bool, StoreError> {
    match integer(value)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(corrupt("expected 0 or 1", other)),
    }
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(corrupt("expected a list", other)),
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        other => Err(corrupt("expected text", other)),
    }
}

pub(super) fn text(value: Value) -> Result<String, StoreError> {
    String::from_utf8(bytes(value)?).map_err(|error| corrupt("expected UTF-8", error.as_bytes()))
}

/// A number that Redis holds as text. Scores come as `1772359200250`, too: whole and below 2^53.
pub(super) fn number<T: FromStr>(value: Value) -> Result<T, StoreError> {
    let text = match value {
        Value::Int(number) => number.to_string(),
        other => text(other)?,
    };
    text.parse().map_err(|_| corrupt("expected a number", &text))
}

/// A list that alternates between two kinds of value, as pairs.
pub(super) fn pairs(value: Value) -> Result<Vec<(Value, Value)>, StoreError> {
    let mut pairs = Vec::new();
    let mut values = list(value)?.into_iter();
    while let Some(first) = values.next() {
        let second = values.next().ok_or_else(|| corrupt("expected pairs, one is half", &first))?;
        pairs.push((first, second));
    }
    Ok(pairs)
}

/// A hash, whole.
pub(super) fn hash(value: Value) -> Result<HashMap<String, Vec<u8>>, StoreError> {
    pairs(value)?.into_iter().map(|(field, value)| Ok((text(field)?, bytes(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_limit_that_passed_is_told_in_plain_words() {
        let two = Duration::from_secs(2);
        // What Linux answers when the time-out of a socket passes.
        let blocked = RedisError::from(Error::from_raw_os_error(libc::EAGAIN));
        assert_eq!(no_answer(&blocked, two), "no answer from Redis within 2s");
        assert_eq!(no_answer(&blocked, two - Duration::from_millis(3)), "no answer from Redis within 2s");
        let cut = RedisError::from(Error::from(ErrorKind::ConnectionReset));
        assert!(!no_answer(&cut, two).contains("within"), "{}", no_answer(&cut, two));
    }
}
