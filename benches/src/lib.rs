//! Benchmarks live in this folder, one file a question.
