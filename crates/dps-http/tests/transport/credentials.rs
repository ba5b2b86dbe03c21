//! Certificates, tokens and secrets.

use super::*;

#[tokio::test]
async fn a_device_certificate_goes_out_with_its_chain_and_without_a_token() {
    let root = Authority::new("Root CA");
    let device = root.intermediate("Factory CA").device("pump-17");
    for version in [&TLS12, &TLS13] {
        let tls = server_config(&root.server(|_| ()), Some(&root), &[version]);
        let refusal = Answer::with("401 Unauthorized", "", "{}");
        let mut server = Server::start(tls, [Answer::ok("{}"), refusal]).await;
        let config = adjusted(config(&localhost(server.address), root.roots()), |config| {
            config.attestation = device.attestation()
        });
        let mut transport = HttpTransport::new(config).unwrap();
        assert_eq!(register(&mut transport).await.unwrap().hint, None, "{version:?}");
        let (_, head, _) = server.request().await;
        assert!(!head.contains("authorization"), "{head}");
        let hint = register(&mut transport).await.unwrap().hint.unwrap();
        assert!(hint.contains("CN=pump-17") && hint.contains("CN=Factory CA"), "{hint}");
    }
}

#[tokio::test]
async fn a_device_certificate_that_the_server_refuses_is_named() {
    names_a_refused_certificate(|config| HttpTransport::new(config).unwrap()).await;
}

#[tokio::test]
async fn a_certificate_for_another_device_is_refused_before_any_io() {
    let authority = Authority::new("Test CA");
    let steps = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&steps);
    let config = adjusted(config("localhost:1", authority.roots()), |config| {
        config.attestation = authority.device("pump-18").attestation()
    });
    let progress = Progress::new(move |step| tell.lock().unwrap().push(step.clone()));
    let mut transport = HttpTransport::new(config).unwrap();
    let error = transport.registration_request(&request(), &progress).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("pump-17"), "{error}");
    assert_eq!(*steps.lock().unwrap(), [], "nothing was tried");
}

#[tokio::test]
async fn no_secret_is_shown() {
    let address = closed_address();
    let config = adjusted(config("localhost:1", Roots::default()), |config| {
        config.proxy = proxy("me:hunter2@", address).into()
    });
    let mut transport = HttpTransport::new(config).unwrap();
    let error = register(&mut transport).await.unwrap_err();
    let shown = format!("{transport:?} {error:?}");
    for secret in ["hunter2", "aHVudGVyMg", "SharedAccessSignature", "secret key", "c2VjcmV0"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
