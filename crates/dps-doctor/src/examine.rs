//! One examination, layer by layer.

use std::{
    future::{Future, pending},
    net::SocketAddr,
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    check::{Layer, Selection},
    clock, credential,
    finding::{Chart, End},
    hub, name,
    port::{self, Ports},
    proxy,
    report::Report,
    service, settings,
    subject::Subject,
    tls,
    way::{Search, Way},
    websocket::{self, Upgrades},
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
    let begun = Instant::now();
    let time = Time { stop: pin!(stop), begun, total: subject.limits.total };
    let looked = look(&at_its_port, selection, &mut chart, time).await;
    let end = looked.err().unwrap_or(End::Whole);
    Report::new(chart.finish(end), end != End::Stopped)
}

/// What ends an examination before it is whole.
struct Time<'a, S> {
    stop: Pin<&'a mut S>,
    begun: Instant,
    total: Duration,
}

impl<S: Future<Output = ()>> Time<'_, S> {
    /// Does a part of it, and leaves so much time for the rest.
    async fn bound<V>(&mut self, work: impl Future<Output = V>, rest: Duration) -> Result<V, End> {
        let left = self.total.saturating_sub(rest).saturating_sub(self.begun.elapsed());
        tokio::select! {
            biased;
            () = self.stop.as_mut() => Err(End::Stopped),
            outcome = timeout(left, work) => outcome.map_err(|_| End::OutOfTime),
        }
    }
}

/// What was seen of the ports.
struct Seen {
    ports: Ports,
    upgrades: Upgrades,
    addresses: Vec<SocketAddr>,
    has_proxy: bool,
}

/// A layer that is closed ends the examination: what lies behind it can't be looked at. The search for the way takes its
/// time where ports are silent: what was seen is told even if that is over meanwhile.
async fn look<S: Future<Output = ()>>(
    subject: &Subject,
    selection: &Selection,
    chart: &mut Chart<'_>,
    mut time: Time<'_, S>,
) -> Result<(), End> {
    let seen = time.bound(look_at_ports(subject, selection, chart), Duration::ZERO).await?;
    let Some(Seen { mut ports, upgrades, addresses, has_proxy }) = seen else { return Ok(()) };
    let asks = selection.reaches(Layer::Service) && subject.id_scope.is_ok();
    let mut search = Search::new(asks);
    let searching = search.run(subject, &mut ports, &upgrades);
    let searched = time.bound(searching, subject.limits.aside).await;
    let Way { subject, login } = search.way(subject);
    let is_connected = tell(&subject, &ports, upgrades, has_proxy, selection, chart);
    match searched {
        Err(End::OutOfTime) if login.is_some() => {}
        searched => searched?,
    }
    let rest = async {
        port::examine_addresses(&subject, &ports, addresses, has_proxy, chart).await;
        is_connected?;
        selection.reaches(Layer::Service).then_some(())?;
        let state = service::examine(&subject, &ports, login, chart).await?;
        selection.reaches(Layer::Hub).then_some(())?;
        hub::examine(&subject, state, chart).await
    };
    time.bound(rest, Duration::ZERO).await.map(drop)
}

async fn look_at_ports(
    subject: &Subject,
    selection: &Selection,
    chart: &mut Chart<'_>,
) -> Option<Seen> {
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
    selection.reaches(Layer::Port).then_some(())?;
    let ports = port::look_at_each(subject).await;
    let upgrades = match selection.reaches(Layer::WebSocket) || subject.any_transport {
        true => websocket::look(subject, &ports).await,
        false => Upgrades::default(),
    };
    Some(Seen { ports, upgrades, addresses, has_proxy: proxy.is_some() })
}

/// `None` when the chosen transport is not connected.
fn tell(
    subject: &Subject,
    ports: &Ports,
    upgrades: Upgrades,
    has_proxy: bool,
    selection: &Selection,
    chart: &mut Chart<'_>,
) -> Option<()> {
    port::examine(subject, ports, has_proxy, chart);
    if selection.reaches(Layer::Tls) {
        tls::examine(subject, ports.chosen(subject)?, chart)?;
    }
    if selection.reaches(Layer::WebSocket) {
        websocket::examine(subject, upgrades, chart)?;
    }
    Some(())
}
