//! `POST /ingest`: which bodies mean what, and what each is answered.

use serde_json::json;

use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, list, pulse, pulse_with_id};

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

#[test]
fn the_readmes_pulse_is_stored() {
    let ingestor = Ingestor::start(&[]);
    let response = ingestor.post(BANANA);
    assert_eq!((response.status, response.text().as_str()), (204, ""));
    assert_eq!(ingestor.ledger_kb("open"), "307");
}

#[test]
fn the_manuals_slip_is_understood() {
    let ingestor = Ingestor::start(&[]);
    assert_eq!(ingestor.post(&BANANA.replace("use_unit", "use_unity")).status, 204);
    assert_eq!(ingestor.ledger_kb("open"), "307");
}

#[test]
fn a_body_without_a_content_type_is_json() {
    let ingestor = Ingestor::start(&[]);
    assert_eq!(ingestor.post_with(&[], BANANA).status, 204);
}

#[test]
fn the_path_with_its_version_is_the_same() {
    let ingestor = Ingestor::start(&[]);
    let bytes = crate::support::http::request("POST", "/v1/ingest?from=test", &[], BANANA.as_bytes());
    assert_eq!(ingestor.exchange(&bytes).status, 204);
    assert_eq!(ingestor.ledger_kb("open"), "307");
}

#[test]
fn lists_are_counted() {
    let ingestor = Ingestor::start(&[]);
    let pulses = [pulse("a", "1"), pulse("b", "2.5"), pulse("a", "\"0.25\"")];
    let array = ingestor.post(&list(&pulses));
    assert_eq!((array.status, array.json()), (200, json!({"accepted": 3, "duplicates": 0})));
    let lines = ingestor.post_with(&[NDJSON], &format!("{}\r\n\n{}\n", pulses[0], pulses[1]));
    assert_eq!((lines.status, lines.json()), (200, json!({"accepted": 2, "duplicates": 0})));
    let empty = ingestor.post("[]");
    assert_eq!((empty.status, empty.json()), (200, json!({"accepted": 0, "duplicates": 0})));
    assert_eq!(ingestor.ledger_kb("open"), "7.25");
}

#[test]
fn an_invalid_pulse_is_refused_with_all_its_mistakes() {
    let ingestor = Ingestor::start(&[]);
    let response = ingestor.post(r#"{"tenant_id":"","used_amount":-1,"use_unit":"TB"}"#);
    let problem = response.problem(422);
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["tenant_id", "product_sku", "used_amount", "use_unit"]);
    assert_eq!(ingestor.ledger()["units"], json!([]));
}

