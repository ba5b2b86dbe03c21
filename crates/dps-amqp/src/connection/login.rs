//! SASL, the part of a start that comes before AMQP.

use dps_state_machine::Response;

use super::{
    Broken, Connection,
    sasl::{self, Login, Mechanism},
};
use crate::codec::{self, Body, Malformed, Protocol, SASL_HEADER};

impl Connection {
    /// Authenticates the device by SASL. Returns the refusal, if the service refuses it.
    pub(super) async fn log_in(
        &mut self,
        login: Login,
        hostname: &str,
        pipelined: bool,
    ) -> Result<Option<Response>, Broken> {
        let mut known = match login {
            Login::None => return Ok(None),
            Login::Known(mechanism) => Some(mechanism),
            Login::Offered => None,
        };
        self.session.out.extend(SASL_HEADER);
        if let Some(mechanism) = known.as_mut().filter(|_| pipelined) {
            self.put_init(mechanism.as_mut());
        }
        if self.header().await? == Protocol::Amqp {
            return Err(Broken::Unfit(Malformed::new(
                "it offers no SASL, which a SAS token needs",
            )));
        }
        // An echo begins otherwise, and would be silent step by step.
        let first = self.frame().await.map_err(|broken| match broken {
            Broken::Nonsense(reason) => Broken::Unfit(reason),
            other => other,
        })?;
        let Body::Mechanisms(offered) = first.body else {
            let wrong = Malformed::new("SASL does not begin with the mechanisms on offer");
            return Err(Broken::Unfit(wrong));
        };
        let announced = known.is_some() && pipelined;
        let mut mechanism = match known {
            Some(mechanism) => {
                // It may have been sent already, but a service that does not offer it need not answer.
                sasl::check(mechanism.name(), &offered).map_err(Broken::Unfit)?;
                mechanism
            }
            // A service that has seen no certificate offers what devices without one do: so it refuses the credential.
            None => match sasl::choose(&offered, hostname) {
                Ok(mechanism) => mechanism,
                Err(unfit) => return Ok(Some(Response::refusal(401, unfit.to_string()))),
            },
        };
        if !announced {
            self.put_init(mechanism.as_mut());
        }
        loop {
            match self.frame().await?.body {
                Body::Challenge(challenge) => {
                    let response = mechanism.respond(&challenge).await?;
                    codec::sasl_response(&mut self.session.out, &response);
                }
                Body::SaslOutcome { code: 0, .. } => return Ok(None),
                Body::SaslOutcome { code, additional_data } => {
                    return Ok(Some(sasl::refusal(code, additional_data, &offered)));
                }
                _ => return Err(Malformed::new("a frame that is none of SASL's").into()),
            }
        }
    }

    fn put_init(&mut self, mechanism: &mut dyn Mechanism) {
        let response = mechanism.initial_response();
        let out = &mut self.session.out;
        // Room for all at once: growing leaves copies behind.
        out.reserve(response.len() + mechanism.hostname().len() + 256);
        codec::sasl_init(out, mechanism.name(), &response, mechanism.hostname());
    }
}
