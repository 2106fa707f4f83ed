//! The head filter: what it lets pass holds, for the library, no request that it has not counted.

use std::path::Path;

use ingestor_consumo::door::head::{Filter, Limits, Refusal};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use crate::{fuzz, library};

const LIMITS: Limits = Limits { max_head_bytes: 700, max_body_bytes: 300 };
/// An allocation of this length ends the process.
const BOMB: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000\r\n\r\n";

/// What the filter made of a stream that came in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    passed: Vec<u8>,
    heads: u64,
    refusal: Option<Refusal>,
}

fn judge(bytes: &[u8], cuts: &[usize]) -> Verdict {
    let mut filter = Filter::new(LIMITS);
    let mut verdict = Verdict::default();
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() || verdict.refusal.is_some() {
            return verdict;
        }
        let (piece, later) = rest.split_at((*cut).min(rest.len()));
        let mut piece = piece.to_vec();
        let progress = filter.feed(&mut piece);
        assert!(progress.pass <= piece.len());
        verdict.passed.extend_from_slice(&piece[..progress.pass]);
        verdict.heads += progress.heads;
        verdict.refusal = progress.refusal;
        rest = later;
    }
    verdict
}

fn check(bytes: &[u8], cuts: &[usize]) -> TestCaseResult {
    let whole = judge(bytes, &[bytes.len().max(1)]);
    let cut = judge(bytes, cuts);
    prop_assert_eq!(cut.heads, whole.heads, "cut at {:?}: {:?}", cuts, String::from_utf8_lossy(bytes));
    prop_assert_eq!(cut.refusal.is_some(), whole.refusal.is_some());
    if whole.refusal.is_none() {
        prop_assert_eq!(&cut.passed, &whole.passed);
    }
    for verdict in [&whole, &cut] {
        let found = library::heads(&verdict.passed);
        prop_assert!(
            found.len() as u64 <= verdict.heads,
            "the library finds {:?} where {} heads passed in {:?}",
            found,
            verdict.heads,
            String::from_utf8_lossy(&verdict.passed)
        );
        let longest = found.iter().filter_map(|head| head.content_length).max().unwrap_or(0);
        prop_assert!(longest as u64 <= LIMITS.max_body_bytes, "{:?}", found);
    }
    Ok(())
}

/// Streams that once got past the filter, cut at every length.
#[test]
fn kept_streams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/head");
    let mut streams = 0;
    for entry in std::fs::read_dir(folder).expect("the seeds lie there") {
        let bytes = std::fs::read(entry.expect("it can be listed").path()).expect("it can be read");
        for cut in 1..=bytes.len() {
            check(&bytes, &[cut]).unwrap_or_else(|error| panic!("{error}"));
        }
        streams += 1;
    }
    assert!(streams >= 5);
}

/// A request by the letter: its bytes, and what must pass of them.
fn well_formed() -> impl Strategy<Value = (String, String)> {
    let target = select(&["/", "/ingest", "/ingest?a=b", "*", "http://h/x", "/%00"][..]);
    let fields = prop::collection::vec(
        select(&["X: y\r\n", "x-empty:\r\n", "Connection: keep-alive\r\n", "TE: trailers\r\n", "A:\tb \r\n"][..]),
        0..6,
    );
    let data = "[ -~\r\n]{0,60}";
    let trailers = prop::collection::vec(select(&["A: b\r\n", "Digest: x=y\r\n", "GET / HTTP/1.1\r\n"][..]), 0..3);
    let extension = select(&["", ";a", ";a=b;c=\"d e\""][..]);
    let chunks = prop::collection::vec(("[ -~\r\n]{1,30}", extension, any::<bool>()), 0..4);
    let body = prop_oneof![
        Just((String::new(), String::new(), String::new())),
        data.prop_map(|data| (format!("Content-Length: {}\r\n", data.len()), data.clone(), data)),
        (chunks, trailers).prop_map(|(chunks, trailers)| {
            let chunk = |(data, extension, upper): &(String, &str, bool)| match upper {
                true => format!("0{:X}{extension}\r\n{data}\r\n", data.len()),
                false => format!("{:x}{extension}\r\n{data}\r\n", data.len()),
            };
            let sent = chunks.iter().map(chunk).collect::<String>() + "0\r\n";
            let passed = sent.clone() + "\r\n";
            ("Transfer-Encoding: chunked\r\n".to_owned(), sent + &trailers.concat() + "\r\n", passed)
        }),
    ];
    let method = select(&["GET", "POST", "HEAD", "BREW", "M-SEARCH"][..]);
    (method, target, fields, body, any::<bool>()).prop_map(|(method, target, fields, body, blank)| {
        let (length, sent, passed) = body;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{}{length}\r\n", fields.concat());
        (format!("{}{head}{sent}", if blank { "\r\n" } else { "" }), head + &passed)
    })
}

