//! `cargo xtask public-api [--bless]`: the file `public-api.txt` of each crate says what it makes public, so that a
//! change of the API shows in review. `--bless` writes the files anew.
//!
//! It is read from the source, since rustdoc tells it to programs on nightly only: what `lib.rs` makes public, by
//! `pub mod` and `pub use`, with signatures, public fields and the traits that are derived or implemented. Its
//! limits: it sees no item that a macro makes and no automatic trait, it does not say what a re-export of another
//! crate contains, and it knows no implementation for anything but a type of the crate by its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use syn::{
    Attribute, Block, Field, Fields, File, ImplItem, Item, ItemImpl, ItemStruct, ItemUse, Type,
    UseTree, Visibility, parse_quote,
    visit_mut::{self, VisitMut},
};
use xshell::Shell;

use crate::process::{Result, metadata, none_of};

pub(crate) fn run(shell: &Shell, arguments: &[String]) -> Result {
    let bless = arguments.iter().any(|argument| argument == "--bless");
    let mut faults = Vec::new();
    for package in metadata()?.workspace_packages() {
        let folder = package.manifest_path.parent().ok_or("a package without a folder")?;
        let library = folder.join("src/lib.rs");
        if package.publish.is_some() || !library.exists() {
            continue;
        }
        let api = Library::read(shell, library.as_ref())?.api();
        let file = folder.join("public-api.txt");
        if bless {
            shell.write_file(file, api)?;
        } else {
            let kept = shell.read_file(&file).unwrap_or_default();
            faults.extend(difference(&kept, &api).map(|lines| format!("{file}:\n{lines}")));
        }
    }
    none_of(&faults)
        .map_err(|why| format!("{why}\n`cargo xtask public-api --bless` writes it").into())
}

/// The lines that only one of the two has.
fn difference(kept: &str, api: &str) -> Option<String> {
    let only = |sign, text: &str, other: &str| {
        let other: BTreeSet<&str> = other.lines().collect();
        let lines = text.lines().filter(|line| !other.contains(line));
        lines.map(|line| format!("{sign}{line}\n")).collect::<String>()
    };
    (kept != api).then(|| only('-', kept, api) + &only('+', api, kept))
}

/// The modules of a library by their paths, the root's being empty.
#[derive(Default)]
struct Library {
    modules: BTreeMap<Vec<String>, Vec<Item>>,
}

/// A module and the name of an item in it.
type Place = (Vec<String>, String);

impl Library {
    fn read(shell: &Shell, file: &Path) -> Result<Self> {
        let mut library = Self::default();
        library.enter(shell, Vec::new(), syn::parse_file(&shell.read_file(file)?)?.items, file)?;
        Ok(library)
    }

    /// Takes a module's items in, and those of the modules below it but for what only tests and fuzzers compile.
    fn enter(&mut self, shell: &Shell, path: Vec<String>, items: Vec<Item>, file: &Path) -> Result {
        for item in &items {
            let Item::Mod(module) = item else { continue };
            if only_for_tests(&module.attrs) {
                continue;
            }
            let name = module.ident.to_string();
            let inside = [path.as_slice(), std::slice::from_ref(&name)].concat();
            match &module.content {
                Some((_, items)) => self.enter(shell, inside, items.clone(), file)?,
                None => {
                    let is_root = ["lib.rs", "mod.rs"].iter().any(|root| file.ends_with(root));
                    let folder =
                        if is_root { file.with_file_name("") } else { file.with_extension("") };
                    let flat = folder.join(format!("{name}.rs"));
                    let file = if flat.exists() { flat } else { folder.join(name).join("mod.rs") };
                    let items = syn::parse_file(&shell.read_file(&file)?)?.items;
                    self.enter(shell, inside, items, &file)?;
                }
            }
        }
        self.modules.insert(path, items);
        Ok(())
    }

    fn api(&self) -> String {
        let file = File {
            shebang: None,
            frontmatter: None,
            attrs: Vec::new(),
            items: self.public_items(&[]),
        };
        prettyplease::unparse(&file)
    }

