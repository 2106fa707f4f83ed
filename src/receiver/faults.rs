//! The receiver's misbehaviour on request, for tests of whoever delivers to it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::splitmix::SplitMix64;

/// The switches; all off by default.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Faults {
    /// Waits so long after committing, before it answers.
    #[serde(serialize_with = "duration_text")]
    pub delay: Duration,
    /// Share of batches answered with `fail_status` before anything is committed.
    pub fail_rate: f64,
    /// What those are answered.
    pub fail_status: u16,
    /// Share of batches that are committed and then not answered with a success.
    pub fail_after_commit_rate: f64,
    /// What happens to those instead.
    pub fail_after_commit_with: LateFailure,
    /// `Retry-After` of every failure answer, if not zero; sent in whole seconds, rounded up.
    #[serde(serialize_with = "duration_text")]
    pub retry_after: Duration,
    /// A batch that holds usage of this tenant is answered 422; empty for none.
    pub refuse_tenant: String,
    /// Adds a repeated batch again, as a receiver does that remembers no ids.
    pub forget: bool,
    /// Seed of the draws against the two rates.
    pub seed: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            delay: Duration::ZERO,
            fail_rate: 0.0,
            fail_status: 503,
            fail_after_commit_rate: 0.0,
            fail_after_commit_with: LateFailure::Status500,
            retry_after: Duration::ZERO,
            refuse_tenant: String::new(),
            forget: false,
            seed: 0,
        }
    }
}

/// How a batch that was committed fails nevertheless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum LateFailure {
    /// Answers 500.
    #[default]
    #[serde(rename = "500")]
    #[value(name = "500")]
    Status500,
    /// Gives no usable answer, so that the sender drops the connection.
    #[serde(rename = "close")]
    Close,
}

fn duration_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// The body of `POST /_faults`, without its nulls: the switches to change; those not named stay as they are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsPatch {
    delay: Option<String>,
    fail_rate: Option<f64>,
    fail_status: Option<u16>,
    fail_after_commit_rate: Option<f64>,
    fail_after_commit_with: Option<LateFailure>,
    retry_after: Option<String>,
    refuse_tenant: Option<String>,
    forget: Option<bool>,
    seed: Option<u64>,
}

impl Faults {
    /// These switches with those changed that a JSON object names; null puts one back to its default.
    ///
    /// # Errors
    /// What is wrong with the object, for whoever sent it.
    pub fn patched(&self, json: &[u8]) -> Result<Faults, String> {
        let mut named: Map<String, Value> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let defaults = serde_json::to_value(Faults::default()).map_err(|error| error.to_string())?;
        for (name, value) in named.iter_mut().filter(|(_, value)| value.is_null()) {
            // What has no default is no switch, and is refused as such below.
            *value = defaults[name].clone();
        }
        let patch: FaultsPatch = serde_json::from_value(Value::Object(named)).map_err(|error| error.to_string())?;
        let duration = |text: Option<String>, current| match text {
            Some(text) => humantime::parse_duration(&text).map_err(|error| format!("{text:?}: {error}")),
            None => Ok(current),
        };
        let faults = Faults {
            delay: duration(patch.delay, self.delay)?,
            fail_rate: patch.fail_rate.unwrap_or(self.fail_rate),
            fail_status: patch.fail_status.unwrap_or(self.fail_status),
            fail_after_commit_rate: patch.fail_after_commit_rate.unwrap_or(self.fail_after_commit_rate),
            fail_after_commit_with: patch.fail_after_commit_with.unwrap_or(self.fail_after_commit_with),
            retry_after: duration(patch.retry_after, self.retry_after)?,
            refuse_tenant: patch.refuse_tenant.unwrap_or_else(|| self.refuse_tenant.clone()),
            forget: patch.forget.unwrap_or(self.forget),
            seed: patch.seed.unwrap_or(self.seed),
        };
        faults.check()?;
        Ok(faults)
    }

