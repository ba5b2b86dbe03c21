//! What is asked, and what becomes of each kind of answer.

use super::*;

#[tokio::test]
async fn what_goes_over_the_transport() {
    let (mut server, config) = start([Answer::ok("{}"), Answer::ok("{}")]).await;
    let mut transport =
        HttpTransport::new(adjusted(config, |config| config.user_agent = "test/1".to_owned()))
            .unwrap();
    let request = request().model_id("m").force_registration(true);
    transport.registration_request(&request, &Progress::default()).await.unwrap();
    let (_, head, body) = server.request().await;
    let token = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap();
    let prefix = "SharedAccessSignature sr=0ne00AABBCC%2Fregistrations%2Fpump-17&sig=";
    assert!(token.to_lowercase().starts_with(&prefix.to_lowercase()), "{token}");
    assert!(token.ends_with("&skn=registration"), "{token}");
    let host = localhost(server.address);
    let expected = format!(
        "PUT /0ne00AABBCC/registrations/pump-17/register?api-version=2021-06-01&forceRegistration=true HTTP/1.1\r\n\
         accept: application/json\r\n\
         accept-encoding: identity\r\n\
         content-type: application/json; charset=utf-8\r\n\
         user-agent: test/1\r\n\
         authorization: {token}\r\n\
         host: {host}\r\n\
         content-length: 54\r\n\r\n"
    );
    assert_eq!(head, expected);
    assert_eq!(body, br#"{"registrationId":"pump-17","payload":{"modelId":"m"}}"#);

    let odd = operation("a/b?c=d&e#f %2F.é");
    transport.query_operation_status(&request, &odd, &Progress::default()).await.unwrap();
    let (_, head, body) = server.request().await;
    let token = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap();
    let expected = format!(
        "GET /0ne00AABBCC/registrations/pump-17/operations/a%2Fb%3Fc%3Dd%26e%23f%20%252F.%C3%A9?api-version=2021-06-01 HTTP/1.1\r\n\
         accept: application/json\r\n\
         accept-encoding: identity\r\n\
         content-type: application/json; charset=utf-8\r\n\
         user-agent: test/1\r\n\
         authorization: {token}\r\n\
         host: {host}\r\n\r\n"
    );
    assert_eq!(head, expected);
    assert!(body.is_empty());
}

#[tokio::test]
async fn an_operation_id_that_no_url_can_carry_is_the_services_fault() {
    let (_server, config) = start([]).await;
    let mut transport = HttpTransport::new(config).unwrap();
    for id in [".", "..", &"x".repeat(100_000)] {
        let (request, operation, progress) = (request(), operation(id), Progress::default());
        let outcome = transport.query_operation_status(&request, &operation, &progress).await;
        let error = protocol_error(outcome);
        assert_eq!(error.stage, Stage::Query, "{id:?}");
        assert!(error.reason.contains("operation id") && error.reason.len() < 300, "{error}");
    }
}

#[tokio::test]
async fn a_host_goes_into_the_url_as_it_is_or_not_at_all() {
    let (mut server, config) = start([Answer::ok("{}")]).await;
    let upper = format!("LOCALHOST:{}", server.address.port()).parse::<Endpoint>().unwrap();
    register(
        &mut HttpTransport::new(adjusted(config.clone(), |config| config.endpoint = upper))
            .unwrap(),
    )
    .await
    .unwrap();
    let host = format!("host: {}\r\n", localhost(server.address));
    assert!(server.request().await.1.contains(&host));
    // Not everything that may stand in a certificate may stand in a URL.
    let odd = adjusted(config, |config| config.endpoint = "xn--0.example".parse().unwrap());
    let error = register(&mut HttpTransport::new(odd).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("xn--0.example"), "{error}");
}

#[tokio::test]
async fn an_answer_is_handed_up_as_it_came() {
    let html = "<html>503 Service Unavailable</html>";
    let junk = b"\xff\xfe\x00{";
    let location = "Location: https://other.example/\r\n";
    let cases = [
        (Answer::with("202 Accepted", "retry-after: 3\r\n", "{}"), 202, b"{}".to_vec(), Some(3)),
        (Answer::with("200 OK", "Retry-After: 5\r\nretry-after: 7\r\n", ""), 200, vec![], Some(7)),
        (Answer::with("503 Down", "Retry-After: soon\r\n", html), 503, html.into(), None),
        (Answer::with("400 Bad", "Retry-After: -1\r\n", junk), 400, junk.to_vec(), None),
        (Answer::with("302 Found", location, "elsewhere"), 302, b"elsewhere".to_vec(), None),
        (Answer::with("307 Again", location, ""), 307, vec![], None),
        (
            Answer::with("200 OK", "Content-Encoding: gzip\r\n", "not gzip"),
            200,
            b"not gzip".to_vec(),
            None,
        ),
        (Answer::raw("HTTP/1.1 204 No Content\r\n\r\n"), 204, vec![], None),
        (
            Answer::raw(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            ),
            200,
            b"{}".to_vec(),
            None,
        ),
        (Answer::raw("HTTP/1.0 200 OK\r\n\r\n{}").then_close(), 200, b"{}".to_vec(), None),
        (Answer::with("429 Slow", "Set-Cookie: a=b\r\n", ""), 429, vec![], None),
        (Answer::with("999 What", "", ""), 999, vec![], None),
    ];
    let (mut server, config) = start(cases.iter().map(|(answer, ..)| answer.clone())).await;
    let mut transport = HttpTransport::new(config).unwrap();
    for (row, (_, status, body, retry_after)) in cases.into_iter().enumerate() {
        let answer = register(&mut transport).await.unwrap();
        assert_eq!((answer.status, answer.body), (status, body), "row {row}, status {status}");
        assert_eq!(
            answer.retry_after,
            retry_after.map(Duration::from_secs),
            "row {row}, status {status}"
        );
        assert_eq!(answer.hint, None, "row {row}, status {status}");
        assert_eq!(
            answer.protocol_result.get("status"),
            Some(status.to_string().as_str()),
            "row {row}, status {status}"
        );
        let (_, head, _) = server.request().await;
        assert!(!head.contains("cookie"), "{head}");
        assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    }
}

#[tokio::test]
async fn result_metadata_is_kept_in_order() {
    let headers = "x-ms-error-code: 401002\r\nX-Odd: caf\u{e9}\r\nx-odd: 2\r\n";
    let (_server, config) = start([Answer::with("401 Unauthorized", headers, "{}")]).await;
    let answer = register(&mut HttpTransport::new(config).unwrap()).await.unwrap();
    let entries: Vec<_> = answer.protocol_result.iter().collect();
    let expected = [
        ("status", "401"),
        ("version", "HTTP/1.1"),
        ("x-ms-error-code", "401002"),
        ("x-odd", "café"),
        ("x-odd", "2"),
        ("content-length", "2"),
    ];
    assert_eq!(entries, expected);
}

#[tokio::test]
async fn an_answer_is_read_up_to_one_mebibyte() {
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(4 * MIB));
    let chunks = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(17);
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let answers = [
        Answer::ok("x".repeat(MIB)),
        Answer::ok("x".repeat(MIB + 1)),
        Answer::raw(endless),
        Answer::raw(chunked),
        Answer::ok("{}"),
    ];
    let (_server, config) = start(answers).await;
    let mut transport = HttpTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body.len(), MIB);
    for stage in [Stage::Register, Stage::Query, Stage::Query] {
        let outcome = match stage {
            Stage::Register => register(&mut transport).await,
            _ => query(&mut transport).await,
        };
        let error = protocol_error(outcome);
        assert_eq!((error.stage, error.status), (stage, Some(200)), "{stage:?}");
        assert!(error.reason.contains("larger than 1048576"), "{error}");
        assert_eq!(error.protocol_result.get("status"), Some("200"), "{stage:?}");
    }
    assert_eq!(query(&mut transport).await.unwrap().body, b"{}");
}

