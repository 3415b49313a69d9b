//! What threads wait with. `tests/loom` compiles the modules that use this with loom's types of the same names.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
