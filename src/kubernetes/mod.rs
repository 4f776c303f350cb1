//! The API server: requests, discovery, kinds, pages of lists, and which objects are selected.

mod access;
mod access_review;
mod api_error;
pub mod client;
pub mod discovery;
mod kind;
pub mod list_page;
mod listed_objects;
mod nesting;
pub mod pod_spec;
mod recorded_selection;
mod referenced_kinds;
pub mod selection;
mod storage_versions;

pub use access_review::{Access, is_allowed};
pub use api_error::{ApiError, ApiErrorKind, ApiStatus, StatusCause};
pub use client::{ApiResponse, Cluster, RequestLimits};
pub use discovery::{Discovered, StaleGroup, discover};
pub use kind::KindInfo;
pub use list_page::{ItemMeta, ListMeta, ListPage, PageError, read_item_meta, split_list, to_json_line};
pub(crate) use list_page::{encode_query, page_query};
pub(crate) use listed_objects::ListedObjects;
#[cfg(any(test, feature = "testing"))]
pub use nesting::steps_so_far;
pub use nesting::{MAX_NESTING, count_step, is_empty_collection, nesting_of};
pub use recorded_selection::{RecordedSelection, SelectedNamespaces};
pub use referenced_kinds::has_definition;
pub use selection::{Selection, SelectionError};
