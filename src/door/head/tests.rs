//! Byte streams cut at every position.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_head_bytes: 512, max_body_bytes: 1000 };
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn with(fields: &str) -> String {
    format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// Feeds the bytes cut at every position: the verdict must not depend on where they are cut. Returns what passed.
fn check(request: &str, heads: u64, refusal: Option<Refusal>) -> String {
    let mut passed = None;
    for cut in 0..=request.len() {
        let (mut first, mut second) = (request.as_bytes()[..cut].to_vec(), request.as_bytes()[cut..].to_vec());
        let mut filter = Filter::new(LIMITS);
        let early = filter.feed(&mut first);
        let late = if early.refusal.is_none() { filter.feed(&mut second) } else { Progress::default() };
        assert_eq!(early.refusal.or(late.refusal), refusal, "{request:?} cut at {cut}");
        assert_eq!(early.heads + late.heads, heads, "{request:?} cut at {cut}");
        if refusal.is_none() {
            let bytes = [&first[..early.pass], &second[..late.pass]].concat();
            assert_eq!(passed.get_or_insert_with(|| bytes.clone()), &bytes, "{request:?} cut at {cut}");
        }
    }
    String::from_utf8(passed.unwrap_or_default()).unwrap()
}

/// A request that passes whole.
fn passes(request: &str, heads: u64) {
    assert_eq!(check(request, heads, None), request);
}

#[test]
fn good_requests_pass() {
    passes(GET, 1);
    passes(&format!("{GET}{GET}{GET}"), 3);
    passes(&format!("{}hello{GET}", with("Content-Length: 5\r\n")), 2);
    passes(&format!("{}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n{GET}", with("transfer-encoding: Chunked\r\n")), 2);
    passes("GET / HTTP/1.0\r\n\r\n", 1);
    passes("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", 2);
    passes("OPTIONS * HTTP/1.1\r\nhost:h\r\nX:\t y \r\n\r\n", 1);
    passes(&with("Content-Length: 5\r\nExpect: 100-Continue\r\n"), 1);
}

#[test]
fn trailers_and_one_empty_line_before_a_request_are_dropped() {
    let head = with("Transfer-Encoding: chunked\r\n");
    let trailed = format!("{head}1\r\na\r\n0\r\nA: b\r\nGET / HTTP/1.1\r\n\r\n{GET}");
    assert_eq!(check(&trailed, 2, None), format!("{head}1\r\na\r\n0\r\n\r\n{GET}"));
    assert_eq!(check(&format!("\r\n{GET}\r\n{GET}\r\n"), 2, None), GET.repeat(2));
    check(&format!("{GET}\r\n\r\n{GET}"), 1, Some(Refusal::Malformed));
    check(&format!("{GET}\r{GET}"), 1, Some(Refusal::Malformed));
}

#[test]
fn nothing_passes_behind_the_last_request() {
    for fields in [
        "Connection: close\r\n",
        "Connection: close\r\nContent-Length: 0\r\n",
        // `tiny_http` looks at the first field only, and would go on.
        "Connection: keep-alive\r\nConnection: Close\r\n",
    ] {
        assert_eq!(check(&format!("{}\u{0}\n\n{GET}", with(fields)), 1, None), with(fields));
    }
    let last = format!("{}hello", with("Connection: close\r\nContent-Length: 5\r\n"));
    assert_eq!(check(&format!("{last}{GET}"), 1, None), last);
    // Here `tiny_http` finds a keep-alive.
    let last = "GET / HTTP/1.0\r\nConnection: not-keep-alive\r\n\r\n";
    assert_eq!(check(&format!("{last}{GET}"), 1, None), last);
}

#[test]
fn ambiguous_lengths_are_refused() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        check(&with(fields), 0, Some(Refusal::AmbiguousLength));
    }
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 0, Some(Refusal::AmbiguousLength));
}

#[test]
fn malformed_heads_are_refused() {
    for request in [
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\u{0}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: hé\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\r\nHost: h\r\n\r\n",
        "G\u{7f}T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        check(request, 0, Some(Refusal::Malformed));
    }
}

