//! Several transports of one device: the first that gets through.

mod met;

use std::{fmt, future::poll_fn, pin::pin, task::Poll, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    error::{Error, Stage},
    ids::OperationId,
    progress::{PeerActivity, Progress, Step},
    request::RegistrationRequest,
    response::Response,
    transport::{BoxFuture, TransportHandlers},
};
use met::{Met, no_answer, none_got_through};

/// Several transports, for a device that does not know which of them gets through where it is: the first that is
/// *connected* is taken, and the registration goes over that one.
///
/// A registration begins with the first transport. When its connection does not stand after the head start, all others
/// begin to make theirs beside it; before that, one begins whenever the one before has failed. As soon as one connection
/// stands the others are given up, and nothing of them is left. So a registration takes at most the head start longer
/// than over the transport that works alone, whatever the ports of the others do.
///
/// One that is connected may be dead all the same, as behind a middlebox that lets TLS stand and nothing more. When its
/// connection breaks before the service has answered, the race goes on with those that have not failed yet. When no answer
/// comes within a third of the patience (three times as long as it took to be connected, if that is more), the race goes on
/// beside it, and it is given up when another one *is* connected. Until then its answer counts. It is not given up when it
/// has answered before in this session, or when the peer has acknowledged the request by then.
///
/// So a registration is sent again, once over each transport that takes the place of a dead one. If it had arrived all the
/// same, the service works on both: it may allocate twice or issue two certificates, and the device has the last. What the
/// service says ends the race.
///
/// The polls and the end of the session go over the same transport. So does the next registration, unless that
/// transport has never answered: it was connected in vain then, and begins one more head start after the others.
///
/// [`RegistrationResult::transport`](crate::RegistrationResult::transport) says which one was taken, and
/// [`Step::TransportFailed`] what the others met before. When none gets through, the error is [`Error::Connection`] at the
/// stage of the first, and names what each has met. None has longer than the patience to be connected. One that no other can
/// take the place of waits for its answer as long as the registration does.
///
/// A transport that can't carry the request (MQTT can't force a registration) fails before any I/O, like one that can't be
/// reached.
pub struct Race<T> {
    /// The one that is in use, or was last, comes first.
    entrants: Vec<Entrant<T>>,
    left_out: Vec<(&'static str, String)>,
    head_start: Duration,
    patience: Duration,
    gives_up_silent: bool,
    /// How long the first transport may be silent; `None` unless it has got through and no call to it has failed since.
    silence: Option<Duration>,
}

struct Entrant<T> {
    name: &'static str,
    transport: T,
    standing: Standing,
}

/// What is known of a transport.
#[derive(Clone, Copy, PartialEq)]
enum Standing {
    /// No request went over it yet.
    New,
    /// Requests did, and none has been answered.
    Unanswered,
    Answered,
}

/// A transport that makes its connection.
struct Runner<'a> {
    index: usize,
    name: &'static str,
    start: Instant,
    progress: Progress,
    connecting: BoxFuture<'a, Result<(), Error>>,
}

impl<T: TransportHandlers> Race<T> {
    /// How long the first transport has for itself if nothing else is said.
    pub const HEAD_START: Duration = Duration::from_secs(2);
    /// How long all of them have to connect if nothing else is said.
    pub const PATIENCE: Duration = Duration::from_secs(15);

