//! State that all requests share.

use crate::error::{ApiError, ApiResult};
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::token_texts::TokenTexts;
use phi3_runner::Engine;
use phi3_runner::scheduler::SubmitError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore};

/// Prompts that are tokenized, and pictures that are prepared, at the same time.
const PREPARING: usize = 2;

/// Prompts that are prepared or wait for it.
const MOST_PREPARING: usize = 256;

/// State of the server; clones share it.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    options: ServerOptions,
    /// The engine, from the end of loading on.
    engine: OnceLock<Loaded>,
    metrics: Metrics,
    started: u64,
    draining: AtomicBool,
    /// Requests with answers that are not complete.
    open: AtomicUsize,
    closed: Notify,
    /// Requests that are prepared or wait for it.
    waiting_preparation: Semaphore,
    preparing: Arc<Semaphore>,
}

/// A loaded engine.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    /// Names of the model, the one in answers first.
    pub(crate) names: Vec<String>,
    texts: OnceLock<TokenTexts>,
}

impl Loaded {
    /// The name in answers.
    pub(crate) fn name(&self) -> &str {
        self.names.first().map_or("model", String::as_str)
    }

    /// The model's context in tokens.
    pub(crate) fn context(&self) -> usize {
        self.engine.spec().max_position_embeddings
    }

    /// Texts of single tokens.
    pub(crate) fn texts(&self) -> ApiResult<&TokenTexts> {
        if let Some(texts) = self.texts.get() {
            return Ok(texts);
        }
        let texts = TokenTexts::new(self.engine.tokenizer()?);
        Ok(self.texts.get_or_init(|| texts))
    }

    /// Checks the field `model` of a request.
    pub(crate) fn check_name(&self, name: Option<&str>) -> ApiResult<()> {
        match name {
            Some(name) if !self.names.iter().any(|known| known == name) => {
                let message = format!("model: expected {}, found {name:?}", self.names.join(" or "));
                let error = ApiError::new(axum::http::StatusCode::NOT_FOUND, crate::error::Kind::NotFound, message);
                Err(error.param("model").code("model_not_found"))
            }
            _ => Ok(()),
        }
    }
}

impl App {
    pub(crate) fn new(options: ServerOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            engine: OnceLock::new(),
            metrics: Metrics::new(),
            started: unix_time(),
            draining: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
            waiting_preparation: Semaphore::new(MOST_PREPARING),
            preparing: Arc::new(Semaphore::new(PREPARING)),
        }))
    }

    pub(crate) fn options(&self) -> &ServerOptions {
        &self.0.options
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// When the server started, in seconds since 1970.
    pub(crate) fn started(&self) -> u64 {
        self.0.started
    }

    /// Takes the engine: requests are answered from now on.
    pub(crate) fn loaded(&self, engine: Engine) {
        let mut names = self.0.options.model_names.clone();
        if names.is_empty() {
            let path = engine.source().path();
            names.push(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
        }
        // the first engine stays
        let _ = self.0.engine.set(Loaded { engine, names, texts: OnceLock::new() });
    }

    /// The engine, whether or not new requests are taken.
    pub(crate) fn engine(&self) -> Option<&Loaded> {
        self.0.engine.get()
    }

    /// The engine for a request.
    pub(crate) fn ready(&self) -> ApiResult<&Loaded> {
        if self.is_draining() {
            return Err(ApiError::unavailable("the server is ending; hint: ask another one, or later", "draining"));
        }
        let loading = || ApiError::unavailable("the model is still loading; hint: try again soon", "loading");
        self.engine().ok_or_else(loading)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Takes no new requests from now on.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Counts a request until the result is dropped.
    pub(crate) fn open(&self) -> OpenRequest {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        OpenRequest(self.clone())
    }

    /// Number of requests whose answers are not complete.
    pub(crate) fn open_requests(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until no request is open, at most `time`.
    pub(crate) async fn drained(&self, time: Duration) {
        let all_closed = async {
            loop {
                let closed = self.0.closed.notified();
                if self.open_requests() == 0 {
                    return;
                }
                closed.await;
            }
        };
        let _ = tokio::time::timeout(time, all_closed).await;
    }

    /// Runs work on the processor for a request, such as tokenization, away from the connections.
    ///
    /// # Errors
    ///
    /// Too many requests wait for this, or in the engine; the model is not loaded; those of `work`.
    pub(crate) async fn prepare<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Loaded) -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let busy = || ApiError::busy("too many requests wait; hint: try again later", Duration::from_secs(1));
        if let Some(busy) = self.ready()?.engine.busy(1) {
            return Err(phi3_runner::Error::Submit(SubmitError::Busy(busy)).into());
        }
        let _waiting = self.0.waiting_preparation.try_acquire().map_err(|_| busy())?;
        let permit = self.0.preparing.clone().acquire_owned().await.map_err(|_| busy())?;
        let app = self.clone();
        let task = move || {
            let _permit = permit;
            work(app.ready()?)
        };
        let result = tokio::task::spawn_blocking(task).await;
        result.unwrap_or_else(|_| Err(ApiError::server("a defect of the server ended this request")))
    }
}

/// A request whose answer is not complete.
pub(crate) struct OpenRequest(App);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.closed.notify_waiters();
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
