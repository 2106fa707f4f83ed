//! What is wrong with a text that is no JSON, in words for whoever sent it: what, and where, never the text itself.

use serde_json::Error;
use serde_json::error::Category;

/// The parser's own words, and ours. It has no other way to tell its errors apart.
const WORDS: [(&str, &str); 18] = [
    ("EOF while parsing a list", "it ends before the list is closed by ]"),
    ("EOF while parsing an object", "it ends before the object is closed by }"),
    ("EOF while parsing a string", "it ends before a text is closed by a double quote"),
    ("EOF while parsing a value", "it ends where a value should stand"),
    ("expected `:`", "a colon must stand between a name and its value"),
    ("expected `,` or `]`", "a comma or ] must follow an element of a list"),
    ("expected `,` or `}`", "a comma or } must follow a value in an object"),
    ("expected ident", "a word without quotes can only be true, false or null"),
    ("expected value", "a value must stand here: an object, a list, a number, or a text in double quotes"),
    ("key must be a string", "a name must stand in double quotes"),
    ("trailing comma", "no comma may stand before the end of a list or object"),
    ("trailing characters", "nothing may follow the first value; one object a line is application/x-ndjson"),
    ("invalid number", "a number must be written as in 0.5 or -12e3"),
    ("number out of range", "a number is too large"),
    ("invalid escape", "only \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\u0000 to \\uFFFF may follow a backslash"),
    ("control character", "a line break or another control character in a text must be escaped, as in \\n"),
    ("recursion limit exceeded", "it is nested too deep"),
    ("duplicate field", "a member is given twice"),
];

/// What is wrong, and where in a text of several lines.
pub(super) fn in_text(error: &Error) -> String {
    format!("line {}, column {}: {}", error.line(), error.column().max(1), what(error))
}

/// The same of a text that is one line of many, whose number its reader knows better.
pub(super) fn in_line(error: &Error) -> String {
    format!("column {}: {}", error.column().max(1), what(error))
}

/// What is wrong, where the place is of no use.
pub(super) fn what(error: &Error) -> &'static str {
    let said = error.to_string();
    let known = WORDS.iter().find(|(theirs, _)| said.starts_with(theirs)).map(|&(_, ours)| ours);
    // Such as half a surrogate pair.
    known.unwrap_or_else(|| match error.classify() {
        Category::Data => "another kind of value must stand here",
        Category::Syntax | Category::Eof | Category::Io => "a \\u escape must name a character, or both halves of one",
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    fn check(text: &str, expected: &str) {
        let error = serde_json::from_str::<Value>(text).unwrap_err();
        let said = in_text(&error);
        assert!(said.starts_with(expected), "{text}: {said}, {error}");
        assert!(!said.contains("secret"), "{said}");
    }

    #[test]
    fn every_mistake_has_its_words() {
        check("nosecret", "line 1, column 2: a word without quotes can only be true, false or null");
        check("secret", "line 1, column 1: a value must stand here: an object");
        check("{'secret':1}", "line 1, column 2: a name must stand in double quotes");
        check("{secret:1}", "line 1, column 2: a name must stand in double quotes");
        check("{\"a\":1,\n \"b\":secret}", "line 2, column 6: a value must stand here");
        check("[\"secret\"", "line 1, column 9: it ends before the list is closed by ]");
        check("{\"secret\":1", "line 1, column 11: it ends before the object is closed by }");
        check("{\"secret", "line 1, column 8: it ends before a text is closed");
        check("{\"secret\":", "line 1, column 10: it ends where a value should stand");
        check("{\n", "line 2, column 1: it ends before the object");
        check("{\"secret\" 1}", "line 1, column 11: a colon must stand between");
        check("[1 2]", "line 1, column 4: a comma or ] must follow");
        check("{\"secret\":1 \"b\":2}", "line 1, column 13: a comma or } must follow");
        check("{\"a\":1,}", "line 1, column 8: no comma may stand before the end");
        check("[1,]", "line 1, column 4: no comma may stand before the end");
        check("{} secret", "line 1, column 4: nothing may follow the first value");
        check("01", "line 1, column 2: a number must be written as in");
        check("1.", "line 1, column 2: it ends where a value should stand");
        check("[1.]", "line 1, column 4: a number must be written as in");
        check("1e999", "line 1, column 5: a number is too large");
        check("\"\\x41 secret\"", "line 1, column 3: only \\\"");
        check("\"secret\n\"", "line 2, column 1: a line break or another control character");
        check("\"\\ud800 secret\"", "line 1, column 8: a \\u escape must name a character");
        check("\"\\udc00\"", "line 1, column 7: a \\u escape must name a character");
        check("\"\\uZZZZ\"", "line 1, column 7: only \\\"");
        check(&"[".repeat(200), "line 1, column 128: it is nested too deep");
    }

    #[test]
    fn another_kind_of_value_is_not_repeated() {
        #[derive(Debug, Deserialize)]
        struct Pair {
            #[expect(dead_code, reason = "only whether it can be read matters")]
            secret: Option<u8>,
        }
        let wrong = serde_json::from_str::<Pair>("{\"secret\":\"secret\"}").unwrap_err();
        assert_eq!(what(&wrong), "another kind of value must stand here");
        let twice = serde_json::from_str::<Pair>("{\"secret\":1,\"secret\":1}").unwrap_err();
        assert_eq!(in_line(&twice), "column 20: a member is given twice");
    }
}
