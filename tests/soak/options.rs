//! The options of the command line.

use std::{str::FromStr, time::Duration};

use dps_client::Transport;

use crate::Result;

/// One part of the soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Endurance,
    Crowd,
    Abuse,
}

/// How much of what.
#[derive(Debug)]
pub(crate) struct Options {
    /// Registrations on each transport.
    pub(crate) registrations: usize,
    /// Registrations at once.
    pub(crate) crowd: usize,
    /// How long each abuse lasts.
    pub(crate) abuse: Duration,
    /// Whether it is the long form.
    pub(crate) long: bool,
    /// Of the abuses, those whose name has this.
    pub(crate) named: String,
    transports: Vec<Transport>,
    only: Option<Part>,
}

const USAGE: &str = "soak [--registrations N] [--crowd N] [--abuse-seconds N] [--transport NAME].. \
                     [--only endurance|crowd|abuse] [--named TEXT]";

/// From here on it is the long form: the crowd grows with it, and the abuses in number and time.
const LONG: usize = 1000;

impl Options {
    pub(crate) fn read(arguments: &[String]) -> Result<Self> {
        let (mut registrations, mut crowd, mut seconds) = (300, None, None::<f64>);
        let (mut transports, mut only, mut named) = (Vec::new(), None, String::new());
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name}: no value; {USAGE}"))?;
            match name.as_str() {
                "--registrations" => registrations = number(name, value)?,
                "--crowd" => crowd = Some(number(name, value)?),
                "--abuse-seconds" => seconds = Some(number(name, value)?),
                "--transport" => {
                    let transport: Transport = value.parse()?;
                    transport.ensure_built()?;
                    transports.push(transport);
                }
                "--named" => named.clone_from(value),
                "--only" => only = Some(value.parse()?),
                _ => return Err(format!("{name:?} is no option; {USAGE}").into()),
            }
        }
        // Who asks for some abuses by name wants them all.
        let long = registrations >= LONG || !named.is_empty();
        if transports.is_empty() {
            transports =
                Transport::ALL.into_iter().filter(|transport| transport.is_built()).collect();
        }
        Ok(Self {
            registrations,
            crowd: crowd.unwrap_or(if long { 1000 } else { 100 }),
            abuse: Duration::try_from_secs_f64(seconds.unwrap_or(if long { 10.0 } else { 0.3 }))?,
            long,
            named,
            transports,
            only,
        })
    }

    /// The parts that are asked for.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        let only = self.only;
        [Part::Endurance, Part::Crowd, Part::Abuse]
            .into_iter()
            .filter(move |part| only.is_none_or(|only| only == *part))
    }

    /// The transports that are asked for; all that are built, by default.
    pub(crate) fn transports(&self) -> impl Iterator<Item = Transport> + Clone {
        self.transports.clone().into_iter()
    }
}

fn number<N: FromStr>(name: &str, value: &str) -> Result<N> {
    value.parse().map_err(|_| format!("{name} {value:?}: give a number; {USAGE}").into())
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "endurance" => Ok(Self::Endurance),
            "crowd" => Ok(Self::Crowd),
            "abuse" => Ok(Self::Abuse),
            _ => Err(format!("--only {text:?}: there are endurance, crowd and abuse")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        Options::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_long_form_is_long_in_all_its_parts() {
        let (short, long) = (read("").unwrap(), read("--registrations 10000").unwrap());
        assert!(short.crowd < long.crowd && short.abuse < long.abuse);
        assert_eq!(read("--registrations 10000 --crowd 5").unwrap().crowd, 5);
        assert_eq!(read("--only crowd").unwrap().parts().collect::<Vec<_>>(), [Part::Crowd]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for line in ["--crowd", "--crowd many", "--only all", "--transport pigeon", "now please"] {
            let message = read(line).unwrap_err().to_string();
            let culprit = line.split_whitespace().next().unwrap();
            assert!(message.contains(culprit) || message.contains("pigeon"), "{message}");
        }
    }
}
