//! `phi3-run`: the command line.

mod advice;
mod args;
mod ask;
#[cfg(feature = "hub")]
mod bars;
mod bench;
mod chat;
mod check;
mod devices;
mod fetch;
mod files;
mod kernels;
mod load;
mod logprobs;
#[cfg(feature = "hub")]
mod models;
mod output;
mod perplexity;
mod plan;
mod profile;
mod rows;
mod run;
#[cfg(feature = "server")]
mod serve;
mod text;
mod thinking;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// A panic is a defect and ends the program with one line, like every error. Panics of libraries on damaged files are caught
/// at the call; the hook prints nothing for them.
fn main() -> ExitCode {
    quiet_drivers();
    let place = Arc::new(Mutex::new(String::new()));
    let noted = place.clone();
    std::panic::set_hook(Box::new(move |info| {
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string().replace('\n', " ");
    }));
    catch_unwind(AssertUnwindSafe(run::run)).unwrap_or_else(|_| {
        let place = place.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("error: a defect of phi3-run: {place}; hint: please report this line");
        ExitCode::from(2)
    })
}

/// Sets `XDG_RUNTIME_DIR` if it is absent. Without it Mesa's drivers print a warning; compute does not use it.
fn quiet_drivers() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: this is the only thread so far, so no other one reads or writes the environment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}
