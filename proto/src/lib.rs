//! The contract between the three programs: protobuf messages and services, the domain types they become, the chunk
//! frames, and the identity that every connection carries.
mod alive;
pub mod channel;
pub mod errors;
pub mod facts;
pub mod frame;
pub mod health;
pub mod identity;
pub mod model;
pub mod names;
pub mod pki;
pub mod secrets;
pub mod selection;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod survey;
mod tls;
pub mod wire {
    //! Generated from `proto/pgconvoy/v1`. Stops at the door: see [`crate::model`].
    #![allow(clippy::all)]
    tonic::include_proto!("pgconvoy.v1");
}