    /// Takes named transports, the preferred one and the others in the order in which they are tried.
    #[must_use]
    pub fn new(
        preferred: (&'static str, T),
        others: impl IntoIterator<Item = (&'static str, T)>,
    ) -> Self {
        let entrants = [preferred].into_iter().chain(others);
        let entrant = |(name, transport)| Entrant { name, transport, standing: Standing::New };
        Self {
            entrants: entrants.map(entrant).collect(),
            left_out: Vec::new(),
            head_start: Self::HEAD_START,
            patience: Self::PATIENCE,
            gives_up_silent: true,
            silence: None,
        }
    }

    /// Sets how long the preferred transport has for itself, by the runtime's clock.
    #[must_use]
    pub fn head_start(mut self, head_start: Duration) -> Self {
        self.head_start = head_start;
        self
    }

    /// Sets after how long those that are not connected have failed. It should be shorter than
    /// [`Settings::request_timeout`](crate::Settings::request_timeout), which bounds the connection and the request
    /// together: what that ends is a timeout, which does not name each transport.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Lets a transport that is connected have all the time of the registration for its answer, for a device whose
    /// credential takes its time between the request and the answer, as a TPM does.
    #[must_use]
    pub fn waiting_for_answers(mut self) -> Self {
        self.gives_up_silent = false;
        self
    }

    /// Names a transport that takes no part, and why, for the error when none gets through.
    #[must_use]
    pub fn left_out(mut self, name: &'static str, reason: impl Into<String>) -> Self {
        self.left_out.push((name, reason.into()));
        self
    }

    /// Finds the transport to go on with, if none is found yet, and says how long it may be silent. Those that have met
    /// something take no part.
    async fn decide(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
        met: &mut Vec<Met>,
    ) -> Result<Duration, Error> {
        if let Some(silence) = self.silence {
            return Ok(silence);
        }
        // Those that were connected in vain come last, the latest of them at the end.
        if self.entrants.first().is_some_and(Entrant::was_in_vain) {
            self.entrants.rotate_left(1);
        }
        self.entrants.sort_by_key(Entrant::was_in_vain);
        let Self { entrants, head_start, patience, .. } = self;
        match first_connected(entrants, *head_start, *patience, request, progress, met).await? {
            Some(found) => Ok(self.choose(found, progress)),
            None => Err(none_got_through(met, &self.left_out)),
        }
    }

    /// The transport that was found becomes the first. Says how long it may be silent.
    fn choose(&mut self, found: Found, progress: &Progress) -> Duration {
        if let Some(until_it) = self.entrants.get_mut(..=found.index) {
            until_it.rotate_right(1);
        }
        if let Some(Entrant { name, .. }) = self.entrants.first() {
            progress.enter(&Step::TransportChosen { transport: name });
        }
        let silence = (self.patience / 3).max(found.took.saturating_mul(3));
        *self.silence.insert(if self.gives_up_silent { silence } else { Duration::MAX })
    }

    /// The transport that the race has found, for a request that goes over it, and the others.
    fn chosen(&mut self) -> Result<(Chosen<'_, T>, &mut [Entrant<T>]), Error> {
        let (entrant, others) = self.entrants.split_first_mut().ok_or(Error::InvalidOperation)?;
        if entrant.standing == Standing::New {
            entrant.standing = Standing::Unanswered;
        }
        // It is so again once the request is answered: nobody knows what becomes of one that is dropped.
        self.silence = None;
        Ok((Chosen { entrant, silence: &mut self.silence }, others))
    }
}

/// The transport whose connection was the first to stand.
struct Found {
    index: usize,
    /// Since the beginning of the race.
    took: Duration,
}

/// Has the transports make their connections, but for those that have met something; `None` when none is connected.
async fn first_connected<T: TransportHandlers>(
    entrants: &mut [Entrant<T>],
    head_start: Duration,
    patience: Duration,
    request: &RegistrationRequest,
    progress: &Progress,
    met: &mut Vec<Met>,
) -> Result<Option<Found>, Error> {
    let begun = Instant::now();
    let before = met.len();
    let mut waiting: Vec<_> = entrants.iter_mut().enumerate().collect();
    waiting.retain(|(_, entrant)| met.iter().all(|met| met.name != entrant.name));
    let all = waiting.len();
    let promising = waiting.iter().filter(|(_, entrant)| !entrant.was_in_vain()).count();
    let mut waiting = waiting.into_iter();
    let mut running: Vec<Runner<'_>> = Vec::new();
    // Each has its turn, however short the patience is.
    let head_start = head_start.min(patience / 3);
    let mut alone = pin!(sleep(head_start));
    let mut over = pin!(sleep(patience));
    let mut may_begin = 0;
    loop {
        while running.is_empty() || waiting.len() > all - may_begin {
            let Some((index, entrant)) = waiting.next() else { break };
            running.push(entrant.begin(index, request, progress));
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            (runner, outcome) = first_of(&mut running) => match outcome {
                Ok(()) => return Ok(Some(Found { index: runner.index, took: begun.elapsed() })),
                // What signs for the device failed: it would again, on each of them.
                Err(error @ Error::Credential(_)) => return Err(error),
                Err(error) => {
                    met.push(Met::new(runner.index, runner.name, &runner.progress, error));
                }
            },
            () = &mut alone, if may_begin < all => {
                let is_first = may_begin == 0 && waiting.len() > all - promising;
                may_begin = if is_first { promising } else { all };
                alone.as_mut().reset(Instant::now() + head_start);
            }
            () = &mut over => {
                met.extend(running.iter().map(Runner::gives_up));
                break;
            }
        }
    }
    if let Some(last) = met.get_mut(before..) {
        last.sort_by_key(|met| met.index);
    }
    Ok(None)
}

/// What came of a registration that was asked for.
enum Came {
    Ended(Result<Response, Error>),
    /// No answer, and another transport that is connected.
    Another(Found),
}

/// Waits for the answer. When none comes for so long the others are begun beside it, and the wait goes on until one of them
/// is connected. Who has acknowledged the request by then is not dead, and is waited for.
async fn answer_or_another(
    asked: impl Future<Output = Result<Response, Error>>,
    silence: Duration,
    others: impl Future<Output = Result<Option<Found>, Error>>,
    progress: &Progress,
) -> Came {
    use PeerActivity::{Acknowledged, UnmatchedAnswers};
    let mut asked = pin!(asked);
    if let Ok(outcome) = timeout(silence, &mut asked).await {
        return Came::Ended(outcome);
    }
    let is_alive = matches!(progress.activity(), Some(Acknowledged | UnmatchedAnswers(_)));
    tokio::select! {
        biased;
        outcome = &mut asked => Came::Ended(outcome),
        Ok(Some(found)) = others, if !is_alive => Came::Another(found),
    }
}

/// The transport that a request goes over.
struct Chosen<'a, T> {
    entrant: &'a mut Entrant<T>,
    silence: &'a mut Option<Duration>,
}

impl<T> Chosen<'_, T> {
    fn answered(self, mut response: Response) -> Response {
        self.entrant.standing = Standing::Answered;
        *self.silence = Some(Duration::MAX);
        response.transport = Some(self.entrant.name);
        response
    }
}