    /// What a module makes public, by name, each type with its implementations.
    fn public_items(&self, module: &[String]) -> Vec<Item> {
        let mut named = BTreeMap::<String, Vec<Item>>::new();
        for item in self.items(module) {
            if let Item::Use(used) = item
                && is_public(&used.vis)
            {
                for leaf in leaves(&used.tree) {
                    let items = self.reexported(module, used, &leaf);
                    named.entry(leaf.name).or_default().extend(items);
                }
            } else if let Some((name, vis, attrs)) = parts(item)
                && is_public(vis)
                && !only_for_tests(attrs)
            {
                let shown = self.shown(item, module, &name);
                named.entry(name).or_default().extend(shown);
            }
        }
        named.into_values().flatten().collect()
    }

    fn items(&self, module: &[String]) -> impl Iterator<Item = &Item> {
        self.modules.get(module).into_iter().flatten()
    }

    /// What one name of a `pub use` stands for: an item of this library, or just the name of another one's.
    fn reexported(&self, module: &[String], used: &ItemUse, leaf: &Leaf) -> Vec<Item> {
        if let Some(place) = self.find(module, &leaf.path) {
            if leaf.name == "*" {
                return self.public_items(&joined(&place.0, &place.1));
            }
            let items = self.items(&place.0).filter(|item| is_named(item, &place.1));
            return items.flat_map(|item| self.shown(item, &place.0, &place.1)).collect();
        }
        let text = format!("pub use {} as {};", leaf.path.join("::"), leaf.name);
        let last = leaf.path.last().map_or("", String::as_str);
        let text = text.replace(&format!("{last} as {last};"), &format!("{last};"));
        let mut item: Vec<ItemUse> =
            syn::parse_str(&text.replace(" as *;", "::*;")).into_iter().collect();
        item.iter_mut().for_each(|item| item.attrs.clone_from(&used.attrs));
        item.iter_mut().for_each(|item| Strip.visit_item_use_mut(item));
        item.into_iter().map(Item::Use).collect()
    }

    /// Where an item of this library is defined that a module names by a path.
    fn find(&self, module: &[String], path: &[String]) -> Option<Place> {
        let (name, before) = path.split_last()?;
        let place = before.iter().try_fold(module.to_vec(), |place, word| match word.as_str() {
            "crate" => Some(Vec::new()),
            "self" => Some(place),
            "super" => Some(place.split_last()?.1.to_vec()),
            word => Some(joined(&place, word)).filter(|place| self.modules.contains_key(place)),
        })?;
        if self.items(&place).any(|item| is_named(item, name)) {
            return Some((place, name.clone()));
        }
        let uses = self.items(&place).filter_map(|item| match item {
            Item::Use(used) => Some(leaves(&used.tree)),
            _ => None,
        });
        let leaf = uses.flatten().find(|leaf| leaf.name == *name && leaf.path != path)?;
        self.find(&place, &leaf.path)
    }

    /// An item as its users see it, with its implementations behind it.
    fn shown(&self, item: &Item, module: &[String], name: &str) -> Vec<Item> {
        let mut items = vec![item.clone()];
        if let Some(Item::Mod(inside)) = items.first_mut() {
            let public = self.public_items(&joined(module, name));
            inside.content = Some((Default::default(), public));
            inside.semi = None;
        } else if !matches!(item, Item::Fn(_)) {
            let place = Some((module.to_vec(), name.to_owned()));
            for (module, item) in
                self.modules.iter().flat_map(|(m, i)| i.iter().map(move |i| (m, i)))
            {
                if let Item::Impl(found) = item
                    && let Type::Path(of) = &*found.self_ty
                    && !only_for_tests(&found.attrs)
                {
                    let words = of.path.segments.iter().map(|word| word.ident.to_string());
                    if self.find(module, &words.collect::<Vec<_>>()) == place {
                        items.push(item.clone());
                    }
                }
            }
        }
        items.iter_mut().for_each(|item| Strip.visit_item_mut(item));
        items.retain(
            |item| !matches!(item, Item::Impl(it) if it.trait_.is_none() && it.items.is_empty()),
        );
        items
    }
}

/// Leaves of an item what its users see.
struct Strip;

