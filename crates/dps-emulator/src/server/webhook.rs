//! Calls of the webhooks that allocate devices.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::{
    core::{Core, WebhookCall, events::EventKind},
    tls,
};

/// How long the service waits for a webhook.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// How many are called at once.
const MOST: usize = 64;

/// Makes the calls, several at once, until the emulator stops.
pub(crate) async fn call_all(
    mut calls: mpsc::Receiver<WebhookCall>,
    core: Arc<Core>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(call) = calls.recv(), if tasks.len() < MOST => {
                let core = core.clone();
                tasks.spawn(async move { make(&core, &call).await });
            }
            Some(_) = tasks.join_next() => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

async fn make(core: &Core, call: &WebhookCall) {
    let answered = match tokio::time::timeout(PATIENCE, post(call)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("the webhook did not answer within {} s", PATIENCE.as_secs())),
    };
    let chosen = core.service().webhook_answered(call, answered);
    let registration_id = call.registration_id.clone();
    let (hub, reason) = (chosen.clone().ok(), chosen.err());
    core.record(0, EventKind::WebhookAnswered { registration_id, hub, reason });
}

/// Posts to the URL; the body of the answer. No reason repeats the URL, which may have a code in it.
async fn post(call: &WebhookCall) -> Result<Vec<u8>, String> {
    let url: Uri = call.url.parse().map_err(|_| "the webhook's URL can't be read")?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
    if !is_tls {
        return exchange(tcp, &url, call).await;
    }
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(unreachable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host).map_err(unreachable)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    exchange(stream.map_err(unreachable)?, &url, call).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &Uri,
    call: &WebhookCall,
) -> Result<Vec<u8>, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(Full::new(Bytes::copy_from_slice(&call.body)))
        .map_err(unreachable)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the webhook answered {}", response.status().as_u16()));
        }
        match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err("the webhook's answer is larger than 64 KiB".to_owned())
            }
            Err(error) => Err(unreachable(error)),
        }
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(unreachable)?;
            // What had arrived is still to be read.
            answer.await
        }
    }
}

fn unreachable(error: impl std::fmt::Display) -> String {
    format!("the webhook can't be called: {error}")
}
