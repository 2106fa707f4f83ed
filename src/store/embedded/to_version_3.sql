-- Dead letters can be discarded: an account more in the ledger. SQLite changes no CHECK, so the table is made anew, and the
-- view on it too.
DROP VIEW ledger_readable;
ALTER TABLE ledger RENAME TO ledger_before;
CREATE TABLE ledger (
    account   TEXT NOT NULL
        CHECK (account IN ('acknowledged', 'sealed', 'outbox', 'delivered', 'dead_letters', 'discarded')),
    use_unit  TEXT NOT NULL,
    amount_hi INTEGER NOT NULL,
    amount_lo INTEGER NOT NULL,
    PRIMARY KEY (account, use_unit)
) STRICT, WITHOUT ROWID;
INSERT INTO ledger SELECT * FROM ledger_before;
DROP TABLE ledger_before;

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
