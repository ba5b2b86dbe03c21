//! A folder keeps a whole pair whatever happens while a new one is stored.

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;
use crate::{
    X509Files,
    disk::stop::{STOP, Stop},
};

/// A chain and its key.
struct Pair {
    chain: String,
    key: String,
}

impl Pair {
    fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        Self { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn store(&self, folder: &CertificateFolder) -> Result<(), Error> {
        folder.store(&self.chain, Some(&self.key))
    }

    fn is_in(&self, folder: &CertificateFolder) -> bool {
        folder.load().is_ok_and(|stored| {
            stored.chain_pem() == self.chain.as_bytes()
                && stored.key_pem() == Some(self.key.as_bytes())
                && fs::read_to_string(folder.chain_path()).unwrap() == self.chain
                && fs::read_to_string(folder.key_path()).unwrap() == self.key
        })
    }
}

/// A folder that is not there yet, below one of its own.
fn missing(name: &str) -> CertificateFolder {
    let above = std::env::temp_dir().join(format!("dps-folder-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&above);
    fs::create_dir(&above).unwrap();
    CertificateFolder::open(above.join("pump")).unwrap()
}

fn forget(folder: &CertificateFolder) {
    fs::remove_dir_all(folder.path().parent().unwrap()).unwrap();
}

/// Everything below a folder with what it is: the mode of folders and files, the target of links.
fn listing(path: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(path) else { return found };
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let metadata = entry.metadata().unwrap();
        let what = match fs::read_link(entry.path()) {
            Ok(target) => format!("-> {}", target.display()),
            Err(_) => format!("{:o}", metadata.mode() & 0o7777),
        };
        let below = if metadata.is_dir() { listing(&entry.path()) } else { BTreeMap::new() };
        found.extend(below.into_iter().map(|(below, what)| (format!("{name}/{below}"), what)));
        found.insert(name, what);
    }
    found
}

/// What a folder holds after stores that went well.
fn whole(used: u64, former: Option<u64>) -> BTreeMap<String, String> {
    let mut whole: BTreeMap<String, String> = [
        ("chain.pem", "-> current/chain.pem"),
        ("key.pem", "-> current/key.pem"),
        ("lock", "600"),
        ("pairs", "700"),
    ]
    .map(|(name, what)| (name.to_owned(), what.to_owned()))
    .into();
    whole.insert("current".to_owned(), format!("-> pairs/{used}"));
    for number in former.into_iter().chain([used]) {
        whole.insert(format!("pairs/{number}"), "700".to_owned());
        whole.insert(format!("pairs/{number}/chain.pem"), "600".to_owned());
        whole.insert(format!("pairs/{number}/key.pem"), "600".to_owned());
    }
    whole
}

fn number_in_use(folder: &CertificateFolder) -> u64 {
    folder.used().unwrap().unwrap()
}

/// The process that [`store_and_be_killed`] starts; without its variables it starts one itself.
#[test]
fn a_process_stores_a_pair() {
    let given = |name: &str| std::env::var(format!("DPS_TEST_{name}")).unwrap();
    if std::env::var_os("DPS_TEST_STEP").is_none() {
        let (folder, pair) = (missing("process"), Pair::new("process"));
        assert!(store_and_be_killed(&folder, &pair, u32::MAX) && pair.is_in(&folder));
        return forget(&folder);
    }
    let folder = CertificateFolder::open(given("FOLDER")).unwrap();
    STOP.set(Some((given("STEP").parse().unwrap(), Stop::Kill)));
    folder.store(&given("CHAIN"), Some(&given("KEY"))).unwrap();
}

/// Whether the process came to its end.
fn store_and_be_killed(folder: &CertificateFolder, pair: &Pair, step: u32) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "certificate_folder::tests::a_process_stores_a_pair"]);
    command.env("DPS_TEST_FOLDER", folder.path()).env("DPS_TEST_STEP", step.to_string());
    command.env("DPS_TEST_CHAIN", &pair.chain).env("DPS_TEST_KEY", &pair.key);
    let output = command.output().unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    assert!(output.status.success() || output.status.signal().is_some(), "{output:?}");
    output.status.success()
}

#[test]
fn killed_at_any_step_a_folder_keeps_a_whole_pair() {
    let [first, second, third] = ["first", "second", "third"].map(Pair::new);
    for has_former in [false, true] {
        let mut outcomes = Vec::new();
        for step in 0.. {
            let folder = missing(&format!("killed-{has_former}"));
            if has_former {
                first.store(&folder).unwrap();
            }
            let ended = store_and_be_killed(&folder, &second, step);
            let is_new = second.is_in(&folder);
            let is_former = if has_former { first.is_in(&folder) } else { folder.load().is_err() };
            assert!(is_new || is_former, "step {step}: {:?}", listing(folder.path()));
            outcomes.push(is_new);
            third.store(&folder).unwrap();
            assert!(third.is_in(&folder), "step {step}");
            let used = number_in_use(&folder);
            let former = (used > 1).then(|| used - 1);
            assert_eq!(listing(folder.path()), whole(used, former), "step {step}");
            forget(&folder);
            if ended {
                break;
            }
        }
        assert!(outcomes.len() > 15, "{} steps", outcomes.len());
        assert!(outcomes.is_sorted(), "once in use, the new pair stays: {outcomes:?}");
        assert!(outcomes.contains(&false) && outcomes.ends_with(&[true]), "{outcomes:?}");
    }
}

