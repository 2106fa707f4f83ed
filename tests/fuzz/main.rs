//! Fuzz tests that run on stable: two seconds a target in a normal test run, `FUZZ_SECONDS` of them when asked.
//!
//! What once failed is kept: as bytes in `seeds/head`, as proptest's own seeds in `seeds/*.txt`.

// How `tiny_http` reads what has passed the door.
mod library;
// The targets.
mod amount;
mod head;
mod key;
mod pulses;

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseResult, TestRunner};

const SECONDS_BY_DEFAULT: u64 = 2;
/// Cases between two looks at the clock.
const CASES: u32 = 100;

/// Tries inputs until the time is over, and the kept seeds before them.
fn fuzz<S: Strategy>(seeds: &'static str, strategy: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|value| value.parse().expect("FUZZ_SECONDS is a number"));
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS_BY_DEFAULT));
    let config = Config {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
        max_shrink_iters: 100_000,
        ..Config::default()
    };
    let mut cases = 0u64;
    while Instant::now() < deadline {
        let outcome = TestRunner::new(config.clone()).run(strategy, &test);
        outcome.unwrap_or_else(|error| panic!("after {cases} cases: {error}"));
        cases += u64::from(CASES);
    }
    println!("{seeds}: {cases} cases");
}
