//! What threads do to each other, tried in many thousand orders: Shuttle decides at each lock, counter and channel which
//! thread goes on, and prints what repeats the run that failed.
//!
//! It is the program's own code, whose `crate::sync` is Shuttle's here. Only the channels are a model ([`channel`]). Not
//! tried: what a processor may reorder (all that matters is handed over under a lock or through a channel).

// What stands for crossbeam-channel, and its own tests.
pub mod channel;
