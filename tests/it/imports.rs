//! Data flows one way: no files of `src/` import each other in a circle. A `pub use` is a table of contents, and counts for
//! whoever goes through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Item, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

type Names = Vec<String>;

/// A file that is compiled outside of tests.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// What it uses, by the path from the root of the crate.
    uses: Vec<Names>,
    /// What it passes on, by name.
    passes_on: BTreeMap<String, Names>,
}

#[derive(Default)]
struct Crate(BTreeMap<Names, Module>);

impl Crate {
    fn read(&mut self, name: Names, file: PathBuf) {
        let text = fs::read_to_string(&file).unwrap();
        let mut reader = Reader { name: name.clone(), module: Module::default(), children: Vec::new() };
        reader.visit_file(
            &syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        );
        let directory = match file.file_stem().unwrap().to_str().unwrap() {
            "lib" | "mod" => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        self.0.insert(name.clone(), Module { file, ..reader.module });
        for child in reader.children {
            let candidates = [directory.join(format!("{child}.rs")), directory.join(&child).join("mod.rs")];
            let file = candidates.into_iter().find(|file| file.exists()).unwrap();
            self.read([name.clone(), vec![child]].concat(), file);
        }
    }

    /// Returns the module in which what `path` names is defined, if it is one of this crate.
    fn defined_in(&self, path: &[String]) -> Option<&Names> {
        let (at, name) =
            (0..=path.len()).rev().find_map(|at| Some((at, self.0.get_key_value(&path[..at])?)))?;
        let passed_on = path.get(at).and_then(|next| self.0[name.0].passes_on.get(next));
        match passed_on {
            Some(target) => self.defined_in(&[target.clone(), path[at + 1..].to_vec()].concat()),
            None => Some(name.0),
        }
    }

    /// Returns the modules that each module imports from.
    fn imports(&self) -> BTreeMap<&Names, BTreeSet<&Names>> {
        let of = |name, module: &Module| {
            let imports = module.uses.iter().filter_map(|path| self.defined_in(path));
            imports.filter(|import| *import != name).collect()
        };
        self.0.iter().map(|(name, module)| (name, of(name, module))).collect()
    }
}

/// Reads one file.
struct Reader {
    name: Names,
    module: Module,
    children: Vec<String>,
}

impl Reader {
    /// Returns the path from the root of the crate, or `None` if it leads elsewhere.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&self.name, &path[1..]].concat()),
            "super" => {
                let above = &self.name[..self.name.len().checked_sub(supers)?];
                Some([above, &path[supers..]].concat())
            }
            first if self.children.iter().any(|child| child == first) => Some([&self.name, path].concat()),
            _ => None,
        }
    }

    fn leaves(tree: &UseTree, before: Names) -> Vec<(String, Names)> {
        let and = |name: String| [before.clone(), vec![name]].concat();
        match tree {
            UseTree::Path(path) => Self::leaves(&path.tree, and(path.ident.to_string())),
            UseTree::Name(name) if name.ident == "self" => {
                vec![(before.last().cloned().unwrap_or_default(), before)]
            }
            UseTree::Name(name) => vec![(name.ident.to_string(), and(name.ident.to_string()))],
            UseTree::Rename(rename) => vec![(rename.rename.to_string(), and(rename.ident.to_string()))],
            UseTree::Glob(_) => vec![(String::new(), before)],
            UseTree::Group(group) => {
                group.items.iter().flat_map(|item| Self::leaves(item, before.clone())).collect()
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_file(&mut self, file: &'ast syn::File) {
        let is_child = |item: &&Item| matches!(item, Item::Mod(module) if module.content.is_none());
        for child in file.items.iter().filter(is_child) {
            if let Item::Mod(module) = child
                && !is_test(&module.attrs)
            {
                self.children.push(module.ident.to_string());
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    /// What stands in a module within a file is the file's, and its paths are not followed.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for (name, path) in Self::leaves(&item.tree, Vec::new()) {
            let Some(path) = self.absolute(&path) else { continue };
            match item.vis {
                Visibility::Inherited => self.module.uses.push(path),
                _ => drop(self.module.passes_on.insert(name, path)),
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if matches!(names.first().map(String::as_str), Some("crate" | "super" | "self")) && names.len() > 1 {
            self.module.uses.extend(self.absolute(&names));
        }
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &&syn::Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|option| option.is_ident("test"))
    };
    attributes.iter().any(|attribute| is_test(&attribute))
}

/// Returns what is left once all modules are taken away that import nothing from what is left.
fn in_circles<'a>(
    mut imports: BTreeMap<&'a Names, BTreeSet<&'a Names>>,
) -> BTreeMap<&'a Names, BTreeSet<&'a Names>> {
    loop {
        let left: BTreeSet<_> = imports.keys().copied().collect();
        let imported: BTreeSet<_> = imports.values().flatten().copied().collect();
        let before = imports.len();
        imports.retain(|name, of| {
            of.retain(|import| left.contains(import));
            !of.is_empty() && imported.contains(name)
        });
        if imports.len() == before {
            return imports;
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let mut all = Crate::default();
    all.read(Vec::new(), root);
    assert!(all.0.len() > 100, "{} files", all.0.len());
    let imports = all.imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 300, "the imports are read");
    let circles = in_circles(imports);
    let mut arrows = String::new();
    for (name, imports) in &circles {
        for import in imports {
            arrows += &format!("{} -> {}\n", all.0[*name].file.display(), all.0[*import].file.display());
        }
    }
    assert!(arrows.is_empty(), "these files import each other in circles:\n{arrows}");
}
