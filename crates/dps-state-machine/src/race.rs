//! Several transports of one device: the first that gets through.

use std::{fmt, future::poll_fn, mem, pin::pin, task::Poll, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    error::{ConnectionError, Error, Stage},
    ids::OperationId,
    progress::{Progress, Step},
    request::RegistrationRequest,
    response::Response,
    transport::{BoxFuture, TransportHandlers},
};

/// So many characters an error shows of what one transport met.
const BRIEF: usize = 180;

/// Several transports, for a device that does not know which of them gets through where it is: the first that is
/// *connected* is taken, and the registration goes over that one only.
///
/// A registration begins with the first transport. When its connection does not stand after the head start, all others
/// begin to make theirs beside it; before that, one begins whenever the one before has failed. As soon as one connection
/// stands the others are given up, and nothing of them is left. So a registration takes at most the head start longer
/// than over the transport that works alone, whatever the ports of the others do.
///
/// One that is connected may be dead all the same, as behind a middlebox that lets TLS stand and nothing more. When its
/// connection breaks before the service has answered, or no answer comes within a third of the patience (three times as long
/// as the connection took, if that is more), it is given up, and the race goes on with those that have not failed yet. The
/// service takes a registration that was sent twice for one. What the service says ends the race.
///
/// The polls and the end of the session go over the same transport. So does the next registration, unless that
/// transport has never answered: it was connected in vain then, and begins one more head start after the others.
///
/// [`RegistrationResult::transport`](crate::RegistrationResult::transport) says which one was taken, and
/// [`Step::TransportFailed`] what the others met before. When none gets through, the error is [`Error::Connection`] at the
/// stage of the first, and names what each has met. None has longer than the patience to be connected. The last one that is
/// left waits for its answer as long as the registration does.
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
    /// The first transport has got through, and no call to it has failed since.
    is_decided: bool,
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

/// What to do where each transport met something else.
const NOTHING_GETS_THROUGH: &str =
    "look at each of them: the network may let none through, or only through a proxy";

/// What one transport met.
struct Met {
    index: usize,
    name: &'static str,
    /// In words that repeat no secret.
    words: String,
    error: Error,
}

impl Met {
    /// The observer is told, unless the transport took no part because it can't carry the request.
    fn new(index: usize, name: &'static str, progress: &Progress, error: Error) -> Self {
        let words = brief(progress.masked_text(error.to_string()));
        if !matches!(error, Error::Configuration(_)) {
            let failed = Step::TransportFailed { transport: name, reason: words.clone() };
            progress.beside().enter(&failed);
        }
        Self { index, name, words, error }
    }
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
            is_decided: false,
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

    /// The transport to go on with; connected, when it was not before. Those that have met something take no part.
    async fn decide(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
        met: &mut Vec<Met>,
    ) -> Result<(), Error> {
        if self.is_decided {
            return Ok(());
        }
        // Those that were connected in vain come last, the latest of them at the end.
        if self.entrants.first().is_some_and(Entrant::was_in_vain) {
            self.entrants.rotate_left(1);
        }
        self.entrants.sort_by_key(Entrant::was_in_vain);
        let index = self.first_connected(request, progress, met).await?;
        if let Some(until_it) = self.entrants.get_mut(..=index) {
            until_it.rotate_right(1);
        }
        self.is_decided = true;
        if let Some(Entrant { name, .. }) = self.entrants.first() {
            progress.enter(&Step::TransportChosen { transport: name });
        }
        Ok(())
    }

    async fn first_connected(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
        met: &mut Vec<Met>,
    ) -> Result<usize, Error> {
        let Self { entrants, left_out, head_start, patience, .. } = self;
        let before = met.len();
        let mut waiting: Vec<_> = entrants.iter_mut().enumerate().collect();
        waiting.retain(|(_, entrant)| met.iter().all(|met| met.name != entrant.name));
        let all = waiting.len();
        let promising = waiting.iter().filter(|(_, entrant)| !entrant.was_in_vain()).count();
        let mut waiting = waiting.into_iter();
        let mut running: Vec<Runner<'_>> = Vec::new();
        // Each has its turn, however short the patience is.
        let head_start = (*head_start).min(*patience / 3);
        let mut alone = pin!(sleep(head_start));
        let mut over = pin!(sleep(*patience));
        let mut may_begin = 0;
        loop {
            while running.is_empty() || waiting.len() > all - may_begin {
                let Some((index, entrant)) = waiting.next() else { break };
                running.push(entrant.begin(index, request, progress));
            }
            if running.is_empty() {
                return Err(none_got_through(met, before, left_out));
            }
            tokio::select! {
                biased;
                (runner, outcome) = first_of(&mut running) => match outcome {
                    Ok(()) => return Ok(runner.index),
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
                    return Err(none_got_through(met, before, left_out));
                }
            }
        }
    }