#[test]
fn what_killed_processes_leave_over_does_not_grow() {
    let folder = missing("grow");
    let pair = Pair::new("first");
    pair.store(&folder).unwrap();
    for step in 0..12 {
        assert!(!store_and_be_killed(&folder, &Pair::new("second"), step), "step {step}");
        assert!(pair.is_in(&folder), "step {step}");
        assert!(listing(folder.path()).len() <= whole(2, Some(1)).len() + 1, "step {step}");
    }
    pair.store(&folder).unwrap();
    assert_eq!(listing(folder.path()), whole(2, Some(1)));
    forget(&folder);
}

#[test]
fn an_error_at_any_step_keeps_a_whole_pair_and_names_the_path_and_what_to_do() {
    let [first, second, third] = ["first", "second", "third"].map(Pair::new);
    // No room, the quota, a read-only disk, no permission, input and output: one after the other, step by step.
    let errors = [
        (28, "; make room on the disk and try again"),
        (122, "; make room on the disk and try again"),
        (30, "; name a folder on a disk that can be written"),
        (13, "; run as the user that owns it, or name another folder"),
        (5, "(os error 5)"),
    ];
    let mut failures = 0;
    for (step, (number, says)) in (0..).zip(errors.into_iter().cycle()) {
        let folder = missing("error");
        first.store(&folder).unwrap();
        third.store(&folder).unwrap();
        STOP.set(Some((step, Stop::Fail(number))));
        let stored = second.store(&folder);
        let untouched = STOP.take().is_some();
        let is_new = second.is_in(&folder);
        assert!(is_new || third.is_in(&folder), "step {step}");
        match stored {
            Ok(()) => assert!(is_new),
            Err(error) => {
                failures += 1;
                let message = error.to_string();
                let path = format!("certificate folder \"{}", folder.path().display());
                assert!(message.starts_with(&path) && message.ends_with(says), "{message}");
                let new = format!("pairs/{}", if is_new { 4 } else { 3 });
                assert!(!listing(folder.path()).contains_key(&new), "step {step}");
            }
        }
        third.store(&folder).unwrap();
        let used = number_in_use(&folder);
        assert_eq!(listing(folder.path()), whole(used, Some(used - 1)), "step {step}");
        forget(&folder);
        if untouched {
            break;
        }
    }
    assert!(failures > 12, "{failures} steps failed");
}

#[test]
fn a_reader_always_finds_a_whole_pair() {
    let folder = missing("reader");
    let pairs: Vec<Pair> = (0..31).map(|number| Pair::new(&format!("pump-{number}"))).collect();
    pairs[0].store(&folder).unwrap();
    let done = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                folder.load().unwrap().identity().unwrap();
                X509Files::open(folder.chain_path(), folder.key_path()).unwrap();
                reads += 1;
            }
            reads
        });
        for pair in &pairs[1..] {
            pair.store(&folder).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 0);
    assert_eq!(listing(folder.path()), whole(31, Some(30)));
    forget(&folder);
}

#[test]
fn a_connection_takes_the_new_pair_at_its_next_handshake() {
    let folder = missing("files");
    Pair::new("first").store(&folder).unwrap();
    let files = X509Files::open(folder.chain_path(), folder.key_path()).unwrap();
    assert_eq!(files.current().common_name(), Some("first"));
    Pair::new("second").store(&folder).unwrap();
    assert_eq!(files.current().common_name(), Some("second"));
    forget(&folder);
}

#[test]
fn of_a_key_that_is_elsewhere_nothing_is_stored() {
    let folder = missing("elsewhere");
    let [first, second] = ["first", "second"].map(Pair::new);
    folder.store(&first.chain, None).unwrap();
    assert!(!listing(folder.path()).contains_key("key.pem"));
    let stored = folder.load().unwrap();
    assert_eq!(stored.key_pem(), None);
    let message = stored.identity().unwrap_err().to_string();
    assert!(message.contains("not stored beside the certificate"), "{message}");
    second.store(&folder).unwrap();
    assert!(second.is_in(&folder));
    folder.store(&first.chain, None).unwrap();
    assert!(!listing(folder.path()).contains_key("key.pem"));
    forget(&folder);
}

