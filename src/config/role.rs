//! The halves of the program, and what each must be given.

use super::check::Check;
use super::*;
use crate::keys::ApiKeys;

/// Which half of the work a process does. Any number of processes of each kind may share one Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Both.
    #[default]
    Serve,
    /// Takes pulses, and never asks for the lease.
    Ingest,
    /// Closes windows, makes batches and delivers them; takes no pulses.
    Send,
}

impl Role {
    /// Whether it takes pulses.
    pub const fn takes_pulses(self) -> bool {
        matches!(self, Role::Serve | Role::Ingest)
    }

    /// Whether it asks for the lease.
    pub const fn delivers(self) -> bool {
        matches!(self, Role::Serve | Role::Send)
    }

    /// The subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Serve => "serve",
            Role::Ingest => "ingest",
            Role::Send => "send",
        }
    }
}

impl RawSettings {
    /// As [`RawSettings::validate`], for the commands that serve: it also reads the API keys. The other commands need
    /// none, and must work while somebody edits them.
    ///
    /// # Errors
    /// All [`Mistakes`] at once.
    pub fn validate_to_serve(&self, role: Role) -> Result<(Config, ApiKeys), Mistakes> {
        let mut check = Check::default();
        let config = Config { role, ..self.config(&mut check) };
        let keys = config.intake.api_keys_file.as_deref().map_or_else(ApiKeys::open, |path| {
            ApiKeys::load(path).unwrap_or_else(|error| {
                check.mistake("API_KEYS_FILE", &path.display().to_string(), error.to_string());
                ApiKeys::open()
            })
        });
        check_role(&config, &mut check);
        check.done((config, keys))
    }
}

fn check_role(config: &Config, check: &mut Check) {
    let command = config.role.name();
    // A mistake in the settings of Redis leaves the embedded store as the choice; it has been named already.
    if config.role != Role::Serve && matches!(config.store, StoreChoice::Embedded(_)) && check.mistakes.is_empty() {
        check.mistakes.push(format!(
            "`ingestor {command}` needs Redis (REDIS_HOST or REDIS_URL): the embedded store serves one process, \
             `ingestor serve`"
        ));
    }
    if config.role == Role::Send && config.outbox.receiver.is_none() {
        check.mistakes.push("API_URL_SENDER is not set: `ingestor send` would have nowhere to send to".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(role: Role, raw: &RawSettings) -> Vec<String> {
        raw.validate_to_serve(role).err().map(|mistakes| mistakes.0).unwrap_or_default()
    }

    #[test]
    fn the_halves_need_redis_and_the_sender_a_receiver() {
        let alone = RawSettings::default();
        assert_eq!(mistakes(Role::Serve, &alone), [""; 0]);
        assert!(mistakes(Role::Ingest, &alone)[0].starts_with("`ingestor ingest` needs Redis"));
        let sender = mistakes(Role::Send, &alone);
        assert!(sender.len() == 2 && sender[1].starts_with("API_URL_SENDER is not set"), "{sender:?}");
        let shared = RawSettings { redis_host: Some("localhost".to_owned()), ..alone };
        assert_eq!(mistakes(Role::Ingest, &shared), [""; 0]);
        assert_eq!(mistakes(Role::Send, &shared).len(), 1);
        let sending = RawSettings { api_url_sender: Some("http://localhost/process".to_owned()), ..shared };
        assert_eq!(mistakes(Role::Send, &sending), [""; 0]);
    }

    #[test]
    fn a_mistake_is_not_followed_by_its_own_shadow() {
        let raw = RawSettings { redis_url_file: Some("/no/such/file".to_owned()), ..RawSettings::default() };
        assert_eq!(mistakes(Role::Ingest, &raw).len(), 1);
    }
}
