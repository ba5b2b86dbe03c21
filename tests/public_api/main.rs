//! The file `public-api.txt` of each crate says what it makes public, so that a change of the API shows in review.
//! `cargo xtask public-api --bless` writes the files anew.
//!
//! It is read from the source, since rustdoc hands it to programs on nightly only. The lint `unreachable_pub` makes
//! this simple: what is `pub` can be reached by users, so every `pub` item is listed under its file, without its body,
//! with the traits that are derived or implemented; `lib.rs` says by which names users reach it. Its limits: it sees no
//! item that a macro makes and no automatic trait, and it knows no implementation for anything but a type of the crate
//! by its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::Path,
};

use cargo_metadata::MetadataCommand;
use syn::{
    visit_mut::{self, VisitMut},
    *,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn each_library_makes_public_what_its_file_says() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let mut libraries = 0;
    for package in metadata.workspace_packages() {
        if package.publish.is_some() || !package.targets.iter().any(|target| target.is_lib()) {
            continue;
        }
        libraries += 1;
        let folder = package.manifest_path.parent().unwrap();
        let mut files = Vec::new();
        rust_files(folder.join("src").as_std_path(), "/src", &mut files).unwrap();
        files.sort();
        let api = api(files).unwrap();
        let file = folder.join("public-api.txt");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&file, &api).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        let differs = difference(&kept, &api);
        assert!(
            differs.is_none(),
            "{file}:\n{}\n`cargo xtask public-api --bless` writes it",
            differs.unwrap()
        );
    }
    assert!(libraries > 8, "{libraries}");
}

