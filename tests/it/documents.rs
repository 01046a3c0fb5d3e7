//! Documents say what is so: ARCHITECTURE.md gives the reason of every dependency, and of nothing else, and names files that
//! exist; examples of settings are right; what docs/tls.md quotes from the log is in the code; docs/ownership.md names tests that exist.

use std::{collections::BTreeSet, fs, path::Path};

use gemmapod_signal::Config;
use toml::Table;

const MANIFEST: &str = include_str!("../../Cargo.toml");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");
const README: &str = include_str!("../../README.md");
const PROXIES: &str = include_str!("../../docs/proxies.md");
const TLS: &str = include_str!("../../docs/tls.md");

/// The crates that a table of the manifest names.
fn crates<'a>(manifest: &'a Table, table: &str) -> BTreeSet<&'a str> {
    manifest[table].as_table().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// Returns the cells of each row of the table that begins with `head`.
fn rows<'a>(page: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, table) = page.split_once(head).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// Names a file, a folder or a test, as `module::test`.
fn is_test(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some((module, test)) = name.rsplit_once("::") else { return root.join(name).exists() };
    let files = match module.strip_suffix("::tests") {
        Some(module) => [".rs", "/tests.rs"].map(|end| format!("src/{}{end}", module.replace("::", "/"))),
        None => [format!("tests/it/ownership/{module}.rs"), String::new()],
    };
    let source = files.map(|file| fs::read_to_string(root.join(file)).unwrap_or_default()).concat();
    let is_marked =
        |(before, _): (&str, &str)| before.lines().rev().take(3).any(|line| line.trim().starts_with("#["));
    source.split_once(&format!("fn {test}()")).is_some_and(is_marked)
}

/// The last column of both tables: in docs/ownership.md one test or more for each attack, in docs/threat-model.md the files.
#[test]
fn each_attack_has_its_test() {
    let attacks = rows(include_str!("../../docs/ownership.md"), "| who tries what |");
    let threats = rows(include_str!("../../docs/threat-model.md"), "| who | can try to |");
    assert!(attacks.len() > 40 && threats.len() > 25, "{} attacks, {} threats", attacks.len(), threats.len());
    for row in attacks.iter().chain(&threats) {
        let named: Vec<_> = row.last().unwrap().split('`').skip(1).step_by(2).collect();
        let is_for_nobody = row[0] == "the operator";
        assert!(is_for_nobody || !named.is_empty(), "{row:?} names no test");
        named.iter().for_each(|name| assert!(is_test(name), "{name} is no test"));
    }
}

#[test]
fn each_dependency_has_its_reason() {
    let manifest: Table = MANIFEST.parse().unwrap();
    let (_, section) = ARCHITECTURE.split_once("\n## Dependencies\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named: BTreeSet<_> =
        rows.flat_map(|names| names.split(", ")).filter(|name| !matches!(*name, "crate" | "---")).collect();
    let targets = manifest["target"].as_table().unwrap().values();
    let of_targets = targets.flat_map(|target| crates(target.as_table().unwrap(), "dependencies"));
    let of_all = crates(&manifest, "dependencies").into_iter().chain(of_targets);
    assert_eq!(named, of_all.collect());
    for name in &crates(&manifest, "dev-dependencies") - &crates(&manifest, "dependencies") {
        assert!(section.contains(name), "{name} is a dependency of tests without a reason");
    }
}

#[test]
fn each_file_of_the_architecture_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let quotes = ARCHITECTURE.split('`').skip(1).step_by(2);
    let files: BTreeSet<_> =
        quotes.filter(|quote| quote.ends_with(".rs") || quote.starts_with("tests/")).collect();
    assert!(files.len() > 60, "{files:?}");
    for file in files {
        assert!(root.join(file).exists() || root.join("src").join(file).exists(), "{file} is no file");
    }
}

#[test]
fn examples_of_settings_are_right() {
    for document in [README, PROXIES, TLS] {
        let examples = document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for example in examples {
            if let Err(errors) = Config::from_toml(example) {
                panic!("{example}\n{errors:?}");
            }
        }
    }
}

/// All of the code below `folder`, with sentences that go over several lines in one.
fn code(folder: &Path) -> String {
    let mut code = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            code += &self::code(&path);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let mut lines = text.split("\\\n");
            code += lines.next().unwrap();
            lines.for_each(|line| code += line.trim_start());
        }
    }
    code
}

#[test]
fn the_log_says_what_the_tls_page_quotes() {
    let code = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let tables = TLS.split("| the log says | what to do |\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with("| ")));
    let mut quoted = 0;
    for row in rows {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        for quote in cell.split('`').skip(1).step_by(2) {
            // What stands for something else in each line of the log, and numbers of ports.
            let parts =
                ["NAME", "443", "80", " N "].iter().fold(quote.to_owned(), |q, word| q.replace(word, "…"));
            for part in parts.split('…').map(str::trim).filter(|part| part.len() > 2) {
                assert!(code.contains(part), "nothing says {part:?}");
                quoted += 1;
            }
        }
    }
    assert!(quoted > 40, "{quoted}");
}