/// Something between the size of a chunk and its data, right and wrong.
fn between() -> impl Strategy<Value = &'static str> {
    select(
        &["\r\n", "\r\n", ";x\r\n", " \r\n", " x\r\n", "\t;x\r\n", "; / HTTP/1.1\r\n", "\n", "\r", ";\n\r\n", "g\r\n"]
            [..],
    )
}

/// A body that is framed rightly, or almost.
fn doubtful_body() -> impl Strategy<Value = (String, String)> {
    let payload = || select(&["hello", BOMB, BOMB, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "0\r\n\r\n", "\r\n"][..]);
    let chunk = (between(), payload(), select(&["\r\n", "\r\n", "\r\n", "\n", "", "x"][..]))
        .prop_map(|(between, payload, end)| format!("{:x}{between}{payload}{end}", payload.len()));
    let end = select(
        &["0\r\n\r\n", "0\r\n\r\n", "0\r\nA: b\r\n\r\n", "0\r\nA", "0;x\r\n", "00\r\n\r\n", "+0\r\n\r\n", ""][..],
    );
    let coding = select(
        &[
            "chunked",
            "chunked",
            "chunked",
            "Chunked",
            " chunked\t",
            "identity",
            "x, chunked",
            "\x0bchunked",
            "chunked;q=1",
        ][..],
    );
    prop_oneof![
        Just((String::new(), String::new())),
        (payload(), select(&["", "", "", "+", "0", " ", "\x0c"][..]))
            .prop_map(|(payload, sign)| (format!("Content-Length: {sign}{}\r\n", payload.len()), payload.to_owned())),
        (coding, prop::collection::vec(chunk, 0..3), end)
            .prop_map(|(coding, chunks, end)| (format!("Transfer-Encoding: {coding}\r\n"), chunks.concat() + end)),
    ]
}

/// Requests that two readers might read in two ways.
fn doubtful() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => select(&["GET / HTTP/1.1\r\n", "POST /ingest HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "\r\nGET / HTTP/1.1\r\n"][..]),
        1 => select(
            &["GET / HTTP/2.0\r\n", "\n", "GET  / HTTP/1.1\r\n", " GET / HTTP/1.1\r\n", "5; / HTTP/1.1\r\n", "GET\t/ HTTP/1.1\r\n"][..],
        ),
    ];
    let host = prop_oneof![9 => Just("Host: h\r\n"), 1 => Just("")];
    let field = select(
        &[
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            "Connection: not-keep-alive\r\n",
            "Connection: x\r\n",
            "Connection: closed\r\n",
            "Connection: upgrade\r\n",
            "Connection:\r\n",
            "connection: KEEP-ALIVE, Close\r\n",
            "Content-Length: 5\r\n",
            "Content-Length : 5\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: identity\r\n",
            "Expect: 100-continue\r\n",
            "Expect: x\r\n",
            " folded\r\n",
            "X: y\n",
            "X: y\r",
            "X\r\n",
            ":\r\n",
            "X: \x0b\r\n",
            "X: y\r\n",
            "Host: i\r\n",
        ][..],
    );
    let request = (line, host, prop::collection::vec(field, 0..3), doubtful_body(), prop::bool::weighted(0.3))
        .prop_map(|(line, host, fields, (length, body), bomb)| {
            format!("{line}{host}{}{length}\r\n{body}{}", fields.concat(), if bomb { BOMB } else { "" })
        });
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0u8..3);
    (prop::collection::vec(request, 1..4), prop::collection::vec(edit, 0..3)).prop_map(|(requests, edits)| {
        let mut bytes = requests.concat().into_bytes();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                bytes.push(byte);
            }
        }
        bytes
    })
}

#[test]
fn well_formed_requests_pass() {
    let cuts = prop::collection::vec(1usize..80, 1..20);
    let strategy = (prop::collection::vec(well_formed(), 1..5), cuts);
    fuzz("tests/fuzz/seeds/well_formed.txt", &strategy, |(requests, cuts)| {
        let sent: String = requests.iter().map(|(sent, _)| sent.as_str()).collect();
        let passed: String = requests.iter().map(|(_, passed)| passed.as_str()).collect();
        let verdict = judge(sent.as_bytes(), &cuts);
        prop_assert_eq!(verdict.refusal, None, "{:?}", sent);
        prop_assert_eq!(verdict.heads, requests.len() as u64);
        prop_assert_eq!(String::from_utf8_lossy(&verdict.passed), passed.as_str());
        prop_assert_eq!(library::heads(&verdict.passed).len(), requests.len());
        check(sent.as_bytes(), &cuts)
    });
}

#[test]
fn nothing_passes_uncounted() {
    let strategy = (doubtful(), prop::collection::vec(1usize..80, 1..20));
    fuzz("tests/fuzz/seeds/head.txt", &strategy, |(bytes, cuts)| check(&bytes, &cuts));
}
