//! How the keys to import are named, and what one of them says.

use std::fmt;
use std::str::FromStr;

use crate::pulse::{AggregateKey, Unit, check_id};

/// How the Go original names its sums.
pub const ORIGINAL: &str = "generation:{generation}:tenant:{tenant}:sku:{sku}:useUnit:{unit}";

/// A longer key holds an id that is longer than any may be.
const KEY_BYTES_MAX: usize = 2048;
/// Ways to cut one key that are looked at; ids full of the pattern's own text would have millions.
const WAYS_MAX: usize = 64;

/// Names of keys: fixed text with fields between, the last of which may end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What comes first, never empty: it keeps the import to the keys that are meant.
    start: String,
    /// Each field with the text behind it.
    fields: Vec<(Field, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Generation,
    Tenant,
    Sku,
    Unit,
}

/// What a key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its generation, if the pattern has one.
    pub generation: Option<String>,
    /// The aggregate that its sum belongs to.
    pub key: AggregateKey,
}

/// Text found for each field, in the pattern's order.
type Split<'k> = Vec<(Field, &'k str)>;

impl Field {
    const ALL: [Field; 4] = [Field::Generation, Field::Tenant, Field::Sku, Field::Unit];

    const fn name(self) -> &'static str {
        match self {
            Field::Generation => "generation",
            Field::Tenant => "tenant",
            Field::Sku => "sku",
            Field::Unit => "unit",
        }
    }
}

impl Pattern {
    /// As a pattern of Redis's `SCAN`, which finds at least these keys.
    pub fn glob(&self) -> String {
        let mut glob = escape(&self.start);
        for (_, text) in &self.fields {
            glob.push('*');
            glob.push_str(&escape(text));
        }
        glob
    }

    /// Reads a key, if there is one way to read it.
    ///
    /// # Errors
    /// Why it can't be imported.
    pub fn read(&self, key: &[u8]) -> Result<Reading, String> {
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("has {} bytes, more than valid ids have", key.len()));
        }
        let key = std::str::from_utf8(key).map_err(|_| "is not UTF-8".to_owned())?;
        let end = self.fields.last().map_or("", |(_, text)| text);
        let rest = key.strip_prefix(&self.start).filter(|rest| rest.ends_with(end));
        let rest = rest.ok_or("is not named as the pattern says")?;
        let mut splits = Vec::new();
        split(&self.fields, rest, &mut Vec::new(), &mut splits);
        if splits.len() > WAYS_MAX {
            return Err("can be read in too many ways, since an id holds part of the pattern".to_owned());
        }
        let mut readings: Vec<Result<Reading, String>> = splits.iter().map(|split| reading(split)).collect();
        match readings.iter().filter(|reading| reading.is_ok()).count() {
            // Ids with a colon are the rule's exception; what is wrong is said of the first way to read it.
            0 if readings.is_empty() => Err("is not named as the pattern says".to_owned()),
            0 => readings.swap_remove(0),
            1 => readings.into_iter().find(Result::is_ok).expect("one was counted"),
            _ => Err("can be read in more than one way, since an id holds part of the pattern".to_owned()),
        }
    }
}

/// Every way to cut `rest` so that each field is followed by its text.
fn split<'k>(fields: &[(Field, String)], rest: &'k str, begun: &mut Split<'k>, found: &mut Vec<Split<'k>>) {
    let Some(((field, text), others)) = fields.split_first() else {
        if rest.is_empty() {
            found.push(begun.clone());
        }
        return;
    };
    if found.len() > WAYS_MAX {
        return;
    }
    // The last field's text ends the key, wherever else it stands.
    let ends: Vec<usize> = match others {
        [] => rest.strip_suffix(text.as_str()).map(str::len).into_iter().collect(),
        _ => rest.match_indices(text.as_str()).map(|(at, _)| at).collect(),
    };
    for end in ends {
        begun.push((*field, &rest[..end]));
        split(others, &rest[end + text.len()..], begun, found);
        begun.pop();
    }
}

fn reading(split: &[(Field, &str)]) -> Result<Reading, String> {
    let text = |wanted: Field| split.iter().find(|(field, _)| *field == wanted).map(|(_, text)| *text);
    let required = |field: Field| text(field).expect("a pattern has it");
    let generation = text(Field::Generation);
    if generation.is_some_and(|label| label.is_empty() || !label.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        return Err("its generation is not made of letters and digits".to_owned());
    }
    let (tenant_id, product_sku) = (required(Field::Tenant), required(Field::Sku));
    check_id(tenant_id).map_err(|why| format!("its tenant {why}"))?;
    check_id(product_sku).map_err(|why| format!("its SKU {why}"))?;
    let unit = Unit::from_name(required(Field::Unit)).ok_or_else(|| {
        let names = Unit::ALL.map(Unit::name).join(", ");
        format!("its unit must be one of {names}")
    })?;
    let key = AggregateKey::new(tenant_id, product_sku, unit);
    Ok(Reading { generation: generation.map(str::to_owned), key })
}