#[tokio::test]
async fn what_is_not_http_is_nonsense_and_the_next_call_works() {
    let too_many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let too_long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(2 * MIB));
    let nonsense = [
        "220 smtp.example ESMTP\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        &too_many,
        &too_long,
    ];
    for bytes in nonsense {
        let shown: String = bytes.chars().take(60).collect();
        let (_server, config) = start([Answer::raw(bytes), Answer::ok("{}")]).await;
        let mut transport = HttpTransport::new(config).unwrap();
        let error = protocol_error(query(&mut transport).await);
        assert_eq!(error.stage, Stage::Query, "{shown:?}");
        assert!(error.reason.contains("HTTP") || error.reason.contains("encoding"), "{error}");
        assert_eq!(query(&mut transport).await.unwrap().body, b"{}", "{shown:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_read_however_odd_its_head_is() {
    for answer in refusals::odd_heads() {
        let (tls, roots) = trusted_tls();
        let address = refusals::answering(tls, answer.clone(), Cut::Closed).await;
        let mut transport = HttpTransport::new(config(&localhost(address), roots)).unwrap();
        let response = query(&mut transport).await.unwrap();
        refusals::is_kept(&response, 429, &answer);
        assert_eq!(response.body, refusals::JSON.as_bytes(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_does_not_come_whole_keeps_its_status() {
    let (tls, roots) = trusted_tls();
    let cases = refusals::cut_bodies().into_iter().map(|(status, cut, answer)| {
        let (tls, roots) = (tls.clone(), roots.clone());
        async move {
            let address = refusals::answering(tls, answer.clone(), cut).await;
            let mut transport = HttpTransport::new(config(&localhost(address), roots)).unwrap();
            let response = query(&mut transport).await;
            refusals::is_kept(
                &response.unwrap_or_else(|e| panic!("{status} {cut:?}: {e}")),
                status,
                &answer,
            );
        }
    });
    futures_util::future::join_all(cases).await;
}

/// Below 300 a body that does not come whole is no answer.
#[tokio::test]
async fn a_success_whose_body_does_not_come_whole_is_a_lost_connection() {
    let (tls, roots) = trusted_tls();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}".to_vec();
    let address = refusals::answering(tls, answer, Cut::Closed).await;
    let mut transport = HttpTransport::new(config(&localhost(address), roots)).unwrap();
    let error = connection_error(query(&mut transport).await);
    assert!(error.lost && error.retryable, "{error:?}");
}
