//! The checks themselves, each on batches of its own.

use super::probe::{Answer, Letter, Probe, Seen, Signing};
use super::{Check, Outcome, Subject};
use crate::outbox::attempt::Meaning;
use crate::wording::{counted, span};

/// What a check found.
type Found = (Outcome, String);

/// A check's name, its promise, and how it is tried.
type Trial = (&'static str, &'static str, fn(&Probe<'_>) -> Found);

const TRIALS: [Trial; 15] = [
    ("takes-a-batch", "answer 2xx to a batch that it has counted", takes_a_batch),
    ("same-id-again", "answer 2xx to a batch that it knows, and add nothing", same_id_again),
    ("same-id-at-once", "count a batch once when it comes twice at the same time", same_id_at_once),
    ("answer-not-read", "count a batch once when its answer was lost and its sender comes again", answer_not_read),
    ("other-id-same-body", "count equal bodies under two ids twice: they are two windows' usage", other_id_same_body),
    ("unknown-fields", "ignore members and headers that it does not know", unknown_fields),
    ("hours", "count a tenant's SKU once for each hour that it comes with, and once without", hours),
    ("corrections", "take what is taken back, in a batch with usage", corrections),
    ("large-numbers", "keep all digits of an amount, up to 27 before the point and 9 after it", large_numbers),
    ("any-text", "take any text for a tenant or a SKU", any_text),
    ("full-batch", "take the largest batch in time", full_batch),
    ("many-at-once", "take as many batches at once as are sent", many_at_once),
    ("no-json", "answer 400 or 422 to a body that it can't read, never 2xx", no_json),
    ("signature", "count only what is signed, answer 401 to anything else, and forget what it refused", signature),
    ("failure-then-success", "count a batch once that it did not take at first", failure_then_success),
];

/// Runs every check. The last two judge what the others saw.
pub(super) fn all(subject: &Subject) -> Vec<Check> {
    let probe = Probe::new(subject);
    let mut checks = Vec::new();
    for (name, promise, trial) in TRIALS {
        let (outcome, detail) = trial(&probe);
        checks.push(Check { name, promise, outcome, detail });
        // Without a receiver there, the rest would take its time-outs one after the other and say the same.
        if !probe.was_confirmed.get() {
            return checks;
        }
    }
    let (outcome, detail) = in_time(&probe);
    checks.push(Check { name: "in-time", promise: "answer within DELIVERY_TIMEOUT", outcome, detail });
    checks
}

fn pass(detail: impl Into<String>) -> Found {
    (Outcome::Pass, detail.into())
}

fn warn(detail: impl Into<String>) -> Found {
    (Outcome::Warn, detail.into())
}

fn fail(detail: impl Into<String>) -> Found {
    (Outcome::Fail, detail.into())
}

/// What a confirmed batch must have added, if that can be seen.
fn counted_as(probe: &Probe<'_>, letter: &Letter, answer: &Answer, expected: &str) -> Found {
    if !answer.is_confirmation() {
        return fail(answer.said());
    }
    match probe.look(letter, expected) {
        Seen::Expected => pass(format!("{}, and counted {expected}", answer.said())),
        Seen::Other(what) => fail(format!("{}, but {what}", answer.said())),
        Seen::Nothing => warn(format!("{}; what was counted can't be seen without --totals-url", answer.said())),
    }
}

fn takes_a_batch(probe: &Probe<'_>) -> Found {
    let letter = probe.letter("first", &["1.5"]);
    let answer = probe.deliver(&letter, &[]);
    match counted_as(probe, &letter, &answer, "1.5") {
        // That it is counted is not asked here.
        (Outcome::Warn, _) => pass(answer.said()),
        found => found,
    }
}

fn same_id_again(probe: &Probe<'_>) -> Found {
    let letter = probe.letter("again", &["2", "0.5"]);
    let first = probe.deliver(&letter, &[]);
    if !first.is_confirmation() {
        return fail(first.said());
    }
    counted_as(probe, &letter, &probe.deliver(&letter, &[]), "2.5")
}

fn same_id_at_once(probe: &Probe<'_>) -> Found {
    let letter = probe.letter("at once", &["4"]);
    let answers = probe.post_together(&[&letter, &letter, &letter, &letter]);
    if let Some(refused) =
        answers.iter().find(|answer| matches!(answer.status, Some(300..=407 | 410..=424 | 426..=428)))
    {
        return fail(refused.said());
    }
    counted_as(probe, &letter, &probe.deliver(&letter, &[]), "4")
}

fn answer_not_read(probe: &Probe<'_>) -> Found {
    let letter = probe.letter("not read", &["8"]);
    if !probe.send_and_leave(&letter) {
        return (Outcome::Skip, "needs http, not https".to_owned());
    }
    counted_as(probe, &letter, &probe.deliver(&letter, &[]), "8")
}

fn other_id_same_body(probe: &Probe<'_>) -> Found {
    let letter = probe.letter("other id", &["3"]);
    let other = probe.another(&letter);
    let first = probe.deliver(&letter, &[]);
    if !first.is_confirmation() {
        return fail(first.said());
    }
    counted_as(probe, &letter, &probe.deliver(&other, &[]), "6")
}

fn unknown_fields(probe: &Probe<'_>) -> Found {
    let mut letter = probe.letter("unknown", &["5"]);
    let more = r#","x_added_later":{"a":[1,null,"]"]},"period_start":"2026-03-01T10:00:00Z""#;
    letter.body = format!("[{}]", probe.aggregate(&letter.tenant, "sku-0", "5", more));
    let headers =
        [("Ingestor-Added-Later", "value"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")];
    counted_as(probe, &letter, &probe.deliver(&letter, &headers), "5")
}

fn hours(probe: &Probe<'_>) -> Found {
    let mut letter = probe.letter("hours", &["5", "7", "9"]);
    let of = |amount: &str, more: &str| probe.aggregate(&letter.tenant, "sku-0", amount, more);
    let hour = |hour: u8| format!(r#","period_start":"2026-03-01T{hour}:00:00Z""#);
    letter.body = format!("[{},{},{}]", of("5", ""), of("7", &hour(10)), of("9", &hour(11)));
    counted_as(probe, &letter, &probe.deliver(&letter, &[]), "21")
}

fn corrections(probe: &Probe<'_>) -> Found {
    let mut letter = probe.letter("corrections", &["9", "2"]);
    let usage = probe.aggregate(&letter.tenant, "sku-0", "9", "");
    letter.body = format!("[{usage},{}]", probe.aggregate(&letter.tenant, "sku-0", "-2", r#","kind":"correction""#));
    let answer = probe.deliver(&letter, &[]);
    if answer.meaning() == Meaning::Refused {
        let why = "batches with a correction in them would go to the dead letters, once clients send any";
        return warn(format!("{}: {why}", answer.said()));
    }
    // How credits are shown is the receiver's matter.
    match counted_as(probe, &letter, &answer, "7") {
        (Outcome::Fail, detail) if answer.is_confirmation() => warn(detail),
        found => found,
    }
}

fn large_numbers(probe: &Probe<'_>) -> Found {
    let amounts = ["123456789012345678901234.123456789", "9007199254740993", "0.000000001"];
    let letter = probe.letter("large", &amounts);
    counted_as(probe, &letter, &probe.deliver(&letter, &[]), "123456798019544933642227.12345679")
}

fn any_text(probe: &Probe<'_>) -> Found {
    let mut letter = probe.letter("text", &["1"]);
    letter.tenant += r#" São Tomé:|%2F"\<'&;-- "#;
    let long = "é".repeat(64);
    let skus = ["maçã", "日本語 🧾", " ", "null", "a:b|c%00", r#""quoted" \ "#, &long];
    let rows: Vec<String> = skus.iter().map(|sku| probe.aggregate(&letter.tenant, sku, "1", "")).collect();
    letter.aggregates = rows.len();
    letter.body = format!("[{}]", rows.join(","));
    counted_as(probe, &letter, &probe.deliver(&letter, &[]), "7")
}

fn full_batch(probe: &Probe<'_>) -> Found {
    let size = probe.subject.batch_size;
    let letter = probe.letter("full", &vec!["0.1"; size]);
    let expected = format!("{}.{}", size / 10, size % 10);
    let (outcome, detail) = counted_as(probe, &letter, &probe.deliver(&letter, &[]), &expected);
    (outcome, format!("{}: {detail}", counted(size as u64, "aggregate", "aggregates")))
}

fn many_at_once(probe: &Probe<'_>) -> Found {
    let first = probe.letter("many", &["1"]);
    let others: Vec<Letter> = (1..probe.subject.concurrency).map(|_| probe.another(&first)).collect();
    let letters: Vec<&Letter> = std::iter::once(&first).chain(&others).collect();
    let _ = probe.post_together(&letters);
    // Whoever was put off is delivered now; nothing of it may be lost or doubled.
    let answers: Vec<Answer> = letters.iter().map(|letter| probe.deliver(letter, &[])).collect();
    let unconfirmed = answers.iter().find(|answer| !answer.is_confirmation());
    let expected = letters.len().to_string();
    counted_as(probe, &first, unconfirmed.unwrap_or(&answers[0]), &expected)
}

fn no_json(probe: &Probe<'_>) -> Found {
    let mut letter = probe.letter("no json", &["1"]);
    letter.body.pop();
    let answer = probe.post(&letter, Signing::Honest, &[]);
    match answer.meaning() {
        Meaning::Refused => pass(answer.said()),
        Meaning::Confirmed => fail(format!("{}: what it can't read would be deleted as delivered", answer.said())),
        Meaning::Passing => warn(format!("{}: such a batch would be sent again for ever", answer.said())),
        Meaning::Misconfigured => warn(format!("{}: such a batch would pause all deliveries", answer.said())),
    }
}

fn signature(probe: &Probe<'_>) -> Found {
    if probe.subject.signing_keys.is_none() {
        return (Outcome::Skip, "no signing secret was given".to_owned());
    }
    let letter = probe.letter("signed", &["7"]);
    let attempts = [
        (Signing::Missing, "without a signature"),
        (Signing::OtherSecret, "signed with another secret"),
        (Signing::OtherBody, "signed for another body"),
        (Signing::Stale, "signed an hour ago"),
    ];
    let mut unusual = None;
    for (signing, how) in attempts {
        let answer = probe.post(&letter, signing, &[]);
        match answer.status {
            Some(200..=299) => return fail(format!("{} to a batch {how}", answer.said())),
            Some(401 | 403) => {}
            _ => {
                unusual =
                    Some(format!("{} to a batch {how}; 401 pauses deliveries and condemns no batch", answer.said()));
            }
        }
    }
    match (counted_as(probe, &letter, &probe.deliver(&letter, &[]), "7"), unusual) {
        ((Outcome::Fail, detail), _) => fail(format!("the same id, then signed well: {detail}")),
        (_, Some(unusual)) => warn(unusual),
        ((outcome, detail), None) => (outcome, format!("forgeries refused; signed well: {detail}")),
    }
}

fn failure_then_success(probe: &Probe<'_>) -> Found {
    match probe.passing_failures.get() {
        0 => (Outcome::Skip, "no attempt failed, so there was nothing to see".to_owned()),
        // Whatever never succeeded has failed its own check.
        failures => {
            let letter = probe.letter("after failures", &["1", "1"]);
            let (outcome, detail) = counted_as(probe, &letter, &probe.deliver(&letter, &[]), "2");
            let seen = counted(failures as u64, "attempt", "attempts");
            (outcome, format!("{seen} failed and came again; {detail}"))
        }
    }
}

fn in_time(probe: &Probe<'_>) -> Found {
    let (slowest, limit) = (probe.slowest.get(), probe.subject.timeout);
    let slowest_ms = std::time::Duration::from_millis(slowest.as_millis() as u64);
    let detail = format!("the slowest answer took {}, the limit is {}", span(slowest_ms), span(limit));
    match slowest {
        _ if slowest >= limit => fail(detail),
        _ if slowest > limit / 2 => warn(detail),
        _ => pass(detail),
    }
}
