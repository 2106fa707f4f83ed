//! The two READMEs say the same, and name every setting; what the pages name of the code is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const READMES: [&str; 2] = ["README.md", "README.pt-BR.md"];

const GUARANTEES: &str = "docs/guarantees.md";
const UPGRADING: &str = "docs/upgrading-from-go.md";

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What two translations of one page have in common.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outline {
    /// The level of each heading.
    headings: Vec<usize>,
    /// Each code block with its language, and the heading that it stands under, counted from 1.
    blocks: Vec<(usize, String)>,
    /// Rows of each table.
    tables: Vec<usize>,
}

impl Outline {
    fn of(page: &str) -> Self {
        let mut outline = Outline::default();
        let (mut block, mut was_row) = (None::<String>, false);
        for line in page.lines() {
            let is_fence = line.starts_with("```");
            match block.take() {
                Some(text) if is_fence => outline.blocks.push((outline.headings.len(), text)),
                Some(text) => block = Some(format!("{text}\n{line}")),
                None if is_fence => block = Some(line.to_owned()),
                None => outline.read_prose(line, was_row),
            }
            was_row = line.starts_with('|');
        }
        assert_eq!(block, None, "a code block is not closed");
        outline
    }

    fn read_prose(&mut self, line: &str, was_row: bool) {
        if line.starts_with('#') {
            self.headings.push(line.bytes().take_while(|&byte| byte == b'#').count());
        }
        if line.starts_with('|') {
            if !was_row {
                self.tables.push(0);
            }
            *self.tables.last_mut().expect("a table has begun") += 1;
        }
    }
}

/// Names in backquotes in the first column of the tables.
fn names_in_tables(page: &str) -> BTreeSet<&str> {
    let first_cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_readmes_have_the_same_headings_tables_and_code() {
    let [english, portuguese] = READMES.map(|name| Outline::of(&file(name)));
    assert_eq!(english.headings, portuguese.headings);
    assert_eq!(english.tables, portuguese.tables);
    for (ours, theirs) in english.blocks.iter().zip(&portuguese.blocks) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(english.blocks.len(), portuguese.blocks.len());
    assert!(english.headings.len() > 10 && english.blocks.len() > 20, "{english:?}");
}

#[test]
fn the_readmes_name_every_setting() {
    let example = file("example.env");
    let assignments = example.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    // Whatever holds a space is prose.
    let settings: BTreeSet<&str> = assignments.map(|(name, _)| name).filter(|name| !name.contains(' ')).collect();
    assert!(settings.len() > 20, "{settings:?}");
    for readme in READMES {
        let page = file(readme);
        let missing: Vec<_> = settings.difference(&names_in_tables(&page)).copied().collect();
        assert!(missing.is_empty(), "{readme} does not name {missing:?}");
    }
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [READMES[0], READMES[1], "ARCHITECTURE.md", GUARANTEES, UPGRADING, "CHANGELOG.md"] {
        let page = file(name);
        let folder = root.join(name).parent().expect("a page is in a folder").to_owned();
        let anchor = |heading: &str| {
            let kept = heading.trim_start_matches('#').trim().to_lowercase();
            kept.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char)).collect::<String>()
        };
        let anchors: BTreeSet<String> =
            page.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line).replace(' ', "-")).collect();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let found = match target.strip_prefix('#') {
                Some(wanted) => anchors.contains(wanted),
                None => {
                    let path = target.split('#').next().unwrap_or(target);
                    target.starts_with("https://") || folder.join(path).exists()
                }
            };
            assert!(found, "{name}: nothing is at {target}");
        }
    }
}

/// Every `.rs` file below a folder, one after the other.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("it is text"));
        }
    }
}

/// The part of a page from one heading to the next of its level.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page.split_once(heading).unwrap_or_else(|| panic!("there is no {heading:?}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

#[test]
fn the_tests_that_are_named_exist() {
    let (page, root) = (file("ARCHITECTURE.md"), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let quoted = section(&page, "## Losses, hazards, defences, tests").split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|name| name.contains("::") && !name.contains('…')).collect();
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        let function = name.rsplit("::").next().unwrap_or(name);
        assert!(code.contains(&format!("fn {function}(")), "there is no test {name}");
    }
}

#[test]
fn the_guarantees_name_code_and_tests_that_exist() {
    let (page, root) = (file(GUARANTEES), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let (mut tests, mut places) = (BTreeSet::new(), 0);
    for name in page.split('`').skip(1).step_by(2) {
        match name.split_once("::") {
            Some((path, item)) if path.ends_with(".rs") => {
                let text = file(&format!("src/{path}"));
                let there = ["fn", "struct"].iter().any(|kind| text.contains(&format!("{kind} {item}")));
                assert!(there, "there is no {item} in {path}");
                places += 1;
            }
            Some(_) => {
                let function = name.rsplit("::").next().unwrap_or(name);
                assert!(code.contains(&format!("fn {function}(")), "there is no test {name}");
                tests.insert(function);
            }
            None if name.ends_with(".rs") => drop(file(&format!("src/{name}"))),
            None => {}
        }
    }
    assert!(tests.len() > 60 && places > 25, "{} tests, {places} places", tests.len());
}

#[test]
fn the_torture_script_explains_every_option_without_building() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("scripts/torture");
    // Without a cargo to build with.
    let output = Command::new(script).arg("--help").env("PATH", "/usr/bin:/bin").env("CARGO", "/nowhere").output();
    let output = output.expect("the script can be started");
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let code = file("tests/torture/main.rs");
    let (_, options) = code.split_once("struct Options {").expect("the options are there");
    let options = options.split("\n}").next().unwrap_or_default();
    let fields =
        options.lines().filter(|line| !line.trim().starts_with(['/', '#'])).filter_map(|line| line.split_once(':'));
    let flags: BTreeSet<String> = fields.map(|(name, _)| format!("--{}", name.trim().replace('_', "-"))).collect();
    assert!(flags.len() > 5, "{flags:?}");
    let words: BTreeSet<String> =
        help.split_whitespace().filter(|word| word.starts_with("--") && *word != "--help").map(str::to_owned).collect();
    assert_eq!(words, flags, "{help}");
}

#[test]
fn every_dependency_has_its_reason() {
    let (page, manifest) = (file("ARCHITECTURE.md"), file("Cargo.toml"));
    let reasons = section(&page, "## Dependencies");
    let tables =
        manifest.split("\n[").filter(|table| table.lines().next().is_some_and(|name| name.contains("dependencies")));
    let names = tables.flat_map(|table| table.lines().skip(1)).filter_map(|line| line.split_once(" = "));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(reasons.contains(&format!("`{name}`")), "{name} has no reason");
    }
}
