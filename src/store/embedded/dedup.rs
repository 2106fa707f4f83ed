//! Pulse ids: remembered for the dedup window, swept out bit by bit, never by one long scan.

use rusqlite::{Connection, OptionalExtension};

use super::rows::{int, moment, unsigned};
use crate::clock::Timestamp;
use crate::pulse::PulseId;
use crate::store::{StoreError, StoreSettings};

/// Rows looked at for each id that comes in: the table is swept whole each time a quarter of it came in new.
const SWEPT_BY_ID: u64 = 4;
/// Rows looked at beyond that while there is no room: old ids give way before a new one is refused.
const SWEPT_WHEN_FULL: u64 = 10_000;

/// Whether a pulse id is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Within the window, with the same content.
    Same,
    /// Within the window, with other content.
    Other,
    /// Longer ago than the window; its row is still there and will be overwritten.
    Forgotten,
    /// No row.
    Never,
}

/// The ids' part of one transaction, and where the sweep goes on in the next.
#[derive(Default)]
pub struct Dedup {
    /// The sweep has come up to here, in the order of the digests.
    swept_to: Vec<u8>,
    now: Timestamp,
    /// Ids seen before this moment are forgotten.
    horizon: Timestamp,
    /// Rows in the table, the forgotten ones included.
    kept: u64,
    max: u64,
    used: bool,
}

impl Dedup {
    /// Starts a transaction in which so many ids come in.
    pub fn begin(
        &mut self,
        tx: &Connection,
        settings: &StoreSettings,
        now: Timestamp,
        ids: u64,
    ) -> Result<(), StoreError> {
        self.used = ids > 0;
        if !self.used {
            return Ok(());
        }
        let window_ms = u64::try_from(settings.dedup_window.as_millis()).unwrap_or(u64::MAX);
        self.now = now;
        // A clock that went back makes ids look young, never old.
        self.horizon = Timestamp(now.0.saturating_sub(window_ms));
        self.max = settings.dedup_ids_max;
        let mut count = tx.prepare_cached("SELECT kept FROM pulse_id_count")?;
        self.kept = count.query_row([], |row| unsigned(row, 0))?;
        let room_needed = self.kept.saturating_add(ids) > self.max;
        self.sweep(tx, SWEPT_BY_ID * ids + if room_needed { SWEPT_WHEN_FULL } else { 0 })
    }

    /// Whether there is no room for one more row.
    pub fn full(&self) -> bool {
        self.kept >= self.max
    }

    /// Looks an id up.
    pub fn seen(&self, tx: &Connection, id: &PulseId) -> Result<Seen, StoreError> {
        let mut statement = tx.prepare_cached("SELECT content = ?2, seen_at_ms FROM pulse_ids WHERE identity = ?1")?;
        let row = statement
            .query_row((&id.identity[..], &id.content[..]), |row| Ok((row.get::<_, bool>(0)?, moment(row, 1)?)))
            .optional()?;
        Ok(match row {
            None => Seen::Never,
            Some((_, seen_at)) if seen_at < self.horizon => Seen::Forgotten,
            Some((true, _)) => Seen::Same,
            Some((false, _)) => Seen::Other,
        })
    }

    /// Remembers an id that is not within the window, whether or not its forgotten row is still there.
    pub fn remember(&mut self, tx: &Connection, id: &PulseId, seen: Seen) -> Result<(), StoreError> {
        tx.prepare_cached(
            "INSERT INTO pulse_ids VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET content = ?2, seen_at_ms = ?3",
        )?
        .execute((&id.identity[..], &id.content[..], int(self.now.0)))?;
        self.kept += u64::from(seen == Seen::Never);
        Ok(())
    }

    /// Ends the transaction's part: records the number of rows.
    pub fn end(&self, tx: &Connection) -> Result<(), StoreError> {
        if self.used {
            tx.prepare_cached("UPDATE pulse_id_count SET kept = ?")?.execute([int(self.kept)])?;
        }
        Ok(())
    }

    /// Deletes what is forgotten among the next rows, and starts again after the last one.
    fn sweep(&mut self, tx: &Connection, rows: u64) -> Result<(), StoreError> {
        let last: Option<Vec<u8>> = tx
            .prepare_cached("SELECT identity FROM pulse_ids WHERE identity > ? ORDER BY identity LIMIT 1 OFFSET ?")?
            .query_row((&self.swept_to, int(rows)), |row| row.get(0))
            .optional()?;
        let horizon = int(self.horizon.0);
        let deleted = match &last {
            Some(last) => tx
                .prepare_cached("DELETE FROM pulse_ids WHERE identity > ? AND identity <= ? AND seen_at_ms < ?")?
                .execute((&self.swept_to, last, horizon))?,
            None => tx
                .prepare_cached("DELETE FROM pulse_ids WHERE identity > ? AND seen_at_ms < ?")?
                .execute((&self.swept_to, horizon))?,
        };
        self.kept = self.kept.saturating_sub(deleted as u64);
        self.swept_to = last.unwrap_or_default();
        Ok(())
    }
}
