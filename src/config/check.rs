//! One setting at a time, from its text to its value.

use std::time::Duration;

use super::{Mistakes, Secret, env_file};
use crate::signature::SigningKeys;
use crate::wording::span;

/// A setting's text, unless it is empty.
pub(super) fn given(setting: &Option<String>) -> Option<&str> {
    setting.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// Collects mistakes; a setting with a mistake goes on with its default so that the next one is checked too.
#[derive(Default)]
pub(super) struct Check {
    pub(super) mistakes: Vec<String>,
}

impl Check {
    /// With those of `.env`: what can't be read there may be why a setting is missing.
    pub(super) fn done<T>(self, checked: T) -> Result<T, Mistakes> {
        let mut mistakes = env_file::mistakes().to_vec();
        mistakes.extend(self.mistakes);
        if mistakes.is_empty() { Ok(checked) } else { Err(Mistakes(mistakes)) }
    }

    pub(super) fn mistake(&mut self, variable: &str, value: &str, why: String) {
        self.mistakes.push(format!("{variable}={value}: {why}"));
    }

    pub(super) fn number(&mut self, variable: &str, setting: &Option<String>, default: u64, min: u64, max: u64) -> u64 {
        let Some(text) = given(setting) else { return default };
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.mistake(variable, text, format!("must be a whole number from {min} to {max}"));
                default
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        variable: &str,
        setting: &Option<String>,
        default: Duration,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let Some(text) = given(setting) else { return default };
        match humantime::parse_duration(text) {
            Ok(duration) if (min..=max).contains(&duration) => duration,
            Ok(_) => {
                self.mistake(variable, text, format!("must be from {} to {}", span(min), span(max)));
                default
            }
            Err(_) => {
                self.mistake(variable, text, "must be a duration with its unit, such as 10s, 5m or 1h".to_owned());
                default
            }
        }
    }

    /// What deliveries are signed with.
    pub(super) fn signing_keys(&mut self, setting: &Option<String>, file: &Option<String>) -> Option<SigningKeys> {
        let secret = self.secret("SENDER_SIGNING_SECRET", setting, "SENDER_SIGNING_SECRET_FILE", file)?;
        let keys = SigningKeys::parse(secret.expose());
        keys.map_err(|why| self.mistakes.push(format!("SENDER_SIGNING_SECRET: {why}"))).ok()
    }

    pub(super) fn yes(&mut self, variable: &str, setting: &Option<String>) -> bool {
        match given(setting) {
            None | Some("no") => false,
            Some("yes") => true,
            Some(other) => {
                self.mistake(variable, other, "must be yes or no".to_owned());
                false
            }
        }
    }

    /// A secret given as itself or as a file that holds it. Its value never enters a message.
    pub(super) fn secret(
        &mut self,
        variable: &str,
        setting: &Option<String>,
        file_variable: &str,
        file: &Option<String>,
    ) -> Option<Secret> {
        match (given(setting), given(file)) {
            (Some(_), Some(_)) => {
                self.mistakes.push(format!("{variable} and {file_variable}: give one of them"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
                Ok(_) => {
                    self.mistake(file_variable, path, "the file is empty".to_owned());
                    None
                }
                Err(error) => {
                    self.mistake(file_variable, path, error.to_string());
                    None
                }
            },
            (None, None) => None,
        }
    }
}

/// Why batches can't be sent to a URL, if they can't.
pub(super) fn not_a_receiver(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        None => Some("must be a URL that starts with http:// or https://"),
        Some(rest) if rest.is_empty() || rest.starts_with(['/', ':', '?', '#']) => Some("has no host"),
        Some(_) => url.parse::<ureq::http::Uri>().is_err().then_some("is no URL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_url_has_a_scheme_and_a_host() {
        let why = |url: &str| not_a_receiver(url).unwrap_or_default();
        for url in ["http://", "https:///process", "http://:8090/process"] {
            assert_eq!(why(url), "has no host", "{url}");
        }
        for url in ["localhost:8090", "ftp://receiver", "HTTP//receiver", ""] {
            assert!(why(url).contains("starts with http"), "{url}");
        }
        assert_eq!(why("http://a b/"), "is no URL");
        for url in ["http://receiver", "https://user:password@[::1]:1/process?a=b"] {
            assert_eq!(why(url), "", "{url}");
        }
    }
}
