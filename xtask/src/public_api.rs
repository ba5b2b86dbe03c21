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

/// The items of a library's modules by their paths, the root's being empty: as users see them, whether they do or not.
#[derive(Default)]
struct Library(BTreeMap<Vec<String>, Vec<Item>>);

impl Library {
    fn read(shell: &Shell, file: &Path) -> Result<Self> {
        let mut library = Self::default();
        library.enter(shell, Vec::new(), syn::parse_file(&shell.read_file(file)?)?.items, file)?;
        Ok(library)
    }

    /// Takes a module in, and those below it.
    fn enter(
        &mut self,
        shell: &Shell,
        at: Vec<String>,
        mut items: Vec<Item>,
        file: &Path,
    ) -> Result {
        items.retain(|item| !only_for_tests(parts(item).2));
        for item in &mut items {
            Strip.visit_item_mut(item);
            let Item::Mod(module) = item else { continue };
            let name = module.ident.to_string();
            let inside = joined(&at, &name);
            if let Some((_, items)) = module.content.take() {
                self.enter(shell, inside, items, file)?;
                continue;
            }
            let is_root = ["lib.rs", "mod.rs"].iter().any(|root| file.ends_with(root));
            let folder = if is_root { file.with_file_name("") } else { file.with_extension("") };
            let flat = folder.join(format!("{name}.rs"));
            let file = if flat.exists() { flat } else { folder.join(name).join("mod.rs") };
            let items = syn::parse_file(&shell.read_file(&file)?)?.items;
            self.enter(shell, inside, items, &file)?;
        }
        self.0.insert(at, items);
        Ok(())
    }

    fn api(&self) -> String {
        let items = self.public_items(&[]);
        prettyplease::unparse(&File { shebang: None, frontmatter: None, attrs: Vec::new(), items })
    }

    /// What a module makes public, by name, each type with its implementations.
    fn public_items(&self, module: &[String]) -> Vec<Item> {
        let mut named = BTreeMap::<String, Vec<Item>>::new();
        for item in self.0.get(module).into_iter().flatten() {
            let (name, vis, _) = parts(item);
            if !vis.is_some_and(is_public) {
                continue;
            }
            let Item::Use(used) = item else {
                let Some(name) = name.map(ToString::to_string) else { continue };
                named.entry(name.clone()).or_default().extend(self.shown(&joined(module, &name)));
                continue;
            };
            for Leaf { path, name } in leaves(&used.tree) {
                let items = match self.find(module, &path) {
                    Some(place) if name == "*" => self.public_items(&place),
                    Some(place) => self.shown(&place),
                    // A name of another crate, which is shown by its name alone.
                    None => {
                        let mut only: ItemUse = parse_quote!(
                            pub use unknown;
                        );
                        only.attrs.clone_from(&used.attrs);
                        let text = match path.last() {
                            _ if name == "*" => path.join("::") + "::*",
                            Some(last) if *last != name => format!("{} as {name}", path.join("::")),
                            _ => path.join("::"),
                        };
                        only.tree = syn::parse_str(&text).unwrap_or(only.tree);
                        vec![Item::Use(only)]
                    }
                };
                named.entry(name).or_default().extend(items);
            }
        }
        named.into_values().flatten().collect()
    }

    /// Where an item of this library is defined that a module names by a path.
    fn find(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (name, before) = path.split_last()?;
        let place = before.iter().try_fold(module.to_vec(), |place, word| match word.as_str() {
            "crate" => Some(Vec::new()),
            "self" => Some(place),
            "super" => Some(place.split_last()?.1.to_vec()),
            word => Some(joined(&place, word)).filter(|place| self.0.contains_key(place)),
        })?;
        let items = self.0.get(&place)?;
        if items.iter().any(|item| parts(item).0.is_some_and(|known| known == name)) {
            return Some(joined(&place, name));
        }
        let uses = items.iter().filter_map(|item| match item {
            Item::Use(used) => Some(leaves(&used.tree)),
            _ => None,
        });
        let leaf = uses.flatten().find(|leaf| leaf.name == *name && leaf.path != path)?;
        self.find(&place, &leaf.path)
    }

    /// The items of a place, which may be a type and a function of one name, with their implementations.
    fn shown(&self, place: &[String]) -> Vec<Item> {
        let Some((name, module)) = place.split_last() else { return Vec::new() };
        let is_it = |item: &&Item| {
            let (known, vis, _) = parts(item);
            known.is_some_and(|known| known == name) && vis.is_some_and(is_public)
        };
        let mut items: Vec<Item> =
            self.0.get(module).into_iter().flatten().filter(is_it).cloned().collect();
        for item in &mut items {
            if let Item::Mod(inside) = item {
                inside.content = Some((Default::default(), self.public_items(place)));
                inside.semi = None;
            }
        }
        for (module, item) in self.0.iter().flat_map(|(m, items)| items.iter().map(move |i| (m, i)))
        {
            if let Item::Impl(found) = item
                && let Type::Path(of) = &*found.self_ty
                && (found.trait_.is_some() || !found.items.is_empty())
            {
                let words: Vec<_> = of.path.segments.iter().map(|w| w.ident.to_string()).collect();
                if self.find(module, &words).as_deref() == Some(place) {
                    items.push(item.clone());
                }
            }
        }
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

/// The name, visibility and attributes of an item, as far as it has them.
fn parts(item: &Item) -> (Option<&syn::Ident>, Option<&Visibility>, &[Attribute]) {
    match item {
        Item::Fn(it) => (Some(&it.sig.ident), Some(&it.vis), &it.attrs),
        Item::Const(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Static(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Type(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Struct(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Enum(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Union(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Trait(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Mod(it) => (Some(&it.ident), Some(&it.vis), &it.attrs),
        Item::Use(it) => (None, Some(&it.vis), &it.attrs),
        Item::Impl(it) => (None, None, &it.attrs),
        _ => (None, None, &[]),
    }
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

    #[test]
    fn what_is_public_is_shown_with_signatures_and_what_is_private_is_not() {
        let code = "mod inner { /** Docs. */ #[derive(Debug)] pub struct Key { pub id: u8, secret: u8 }\n\
            pub struct Unseen; impl Unseen { pub fn f() {} } #[cfg(test)] mod tests {}\n\
            impl Key { #[must_use] pub fn id(&self) -> u8 { self.id } fn hidden() {} }\n\
            impl Clone for Key { fn clone(&self) -> Self { todo!() } } }\n\
            pub use inner::Key; #[cfg(feature = \"x\")] pub use other::Thing; pub use other::{A as B, m::*};";
        let expected = "pub use other::m::*;\npub use other::A as B;\n\
            #[derive(Debug)]\npub struct Key {\n    pub id: u8,\n    private: _,\n}\n\
            impl Key {\n    pub fn id(&self) -> u8 {}\n}\nimpl Clone for Key {}\n\
            #[cfg(feature = \"x\")]\npub use other::Thing;\n";
        let items = syn::parse_file(code).unwrap().items;
        let mut library = Library::default();
        library.enter(&Shell::new().unwrap(), Vec::new(), items, Path::new("lib.rs")).unwrap();
        assert_eq!(library.api(), expected);
    }

    #[test]
    fn a_change_is_shown_by_its_lines() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "-b\n+c\n");
    }
}
