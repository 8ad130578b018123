//! Finds circles of files that import one another. Follows each import to the file that
//! defines the imported name.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;
use super::tokens::Token;

/// An import: from one file (by index) to another, with the line and the name that is imported.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) line: usize,
    pub(crate) name: String,
}

/// Files that import one another, directly or by way of others, and the imports among them.
pub(crate) struct Circle {
    pub(crate) files: Vec<usize>,
    pub(crate) imports: Vec<Import>,
}

impl Circle {
    /// The files, and each import among them with one line.
    pub(crate) fn describe(&self, sources: &[&Source]) -> String {
        let mut lines = BTreeSet::new();
        for Import {
            from,
            to,
            line,
            name,
        } in &self.imports
        {
            let (from, to) = (&sources[*from].path, &sources[*to].path);
            lines.insert(format!("  {from}:{line} imports `{name}` of {to}\n"));
        }
        let lines: String = lines.into_iter().collect();
        format!("{} files:\n{lines}", self.files.len())
    }
}

/// What one file declares at its outermost level.
#[derive(Default)]
struct Module {
    /// Modules in files of their own.
    children: BTreeSet<String>,
    /// Types, functions, constants, macros and inline modules.
    defined: BTreeSet<String>,
    /// Names that a `use` brings in, with their path.
    imported: BTreeMap<String, Vec<String>>,
}

/// The files of one crate as a tree of modules.
struct Modules<'a> {
    sources: &'a [&'a Source],
    declared: Vec<Module>,
    by_path: BTreeMap<Vec<String>, usize>,
}

/// The circles among the files of one crate, whose sources lie in `directory`.
pub(crate) fn circles(directory: &str, sources: &[&Source]) -> Vec<Circle> {
    let modules = Modules::new(directory, sources);
    let imports = modules.imports();
    let mut targets = vec![BTreeSet::new(); sources.len()];
    for import in &imports {
        targets[import.from].insert(import.to);
    }
    let reached: Vec<_> = (0..sources.len())
        .map(|file| reachable(file, &targets))
        .collect();
    let mut circles: Vec<Circle> = Vec::new();
    for file in 0..sources.len() {
        let is_known = circles.iter().any(|circle| circle.files.contains(&file));
        if is_known || !reached[file].contains(&file) {
            continue;
        }
        let back = |other: &&usize| reached[**other].contains(&file);
        let files = reached[file].iter().filter(back).copied().collect();
        circles.push(Circle {
            files,
            imports: Vec::new(),
        });
    }
    for import in imports {
        let is_inside = |circle: &&mut Circle| {
            circle.files.contains(&import.from) && circle.files.contains(&import.to)
        };
        if let Some(circle) = circles.iter_mut().find(is_inside) {
            circle.imports.push(import);
        }
    }
    circles
}

/// Every file that imports lead to from `start`; itself only if it is in a circle.
fn reachable(start: usize, targets: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = targets[start].iter().copied().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(&targets[file]);
        }
    }
    found
}

impl<'a> Modules<'a> {
    fn new(directory: &str, sources: &'a [&'a Source]) -> Modules<'a> {
        let path = |source: &Source| -> Option<Vec<String>> {
            let inside = source.path.strip_prefix(directory)?.strip_prefix('/')?;
            match inside.trim_end_matches(".rs") {
                "lib" => Some(Vec::new()),
                "main" => None,
                inside => Some(inside.split('/').map(str::to_owned).collect()),
            }
        };
        let by_path = sources.iter().enumerate();
        let by_path: BTreeMap<_, _> = by_path
            .filter_map(|(file, source)| Some((path(source)?, file)))
            .collect();
        let mut declared: Vec<Module> = sources.iter().map(|_| Module::default()).collect();
        for &file in by_path.values() {
            declared[file] = Module::read(&sources[file].tokens);
        }
        Modules {
            sources,
            declared,
            by_path,
        }
    }

    /// Every import that leads to another file.
    fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (path, &from) in &self.by_path {
            for (line, named) in paths(&self.sources[from].tokens) {
                let Some(absolute) = self.declared[from].absolute(path, &named) else {
                    continue;
                };
                let to = self.definer(&absolute, 0);
                let to = to.filter(|&to| to != from);
                let to = to.filter(|&to| !self.is_inside(from, to));
                imports.extend(to.map(|to| Import {
                    from,
                    to,
                    line,
                    name: named.join("::"),
                }));
            }
        }
        imports
    }

    /// The file at `inner` belongs to the module of the file at `outer`.
    fn is_inside(&self, inner: usize, outer: usize) -> bool {
        let module = self.sources[outer].path.trim_end_matches(".rs");
        let inside = self.sources[inner].path.strip_prefix(module);
        inside.is_some_and(|inside| inside.starts_with('/')) || module.ends_with("/lib")
    }

    /// The file that defines what a path from the crate's root names. `None`: another crate does.
    fn definer(&self, path: &[String], hops: usize) -> Option<usize> {
        const HOPS_MAX: usize = 16;
        let mut module = Vec::new();
        for (at, name) in path.iter().enumerate() {
            let file = *self.by_path.get(&module)?;
            let here = &self.declared[file];
            if here.children.contains(name) {
                module.push(name.clone());
            } else if let Some(imported) = here.imported.get(name)
                && !here.defined.contains(name)
                && hops < HOPS_MAX
            {
                let mut absolute = here.absolute(&module, imported)?;
                absolute.extend_from_slice(&path[at + 1..]);
                return self.definer(&absolute, hops + 1);
            } else {
                return Some(file);
            }
        }
        self.by_path.get(&module).copied()
    }
}

