//! Bodies that are no pulses, and some that are: each with its status, its kind of problem and what is said of it.

use crate::support::http::request;
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, pulse};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
/// Most of the corpus is short; what is long fits into this.
const MAX_BODY_BYTES: &str = "12000000";
const TEN_MILLION: usize = 10_000_000;

/// A body, and what it must be answered.
struct Case {
    name: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
    slug: &'static str,
    /// Stands in the problem document: in its detail, or as a field or its detail among the errors.
    part: &'static str,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, status: u16, slug: &'static str, part: &'static str) -> Case {
    Case { name, content_type: JSON, body: body.into(), status, slug, part }
}

fn malformed(name: &'static str, body: impl Into<Vec<u8>>, part: &'static str) -> Case {
    case(name, body, 400, "malformed-body", part)
}

fn invalid(name: &'static str, body: impl Into<Vec<u8>>, part: &'static str) -> Case {
    case(name, body, 422, "invalid-pulse", part)
}

/// A pulse with one member's value in place of a good one.
fn with(member: &str, value: &str) -> String {
    let good = [
        ("tenant_id", r#""refused""#),
        ("product_sku", r#""sku""#),
        ("used_amount", "1"),
        ("use_unit", r#""KB""#),
        ("pulse_id", r#""p""#),
    ];
    let members = good.map(|(name, good)| format!(r#""{name}":{}"#, if name == member { value } else { good }));
    format!("{{{}}}", members.join(","))
}

fn amount(token: &str) -> String {
    with("used_amount", token)
}

/// A pulse without one of its members.
fn without(member: &str) -> String {
    with(member, "null")
}

fn text(content: &str) -> String {
    format!("\"{content}\"")
}

fn refuses(cases: &[Case]) {
    let ingestor = Ingestor::start(&[("MAX_BODY_BYTES", MAX_BODY_BYTES), ("REQUEST_TIMEOUT", "60s")]);
    for Case { name, content_type, body, status, slug, part } in cases {
        let response = ingestor.exchange(&request("POST", "/ingest", &[("Content-Type", content_type)], body));
        assert_eq!(response.status, *status, "{name}: {}", response.text());
        let problem = response.problem(*status);
        let uri = problem["type"].as_str().unwrap_or_default();
        assert_eq!(uri, format!("urn:ingestor-consumo:problem:{slug}"), "{name}: {problem}");
        let said = format!("{} {}", problem["detail"], problem["errors"]);
        assert!(said.contains(part), "{name}: {part:?} is not in {problem}");
        assert!(response.body.len() < 20_000, "{name}: an answer of {} bytes", response.body.len());
    }
    assert_eq!(ingestor.ledger()["units"], serde_json::json!([]), "something was counted");
    assert_eq!(ingestor.post(BANANA).status, 204);
    assert_eq!(ingestor.ledger_kb("acknowledged"), "307");
}

#[test]
fn what_is_not_json_is_refused() {
    refuses(&[
        malformed("nothing", "", "empty"),
        malformed("white space", " \r\n\t ", "empty"),
        malformed("a word", "pulse", "not JSON, line 1, column 1: a value must stand here"),
        malformed("an open object", "{", "not JSON"),
        malformed("an open array", format!("[{BANANA}"), "not JSON"),
        malformed("an open string", r#"{"tenant_id":"a"#, "not JSON"),
        malformed("a trailing comma", BANANA.replace('}', ",}"), "not JSON"),
        malformed("a trailing comma in a list", format!("[{BANANA},]"), "not JSON"),
        malformed("single quotes", BANANA.replace('"', "'"), "not JSON"),
        malformed("a comment", format!("/* a pulse */ {BANANA}"), "not JSON"),
        malformed("trailing garbage", format!("{BANANA} x"), "not JSON"),
        malformed("a trailing NUL", format!("{BANANA}\0"), "not JSON"),
        malformed("two objects", format!("{BANANA}{BANANA}"), "not JSON"),
        malformed("two objects on two lines", format!("{BANANA}\n{BANANA}"), "line 2, column 1: nothing may follow"),
        malformed("two lists", format!("[{BANANA}][{BANANA}]"), "not JSON"),
        malformed("a byte order mark", format!("\u{feff}{BANANA}"), "byte order mark"),
        malformed("UTF-16", BANANA.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), "not JSON"),
        malformed("bad UTF-8 in an id", b"{\"tenant_id\":\"\xe9\"}".to_vec(), "not UTF-8 from byte 14"),
        malformed("a byte that is never UTF-8", [BANANA.as_bytes(), b"\xff"].concat(), "not UTF-8 from byte 84"),
        malformed("an overlong encoding", b"{\"tenant_id\":\"\xc0\x80\"}".to_vec(), "not UTF-8 from byte 14"),
        malformed("a surrogate in UTF-8", b"{\"tenant_id\":\"\xed\xa0\x80\"}".to_vec(), "not UTF-8 from byte 14"),
        malformed("a lone surrogate", with("tenant_id", r#""\ud800""#), "not JSON"),
        malformed("surrogates the wrong way round", with("tenant_id", r#""\udc00\ud800""#), "not JSON"),
        malformed("half a surrogate pair", with("product_sku", r#""\ud83dx""#), "not JSON"),
        malformed("an unknown escape", with("tenant_id", r#""\x41""#), "not JSON"),
        malformed("a raw control character", with("tenant_id", "\"a\nb\""), "not JSON"),
        malformed("a raw NUL", with("pulse_id", "\"a\0b\""), "not JSON"),
        malformed("arrays 100000 deep", "[".repeat(100_000), "not JSON"),
        malformed("objects 100000 deep", r#"{"a":"#.repeat(100_000), "not JSON"),
        malformed("NaN", amount("NaN"), "not JSON"),
        malformed("Infinity", amount("Infinity"), "not JSON"),
        malformed("minus Infinity", amount("-Infinity"), "not JSON"),
        malformed("hexadecimal", amount("0x10"), "not JSON"),
        malformed("a plus", amount("+1"), "not JSON"),
        malformed("a leading zero", amount("01"), "not JSON"),
        malformed("no digit before the point", amount(".5"), "not JSON"),
        malformed("no digit behind the point", amount("5."), "not JSON"),
        malformed("an empty exponent", amount("1e"), "not JSON"),
        malformed("an underscore", amount("1_000"), "not JSON"),
        malformed("a comma for a point", amount("1,5"), "not JSON"),
    ]);
}

#[test]
fn what_is_json_but_no_pulse_is_refused() {
    let mut cases = vec![
        invalid("null", "null", "must be a JSON object"),
        invalid("a number", "1", "must be a JSON object"),
        invalid("a fraction", "-1.5e3", "must be a JSON object"),
        invalid("a string", r#""pulse""#, "must be a JSON object"),
        invalid("true", "true", "must be a JSON object"),
        invalid("an array in an array", "[[]]", "must be a JSON object"),
        invalid("null in an array", format!("[{},null]", amount("1")), r#""index":1"#),
        invalid("an empty object", "{}", "tenant_id"),
        invalid("one bad among good ones", format!("[{0},{1},{0}]", amount("1"), amount("0")), r#""index":1"#),
        invalid("a member twice", BANANA.replace('}', r#","tenant_id":"b"}"#), "must be given once"),
        invalid("a member twice, the same", BANANA.replace('}', r#","use_unit":"KB"}"#), "must be given once"),
        invalid("a member twice, once escaped", BANANA.replace('}', r#","\u0074enant_id":"b"}"#), "must be given once"),
        invalid("both names of the unit", BANANA.replace('}', r#","use_unity":"KB"}"#), "must be given once"),
        invalid("a member null and given", BANANA.replace('}', r#","used_amount":null}"#), "must be given once"),
        invalid("a member in another case", BANANA.replace("tenant_id", "Tenant_Id"), "tenant_id"),
    ];
    for (member, wrong) in [
        ("tenant_id", &["5", "true", "null", "[]", "{}", r#"["a"]"#][..]),
        ("product_sku", &["0.5", "false", "null", "[]", "{}"]),
        ("use_unit", &["1", "true", "null", "[]", "{}"]),
        ("pulse_id", &["1", "true", "[]", "{}"]),
        ("used_amount", &["true", "null", "[1]", "{}", r#"{"$numberDecimal":"1"}"#]),
    ] {
        cases.extend(wrong.iter().map(|value| invalid("a wrong type", with(member, value), member)));
    }
    for unit in ["TB", "kb", "Kb", "KB ", " KB", "KB/Sec", "KBxsec", "KB/s", "", "KB\\u0000", "Ｋ"] {
        cases.push(invalid("an unknown unit", with("use_unit", &text(unit)), "use_unit"));
    }
    for member in ["tenant_id", "product_sku", "pulse_id"] {
        for id in ["", "a\\u0000b", "a\\u0007b", "\\n", "\\u007f", "\\u0085", "\\t"] {
            cases.push(invalid("an id that is empty or has control characters", with(member, &text(id)), member));
        }
        for id in ["a".repeat(129), "é".repeat(65), "\\u20ac".repeat(43), "😀".repeat(33), "x".repeat(1_000_000)] {
            cases.push(invalid("an id too long", with(member, &text(&id)), member));
        }
    }
    for member in ["tenant_id", "product_sku", "used_amount", "use_unit"] {
        cases.push(invalid("a missing member", without(member), member));
    }
    refuses(&cases);
}

#[test]
fn amounts_that_are_none_are_refused() {
    let mut cases = vec![
        invalid("10 MB of digits", amount(&"9".repeat(TEN_MILLION)), "used_amount"),
        invalid("10 MB of digits in a string", amount(&text(&"9".repeat(TEN_MILLION))), "used_amount"),
        invalid("10 MB of zeros behind the point", amount(&format!("0.{}1", "0".repeat(TEN_MILLION))), "used_amount"),
        invalid("10 MB of exponent", amount(&format!("1e{}", "9".repeat(TEN_MILLION))), "used_amount"),
        invalid("10 MB of negative exponent", amount(&format!("1e-{}", "9".repeat(TEN_MILLION))), "used_amount"),
    ];
    for token in [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "0e5",
        "0e400",
        "-1",
        "-1e-9",
        "1e400",
        "1e18",
        "1E+18",
        "1000000000000000000",
        "999999999999999999.9999999999",
        "1e-10",
        "5e-10",
        "0.0000000005",
        "1e-999999999",
        "1e999999999",
        "1e-99999999999999999999",
    ] {
        cases.push(invalid("a number that is no amount", amount(token), "used_amount"));
        cases.push(invalid("a string that is no amount", amount(&text(token)), "used_amount"));
    }
    for content in [
        "", " ", " 1", "1 ", "1\\n", "+1", "01", ".5", "5.", "1e", "0x10", "NaN", "nan", "Infinity", "inf", "1,5",
        "1_000", "1.2.3", "١", "１", "one", "1e1e1", "--1", "1\\u0000",
    ] {
        cases.push(invalid("a string that is no number", amount(&text(content)), "used_amount"));
    }
    refuses(&cases);
}

#[test]
fn wrong_headers_are_refused() {
    let content = |content_type, name| Case { content_type, ..case(name, BANANA, 415, "content-type", content_type) };
    refuses(&[
        content("text/plain", "plain text"),
        content("application/xml", "XML"),
        content("application/x-www-form-urlencoded", "a form"),
        content("multipart/form-data", "a form of many parts"),
        content("application/jsonp", "almost JSON"),
        content("application/json, text/plain", "two types"),
    ]);
    let ingestor = Ingestor::start(&[]);
    for encoding in ["br", "deflate", "gzip, gzip", "zstd"] {
        ingestor.post_with(&[("Content-Encoding", encoding)], BANANA).problem(415);
    }
    for key in ["", &"k".repeat(129)] {
        ingestor.post_with(&[("Idempotency-Key", key)], BANANA).problem(400);
    }
    assert_eq!(ingestor.ledger()["units"], serde_json::json!([]));
}

#[test]
fn lines_are_refused_one_by_one() {
    let good = amount("1");
    let lines = |name, body: String, part| Case { content_type: NDJSON, ..invalid(name, body, part) };
    refuses(&[
        lines("a broken line", format!("{good}\n{{\n{good}"), r#""index":1"#),
        lines(
            "an open line",
            format!("{good}\n{{\n{good}"),
            "the line is not JSON, column 1: it ends before the object",
        ),
        lines("a broken line among blank ones", format!("\r\n\r\n{good}\r\n\r\n{{\r\n"), r#""index":1"#),
        lines("two objects on a line", format!("{good}{good}\n"), r#""index":0"#),
        lines("an array on a line", format!("[{good}]\n"), "must be a JSON object"),
        lines("an object over two lines", good.replace(",\"product", ",\n\"product"), r#""index":1"#),
        lines("a line that is no pulse", format!("{good}\nnull\n"), r#""index":1"#),
        lines("a deep line", format!("{good}\n{}\n", "[".repeat(100_000)), r#""index":1"#),
        Case { content_type: NDJSON, ..malformed("no line", "\n\r\n \n", "empty") },
        Case { content_type: NDJSON, ..malformed("bad UTF-8", b"\xfe\n".to_vec(), "not UTF-8 from byte 0") },
    ]);
}

/// Bodies that look wrong and are right, with what each adds.
#[test]
fn odd_but_good_bodies_are_counted() {
    let ingestor = Ingestor::start(&[("MAX_BODY_BYTES", MAX_BODY_BYTES), ("REQUEST_TIMEOUT", "60s")]);
    let counted = |token: &str| pulse("odd", token);
    let mut expected = 0u128;
    for (body, nanos) in [
        (format!(" \t\r\n{}\r\n ", counted("1")), 1_000_000_000),
        (counted("1E0"), 1_000_000_000),
        (counted("0.000000001e9"), 1_000_000_000),
        (counted("\"1e-9\""), 1),
        (counted("\"\\u0031\""), 1_000_000_000),
        (counted("1.0000000005"), 1_000_000_000),
        (counted("1.0000000015"), 1_000_000_002),
        (counted("1.00000000050000000000000000000000000000001"), 1_000_000_001),
        (counted("6e-10"), 1),
        (counted("999999999999999999.999999999"), 999_999_999_999_999_999_999_999_999),
        (counted(&format!("1.{}", "0".repeat(TEN_MILLION))), 1_000_000_000),
        (counted(&format!("0.0000000005{}1", "0".repeat(1_000_000))), 1),
        (counted(&format!("1e{}0", "0".repeat(1_000))), 1_000_000_000),
        (counted("1").replace("odd", &"a".repeat(128)), 1_000_000_000),
        (counted("1").replace("odd", &"é".repeat(64)), 1_000_000_000),
        (counted("1").replace("odd", &"😀".repeat(32)), 1_000_000_000),
        (counted("1").replace("odd", &r"\ud83d\ude00".repeat(32)), 1_000_000_000),
        (counted("1").replace("odd", "a:b%00/{}*?[]\\\"\\\\"), 1_000_000_000),
        (counted("1").replace("odd", "\u{feff}\u{200b}\u{202e}"), 1_000_000_000),
        (
            counted("1").replace('}', &format!(r#","x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000))),
            1_000_000_000,
        ),
        (counted("1").replace('}', r#","x":1e400,"y":[{"tenant_id":"b"}],"tenant_Id":0}"#), 1_000_000_000),
        (counted("1").replace('}', r#","pulse_id":null}"#), 1_000_000_000),
        (counted("1").replace("tenant_id", r"\u0074enant_id"), 1_000_000_000),
    ] {
        let response = ingestor.post(&body);
        assert_eq!(response.status, 204, "{body:.80}: {}", response.text());
        expected += nanos;
        let known = crate::support::pulses::nanos(&ingestor.ledger_kb("acknowledged"));
        assert_eq!(known, expected, "{body:.80}");
    }
}

#[test]
fn a_lenient_request_counts_what_is_good() {
    let ingestor = Ingestor::start(&[]);
    let lenient = |content_type: &'static str| [("Content-Type", content_type), ("Prefer", "handling=lenient")];
    let (one, bad) = (pulse("a", "1"), pulse("a", "0"));
    for (content_type, body, accepted, refused) in [
        (JSON, format!("[{one},{bad},null,{one}]"), 2, vec![1, 2]),
        (NDJSON, format!("{bad}\r\n\r\n{{\r\n{one}\r\nx"), 1, vec![0, 1, 3]),
        (JSON, format!("[{bad}]"), 0, vec![0]),
        (JSON, "[]".to_owned(), 0, vec![]),
    ] {
        let response = ingestor.post_with(&lenient(content_type), &body);
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        let document = response.json();
        assert_eq!(document["accepted"], accepted, "{body}: {document}");
        let named = document["errors"].as_array().cloned().unwrap_or_default();
        let indices: Vec<_> = named.iter().map(|error| error["index"].as_u64().unwrap_or(u64::MAX)).collect();
        assert_eq!(indices, refused, "{body}: {document}");
    }
    // What is one pulse, or no JSON at all, has no good part.
    ingestor.post_with(&lenient(JSON), &bad).problem(422);
    ingestor.post_with(&lenient(JSON), &format!("[{one}")).problem(400);
    assert_eq!(ingestor.ledger_kb("acknowledged"), "3");
}
