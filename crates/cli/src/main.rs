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
#[cfg(feature = "hub")]
mod models;
mod output;
mod perplexity;
mod plan;
mod profile;
mod rows;
mod run;
mod text;
mod thinking;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// A panic is a defect, ours or a library's: it ends the program with one line, like every error. Libraries that panic on
/// damaged files are caught where they are called and print nothing.
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

/// Mesa's drivers complain on standard error where this variable is absent, and use nothing of it to compute.
fn quiet_drivers() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the program has one thread yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}
