-- Aggregates have an hour, which is a part of their name. SQLite changes no constraint, so the table is made anew, and the view
-- on it too. Rows keep their numbers.
DROP VIEW aggregates_readable;
ALTER TABLE aggregates RENAME TO aggregates_before;
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
INSERT INTO aggregates
SELECT row_number, epoch, tenant_id, product_sku, use_unit, '', amount_hi, amount_lo FROM aggregates_before
ORDER BY row_number;
DROP TABLE aggregates_before;

CREATE VIEW aggregates_readable AS
SELECT
    epoch, tenant_id, product_sku,
    CASE amount_hi
        WHEN 0 THEN printf('%d.%09d', amount_lo / 1000000000, amount_lo % 1000000000)
        ELSE printf('%d%09d.%09d', amount_hi, amount_lo / 1000000000, amount_lo % 1000000000)
    END AS used_amount,
    use_unit, period_start
FROM aggregates;
