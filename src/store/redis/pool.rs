//! The connections that the delivery side and operators' requests share.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::cluster::{Node, Redirect, slot_of};
use super::connection::{IO_TIMEOUT, Link, Packed, Target, left_until};
use super::reply::{no_answer, refusal};
use crate::store::StoreError;

/// Longest wait for all of a call that writes: another connection, a second time and the scripts are worth it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of the delivery side and of operators' requests at once; a further call waits for one.
pub const LINKS_MAX: usize = 16;
/// Those of them that are kept while idle.
const IDLE_LINKS_MAX: usize = 8;
/// How often a call is sent on from node to node, and how long is waited in between once that looks like a disagreement.
const REDIRECTS_MAX: u32 = 5;
const REDIRECT_PAUSE: Duration = Duration::from_millis(20);

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

    /// Runs a command that has no keys, on the node that has this slot.
    pub(super) fn run_at(&self, slot: u16, command: Cmd, repeat: Repeat) -> Result<Value, StoreError> {
        let mut packed = Packed::default();
        packed.add(&command);
        let values = checked(self.exchange(Some(slot), &packed, repeat)?)?;
        values.into_iter().next().ok_or_else(|| StoreError::Corrupt("no answer at all".to_owned()))
    }

    /// Runs commands on keys of one shard in one round trip. Any error reply fails them all.
    pub(super) fn run_all(&self, commands: &[Cmd], repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let mut packed = Packed::default();
        commands.iter().for_each(|command| packed.add(command));
        self.run_packed(&packed, repeat)
    }

    /// As [`Pool::run_all`], for commands that were packed before.
    pub(super) fn run_packed(&self, packed: &Packed, repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        checked(self.exchange(packed.slot(), packed, repeat)?)
    }

    /// Runs commands that only read, of whichever shards, in one round trip a node.
    pub(super) fn read_each(&self, commands: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        let mut by_node: BTreeMap<Option<Node>, (Packed, Vec<usize>)> = BTreeMap::new();
        for (place, command) in commands.iter().enumerate() {
            let bytes = command.get_packed_command();
            let node = self.target.node(slot_of(&bytes), IO_TIMEOUT)?;
            let (packed, places) = by_node.entry(node).or_default();
            packed.add_packed(&bytes);
            places.push(place);
        }
        let mut values = vec![Value::Nil; commands.len()];
        for (packed, places) in by_node.into_values() {
            for (place, value) in places.into_iter().zip(self.run_packed(&packed, Repeat::Read)?) {
                values[place] = value;
            }
        }
        Ok(values)
    }

    /// Exchanges, wherever the nodes of a cluster send it on to.
    fn exchange(&self, slot: Option<u16>, packed: &Packed, repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let deadline = repeat.deadline();
        let (mut sent, mut demoted, mut loaded) = (false, false, false);
        let (mut asked, mut redirects): (Option<Node>, u32) = (None, 0);
        let mut tries = if repeat == Repeat::Never { 1 } else { 2 };
        loop {
            let asking = asked.is_some();
            let loan = match self.borrow(slot, asked.take(), deadline) {
                Ok(loan) => loan,
                Err(StoreError::Unavailable(text)) if sent && repeat == Repeat::Write => {
                    return Err(StoreError::Unknown(text));
                }
                Err(error) => return Err(error),
            };
            let node = loan.link.node.clone();
            let exchange =
                |link: &mut Link| link.set_limit(left_until(deadline)).and_then(|()| link.exchange(packed, asking));
            let mut values = match loan.using(exchange) {
                Ok(values) => values,
                Err(error) => {
                    self.target.suspect(node.as_ref());
                    sent = true;
                    tries -= 1;
                    if tries == 0 || Instant::now() >= deadline {
                        let text = no_answer(&error, IO_TIMEOUT);
                        return Err(match repeat {
                            Repeat::Read => StoreError::Unavailable(text),
                            _ => StoreError::Unknown(text),
                        });
                    }
                    continue;
                }
            };
            // A refused call did nothing, so it may be sent again: elsewhere, or when the script is known again.
            let first = values.first().and_then(code);
            if first == Some("READONLY") && !demoted {
                // A master that became a replica: the connection is dropped.
                demoted = true;
                self.target.suspect(node.as_ref());
                continue;
            }
            if values.iter().any(|value| code(value) == Some("NOSCRIPT")) && !loaded {
                // Redis forgets its scripts when it restarts.
                loaded = true;
                asked = node.clone().filter(|_| asking);
                self.borrow(slot, node, deadline)?.using(Link::load_scripts)?;
                continue;
            }
            if packed.len() > 1 && repeat == Repeat::Read {
                // Keys of a slot that is on its way are some here, some there.
                for (place, value) in values.iter_mut().enumerate() {
                    if redirect(value, node.as_ref()).is_some() {
                        let single = packed.only(place);
                        *value = self.exchange(single.slot(), &single, repeat)?.pop().unwrap_or(Value::Nil);
                    }
                }
                return Ok(values);
            }
            match values.first().and_then(|value| redirect(value, node.as_ref())) {
                Some(to) if redirects < REDIRECTS_MAX => {
                    if redirects > 1 {
                        // The nodes do not agree yet.
                        thread::sleep(REDIRECT_PAUSE);
                    }
                    redirects += 1;
                    asked = self.target.follow(to);
                }
                _ => return Ok(values),
            }
        }
    }

    /// Waits for one if all are in use. Without a bound a store that stalls would cost a descriptor a request.
    fn borrow(&self, slot: Option<u16>, asked: Option<Node>, deadline: Instant) -> Result<Loan<'_>, StoreError> {
        let links = self.lock();
        let waited = self.returned.wait_timeout_while(links, left_until(deadline), |links| links.in_use >= LINKS_MAX);
        let (mut links, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if links.in_use >= LINKS_MAX {
            return Err(StoreError::Unavailable("every connection to Redis waits for an answer".to_owned()));
        }
        links.in_use += 1;
        drop(links);
        let seat = Seat(self);
        let node = match asked {
            Some(node) => Some(node),
            None => self.target.node(slot, left_until(deadline))?,
        };
        let mut links = self.lock();
        let place = links.idle.iter().rposition(|link| link.node == node);
        let idle = place.map(|place| links.idle.swap_remove(place));
        drop(links);
        // Half of the time is for another connection, if this one is dead without a word.
        let usable = idle.filter(|link| self.target.is_current(link)).and_then(|mut link| {
            let checked = link.set_limit(left_until(deadline) / 2).is_ok() && link.check().is_ok();
            checked.then_some(link)
        });
        let link = match usable {
            Some(link) => link,
            None => self.target.connect(node.as_ref(), left_until(deadline))?,
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

/// The values, unless one is an error.
fn checked(values: Vec<Value>) -> Result<Vec<Value>, StoreError> {
    for value in &values {
        if let Value::ServerError(error) = value {
            return Err(refusal(error));
        }
    }
    Ok(values)
}

fn redirect(value: &Value, said_by: Option<&Node>) -> Option<Redirect> {
    match value {
        Value::ServerError(error) => Redirect::read(error, said_by),
        _ => None,
    }
}

fn code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}
