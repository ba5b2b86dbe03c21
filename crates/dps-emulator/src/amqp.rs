//! The AMQP wire of the service.

mod fault;

pub use fault::{AmqpFault, InfoRetryAfter};