fn escape(text: &str) -> String {
    text.chars().flat_map(|char| ("*?[]^\\".contains(char)).then_some('\\').into_iter().chain([char])).collect()
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, mut rest) = text.split_at(text.find('{').unwrap_or(text.len()));
        if start.is_empty() {
            return Err("must begin with fixed text, so that no other keys are touched".to_owned());
        }
        let mut fields: Vec<(Field, String)> = Vec::new();
        while let Some(inside) = rest.strip_prefix('{') {
            let (name, behind) = inside.split_once('}').ok_or("a brace is not closed")?;
            let field = Field::ALL.into_iter().find(|field| field.name() == name);
            let field = field.ok_or_else(|| format!("there is no field {{{name}}}"))?;
            if fields.iter().any(|(known, _)| *known == field) {
                return Err(format!("{{{name}}} stands twice"));
            }
            let (between, next) = behind.split_at(behind.find('{').unwrap_or(behind.len()));
            if between.is_empty() && !next.is_empty() {
                return Err("two fields need fixed text between them".to_owned());
            }
            fields.push((field, between.to_owned()));
            rest = next;
        }
        for field in [Field::Tenant, Field::Sku, Field::Unit] {
            if !fields.iter().any(|(known, _)| *known == field) {
                return Err(format!("{{{}}} is missing", field.name()));
            }
        }
        Ok(Pattern { start: start.to_owned(), fields })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start)?;
        self.fields.iter().try_for_each(|(field, text)| write!(f, "{{{}}}{text}", field.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Pattern {
        ORIGINAL.parse().unwrap()
    }

    fn check(key: &str, expected: Result<(&str, &str, &str), &str>) {
        match (original().read(key.as_bytes()), expected) {
            (Ok(reading), Ok((tenant_id, product_sku, unit))) => {
                let unit = Unit::from_name(unit).unwrap();
                assert_eq!(reading.key, AggregateKey::new(tenant_id, product_sku, unit), "{key}");
            }
            (Err(why), Err(part)) => assert!(why.contains(part), "{key}: {why}"),
            (read, _) => panic!("{key}: {read:?}"),
        }
    }

    #[test]
    fn reads_what_the_original_writes() {
        check("generation:A:tenant:tenant_xpto:sku:SKU-77:useUnit:KB", Ok(("tenant_xpto", "SKU-77", "KB")));
        check("generation:B:tenant:t é:sku:a*b[c]:useUnit:MB/sec", Ok(("t é", "a*b[c]", "MB/sec")));
        let reading = original().read(b"generation:B:tenant:t:sku:s:useUnit:GB").unwrap();
        assert_eq!(reading.generation.as_deref(), Some("B"));
        assert_eq!(original().glob(), "generation:*:tenant:*:sku:*:useUnit:*");
        assert_eq!(original().to_string(), ORIGINAL);
    }

    #[test]
    fn ids_with_colons_are_read_if_there_is_one_way() {
        check("generation:A:tenant:acme:eu:sku:a:b:useUnit:KB", Ok(("acme:eu", "a:b", "KB")));
        check("generation:A:tenant:a:tenant:b:sku:s:useUnit:KB", Ok(("a:tenant:b", "s", "KB")));
        check("generation:A:tenant:a:sku:s:useUnit:x:useUnit:KB", Ok(("a", "s:useUnit:x", "KB")));
        check("generation:A:tenant:a:sku:b:sku:c:useUnit:KB", Err("more than one way"));
    }

    #[test]
    fn says_what_is_wrong_with_a_key() {
        // What became of the original's own manual example, which writes `use_unity`.
        check("generation:A:tenant:tenant_xpto:sku:SKU-77:useUnit:", Err("its unit must be one of KB"));
        check("generation:A:tenant::sku:s:useUnit:KB", Err("its tenant must have 1 to 128 bytes, it has 0"));
        check("generation:A:tenant:a\nb:sku:s:useUnit:KB", Err("control characters"));
        check("generation::tenant:a:sku:s:useUnit:KB", Err("generation"));
        check("generation:A:tenant:a:sku:s", Err("not named as the pattern says"));
        check("tenant:a", Err("not named as the pattern says"));
        check(&format!("generation:A:tenant:{}:sku:s:useUnit:KB", "t".repeat(129)), Err("128"));
        check(&format!("generation:A:tenant:{}:sku:s:useUnit:KB", "t".repeat(3000)), Err("bytes"));
        check(&format!("generation:A:tenant:{}:sku:s:useUnit:KB", ":sku:".repeat(300)), Err("too many ways"));
        assert!(original().read(b"generation:A:tenant:\xff:sku:s:useUnit:KB").is_err());
    }

    #[test]
    fn a_pattern_may_be_another() {
        let pattern: Pattern = "usage[{tenant}]{unit}|{sku}.".parse().unwrap();
        assert_eq!(pattern.glob(), r"usage\[*\]*|*.");
        let reading = pattern.read(b"usage[t]KB/sec|s.").unwrap();
        assert_eq!((reading.generation, reading.key), (None, AggregateKey::new("t", "s", Unit::KbPerSec)));
        for (text, part) in [
            ("{tenant}:{sku}:{unit}", "fixed text"),
            ("u:{tenant}{sku}:{unit}", "between"),
            ("u:{tenant}:{unit}", "{sku} is missing"),
            ("u:{tenant}:{sku}:{unit}:{tenant}", "twice"),
            ("u:{tenant}:{sku}:{unit", "closed"),
            ("u:{tenant}:{sku}:{units}", "no field {units}"),
        ] {
            let why = text.parse::<Pattern>().unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
