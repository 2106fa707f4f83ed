//! Whether a receiver keeps what the README asks of one, tried out from where the ingestor would send.
//!
//! What a receiver has counted shows only where it can be read ([`Subject::totals_url`]); a check that would need it says
//! so and passes no judgement.

use std::time::Duration;

use serde::Serialize;

use crate::batch::AmountFormat;
use crate::config::Secret;
use crate::signature::SigningKeys;
use crate::wording::counted;

mod checks;
mod probe;

/// The receiver, and how the ingestor would talk to it.
pub struct Subject {
    /// Where batches go.
    pub url: String,
    /// Where the sums can be read, as the reference receiver's `/totals` has them.
    pub totals_url: Option<String>,
    /// Sent as the `Authorization` header.
    pub authorization: Option<Secret>,
    /// What batches are signed with.
    pub signing_keys: Option<SigningKeys>,
    /// How amounts stand in a body.
    pub amount_format: AmountFormat,
    /// Limit of one attempt.
    pub timeout: Duration,
    /// Aggregates in the largest batch.
    pub batch_size: usize,
    /// Batches sent at once.
    pub concurrency: usize,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The promise is kept, as far as can be seen.
    Pass,
    /// It may be kept, or is kept at a price.
    Warn,
    /// It is broken.
    Fail,
    /// It was not tried.
    Skip,
}

/// One promise, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// For programs.
    pub name: &'static str,
    /// What a receiver must do.
    pub promise: &'static str,
    /// What was found.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
}

/// Every check, in the order that they were made.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The receiver's address, without secrets.
    pub url: String,
    /// What was found.
    pub checks: Vec<Check>,
}

impl Report {
    /// Tries the receiver. Takes a second or two if all is well.
    pub fn of(subject: &Subject, public_url: String) -> Self {
        Report { url: public_url, checks: checks::all(subject) }
    }

    /// Whether no promise was seen broken.
    pub fn is_good(&self) -> bool {
        self.count(Outcome::Fail) == 0
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.url);
        for check in &self.checks {
            let word = match check.outcome {
                Outcome::Pass => "pass",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
                Outcome::Skip => "skip",
            };
            text += &format!("{word}  {:<21} {}\n", check.name, check.detail);
            if check.outcome == Outcome::Fail {
                text += &format!("{:<28}a receiver must {}\n", "", check.promise);
            }
        }
        let warnings = counted(self.count(Outcome::Warn) as u64, "warning", "warnings");
        text + &format!(
            "{} passed, {warnings}, {} failed, {} skipped\n",
            self.count(Outcome::Pass),
            self.count(Outcome::Fail),
            self.count(Outcome::Skip)
        )
    }

    /// For programs.
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "url": self.url,
            "conforms": self.is_good(),
            "passed": self.count(Outcome::Pass),
            "warnings": self.count(Outcome::Warn),
            "failed": self.count(Outcome::Fail),
            "skipped": self.count(Outcome::Skip),
            "checks": self.checks,
        })
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}
