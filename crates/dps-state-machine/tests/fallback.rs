//! Several credentials: the next one is tried when the service refuses the identity, and never otherwise.
#![expect(clippy::expect_used, reason = "a test may fail")]

use std::{
    slice::from_ref,
    sync::{Arc, Mutex},
    time::Duration,
};

use dps_simulator::{Call, Transport, answers::*, settings};
use dps_state_machine::{
    Error, ErrorKind, Fallback, RegistrationResult, Response, StateMachine, Step, TimeoutScope,
};

/// What each credential's transport answers, which one is taken, and how often each registers and polls.
type Row<'a> = (&'a [&'a [Answer]], usize, &'a [(usize, usize)]);

/// A device with several credentials, and what each one's transport answers.
struct Device {
    transports: Vec<Transport>,
    machine: StateMachine<Fallback<Transport>>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Device {
    fn new(answers: &[&[Answer]]) -> Self {
        let transports: Vec<_> =
            answers.iter().map(|answers| Transport::answering(answers.to_vec())).collect();
        let (first, others) = transports.split_first().expect("a credential");
        let fallback = Fallback::new(first.clone(), others.to_vec());
        let machine = StateMachine::new(fallback, settings());
        let steps = Arc::<Mutex<Vec<Step>>>::default();
        let seen = Arc::clone(&steps);
        machine.observe(move |step| seen.lock().expect("a list").push(step.clone()));
        Self { transports, machine, steps }
    }

    async fn register(&self) -> Result<RegistrationResult, Error> {
        self.machine.register(request()).await
    }

    /// How many times each credential registered, and how many times it polled.
    fn calls(&self) -> Vec<(usize, usize)> {
        self.transports.iter().map(|transport| transport.calls_of("dev-1")).collect()
    }

    /// The credentials that were given up, in their order.
    fn given_up(&self) -> Vec<usize> {
        let steps = self.steps.lock().expect("a list");
        let of_it = |step: &Step| match step {
            Step::CredentialRefused { credential } => Some(*credential),
            _ => None,
        };
        steps.iter().filter_map(of_it).collect()
    }
}

/// A registration that was accepted and has failed, for its credential when the code says so.
fn failed(code: u32) -> Answer {
    let state = format!(r#"{{"errorCode":{code},"errorMessage":"no"}}"#);
    let body = format!(r#"{{"operationId":"op-1","status":"failed","registrationState":{state}}}"#);
    Ok(Response::new(200, body))
}

fn bare(status: u16) -> Answer {
    Ok(Response::refusal(status, "not authorized"))
}

#[tokio::test(start_paused = true)]
async fn the_next_credential_is_tried_when_the_service_refuses_the_identity() {
    let wrapped = r#"{"errorCode":400000,"message":"{\"errorCode\":401002,\"message\":\"no\"}"}"#;
    let wrapped = || Ok(Response::new(400, wrapped));
    let (yes, no) = (assigned(), refused(401_002, None));
    let rows: &[Row<'_>] = &[
        (&[from_ref(&yes), &[]], 0, &[(1, 0), (0, 0)]),
        (&[from_ref(&no), from_ref(&yes)], 1, &[(1, 0), (1, 0)]),
        (&[&[bare(401)], from_ref(&yes)], 1, &[(1, 0), (1, 0)]),
        (&[&[wrapped()], from_ref(&yes)], 1, &[(1, 0), (1, 0)]),
        (&[from_ref(&no), &[bare(401)], from_ref(&yes)], 2, &[(1, 0), (1, 0), (1, 0)]),
        (&[from_ref(&no), &[assigning(), yes.clone()]], 1, &[(1, 0), (1, 1)]),
        // Refused after it was accepted: the other credential begins from the start.
        (&[&[assigning(), failed(401_002)], from_ref(&yes)], 1, &[(1, 1), (1, 0)]),
        (&[&[assigning(), no.clone()], &[assigning(), yes.clone()]], 1, &[(1, 1), (1, 1)]),
        // What one credential has begun the other does not ask about, even when it is throttled first.
        (
            &[&[assigning(), no.clone()], &[refused(429_001, Some(5)), assigning(), yes.clone()]],
            1,
            &[(1, 1), (2, 1)],
        ),
        (
            &[from_ref(&no), &[refused(500_000, None), refused(429_001, None), yes.clone()]],
            1,
            &[(1, 0), (3, 0)],
        ),
    ];
    for (answers, taken, calls) in rows {
        let device = Device::new(answers);
        let registered = device.register().await;
        let row = format!("{answers:?}: {registered:?}");
        assert_eq!(registered.unwrap().credential, *taken, "{row}");
        assert_eq!(device.calls(), *calls, "{row}");
        assert_eq!(device.given_up(), (0..*taken).collect::<Vec<_>>(), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_refused_identity_changes_the_credential() {
    let rows: &[(&[Answer], Result<(), ErrorKind>)] = &[
        (&[refused(429_001, Some(3)), assigned()], Ok(())),
        (&[refused(500_000, None), refused(503_000, None), assigned()], Ok(())),
        (&[refused(409_203, None), assigned()], Ok(())),
        (&[assigning(), lost(), assigned()], Ok(())),
        (&[assigning(), refused(429_001, None), assigned()], Ok(())),
        (&[broken()], Err(ErrorKind::Connection)),
        (&[lost()], Err(ErrorKind::Connection)),
        (&[unreadable()], Err(ErrorKind::Protocol)),
        (&[refused(400_004, None)], Err(ErrorKind::Rejected)),
        (&[refused(403_000, None)], Err(ErrorKind::Rejected)),
        (&[refused(404_201, None)], Err(ErrorKind::Rejected)),
        (&[failed(400_207)], Err(ErrorKind::Rejected)),
        (&[status("disabled")], Err(ErrorKind::Rejected)),
        (
            &[Err(dps_state_machine::CredentialError::new("busy").into())],
            Err(ErrorKind::Credential),
        ),
        (&[], Err(ErrorKind::Timeout)),
    ];
    for (answers, outcome) in rows {
        let device = Device::new(&[answers, &[assigned()]]);
        let registered = device.register().await;
        let row = format!("{answers:?}: {registered:?}");
        let credential = registered.map(|result| result.credential).map_err(|e| e.kind());
        assert_eq!(credential, outcome.map(|()| 0), "{row}");
        assert_eq!(device.calls()[1], (0, 0), "{row}");
        assert!(device.given_up().is_empty(), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_refused_the_error_is_of_the_last_and_says_so() {
    let hinted = |hint: &str| {
        let response: Response = refused(401_002, None).unwrap();
        Ok(response.hint(Some(hint.to_owned())))
    };
    for number in 2..5 {
        let answers = (0..number).map(|of| vec![hinted(&format!("clock {of}"))]);
        let answers: Vec<Vec<Answer>> = answers.collect();
        let device = Device::new(&answers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let error = device.register().await.unwrap_err();
        assert_eq!((error.status(), error.error_code()), (Some(401), Some(401_002)), "{number}");
        let hint = error.hint().unwrap();
        let last = number - 1;
        let says =
            format!("each of the {number} credentials was refused; of the last: clock {last}");
        assert!(hint.ends_with(&says), "{hint}");
        assert_eq!(device.calls(), vec![(1, 0); number], "each once");
        // The next registration begins with the first one again.
        device.transports[0].then(Duration::ZERO, assigned());
        assert_eq!(device.register().await.unwrap().credential, 0, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_begins_with_the_credential_that_was_taken_last() {
    let no = || refused(401_002, None);
    let device = Device::new(&[&[no(), assigned()], &[assigned(), assigned(), no()]]);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(device.register().await.unwrap().credential);
    }
    assert_eq!(taken, [1, 1, 0]);
    assert_eq!(device.calls(), [(2, 0), (3, 0)]);
    device.machine.end_session().await.unwrap();
    for transport in &device.transports {
        assert_eq!(transport.calls().last(), Some(&Call::End), "each had a connection");
    }
}

#[tokio::test(start_paused = true)]
async fn all_credentials_together_have_the_time_of_one_registration() {
    let device = Device::new(&[&[assigning(), refused(401_002, None)], &[]]);
    for _ in 0..100 {
        device.transports[1].then(Duration::ZERO, refused(429_001, Some(30)));
    }
    let start = tokio::time::Instant::now();
    let error = device.register().await.unwrap_err();
    assert!(start.elapsed() <= settings().registration_timeout, "{error}");
    assert!(device.calls()[1].0 > 1, "{error}");

    // One that never answers is cut off as it is with one credential, and the next registration asks it anew.
    let device = Device::new(&[&[refused(401_002, None)], &[]]);
    let error = device.register().await.unwrap_err();
    let Error::Timeout(timeout) = &error else { panic!("{error}") };
    assert_eq!(timeout.scope, TimeoutScope::Request);
    device.transports[1].be_healthy();
    assert_eq!(device.register().await.unwrap().credential, 1);
}