    /// The transport that the race has found, for a request that goes over it.
    fn chosen(&mut self) -> Result<Chosen<'_, T>, Error> {
        let entrant = self.entrants.first_mut().ok_or(Error::InvalidOperation)?;
        if entrant.standing == Standing::New {
            entrant.standing = Standing::Unanswered;
        }
        // It is so again once the request is answered: nobody knows what becomes of one that is dropped.
        self.is_decided = false;
        Ok(Chosen { entrant, is_decided: &mut self.is_decided })
    }
}

/// The transport that a request goes over.
struct Chosen<'a, T> {
    entrant: &'a mut Entrant<T>,
    is_decided: &'a mut bool,
}

impl<T> Chosen<'_, T> {
    fn answered(self, mut response: Response) -> Response {
        self.entrant.standing = Standing::Answered;
        *self.is_decided = true;
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
        let seconds = self.start.elapsed().as_secs_f64();
        let message = format!("not connected after {seconds:.1} s, in the stage {stage}");
        let error: Error = ConnectionError::new(stage, message).into();
        let words = brief(error.to_string());
        Met { index: self.index, name: self.name, words, error }
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

/// One error for all. What is no matter of the connection is the same for each, or concerns the first. Those that were
/// connected in vain `before` the last race come first.
fn none_got_through(
    met: &mut Vec<Met>,
    before: usize,
    left_out: &[(&'static str, String)],
) -> Error {
    let mut met = mem::take(met);
    if let Some(last) = met.get_mut(before..) {
        last.sort_by_key(|met| met.index);
    }
    let connections = || {
        met.iter().filter_map(|met| match &met.error {
            Error::Connection(error) => Some(error),
            _ => None,
        })
    };
    let Some(first) = connections().next() else {
        return met.into_iter().next().map_or(Error::InvalidOperation, |met| met.error);
    };
    // Those that met the same are named together.
    let mut words: Vec<(String, String)> = Vec::new();
    let each = met.iter().map(|met| (met.name, &met.words));
    for (name, what) in each.chain(left_out.iter().map(|(name, reason)| (*name, reason))) {
        match words.iter_mut().find(|(_, same)| same == what) {
            Some((names, _)) => *names = format!("{names}, {name}"),
            None => words.push((name.to_owned(), what.clone())),
        }
    }
    let words: Vec<String> = words.iter().map(|(names, what)| format!("{names}: {what}")).collect();
    let message = format!("no transport gets through: {}", words.join("; "));
    let mut error = ConnectionError::new(first.stage, message);
    // What is to be done about one of them is no advice where others met something else.
    error.hint = match connections().all(|error| error.hint == first.hint) {
        true => first.hint.clone(),
        false => Some(NOTHING_GETS_THROUGH.to_owned()),
    };
    error.retryable = connections().any(|error| error.retryable);
    error.request_may_have_been_sent = connections().any(|error| error.request_may_have_been_sent);
    error.source = first.source.clone();
    error.into()
}

fn no_answer(within: Duration) -> ConnectionError {
    let seconds = within.as_secs_f64();
    let message = format!("connected, and then no answer within {seconds:.1} s");
    ConnectionError {
        request_may_have_been_sent: true,
        ..ConnectionError::new(Stage::Register, message)
    }
}

fn brief(text: String) -> String {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl<T: TransportHandlers> TransportHandlers for Race<T> {
    /// Finds the transport that gets through.
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.decide(request, progress, &mut Vec::new()).await
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let mut met = Vec::new();
        loop {
            let begun = Instant::now();
            self.decide(request, progress, &mut met).await?;
            let is_last = met.len() + 1 >= self.entrants.len();
            let bound = (self.patience / 3).max(begun.elapsed().saturating_mul(3));
            let bound = if is_last || !self.gives_up_silent { Duration::MAX } else { bound };
            let chosen = self.chosen()?;
            let name = chosen.entrant.name;
            let asked = chosen.entrant.transport.registration_request(request, progress);
            let error = match timeout(bound, asked).await {
                Ok(Ok(response)) => return Ok(chosen.answered(response)),
                // No other transport would mend anything else.
                Ok(Err(error @ (Error::Connection(_) | Error::Protocol(_)))) => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => no_answer(bound).into(),
            };
            if is_last && met.is_empty() {
                return Err(error);
            }
            let before = met.len();
            met.push(Met::new(0, name, progress, error));
            if is_last {
                return Err(none_got_through(&mut met, before, &self.left_out));
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
        let chosen = self.chosen()?;
        let transport = &mut chosen.entrant.transport;
        let response = transport.query_operation_status(request, operation_id, progress).await?;
        Ok(chosen.answered(response))
    }

    /// Of every transport, the one that is in use first. All are ended whatever becomes of one; the error is that of the
    /// first that failed.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.is_decided = false;
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
            .field("is_decided", &self.is_decided)
            .finish()
    }
}