#[test]
fn other_refusals() {
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, Some(Refusal::Version));
    check("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 0, Some(Refusal::Version));
    check("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 0, Some(Refusal::Version));
    check("GET / HTTP/1.1\r\n\r\n", 0, Some(Refusal::Host));
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 0, Some(Refusal::Host));
    check(&with("Connection: Upgrade\r\nUpgrade: websocket\r\n"), 0, Some(Refusal::Upgrade));
    check(&with("Content-Length: 1001\r\n"), 0, Some(Refusal::BodyTooLong));
    check(&with("Content-Length: 1000000000000000\r\n"), 0, Some(Refusal::BodyTooLong));
    check(&with("Content-Length: 99999999999999999999999\r\n"), 0, Some(Refusal::BodyTooLong));
    check(&with(&format!("X: {}\r\n", "y".repeat(512))), 0, Some(Refusal::HeadTooLong));
    check(&format!("GET /{}", "a".repeat(600)), 0, Some(Refusal::HeadTooLong));
    check(&with("Expect: 200-ok\r\n"), 0, Some(Refusal::Expectation));
    check(&with("Expect: 100-continue\r\nExpect: x\r\n"), 0, Some(Refusal::Expectation));
    let many = "a:\r\n".repeat(FIELDS_MAX + 1);
    let mut filter = Filter::new(Limits { max_head_bytes: 10_000, ..LIMITS });
    assert_eq!(filter.feed(&mut with(&many).into_bytes()).refusal, Some(Refusal::HeadTooLong));
}

#[test]
fn broken_or_endless_chunks_are_refused() {
    let head = with("Transfer-Encoding: chunked\r\n");
    for body in [
        "x\r\n",
        "\r\n",
        "3\r\nabcd\r\n",
        "3\nabc",
        "3\r\nabc\rX",
        "-3\r\n",
        " 3\r\n",
        "3 \r\nabc",
        "3 ;x\r\nabc",
        "3 x\r\nabc",
    ] {
        check(&format!("{head}{body}"), 1, Some(Refusal::Malformed));
    }
    check(&format!("{head}{};{}\r\n", 3, "x".repeat(300)), 1, Some(Refusal::Malformed));
    check(&format!("{head}3E9\r\n"), 1, Some(Refusal::BodyTooLong));
    check(&format!("{head}ffffffffffffffffffff\r\n"), 1, Some(Refusal::BodyTooLong));
    check(&format!("{head}0\r\n{}", "x".repeat(5000)), 1, Some(Refusal::Malformed));
    check(&format!("{head}0\r\n{}", "a: b\r\n".repeat(1100)), 1, Some(Refusal::Malformed));
}

#[test]
fn only_what_comes_before_the_offence_passes() {
    let mut filter = Filter::new(LIMITS);
    let bytes = format!("{GET}GET / HTTP/9.9\r\n\r\n");
    let expected = Progress { pass: GET.len(), heads: 1, refusal: Some(Refusal::Version) };
    assert_eq!(filter.feed(&mut bytes.into_bytes()), expected);
    let head = with("Transfer-Encoding: chunked\r\n");
    let mut bytes = format!("{head}3\r\nabc\r\n3E9\r\n").into_bytes();
    let expected = Progress { pass: bytes.len() - 3, heads: 1, refusal: Some(Refusal::BodyTooLong) };
    assert_eq!(Filter::new(LIMITS).feed(&mut bytes), expected);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_the_same_however_they_are_cut(
        bytes in prop::collection::vec(prop::sample::select(&b"GET / HTP1.0:\r\n;Content-Lgh5aTrsfEcodiuk"[..]), 0..400),
        cuts in prop::collection::vec(1usize..40, 1..40),
    ) {
        let mut expected = bytes.clone();
        let whole = Filter::new(LIMITS).feed(&mut expected);
        let (mut filter, mut at, mut heads, mut refusal, mut passed) = (Filter::new(LIMITS), 0, 0, None, Vec::new());
        for cut in cuts.iter().cycle() {
            if at == bytes.len() || refusal.is_some() { break }
            let end = (at + cut).min(bytes.len());
            let mut piece = bytes[at..end].to_vec();
            let progress = filter.feed(&mut piece);
            passed.extend_from_slice(&piece[..progress.pass]);
            (at, heads, refusal) = (end, heads + progress.heads, progress.refusal);
        }
        prop_assert_eq!(heads, whole.heads);
        prop_assert_eq!(refusal.is_some(), whole.refusal.is_some());
        prop_assert!(refusal.is_some() || passed == expected[..whole.pass]);
    }
}

#[test]
fn a_short_body_is_one_that_the_library_reads_itself() {
    let check = |fields: &str, expected: bool| {
        let mut filter = Filter::new(Limits { max_head_bytes: 1000, max_body_bytes: 10_000 });
        let mut bytes = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
        assert_eq!(filter.feed(&mut bytes).refusal, None, "{fields}");
        assert_eq!(filter.is_in_short_body(), expected, "{fields}");
    };
    check("", false);
    check("Content-Length: 1024\r\n", true);
    check("Content-Length: 1025\r\n", false);
    check("Content-Length: 10\r\nExpect: 100-continue\r\n", false);
    check("Transfer-Encoding: chunked\r\n", false);
}
