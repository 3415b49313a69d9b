//! Models by name: a small client of the Hugging Face hub.
//!
//! Downloads go to the cache of Python's `huggingface_hub`, in the same layout: each program finds the other's files. A
//! download interrupted by a broken connection or by the end of the process is resumed. The length and the checksum of a
//! file are checked as far as the hub reports them. The token is sent to the hub only.
//!
//! Names are parsed without network access:
//!
//! ```
//! use phi3_hub::ModelName;
//!
//! let name: ModelName = "phi-4-mini:q4_k_m".parse()?;
//! assert_eq!(name.repo().as_str(), "bartowski/microsoft_Phi-4-mini-instruct-GGUF");
//! let name: ModelName = "https://huggingface.co/microsoft/phi-4/tree/main".parse()?;
//! assert_eq!((name.repo().as_str(), name.revision()), ("microsoft/phi-4", "main"));
//! # Ok::<(), phi3_hub::Error>(())
//! ```
//!
//! The cache is searched without network access:
//!
//! ```
//! use phi3_hub::{Hub, Settings, Wanted};
//!
//! let empty = tempfile::tempdir()?;
//! let hub = Hub::new(Settings::new(empty.path()));
//! assert_eq!(hub.cached(&"microsoft/phi-4".parse()?, Wanted::Model)?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Hub::get`] downloads missing files:
//!
//! ```no_run
//! use phi3_hub::{Event, Hub, Wanted, Watch};
//! use std::sync::atomic::AtomicBool;
//!
//! let stop = AtomicBool::new(false); // set it to stop the download; received bytes are kept
//! let mut tell = |event| {
//!     if let Event::Progress { file, done } = event {
//!         println!("{file}: {done} bytes");
//!     }
//! };
//! let hub = Hub::from_env()?;
//! let model = hub.get(&"phi-4-mini".parse()?, Wanted::Model, &mut Watch { stop: &stop, tell: &mut tell })?;
//! println!("{}", model.path.display());
//! # Ok::<(), phi3_hub::Error>(())
//! ```

mod api;
mod cache;
mod error;
mod fetch;
mod http;
mod hub;
mod names;
mod partial;
mod safe;
mod scan;
mod select;
mod settings;
mod table;
mod tls;
mod url;
mod watch;

pub use api::{Listing, Metadata, RemoteFile};
pub use error::{Error, Result};
pub use hub::{Hub, Local};
pub use names::{MAIN, ModelName, Part, RepoId};
pub use safe::FilePath;
pub use scan::{CachedRepo, CachedRevision, Removed};
pub use select::Wanted;
pub use settings::{PUBLIC_ENDPOINT, Proxies, Settings, Token};
pub use table::{SHORT_NAMES, ShortName};
pub use watch::{Event, Watch};
