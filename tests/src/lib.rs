//! Tests of the workspace; they are in `tests/`.
