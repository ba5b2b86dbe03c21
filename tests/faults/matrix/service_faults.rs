//! What can go wrong on an MQTT or an AMQP connection and on no other: the service itself makes it.

use dps_client::{
    ErrorKind::{Connection, Protocol, Rejected, Timeout},
    Stage::{Authenticate, Register},
};
use dps_emulator::{
    AmqpFault,
    ConnectionFault::{self, Amqp, Mqtt},
    MqttFault,
};

use super::plan::{
    Cause, Column, Expect, NOT_THIS_TRANSPORT, OTHER_STEP, Plan, Row, Scenario, fails, row,
};

pub(super) fn rows() -> Vec<Row> {
    let broken = fails(Connection, Register, true);
    let silent = fails(Timeout, Register, true);
    let not_now = fails(Rejected, Register, true);
    let never = fails(Rejected, Register, false);
    let nonsense = fails(Protocol, Register, false);
    let at_register: Vec<(&'static str, ConnectionFault, Expect)> = vec![
        ("cut at the request's packet", Mqtt(MqttFault::CutAfter { packets: 3 }), broken),
        ("answer on another topic", Mqtt(MqttFault::WrongTopic), silent),
        ("topic without a status", Mqtt(MqttFault::NoStatus), nonsense),
        ("DISCONNECT by the service", Mqtt(MqttFault::Disconnect), broken),
        ("answer before PUBACK", Mqtt(MqttFault::AnswerFirst), Expect::Assigned),
        ("attach refused", Amqp(AmqpFault::RefuseAttach), never),
        ("no credit", Amqp(AmqpFault::NoCredit), silent),
        ("small frames, small window", Amqp(AmqpFault::Narrow), Expect::Assigned),
        ("detached", Amqp(AmqpFault::Detach), broken),
        ("detached by force", Amqp(AmqpFault::DetachForced), broken),
        ("detached with an error (500)", Amqp(AmqpFault::DetachWithError), not_now),
        ("session ended", Amqp(AmqpFault::End), broken),
        ("connection closed", Amqp(AmqpFault::Close), broken),
        ("closed with an error (503)", Amqp(AmqpFault::CloseWithError), not_now),
        // The first request of a connection is: the next one is taken.
        ("request released", Amqp(AmqpFault::Release), Expect::Assigned),
        (
            "request modified, undeliverable",
            Amqp(AmqpFault::Modify { undeliverable_here: true }),
            never,
        ),
        ("answer before the disposition", Amqp(AmqpFault::AnswerFirst), Expect::Assigned),
        ("answer as a value", Amqp(AmqpFault::ValueBody), Expect::Assigned),
    ];
    let at_authenticate: Vec<(&'static str, ConnectionFault, Expect)> = vec![
        ("start in one flight refused", Mqtt(MqttFault::RefusePipelining), Expect::Assigned),
        ("cut at CONNECT", Mqtt(MqttFault::CutAfter { packets: 1 }), broken),
        ("open-error and CLOSE", Amqp(AmqpFault::OpenError), fails(Rejected, Authenticate, false)),
    ];
    let at = |step| {
        move |(name, fault, expect): (_, ConnectionFault, Expect)| {
            row(name, move |column: Column| {
                let fits =
                    if matches!(fault, Mqtt(_)) { column.is_mqtt() } else { column.is_amqp() };
                match column.step == step {
                    false => Plan::Not(OTHER_STEP),
                    true if !fits => Plan::Not(NOT_THIS_TRANSPORT),
                    true => Scenario::new(Cause::Connection(fault), expect).into(),
                }
            })
        }
    };
    let registers = at_register.into_iter().map(at(Register));
    registers.chain(at_authenticate.into_iter().map(at(Authenticate))).collect()
}
