//! Faults at every command: what the TPM puts off, what it refuses, connections that break, callers that leave.

use std::{
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dps_tpm::{Tpm, TpmConfig, TpmError, TpmKeys};
use tokio::sync::mpsc;

use crate::{
    support::{Act, Middleman, swtpm, wrapped},
    swtpm::Swtpm,
};

const KEY: [u8; 32] = [7; 32];
const NEW_KEY: [u8; 32] = [9; 32];

const RETRY: u32 = 0x922;
const FAILURE: u32 = 0x101;
const FLUSH_CONTEXT: u32 = 0x165;
const EVICT_CONTROL: u32 = 0x120;

#[tokio::test]
async fn commands_that_the_tpm_puts_off_are_sent_again() {
    let swtpm = swtpm!();
    // Each of the four codes, before each command.
    let middleman = Middleman::new(&swtpm, |number, _| {
        [Act::Refuse([RETRY, 0x908, 0x90a, 0x920][number / 2 % 4]), Act::Pass][number % 2]
    });
    let tpm = middleman.tpm();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    tpm.sign(b"text").await.unwrap();
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_tpm_that_puts_everything_off_is_given_up_and_can_be_asked_later() {
    let swtpm = swtpm!();
    let middleman = Middleman::new(&swtpm, |_, _| Act::Refuse(RETRY));
    let error = middleman.tpm().keys().await.unwrap_err();
    assert_eq!(error.to_string(), "the TPM refused TPM_CC_GetCapability: TPM_RC_RETRY (0x922)");
    assert!(error.is_retryable());
    assert_eq!(middleman.seen().len(), 8);
}

type Running = std::pin::Pin<Box<dyn Future<Output = Result<(), TpmError>> + Send>>;

/// A job whose every command is disturbed in turn.
struct Job {
    name: &'static str,
    run: fn(Tpm, TpmKeys) -> Running,
}

const JOBS: [Job; 3] = [
    Job {
        name: "import",
        run: |tpm, keys| {
            Box::pin(async move {
                tpm.import(wrapped(&keys, &KEY)).await?.sign(b"text").await.map(drop)
            })
        },
    },
    Job {
        name: "store",
        run: |tpm, keys| Box::pin(async move { tpm.store(wrapped(&keys, &NEW_KEY)).await }),
    },
    Job { name: "sign", run: |tpm, _| Box::pin(async move { tpm.sign(b"text").await.map(drop) }) },
];

/// How many commands a job takes undisturbed.
async fn commands(swtpm: &Swtpm, job: &Job, keys: &TpmKeys) -> Vec<u32> {
    let middleman = Middleman::new(swtpm, |_, _| Act::Pass);
    (job.run)(middleman.tpm(), keys.clone()).await.unwrap();
    swtpm.tpm().store(wrapped(keys, &KEY)).await.unwrap();
    middleman.seen()
}

/// After whatever happened: the TPM works, nothing is loaded, and the key for the hub is the new one if storing it
/// succeeded, and otherwise the former one or reported to be gone.
async fn check(swtpm: &Swtpm, keys: &TpmKeys, result: &Result<(), TpmError>, job: &Job, at: &str) {
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new(), "{at}");
    let tpm = swtpm.tpm();
    assert_eq!(tpm.keys().await.unwrap(), *keys, "{at}");
    let expected = if job.name == "store" && result.is_ok() { NEW_KEY } else { KEY };
    let expected = tpm.import(wrapped(keys, &expected)).await.unwrap().sign(b"text").await.unwrap();
    match tpm.sign(b"text").await {
        Ok(signature) => {
            assert_eq!(signature, expected, "{at}: {result:?}");
            assert!(!matches!(result, Err(TpmError::KeyLost { .. })), "{at}: {result:?}");
        }
        Err(error) => {
            assert!(matches!(error, TpmError::NoKey { .. }), "{at}: {error}");
            assert!(matches!(result, Err(TpmError::KeyLost { .. })), "{at}: {result:?}");
        }
    }
    tpm.store(wrapped(keys, &KEY)).await.unwrap();
}

async fn disturbed(act: Act) {
    let swtpm = swtpm!();
    let keys = swtpm.tpm().keys().await.unwrap();
    swtpm.tpm().store(wrapped(&keys, &KEY)).await.unwrap();
    for job in &JOBS {
        for (place, code) in commands(&swtpm, job, &keys).await.into_iter().enumerate() {
            let at = format!("{act:?} at command {place} of {} ({code:#x})", job.name);
            let plan = move |number, _| if number == place { act } else { Act::Pass };
            let middleman = Middleman::new(&swtpm, plan);
            let result = (job.run)(middleman.tpm(), keys.clone()).await;
            check(&swtpm, &keys, &result, job, &at).await;
            match code {
                // What was done is done, though something has to be cleaned up in another way.
                FLUSH_CONTEXT => result.expect(&at),
                // It may have been done, though its answer was lost.
                EVICT_CONTROL => {}
                _ => drop(result.expect_err(&at)),
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_of_any_command_leaves_nothing_behind() {
    disturbed(Act::Refuse(FAILURE)).await;
}

#[tokio::test]
async fn a_connection_that_breaks_before_any_command_leaves_nothing_behind() {
    disturbed(Act::CutBefore).await;
}

#[tokio::test]
async fn a_connection_that_breaks_after_any_command_leaves_nothing_behind() {
    disturbed(Act::CutAfter).await;
}

#[tokio::test]
async fn a_future_that_is_dropped_at_any_command_leaves_the_tpm_in_step() {
    let swtpm = swtpm!();
    let keys = swtpm.tpm().keys().await.unwrap();
    swtpm.tpm().store(wrapped(&keys, &KEY)).await.unwrap();
    for job in &JOBS {
        for place in 0..commands(&swtpm, job, &keys).await.len() {
            let at = format!("dropped at command {place} of {}", job.name);
            // The middleman holds the command until the future is gone.
            let (arrived, mut arrival) = mpsc::unbounded_channel();
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let middleman = Middleman::new(&swtpm, move |number, _| {
                if number == place {
                    arrived.send(()).unwrap();
                    wait.recv().unwrap();
                }
                Act::Pass
            });
            let tpm = middleman.tpm();
            tokio::select! {
                _ = (job.run)(tpm.clone(), keys.clone()) => panic!("{at}: it was not held"),
                _ = arrival.recv() => {}
            }
            go.send(()).unwrap();
            // The same TPM, over the same thread.
            assert_eq!(tpm.keys().await.unwrap(), keys, "{at}");
            assert_eq!(swtpm.in_memory(), Vec::<u32>::new(), "{at}");
            tpm.sign(b"text").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_any_more_is_not_begun() {
    let swtpm = swtpm!();
    let (arrived, mut arrival) = mpsc::unbounded_channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let middleman = Middleman::new(&swtpm, move |number, _| {
        if number == 0 {
            arrived.send(()).unwrap();
            wait.recv().unwrap();
        }
        Act::Pass
    });
    let tpm = middleman.tpm();
    let first = tokio::spawn({
        let tpm = tpm.clone();
        async move { tpm.sign(b"first").await }
    });
    arrival.recv().await.unwrap();
    let second = tokio::spawn({
        let tpm = tpm.clone();
        async move { tpm.keys().await }
    });
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    assert!(matches!(first.await.unwrap(), Err(TpmError::NoKey { .. })));
    // Nothing but the first job and this one has been done: no key was made.
    assert!(matches!(tpm.sign(b"third").await, Err(TpmError::NoKey { .. })));
    assert_eq!(swtpm.persistent(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_silent_tpm_is_a_timeout_that_says_what_else_could_have_it() {
    let folder = std::env::temp_dir().join(format!("dps-tpm-silent-{}", std::process::id()));
    let _ = std::fs::remove_file(&folder);
    let _silent = UnixListener::bind(&folder).unwrap();
    let mut config = TpmConfig::new(format!("swtpm:{}", folder.display()).parse().unwrap());
    config.timeout = Duration::from_millis(50);
    let tpm = Tpm::new(config).unwrap();
    for _ in 0..2 {
        let error = tpm.keys().await.unwrap_err();
        assert!(
            error.to_string().ends_with("did not answer TPM_CC_GetCapability within 0.05 s"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("one program at a time"));
        assert!(error.is_retryable());
    }
    std::fs::remove_file(folder).unwrap();
}

#[tokio::test]
async fn a_missing_tpm_is_reported_with_its_address() {
    for (address, says) in [
        ("/nowhere/tpmrm0", "has a TPM 2.0"),
        ("swtpm:/nowhere/socket", "has a TPM 2.0"),
        ("swtpm:127.0.0.1:1", "start the software TPM"),
    ] {
        let tpm = Tpm::new(TpmConfig::new(address.parse().unwrap())).unwrap();
        let error = tpm.keys().await.unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("the TPM {address} can't be opened")),
            "{error}"
        );
        assert!(error.hint().unwrap().contains(says), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_and_no_panic() {
    use std::io::Write;
    for nonsense in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0; 10],
        &[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0],
        &[0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 1, 0],
        &[0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0x80, 1, 0, 0],
    ] {
        let folder = std::env::temp_dir().join(format!("dps-tpm-nonsense-{}", std::process::id()));
        let _ = std::fs::remove_file(&folder);
        let listener = UnixListener::bind(&folder).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            crate::swtpm::read_frame(&mut stream).unwrap();
            stream.write_all(nonsense).unwrap();
        });
        let tpm = Tpm::new(TpmConfig::new(format!("swtpm:{}", folder.display()).parse().unwrap()))
            .unwrap();
        let error = tpm.keys().await.unwrap_err();
        assert!(matches!(error, TpmError::Io { .. }), "{nonsense:02x?}: {error}");
        server.join().unwrap();
        std::fs::remove_file(folder).unwrap();
    }
}

#[tokio::test]
async fn clones_and_other_programs_take_turns() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let others: Vec<_> = (0..4)
        .map(|number| {
            let tpm = if number % 2 == 0 { tpm.clone() } else { swtpm.tpm() };
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                for _ in 0..5 {
                    tpm.sign(b"text").await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 20);
}