impl<T> Entrant<T> {
    fn was_in_vain(&self) -> bool {
        self.standing == Standing::Unanswered
    }
}

impl<T: TransportHandlers> Entrant<T> {
    fn begin<'a>(
        &'a mut self,
        index: usize,
        request: &'a RegistrationRequest,
        progress: &Progress,
    ) -> Runner<'a> {
        let Self { name, transport, .. } = self;
        // A timeout of the registration names the stage of the first.
        let progress = if index == 0 { progress.clone() } else { progress.beside() };
        progress.enter(&Step::TryingTransport { transport: name });
        let own = progress.clone();
        let connecting = Box::pin(async move { transport.connect(request, &own).await });
        Runner { index, name, start: Instant::now(), progress, connecting }
    }
}

impl Runner<'_> {
    fn gives_up(&self) -> Met {
        let stage = self.progress.stage().unwrap_or(Stage::Connect);
        Met::not_connected(self.index, self.name, stage, self.start.elapsed())
    }
}

/// The first that has come to its end, taken out; nothing is lost when the future is dropped.
async fn first_of<'a>(running: &mut Vec<Runner<'a>>) -> (Runner<'a>, Result<(), Error>) {
    poll_fn(|cx| {
        for (position, runner) in running.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = runner.connecting.as_mut().poll(cx) {
                return Poll::Ready((running.remove(position), outcome));
            }
        }
        Poll::Pending
    })
    .await
}

impl<T: TransportHandlers> TransportHandlers for Race<T> {
    /// Finds the transport that gets through.
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.decide(request, progress, &mut Vec::new()).await.map(drop)
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let Self { head_start, patience, .. } = *self;
        let is_alone = self.entrants.len() == 1;
        let mut met = Vec::new();
        loop {
            let silence = self.decide(request, progress, &mut met).await?;
            let (begun, before) = (Instant::now(), met.len());
            let (chosen, others) = self.chosen()?;
            let Entrant { name, transport, .. } = &mut *chosen.entrant;
            let asked = transport.registration_request(request, progress);
            let beside = progress.beside();
            let others = first_connected(others, head_start, patience, request, &beside, &mut met);
            let (error, next) = match answer_or_another(asked, silence, others, progress).await {
                Came::Ended(Ok(response)) => return Ok(chosen.answered(response)),
                // No other transport would mend anything else.
                Came::Ended(Err(error @ (Error::Connection(_) | Error::Protocol(_)))) => {
                    (error, None)
                }
                Came::Ended(Err(error)) => return Err(error),
                Came::Another(found) => (no_answer(begun.elapsed()).into(), Some(found)),
            };
            if is_alone {
                return Err(error);
            }
            met.insert(before, Met::new(0, name, progress, error));
            if let Some(found) = next {
                self.entrants.rotate_left(1);
                self.choose(found, progress);
            }
        }
    }

    /// Over the transport that has registered.
    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let (chosen, _) = self.chosen()?;
        let transport = &mut chosen.entrant.transport;
        let response = transport.query_operation_status(request, operation_id, progress).await?;
        Ok(chosen.answered(response))
    }

    /// Of every transport, the one that is in use first. All are ended whatever becomes of one; the error is that of the
    /// first that failed.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.silence = None;
        let mut outcome = Ok(());
        for Entrant { transport, .. } in &mut self.entrants {
            outcome = outcome.and(transport.end_session().await);
        }
        outcome
    }
}

impl<T> fmt::Debug for Race<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.entrants.iter().map(|entrant| entrant.name).collect();
        f.debug_struct("Race")
            .field("transports", &names)
            .field("left_out", &self.left_out)
            .field("head_start", &self.head_start)
            .field("patience", &self.patience)
            .field("gives_up_silent", &self.gives_up_silent)
            .field("silence", &self.silence)
            .finish()
    }
}