/// What stands in the way, put there by somebody else, and the path that the refusal names.
#[test]
fn what_something_else_put_there_is_refused_by_name_and_left_as_it_is() {
    type Put = fn(&Path) -> io::Result<()>;
    let cases: [(&str, Put); 9] = [
        ("chain.pem", |folder| fs::write(folder.join("chain.pem"), "x")),
        ("key.pem", |folder| fs::write(folder.join("key.pem"), "x")),
        ("key.pem", |folder| symlink("/etc/hostname", folder.join("key.pem"))),
        ("chain.pem", |folder| fs::create_dir(folder.join("chain.pem"))),
        ("current", |folder| fs::create_dir(folder.join("current"))),
        ("current", |folder| symlink("elsewhere", folder.join("current"))),
        ("current", |folder| symlink("pairs/../../x", folder.join("current"))),
        ("pairs", |folder| symlink("/tmp", folder.join("pairs"))),
        ("lock", |folder| symlink("/tmp/other", folder.join("lock"))),
    ];
    for (name, put) in cases {
        let folder = missing("foreign");
        make_folder(folder.path()).unwrap();
        put(folder.path()).unwrap();
        let mut before = listing(folder.path());
        let message = Pair::new("first").store(&folder).unwrap_err().to_string();
        let path = folder.path().join(name);
        let says = format!("certificate folder {path:?}: it was put there by something else");
        assert!(message.starts_with(&says), "{message}");
        before.entry("lock".to_owned()).or_insert("600".to_owned());
        assert_eq!(listing(folder.path()), before, "{name}");
        forget(&folder);
    }
    let folder = missing("foreign");
    make_folder(folder.path()).unwrap();
    fs::write(folder.path().join("other.txt"), "x").unwrap();
    fs::create_dir_all(folder.path().join("pairs/old")).unwrap();
    Pair::new("first").store(&folder).unwrap();
    let after = listing(folder.path());
    assert!(after.contains_key("other.txt") && after.contains_key("pairs/old"), "{after:?}");
    forget(&folder);
}

#[test]
fn a_folder_that_can_not_be_used_is_refused_by_name() {
    let folder = missing("refused");
    let above = folder.path().parent().unwrap().to_owned();
    let message =
        |folder: &CertificateFolder| Pair::new("first").store(folder).unwrap_err().to_string();
    let below = CertificateFolder::open(folder.path().join("below")).unwrap();
    assert!(message(&below).ends_with("; make the folder above it first"), "{}", message(&below));
    assert!(CertificateFolder::open("").unwrap_err().to_string().contains("name a folder"));
    let file = above.join("file");
    fs::write(&file, "x").unwrap();
    let error = CertificateFolder::open(&file).unwrap_err().to_string();
    assert!(error.contains("it is no folder"), "{error}");
    let nothing = folder.load().unwrap_err().to_string();
    assert!(nothing.ends_with("no certificate was stored in it yet"), "{nothing}");
    for mode in [0o720, 0o702, 0o777] {
        let open = CertificateFolder::open(above.join(format!("{mode:o}"))).unwrap();
        fs::create_dir(open.path()).unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert!(message(&open).contains("chmod go-w"), "{}", message(&open));
        assert!(listing(open.path()).is_empty());
    }
    forget(&folder);
}

#[test]
fn a_pair_that_was_removed_or_damaged_is_named_and_replaced() {
    type Harm = fn(&Path) -> io::Result<()>;
    let cases: [(&str, Harm); 4] = [
        ("pairs/1/chain.pem\": it was removed; ask", |folder| {
            fs::remove_dir_all(folder.join("pairs"))
        }),
        ("pairs/1/chain.pem\": it was removed; ask", |folder| {
            fs::remove_file(folder.join("pairs/1/chain.pem"))
        }),
        ("pump/chain.pem\": it is empty", |folder| fs::write(folder.join("chain.pem"), "")),
        ("pump\": no certificate was stored in it yet", |folder| {
            fs::remove_file(folder.join("current"))
        }),
    ];
    for (says, harm) in cases {
        let folder = missing("harmed");
        let pair = Pair::new("first");
        pair.store(&folder).unwrap();
        harm(folder.path()).unwrap();
        let message = folder.load().unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
        pair.store(&folder).unwrap();
        assert!(pair.is_in(&folder), "{says}");
        forget(&folder);
    }
}

#[test]
fn what_does_not_belong_together_is_not_stored() {
    let folder = missing("mismatch");
    let [first, second] = ["first", "second"].map(Pair::new);
    first.store(&folder).unwrap();
    for (chain, key, says) in [
        (&*second.chain, Some(&*first.key), "private key: it is not the key of the certificate"),
        (&*second.key, Some(&*second.key), "certificate: "),
        ("", None, "certificate: it is empty"),
        (&*second.chain, Some(""), "private key: it is empty"),
    ] {
        let message = folder.store(chain, key).unwrap_err().to_string();
        assert!(message.starts_with(says), "{message}");
        assert!(first.is_in(&folder));
        assert_eq!(listing(folder.path()), whole(1, None));
    }
    forget(&folder);
}

#[test]
fn the_second_process_is_told_that_another_one_has_the_folder() {
    let folder = missing("locked");
    let pair = Pair::new("first");
    let prepared = folder.prepare().unwrap();
    let message = pair.store(&folder).unwrap_err().to_string();
    assert!(message.contains("lock") && message.contains("another process"), "{message}");
    prepared.store(&pair.chain, Some(&pair.key)).unwrap();
    assert!(pair.is_in(&folder));
    drop(folder.prepare().unwrap());
    pair.store(&folder).unwrap();
    assert_eq!(listing(folder.path()), whole(2, Some(1)));
    forget(&folder);
}
