//! One attempt of a writer to have its calls answered: each goes to the node of its shard, all at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{RedisError, Value};

use super::call::{Call, Failed, State, worse};
use super::cluster::{Node, Redirect};
use super::connection::{ASKING, Link};
use super::reply::{integer, no_answer, refusal};
use super::writer::{CONFIRMED, RedisWriter};
use crate::store::StoreError;

/// Where calls go: the node of a cluster, and whether their slot is only on its way there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct To {
    node: Option<Node>,
    asking: bool,
}

fn lost(error: &RedisError, limit: Duration) -> StoreError {
    StoreError::Unavailable(no_answer(error, limit))
}

impl RedisWriter {
    /// Sends every call that is not answered yet, each to its node, and reads the answers.
    pub(super) fn attempt(&mut self, calls: &mut [Call], deadline: Instant) -> Result<(), Failed> {
        let limit = self.store.pool.target().answer_limit(deadline.saturating_duration_since(Instant::now()));
        let before: Vec<State> = calls.iter().map(|call| call.state.clone()).collect();
        let (destinations, mut failed) = self.destinations(calls, limit);
        let mut sent = Vec::new();
        for (to, places) in destinations {
            match self.send(&to, &places, calls, limit, deadline) {
                Ok(link) => sent.push((to, places, link)),
                Err(error) => failed = worse(failed, Some(error)),
            }
        }
        for (to, places, mut link) in sent {
            match self.receive(&mut link, &to, &places, calls, &before) {
                Ok(refused) => {
                    failed = worse(failed, refused);
                    if !link.is_demoted() {
                        self.links.insert(to.node, link);
                    }
                }
                Err(error) => {
                    self.store.pool.target().suspect(to.node.as_ref());
                    failed = worse(failed, Some(Failed::Passing(lost(&error, limit))));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Which calls go where. A shard whose node can't be told holds up no other.
    fn destinations(&self, calls: &mut [Call], limit: Duration) -> (BTreeMap<To, Vec<usize>>, Option<Failed>) {
        let mut destinations: BTreeMap<To, Vec<usize>> = BTreeMap::new();
        let mut failed = None;
        for (place, call) in calls.iter_mut().enumerate() {
            if matches!(call.state, State::Answered(_)) {
                continue;
            }
            let asked = call.asked.take();
            let asking = asked.is_some();
            let slot = self.store.keys[usize::from(call.shard)].slot;
            match asked.map_or_else(|| self.store.pool.target().node(Some(slot), limit), |node| Ok(Some(node))) {
                Ok(node) => destinations.entry(To { node, asking }).or_default().push(place),
                Err(error) => failed = Some(Failed::Passing(error)),
            }
        }
        (destinations, failed)
    }

    fn send(
        &mut self,
        to: &To,
        places: &[usize],
        calls: &mut [Call],
        limit: Duration,
        deadline: Instant,
    ) -> Result<Link, Failed> {
        let mut link = self.connected(to.node.as_ref(), limit).map_err(Failed::Passing)?;
        let mut bytes = Vec::new();
        for &place in places {
            if to.asking {
                bytes.extend_from_slice(ASKING);
            }
            bytes.extend_from_slice(&calls[place].bytes);
        }
        // Behind the scripts on the same connection: as its first command it would wait for nothing.
        let wait_limit = self.store.wait_timeout.min(deadline.saturating_duration_since(Instant::now()));
        if let Some(command) = self.store.wait_command(wait_limit) {
            command.write_packed_command(&mut bytes);
        }
        for &place in places {
            if calls[place].state == State::Idle {
                calls[place].state = State::Ambiguous;
            }
        }
        link.send(&bytes).map_err(|error| {
            self.store.pool.target().suspect(to.node.as_ref());
            Failed::Passing(lost(&error, limit))
        })?;
        Ok(link)
    }

    /// Reads the answers of one node; returns the worst of what it refused.
    fn receive(
        &self,
        link: &mut Link,
        to: &To,
        places: &[usize],
        calls: &mut [Call],
        before: &[State],
    ) -> Result<Option<Failed>, RedisError> {
        let answered: Result<Option<Failed>, RedisError> = places.iter().try_fold(None, |failed, &place| {
            if to.asking {
                link.receive()?;
            }
            let value = link.receive()?;
            if let Value::ServerError(error) = &value
                && let Some(redirect) = Redirect::read(error, to.node.as_ref())
            {
                calls[place].asked = self.store.pool.target().follow(redirect);
            }
            Ok(worse(failed, calls[place].take_answer(value, &before[place])))
        });
        let replicated = match &answered {
            Ok(_) if self.store.wait_replicas > 0 => link.receive().map(|value| self.check_replicas(&value)),
            Ok(_) => Ok(Ok(())),
            Err(_) => Ok(Err(Failed::Passing(StoreError::Unavailable("the replicas were not asked".to_owned())))),
        };
        if self.store.wait_replicas > 0 && !matches!(replicated, Ok(Ok(()))) {
            // Applied, but perhaps not where it was promised to be: to be sent again for the same verdicts.
            for &place in places {
                if before[place] != calls[place].state && matches!(calls[place].state, State::Answered(_)) {
                    calls[place].state = State::Ambiguous;
                }
            }
        }
        let failed = worse(answered?, replicated?.err());
        if matches!(failed, Some(Failed::ScriptUnknown))
            && let Err(error) = link.load_scripts()
        {
            return Ok(Some(Failed::Passing(error)));
        }
        Ok(failed)
    }

    /// The connection, out of its place: it is put back only after all answers were read.
    fn connected(&mut self, node: Option<&Node>, limit: Duration) -> Result<Link, StoreError> {
        if let Some(mut link) = self.links.remove(&node.cloned())
            && self.store.pool.target().is_current(&link)
            && link.set_limit(limit).is_ok()
            && link.check().is_ok()
        {
            return Ok(link);
        }
        self.store.pool.target().connect(node, limit)
    }

    fn check_replicas(&self, value: &Value) -> Result<(), Failed> {
        let reached = match value {
            Value::ServerError(error) => return Err(Failed::Passing(refusal(error))),
            other => integer(other).map_err(Failed::Final)?,
        };
        self.store.enough_replicas(reached, CONFIRMED).map_err(Failed::Passing)
    }
}
