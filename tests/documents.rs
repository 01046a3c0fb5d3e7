//! ARCHITECTURE.md gives the reason of every dependency, and of nothing else.

use std::collections::BTreeSet;

use toml::Table;

const MANIFEST: &str = include_str!("../Cargo.toml");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

/// The crates that a table of the manifest names.
fn crates<'a>(manifest: &'a Table, table: &str) -> BTreeSet<&'a str> {
    manifest[table].as_table().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
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
