//! The server with the demo model, over real connections.

mod answers;
mod checks;
mod limits;
mod running;
mod state;
