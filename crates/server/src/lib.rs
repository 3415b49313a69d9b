//! An OpenAI-compatible HTTP server for an [`Engine`].
//!
//! ```no_run
//! use phi3_runner::Engine;
//! use phi3_server::{Server, ServerOptions};
//!
//! let server = Server::bind(ServerOptions::default())?;
//! println!("listening on http://{}", server.address());
//! server.run(|| Engine::builder().build())?; // until Ctrl-C or SIGTERM
//! # Ok::<(), phi3_server::Error>(())
//! ```

mod answers;
mod body;
mod connection;
mod error;
mod events;
mod guard;
mod metrics;
mod openapi;
mod options;
mod protocol;
mod routes;
mod state;
mod token_texts;

pub use error::{Error, Result};
pub use options::{ApiKeys, ServerOptions};

use axum::http::HeaderValue;
use phi3_runner::Engine;
use state::App;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// Threads for connections. The engine has its own.
const THREADS: usize = 2;

/// A server that listens.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    ready: Box<dyn FnOnce() + Send>,
}

impl Server {
    /// Listens on the address of the options. Nothing is answered before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] if the address is in use or not this machine's, [`Error::Origin`] for an allowed origin that is none, and
    /// [`Error::Runtime`].
    pub fn bind(options: ServerOptions) -> Result<Self> {
        for origin in &options.allowed_origins {
            let is_origin =
                origin.split_once("://").is_some_and(|(_, place)| !place.is_empty() && !place.contains('/'));
            if origin != "*" && (!is_origin || HeaderValue::from_str(origin).is_err()) {
                return Err(Error::Origin { found: origin.clone() });
            }
        }
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("phi3-server").enable_all().build();
        let runtime = runtime.map_err(Error::Runtime)?;
        let bound = runtime.block_on(connection::listen(&options));
        let failed = |source| Error::Bind { host: options.host.clone(), port: options.port, source };
        let listener = bound.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { runtime, listener, address, app: App::new(options), ready: Box::new(|| ()) })
    }

    /// The address, with the port that was taken if the options name port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls `ready` when the model is loaded and requests are taken.
    #[must_use]
    pub fn on_ready(self, ready: impl FnOnce() + Send + 'static) -> Self {
        Self { ready: Box::new(ready), ..self }
    }

    /// Loads a model and serves requests until Ctrl-C or SIGTERM; then the open requests are completed and new ones refused. A second
    /// signal ends them. While the model loads, and while open requests are completed, `/health` has the status 503.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if loading fails, and [`Error::Undrained`] if open requests were not complete at the second signal, or within
    /// [`drain_time`](ServerOptions::drain_time).
    pub fn run(self, load: impl FnOnce() -> phi3_runner::Result<Engine> + Send + 'static) -> Result<()> {
        self.run_with(load, signal(), signal())
    }

    /// The same until `shutdown` ends, in place of the signals.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_until(
        self,
        load: impl FnOnce() -> phi3_runner::Result<Engine> + Send + 'static,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        self.run_with(load, shutdown, std::future::pending())
    }

    fn run_with(
        self,
        load: impl FnOnce() -> phi3_runner::Result<Engine> + Send + 'static,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<()> {
        let Self { runtime, listener, app, ready, .. } = self;
        let result = runtime.block_on(serve(listener, app, load, ready, shutdown, hurry));
        // an engine that still loads is not waited for
        runtime.shutdown_background();
        result
    }
}

/// Ends at Ctrl-C, and on Unix at SIGTERM.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}

async fn serve(
    listener: TcpListener,
    app: App,
    load: impl FnOnce() -> phi3_runner::Result<Engine> + Send + 'static,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
    hurry: impl Future<Output = ()>,
) -> Result<()> {
    let (close, closing) = watch::channel(false);
    let connections = tokio::spawn({
        let app = app.clone();
        async move { connection::serve(listener, routes::router(&app), app.options(), closing).await }
    });
    let mut shutdown = std::pin::pin!(shutdown);
    let loaded = tokio::select! {
        loaded = tokio::task::spawn_blocking(load) => loaded.map(Some),
        () = shutdown.as_mut() => Ok(None),
    };
    let result = match loaded {
        Ok(Some(Ok(engine))) => {
            app.loaded(engine);
            ready();
            shutdown.await;
            app.drain();
            tokio::select! {
                () = app.drained(app.options().drain_time) => {}
                () = hurry => {}
            }
            match app.open_requests() {
                0 => Ok(()),
                open => Err(Error::Undrained(open)),
            }
        }
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Ok(()),
        Err(_) => Err(phi3_runner::Error::Unfinished.into()),
    };
    // the connections are told to end whether or not they still listen
    let _ = close.send(true);
    let _ = connections.await;
    result
}
