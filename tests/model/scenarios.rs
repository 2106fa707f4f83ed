//! The bounded models: each looks at one part of the protocol closely and takes the rest as going well.

use crate::config::{Config, Request};
use crate::state::Event;

const fn plain(key: usize, submissions: u8) -> Request {
    Request { key, id: None, submissions }
}

const fn with_id(key: usize, id: usize, content: u8, submissions: u8) -> Request {
    Request { key, id: Some((id, content)), submissions }
}

const NOTHING: Config = Config {
    mutant: None,
    requests: &[],
    workers: 0,
    senders: 0,
    writers: 2,
    tokens: 0,
    hours: 0,
    dedup_windows: 0,
    days: 0,
    wait: false,
    delivers: false,
    events: &[],
};

/// Two workers, a toggle, connections that break anywhere, late requests, refusals, crashes.
pub const INGEST: Config = Config {
    requests: &[plain(0, 2), with_id(0, 0, 1, 2)],
    workers: 2,
    writers: 4,
    senders: 1,
    tokens: 1,
    hours: 1,
    events: &[(Event::Break, 1), (Event::Refusal, 1), (Event::WorkerCrash, 1)],
    ..NOTHING
};

/// Pulse ids that come again, with their own and with other content, while the two hashes rotate.
pub const DEDUP: Config = Config {
    requests: &[with_id(0, 0, 1, 3), with_id(1, 0, 2, 1)],
    workers: 2,
    writers: 3,
    dedup_windows: 2,
    events: &[(Event::Break, 2)],
    ..NOTHING
};

/// Three windows, one delivered while others are open: late calls, errors, and answers that get lost.
pub const TOGGLE: Config = Config {
    requests: &[plain(0, 1), plain(0, 1), plain(0, 1)],
    senders: 1,
    tokens: 1,
    hours: 2,
    delivers: true,
    events: &[(Event::LateStep, 1), (Event::SenderError, 2), (Event::AnswerLost, 1)],
    ..NOTHING
};

/// Two senders that freeze and deliver: late calls, errors, crashes, and a receiver whose answers get lost.
pub const DELIVER: Config = Config {
    requests: &[plain(0, 1), plain(1, 1)],
    senders: 2,
    tokens: 2,
    hours: 1,
    delivers: true,
    events: &[(Event::LateStep, 1), (Event::AnswerLost, 1)],
    ..NOTHING
};

/// Refused batches, replays, and a receiver that forgets.
pub const DEAD_LETTERS: Config = Config {
    requests: &[plain(0, 1)],
    senders: 1,
    tokens: 2,
    hours: 1,
    days: 1,
    delivers: true,
    events: &[
        (Event::LateStep, 1),
        (Event::SenderCrash, 1),
        (Event::SenderError, 1),
        (Event::AnswerLost, 1),
        (Event::PostLost, 1),
        (Event::Busy, 1),
        (Event::Refused, 2),
        (Event::Replay, 2),
    ],
    ..NOTHING
};

/// A fail-over to a replica that is behind, with `WAIT_REPLICAS`.
pub const FAILOVER: Config = Config {
    requests: &[plain(0, 1), plain(0, 1)],
    workers: 1,
    senders: 1,
    tokens: 1,
    hours: 1,
    wait: true,
    delivers: true,
    events: &[(Event::Failover, 1), (Event::Break, 1), (Event::LateStep, 1)],
    ..NOTHING
};

/// Where only that goes wrong.
pub const FAILOVER_ONLY: &[(Event, u8)] = &[(Event::Failover, 1)];

/// A fail-over that takes a lease back, so that two senders have the same token.
pub const TWO_HOLDERS: Config = Config {
    requests: &[plain(0, 1)],
    workers: 1,
    senders: 2,
    tokens: 2,
    hours: 1,
    wait: true,
    delivers: true,
    events: &[(Event::Failover, 1), (Event::AnswerLost, 1), (Event::Refused, 1)],
    ..NOTHING
};

/// A fail-over without: what it loses must come again.
pub const LOSS: Config = Config {
    requests: &[plain(0, 1), plain(0, 1), with_id(0, 0, 1, 1)],
    workers: 2,
    writers: 3,
    events: &[(Event::Failover, 2), (Event::Break, 1)],
    ..NOTHING
};

/// For an old holder whose settlement comes late.
pub const OLD_HOLDER: &[(Event, u8)] = &[(Event::Busy, 1), (Event::AnswerLost, 1), (Event::SenderError, 1)];
