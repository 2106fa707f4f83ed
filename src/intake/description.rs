//! What this server's HTTP interface is, for programs and for people. Both are part of the binary and load nothing else.

use crate::intake::respond::Reply;

const OPENAPI: &str = include_str!("description/openapi.json");
const DOCS: &str = include_str!("description/docs.html");

/// Whatever gets into the page can load and send nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/openapi.json`: OpenAPI 3.1.
pub fn openapi() -> Reply {
    Reply::document(200, "application/json", OPENAPI)
}

/// `/docs`: the same as a page.
pub fn docs() -> Reply {
    let page = Reply::document(200, "text/html; charset=utf-8", DOCS);
    page.with_header("Content-Security-Policy", POLICY.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::intake::routes::Face;

    fn api() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    #[test]
    fn it_is_of_this_version_and_names_paths_that_there_are() {
        let api = api();
        assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = api["paths"].as_object().unwrap();
        assert!(paths.len() > 5 && paths.keys().all(|path| Face::Whole.has(path)), "{:?}", paths.keys());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
                _ => {}
            }
        }
        let (api, mut found) = (api(), BTreeSet::new());
        references(&api, &mut found);
        assert!(found.len() > 8, "{found:?}");
        for reference in found {
            assert!(api.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for mark in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!DOCS.contains(mark), "{mark}");
        }
    }
}
