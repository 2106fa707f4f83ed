//! Stores that other versions made.

use std::collections::BTreeMap;

use super::*;
use crate::period::Period;
use crate::store::contract::{commit, sealed_sums};

#[test]
fn another_version_or_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap());
    for version in ["0", "6", "-1"] {
        sql(dir.path(), &format!("PRAGMA user_version = {version}"));
        check_refused(EmbeddedStore::open(dir.path(), &settings(NEVER)), &format!("schema version {version},"));
    }
    let dir = tempfile::tempdir().unwrap();
    sql(dir.path(), "CREATE TABLE mine (x)");
    check_refused(EmbeddedStore::open(dir.path(), &settings(NEVER)), "not made by this program");
}

#[test]
fn a_store_of_an_older_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
    add(&store, &[plain(&key("a", "sku"), 5)]);
    let deliverer = Deliverer::new(&store);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    add(&store, &[plain(&key("a", "sku"), 7), plain(&key("b", "sku"), 70)]);
    deliverer.toggle();
    add(&store, &[plain(&key("b", "sku"), 700)]);
    drop(store);
    let columns = "SELECT group_concat(name || ' ' || type || ' ' || \"notnull\" || ' ' || ifnull(dflt_value, ''))
                   FROM (SELECT * FROM pragma_table_info('batches') ORDER BY name)";
    let fresh = text(dir.path(), columns);
    let tables = "SELECT group_concat(sql, '') FROM (
                      SELECT sql FROM sqlite_schema WHERE name LIKE 'ledger%' OR name LIKE 'aggregates%' ORDER BY name)";
    let fresh_tables = text(dir.path(), tables);
    sql(
        dir.path(),
        "ALTER TABLE batches DROP COLUMN attempts_before;
         CREATE TABLE before (
             epoch INTEGER NOT NULL, tenant_id TEXT NOT NULL, product_sku TEXT NOT NULL, use_unit TEXT NOT NULL,
             amount_hi INTEGER NOT NULL, amount_lo INTEGER NOT NULL,
             PRIMARY KEY (epoch, tenant_id, product_sku, use_unit)
         ) STRICT, WITHOUT ROWID;
         INSERT INTO before SELECT epoch, tenant_id, product_sku, use_unit, amount_hi, amount_lo FROM aggregates;
         DROP VIEW aggregates_readable;
         DROP TABLE aggregates;
         ALTER TABLE before RENAME TO aggregates;
         CREATE VIEW aggregates_readable AS SELECT 1 FROM aggregates;
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ', ''discarded''', '') WHERE name = 'ledger';
         PRAGMA user_version = 1",
    );
    assert_ne!(text(dir.path(), tables), fresh_tables);
    let refused = EmbeddedStore::attach(dir.path(), &settings(SHORT)).map(drop);
    assert!(refused.unwrap_err().to_string().contains("the server brings it up to date"));

    let store = EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
    assert_eq!(text(dir.path(), columns), fresh);
    let entry = store.due(0, 10, &[]).unwrap().remove(0);
    assert_eq!((entry.batch, entry.attempts_before), (batches[0].clone(), 0));
    assert_eq!(text(dir.path(), tables), fresh_tables);
    assert_eq!(balanced(&store).outbox, batches[0].totals);
    add(&store, &[plain(&key("b", "sku"), 7000), plain(&key("c", "sku"), 1)]);
    let amounts = "SELECT group_concat(epoch || tenant_id || amount_lo) FROM aggregates";
    assert_eq!(text(dir.path(), amounts), "1a7,1b70,2b7700,2c1");
    assert_eq!(Deliverer::new(&store).freeze_all(10).len(), 1);
    balanced(&store);
    drop(store);
    EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
}

#[test]
fn a_store_from_before_there_were_hours_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
    let (a, b) = (key("a:b", "sku"), AggregateKey::new("b", "é", Unit::GbPerSec));
    let deliverer = Deliverer::new(&store);
    add(&store, &[plain(&a, 1)]);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    add(&store, &[plain(&a, 2), plain(&b, 10i128.pow(18))]);
    deliverer.toggle();
    add(&store, &[once("id", &a, 4)]);
    drop(store);
    let layout = "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE name LIKE 'aggregates%'";
    let fresh = text(dir.path(), layout);
    sql(
        dir.path(),
        "DROP VIEW aggregates_readable;
         ALTER TABLE aggregates RENAME TO after;
         CREATE TABLE aggregates (
             row_number  INTEGER PRIMARY KEY,
             epoch       INTEGER NOT NULL,
             tenant_id   TEXT NOT NULL,
             product_sku TEXT NOT NULL,
             use_unit    TEXT NOT NULL,
             amount_hi   INTEGER NOT NULL,
             amount_lo   INTEGER NOT NULL,
             UNIQUE (epoch, tenant_id, product_sku, use_unit)
         ) STRICT;
         INSERT INTO aggregates
         SELECT row_number, epoch, tenant_id, product_sku, use_unit, amount_hi, amount_lo FROM after;
         DROP TABLE after;
         CREATE VIEW aggregates_readable AS SELECT epoch, tenant_id, product_sku, use_unit FROM aggregates;
         PRAGMA user_version = 4",
    );
    assert_ne!(text(dir.path(), layout), fresh);

    let store = EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
    assert_eq!(text(dir.path(), layout), fresh);
    balanced(&store);
    let deliverer = Deliverer::new(&store);
    assert_eq!(deliverer.only_entry().batch, batches[0]);
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(a.clone(), nanos(2)), (b, nanos(10i128.pow(18)))]));
    let late = a.clone().labelled(Period::from_start("2026-11-24T17:00:00Z"));
    assert_eq!(commit(&store, &[once("id", &a, 4)]), [Outcome::Duplicate]);
    add(&store, &[plain(&a, 8), plain(&late, 16)]);
    deliverer.freeze_all(10);
    deliverer.toggle();
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(a, nanos(12)), (late, nanos(16))]));
    balanced(&store);
}