#[test]
fn one_invalid_pulse_spoils_its_list() {
    let ingestor = Ingestor::start(&[]);
    let problem = ingestor.post(&list(&[pulse("a", "1"), pulse("a", "0"), pulse("a", "2")])).problem(422);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{problem}");
    assert_eq!((&errors[0]["index"], &errors[0]["field"]), (&json!(1), &json!("used_amount")));
    assert!(errors[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    let lines = ingestor.post_with(&[NDJSON], &format!("{}\n{{\n{}", pulse("a", "1"), pulse("a", "2")));
    assert_eq!(lines.problem(422)["errors"][0]["index"], 1);
    assert_eq!(ingestor.ledger()["units"], json!([]));
}

#[test]
fn a_lenient_client_gets_the_good_ones_stored() {
    let ingestor = Ingestor::start(&[]);
    let body = list(&[pulse("a", "1"), pulse("a", "0"), pulse("a", "2")]);
    let response = ingestor.post_with(&[("Prefer", "respond-async, handling=lenient")], &body);
    let answer = response.json();
    assert_eq!((response.status, &answer["accepted"], &answer["duplicates"]), (200, &json!(2), &json!(0)));
    assert_eq!(answer["errors"][0]["index"], 1);
    assert_eq!(ingestor.ledger_kb("open"), "3");
    // One pulse that is no list is good or it is not.
    ingestor.post_with(&[("Prefer", "handling=lenient")], &pulse("a", "0")).problem(422);
}

#[test]
fn what_is_no_json_is_malformed() {
    let ingestor = Ingestor::start(&[]);
    for body in ["{", "[", "nope", "\u{feff}{}", " ", &format!("{BANANA}{BANANA}"), &"[".repeat(500)] {
        ingestor.post(body).problem(400);
    }
    ingestor.exchange(&crate::support::http::request("POST", "/ingest", &[], b"{\"tenant_id\":\"\xff\"}")).problem(400);
    ingestor.post("").problem(400);
    assert_eq!(ingestor.ledger()["units"], json!([]));
}

#[test]
fn gzip_bodies_are_read_and_bounded() {
    let ingestor = Ingestor::start(&[("MAX_BODY_BYTES", "100000")]);
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        encoder.finish().unwrap()
    };
    let send = |name: &str, body: &[u8]| {
        ingestor.exchange(&crate::support::http::request("POST", "/ingest", &[("Content-Encoding", name)], body))
    };
    for name in ["gzip", "GZIP", "x-gzip"] {
        assert_eq!(send(name, &gzip(pulse("a", "1.5").as_bytes())).status, 204);
    }
    assert_eq!(send("gzip", &gzip(list(&vec![pulse("a", "1"); 1000]).as_bytes())).status, 200);
    assert_eq!(ingestor.ledger_kb("open"), "1004.5");
    // Ten million bytes out of ten thousand, on the way in like any other.
    let bomb = send("gzip", &gzip(&vec![b' '; 10_000_000]));
    assert!(bomb.problem(413)["type"].as_str().is_some_and(|uri| uri.ends_with("body-too-long")));
    let cut_off = gzip(pulse("a", "1").as_bytes());
    send("gzip", &cut_off[..cut_off.len() - 1]).problem(400);
    send("gzip", pulse("a", "1").as_bytes()).problem(400);
    // What is not said to be compressed is not looked into.
    send("identity", &gzip(pulse("a", "1").as_bytes())).problem(400);
    let other = send("gzip, gzip", &gzip(pulse("a", "1").as_bytes()));
    other.problem(415);
    assert_eq!(other.header("Accept-Encoding"), Some("gzip"));
    assert_eq!(ingestor.ledger_kb("acknowledged"), "1004.5");
}

#[test]
fn other_types_and_encodings_are_refused() {
    let ingestor = Ingestor::start(&[]);
    for value in ["text/plain", "application/xml", "application/jsonp"] {
        ingestor.post_with(&[("Content-Type", value)], BANANA).problem(415);
    }
    ingestor.post_with(&[("Content-Encoding", "br")], BANANA).problem(415);
    assert_eq!(ingestor.ledger()["units"], json!([]));
    assert_eq!(ingestor.post_with(&[("Content-Type", "Application/JSON; charset=utf-8")], BANANA).status, 204);
    assert_eq!(ingestor.post_with(&[("Content-Encoding", "identity")], BANANA).status, 204);
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let ingestor = Ingestor::start(&[("MAX_BODY_BYTES", "2000")]);
    let pulse = pulse("a", "1");
    let fits = format!("{pulse:<2000}");
    assert_eq!(ingestor.post(&fits).status, 204);
    ingestor.post(&format!("{fits} ")).problem(413);
    assert_eq!(ingestor.ledger_kb("open"), "1");
}

#[test]
fn a_pulse_id_counts_once() {
    let ingestor = Ingestor::start(&[]);
    let pulse = pulse_with_id("a", "5", "p-1");
    assert_eq!(ingestor.post(&pulse).status, 204);
    let again = ingestor.post(&pulse);
    assert_eq!((again.status, again.json()), (200, json!({"accepted": 0, "duplicates": 1})));
    let both = ingestor.post(&list(&[pulse.clone(), pulse_with_id("a", "1", "p-2")]));
    assert_eq!((both.status, both.json()), (200, json!({"accepted": 1, "duplicates": 1})));
    // Another tenant's ids are its own.
    assert_eq!(ingestor.post(&pulse_with_id("b", "1", "p-1")).status, 204);
    assert_eq!(ingestor.ledger_kb("open"), "7");
}

#[test]
fn an_id_twice_in_one_list_counts_once() {
    let ingestor = Ingestor::start(&[]);
    let twice = ingestor.post(&list(&[pulse_with_id("a", "5", "p-1"), pulse_with_id("a", "5", "p-1")]));
    assert_eq!((twice.status, twice.json()), (200, json!({"accepted": 1, "duplicates": 1})));
    assert_eq!(ingestor.ledger_kb("open"), "5");
}

#[test]
fn a_pulse_id_with_other_content_is_refused() {
    let ingestor = Ingestor::start(&[]);
    assert_eq!(ingestor.post(&pulse_with_id("a", "5", "p-1")).status, 204);
    let problem = ingestor.post(&pulse_with_id("a", "6", "p-1")).problem(422);
    assert_eq!(problem["errors"][0]["field"], "pulse_id", "{problem}");
    assert_eq!(ingestor.ledger_kb("open"), "5");
}

#[test]
fn a_list_under_one_idempotency_key_counts_once() {
    let ingestor = Ingestor::start(&[]);
    let body = list(&[pulse("a", "1"), pulse("a", "1"), pulse("b", "2")]);
    let key = [("Idempotency-Key", "k-1")];
    let first = ingestor.post_with(&key, &body);
    assert_eq!((first.status, first.json()), (200, json!({"accepted": 3, "duplicates": 0})));
    let again = ingestor.post_with(&key, &body);
    assert_eq!((again.status, again.json()), (200, json!({"accepted": 0, "duplicates": 3})));
    assert_eq!(ingestor.ledger_kb("open"), "4");
    assert_eq!(ingestor.post_with(&[("Idempotency-Key", "k-2")], &body).status, 200);
    assert_eq!(ingestor.ledger_kb("open"), "8");
}

#[test]
fn a_contradiction_is_blamed_on_what_gave_the_id() {
    let ingestor = Ingestor::start(&[]);
    let body = |amount| list(&[pulse("a", "1"), pulse("a", amount), pulse_with_id("a", amount, "own")]);
    let key = [("Idempotency-Key", "k-1")];
    assert_eq!(ingestor.post_with(&key, &body("1")).status, 200);
    let problem = ingestor.post_with(&key, &body("2")).problem(422);
    let blamed = |index: usize| (problem["errors"][index]["index"].clone(), problem["errors"][index]["field"].clone());
    assert_eq!(blamed(0), (json!(1), json!("Idempotency-Key")), "{problem}");
    assert_eq!(blamed(1), (json!(2), json!("pulse_id")), "{problem}");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(2), "{problem}");
}

#[test]
fn one_bad_pulse_is_refused_even_if_the_request_is_lenient() {
    let ingestor = Ingestor::start(&[]);
    ingestor.post_with(&[("Prefer", "handling=lenient")], &pulse("a", "0")).problem(422);
}

#[test]
fn amounts_keep_all_their_digits() {
    let ingestor = Ingestor::start(&[]);
    for amount in ["123456789012345678.123456789", "0.000000001", "1e-9", "\"9007199254740993\""] {
        assert_eq!(ingestor.post(&pulse("a", amount)).status, 204, "{amount}");
    }
    assert_eq!(ingestor.ledger_kb("open"), "132463988267086671.123456791");
    for amount in ["1000000000000000000", "1e400", "\"1 \"", "true", "null", "\"NaN\"", "0e5"] {
        ingestor.post(&pulse("a", amount)).problem(422);
    }
}
