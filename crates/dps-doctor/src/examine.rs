//! One examination, layer by layer.

use std::future::{Future, pending};

use tokio::time::timeout;

use crate::{
    check::{Layer, Selection},
    clock, credential,
    finding::{Chart, End},
    hub, name, port, proxy,
    report::Report,
    service, settings,
    subject::Subject,
    tls, way, websocket,
};

/// Looks at all that was selected and at what that depends on, within the time of the subject's
/// [limits](crate::Subject::limits). It needs a tokio runtime with I/O and timer.
///
/// # Cancel safety
/// Dropping the future closes what was open; the system's resolver may finish a lookup on a thread of its own.
pub async fn examine(subject: &Subject, selection: &Selection) -> Report {
    examine_until(subject, selection, pending()).await
}

/// As [`examine`], until something else happens: the report has what was found by then, and says that it is not
/// [whole](Report::is_whole).
///
/// # Cancel safety
/// As of [`examine`].
pub async fn examine_until(
    subject: &Subject,
    selection: &Selection,
    stop: impl Future<Output = ()>,
) -> Report {
    let mut chart = Chart::new(selection, subject);
    let at_its_port = subject.at_its_port();
    let look = look(&at_its_port, selection, &mut chart);
    let end = tokio::select! {
        biased;
        () = stop => End::Stopped,
        looked = timeout(subject.limits.total, look) => match looked {
            Ok(_) => End::Whole,
            Err(_) => End::OutOfTime,
        },
    };
    Report::new(chart.finish(end), end != End::Stopped)
}

/// A layer that is closed ends the examination: what lies behind it can't be looked at.
async fn look(subject: &Subject, selection: &Selection, chart: &mut Chart<'_>) -> Option<()> {
    let reached = |layer: Layer| selection.reaches(layer).then_some(());
    if selection.reaches(Layer::Settings) {
        settings::examine(subject, chart);
    }
    if selection.reaches(Layer::Clock) {
        clock::examine(subject, chart);
    }
    if selection.reaches(Layer::Credential) {
        credential::examine(subject, chart).await;
    }
    if !selection.reaches(Layer::Proxy) && !selection.reaches(Layer::Name) {
        return None;
    }
    let proxy = settings::chosen(subject)?.ok()?;
    let addresses = match &proxy {
        Some(proxy) => {
            name::skip(chart);
            proxy::examine(subject, proxy, chart).await?;
            Vec::new()
        }
        None => {
            proxy::skip(chart);
            name::examine(subject, chart).await?
        }
    };
    reached(Layer::Port)?;
    let mut ports = port::look_at_each(subject).await;
    let asks = selection.reaches(Layer::Service) && subject.id_scope.is_ok();
    let upgrades = match selection.reaches(Layer::WebSocket) || subject.any_transport {
        true => websocket::look(subject, &ports).await,
        false => websocket::Upgrades::default(),
    };
    let way::Way { subject, login } = way::find(subject, &mut ports, &upgrades, asks).await;
    let subject = &subject;
    port::examine(subject, &ports, addresses, proxy.is_some(), chart).await;
    if selection.reaches(Layer::Tls) {
        tls::examine(subject, ports.chosen(subject)?, chart)?;
    }
    if selection.reaches(Layer::WebSocket) {
        websocket::examine(subject, upgrades, chart)?;
    }
    reached(Layer::Service)?;
    let state = service::examine(subject, &ports, login, chart).await?;
    reached(Layer::Hub)?;
    hub::examine(subject, state, chart).await
}
