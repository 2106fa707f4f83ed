//! Pulses as text, and sums of their amounts by integers of the tests' own.

use std::collections::BTreeMap;

/// Sums in nano-units by tenant, SKU and unit.
pub type Totals = BTreeMap<(String, String, String), u128>;

/// The README's example.
pub const BANANA: &str = r#"{"tenant_id":"tenant_xpto","product_sku":"banana","used_amount":307,"use_unit":"KB"}"#;

/// A pulse in KB without an id.
pub fn pulse(tenant_id: &str, amount: &str) -> String {
    format!(r#"{{"tenant_id":"{tenant_id}","product_sku":"sku","used_amount":{amount},"use_unit":"KB"}}"#)
}

/// A pulse in KB with an id.
pub fn pulse_with_id(tenant_id: &str, amount: &str, pulse_id: &str) -> String {
    pulse(tenant_id, amount).replace('}', &format!(r#","pulse_id":"{pulse_id}"}}"#))
}

/// An array of them.
pub fn list(pulses: &[String]) -> String {
    format!("[{}]", pulses.join(","))
}

/// A decimal in billionths. Not the program's own parser: that one is under test.
pub fn nanos(decimal: &str) -> u128 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    assert!(fraction.len() <= 9, "{decimal} has more than nine decimal places");
    format!("{whole}{fraction:0<9}").parse().unwrap_or_else(|error| panic!("{decimal}: {error}"))
}
