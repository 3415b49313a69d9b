//! `phi3-run serve`: the HTTP server.

use crate::args::Serve;
use crate::load;
use crate::output::{Outcome, note};
use phi3_runner::{Error, Result};
use phi3_server::{ApiKeys, Server, ServerOptions};

/// Serves until Ctrl-C or SIGTERM.
pub(super) fn serve(args: Serve) -> Result<Outcome> {
    let options = options(&args)?;
    let keyed = !options.api_keys.is_empty();
    let server = Server::bind(options).map_err(failed)?;
    let address = server.address();
    if !keyed && !address.ip().is_loopback() {
        note("note     everyone who reaches this machine can ask; --api-key-file asks for keys");
    }
    let quiet = args.model.quiet;
    let server = server.on_ready(move || note(&format!("serving  http://{address}")));
    match server.run(move || load::server(&args)) {
        Ok(()) => {
            if !quiet {
                note("ended    all requests were answered");
            }
            Ok(Outcome::Done)
        }
        Err(error) => Err(failed(error)),
    }
}

fn options(args: &Serve) -> Result<ServerOptions> {
    let mut model_names = args.served_model_name.clone();
    if model_names.is_empty() {
        // a name for the hub is shorter than the folder of the cache
        let named = args.model.model.as_ref().filter(|path| !path.exists());
        model_names.extend(named.map(|path| path.display().to_string()));
    }
    let api_keys = match &args.api_key_file {
        Some(file) => ApiKeys::read(file).map_err(failed)?,
        None => ApiKeys::default(),
    };
    Ok(ServerOptions {
        host: args.host.clone(),
        port: args.port,
        model_names,
        api_keys,
        allowed_origins: args.allow_origin.clone(),
        allowed_hosts: args.allow_host.clone(),
        max_body: usize::try_from(args.max_body).unwrap_or(usize::MAX),
        max_connections: args.max_connections,
        max_answers: args.max_answers,
        header_time: args.read_timeout,
        body_time: args.read_timeout,
        write_time: args.write_timeout,
        request_time: args.request_timeout,
        drain_time: args.drain_timeout,
        log: args.log_requests,
    })
}

fn failed(error: phi3_server::Error) -> Error {
    match error {
        phi3_server::Error::Model(error) => error,
        error => Error::Program(error.into()),
    }
}