impl VisitMut for Strip {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        let matters = ["cfg", "derive", "non_exhaustive", "deprecated"];
        attributes.retain(|a| matters.iter().any(|name| a.path().is_ident(name)));
    }

    fn visit_block_mut(&mut self, body: &mut Block) {
        body.stmts.clear();
    }

    /// Private fields become one, `_`: that there are some matters, since nobody else can build such a value.
    fn visit_item_struct_mut(&mut self, item: &mut ItemStruct) {
        let fields = match &mut item.fields {
            Fields::Named(fields) => &mut fields.named,
            Fields::Unnamed(fields) => &mut fields.unnamed,
            Fields::Unit => return visit_mut::visit_item_struct_mut(self, item),
        };
        let mut first = true;
        let shown = |field: &Field| is_public(&field.vis) || std::mem::take(&mut first);
        *fields = std::mem::take(fields).into_iter().filter(shown).collect();
        for field in fields.iter_mut().filter(|field| !is_public(&field.vis)) {
            field.ty = parse_quote!(_);
            field.ident = field.ident.as_ref().map(|_| parse_quote!(private));
        }
        visit_mut::visit_item_struct_mut(self, item);
    }

    fn visit_item_impl_mut(&mut self, item: &mut ItemImpl) {
        let of_trait = item.trait_.is_some();
        item.items.retain(|item| match item {
            ImplItem::Fn(it) => !of_trait && is_public(&it.vis) && !only_for_tests(&it.attrs),
            ImplItem::Const(it) => !of_trait && is_public(&it.vis),
            item => of_trait && matches!(item, ImplItem::Type(_)),
        });
        visit_mut::visit_item_impl_mut(self, item);
    }
}

/// One name that a `use` brings in (`*` for all of a module), and the path that it stands for.
struct Leaf {
    path: Vec<String>,
    name: String,
}

fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let leaf = |path: &syn::Ident, name: String| vec![Leaf { path: vec![path.to_string()], name }];
    match tree {
        UseTree::Name(it) => leaf(&it.ident, it.ident.to_string()),
        UseTree::Rename(it) => leaf(&it.ident, it.rename.to_string()),
        UseTree::Glob(_) => vec![Leaf { path: Vec::new(), name: "*".to_owned() }],
        UseTree::Group(it) => it.items.iter().flat_map(leaves).collect(),
        UseTree::Path(it) => {
            let mut inside = leaves(&it.tree);
            for leaf in &mut inside {
                leaf.path.insert(0, it.ident.to_string());
            }
            inside
        }
    }
}

fn joined(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The name, visibility and attributes of an item that has a name.
fn parts(item: &Item) -> Option<(String, &Visibility, &[Attribute])> {
    let (name, vis, attrs) = match item {
        Item::Fn(it) => (&it.sig.ident, &it.vis, &it.attrs),
        Item::Const(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Static(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Type(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Struct(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Enum(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Union(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Trait(it) => (&it.ident, &it.vis, &it.attrs),
        Item::Mod(it) => (&it.ident, &it.vis, &it.attrs),
        _ => return None,
    };
    Some((name.to_string(), vis, attrs))
}

fn is_named(item: &Item, name: &str) -> bool {
    parts(item).is_some_and(|(known, ..)| known == name)
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

/// Whether only tests or fuzzers compile it.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
        condition.is_ok_and(|text| text.contains("test") || text.contains("fuzzing"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(modules: &[(&str, &str)]) -> String {
        let path = |path: &str| path.split_terminator("::").map(str::to_owned).collect();
        let items = |code| syn::parse_file(code).unwrap().items;
        Library { modules: modules.iter().map(|(at, code)| (path(at), items(code))).collect() }
            .api()
    }

    #[test]
    fn what_is_public_is_shown_with_signatures_and_what_is_private_is_not() {
        let root = "mod inner; pub use inner::Key; #[cfg(feature = \"x\")] pub use other::Thing;";
        let inner = "/// Docs.\n#[derive(Debug)] pub struct Key { pub id: u8, secret: u8 } pub struct Unseen;\n\
            impl Key { #[must_use] pub fn id(&self) -> u8 { self.id } fn hidden() {} }\n\
            impl Clone for Key { fn clone(&self) -> Self { todo!() } } impl Unseen { pub fn f() {} }";
        let expected = "#[derive(Debug)]\npub struct Key {\n    pub id: u8,\n    private: _,\n}\n\
            impl Key {\n    pub fn id(&self) -> u8 {}\n}\nimpl Clone for Key {}\n\
            #[cfg(feature = \"x\")]\npub use other::Thing;\n";
        assert_eq!(api(&[("", root), ("inner", inner)]), expected);
    }

    #[test]
    fn a_change_is_shown_by_its_lines() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "-b\n+c\n");
    }
}
