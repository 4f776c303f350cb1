//! The API server: requests, discovery, kinds, pages of lists, and which objects are selected.

pub mod client;
pub mod discovery;
mod kind;
pub mod list_page;
pub mod selection;

pub use client::{Answer, ApiError, ApiErrorKind, ApiStatus, Cluster, ClusterAccess, Deadlines, StatusCause};
pub(crate) use discovery::page_query;
pub use discovery::{Discovered, StaleGroup, discover};
pub use kind::KindInfo;
pub use list_page::{ItemMeta, ListMeta, Page, PageError, cut, head, line};
pub use selection::{ClusterScoped, Selection, SelectionError};
