//! The connections that the delivery side and operators' requests share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::connection::{IO_TIMEOUT, Link, Packed, Target, left_until};
use super::reply::{no_answer, refusal};
use crate::store::StoreError;

/// Longest wait for all of a call that writes: another connection, a second time and the scripts are worth it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of the delivery side and of operators' requests at once; a further call waits for one.
pub const LINKS_MAX: usize = 16;
/// Those of them that are kept while idle.
const IDLE_LINKS_MAX: usize = 4;

/// Whether a call may be sent a second time when its answer was lost, and what its failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only reads.
    Read,
    /// It writes, and twice is the same as once.
    Write,
    /// Twice would give another answer or another result.
    Never,
}

impl Repeat {
    /// When a call that begins now is given up.
    fn deadline(self) -> Instant {
        Instant::now() + if self == Repeat::Read { IO_TIMEOUT } else { WRITE_TIMEOUT }
    }
}

/// The connections that the delivery side and the operators' requests share: never more than [`LINKS_MAX`].
pub(super) struct Pool {
    target: Target,
    links: Mutex<Links>,
    returned: Condvar,
}

#[derive(Default)]
struct Links {
    idle: Vec<Link>,
    in_use: usize,
}

/// The right to use a connection. Dropped, it makes room for another one.
struct Seat<'p>(&'p Pool);

/// A connection on loan.
struct Loan<'p> {
    link: Link,
    seat: Seat<'p>,
}

impl Pool {
    pub(super) fn new(target: Target) -> Self {
        Pool { target, links: Mutex::default(), returned: Condvar::new() }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Runs one command.
    pub(super) fn run(&self, command: Cmd, repeat: Repeat) -> Result<Value, StoreError> {
        self.run_all(&[command], repeat)?.pop().ok_or_else(|| StoreError::Corrupt("no answer at all".to_owned()))
    }

    /// Runs commands in one round trip. Any error reply fails them all.
    pub(super) fn run_all(&self, commands: &[Cmd], repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let mut packed = Packed::default();
        commands.iter().for_each(|command| packed.add(command));
        self.run_packed(&packed, repeat)
    }

    /// As [`Pool::run_all`], for commands that were packed before.
    pub(super) fn run_packed(&self, packed: &Packed, repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let mut values = self.exchange(packed, repeat)?;
        // Redis forgets its scripts when it restarts. A refused call did nothing, so it may be sent again.
        if values.iter().any(|value| code(value) == Some("NOSCRIPT")) {
            self.load_scripts()?;
            values = self.exchange(packed, repeat)?;
        }
        for value in &values {
            if let Value::ServerError(error) = value {
                return Err(refusal(error));
            }
        }
        Ok(values)
    }

    pub(super) fn load_scripts(&self) -> Result<(), StoreError> {
        self.borrow(Repeat::Write.deadline())?.using(Link::load_scripts)
    }

    fn exchange(&self, packed: &Packed, repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let deadline = repeat.deadline();
        let mut sent = false;
        let mut tries = if repeat == Repeat::Never { 1 } else { 2 };
        let mut demoted = false;
        loop {
            let loan = match self.borrow(deadline) {
                Ok(loan) => loan,
                Err(StoreError::Unavailable(text)) if sent && repeat == Repeat::Write => {
                    return Err(StoreError::Unknown(text));
                }
                Err(error) => return Err(error),
            };
            let exchange = |link: &mut Link| link.set_limit(left_until(deadline)).and_then(|()| link.exchange(packed));
            match loan.using(exchange) {
                // A master that became a replica: the connection is dropped, and the call, which did nothing, goes to the
                // new master if there is one.
                Ok(values) if !demoted && values.first().is_some_and(is_demoted) => demoted = true,
                Ok(values) => return Ok(values),
                Err(error) => {
                    sent = true;
                    tries -= 1;
                    if tries == 0 || Instant::now() >= deadline {
                        let text = no_answer(&error, IO_TIMEOUT);
                        return Err(match repeat {
                            Repeat::Read => StoreError::Unavailable(text),
                            _ => StoreError::Unknown(text),
                        });
                    }
                }
            }
        }
    }

    /// Waits for one if all are in use. Without a bound a store that stalls would cost a descriptor a request.
    fn borrow(&self, deadline: Instant) -> Result<Loan<'_>, StoreError> {
        let links = self.lock();
        let waited = self.returned.wait_timeout_while(links, left_until(deadline), |links| links.in_use >= LINKS_MAX);
        let (mut links, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if links.in_use >= LINKS_MAX {
            return Err(StoreError::Unavailable("every connection to Redis waits for an answer".to_owned()));
        }
        links.in_use += 1;
        let idle = links.idle.pop();
        drop(links);
        let seat = Seat(self);
        // Half of the time is for another connection, if this one is dead without a word.
        let usable = idle.filter(|link| self.target.is_current(link)).and_then(|mut link| {
            let checked = link.set_limit(left_until(deadline) / 2).is_ok() && link.check().is_ok();
            checked.then_some(link)
        });
        let link = match usable {
            Some(link) => link,
            None => self.target.connect(left_until(deadline))?,
        };
        Ok(Loan { link, seat })
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loan<'_> {
    /// Uses the connection, and gives it back unless that failed: then an answer may still be under way on it.
    fn using<T, E>(self, act: impl FnOnce(&mut Link) -> Result<T, E>) -> Result<T, E> {
        let Loan { mut link, seat } = self;
        let result = act(&mut link);
        if result.is_ok() && !link.is_demoted() {
            let mut links = seat.0.lock();
            if links.idle.len() < IDLE_LINKS_MAX {
                links.idle.push(link);
            }
        }
        result
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.returned.notify_one();
    }
}

fn is_demoted(value: &Value) -> bool {
    code(value) == Some("READONLY")
}

fn code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}
