-- The embedded store, schema version 5 (PRAGMA user_version). A change here needs a step in MIGRATIONS (connection.rs).
--
-- Amounts are whole nano-units (1e-9 of the unit) in two limbs: amount_hi * 1e18 + amount_lo, 0 <= amount_lo < 1e18.
-- A use_unit is KB, MB, GB, KB/sec, MB/sec or GB/sec, or one of these with ' correction' behind it: what was taken back, above
-- zero too.
-- The views whose names end in _readable show them as decimal text, and moments as UTC.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The open generation is the one that was not sealed yet. A sealed one goes once all of it is frozen.
CREATE TABLE generations (
    epoch           INTEGER PRIMARY KEY,
    window_start_ms INTEGER NOT NULL,
    window_end_ms   INTEGER NOT NULL,
    sealed_at_ms    INTEGER,
    next_batch      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX one_open_generation ON generations (sealed_at_ms IS NULL) WHERE sealed_at_ms IS NULL;

CREATE TABLE generation_totals (
    epoch     INTEGER NOT NULL,
    use_unit  TEXT NOT NULL,
    amount_hi INTEGER NOT NULL,
    amount_lo INTEGER NOT NULL,
    PRIMARY KEY (epoch, use_unit)
) STRICT, WITHOUT ROWID;

-- period_start is the start of the hour that pulses with a timestamp belong to, and empty for those without one.
-- Only the open generation grows, so the rows of each generation come behind those of the one before it. Writers find a row that
-- they know by its number.
CREATE TABLE aggregates (
    row_number   INTEGER PRIMARY KEY,
    epoch        INTEGER NOT NULL,
    tenant_id    TEXT NOT NULL,
    product_sku  TEXT NOT NULL,
    use_unit     TEXT NOT NULL,
    period_start TEXT NOT NULL,
    amount_hi    INTEGER NOT NULL,
    amount_lo    INTEGER NOT NULL,
    UNIQUE (epoch, tenant_id, product_sku, use_unit, period_start)
) STRICT;

-- Digests of tenant and pulse id, and of what the pulse said. A row older than the dedup window counts as absent.
CREATE TABLE pulse_ids (
    identity   BLOB PRIMARY KEY,
    content    BLOB NOT NULL,
    seen_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE pulse_id_count (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    kept INTEGER NOT NULL
) STRICT;

-- Frozen batches: the outbox, and the dead letters, whose dead_at_ms is set.
CREATE TABLE batches (
    batch_id           TEXT PRIMARY KEY,
    epoch              INTEGER NOT NULL,
    number             INTEGER NOT NULL,
    window_start_ms    INTEGER NOT NULL,
    window_end_ms      INTEGER NOT NULL,
    aggregates         INTEGER NOT NULL,
    frozen_at_ms       INTEGER NOT NULL,
    due_ms             INTEGER NOT NULL,
    attempts           INTEGER NOT NULL DEFAULT 0,
    attempts_before    INTEGER NOT NULL DEFAULT 0,
    ambiguous_since_ms INTEGER,
    last_error         TEXT,
    dead_at_ms         INTEGER,
    body               BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_by_due ON batches (due_ms, epoch, number) WHERE dead_at_ms IS NULL;
CREATE INDEX outbox_by_age ON batches (frozen_at_ms) WHERE dead_at_ms IS NULL;
CREATE INDEX dead_letters_by_age ON batches (dead_at_ms, epoch, number) WHERE dead_at_ms IS NOT NULL;

CREATE TABLE batch_totals (
    batch_id  TEXT NOT NULL,
    use_unit  TEXT NOT NULL,
    amount_hi INTEGER NOT NULL,
    amount_lo INTEGER NOT NULL,
    PRIMARY KEY (batch_id, use_unit)
) STRICT, WITHOUT ROWID;

-- acknowledged = open + sealed + outbox + delivered + dead_letters + discarded, for each unit. What is open stands in
-- generation_totals only.
CREATE TABLE ledger (
    account   TEXT NOT NULL
        CHECK (account IN ('acknowledged', 'sealed', 'outbox', 'delivered', 'dead_letters', 'discarded')),
    use_unit  TEXT NOT NULL,
    amount_hi INTEGER NOT NULL,
    amount_lo INTEGER NOT NULL,
    PRIMARY KEY (account, use_unit)
) STRICT, WITHOUT ROWID;

-- The one shard's lease; the holder is NULL when it was given back.
CREATE TABLE lease (
    shard     INTEGER PRIMARY KEY CHECK (shard = 0),
    token     INTEGER NOT NULL,
    holder    TEXT,
    until_ms  INTEGER NOT NULL,
    length_ms INTEGER NOT NULL
) STRICT;

CREATE VIEW aggregates_readable AS
SELECT
    epoch, tenant_id, product_sku,
    CASE amount_hi
        WHEN 0 THEN printf('%d.%09d', amount_lo / 1000000000, amount_lo % 1000000000)
        ELSE printf('%d%09d.%09d', amount_hi, amount_lo / 1000000000, amount_lo % 1000000000)
    END AS used_amount,
    use_unit, period_start
FROM aggregates;

CREATE VIEW ledger_readable AS
SELECT
    account, use_unit,
    CASE amount_hi
        WHEN 0 THEN printf('%d.%09d', amount_lo / 1000000000, amount_lo % 1000000000)
        ELSE printf('%d%09d.%09d', amount_hi, amount_lo / 1000000000, amount_lo % 1000000000)
    END AS amount
FROM (
    SELECT account, use_unit, amount_hi, amount_lo FROM ledger
    UNION ALL
    SELECT 'open', use_unit, amount_hi, amount_lo
    FROM generation_totals JOIN generations USING (epoch)
    WHERE sealed_at_ms IS NULL
);

CREATE VIEW batches_readable AS
SELECT
    batch_id,
    CASE WHEN dead_at_ms IS NULL THEN 'outbox' ELSE 'dead letter' END AS state,
    strftime('%FT%TZ', window_start_ms / 1000, 'unixepoch') AS window_start,
    strftime('%FT%TZ', window_end_ms / 1000, 'unixepoch') AS window_end,
    aggregates,
    strftime('%FT%TZ', frozen_at_ms / 1000, 'unixepoch') AS frozen_at,
    strftime('%FT%TZ', due_ms / 1000, 'unixepoch') AS due,
    attempts, last_error, CAST(body AS TEXT) AS body
FROM batches;
