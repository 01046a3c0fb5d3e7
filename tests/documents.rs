//! ARCHITECTURE.md gives the reason of every dependency, and of nothing else; docs/ownership.md names tests that exist.

use std::{collections::BTreeSet, fs, path::Path};

use toml::Table;

const MANIFEST: &str = include_str!("../Cargo.toml");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

/// The crates that a table of the manifest names.
fn crates<'a>(manifest: &'a Table, table: &str) -> BTreeSet<&'a str> {
    manifest[table].as_table().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// The tests that docs/ownership.md names, as `module::test`.
#[test]
fn each_attack_has_its_test() {
    let page = include_str!("../docs/ownership.md");
    let (_, table) = page.split_once("## Attacks").unwrap();
    let named = table.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
    let mut count = 0;
    for name in named {
        let (module, test) = name.rsplit_once("::").unwrap();
        let file = match module.strip_suffix("::tests") {
            Some(module) => format!("src/{}.rs", module.replace("::", "/")),
            None => format!("tests/ownership/{module}.rs"),
        };
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(source.contains(&format!("fn {test}()")), "{name} is no test");
        count += 1;
    }
    assert!(count > 15, "only {count} tests are named");
}

#[test]
fn each_dependency_has_its_reason() {
    let manifest: Table = MANIFEST.parse().unwrap();
    let (_, section) = ARCHITECTURE.split_once("\n## Dependencies\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named: BTreeSet<_> =
        rows.flat_map(|names| names.split(", ")).filter(|name| !matches!(*name, "crate" | "---")).collect();
    assert_eq!(named, crates(&manifest, "dependencies"));
    for name in &crates(&manifest, "dev-dependencies") - &crates(&manifest, "dependencies") {
        assert!(section.contains(name), "{name} is a dependency of tests without a reason");
    }
}
