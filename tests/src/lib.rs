//! Tests of the service from outside live in `tests/tests`.