    /// Whether every switch has a meaning.
    ///
    /// # Errors
    /// Which one has none.
    pub fn check(&self) -> Result<(), String> {
        for (name, rate) in [("fail_rate", self.fail_rate), ("fail_after_commit_rate", self.fail_after_commit_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name} must lie between 0 and 1"));
            }
        }
        if !(300..=599).contains(&self.fail_status) {
            return Err("fail_status must lie between 300 and 599".to_owned());
        }
        Ok(())
    }
}

/// The switches as they stand, and the generator that draws against them.
#[derive(Debug)]
pub(super) struct FaultPanel(Mutex<(Faults, SplitMix64)>);

/// What one batch is to suffer.
#[derive(Debug)]
pub(super) struct Drawn {
    pub faults: Faults,
    pub fail_before_commit: bool,
    pub fail_after_commit: bool,
}

impl FaultPanel {
    pub fn new(faults: Faults) -> Self {
        let random = SplitMix64::new(faults.seed);
        FaultPanel(Mutex::new((faults, random)))
    }

    pub fn current(&self) -> Faults {
        self.lock().0.clone()
    }

    /// Puts other switches in place; the draws start again from their seed.
    pub fn set(&self, faults: Faults) {
        let random = SplitMix64::new(faults.seed);
        *self.lock() = (faults, random);
    }

    /// Changes some switches, or none if the object is wrong; see [`Faults::patched`].
    pub fn patch(&self, json: &[u8]) -> Result<Faults, String> {
        let mut panel = self.lock();
        let faults = panel.0.patched(json)?;
        *panel = (faults.clone(), SplitMix64::new(faults.seed));
        Ok(faults)
    }

    /// Draws for one batch. Always two numbers, so that a switch does not move the other one's sequence.
    pub fn draw(&self) -> Drawn {
        let mut panel = self.lock();
        let (faults, random) = &mut *panel;
        let fail_before_commit = random.chance(faults.fail_rate);
        let fail_after_commit = random.chance(faults.fail_after_commit_rate);
        Drawn { faults: faults.clone(), fail_before_commit, fail_after_commit }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Faults, SplitMix64)> {
        // No code that holds the lock leaves the pair half changed, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(json: &str, expected: &str) {
        let error = Faults::default().patched(json.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let faults = Faults { refuse_tenant: "acme".to_owned(), ..Faults::default() };
        let patched = faults.patched(br#"{"delay":"2s","fail_rate":0.3,"fail_after_commit_with":"close"}"#).unwrap();
        let expected = Faults {
            delay: Duration::from_secs(2),
            fail_rate: 0.3,
            fail_after_commit_with: LateFailure::Close,
            ..faults
        };
        assert_eq!(patched, expected);
    }

    #[test]
    fn null_switches_off() {
        let faults = Faults { refuse_tenant: "acme".to_owned(), fail_rate: 0.5, forget: true, ..Faults::default() };
        let patched = faults.patched(br#"{"refuse_tenant":null,"fail_rate":null,"delay":null}"#).unwrap();
        assert_eq!(patched, Faults { forget: true, ..Faults::default() });
        check_refused(r#"{"refuse_tenants":null}"#, "unknown field");
    }

    #[test]
    fn what_it_shows_it_also_takes() {
        let faults = Faults { retry_after: Duration::from_millis(1500), forget: true, seed: 9, ..Faults::default() };
        let shown = serde_json::to_vec(&faults).unwrap();
        assert_eq!(Faults::default().patched(&shown).unwrap(), faults);
    }

    #[test]
    fn nonsense_is_refused() {
        check_refused(r#"{"fail_rate":1.5}"#, "between 0 and 1");
        check_refused(r#"{"fail_status":200}"#, "between 300 and 599");
        check_refused(r#"{"delai":"2s"}"#, "unknown field");
        check_refused(r#"{"delay":"soon"}"#, "soon");
        check_refused("[", "expected a map");
        check_refused("{", "EOF");
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draws = |panel: &FaultPanel| (0..64).map(|_| panel.draw().fail_before_commit).collect::<Vec<_>>();
        let panel = FaultPanel::new(Faults { fail_rate: 0.5, seed: 4, ..Faults::default() });
        let first = draws(&panel);
        panel.set(panel.current());
        assert_eq!(first, draws(&panel));
        assert!(first.contains(&true) && first.contains(&false));
    }
}