impl Module {
    fn read(tokens: &[Token]) -> Module {
        const ITEMS: [&str; 8] = [
            "struct", "enum", "trait", "type", "union", "fn", "const", "static",
        ];
        let words: Vec<&str> = tokens.iter().map(|token| token.word.as_str()).collect();
        let mut module = Module::default();
        let mut depth = 0_usize;
        let mut at = 0;
        while at < words.len() {
            match words[at..] {
                ["use", next, ..] if depth == 0 && is_name(next) => {
                    let mut leaves = Vec::new();
                    at = use_tree(&words, at + 1, &[], &mut leaves);
                    for (_, leaf, alias) in leaves {
                        module.imported.insert(alias, leaf);
                    }
                    continue;
                }
                ["mod", name, ";", ..] if depth == 0 => {
                    module.children.insert(name.to_owned());
                }
                ["mod", name, "{", ..] | ["macro_rules", "!", name, ..] if depth == 0 => {
                    module.defined.insert(name.to_owned());
                }
                [item, name, ..] if depth == 0 && ITEMS.contains(&item) => {
                    module.defined.insert(name.to_owned());
                }
                ["{", ..] => depth += 1,
                ["}", ..] => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        module
    }

    /// A path as it is written in the module at `here`, from the crate's root. `None`: it leads to
    /// another crate, or names something local.
    fn absolute(&self, here: &[String], path: &[String]) -> Option<Vec<String>> {
        let first = path.first()?.as_str();
        let mut module = here.to_vec();
        let mut rest = path;
        match first {
            "crate" => module.clear(),
            "self" | "super" => {}
            _ if self.children.contains(first) => {
                module.extend_from_slice(path);
                return Some(module);
            }
            _ => {
                let imported = self.imported.get(first)?;
                if imported.first().is_some_and(|name| name == first) {
                    return None;
                }
                let mut absolute = self.absolute(here, imported)?;
                absolute.extend_from_slice(&path[1..]);
                return Some(absolute);
            }
        }
        while let Some(name) = rest.first() {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(module.pop()),
                _ => break,
            }
            rest = &rest[1..];
        }
        module.extend_from_slice(rest);
        Some(module)
    }
}

/// Every path of two names or more, in a `use` or in code, with its line.
fn paths(tokens: &[Token]) -> Vec<(usize, Vec<String>)> {
    let words: Vec<&str> = tokens.iter().map(|token| token.word.as_str()).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        // Not the `use<…>` of a returned `impl Trait`.
        if words[at] == "use" && words.get(at + 1).is_some_and(|next| is_name(next)) {
            let mut leaves = Vec::new();
            let end = use_tree(&words, at + 1, &[], &mut leaves);
            for (place, leaf, _) in leaves {
                found.push((tokens[place].line, leaf));
            }
            at = end;
            continue;
        }
        let begins = at == 0 || !["::", "."].contains(&words[at - 1]);
        if begins && is_name(words[at]) && words.get(at + 1) == Some(&"::") {
            let line = tokens[at].line;
            let mut path = vec![words[at].to_owned()];
            while words.get(at + 1) == Some(&"::") && words.get(at + 2).is_some_and(|w| is_name(w))
            {
                path.push(words[at + 2].to_owned());
                at += 2;
            }
            found.push((line, path));
        }
        at += 1;
    }
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads a use tree: adds each imported path with the place of its last name and the name that it
/// gets here. Returns the place after the tree.
fn use_tree(
    words: &[&str],
    mut at: usize,
    before: &[String],
    leaves: &mut Vec<(usize, Vec<String>, String)>,
) -> usize {
    let mut path = before.to_vec();
    let mut place = at;
    while at < words.len() {
        match words[at] {
            "::" => {}
            "{" => {
                at += 1;
                while at < words.len() && words[at] != "}" {
                    at = use_tree(words, at, &path, leaves);
                    at += usize::from(words.get(at) == Some(&","));
                }
                return at + 1;
            }
            "as" => {
                let alias = words.get(at + 1).copied().unwrap_or_default().to_owned();
                leaves.push((place, path, alias));
                return at + 2;
            }
            "," | "}" | ";" => break,
            name => {
                place = at;
                if name != "self" || path.is_empty() {
                    path.push(name.to_owned());
                }
            }
        }
        at += 1;
    }
    if path.len() > before.len() || words.get(place) == Some(&"self") {
        let alias = path.last().cloned().unwrap_or_default();
        leaves.push((place, path, alias));
    }
    at
}
