//! Properties that hold for all inputs.

mod format;
mod list_page;
mod pipeline;
mod plan;
mod plan_mistakes;
mod store_listing;
mod tar;
mod trust;
