//! Laws that hold for all inputs.

mod list_page;
mod pipeline;
mod tar;
mod store_listing;

mod trust;
