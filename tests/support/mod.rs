//! Real servers and trees for the tests.