/// The Rust files below a folder, which is called so, with their code.
fn rust_files(folder: &Path, name: &str, files: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            rust_files(&path, &name, files)?;
        } else if name.ends_with(".rs") {
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// The lines that only one of the two has, or has more often.
fn difference(kept: &str, api: &str) -> Option<String> {
    let only = |sign, text: &str, other: &str| {
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        other.lines().for_each(|line| *left.entry(line).or_default() += 1);
        let lines = text.lines().filter(|line| match left.get_mut(line) {
            Some(count @ 1..) => {
                *count -= 1;
                false
            }
            _ => true,
        });
        lines.map(|line| format!("{sign}{line}\n")).collect::<String>()
    };
    (kept != api).then(|| match only('-', kept, api) + &only('+', api, kept) {
        same if same.is_empty() => "the same lines in another order\n".to_owned(),
        lines => lines,
    })
}

/// What the files of a library make public, file by file.
fn api(files: Vec<(String, String)>) -> Result<String> {
    let mut parsed = Vec::new();
    let mut names = Names::default();
    for (path, code) in files {
        let mut file = syn::parse_file(&code).map_err(|error| format!("{path}: {error}"))?;
        names.visit_file_mut(&mut file);
        parsed.push((path, file));
    }
    let mut text = String::new();
    for (path, File { items, .. }) in parsed {
        let of_tests = |word: &str| names.of_tests.contains(word.trim_end_matches(".rs"));
        let items = if path.split('/').any(of_tests) { Vec::new() } else { names.public(items) };
        if !items.is_empty() {
            let file = File { shebang: None, frontmatter: None, attrs: Vec::new(), items };
            let shown = path.rsplit_once("/src/").map_or(&*path, |(_, below)| below);
            text.push_str(&format!("// {shown}\n{}\n", prettyplease::unparse(&file)));
        }
    }
    Ok(text)
}

/// What has to be known of a whole crate before one of its files can be shown.
#[derive(Default)]
struct Names {
    /// Its public types.
    types: BTreeSet<String>,
    /// The modules that only tests and fuzzers compile.
    of_tests: BTreeSet<String>,
}

impl VisitMut for Names {
    fn visit_item_mut(&mut self, item: &mut Item) {
        match item {
            Item::Struct(ItemStruct { ident, vis, .. })
            | Item::Enum(ItemEnum { ident, vis, .. })
            | Item::Type(ItemType { ident, vis, .. })
                if is_public(vis) =>
            {
                _ = self.types.insert(ident.to_string());
            }
            Item::Mod(ItemMod { ident, attrs, .. }) if only_for_tests(attrs) => {
                _ = self.of_tests.insert(ident.to_string());
            }
            _ => {}
        }
        visit_mut::visit_item_mut(self, item);
    }
}

impl Names {
    /// The public items, each as its users see it.
    fn public(&self, items: Vec<Item>) -> Vec<Item> {
        let shown = items.into_iter().filter_map(|mut item| {
            Strip.visit_item_mut(&mut item);
            if let Item::Mod(ItemMod { content: Some((_, inside)), .. }) = &mut item {
                *inside = self.public(std::mem::take(inside));
            }
            self.shows(&item).then_some(item)
        });
        shown.collect()
    }

    fn shows(&self, item: &Item) -> bool {
        match item {
            Item::Fn(ItemFn { vis, attrs, .. })
            | Item::Const(ItemConst { vis, attrs, .. })
            | Item::Static(ItemStatic { vis, attrs, .. })
            | Item::Type(ItemType { vis, attrs, .. })
            | Item::Struct(ItemStruct { vis, attrs, .. })
            | Item::Enum(ItemEnum { vis, attrs, .. })
            | Item::Trait(ItemTrait { vis, attrs, .. })
            | Item::Mod(ItemMod { vis, attrs, .. })
            | Item::Use(ItemUse { vis, attrs, .. }) => is_public(vis) && !only_for_tests(attrs),
            Item::Impl(ItemImpl { attrs, trait_, items, self_ty, .. }) => {
                let Type::Path(of) = &**self_ty else { return false };
                let name = of.path.segments.last().map(|word| word.ident.to_string());
                name.is_some_and(|name| self.types.contains(&name))
                    && !only_for_tests(attrs)
                    && (trait_.is_some() || !items.is_empty())
            }
            _ => false,
        }
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
        let fields = &mut item.fields;
        let mut private = fields.iter().find(|field| !is_public(&field.vis)).cloned();
        if let Some(field) = &mut private {
            field.ty = parse_quote!(_);
            field.ident = field.ident.as_ref().map(|_| parse_quote!(private));
        }
        if let Fields::Named(FieldsNamed { named: all, .. })
        | Fields::Unnamed(FieldsUnnamed { unnamed: all, .. }) = fields
        {
            let public = std::mem::take(all).into_iter().filter(|field| is_public(&field.vis));
            *all = public.chain(private).collect();
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

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

/// Whether only tests or fuzzers compile it.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let mut texts =
        conditions.filter_map(|it| Some(it.meta.require_list().ok()?.tokens.to_string()));
    texts.any(|text| text.contains("test") || text.contains("fuzzing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public_is_shown_with_signatures_and_what_is_private_is_not() {
        let code = "/** Docs. */ #[derive(Debug)] pub struct Key { pub id: u8, secret: u8, other: u8 }\n\
            struct Unseen; impl Clone for Unseen {} #[cfg(test)] mod checks; pub(crate) fn no() {}\n\
            impl Key { #[must_use] pub fn id(&self) -> u8 { self.id } fn hidden() {} }\n\
            impl Clone for Key { fn clone(&self) -> Self { todo!() } }\n\
            impl Key { fn also_hidden() {} } pub enum Of { One(u8) }\n\
            pub mod internal { pub fn f() -> u8 { 1 } use x::y; }";
        let files = [
            ("a/src/checks.rs", "pub fn only_for_tests() {}"),
            ("a/src/key.rs", code),
            ("a/src/lib.rs", "mod key; pub use key::{Key, Of}; #[cfg(fuzzing)] pub fn f() {}"),
            ("a/src/private.rs", "fn f() {}"),
        ];
        let expected = "// key.rs\n#[derive(Debug)]\npub struct Key {\n    pub id: u8,\n    private: _,\n}\n\
            impl Key {\n    pub fn id(&self) -> u8 {}\n}\nimpl Clone for Key {}\npub enum Of {\n    One(u8),\n}\n\
            pub mod internal {\n    pub fn f() -> u8 {}\n}\n\n// lib.rs\npub use key::{Key, Of};\n\n";
        let files = files.map(|(path, code)| (path.to_owned(), code.to_owned()));
        assert_eq!(api(files.to_vec()).unwrap(), expected);
    }

    #[test]
    fn a_change_is_shown_by_its_lines() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "-b\n+c\n");
        assert_eq!(difference("a\nb\na\n", "a\nb\n").unwrap(), "-a\n");
        assert!(difference("a\nb\n", "b\na\n").unwrap().contains("order"));
    }
}
